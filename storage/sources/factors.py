"""Observed factors and the risk-free rate, from any number of sources, on the dates of a market.

Here belong joining on dates and carrying a rate past the end of its file. Cells and rows are checked in
`frames`, units in `units`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from schemas.errors import ConfigError, DataError
from schemas.joining import describe_mismatch
from schemas.settings import Settings
from schemas.sources import FactorSource
from schemas.spec import Frequency
from storage.sources.calendars import check_frequency, normalise_dates, sessions
from storage.sources.cells import writing_of
from storage.sources.frames import DATE, Selection, read_table
from storage.sources.order import check_unique
from storage.sources.origins import open_origin
from storage.sources.units import check_factor_codes, check_rate, check_returns, to_decimals

FloatArray = npt.NDArray[np.float64]


def read_factors(
    sources: Sequence[FactorSource],
    *,
    settings: Settings,
    frequency: Frequency,
    calendar: str,
    dates: pd.DatetimeIndex,
) -> xr.Dataset | None:
    """Read all factor sources and align them to the dates of a market.

    Parameters
    ----------
    sources : sequence of FactorSource
        The `factors` part of a run spec; relative paths already resolved.
    settings : Settings
        Where a SQL source finds its database.
    frequency : {"daily", "monthly"}
        Length of a period. Monthly rows join by calendar month.
    calendar : str
        Exchange by whose sessions the periods of `carry_risk_free` are counted.
    dates : pandas.DatetimeIndex
        Dates of the market, ascending.

    Returns
    -------
    xarray.Dataset or None
        ``factors`` (date, observed_factor) and ``risk_free`` (date), float64 decimals, on exactly `dates`, as
        far as the sources have them; NaN where a source has no row. The last rate that a source knows holds
        for `carry_risk_free` periods after it, and not longer. None without sources.

    Raises
    ------
    SourceError
        If a source cannot be read as declared: files, columns, text in numbers, units, order of dates.
    DataError
        If dates are duplicated, impossible, not of this frequency, or label other periods than the market's.
    ConfigError
        If two columns have the same name, or there are two risk-free rates.
    """
    if not sources:
        return None
    names = _names(sources)
    market = normalise_dates(dates, frequency)
    columns: dict[str, FloatArray] = {}
    rate: FloatArray | None = None
    for source in sources:
        known, values, what = _read(source, settings, frequency)
        positions = known.get_indexer(market)
        carried = _carried(known, values, source, market, calendar, frequency)
        mismatch = describe_mismatch(market.to_numpy(), known.to_numpy())
        if mismatch is not None and ((positions >= 0).any() or not np.isfinite(carried).any()):
            raise DataError(f"{what}: {mismatch}")
        aligned = {name: np.where(positions >= 0, column[positions], np.nan) for name, column in values.items()}
        if source.risk_free is not None:
            own = aligned.pop(source.risk_free) if source.risk_free not in source.columns else aligned[source.risk_free]
            rate = np.where(np.isnan(own), carried, own)
        columns |= aligned
    return _dataset(dates, names, columns, rate)


def _names(sources: Sequence[FactorSource]) -> list[str]:
    names = [name for source in sources for name in source.columns]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ConfigError(
            f"'factors': the factor '{doubled[0]}' is given twice; leave it out of `columns` of all but one source"
        )
    rates = [source.risk_free for source in sources if source.risk_free is not None]
    if len(rates) > 1:
        raise ConfigError(
            f"'factors': two risk-free rates, '{rates[0]}' and '{rates[1]}'; set `risk_free` in one source only"
        )
    return names


def _read(
    source: FactorSource, settings: Settings, frequency: Frequency
) -> tuple[pd.DatetimeIndex, dict[str, FloatArray], str]:
    """Read one source whole, for its units are judged on all there is: dates, columns as decimals, name."""
    wanted = dict.fromkeys((*source.columns, *([source.risk_free] if source.risk_free is not None else [])))
    columns = {name: name for name in wanted}
    selection = Selection(source.date, None, columns, frequency, writing=writing_of(source))
    table = read_table(open_origin(source.origin, settings), selection, settings.max_cells)
    rows = table.rows.sort(DATE, maintain_order=True)
    days = rows[DATE].unique().sort()
    keys = days.search_sorted(rows[DATE]).to_numpy().astype(np.int64)
    check_unique(table.name, rows[DATE], None, keys, len(days), monthly=frequency == "monthly")
    dates = pd.DatetimeIndex(days.to_numpy().astype("datetime64[ns]"))
    check_frequency(dates, frequency, table.name)
    values = {name: to_decimals(rows[name].to_numpy(), source.units) for name in wanted}
    factors = {name: values[name] for name in source.columns}
    check_returns(table.name, factors, source.units, frequency)
    check_factor_codes(table.name, factors, dates.to_numpy())
    if source.risk_free is not None:
        check_rate(table.name, source.risk_free, values[source.risk_free], frequency)
    return dates, values, table.name


def _carried(
    known: pd.DatetimeIndex,
    values: dict[str, FloatArray],
    source: FactorSource,
    market: pd.DatetimeIndex,
    calendar: str,
    frequency: Frequency,
) -> FloatArray:
    """Return the last known rate at the market dates that follow it within the periods allowed, else NaN."""
    carried = np.full(len(market), np.nan)
    if source.risk_free is None or source.carry_risk_free == 0:
        return carried
    rate = values[source.risk_free]
    finite = np.flatnonzero(np.isfinite(rate))
    if finite.size and len(market):
        last = known[finite[-1]]
        elapsed = _periods_after(last, market, calendar, frequency)
        carried[(elapsed > 0) & (elapsed <= source.carry_risk_free)] = rate[finite[-1]]
    return carried


def _periods_after(
    last: pd.Timestamp, market: pd.DatetimeIndex, calendar: str, frequency: Frequency
) -> npt.NDArray[np.int64]:
    """Return how many periods lie between a date and each market date; 0 for those not after it."""
    if frequency == "monthly":
        months = (market.year - last.year) * 12 + (market.month - last.month)
        return np.maximum(np.asarray(months, dtype=np.int64), 0)
    if market[-1] <= last:
        return np.zeros(len(market), dtype=np.int64)
    following = sessions(calendar, last + pd.Timedelta(days=1), market[-1])
    return np.asarray(following.searchsorted(market, side="right"), dtype=np.int64)


def _dataset(
    dates: pd.DatetimeIndex, names: list[str], columns: dict[str, FloatArray], rate: FloatArray | None
) -> xr.Dataset:
    dataset = xr.Dataset(coords={"date": dates})
    if names:
        stacked = np.stack([columns[name] for name in names], axis=-1)
        dataset = dataset.assign_coords(observed_factor=np.array(names, dtype=np.str_))
        dataset = dataset.assign(factors=(("date", "observed_factor"), stacked))
    return dataset if rate is None else dataset.assign(risk_free=("date", rate))
