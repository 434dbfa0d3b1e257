"""Summaries of what is about to be written to a cube, beside what the cube already holds.

Here belong coverage and drift of characteristics, known industries, and the sums of portfolio weights. What was
read from a source belongs in `summaries`. A check that blocks here means that the run itself made a mistake, or
that a source changed its meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from models.arrays import FloatArray, IntArray
from models.quality.arrays import labels, quantiles, trailing_median

HISTORY = {"daily": 252, "monthly": 36}
"""Dates that a trailing median looks back on, by frequency."""
LEAST = {"daily": 21, "monthly": 12}
_LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
_BLOCK = 64  # dates in memory at once
_COUNT = "count"


def cube_by_date(cube: xr.Dataset, previous: xr.Dataset | None, frequency: Literal["daily", "monthly"]) -> pd.DataFrame:
    """Summarise a slice of a cube by date.

    Parameters
    ----------
    cube : xarray.Dataset
        Variables of `schemas.contracts.CUBE` over the dates to be written; may be lazy.
    previous : xarray.Dataset or None
        The cube before the write. Its dates before the first date to be written are the history that drift
        is measured against; without it, or with too little, the earlier dates of the slice are.
    frequency : {"daily", "monthly"}
        Sets how far back the history goes.

    Returns
    -------
    DataFrame
        One row per date of the slice. Per characteristic only the worst value is kept, its name beside it.
    """
    history = None
    if previous is not None:
        earlier = int(previous.indexes["date"].searchsorted(cube.indexes["date"][0]))
        if earlier:
            history = previous.isel(date=slice(max(0, earlier - HISTORY[frequency]), earlier))
    parts = [
        _summarised(cube.isel(date=slice(start, start + _BLOCK)).load())
        for start in range(0, cube.sizes["date"], _BLOCK)
    ]
    table = {name: np.concatenate([part.plain[name] for part in parts]) for name in parts[0].plain}
    table["vanished_returns"] = _vanished_returns(table.pop(_COUNT), history, frequency)
    if parts[0].sections is not None:
        before = None if history is None else _sections(history.reindex(char=cube["char"]))
        sections = _Sections.joined([part.sections for part in parts if part.sections is not None])
        table |= _characteristics(sections, before, labels(cube["char"]), frequency)
    if parts[0].net is not None:
        net = np.concatenate([part.net for part in parts if part.net is not None])
        table |= _weights(net, labels(cube["portfolio"]), cube["portfolio"], history)
    return pd.DataFrame(table)


@dataclass(frozen=True)
class _Part:
    """What a span of dates is summarised to: columns of the table, sections, net weights (date, portfolio)."""

    plain: dict[str, npt.NDArray[Any]]
    sections: _Sections | None
    net: FloatArray | None


def _summarised(cube: xr.Dataset) -> _Part:
    returns = cube["returns"].values
    infinite = np.isinf(returns).sum(axis=1)
    plain: dict[str, npt.NDArray[Any]] = {
        "date": np.datetime_as_string(cube["date"].values, unit="D"),
        "cube_return_bound": np.fmax.reduce(np.abs(returns), axis=1),
        _COUNT: np.isfinite(returns).sum(axis=1),
    }
    sections, net = None, None
    if "characteristics" in cube:
        sections = _sections(cube)
        infinite = infinite + sections.infinite
    plain["infinite_value"] = infinite
    if "industry" in cube:
        plain["unknown_industry"] = _unknown_industry(cube)
    if "weights" in cube:
        weights = cube["weights"].transpose("date", "portfolio", "ticker").values
        held = np.isfinite(weights)
        plain["partial_weights"] = (held.any(axis=2) & ~held.all(axis=2)).sum(axis=1)
        net = np.where(held.all(axis=2), weights.sum(axis=2, dtype=np.float64), np.nan)
    return _Part(plain, sections, net)


def _vanished_returns(
    counts: IntArray, history: xr.Dataset | None, frequency: Literal["daily", "monthly"]
) -> FloatArray:
    """Divide the number of returns of each date by its trailing median; NaN where too little is known to compare with.

    Prices may be all there and returns not: each spans one session, and goes missing after a date that did not land.
    """
    known = counts
    if history is not None:
        known = np.concatenate([np.isfinite(history["returns"].values).sum(axis=1), counts])
    usual = trailing_median(known[:, None].astype(np.float64), HISTORY[frequency], LEAST[frequency])[:, 0]
    share: FloatArray = known / np.where(usual > 0.0, usual, np.nan)
    return share[len(share) - len(counts) :]


def _unknown_industry(cube: xr.Dataset) -> FloatArray:
    """Share of the estimation universe of each date whose industry is not known; NaN where it is empty."""
    universe = cube["estimation"].transpose("date", "ticker").values
    unknown = universe & (cube["industry"].transpose("date", "ticker").values < 0)
    size = universe.sum(axis=1)
    share: FloatArray = unknown.sum(axis=1) / np.where(size > 0, size, np.nan)
    return share


@dataclass(frozen=True)
class _Sections:
    """Cross-sections by date: coverage (date, char), levels (date, char, quantile), infinite (date)."""

    coverage: FloatArray
    levels: FloatArray
    infinite: IntArray

    @classmethod
    def joined(cls, parts: Sequence[_Sections]) -> _Sections:
        """Join spans of dates that follow one another."""
        names = ("coverage", "levels", "infinite")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _sections(cube: xr.Dataset) -> _Sections:
    values = cube["characteristics"].transpose("date", "char", "ticker").values
    priced = np.isfinite(cube["returns"].values).sum(axis=1, keepdims=True).astype(np.float64)
    infinite = np.isinf(values).sum(axis=(1, 2))
    values = np.where(np.isfinite(values), values, np.nan)
    coverage = np.isfinite(values).sum(axis=2) / np.where(priced > 0.0, priced, np.nan)
    return _Sections(coverage, quantiles(values, _LEVELS), infinite)


def _characteristics(
    now: _Sections, before: _Sections | None, names: npt.NDArray[np.str_], frequency: str
) -> dict[str, npt.NDArray[np.generic]]:
    past = 0 if before is None else len(before.coverage)
    coverage = now.coverage if before is None else np.concatenate([before.coverage, now.coverage])
    levels = now.levels if before is None else np.concatenate([before.levels, now.levels])
    window, least = HISTORY[frequency], LEAST[frequency]
    spread = levels[..., -1] - levels[..., 0]
    usual_coverage = trailing_median(coverage, window, least)
    usual_spread = trailing_median(spread, window, least)
    usual_levels = trailing_median(levels.reshape(len(levels), -1), window, least).reshape(levels.shape)
    varies = np.where(usual_spread > 0.0, usual_spread, np.nan)
    covered = np.where(usual_coverage > 0.0, usual_coverage, np.nan)
    shift = np.abs(levels - usual_levels).max(axis=-1) / varies
    return {
        **_worst("characteristic_coverage", coverage / covered, names, past),
        **_worst("characteristic_spread", spread / varies, names, past),
        **_worst("characteristic_drift", shift, names, past, largest=True),
    }


def _worst(
    check: str, values: FloatArray, names: npt.NDArray[np.str_], past: int, *, largest: bool = False
) -> dict[str, npt.NDArray[np.generic]]:
    """Worst value of each date after the history, and whose it is; NaN where none is known."""
    values = values[past:]
    filled = np.where(np.isnan(values), np.inf, -values if largest else values)
    worst = filled.argmin(axis=1)
    return {check: values[np.arange(len(values)), worst], f"{check}_of": names[worst]}


def _weights(
    net: FloatArray, names: npt.NDArray[np.str_], portfolios: xr.DataArray, history: xr.Dataset | None
) -> dict[str, npt.NDArray[np.generic]]:
    known = net
    if history is not None and "weights" in history:
        earlier = history["weights"].reindex(portfolio=portfolios).astype(np.float64).sum("ticker", skipna=False)
        known = np.concatenate([earlier.transpose("date", "portfolio").values, net])
    deviation = np.abs(net - quantiles(known.T, (0.5,))[:, 0])
    return _worst("weights_sum", deviation, names, 0, largest=True)
