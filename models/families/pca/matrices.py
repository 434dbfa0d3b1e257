"""The second moments of a panel of returns and their leading eigenvectors.

Here belong the matrix M = X'X / T + gamma m m' (m the means), its smaller side, its pairwise estimate, and its leading
eigenvectors with their sign. What stands in the place of missing returns belongs in `completion`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.linalg
from scipy.sparse.linalg import LinearOperator, eigsh

from models.arrays import FloatArray
from models.families.pca.factor_number import Spectrum
from models.statistics.gram import RANK_TOLERANCE
from schemas.errors import ModelError

_CELLS_IN_FLIGHT = 4_000_000  # float64 cells of a block: 32 MB
_FEW_STOCKS = 200  # up to which all eigenvalues are taken
_PRODUCTS, _SPARE = 3, 5  # blocks of Lanczos vectors, and vectors beside those asked for
_MOST_RESTARTS = 20
_NO_SUM = 1e-8  # a column whose sum is below this share of its absolute sum takes the sign of its largest entry


class Moments(Protocol):
    """Second moments that are applied to vectors, and never formed."""

    mean: FloatArray
    variance: FloatArray

    @property
    def shape(self) -> tuple[int, int]:
        """Number of dates and of stocks."""

    def times(self, vectors: FloatArray) -> FloatArray:
        """(ticker, column) product of the covariance with vectors (ticker, column)."""


@dataclass(frozen=True, eq=False)
class ScaledPanel:
    """Returns without a gap, over the scale of each stock.

    Attributes
    ----------
    returns : numpy.ndarray
        (date, ticker) in the precision of their storage.
    scale : numpy.ndarray
        (ticker,) divisors, such as standard deviations.
    """

    returns: FloatArray
    scale: FloatArray

    @property
    def shape(self) -> tuple[int, int]:
        """Number of dates and of stocks."""
        return self.returns.shape[0], self.returns.shape[1]

    def by_date(self) -> Iterator[tuple[slice, FloatArray]]:
        """Spans of dates with their float64 cells, tens of megabytes at a time."""
        for span in spans(*self.shape):
            yield span, self.returns[span] / self.scale

    def by_ticker(self) -> Iterator[tuple[slice, FloatArray]]:
        """Spans of stocks with their float64 cells over all dates."""
        for span in spans(*self.shape[::-1]):
            yield span, self.returns[:, span] / self.scale[span]


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


def complete_components(panel: ScaledPanel, n_components: int, n_eigenvalues: int, gamma: float) -> Components:
    """Components of a panel without gaps, through the smaller side of the panel.

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


def completed_components(moments: Moments, n_components: int, n_eigenvalues: int, gamma: float) -> Components:
    """Components of moments that are only applied to vectors, those of a panel whose gaps are completed.

    All eigenvalues of few stocks, and Lanczos iterations to the precision of the machine (ARPACK) for many.
    """
    n_dates, n_stocks = moments.shape
    weight = 1.0 + gamma

    def times(vectors: FloatArray) -> FloatArray:
        vectors = vectors.reshape(n_stocks, -1)
        return moments.times(vectors) + weight * moments.mean[:, None] * (moments.mean @ vectors)

    count = min(n_stocks, max(n_components, n_eigenvalues))
    if n_stocks <= max(_FEW_STOCKS, 4 * count):
        matrix = times(np.eye(n_stocks))
        values, vectors = _leading((matrix + matrix.T) / 2.0, count)
    else:
        operator = LinearOperator((n_stocks, n_stocks), matvec=times, matmat=times, dtype=np.float64)
        values, vectors = eigsh(operator, count, v0=np.sqrt(moments.variance), ncv=max(2 * count + 1, 40))
        values, vectors = values[::-1], vectors[:, ::-1]
    vectors = vectors[:, : min(n_components, _rank(values))]
    total = float(moments.variance.sum() + weight * np.square(moments.mean).sum())
    return Components(vectors * _signs(vectors), Spectrum(np.maximum(values, 0.0), total, n_dates, n_stocks))


def nearly_leading(
    times: Callable[[FloatArray], FloatArray], size: int, count: int, start: FloatArray | None, accuracy: float
) -> tuple[FloatArray, FloatArray]:
    """Largest eigenvalues, falling, and their vectors, of a matrix that differs from the one given by little.

    Blocks of Lanczos vectors, begun again from their Ritz vectors until these leave a residual below the accuracy: they
    are exact for a matrix that is so close. Those of a small matrix are exact.

    Parameters
    ----------
    times : callable
        Product of a symmetric, positive semidefinite matrix with (size, column) vectors.
    size, count : int
        Of the matrix, and of the eigenvalues asked for; fewer are given if the matrix has no more.
    start : numpy.ndarray, optional
        (size, column) the vectors that an earlier call returned, which are a few more than those asked for.
    accuracy : float
        Norm of the residual over the largest eigenvalue.
    """
    width = count + _SPARE
    if size <= _PRODUCTS * width:
        matrix = times(np.eye(size))
        return _leading((matrix + matrix.T) / 2.0, min(size, count))
    if start is None:
        start = np.random.default_rng(0).standard_normal((size, width))
    for _ in range(_MOST_RESTARTS):
        basis, images = _krylov(times, start)
        projected = basis.T @ images
        values, turn = _leading((projected + projected.T) / 2.0, width)
        start = basis @ turn
        residual = (images @ turn - start * values)[:, :count]
        if np.linalg.norm(residual) <= accuracy * values[0]:
            break
    return values[:count], start


def _krylov(times: Callable[[FloatArray], FloatArray], start: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Orthonormal basis of the span of a start and its products with a matrix, and the product with that basis."""
    width = start.shape[1]
    basis = block = np.linalg.qr(start)[0]
    images = times(block)
    for _ in range(_PRODUCTS - 1):
        block = np.linalg.qr(images[:, -width:])[0]
        for _ in range(2):  # once leaves what rounding makes of nearly parallel vectors
            block = np.linalg.qr(block - basis @ (basis.T @ block))[0]
        basis, images = np.hstack([basis, block]), np.hstack([images, times(block)])
    return basis, images


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
    for span in spans(n_dates, n_stocks):
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


def _date_side(panel: ScaledPanel, gamma: float) -> FloatArray:
    n_dates = panel.shape[0]
    side = np.zeros((n_dates, n_dates))
    for _, block in panel.by_ticker():
        tilted = _tilted(block, gamma)
        side += tilted @ tilted.T
    return side / n_dates


def _ticker_side(panel: ScaledPanel, gamma: float) -> FloatArray:
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


def spans(length: int, width: int) -> Iterator[slice]:
    """Slices of rows whose float64 cells, ``width`` of them a row, stay within tens of megabytes."""
    step = max(1, _CELLS_IN_FLIGHT // max(1, width))
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))
