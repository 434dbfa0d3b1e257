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

from models.arrays import BoolArray, FloatArray, IntArray
from models.families.pca.matrices import spans

_FEW = 0.03  # share of cells, up to which sparse products are faster
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


class Missing:
    """Which stocks the patterns of a panel lack: a (pattern, ticker) matrix of zeros and ones, applied to vectors.

    Stocks come and go, and few do so from one pattern to the next. Where that holds the matrix is kept as what changes:
    its row p is D summed over patterns from the first to p. Products then cost what changes, not patterns x stocks.
    Where less is missing than changes, as with single cells, what is missing is kept, and all of it where it is much.

    Parameters
    ----------
    lacks : numpy.ndarray
        (pattern, ticker) true where missing, patterns in the order in which they come up.
    """

    def __init__(self, lacks: BoolArray) -> None:
        changes: Any = np.diff(lacks.astype(np.int8), axis=0, prepend=np.int8(0))
        least = min(np.count_nonzero(changes), np.count_nonzero(lacks))
        few = least <= _FEW * lacks.size
        self._summed = few and np.count_nonzero(changes) == least
        kept = changes if self._summed else lacks
        self._kept: Any = sparse.csr_array(kept, dtype=np.float64) if few else kept.astype(np.float64)

    def times(self, columns: FloatArray) -> FloatArray:
        """(pattern, column) sums of (ticker, column) over the stocks that a pattern lacks."""
        product: FloatArray = self._kept @ columns
        return np.cumsum(product, axis=0) if self._summed else product

    def times_known(self, columns: FloatArray) -> FloatArray:
        """(pattern, column) sums of (ticker, column) over the stocks that a pattern has."""
        known: FloatArray = columns.sum(axis=0) - self.times(columns)
        return known

    def transposed_times(self, columns: FloatArray) -> FloatArray:
        """(ticker, column) sums of (pattern, column) over the patterns that lack a stock."""
        product: FloatArray = self._kept.T @ (np.cumsum(columns[::-1], axis=0)[::-1] if self._summed else columns)
        return product


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
        lacks = ~known[self.dates]
        _, first, index = np.unique(np.packbits(lacks, axis=1), axis=0, return_index=True, return_inverse=True)
        order = np.argsort(first)  # as they come up, so that few stocks change from one to the next
        self.missing = Missing(lacks[first[order]])
        self.pattern: IntArray = np.argsort(order)[index.ravel()]  # (date with gaps,) position of its pattern
        places = (self.pattern, np.arange(len(self.pattern)))
        self._belongs: Any = sparse.csr_array((np.ones(len(self.pattern)), places))
        dates = np.bincount(self.pattern, minlength=len(first))
        self.count: FloatArray = dates.astype(np.float64)  # dates of a pattern
        self.known_count: FloatArray = known.sum(axis=0).astype(np.float64)  # (ticker,) returns at hand
        self.sum: FloatArray = self.observed.sum(axis=0)  # (ticker,) of them
        self.squares: FloatArray = np.einsum("dn,dn->n", self.observed, self.observed)

    @property
    def n_dates(self) -> int:
        """Number of dates."""
        return len(self.observed)

    def by_pattern(self, values: FloatArray) -> FloatArray:
        """(pattern, ...) sums of (date with gaps, ...) over the dates of a pattern."""
        total: FloatArray = self._belongs @ values.reshape(len(values), -1)
        return total.reshape(-1, *values.shape[1:])

    def first_model(self, n_factors: int) -> ReturnModel:
        """Start from stocks that have nothing in common: their own means and variances."""
        mean = self.sum / self.known_count
        # about the mean, and without the squares of the zeros that stand where returns are missing
        squares = np.square(self.observed - mean).sum(axis=0) - (self.n_dates - self.known_count) * np.square(mean)
        variance = squares / self.known_count
        return ReturnModel(mean, np.zeros((len(mean), n_factors)), positive(variance, variance))


