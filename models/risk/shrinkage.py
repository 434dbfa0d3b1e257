"""Shrinkage of a sample covariance matrix: Ledoit and Wolf's linear one, OAS, QIS, and QIS behind leading factors.

Here belong pure functions of a matrix and of the number of observations behind it, which need not be whole: weighted
observations are worth (sum w)^2 / sum w^2 equal ones. All turn with the factors: they change eigenvalues alone.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from models.arrays import Float64Array, IntArray

Shrinkage = Literal["oas", "qis", "factor_qis"]
_ZERO = 1e-10  # a sample eigenvalue below this share of the largest is zero
_FLOOR = 1e-4  # least eigenvalue of QIS as a share of the mean one


def shrink(sample: Float64Array, n: float, method: Shrinkage, n_factors: int = 1) -> Float64Array:
    """Return a sample covariance (K, K) of n observations, shrunk as a config names it."""
    if method == "oas":
        return oas(sample, n)
    return qis(sample, n) if method == "qis" else factor_qis(sample, n, n_factors)


def oas(sample: Float64Array, n: float) -> Float64Array:
    """Oracle approximating shrinkage towards mu I, for Gaussian observations.

    Source: Chen, Wiesel, Eldar and Hero (2010), eq. 23, as `sklearn.covariance.OAS` reads it (with 1 and not 1 - 2 / K
    before the trace of the square).

    Parameters
    ----------
    sample : numpy.ndarray
        (K, K) covariance, with divisor n.
    n : float
        Observations behind it.
    """
    k = len(sample)
    mu = np.trace(sample) / k
    power = np.square(sample).mean()
    dispersion = (n + 1.0) * (power - mu**2 / k)
    intensity = min((power + mu**2) / dispersion, 1.0) if dispersion > 0.0 else 1.0
    shrunk: Float64Array = (1.0 - intensity) * sample + intensity * mu * np.eye(k)
    return shrunk


def qis(sample: Float64Array, n: float) -> Float64Array:
    """Quadratic-inverse shrinkage, optimal under the inverse Stein loss in the large-dimensional limit.

    Source: Ledoit and Wolf (2022), Quadratic shrinkage for large covariance matrices, section 4.5. Where there are more
    factors than observations, or nearly as many, its smallest eigenvalues may vanish with those of the sample: none is
    let below 1e-4 of their mean, so that it is positive definite always.

    Parameters
    ----------
    sample : numpy.ndarray
        (K, K) covariance about the mean, with divisor n.
    n : float
        Degrees of freedom behind it: one less than the observations, if their mean was subtracted.
    """
    values, vectors = np.linalg.eigh(sample)
    shrunk: Float64Array = (vectors * _qis_values(values, n)) @ vectors.T
    return 0.5 * (shrunk + shrunk.T)


def factor_qis(sample: Float64Array, n: float, n_factors: int) -> Float64Array:
    """Leading components as they are, and QIS of what they leave, in the space that they leave.

    The form of De Nard, Ledoit and Wolf (2021), Factor models for portfolio selection in large dimensions (their
    AFM-NL), with principal components in the place of observed factors.

    Parameters
    ----------
    sample, n
        As in `qis`.
    n_factors : int
        Components that are kept; fewer than K.
    """
    values, vectors = np.linalg.eigh(sample)
    rest = len(values) - n_factors
    changed = np.concatenate([_qis_values(values[:rest], max(n - n_factors, 1.0)), values[rest:]])
    shrunk: Float64Array = (vectors * changed) @ vectors.T
    return 0.5 * (shrunk + shrunk.T)


def _qis_values(values: Float64Array, n: float) -> Float64Array:
    """Eigenvalues (K,), ascending, after quadratic-inverse shrinkage."""
    k, total = len(values), values.sum()
    positive = values > _ZERO * values[-1]
    rank = int(positive.sum())
    if not rank:
        return values
    n = max(n, float(k)) if rank == k else float(rank)
    ratio = k / n
    inverse = 1.0 / values[positive]
    smoothing = min(ratio**2, ratio**-2) ** 0.35 / k**0.35
    apart = inverse[:, None] - inverse
    weight = inverse[:, None] / (np.square(apart) + np.square(smoothing * inverse)[:, None])
    theta, conjugate = (weight * apart).mean(axis=0), (weight * smoothing * inverse[:, None]).mean(axis=0)
    amplitude = np.square(theta) + np.square(conjugate)
    if rank == k:
        curve = (1.0 - ratio) ** 2 + 2.0 * ratio * (1.0 - ratio) * theta + ratio**2 * amplitude
        shrunk = 1.0 / (inverse * curve)
    else:
        null = np.full(k - rank, 1.0 / ((ratio - 1.0) * inverse.mean()))
        shrunk = np.concatenate([null, 1.0 / (inverse * amplitude)])
    shrunk *= total / shrunk.sum()
    shrunk = np.maximum(shrunk, _FLOOR * total / k)
    result: Float64Array = shrunk * (total / shrunk.sum())
    return result


def ledoit_wolf(x: Float64Array, rows: IntArray, extra: Float64Array) -> Float64Array:
    """Ledoit and Wolf (2004), section 3.2: rho mu I + (1 - rho) S with rho = b^2 / d^2.

    Parameters
    ----------
    x : numpy.ndarray
        (n, K) deviations.
    rows : numpy.ndarray
        (m,) rows whose x x' has something beside it: the variance of what was filled in.
    extra : numpy.ndarray
        (m, K, K) that variance.
    """
    n, k = x.shape
    sample = second_moment(x, extra)
    mu = np.trace(sample) / k
    target = mu * np.eye(k)
    dispersion = np.square(sample - target).sum()
    squares = np.square(np.square(x).sum(axis=1)).sum()
    if len(rows):
        crossed = np.einsum("nk,nkl,nl->", x[rows], extra, x[rows])
        squares += 2.0 * crossed + np.square(extra).sum()
    error = (squares / n - np.square(sample).sum()) / n
    intensity = min(max(error, 0.0) / dispersion, 1.0) if dispersion > 0.0 else 0.0
    shrunk: Float64Array = (1.0 - intensity) * sample + intensity * target
    return shrunk


def second_moment(x: Float64Array, extra: Float64Array) -> Float64Array:
    """Mean of x x' over the rows of x (n, K), with what some of them have beside it: ``extra`` (m, K, K)."""
    moment: Float64Array = (x.T @ x + extra.sum(axis=0)) / len(x)
    return moment
