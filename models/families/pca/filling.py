"""Filling the gaps of an unbalanced panel by what its factors lead one to expect.

Here belongs the search for the distribution of returns that agrees with the moments of the panel completed by it, with
Anderson acceleration. What a distribution says of missing returns belongs in `completion`, the eigenvectors of the
completed moments in `matrices`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.arrays import FloatArray
from models.families.pca.completion import Completed, Gaps, ReturnModel, positive
from models.families.pca.matrices import nearly_leading
from schemas.errors import ModelError

_MEMORY = 10  # rounds that the acceleration remembers
_EXACT = 0.05  # error of eigenvectors beside the step
_WORSE = 2.0  # growth of a step after which a combination of rounds is dropped


@dataclass(frozen=True, eq=False)
class Fill:
    """The moments of a panel whose gaps have settled.

    Attributes
    ----------
    completed : Completed
    model : ReturnModel
        By which the panel was completed.
    n_iter : int
        Rounds, each one expectation of the missing returns.
    step : float
        How far the last round moved the covariance and the means, over their size.
    """

    completed: Completed
    model: ReturnModel
    n_iter: int
    step: float


@dataclass(frozen=True, eq=False)
class _Round:
    """The panel completed by a model, the model that its moments give, and a start for their eigenvectors."""

    completed: Completed
    model: ReturnModel
    vectors: FloatArray


def fill(gaps: Gaps, n_factors: int, max_iter: int, tol: float, start: Fill | None = None) -> Fill:
    """Find the distribution r ~ N(m, L L' + D) that the moments of the panel completed by it give back.

    A round completes the moments (`models.families.pca.completion.Completed`), and takes from their covariance S, with
    eigenvalues v_1 >= v_2 >= ... and eigenvectors x_k, L L' = sum_k (v_k - v_{K+1}) x_k x_k' over the K largest, and
    D = diag(S - L L'). Every stock keeps the variance that S has for it: a factor that belongs to one volatile stock
    fills the gaps of that stock near its mean, with the variance that it has, since the others say nothing of it.
    Fitting the observed cells alone leaves it free there. To lower the eigenvalues by the first that is left out
    shrinks the fill as principal components with noise do (Tipping and Bishop 1999), and makes L L' move no more than S
    does, however close v_K and v_{K+1} are (Mazumder, Hastie and Tibshirani 2010, on soft thresholds).

    Anderson acceleration combines the last rounds; a combination that lengthens the step is dropped for the plain
    round.

    Parameters
    ----------
    gaps : Gaps
        Of which at least one is there.
    n_factors : int
        K, fewer than stocks.
    max_iter, tol : int, float
        Limit of rounds, and the relative change of covariance and means over a round at which they have settled.
    start : Fill, optional
        Of the same panel, with fewer factors or as many.

    Raises
    ------
    ModelError
        If the gaps have not settled after ``max_iter`` rounds.
    """
    before = start.model if start is not None else gaps.first_model(n_factors)
    missing = n_factors - before.loadings.shape[1]
    before = ReturnModel(before.mean, np.pad(before.loadings, ((0, 0), (0, missing))), before.specific)
    unit = float(np.sqrt(before.specific.mean() + np.square(before.loadings).sum(axis=1).mean())) or 1.0
    history, best, kept, vectors, step = _History(), np.inf, before, None, np.inf
    for iteration in range(1, max_iter + 1):
        after = _round(gaps, before, n_factors, vectors, _EXACT * min(1.0, max(step, tol)))
        plain, vectors = after.model, after.vectors
        step = _step(before, plain)
        if step <= tol:
            return Fill(after.completed, before, iteration, step)
        if history and step > _WORSE * best:
            before, history, best = kept, _History(), np.inf
            continue
        kept, best = plain, step
        before = _unpack(history.combine(_pack(before, unit), _pack(plain, unit)), plain, unit)
    raise ModelError(
        f"Gaps in returns have not settled after max_iter={max_iter} rounds: the last one moved their covariance by "
        f"{step:.1e} of its size, and tol={tol:g} is asked for. Raise min_observed or max_iter, lower n_factors, or "
        "use missing='pairwise'."
    )


class _History:
    """Anderson acceleration, type II (Walker and Ni 2011): the last states and where a plain round took them."""

    def __init__(self) -> None:
        self.states: list[FloatArray] = []
        self.images: list[FloatArray] = []

    def __bool__(self) -> bool:
        return bool(self.states)

    def combine(self, state: FloatArray, image: FloatArray) -> FloatArray:
        """Remember a round, and return the combination of images whose residuals nearly cancel."""
        self.states, self.images = [*self.states[-_MEMORY:], state], [*self.images[-_MEMORY:], image]
        if len(self.states) < 2:  # nothing to combine yet
            return image
        images = np.stack(self.images, axis=1)
        residuals = images - np.stack(self.states, axis=1)
        weights = np.linalg.lstsq(np.diff(residuals), residuals[:, -1], rcond=1e-10)[0]
        combined: FloatArray = image - np.diff(images) @ weights
        return combined


def _round(gaps: Gaps, model: ReturnModel, n_factors: int, vectors: FloatArray | None, accuracy: float) -> _Round:
    """Complete the moments by a model, and take the model from them, its factors turned to those of the former."""
    completed = Completed(gaps, model)
    values, found = nearly_leading(completed.times, completed.shape[1], n_factors + 1, vectors, accuracy)
    edge = values[n_factors] if len(values) > n_factors else 0.0
    loadings = found[:, :n_factors] * np.sqrt(np.maximum(values[:n_factors] - edge, 0.0))
    specific = completed.variance - np.square(loadings).sum(axis=1)
    left, _, right = np.linalg.svd(loadings.T @ model.loadings)
    turned = ReturnModel(completed.mean, loadings @ (left @ right), positive(specific, completed.variance))
    return _Round(completed, turned, found)


def _step(before: ReturnModel, after: ReturnModel) -> float:
    """|S1 - S0| / |S1| of the covariances, or the same of the means over a typical deviation, if that is more."""
    specific = after.specific - before.specific
    size = _inner(after.loadings, after.loadings, after.loadings, after.loadings)
    size += float((2.0 * np.square(after.loadings).sum(axis=1) * after.specific + np.square(after.specific)).sum())
    # L1 L1' - L0 L0' as (L1 - L0) L1' + L0 (L1 - L0)': no cancellation of what is large
    change = after.loadings - before.loadings
    left, right = np.hstack([change, before.loadings]), np.hstack([after.loadings, change])
    moved = _inner(left, right, left, right)
    moved += float((2.0 * (left * right).sum(axis=1) * specific + np.square(specific)).sum())
    variance = (np.square(after.loadings).sum(axis=1) + after.specific).sum()
    if not size > 0.0:  # nothing moves
        return 0.0
    means = np.square(after.mean - before.mean).sum() / variance
    return float(np.sqrt(max(moved / size, means, 0.0)))


def _inner(left: FloatArray, right: FloatArray, left_: FloatArray, right_: FloatArray) -> float:
    """Frobenius inner product of L R' and L_ R_'."""
    return float(((left.T @ left_) * (right.T @ right_)).sum())


def _pack(model: ReturnModel, unit: float) -> FloatArray:
    """One vector in which means, loadings and variances are of like size, whatever the units of returns."""
    return np.concatenate([model.mean / unit, model.loadings.ravel() / unit, model.specific / unit**2])


def _unpack(state: FloatArray, plain: ReturnModel, unit: float) -> ReturnModel:
    """Back to a model; a specific variance that a combination takes below half of the plain one stops there."""
    n_stocks = len(plain.mean)
    mean, loadings, specific = np.split(state, [n_stocks, n_stocks + plain.loadings.size])
    specific = np.maximum(specific * unit**2, plain.specific / 2.0)
    return ReturnModel(mean * unit, loadings.reshape(n_stocks, -1) * unit, specific)
