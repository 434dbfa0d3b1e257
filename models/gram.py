"""Per-date sufficient statistics Z'Z, Z'r, r'r and n of a panel, and the one rule by which they are solved.

Here belongs what Fama-MacBeth, IPCA and the conditional autoencoder share: everything that they ever need of
n stocks at a date is an L x L matrix and an L vector. What a model does with them belongs in that model's
module.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from models.base import FloatArray
from models.panel import Panel
from schemas.errors import ModelError

INTERCEPT = "intercept"
RANK_TOLERANCE = 1e-12
_CELLS_IN_FLIGHT = 4_000_000  # float64 cells of a design held at once: 32 MB


@dataclass(frozen=True, eq=False)
class GramStatistics:
    """Cross-products of characteristics Z and returns r over the estimation universe, date by date, float64.

    Attributes
    ----------
    zz : numpy.ndarray
        (date, char, char) Z'WZ; W is the identity unless weights were given.
    zr : numpy.ndarray
        (date, char) Z'Wr.
    rr : numpy.ndarray
        (date,) r'Wr.
    n : numpy.ndarray
        (date,) number of stocks.
    dates : pandas.DatetimeIndex
        Labels of the first axis.
    chars : tuple of str
        Labels of the characteristics; the first is ``intercept`` if one was added.
    """

    zz: FloatArray
    zr: FloatArray
    rr: FloatArray
    n: npt.NDArray[np.int64]
    dates: pd.DatetimeIndex
    chars: tuple[str, ...]

    def sel(self, start: Any = None, end: Any = None) -> GramStatistics:
        """Dates from start to end, both inclusive, as `Panel.sel`."""
        span = self.dates.slice_indexer(start, end)
        return GramStatistics(self.zz[span], self.zr[span], self.rr[span], self.n[span], self.dates[span], self.chars)

    @staticmethod
    def concat(parts: Sequence[GramStatistics]) -> GramStatistics:
        """Join parts along the date, so that a longer panel only costs its new dates.

        Raises
        ------
        ModelError
            If the parts have other characteristics, or their dates do not strictly increase.
        """
        if not parts or any(part.chars != parts[0].chars for part in parts):
            raise ModelError("Gram statistics of other characteristics cannot be joined; compute them alike.")
        dates = pd.DatetimeIndex(np.concatenate([part.dates for part in parts]))
        if not (dates.is_monotonic_increasing and dates.is_unique):
            raise ModelError("Gram statistics to be joined must follow one another in time, without overlap.")
        zz, zr, rr, n = (np.concatenate([getattr(part, name) for part in parts]) for name in ("zz", "zr", "rr", "n"))
        return GramStatistics(zz, zr, rr, n, dates, parts[0].chars)


def gram_statistics(
    panel: Panel,
    *,
    chars: Sequence[str] | None = None,
    weights: xr.DataArray | None = None,
    intercept: bool = False,
) -> GramStatistics:
    """Compute the statistics span by span, in float64 from float32 input; only rows of ``panel.mask`` enter.

    Parameters
    ----------
    panel : Panel
        Possibly lazily opened; no more than one of its blocks is in memory.
    chars : sequence of str, optional
        Which characteristics, in which order. Default: all of the panel's.
    weights : xarray.DataArray, optional
        (date, ticker) diagonal of W, such as 1 / specific variance; rows whose weight is not positive do not
        enter.
    intercept : bool
        Put a column of ones, named ``intercept``, before the characteristics.

    Raises
    ------
    ModelError
        If the panel lacks one of the characteristics.
    """
    names = tuple(panel.chars if chars is None else chars)
    parts = [_block_statistics(block, names, weights, intercept=intercept) for block in panel.blocks()]
    labels = (INTERCEPT, *names) if intercept else names
    zz, zr, rr, n = (np.concatenate(column) for column in zip(*parts, strict=True))
    return GramStatistics(zz, zr, rr, n, panel.dates, labels)


def managed_portfolios(gram: GramStatistics) -> FloatArray:
    """Return the characteristic-managed portfolios x[t] = (Z'Z)^-1 Z'r as (date, char).

    Where Z'Z is rank deficient by the rule of `solve_gram` the minimum-norm solution is taken, so that x is
    finite on every date with a stock; it is NaN on dates without one. Source: Gu, Kelly and Xiu (2021), eq.
    16.
    """
    portfolios, _ = solve_gram(gram.zz, gram.zr[..., None])
    return np.where(gram.n[:, None] > 0, portfolios[..., 0], np.nan)


def solve_gram(gram: FloatArray, moment: FloatArray) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Solve a batch of positive semidefinite systems A x = b, and say which have full rank.

    The rule of rank: A is scaled to a unit diagonal, which makes the rule blind to the units of the
    characteristics, and eigenvalues below ``RANK_TOLERANCE`` (1e-12) times the largest count as zero. In
    terms of the scaled columns of Z their condition number must stay below 1e6. A deficient system gets its
    minimum-norm solution (in scaled coordinates). Each system is decided on its own, so that other dates have
    no say in it.

    Parameters
    ----------
    gram : numpy.ndarray
        (batch, k, k) finite and positive semidefinite.
    moment : numpy.ndarray
        (batch, k, m) right-hand sides.

    Returns
    -------
    solution : numpy.ndarray
        (batch, k, m), finite.
    rank : numpy.ndarray
        (batch,) numerical rank, from 0 to k.
    """
    size = gram.shape[-1]
    diagonal = np.diagonal(gram, axis1=1, axis2=2)
    scale = np.divide(1.0, np.sqrt(diagonal), out=np.zeros_like(diagonal), where=diagonal > 0.0)[..., None]
    scaled = gram * scale * scale.transpose(0, 2, 1)
    moment = moment * scale
    # With a unit diagonal (trace k) the smallest eigenvalue is at least det / e and the largest at most k:
    # most systems are seen to have full rank from their determinant alone, and need no eigenvalues.
    easy = np.linalg.det(scaled) > np.e * size * RANK_TOLERANCE
    solution = np.empty_like(moment)
    rank = np.full(len(gram), size, dtype=np.int64)
    solution[easy] = np.linalg.solve(scaled[easy], moment[easy])
    if not easy.all():
        solution[~easy], rank[~easy] = _solve_by_eigenvalues(scaled[~easy], moment[~easy])
    return solution * scale, rank


def select_characteristics(panel: Panel, chars: Sequence[str]) -> xr.DataArray:
    """Characteristics of a panel as (date, ticker, char), in the order in which a model was fitted.

    Raises
    ------
    ModelError
        If the panel lacks one of them.
    """
    if panel.chars == [*chars]:
        return panel.characteristics
    missing = sorted(set(chars) - set(panel.chars))
    if missing:
        raise ModelError(f"The panel lacks the characteristics {missing}; it has {panel.chars}.")
    return panel.characteristics.sel(char=[*chars])


def date_spans(n_dates: int, cells: int) -> Iterator[slice]:
    """Slices of dates whose float64 copy, at ``cells`` cells per date, stays within tens of megabytes."""
    step = max(1, _CELLS_IN_FLIGHT // max(1, cells))
    for start in range(0, n_dates, step):
        yield slice(start, min(start + step, n_dates))


def _block_statistics(
    block: Panel, chars: tuple[str, ...], weights: xr.DataArray | None, *, intercept: bool
) -> tuple[FloatArray, FloatArray, FloatArray, npt.NDArray[np.int64]]:
    """Cross-products of one block, all from one product [1, Z, r]'W[1, Z, r] per date."""
    design = select_characteristics(block, chars).values
    returns, known = block.returns.values, block.mask.values
    root = None
    if weights is not None:
        weight = weights.sel(date=block.dates, ticker=block.tickers).values.astype(np.float64)
        known = known & np.isfinite(weight) & (weight > 0.0)
        root = np.sqrt(np.where(known, weight, 0.0))[..., None]
    n_dates, n_stocks, n_chars = design.shape
    first = int(intercept)
    product = np.empty((n_dates, first + n_chars + 1, first + n_chars + 1))
    for span in date_spans(n_dates, n_stocks * product.shape[-1]):
        rows = known[span, :, None]
        joint = np.zeros((rows.shape[0], n_stocks, product.shape[-1]))
        joint[..., :first] = rows
        np.copyto(joint[..., first:-1], design[span], where=rows)
        np.copyto(joint[..., -1:], returns[span, :, None], where=rows)
        if root is not None:
            joint *= root[span]
        np.matmul(joint.transpose(0, 2, 1), joint, out=product[span])
    zz, zr, rr = product[:, :-1, :-1], product[:, :-1, -1], product[:, -1, -1]
    return zz, zr, rr, known.sum(axis=1, dtype=np.int64)


def _solve_by_eigenvalues(scaled: FloatArray, moment: FloatArray) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Minimum-norm solution by the spectrum; eigenvalues that count as zero are left out."""
    values, vectors = np.linalg.eigh(scaled)
    keep = values > RANK_TOLERANCE * values[:, -1:]
    inverse = np.divide(1.0, values, out=np.zeros_like(values), where=keep)
    solution = vectors @ (inverse[..., None] * (vectors.transpose(0, 2, 1) @ moment))
    return solution, keep.sum(axis=1)
