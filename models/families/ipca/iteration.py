"""Anderson-accelerated alternating least squares on the space that Gamma spans, safeguarded.

Here belongs how steps are iterated and when they have settled. The steps themselves belong in `steps`.

The steps do not care how Gamma is turned or stretched, nor how much of Gamma_beta is mixed into the coefficients of
given series: `_in_chart` removes that freedom, so that what is extrapolated has one value per model.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import scipy.linalg

from models.arrays import FloatArray
from models.families.ipca.steps import Projection

_ROUNDING = 1e-13  # relative fall of the objective that is rounding, not worse
_STEEP = 10.0  # size of a chart's coordinates at which it is laid anew
_RCOND = 1e-10  # of the extrapolation's least squares


class Steps(Protocol):
    """Both steps of alternating least squares."""

    @property
    def n_factors(self) -> int:
        """K, of the latent factors."""

    def project(self, coefficients: FloatArray) -> Projection:
        """Find factors given Gamma."""

    def update(self, projection: Projection) -> FloatArray:
        """Find Gamma given factors."""


class Solution(NamedTuple):
    """Where the iterations ended, with their certificate.

    Attributes
    ----------
    coefficients : numpy.ndarray
        (char, K + M): Gamma_beta orthonormal, in no particular rotation, and the coefficients of given series
        orthogonal to it.
    explained : float
        Objective of the last iterate before the last step.
    converged : bool
        Whether the last step moved it by at most the tolerance.
    n_iter : int
        Evaluations of the objective, rejected extrapolations included.
    last_change : float
        What the last plain step moved: see `step_size`.
    n_rejected : int
        Extrapolations that were worse than where they began.
    """

    coefficients: FloatArray
    explained: float
    converged: bool
    n_iter: int
    last_change: float
    n_rejected: int


@dataclass
class _Chart:
    """Affine coordinates of subspaces around that of an orthonormal base: base'Gamma_beta = I, base'Gamma_given = 0."""

    base: FloatArray

    def place(self, coefficients: FloatArray) -> FloatArray:
        k = self.base.shape[1]
        latent = np.linalg.solve((self.base.T @ coefficients[:, :k]).T, coefficients[:, :k].T).T
        given = coefficients[:, k:] - latent @ (self.base.T @ coefficients[:, k:])
        return np.concatenate([latent, given], axis=1)


def iterate(steps: Steps, start: FloatArray, *, max_iter: int, tol: float, memory: int) -> Solution:
    """Iterate until a plain step of alternating least squares no longer moves the estimate.

    Anderson acceleration, type II: the next iterate is the combination of the last ``memory`` steps whose combined
    move is smallest. One that explains less than the iterate before it is rejected, the plain step taken instead, and
    the memory emptied; since a plain step never explains less, the objective never falls. Source: Walker and Ni
    (2011), eq. 2.1 and 2.2.

    Parameters
    ----------
    steps : Steps
    start : numpy.ndarray
        (char, K + M).
    max_iter, tol : int, float
        See `models.families.ipca.IPCA`.
    memory : int
        0 iterates plainly.
    """
    k = steps.n_factors
    chart = _Chart(orthonormal(start, k)[:, :k])
    current = plain = chart.place(start)
    history = _History(memory)
    explained, change, rejected = -np.inf, np.inf, 0
    for n_iter in range(1, max_iter + 1):
        projection = steps.project(current)
        if projection.explained < explained - _ROUNDING * abs(explained):
            current, rejected = plain, rejected + 1
            history.clear()
            continue
        explained = projection.explained
        moved = steps.update(projection)
        change = step_size(current, moved, projection.regressors, k)
        if change <= tol or n_iter == max_iter:
            return Solution(orthonormal(moved, k), explained, change <= tol, n_iter, change, rejected)
        plain = chart.place(moved)
        if np.abs(plain[:, :k]).max(initial=0.0) > _STEEP:
            chart = _Chart(orthonormal(moved, k)[:, :k])
            current = plain = chart.place(moved)
            history.clear()
            continue
        current = history.extrapolate(current, plain, _weights(projection.regressors, k))
    return Solution(orthonormal(plain, k), explained, change <= tol, max_iter, change, rejected)


class _History:
    """Differences of the last iterates and of their moves."""

    def __init__(self, memory: int) -> None:
        self.moves: deque[FloatArray] = deque(maxlen=memory)
        self.images: deque[FloatArray] = deque(maxlen=memory)
        self.last: tuple[FloatArray, FloatArray] | None = None

    def clear(self) -> None:
        self.moves.clear()
        self.images.clear()
        self.last = None

    def extrapolate(self, current: FloatArray, image: FloatArray, weights: FloatArray) -> FloatArray:
        move = image - current
        if self.last is not None:
            self.moves.append(move - self.last[0])
            self.images.append(image - self.last[1])
        self.last = (move, image)
        if not self.moves:
            return image
        design = np.stack([(each * weights).ravel() for each in self.moves], axis=1)
        share = scipy.linalg.lstsq(design, (move * weights).ravel(), cond=_RCOND, check_finite=False)[0]
        return image - np.tensordot(share, np.stack(self.images), axes=1)


def orthonormal(coefficients: FloatArray, n_factors: int) -> FloatArray:
    """Return the same model with Gamma_beta orthonormal and the rest orthogonal to it."""
    latent, _ = np.linalg.qr(coefficients[:, :n_factors])
    given = coefficients[:, n_factors:]
    return np.concatenate([latent, given - latent @ (latent.T @ given)], axis=1)


def step_size(before: FloatArray, after: FloatArray, regressors: FloatArray, n_factors: int) -> float:
    """Size of a step: how far the space of Gamma_beta turns, or the coefficients of given series move, if more.

    The turn is the sine of the largest angle between both spaces. Coefficients of given series, taken orthogonal to
    Gamma_beta, count in units of the systematic part: their change times the root mean square of the series, over the
    root mean square of Gamma times all regressors.
    """
    one, two = orthonormal(before, n_factors), orthonormal(after, n_factors)
    latent = two[:, :n_factors]
    turn = (
        float(np.linalg.norm(latent - one[:, :n_factors] @ (one[:, :n_factors].T @ latent), ord=2))
        if n_factors
        else 0.0
    )
    if one.shape[1] == n_factors:
        return turn
    second = regressors.T @ regressors
    systematic = float(np.sqrt(((before @ second) * before).sum()))
    moved = np.linalg.norm((two - one)[:, n_factors:], axis=0) * np.sqrt(np.diagonal(second)[n_factors:])
    return max(turn, float(moved.max()) / systematic) if systematic > 0.0 else turn


def _weights(regressors: FloatArray, n_factors: int) -> FloatArray:
    """(K + M,) weights that put the coefficients of given series in the units of Gamma_beta."""
    size: FloatArray = np.sqrt(np.square(regressors).sum(axis=0))
    weights: FloatArray = np.ones_like(size)
    latent = float(np.sqrt(np.square(size[:n_factors]).mean())) if n_factors else 1.0
    weights[n_factors:] = size[n_factors:] / latent if latent > 0.0 else 1.0
    return weights
