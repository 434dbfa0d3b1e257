"""What follows from a report: rows that become missing, dates that do not land, rows that are not estimated on.

Here belong pure functions of a dataset and a report. Deciding what fails belongs in `checks`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from models.blocks import run_of
from models.quality import labels
from schemas.checks import REFUTING, TELLING, CheckReport, Severity
from schemas.errors import CheckError


def apply_quarantine(market: xr.Dataset, report: CheckReport) -> tuple[xr.Dataset, pd.DataFrame]:
    """Take out of a dataset what its report blocks.

    Parameters
    ----------
    market : xarray.Dataset
        The dataset that was checked, over (date, ticker).
    report : CheckReport
        What the checks said of it.

    Returns
    -------
    clean : xarray.Dataset
        Blocked rows are missing in every variable over date and ticker, or in the fields that alone are wrong;
        blocked dates are gone. A delisting return says what a wrong price cannot, and stays unless it is wrong itself.
    quarantined : DataFrame
        One row per blocked (date, ticker) that had any value, with those values, the checks that blocked it ("date"
        where the whole date was blocked), and what of it was taken out.

    Raises
    ------
    CheckError
        If the report blocks everything.
    """
    return without_blocked(market, report), blocked_rows(market, report)


def without_blocked(market: xr.Dataset, report: CheckReport) -> xr.Dataset:
    """Return what is left of a dataset, or of some of its tickers: the first result of `apply_quarantine`."""
    if report.blocking:
        told = "; ".join(f"{result.check}: {result.observed}, expected {result.expected}" for result in report.blocking)
        raise CheckError(f"blocking checks rejected the whole ingest, nothing may land: {told}")
    rows, parts, dates = _blocked(market, report)
    missing = {}
    for name in market.data_vars:
        if {"date", "ticker"} <= set(market[name].dims):
            cells = [at for fields, at in parts.items() if name in fields]
            wrong = cells if name == "delisting_return" else [rows, *cells]
            missing[name] = _blanked(market[name], xr.concat(wrong, "part").any("part")) if wrong else market[name]
    return market.assign(missing).isel(date=run_of(np.flatnonzero(~dates.values)))


def blocked_rows(market: xr.Dataset, report: CheckReport) -> pd.DataFrame:
    """Return what a report takes out of a dataset, or of some of its tickers: the second of `apply_quarantine`."""
    rows, parts, dates = _blocked(market, report)
    return _quarantined(market, report, (rows | dates).values, {fields: at.values for fields, at in parts.items()})


def _blocked(
    market: xr.Dataset, report: CheckReport
) -> tuple[xr.DataArray, dict[tuple[str, ...], xr.DataArray], xr.DataArray]:
    """Return which rows are blocked whole, in which rows some fields are, and which dates are."""
    parts = {fields: _cells(market, report, "block", {fields}) for fields in _blamed(report, "block")}
    rows = parts.pop((), _cells(market, report, "block", set()))
    return rows, parts, market["date"].isin(np.array(report.blocked_dates, dtype="datetime64[ns]"))


def estimation_exclusions(market: xr.Dataset, report: CheckReport) -> xr.DataArray:
    """Where a row stays in the data but is not estimated on, since a row-scoped check warns; bool (date, ticker).

    A check of `schemas.checks.TELLING` excludes nothing.
    """
    suspecting = [item for item in report.flagged_cells if item.check not in TELLING]
    only = report.model_copy(update={"flagged_cells": tuple(suspecting)})
    return _cells(market, only, "warn", _blamed(only, "warn")).rename("excluded")


def refuted_returns(market: xr.Dataset, report: CheckReport) -> xr.DataArray:
    """Where a return cannot be true, since a check of `schemas.checks.REFUTING` warns; bool (date, ticker)."""
    refuting = [item for item in report.flagged_cells if item.check in REFUTING]
    only = report.model_copy(update={"flagged_cells": tuple(refuting)})
    return estimation_exclusions(market, only).rename("refuted")


def _blamed(report: CheckReport, severity: Severity) -> set[tuple[str, ...]]:
    """Which fields of rows the checks of a severity object to; none where they object to whole rows."""
    return {item.fields for item in report.flagged_cells if item.severity == severity}


def _cells(market: xr.Dataset, report: CheckReport, severity: Severity, blamed: set[tuple[str, ...]]) -> xr.DataArray:
    """Cells whose check has a severity and blames one of these sets of fields."""
    flags: npt.NDArray[np.bool_] = np.zeros((market.sizes["date"], market.sizes["ticker"]), dtype=np.bool_)
    dates, tickers = market.indexes["date"], pd.Index(labels(market["ticker"]))
    for item in report.flagged_cells:
        if item.severity == severity and item.fields in blamed:
            for ticker, column in zip(item.cells, tickers.get_indexer(pd.Index(list(item.cells))), strict=True):
                if column >= 0:
                    days = pd.DatetimeIndex(np.array(item.cells[ticker], dtype="datetime64[ns]"))
                    places = dates.get_indexer(days)
                    flags[places[places >= 0], column] = True
    return xr.DataArray(flags, dims=("date", "ticker"), coords={"date": market["date"], "ticker": market["ticker"]})


def _quarantined(
    market: xr.Dataset,
    report: CheckReport,
    whole: npt.NDArray[np.bool_],
    parts: dict[tuple[str, ...], npt.NDArray[np.bool_]],
) -> pd.DataFrame:
    fields = [name for name, array in market.data_vars.items() if array.dims == ("date", "ticker")]
    known = np.zeros(whole.shape, dtype=np.bool_)
    for name in fields:
        known |= market[name].notnull().values
    rows, columns = np.nonzero(np.logical_or.reduce([whole, *parts.values()]) & known)
    taken = [
        "all" if whole[place] else ", ".join(sorted({name for item, at in parts.items() if at[place] for name in item}))
        for place in zip(rows, columns, strict=True)
    ]
    values = {str(name): market[name].values[rows, columns] for name in fields}
    where = {"date": market["date"].values[rows], "ticker": labels(market["ticker"])[columns]}
    tickers = set(where["ticker"].tolist())
    found = [
        (pd.Timestamp(day), ticker, item.check)
        for item in report.flagged_cells
        if item.severity == "block"
        for ticker, days in item.cells.items()
        if ticker in tickers
        for day in days
    ]
    named = pd.DataFrame(found, columns=["date", "ticker", "checks"]).astype({"date": "datetime64[ns]"})
    reasons = named.groupby(["date", "ticker"])["checks"].agg(", ".join)
    table = pd.DataFrame(where | values).join(reasons, on=["date", "ticker"])
    table.insert(2, "checks", table.pop("checks").fillna("date"))
    table.insert(3, "taken_out", taken)
    return table


def _blanked(array: xr.DataArray, rows: xr.DataArray) -> xr.DataArray:
    """Make rows missing: False in a mask, NaN in numbers."""
    nothing = False if array.dtype == np.bool_ else np.nan
    return array.where(~rows, other=nothing).transpose(*array.dims)
