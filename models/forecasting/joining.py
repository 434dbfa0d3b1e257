"""Several fits become one series: latent factors turned into one set of coordinates, rows put one after the other.

Latent factors are identified only up to a rotation, so each fit is turned towards the one before it; every risk number
is the same in any coordinates. What follows from the joined rows belongs in `rows`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
import xarray as xr

from models.arrays import Float64Array, IntArray
from models.families.base import FactorModel
from models.families.rotation import align
from models.forecasting.following import Served
from models.panel import Panel
from models.panel.row_blocks import rows_at_once
from schemas.errors import ModelError

_BLOCK_DATES = 256


@dataclass(frozen=True, eq=False)
class Realised:
    """Factor returns of a fit, in its own coordinates, over the dates that risk follows and those that it serves.

    No date is there of a fit whose factors are given: it is turned towards no other.

    Attributes
    ----------
    dates : numpy.ndarray
        (date,) days since 1970.
    factor_returns : numpy.ndarray
        (date, factor) decimals per period.
    """

    dates: IntArray
    factor_returns: Float64Array

    @classmethod
    def of(cls, model: FactorModel, panel: Panel, since: int = 0) -> Realised:
        """Ask a fitted model, if any of its factors are latent, for its factor returns from a position on."""
        if not model.latent_blocks:
            return cls(np.empty(0, dtype=np.int64), np.empty((0, len(model.factors_))))
        asked = Panel(panel.data.isel(date=slice(since, None)))
        values = [
            model.factor_returns(block).transpose("date", "factor").values
            for block in asked.blocks(rows_at_once(len(asked.tickers), len(model.factors_)))
        ]
        days: IntArray = asked.dates.to_numpy().astype("datetime64[D]").astype(np.int64)
        return cls(days, np.concatenate(values).astype(np.float64))


def rotations(fits: Sequence[Realised], blocks: Sequence[slice]) -> list[Float64Array]:
    """Rotation of every fit onto the one before, over the dates that both have seen; the first stays as it is.

    Parameters
    ----------
    fits : sequence of Realised
        In the order of their dates.
    blocks : sequence of slice
        Factors that are turned among themselves, each set by itself (`FactorModel.latent_blocks`); others stay.
    """
    n_factors = fits[0].factor_returns.shape[1]
    found = [np.eye(n_factors)]
    for earlier, later in pairwise(fits):
        _, first, second = np.intersect1d(earlier.dates, later.dates, return_indices=True)
        rotation = np.eye(n_factors)
        for block in blocks:
            reference = earlier.factor_returns[first, block] @ found[-1][block, block]
            rotation[block, block] = align(later.factor_returns[second, block], reference)
        found.append(rotation)
    return found


def in_coordinates(model: FactorModel, rotation: Float64Array) -> FactorModel:
    """Return the fitted model in the coordinates of the version; given factors have no others."""
    return model.rotate(rotation) if model.latent else model


def check_axis(name: str, fits: Sequence[tuple[str, int]], factors: Sequence[str]) -> None:
    """Refuse fits, given as (date, number of factors), with other numbers of factors than the last.

    Raises
    ------
    ModelError
        The factor axis of a version is one.
    """
    for as_of, count in fits:
        if count != len(factors):
            raise ModelError(
                f"{name}: the fit as of {as_of} has {count} factors and the last one {len(factors)} "
                f"({', '.join(factors)}); an industry or characteristic that comes later is a new factor: start "
                "walk_forward.first after it, or leave it out."
            )


def join_blocks(
    fits: Iterable[Served], dates: pd.Index, tickers: pd.Index, factors: Sequence[str], size: int = _BLOCK_DATES
) -> Iterator[xr.Dataset]:
    """Join rows as `join` does, at least ``size`` dates at a time: a fit is taken when its turn comes.

    Parameters
    ----------
    fits, dates, tickers, factors
        As in `join`, of all dates.
    size : int
        Dates of a block, whose last fit may make it longer.
    """
    before: Float64Array | None = None
    for group in _grouped(fits, size):
        begin, end = group[0].begin, group[-1].begin + len(group[-1])
        yield join(group, dates[begin:end], tickers, factors, before)
        before = group[-1].factor_returns[-1]


def _grouped(fits: Iterable[Served], size: int) -> Iterator[list[Served]]:
    group: list[Served] = []
    for fit in fits:
        group.append(fit)
        if sum(map(len, group)) >= size:
            yield group
            group = []
    if group:
        yield group


def join(
    fits: Sequence[Served],
    dates: pd.Index,
    tickers: pd.Index,
    factors: Sequence[str],
    before: Float64Array | None = None,
) -> xr.Dataset:
    """Put the rows of consecutive fits one after the other, on the axes of a version.

    Parameters
    ----------
    fits : sequence of Served
        In the order of their dates, of one set of coordinates; the first from the first of ``dates`` on.
    dates, tickers
        Axes of the version; a ticker that a fit did not know has nothing in its rows.
    factors : sequence of str
        Names of the factors.
    before : numpy.ndarray, optional
        (factor,) what was realised on the first date, by the fit that was in force before; by the first of these if
        left out.

    Returns
    -------
    xarray.Dataset
        ``loadings``, ``expected_returns``, ``factor_returns``, ``omega`` and ``specific_variance`` as in
        `schemas.contracts.VERSION`. A factor return is of the fit that was in force on the date before.
    """
    placed = [_placed(fit, tickers) for fit in fits]
    first = fits[0].factor_returns[:1] if before is None else before[np.newaxis]
    realised = np.concatenate([first, *(fit.factor_returns[1:] for fit in fits)])
    return xr.Dataset(
        {
            "loadings": (("date", "ticker", "factor"), np.concatenate([fit.loadings for fit in placed])),
            "expected_returns": (("date", "ticker"), np.concatenate([fit.expected_returns for fit in placed])),
            "factor_returns": (("date", "factor"), realised[: len(dates)]),
            "omega": (("date", "factor", "factor_"), np.concatenate([fit.omega for fit in fits])),
            "specific_variance": (("date", "ticker"), np.concatenate([fit.specific_variance for fit in placed])),
        },
        coords={"date": dates, "ticker": tickers, "factor": [*factors], "factor_": [*factors]},
    )


def _placed(fit: Served, tickers: pd.Index) -> Served:
    at = tickers.get_indexer(pd.Index(fit.tickers))
    if len(at) == len(tickers) and (at == np.arange(len(tickers))).all():
        return fit
    wide = {}
    for name in ("loadings", "expected_returns", "specific_variance"):
        values = getattr(fit, name)
        wide[name] = np.full((len(values), len(tickers), *values.shape[2:]), np.nan, dtype=values.dtype)
        wide[name][:, at] = values
    return Served(fit.begin, tuple(map(str, tickers)), factor_returns=fit.factor_returns, omega=fit.omega, **wide)
