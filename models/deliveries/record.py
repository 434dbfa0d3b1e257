"""The record of a cube: how a delivery is put into it, how it is corrected by hand, and the market that it describes.

Here belong functions of `schemas.contracts.RECORD` datasets. Their dates and tickers ascend, and every date and ticker
has a number: two records of the same content are equal, in whatever order it came.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from models.arrays import BoolArray, CodeArray, IntArray
from models.blocks import Blocks, run_of
from models.deliveries.basis import rebased
from schemas.contracts import RECORD
from schemas.errors import DataError

_NOT_SAID, _UNKNOWN = -1, -2
"""Codes of an industry that no delivery has spoken of, and of one that was delivered as unknown."""
_ROWS = ("close", "open", "high", "low", "volume", "shares", "returns", "delisting_return", "stated")
_CLASSES, _NAMES = "classified", "industry_name"


def as_record(market: xr.Dataset, observed: xr.Dataset | None, groups: xr.Dataset | None) -> xr.Dataset:
    """Bring what was read of the sources of a delivery into the form of a record.

    Parameters
    ----------
    market : xarray.Dataset
        Prices or returns (date, ticker), and ``characteristics`` in the row of their source, not lagged.
    observed : xarray.Dataset or None
        ``factors`` and ``risk_free`` on the dates of the market.
    groups : xarray.Dataset or None
        ``industry`` on all dates and tickers of the market, also before a stock appears, and ``industry_name``.
    """
    parts = market.rename(characteristics="stated") if "characteristics" in market else market
    for part in (observed, groups):
        if part is not None:
            parts = parts.merge(part, join="left")
    if "industry" in parts:
        codes = parts["industry"].where(parts["industry"] >= 0, _UNKNOWN)
        parts = parts.drop_vars("industry").assign({_CLASSES: codes})
    return _ordered(parts.drop_attrs())


def merged(
    record: xr.Dataset | None,
    delivery: xr.Dataset,
    kind: Literal["full", "increment"],
    silent: pd.DatetimeIndex,
    order: IntArray | None = None,
) -> tuple[xr.Dataset, list[str]]:
    """Put a delivery into a record.

    A full delivery has all rows (date, ticker) from its first to its last date: those of the record there that it lacks
    are gone. An increment has the rows that it has. A row is replaced whole. Observed factors, rates and industries
    are replaced where the delivery has one: a file that begins later does not know what was before.

    Parameters
    ----------
    record : xarray.Dataset or None
        What was said before; None if nothing was.
    delivery : xarray.Dataset
        As `as_record` gives it.
    kind : {"full", "increment"}
        What the delivery speaks of.
    silent : pandas.DatetimeIndex
        Dates that a check keeps out: there the delivery says nothing.
    order : numpy.ndarray, optional
        (date,) of the record: which delivery brought it, in the order of coming. All the same if left out.

    Returns
    -------
    record : xarray.Dataset
        What is said now.
    rebased : list of str
        Tickers whose prices before the delivery were put on its basis (`models.deliveries.basis`).

    Raises
    ------
    DataError
        If one has prices and the other returns.
    """
    first, last = delivery.indexes["date"][[0, -1]]
    delivery = delivery.sel(date=~delivery.indexes["date"].isin(silent))
    if record is None:
        return delivery, []
    _refuse_other_base(record, delivery)
    tickers = record.indexes["ticker"].union(delivery.indexes["ticker"])
    names = sorted({str(name) for part in (record, delivery) if _NAMES in part for name in part[_NAMES].values})
    record, delivery = (_laid(_coded(part, names), ticker=tickers) for part in (record, delivery))
    moved: list[str] = []
    if kind == "full" and record.indexes["date"][-1] <= last:
        record, moved = rebased(record, delivery, np.zeros(record.sizes["date"], int) if order is None else order)
    known, said = record.indexes["date"], delivery.indexes["date"]
    gone = known[(known >= first) & (known <= last)].difference(silent) if kind == "full" else known[:0]
    dates = known.difference(gone).union(said)
    record, delivery = _laid(record, date=dates), _laid(delivery, date=dates)
    rows = said_of(delivery) if kind == "increment" else xr.zeros_like(said_of(delivery)) | _on(dates.isin(said), dates)
    return _ordered(_chosen(record, delivery, rows)), moved


def without(record: xr.Dataset, ticker: str, first: pd.Timestamp | None, last: pd.Timestamp | None) -> xr.Dataset:
    """Take the rows of a ticker out of a record, from a first to a last date; all of them if left out.

    Raises
    ------
    DataError
        If the record has none.
    """
    return tidied(_blanked(record, _of(record, ticker, first, last)))


def renamed(
    record: xr.Dataset, old: str, new: str, first: pd.Timestamp | None, last: pd.Timestamp | None
) -> xr.Dataset:
    """Give the rows of a ticker, from a first to a last date, to another one.

    Raises
    ------
    DataError
        If the record has none of the one, or has rows of the other on the same dates.
    """
    moving = _of(record, old, first, last)
    tickers = record.indexes["ticker"].union([new])
    record, moving = _laid(record, ticker=tickers), moving.reindex(ticker=tickers, fill_value=False)
    days = moving.sel(ticker=old)
    both = (days & said_of(record).sel(ticker=new)).values
    if both.any():
        day = record.indexes["date"][both][0]
        raise DataError(f"{old} cannot become {new}: both have rows on {day:%Y-%m-%d}; withdraw those of one first")
    there = (record["ticker"] == new) & days
    moved = {
        name: array.where(~there, array.sel(ticker=old, drop=True)).transpose(*array.dims)
        for name, array in record.items()
        if "ticker" in array.dims
    }
    return tidied(_blanked(record.assign(moved), moving))


def tidied(record: xr.Dataset) -> xr.Dataset:
    """Leave out dates and tickers without a row, and industries that no stock has; what is lazy stays so."""
    dates, tickers = np.zeros(record.sizes["date"], dtype=np.bool_), []
    for block in Blocks(record):
        rows = said_of(block).values
        dates |= rows.any(axis=1)
        tickers.append(rows.any(axis=0))
    kept = record.isel(date=run_of(np.flatnonzero(dates)), ticker=run_of(np.flatnonzero(np.concatenate(tickers))))
    if _CLASSES in kept:
        used = {code for block in Blocks(kept[[_CLASSES]]) for code in np.unique(block[_CLASSES].values).tolist()}
        kept = _coded(kept, sorted({str(kept[_NAMES].values[code]) for code in used if code >= 0}))
    return _ordered(kept)


def said_of(record: xr.Dataset) -> xr.DataArray:
    """Where there is a row: any number of a date and ticker, bool (date, ticker)."""
    known = [record[name].notnull() for name in _ROWS if name in record]
    rows = [array.any("char") if "char" in array.dims else array for array in known]
    found: xr.DataArray = xr.concat(rows, "field").any("field").transpose("date", "ticker").rename(None)
    return found


def market_of(record: xr.Dataset, known: Literal["at_date", "before_date"]) -> xr.Dataset:
    """Return the market that a record describes, as the checks and the cube take it.

    Parameters
    ----------
    record : xarray.Dataset
        What deliveries have said.
    known : {"at_date", "before_date"}
        Whether the characteristics of a row are known at its date, or at the date before it.

    Returns
    -------
    xarray.Dataset
        Prices or returns (date, ticker) float64, and ``characteristics`` (date, ticker, char) float32 as known at the
        close of date.
    """
    market = record[[name for name in _ROWS if name in record and name != "stated"]]
    if "stated" in record:
        lead = 1 if known == "before_date" else 0
        market = market.assign(characteristics=record["stated"].shift(date=-lead))
    return market.drop_vars([name for name in ("observed_factor", _NAMES) if name in market.coords])


def observed_of(record: xr.Dataset) -> xr.Dataset | None:
    """Return what a record says beside the market; None if it says nothing.

    ``factors``, ``risk_free``; ``industry`` with ``industry_name``, -1 before a stock first appears. Where no delivery
    has spoken of a stock's industry, the last one holds.
    """
    observed = record[[name for name in ("factors", "risk_free") if name in record]]
    observed = observed.drop_vars([name for name in ("ticker", "char", _NAMES) if name in observed.coords])
    if _CLASSES in record:
        nothing = np.full(record.sizes["ticker"], _NOT_SAID)
        held = industries_after(record, nothing, nothing >= 0)
        observed = observed.assign(industry=record[_CLASSES].copy(data=held)).assign_coords({_NAMES: record[_NAMES]})
    return observed if len(observed) else None


def industries_after(record: xr.Dataset, before: CodeArray, begun: BoolArray) -> CodeArray:
    """Return the industry that each stock of a record has, (date, ticker) codes; -1 where none is known.

    Parameters
    ----------
    record : xarray.Dataset
        Of some dates.
    before : numpy.ndarray
        (ticker,) the code of each stock before them; below zero if none is known.
    begun : numpy.ndarray
        (ticker,) whether a stock has had a row before.
    """
    held, rows = record[_CLASSES].transpose("date", "ticker").values, said_of(record).values
    position = np.arange(len(held), dtype=np.int32)[:, np.newaxis]
    last = np.maximum.accumulate(np.where(held != _NOT_SAID, position, np.int32(-1)), axis=0)
    held = np.where(last < 0, before.astype(held.dtype), np.take_along_axis(held, np.maximum(last, 0), axis=0))
    there = np.logical_or.accumulate(rows, axis=0) | begun
    return np.where(there & (held >= 0), held, held.dtype.type(-1))


def _chosen(record: xr.Dataset, delivery: xr.Dataset, rows: xr.DataArray) -> xr.Dataset:
    """Take from the delivery what it says, and the rest from the record; both have the same labels."""
    both = {}
    for name in RECORD:
        old, new = record.get(name), delivery.get(name)
        if old is None or new is None:
            there = new if old is None else old
            if there is not None:
                both[name] = there.where(~rows) if old is not None and name in _ROWS else there
        elif name in _ROWS:
            both[name] = new.where(rows, old)
        elif name == _CLASSES:
            both[name] = new.where(new != _NOT_SAID, old)
        else:
            both[name] = new.where(_from_first_to_last(new), old)
    labels = {name: part[name] for part in (delivery, record) for name in ("char", _NAMES) if name in part.coords}
    return xr.Dataset(both).assign_coords(labels)


def _from_first_to_last(values: xr.DataArray) -> xr.DataArray:
    known = values.transpose("date", ...).notnull()
    begun, ended = (np.logical_or.accumulate(known.values[::step], axis=0)[::step] for step in (1, -1))
    return known.copy(data=begun & ended)


def _of(record: xr.Dataset, ticker: str, first: pd.Timestamp | None, last: pd.Timestamp | None) -> xr.DataArray:
    dates = record.indexes["date"]
    inside = (dates >= (first or dates[0])) & (dates <= (last or dates[-1]))
    rows = said_of(record) & (record["ticker"] == ticker) & _on(inside, dates)
    if not rows.any():
        raise DataError(
            f"there is no row of {ticker} from {first or dates[0]:%Y-%m-%d} to {last or dates[-1]:%Y-%m-%d}"
        )
    return rows


def _blanked(record: xr.Dataset, rows: xr.DataArray) -> xr.Dataset:
    nothing: dict[str, Any] = {_CLASSES: _NOT_SAID}
    blank = {
        name: array.where(~rows, nothing.get(str(name), np.nan)).transpose(*array.dims)
        for name, array in record.items()
        if "ticker" in array.dims
    }
    return record.assign(blank)


def _on(chosen: Any, dates: pd.Index) -> xr.DataArray:
    return xr.DataArray(chosen, dims="date", coords={"date": dates})


def _laid(record: xr.Dataset, **labels: pd.Index) -> xr.Dataset:
    return record.reindex(labels, fill_value={_CLASSES: _NOT_SAID})


def _coded(record: xr.Dataset, names: list[str]) -> xr.Dataset:
    """Let the codes of industries be positions along other names."""
    if _CLASSES not in record:
        return record
    if record[_NAMES].values.tolist() == names:
        return record
    places = np.searchsorted(names, record[_NAMES].values).astype(np.int16)
    codes = record[_CLASSES].values
    placed = np.where(codes >= 0, places[codes], codes) if len(places) else codes
    coded = record.drop_vars([_CLASSES, _NAMES]).assign({_CLASSES: record[_CLASSES].copy(data=placed)})
    return coded.assign_coords({_NAMES: np.array(names, dtype=np.str_)})


def _ordered(record: xr.Dataset) -> xr.Dataset:
    """Put dimensions, types and labels in order; what is, is left alone, since that would load it."""
    typed = {}
    for name, variable in RECORD.items():
        if name in record:
            array = record[name].transpose(*variable.dims)
            typed[name] = array if array.dtype == variable.dtype else array.astype(variable.dtype)
    unsorted = [dim for dim in ("date", "ticker") if not record.indexes[dim].is_monotonic_increasing]
    return record.assign(typed).sortby(unsorted).drop_attrs()


def _refuse_other_base(record: xr.Dataset, delivery: xr.Dataset) -> None:
    for base, other in (("close", "returns"), ("returns", "close")):
        if base in record and other in delivery:
            raise DataError(f"the cube is made of {base}, and this delivery brings {other}; give another `universe`")
