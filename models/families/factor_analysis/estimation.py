"""Factor analysis of a weighted sample of standardised returns.

Here belongs what follows from standardised returns alone: weights of dates, the two principal-axis steps, scores, and
what is expected of missing cells. How returns are standardised, and what is kept of a fit, belongs in `model`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from scipy.sparse.linalg import eigsh

from models.arrays import BoolArray, Float64Array, IntArray
from models.statistics.rowwise import moments_by_pattern

_STEPS = 2
_ROUNDS = 3
_FIRST_SPECIFIC = 0.5
_WHOLLY = 1000
"""Largest matrix that is reduced as a whole; of a larger one the leading vectors are iterated for, which costs n^2."""


@dataclass(frozen=True, eq=False)
class Factors:
    """Loadings of standardised returns, Var(z) = B B' + psi.

    Attributes
    ----------
    loadings : numpy.ndarray
        (ticker, factor) B.
    specific : numpy.ndarray
        (ticker,) psi.
    eigenvalues : numpy.ndarray
        (factor,) of the whitened correlations, psi^(-1/2) C psi^(-1/2), in descending order.
    """

    loadings: Float64Array
    specific: Float64Array
    eigenvalues: Float64Array


def blended_weights(n_dates: int, halflives: Sequence[float], shares: Sequence[float]) -> Float64Array:
    """Weights of dates (date,) that sum to one: a blend of exponential ones, each normalised by itself."""
    age = np.arange(n_dates)[::-1]
    weights = np.zeros(n_dates)
    for halflife, share in zip(halflives, shares, strict=True):
        decay = np.power(0.5, age / halflife)
        weights += share / sum(shares) * decay / decay.sum()
    return weights


def factor_analysis(z: Float64Array, weights: Float64Array, n_factors: int, floor: float) -> Factors:
    """Estimate the factors of standardised returns with gaps.

    Two principal-axis steps on the correlations C: with U e U' = psi^(-1/2) C psi^(-1/2), B = psi^(1/2) U (e - 1)^(1/2)
    and psi = 1 - diag(B B'), between ``floor`` and 1 (Joereskog 1967, Some contributions to maximum likelihood factor
    analysis, equations 14 to 16). Missing cells have the mean that the factors of the date give them, and C their
    variance, found in a few rounds (expectation maximisation). With fewer dates than stocks the (date, date) matrix is
    decomposed, so that no ticker x ticker matrix is formed; the variance of what is missing then counts in the scale of
    a stock alone.

    Parameters
    ----------
    z : numpy.ndarray
        (date, ticker), NaN where missing.
    weights : numpy.ndarray
        (date,) that sum to one.
    n_factors : int
        Below the number of stocks and of dates.
    floor : float
        Least psi.
    """
    known = np.isfinite(z)
    seen = weights @ known
    filled, extra = np.where(known, z, 0.0), (1.0 - seen)
    scale = np.sqrt(weights @ np.square(filled) / seen)
    filled = filled / scale
    found = _decomposed(filled, extra, weights, n_factors, floor)
    for _ in range(_ROUNDS if not known.all() else 0):
        filled, extra = _expected(filled, known, weights, found)
        found = _decomposed(filled, extra, weights, n_factors, floor)
    return Factors(found.loadings * scale[:, None], found.specific * np.square(scale), found.eigenvalues)


def _decomposed(
    filled: Float64Array, extra: Float64Array, weights: Float64Array, n_factors: int, floor: float
) -> Factors:
    rows = filled * np.sqrt(weights)[:, None]
    if rows.shape[1] > rows.shape[0]:
        square = np.square(rows).sum(axis=0)
        rows, extra = rows * np.sqrt((square + extra) / square), np.zeros_like(extra)
    diagonal = np.sqrt(np.square(rows).sum(axis=0) + extra)
    rows, extra = rows / diagonal, extra / np.square(diagonal)
    specific = np.full(rows.shape[1], _FIRST_SPECIFIC)
    correlation = rows.T @ rows + np.diag(extra) if rows.shape[1] <= rows.shape[0] else None
    for _ in range(_STEPS):
        root = np.sqrt(specific)
        if correlation is None:
            values, vectors = _of_dates(rows / root, n_factors)
        else:
            values, vectors = _leading(correlation / np.outer(root, root), n_factors)
        vectors = _signed(vectors)
        loadings = root[:, None] * vectors * np.sqrt(np.maximum(values - 1.0, 0.0))
        specific = np.clip(1.0 - np.square(loadings).sum(axis=1), floor, 1.0)
    return Factors(loadings * diagonal[:, None], specific * np.square(diagonal), values)


def _of_dates(rows: Float64Array, size: int) -> tuple[Float64Array, Float64Array]:
    """Return the largest eigenvalues of rows'rows and their vectors (ticker, factor), by the matrix of dates."""
    values, left = _leading(rows @ rows.T, size)
    return values, rows.T @ left / np.sqrt(np.maximum(values, np.finfo(np.float64).tiny))


