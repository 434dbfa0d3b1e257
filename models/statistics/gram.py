"""Per-date sufficient statistics Z'Z, Z'r, r'r and n of a panel, and the one rule by which they are solved.

Here belongs what Fama-MacBeth, IPCA and the conditional autoencoder share: everything that they ever need of
n stocks at a date is an L x L matrix and an L vector. What a model does with them belongs in that model's
module.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from models.arrays import FloatArray
from models.panel import Panel
from models.statistics.products import Products, cross_products
from schemas.errors import DataError, ModelError

INTERCEPT = "intercept"
_INDUSTRY = "industry:"
Weighting = Literal["equal", "cap", "sqrt_cap"]
RANK_TOLERANCE = 1e-12
_INVOLVED = 0.05  # weight in a combination that is zero with which a regressor is named
_CELLS_IN_FLIGHT = 4_000_000  # float64 cells of a design held at once: 32 MB
_CELLS_PER_READ = 4_000_000  # float32 cells of a lazily opened panel that are read at once: 16 MB
_BY_DATE = ("zz", "zr", "rr", "n", "weight")


@dataclass(frozen=True)
class Design:
    """What a set of Gram statistics is made of: the regressors, and the weight of each stock.

    Attributes
    ----------
    chars : tuple of str
        Characteristics of the panel, in order.
    intercept : bool
        Put a column of ones, named ``intercept``, first.
    industries : bool
        After the intercept one 0/1 column per industry of the panel, named as `industry_name` says. Stocks of unknown
        industry do not enter.
    weighting : str
        The diagonal of W: "equal" is the identity, "cap" the panel's ``market_weight``, "sqrt_cap" its square root.
        Stocks whose weight is not positive do not enter.
    caps : bool
        Also sum the capitalisation of the stocks that enter, by industry.
    """

    chars: tuple[str, ...]
    intercept: bool = False
    industries: bool = False
    weighting: Weighting = "equal"
    caps: bool = False


@dataclass(frozen=True, eq=False)
class GramStatistics:
    """Cross-products of regressors Z and returns r over the estimation universe, date by date, float64.

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
    weight : numpy.ndarray
        (date,) sum of the diagonal of W; equal to ``n`` unless weights were given.
    dates : pandas.DatetimeIndex
        Labels of the first axis; they repeat in a sample drawn by `take`.
    chars : tuple of str
        Labels of the regressors: ``intercept`` if there is one, industries, characteristics.
    caps : numpy.ndarray
        (date, industry) sums of the panel's market weight, in the order of the industries among ``chars``; None unless
        asked for.
    """

    zz: FloatArray
    zr: FloatArray
    rr: FloatArray
    n: npt.NDArray[np.int64]
    weight: FloatArray
    dates: pd.DatetimeIndex
    chars: tuple[str, ...]
    caps: FloatArray | None = None

    @property
    def industries(self) -> tuple[str, ...]:
        """Those of ``chars`` that are regressors of industries, in order."""
        return tuple(name for name in self.chars if name.startswith(_INDUSTRY))

    def sel(self, start: Any = None, end: Any = None) -> GramStatistics:
        """Dates from start to end, both inclusive, as `Panel.sel`; views, not copies."""
        return self._at(self.dates.slice_indexer(start, end))

    def take(self, positions: npt.ArrayLike) -> GramStatistics:
        """Dates at these positions, in the order given; repeats are allowed, as a bootstrap by date needs them."""
        return self._at(np.asarray(positions, dtype=np.int64))

    def select(self, chars: Sequence[str]) -> GramStatistics:
        """Only these regressors, in the order asked for.

        Raises
        ------
        ModelError
            If one of them is not among ``chars``.
        """
        missing = [name for name in chars if name not in self.chars]
        if missing:
            raise ModelError(f"These Gram statistics lack {missing}; they have {[*self.chars]}.")
        order = np.array([self.chars.index(name) for name in chars], dtype=np.int64)
        caps = self.caps
        if caps is not None:
            places = {name: place for place, name in enumerate(self.industries)}
            caps = caps[:, [places[name] for name in chars if name in places]]
        return replace(self, zz=self.zz[:, order[:, None], order], zr=self.zr[:, order], chars=tuple(chars), caps=caps)

    @staticmethod
    def concat(parts: Sequence[GramStatistics]) -> GramStatistics:
        """Join parts along the date, so that a longer panel only costs its new dates.

        Raises
        ------
        DataError
            If the parts have other regressors, or their dates do not strictly increase.
        """
        held = [part.caps for part in parts if part.caps is not None]
        if not parts or any(part.chars != parts[0].chars for part in parts) or len(held) not in {0, len(parts)}:
            raise DataError("Gram statistics of other characteristics cannot be joined; compute them alike.")
        dates = pd.DatetimeIndex(np.concatenate([part.dates for part in parts]))
        if not (dates.is_monotonic_increasing and dates.is_unique):
            raise DataError("Gram statistics to be joined must follow one another in time, without overlap.")
        zz, zr, rr, n, weight = (np.concatenate([getattr(part, name) for part in parts]) for name in _BY_DATE)
        return GramStatistics(zz, zr, rr, n, weight, dates, parts[0].chars, caps=np.concatenate(held) if held else None)

    def _at(self, dates: slice | npt.NDArray[np.int64]) -> GramStatistics:
        zz, zr, rr, n, weight = (getattr(self, name)[dates] for name in _BY_DATE)
        caps = None if self.caps is None else self.caps[dates]
        return GramStatistics(zz, zr, rr, n, weight, self.dates[dates], self.chars, caps=caps)


def gram_of(panel: Panel, design: Design, weights: xr.DataArray | None = None) -> GramStatistics:
    """Compute the statistics of a design span by span, as `gram_statistics` does.

    Parameters
    ----------
    panel, weights
        As in `gram_statistics`; weights take the place of those that the design names.
    design : Design

    Raises
    ------
    ModelError
        If the panel lacks one of the characteristics, or has no industries and the design asks for them.
    """
    groups = panel.industries if design.industries else []
    parts = [_block_products(block, design, weights, len(groups)) for block in _blocks_of(panel, design.chars)]
    labels = (*([INTERCEPT] if design.intercept else []), *map(industry_name, groups), *design.chars)
    zz, zr, rr, n, weight, caps = (np.concatenate(column) for column in zip(*parts, strict=True))
    return GramStatistics(zz, zr, rr, n, weight, panel.dates, labels, caps if design.caps else None)


def gram_statistics(
    panel: Panel,
    *,
    chars: Sequence[str] | None = None,
    weights: xr.DataArray | None = None,
    intercept: bool = False,
    industries: bool = False,
    caps: bool = False,
) -> GramStatistics:
    """Compute the statistics span by span, in float64 from float32 input; only rows of ``panel.mask`` enter.

    The bits of a date depend on its own rows alone: neither other dates nor stocks that are not in its estimation
    universe have a say in how sums are rounded.

    Parameters
    ----------
    panel : Panel
        Possibly lazily opened; no more than two blocks of it, of 16 MB, are in memory: the second is read in a
        thread while the first is worked on.
    chars : sequence of str, optional
        Which characteristics, in which order. Default: all of the panel's.
    weights : xarray.DataArray, optional
        (date, ticker) diagonal of W, such as 1 / specific variance; rows whose weight is not positive do not
        enter.
    intercept : bool
        Put a column of ones, named ``intercept``, first.
    industries : bool
        After it one 0/1 column per industry of the panel, named as `industry_name` says; rows of unknown industry
        do not enter. No such column is ever formed: their products are sums by group.
    caps : bool
        Also sum the capitalisation of the stocks that enter, by industry.

    Raises
    ------
    ModelError
        If the panel lacks one of the characteristics, or has no industries and they are asked for.
    """
    design = Design(tuple(panel.chars if chars is None else chars), intercept, industries, caps=caps)
    return gram_of(panel, design, weights)


def industry_name(industry: str) -> str:
    """Name the 0/1 regressor of an industry: ``industry:<name>``."""
    return f"{_INDUSTRY}{industry}"


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
    rank = np.full(len(gram), size, dtype=np.int64)
    if easy.all():
        return np.linalg.solve(scaled, moment) * scale, rank
    solution = np.empty_like(moment)
    solution[easy] = np.linalg.solve(scaled[easy], moment[easy])
    solution[~easy], rank[~easy] = _solve_by_eigenvalues(scaled[~easy], moment[~easy])
    return solution * scale, rank


def collinear(gram: FloatArray, names: Sequence[str]) -> list[str]:
    """Name the regressors that are zero, or else those of a combination that is, by the rule of `solve_gram`.

    Parameters
    ----------
    gram : numpy.ndarray
        (k, k) finite and positive semidefinite.
    names : sequence of str
        Of the k regressors. None of them is returned if the rank is full.
    """
    size = np.sqrt(np.diagonal(gram))
    if (size == 0.0).any():
        return [name for name, zero in zip(names, size == 0.0, strict=True) if zero]
    values, vectors = np.linalg.eigh(gram / np.outer(size, size))
    if values[0] > RANK_TOLERANCE * values[-1]:
        return []
    return [name for name, weight in zip(names, vectors[:, 0], strict=True) if abs(weight) > _INVOLVED]


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


def read_blocks(panel: Panel) -> Iterator[Panel]:
    """Read a possibly lazily opened panel: the characteristics 16 MB at a time, what is small 256 dates at a time.

    The number of dates is a power of two, so that blocks meet the borders of chunks and no chunk is read twice.
    """
    cells = max(1, len(panel.tickers) * len(panel.chars))
    size = int(2 ** min(8, max(0, (_CELLS_PER_READ // cells).bit_length() - 1)))
    for start in range(0, len(panel.dates), 256):
        dates = panel.data.isel(date=slice(start, start + 256))
        small = {name: dates[name].load() for name in dates.data_vars if name != "characteristics"}
        yield from Panel(dates.assign(small)).blocks(size)


def _blocks_of(panel: Panel, chars: Sequence[str]) -> Iterator[Panel]:
    """Blocks for `_block_products`: as they lie in memory if nothing must be read or copied, or of limited size."""
    if not panel.in_memory:
        return _read_ahead(read_blocks(panel))
    return panel.spans() if panel.chars == [*chars] else read_blocks(panel)


def _read_ahead(blocks: Iterator[Panel]) -> Iterator[Panel]:
    """Yield blocks, reading the next one in a thread while the present one is worked on."""
    with ThreadPoolExecutor(1, "read-ahead") as reader:
        coming = reader.submit(next, blocks, None)
        while (block := coming.result()) is not None:
            coming = reader.submit(next, blocks, None)
            yield block


def _block_products(block: Panel, design: Design, weights: xr.DataArray | None, n_industries: int) -> Products:
    """Cross-products of one block in memory, over its estimation universe."""
    known = block.mask.values
    weight = industry = None
    if weights is not None:
        weight = weights.sel(date=block.dates, ticker=block.tickers).values.astype(np.float64)
    elif design.weighting != "equal":
        weight = block.market_weight.values.astype(np.float64)
        weight = weight if design.weighting == "cap" else np.sqrt(weight)
    if weight is not None:
        known = known & np.isfinite(weight) & (weight > 0.0)
    if design.industries:
        industry = block.industry.values
        known = known & (industry >= 0)
    return cross_products(
        select_characteristics(block, design.chars).values,
        block.returns.values,
        known,
        weight=weight,
        intercept=design.intercept,
        industry=industry,
        n_industries=n_industries,
        cap=block.market_weight.values.astype(np.float64) if design.caps else None,
    )


def _solve_by_eigenvalues(scaled: FloatArray, moment: FloatArray) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Minimum-norm solution by the spectrum; eigenvalues that count as zero are left out."""
    values, vectors = np.linalg.eigh(scaled)
    keep = values > RANK_TOLERANCE * values[:, -1:]
    inverse = np.divide(1.0, values, out=np.zeros_like(values), where=keep)
    solution = vectors @ (inverse[..., None] * (vectors.transpose(0, 2, 1) @ moment))
    return solution, keep.sum(axis=1)
