"""Factor returns of a date by regression on loadings, also where stocks that made the factors are missing.

Here belongs the projection of returns on given loadings. How loadings are estimated from a panel with gaps belongs in
`filling`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from models.arrays import BoolArray, FloatArray
from models.families.pca.completion import positive
from models.families.pca.estimation import Estimate
from models.families.pca.matrices import spans
from models.statistics.gram import solve_gram
from models.statistics.rowwise import cross_sections


@dataclass(frozen=True, eq=False)
class Expected:
    """What is expected of the returns of a date, r ~ N(m, X A X' + D), with X the loadings of a fit.

    Attributes
    ----------
    mean, specific : numpy.ndarray
        (ticker,) m, and the diagonal of D; NaN for stocks that did not enter the estimation.
    covariance : numpy.ndarray
        (factor, factor) A, of factor returns.
    """

    mean: FloatArray
    specific: FloatArray
    covariance: FloatArray

    @classmethod
    def of(cls, found: Estimate, gamma: float, divisors: FloatArray, entered: BoolArray, unit: float) -> Self:
        """From components of the returns over their divisors.

        With S the covariance of what was decomposed and V the vectors, A = V'SV, and D holds the variances that the
        projection on V leaves, the diagonal of (I - VV') S (I - VV').

        Parameters
        ----------
        found : Estimate
            Of the stocks that entered.
        gamma : float
            Weight of the means.
        divisors, entered : numpy.ndarray
            (ticker,) of all stocks.
        unit : float
            By which the factors of the loadings were divided: the divisors over the scale of the loadings.
        """
        vectors, weight = found.components.vectors, 1.0 + gamma
        values = found.components.spectrum.eigenvalues[: vectors.shape[1]]
        means = found.mean @ vectors
        along = vectors * values - weight * found.mean[:, None] * means  # S V, as M V = V diag(values)
        covariance = np.diag(values) - weight * np.outer(means, means)
        left = found.variance - 2.0 * (vectors * along).sum(axis=1) + (vectors @ covariance * vectors).sum(axis=1)
        mean, specific = np.full((2, len(entered)), np.nan)
        mean[entered] = found.mean * divisors[entered]
        specific[entered] = positive(left, found.variance) * np.square(divisors[entered])
        return cls(mean, specific, covariance * (unit**2 / len(vectors)))

    def turned(self, rotation: FloatArray) -> Self:
        """Return the same of factors that are turned."""
        return type(self)(self.mean, self.specific, rotation.T @ self.covariance @ rotation)


def factor_scores(returns: FloatArray, loadings: FloatArray, scale: FloatArray, expected: Expected) -> FloatArray:
    """(date, factor) least squares of r[t] on X with weights 1 / scale^2; NaN where the stocks at hand are too few.

    Where a stock that entered the estimation has no return, the mean that is expected of it, given those at hand, takes
    its place: m_u + X_u g, with g = (I + A X_o' D_o^-1 X_o)^-1 A X_o' D_o^-1 (r_o - m_o). Without it a factor that
    belongs to that stock would be taken from the noise of the others' loadings on it. A stock that did not enter counts
    where it has a return. The bits of a date depend on its own returns alone.

    Parameters
    ----------
    returns : numpy.ndarray
        (date, ticker), NaN where unknown, on the tickers of the fit.
    loadings, scale : numpy.ndarray
        (ticker, factor) and (ticker,); NaN for stocks without loadings.
    expected : Expected
    """
    has = np.isfinite(loadings).all(axis=1) & (scale > 0.0)
    some = Expected(expected.mean[has], expected.specific[has], expected.covariance)
    parts = [
        _scores(returns[span][:, has], loadings[has], 1.0 / np.square(scale[has]), some)
        for span in spans(len(returns), len(has))
    ]
    return np.concatenate(parts) if parts else np.empty((0, loadings.shape[1]))


def _scores(values: FloatArray, rows: FloatArray, weight: FloatArray, expected: Expected) -> FloatArray:
    """Score some dates, on the stocks that have loadings."""
    mean, specific = expected.mean, expected.specific
    known = np.isfinite(values)
    gram, moment = cross_sections(rows, values, np.where(known, weight, 0.0))
    factors, rank = solve_gram(gram, moment[..., None])
    entered = np.isfinite(mean)
    gaps = (~known[:, entered]).any(axis=1) & (rank == rows.shape[1])
    if gaps.any():
        known = known[gaps]
        precision, pull = cross_sections(rows, values[gaps] - mean, np.where(known & entered, 1.0 / specific, 0.0))
        scores = np.linalg.solve(
            np.eye(len(expected.covariance)) + expected.covariance @ precision, expected.covariance @ pull[..., None]
        )
        means = np.broadcast_to(mean, known.shape)
        absent, offset = cross_sections(rows, means, np.where(~known & entered, weight, 0.0))
        filled = (moment[gaps] + offset)[..., None] + absent @ scores
        factors[gaps] = solve_gram(gram[gaps] + absent, filled)[0]
    return np.where((rank == rows.shape[1])[:, None], factors[..., 0], np.nan)
