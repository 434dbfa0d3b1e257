"""The two checks of an ingest: of what was read, and of what is about to be written; and their report.

Here belongs the order of things: which summaries are made, which suites run on them, and what the outcome says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import xarray as xr

from models import quality
from models.quality import describe
from schemas.checks import MAX_FLAGGED_ROWS, Check, CheckOverrides, CheckReport, declared
from schemas.errors import DataError

if TYPE_CHECKING:
    from tasks.checking.expectations import SuiteOutcome

Frequency = Literal["daily", "monthly"]
_PRICED = ("close", "returns")


def check_market(
    market: xr.Dataset,
    *,
    sessions: pd.DatetimeIndex | None,
    frequency: Frequency,
    overrides: CheckOverrides,
    data_docs: Path | None,
    delivery: Mapping[str, pd.DataFrame] | None = None,
) -> CheckReport:
    """Check the market that deliveries describe.

    Parameters
    ----------
    market : xarray.Dataset
        Any of open, high, low, close, volume, shares, returns (date, ticker), and characteristics (date, ticker, char).
    sessions : DatetimeIndex or None
        Sessions of the calendar, covering the dates; None to take the dates as they come.
    frequency : {"daily", "monthly"}
        Monthly data are compared to sessions by month, have wider bounds, and are not searched for jumps.
    overrides : CheckOverrides
        What the user changes of the declared checks.
    data_docs : Path or None
        Folder to write Data Docs into, beginning anew; None for none.
    delivery : Mapping of str to DataFrame, optional
        What the last delivery takes back (`models.quality.delivery_tables`).

    Raises
    ------
    DataError
        If there are no dates or no tickers to check.

    Notes
    -----
    Axes and types are checked first; if they block the ingest, nothing else can be said of the data, and the report
    ends there. Then dates: without a calendar the dates are the sessions, and one that does not land (a stray Saturday
    with three stocks) is none, so that rows are judged without it.
    """
    for axis in ("date", "ticker"):
        if not market.sizes.get(axis):
            raise DataError(f"there is nothing to check: the source has no {axis}s; look at its file and its columns")
    checks = declared(overrides, frequency)
    tables = {"structure": quality.structure(market), "keys": quality.keys(market)}
    suites = _validate(tables, checks)
    rows = quality.RowFlags({}, {})
    report = _report(suites, tables, market, rows)
    if not report.blocked_ingest:
        dates = quality.by_date(market, rows)
        found = _validate({"dates": dates}, checks)
        rows = _flagged(market, checks, frequency, () if sessions is not None else _blocked_dates(found))
        summaries = _market_tables(market, rows, sessions, frequency, checks) | dict(delivery or {})
        looked_at = [str(name) for name in dates.columns if name != "date"]
        suites += [*found, *_validate(summaries | {"dates": summaries["dates"].drop(columns=looked_at)}, checks)]
        tables |= summaries
        report = _report(suites, tables, market, rows)
    return _documented(report, suites, data_docs, "market")


def check_derived(
    cube_slice: xr.Dataset,
    *,
    previous: xr.Dataset | None,
    overrides: CheckOverrides,
    data_docs: Path | None,
    frequency: Frequency = "daily",
) -> CheckReport:
    """Check what is about to be written to a cube: returns, characteristics and weights.

    Parameters
    ----------
    cube_slice : xarray.Dataset
        Variables of `schemas.contracts.CUBE` over the dates to be written.
    previous : xarray.Dataset or None
        The cube before the write; its last year or so is what drift is measured against.
    overrides, data_docs, frequency
        As in `check_market`; the pages are added to those of `check_market` in the same folder.
    """
    tables = {"cube": quality.cube_by_date(cube_slice, previous, frequency)}
    suites = _validate(tables, declared(overrides, frequency))
    report = _report(suites, tables, cube_slice, quality.RowFlags({}, {}))
    return _documented(report, suites, data_docs, "cube")


def merge(reports: Iterable[CheckReport]) -> CheckReport:
    """Join the reports of one ingest into one; of Data Docs the last named ones, which show all of the same folder."""
    parts = list(reports)
    rows = sorted((row for part in parts for row in part.flagged_rows), key=lambda row: row.severity)
    return CheckReport(
        results=tuple(result for part in parts for result in part.results),
        flagged_rows=tuple(rows[:MAX_FLAGGED_ROWS]),
        flagged_cells=tuple(item for part in parts for item in part.flagged_cells),
        blocked_dates=tuple(sorted({day for part in parts for day in part.blocked_dates})),
        data_docs=next((part.data_docs for part in reversed(parts) if part.data_docs), None),
    )


def _flagged(
    market: xr.Dataset, checks: Mapping[str, Check], frequency: Frequency, without: Iterable[date]
) -> quality.RowFlags:
    """Flag rows as if some dates were not there."""
    thresholds = {name: check.threshold for name, check in checks.items() if check.threshold is not None}
    kept = ~pd.DatetimeIndex(market["date"].values).isin(pd.DatetimeIndex(list(without)))
    if not kept.any():
        return quality.RowFlags({}, {})
    return quality.flag_rows(market.isel(date=kept), thresholds, frequency).spread(kept)


def _market_tables(
    market: xr.Dataset,
    rows: quality.RowFlags,
    sessions: pd.DatetimeIndex | None,
    frequency: Frequency,
    checks: Mapping[str, Check],
) -> dict[str, pd.DataFrame]:
    observed = sum(int(np.isfinite(market[name].values).sum()) for name in _PRICED if name in market)
    blocked = [flags for name, flags in rows.flags.items() if checks[name].severity == "block"]
    whole = {"item": "all", "priced": observed}
    if blocked:
        whole["quarantined_share"] = np.logical_or.reduce(blocked).sum() / max(observed, 1)
    if "returns" in market:
        sizes = np.abs(market["returns"].values)
        whole["return_unit"] = np.median(sizes[np.isfinite(sizes)]) if observed else np.nan
    return {
        "sessions": quality.sessions_table(pd.DatetimeIndex(market["date"].values), sessions, frequency),
        "dates": quality.by_date(market, rows),
        "columns": quality.by_variable(market),
        "tickers": quality.by_ticker(market),
        "ingest": pd.DataFrame([whole]),
    }


def _validate(tables: Mapping[str, pd.DataFrame], checks: Mapping[str, Check]) -> list[SuiteOutcome]:
    from tasks.checking.expectations import validate

    return validate(tables, checks.values())


def _documented(
    report: CheckReport, suites: list[SuiteOutcome], folder: Path | None, part: Literal["market", "cube"]
) -> CheckReport:
    if folder is None:
        return report
    from tasks.checking.datadocs import write_data_docs

    report = report.model_copy(update={"data_docs": str(folder / "index.html")})
    write_data_docs(folder, part, report, suites)
    return report


def _blocked_dates(suites: Iterable[SuiteOutcome]) -> tuple[date, ...]:
    blocking = [
        one for suite in suites for one in suite.outcomes if (one.check.scope, one.check.severity) == ("date", "block")
    ]
    return tuple(sorted({date.fromisoformat(label) for one in blocking for label in one.failing}))


def _report(
    suites: list[SuiteOutcome], tables: Mapping[str, pd.DataFrame], data: xr.Dataset, rows: quality.RowFlags
) -> CheckReport:
    outcomes = [outcome for suite in suites for outcome in suite.outcomes]
    failed = [outcome for outcome in outcomes if outcome.failing]
    in_rows = [outcome.check for outcome in failed if outcome.check.scope == "row" and outcome.check.name in rows.flags]
    cells, described = describe.flagged(sorted(in_rows, key=lambda check: check.severity), data, rows)
    return CheckReport(
        results=tuple(describe.result_of(one.check, one.failing, tables, rows) for one in outcomes),
        flagged_rows=described,
        flagged_cells=cells,
        blocked_dates=_blocked_dates(suites),
    )
