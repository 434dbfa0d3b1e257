"""The second moments of a panel of returns and their leading eigenvectors.

Here belong the matrix M = X'X / T + gamma m m' (m the means), its smaller side, its pairwise estimate, and its leading
eigenvectors with their sign. How gaps are filled belongs in `filling`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from models.arrays import FloatArray
from models.families.pca.factor_number import Spectrum
from models.statistics.gram import RANK_TOLERANCE
from schemas.errors import ModelError

_CELLS_IN_FLIGHT = 4_000_000  # float64 cells of a block: 32 MB
_NO_SUM = 1e-8  # a column whose sum is below this share of its absolute sum takes the sign of its largest entry


@dataclass(frozen=True, eq=False)
class FilledPanel:
    """Returns over the scale of each stock, with a factor structure where they are missing.

    Attributes
    ----------
    returns : numpy.ndarray
        (date, ticker) in the precision of their storage, NaN where missing.
    scale : numpy.ndarray
        (ticker,) divisors, such as standard deviations.
    constant : numpy.ndarray
        (ticker,) what a missing return over the scale is, besides its factors.
    factors, loadings : numpy.ndarray
        (date, k) and (ticker, k) of the fit that fills gaps, in units of the scale; k = 0 fills with the constant.
    """

    returns: FloatArray
    scale: FloatArray
    constant: FloatArray
    factors: FloatArray
    loadings: FloatArray

    @property
    def shape(self) -> tuple[int, int]:
        """Number of dates and of stocks."""
        return self.returns.shape[0], self.returns.shape[1]

    def by_date(self) -> Iterator[tuple[slice, FloatArray]]:
        """Spans of dates with their float64 cells, tens of megabytes at a time."""
        for span in _spans(*self.shape):
            yield span, self._cells(span, slice(None))

    def by_ticker(self) -> Iterator[tuple[slice, FloatArray]]:
        """Spans of stocks with their float64 cells over all dates."""
        for span in _spans(*self.shape[::-1]):
            yield span, self._cells(slice(None), span)

    def _cells(self, dates: slice, tickers: slice) -> FloatArray:
        values = self.returns[dates, tickers] / self.scale[tickers]
        gaps = np.isnan(values)
        if gaps.any():
            fill = self.factors[dates] @ self.loadings[tickers].T + self.constant[tickers]
            np.copyto(values, fill, where=gaps)
        return values


@dataclass(frozen=True, eq=False)
class Components:
    """Leading eigenvectors of M and its spectrum.

    Attributes
    ----------
    vectors : numpy.ndarray
        (ticker, component) orthonormal, by falling eigenvalue, each with a positive sum; fewer than asked for if the
        rank of M is lower.
    spectrum : Spectrum
        Of M.
    clipped : float
        Sum of the negative eigenvalues of a pairwise M that were set to zero, over the sum of the positive ones.
    """

    vectors: FloatArray
    spectrum: Spectrum
    clipped: float = 0.0

    def first(self, n_factors: int) -> Components:
        """Keep the leading components alone; ModelError if the rank of M is lower."""
        rank = self.vectors.shape[1]
        if rank < n_factors:
            raise ModelError(f"n_factors={n_factors} exceeds the rank of the returns, {rank}; lower n_factors.")
        return Components(self.vectors[:, :n_factors], self.spectrum, self.clipped)


def filled_components(panel: FilledPanel, n_components: int, n_eigenvalues: int, gamma: float) -> Components:
    """Components of a panel without gaps, or whose gaps are filled, through the smaller side of the panel.

    With fewer dates than stocks the (date, date) matrix is decomposed, which is asymptotic principal components (Connor
    and Korajczyk 1986; theirs has gamma = 0). Beyond that matrix and the panel memory stays at tens of megabytes.
    """
    n_dates, n_stocks = panel.shape
    wide = n_stocks > n_dates
    side = _date_side(panel, gamma) if wide else _ticker_side(panel, gamma)
    values, vectors = _leading(side, max(n_components, n_eigenvalues))
    count = min(n_components, _rank(values))
    vectors = vectors[:, :count]
    if wide:
        root = vectors / np.sqrt(n_dates * values[:count])
        vectors = np.concatenate([_tilted(block, gamma).T @ root for _, block in panel.by_ticker()])
    spectrum = Spectrum(np.maximum(values, 0.0), float(np.trace(side)), n_dates, n_stocks)
    return Components(vectors * _signs(vectors), spectrum)


def pairwise_components(
    returns: FloatArray, scale: FloatArray, n_components: int, gamma: float, tickers: list[str]
) -> Components:
    """Components of M whose every entry is estimated from the dates on which both stocks are observed.

    The covariance of a pair is taken about the means over their common dates, with the number of these as divisor; the
    means m are those of each stock's own history. Such a matrix need not be positive semidefinite: it is replaced by
    the nearest that is, in Frobenius norm, by setting its negative eigenvalues to zero (Higham 1988), which leaves the
    leading eigenvectors as they are.

    Raises
    ------
    ModelError
        If two stocks share fewer than two dates.
    """
    n_dates, n_stocks = returns.shape
    moments, count, total = (np.zeros((n_stocks, n_stocks)) for _ in range(3))
    history, own = np.zeros(n_stocks), np.zeros(n_stocks)
    for span in _spans(n_dates, n_stocks):
        block = returns[span] / scale
        known = np.isfinite(block)
        filled, weight = np.where(known, block, 0.0), known.astype(np.float64)
        moments += filled.T @ filled
        count += weight.T @ weight
        total += filled.T @ weight
        history += weight.sum(axis=0)
        own += filled.sum(axis=0)
    if count.min() < 2.0:
        first, second = np.unravel_index(int(count.argmin()), count.shape)
        raise ModelError(
            f"{tickers[first]} and {tickers[second]} share {int(count.min())} dates, which gives no covariance; "
            "raise min_observed, or use missing='em'."
        )
    matrix = moments / count - total * total.T / np.square(count)
    mean = own / history
    matrix += (1.0 + gamma) * np.outer(mean, mean)
    values, vectors = _leading(matrix, n_stocks)
    positive, vectors = np.maximum(values, 0.0), vectors[:, : min(n_components, _rank(values))]
    spectrum = Spectrum(positive, float(positive.sum()), n_dates, n_stocks)
    clipped = float(-np.minimum(values, 0.0).sum() / positive.sum())
    return Components(vectors * _signs(vectors), spectrum, clipped if clipped > 1e-12 else 0.0)


def _date_side(panel: FilledPanel, gamma: float) -> FloatArray:
    n_dates = panel.shape[0]
    side = np.zeros((n_dates, n_dates))
    for _, block in panel.by_ticker():
        tilted = _tilted(block, gamma)
        side += tilted @ tilted.T
    return side / n_dates


def _ticker_side(panel: FilledPanel, gamma: float) -> FloatArray:
    n_dates, n_stocks = panel.shape
    mean = np.zeros(n_stocks)
    for _, block in panel.by_date():
        mean += block.sum(axis=0)
    mean /= n_dates
    side = np.zeros((n_stocks, n_stocks))
    for _, block in panel.by_date():
        centred = block - mean
        side += centred.T @ centred
    return side / n_dates + (1.0 + gamma) * np.outer(mean, mean)


def _tilted(block: FloatArray, gamma: float) -> FloatArray:
    """(date, ticker) block Y with Y'Y / T = M: deviations from the means, and the means times sqrt(1 + gamma)."""
    mean = block.mean(axis=0)
    tilted: FloatArray = block + (np.sqrt(1.0 + gamma) - 1.0) * mean
    return tilted


def _leading(matrix: FloatArray, count: int) -> tuple[FloatArray, FloatArray]:
    """Largest eigenvalues, falling, and their eigenvectors."""
    size = len(matrix)
    values, vectors = scipy.linalg.eigh(matrix, subset_by_index=(max(0, size - count), size - 1))
    return values[::-1], vectors[:, ::-1]


def _rank(values: FloatArray) -> int:
    return int((values > RANK_TOLERANCE * values[0]).sum()) if values[0] > 0.0 else 0


def _signs(vectors: FloatArray) -> FloatArray:
    """+1 or -1 per column: that of its sum, or of its largest entry where the sum is nothing but rounding."""
    total, size = vectors.sum(axis=0), np.abs(vectors).sum(axis=0)
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0)[0]
    return np.where(np.where(np.abs(total) > _NO_SUM * size, total, largest) < 0.0, -1.0, 1.0)


def _spans(length: int, width: int) -> Iterator[slice]:
    step = max(1, _CELLS_IN_FLIGHT // max(1, width))
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))
