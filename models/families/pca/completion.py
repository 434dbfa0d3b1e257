"""What returns that are missing are expected to be, and what that says of the second moments of a panel.

Here belongs the expectation step: a normal distribution of the returns of a date, and, given it and the returns at
hand, the mean and the covariance of the missing ones. How the distribution is found belongs in `filling`, its
eigenvectors in `matrices`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from models.arrays import FloatArray, IntArray
from models.families.pca.matrices import spans

_FEW = 0.03  # share of missing cells, on dates with gaps, below which sparse products are faster
_LEAST_SPECIFIC = 1e-10  # of the mean variance, which keeps returns without any noise solvable


def positive(specific: FloatArray, variance: FloatArray) -> FloatArray:
    """Specific variances that can be divided by: none is below 1e-10 of the mean (ticker,) variance."""
    floor = max(_LEAST_SPECIFIC * float(variance.mean()), float(np.finfo(np.float64).tiny))
    return np.maximum(specific, floor)


@dataclass(frozen=True, eq=False)
class ReturnModel:
    """The returns of a date over the scale of each stock: r ~ N(m, L L' + D).

    Attributes
    ----------
    mean : numpy.ndarray
        (ticker,) m.
    loadings : numpy.ndarray
        (ticker, factor) L, on factors of unit variance.
    specific : numpy.ndarray
        (ticker,) the diagonal of D, positive.
    """

    mean: FloatArray
    loadings: FloatArray
    specific: FloatArray

    @property
    def weighted(self) -> FloatArray:
        """(ticker, factor) D^-1 L."""
        weighted: FloatArray = self.loadings / self.specific[:, None]
        return weighted


class Gaps:
    """Where a panel of returns has gaps: dates that lack the same stocks are one pattern, and computed once.

    Parameters
    ----------
    returns : numpy.ndarray
        (date, ticker) in the precision of their storage, NaN where missing.
    scale : numpy.ndarray
        (ticker,) divisors, such as standard deviations.
    """

    def __init__(self, returns: FloatArray, scale: FloatArray) -> None:
        known = np.isfinite(returns)
        self.observed: FloatArray = np.where(known, returns / scale, 0.0)  # (date, ticker), zero where missing
        self.dates: IntArray = np.flatnonzero(~known.all(axis=1))  # those with gaps
        packed, index = np.unique(np.packbits(~known[self.dates], axis=1), axis=0, return_inverse=True)
        bits = np.unpackbits(packed, axis=1, count=returns.shape[1])
        self.known: FloatArray = (1 - bits).astype(np.float64)  # (pattern, ticker) one where known
        few = bits.mean() < _FEW if bits.size else True
        self.missing: Any = sparse.csr_array(bits, dtype=np.float64) if few else 1.0 - self.known  # its complement
        self.pattern: IntArray = index.ravel()  # (date with gaps,) position of its pattern
        self.count: FloatArray = np.bincount(self.pattern, minlength=len(bits)).astype(np.float64)  # dates of a pattern
        self.known_count: FloatArray = known.sum(axis=0).astype(np.float64)  # (ticker,) returns at hand

    @property
    def n_dates(self) -> int:
        """Number of dates."""
        return len(self.observed)

    def first_model(self, n_factors: int) -> ReturnModel:
        """Start from stocks that have nothing in common: their own means and variances."""
        mean = self.observed.sum(axis=0) / self.known_count
        # about the mean, and without the squares of the zeros that stand where returns are missing
        squares = np.square(self.observed - mean).sum(axis=0) - (self.n_dates - self.known_count) * np.square(mean)
        variance = squares / self.known_count
        return ReturnModel(mean, np.zeros((len(mean), n_factors)), positive(variance, variance))


class Completed:
    """First and second moments of a panel, the missing returns replaced by what is expected of them.

    With o the stocks at hand at a date and u those without a return, the factors have the mean g = C L_o' D_o^-1 (r_o -
    m_o) and the covariance C = (I + L_o' D_o^-1 L_o)^-1, a missing return the mean m_u + L_u g and the covariance L_u C
    L_u' + D_u (Little and Rubin 2019, section 11.3, with the covariance of factor analysis). The covariance of a panel
    is that of the means so filled, plus the mean over dates of these covariances. It is not formed but applied.

    Attributes
    ----------
    mean, variance : numpy.ndarray
        (ticker,) of the completed panel; the divisor is the number of dates.
    """

    def __init__(self, gaps: Gaps, model: ReturnModel) -> None:
        self._gaps, self._model = gaps, model
        size = model.loadings.shape[1]
        outer = (model.loadings[:, :, None] * model.weighted[:, None, :]).reshape(-1, size * size)
        information = (gaps.known @ outer).reshape(-1, size, size) + np.eye(size)
        posterior = np.linalg.inv(information)
        self._spread: FloatArray = (posterior + posterior.transpose(0, 2, 1)) / 2.0 * gaps.count[:, None, None]
        filled = self._filled(posterior)
        self.mean: FloatArray = filled.mean(axis=0)
        self._centred = filled - self.mean
        self._specific = model.specific * (gaps.n_dates - gaps.known_count)
        spread = (gaps.missing.T @ self._spread.reshape(-1, size * size)).reshape(-1, size, size)
        systematic = np.einsum("nk,nkl,nl->n", model.loadings, spread, model.loadings, optimize=True)
        own = np.square(self._centred).sum(axis=0)
        self.variance: FloatArray = (own + systematic + self._specific) / gaps.n_dates

    @property
    def shape(self) -> tuple[int, int]:
        """Number of dates and of stocks."""
        return self._centred.shape[0], self._centred.shape[1]

    def times(self, vectors: FloatArray) -> FloatArray:
        """(ticker, column) product of the covariance with vectors (ticker, column)."""
        product: FloatArray = self._centred.T @ (self._centred @ vectors) + self._specific[:, None] * vectors
        loadings, missing = self._model.loadings, self._gaps.missing
        size, columns = loadings.shape[1], vectors.shape[1]
        joint = (loadings[:, :, None] * vectors[:, None, :]).reshape(-1, size * columns)
        total = np.zeros_like(joint)
        for span in spans(len(self._spread), size * columns):
            along = self._spread[span] @ (missing[span] @ joint).reshape(-1, size, columns)
            total += missing[span].T @ along.reshape(-1, size * columns)
        product += np.einsum("nk,nkc->nc", loadings, total.reshape(-1, size, columns))
        return product / self._gaps.n_dates

    def _filled(self, posterior: FloatArray) -> FloatArray:
        """(date, ticker) returns over their scale, the mean of what is missing in its place."""
        gaps, model = self._gaps, self._model
        explained = gaps.observed[gaps.dates] @ model.weighted
        expected = (gaps.known @ (model.mean[:, None] * model.weighted))[gaps.pattern]
        factors = np.einsum("dkl,dl->dk", posterior[gaps.pattern], explained - expected)
        filled = gaps.observed.copy()
        for span in spans(len(gaps.dates), len(model.mean)):
            fill = model.mean + factors[span] @ model.loadings.T
            filled[gaps.dates[span]] += (1.0 - gaps.known[gaps.pattern[span]]) * fill
        return filled