def _leading(matrix: Float64Array, size: int) -> tuple[Float64Array, Float64Array]:
    """Return the largest eigenvalues of a symmetric matrix, in descending order, and their vectors."""
    n = len(matrix)
    if n <= max(_WHOLLY, 8 * size):
        values, vectors = eigh(matrix, subset_by_index=(n - size, n - 1))
    else:
        values, vectors = eigsh(matrix, size, which="LA", v0=np.ones(n))
    order = np.argsort(values)[::-1]
    return values[order], vectors[:, order]


def _signed(vectors: Float64Array) -> Float64Array:
    """Turn each vector (ticker, factor) so that its sum is positive, or where that is zero its largest entry."""
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])]
    total = vectors.sum(axis=0)
    signed: Float64Array = vectors * np.where(total != 0.0, np.sign(total), np.sign(largest))
    return signed


def _expected(
    filled: Float64Array, known: BoolArray, weights: Float64Array, found: Factors
) -> tuple[Float64Array, Float64Array]:
    """Fill gaps by the factors of their date; return also the variance (ticker,) that this leaves, over all dates."""
    gaps = np.flatnonzero(~known.all(axis=1))
    filled, extra = filled.copy(), np.zeros(filled.shape[1])
    scores = posterior(found, filled[gaps], known[gaps])
    expected = scores.mean @ found.loadings.T
    filled[gaps] = np.where(known[gaps], filled[gaps], expected)
    for place, variance in enumerate(scores.variance):
        rows = gaps[scores.pattern == place]
        absent = ~known[rows[0]]
        loaded = found.loadings[absent]
        left = found.specific[absent] + ((loaded @ variance) * loaded).sum(axis=1)
        extra[absent] += weights[rows].sum() * left
    return filled, extra


@dataclass(frozen=True, eq=False)
class Scores:
    """Thomson's scores: the factors of each date, given what is known of it, are N(mean, variance[pattern]).

    Attributes
    ----------
    mean : numpy.ndarray
        (date, factor)
    variance : numpy.ndarray
        (pattern, factor, factor) of each set of known stocks.
    pattern : numpy.ndarray
        (date,) which of them.
    """

    mean: Float64Array
    variance: Float64Array
    pattern: IntArray


def posterior(found: Factors, z: Float64Array, known: BoolArray) -> Scores:
    """Score the factors of each date: f | z ~ N(P B' psi^-1 z, P), P = (I + B' psi^-1 B)^-1 over the known stocks."""
    gram, moment, pattern = moments_by_pattern(found.loadings, z, known, 1.0 / found.specific)
    variance = np.asarray(np.linalg.inv(np.eye(gram.shape[1]) + gram), dtype=np.float64)
    return Scores((variance[pattern] @ moment[..., None])[..., 0], variance, pattern)


def slopes_of_others(z: Float64Array, scores: Scores, found: Factors) -> tuple[Float64Array, Float64Array]:
    """Give stocks with short histories (date, other) the slopes that their returns and the other stocks suggest.

    Empirical Bayes: loadings are N(mean, diag(tau^2)) over the stocks that made the factors. The factors given those
    stocks are N(mean, variance) of `Scores`, so a return is N(b'mean, psi + b' variance b): regressing it on the mean
    alone is unbiased, as the error of a score has nothing to do with the score. That variance is taken at the mean
    psi and the mean b b'; b is the posterior mean.

    Returns
    -------
    loadings, total : numpy.ndarray
        (other, factor) and (other,) mean square of the stock's returns.
    """
    mean: Float64Array = found.loadings.mean(axis=0)
    spread = np.maximum(found.loadings.var(axis=0), np.finfo(np.float64).tiny)
    square = found.loadings.T @ found.loadings / len(found.loadings)
    unseen: Float64Array = np.tensordot(scores.variance, square, axes=2)[scores.pattern]
    loadings, total = np.empty((z.shape[1], len(mean))), np.empty(z.shape[1])
    for other in range(z.shape[1]):
        known = np.isfinite(z[:, other])
        f, own = scores.mean[known], z[known, other]
        noise = found.specific.mean() + unseen[known].mean()
        gram = f.T @ f
        precision = gram / noise + np.diag(1.0 / spread)
        loadings[other] = mean + np.linalg.solve(precision, (f.T @ own - gram @ mean) / noise)
        total[other] = np.square(own).mean()
    return loadings, total