class Completed:
    """First and second moments of a panel, the missing returns replaced by what is expected of them.

    With o the stocks at hand at a date and u those without a return, the factors have the mean g = C L_o' D_o^-1 (r_o -
    m_o) and the covariance C = (I + L_o' D_o^-1 L_o)^-1, a missing return the mean m_u + L_u g and the covariance L_u C
    L_u' + D_u (Little and Rubin 2019, section 11.3, with the covariance of factor analysis). The covariance of a panel
    is that of the means so filled, plus the mean over dates of these covariances.

    Neither that covariance nor the filled panel is formed. With Z the returns at hand, zero where missing, and W the
    matrix of zeros and ones of what is missing, the filled panel is Z + W o (1 m' + G L'), and all products with its
    second part are sums over patterns of what stocks lack.

    Attributes
    ----------
    mean, variance : numpy.ndarray
        (ticker,) of the completed panel; the divisor is the number of dates.
    """

    def __init__(self, gaps: Gaps, model: ReturnModel) -> None:
        self._gaps, self._model = gaps, model
        size = model.loadings.shape[1]
        outer = (model.loadings[:, :, None] * model.weighted[:, None, :]).reshape(-1, size * size)
        information = gaps.missing.times_known(outer).reshape(-1, size, size) + np.eye(size)
        posterior = np.linalg.inv(information)
        self._spread: FloatArray = (posterior + posterior.transpose(0, 2, 1)) / 2.0 * gaps.count[:, None, None]
        self._factors = self._expected(posterior)
        lacked = gaps.n_dates - gaps.known_count
        along = gaps.missing.transposed_times(gaps.by_pattern(self._factors))
        systematic = (model.loadings * along).sum(axis=1)
        self.mean: FloatArray = (gaps.sum + lacked * model.mean + systematic) / gaps.n_dates
        second = self._spread + gaps.by_pattern(self._factors[:, :, None] * self._factors[:, None, :])
        spread = gaps.missing.transposed_times(second.reshape(-1, size * size)).reshape(-1, size, size)
        squares = gaps.squares + lacked * np.square(model.mean) + 2.0 * model.mean * systematic
        squares += np.einsum("nk,nkl,nl->n", model.loadings, spread, model.loadings, optimize=True)
        self._specific = model.specific * lacked
        variance = (squares + self._specific) / gaps.n_dates - np.square(self.mean)
        self.variance: FloatArray = np.maximum(variance, 0.0)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of dates and of stocks."""
        return self._gaps.observed.shape[0], self._gaps.observed.shape[1]

    def times(self, vectors: FloatArray) -> FloatArray:
        """(ticker, column) product of the covariance with vectors (ticker, column)."""
        gaps, loadings = self._gaps, self._model.loadings
        product: FloatArray = self._specific[:, None] * vectors
        for span in spans(vectors.shape[1], max(len(self._spread), len(loadings)) * (loadings.shape[1] + 1)):
            some = vectors[:, span]
            lacked = self._lacked(some)  # along each factor, and along the means
            scores = gaps.observed @ some - self.mean @ some
            on_factors = np.einsum("dk,dkc->dc", self._factors, lacked[gaps.pattern, :-1])
            scores[gaps.dates] += on_factors + lacked[gaps.pattern, -1]
            back = self._pulled(scores[gaps.dates])
            back[:, :-1] += self._spread @ lacked[:, :-1]
            total = gaps.missing.transposed_times(back.reshape(len(back), -1)).reshape(len(loadings), -1, some.shape[1])
            product[:, span] += (scores.T @ gaps.observed).T - self.mean[:, None] * scores.sum(axis=0)
            product[:, span] += np.einsum("nk,nkc->nc", self._weights, total)
        return product / gaps.n_dates

    @property
    def _weights(self) -> FloatArray:
        """(ticker, factor + 1) what a missing return is expected to be: times the factors of its date, and a one."""
        return np.column_stack([self._model.loadings, self._model.mean])

    def _lacked(self, vectors: FloatArray) -> FloatArray:
        """(pattern, factor + 1, column) sums of `_weights` times (ticker, column) over the stocks that are missing."""
        joint = self._weights[:, :, None] * vectors[:, None, :]
        sums = self._gaps.missing.times(joint.reshape(len(joint), -1))
        return sums.reshape(-1, *joint.shape[1:])

    def _pulled(self, scores: FloatArray) -> FloatArray:
        """(pattern, factor + 1, column) sums of factors, and a one, times (date with gaps, column)."""
        joint = np.concatenate([self._factors[:, :, None] * scores[:, None, :], scores[:, None, :]], axis=1)
        return self._gaps.by_pattern(joint)

    def _expected(self, posterior: FloatArray) -> FloatArray:
        """(date with gaps, factor) means of the factors, given the returns at hand."""
        gaps, model = self._gaps, self._model
        explained = (gaps.observed @ model.weighted)[gaps.dates]
        expected = gaps.missing.times_known(model.mean[:, None] * model.weighted)[gaps.pattern]
        factors: FloatArray = np.einsum("dkl,dl->dk", posterior[gaps.pattern], explained - expected)
        return factors
