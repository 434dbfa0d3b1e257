"""The two checks of an ingest: of what was read, and of what is about to be written; and their report.

Here belongs the order of things: which summaries are made, which suites run on them, and what the outcome says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import reduce
from operator import add
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import xarray as xr

from models import quality
from models.blocks import Blocks
from models.quality import describe
from schemas.checks import (
    MAX_FLAGGED_ROWS,
    Check,
    CheckOverrides,
    CheckReport,
    FlaggedCells,
    FlaggedRow,
    declared,
)
from schemas.errors import DataError

if TYPE_CHECKING:
    from tasks.checking.expectations import SuiteOutcome

Frequency = Literal["daily", "monthly"]


def check_market(
    market: xr.Dataset | Blocks,
    *,
    sessions: pd.DatetimeIndex | None,
    frequency: Frequency,
    overrides: CheckOverrides,
    data_docs: Path | None,
    delivery: Mapping[str, pd.DataFrame] | None = None,
    earlier: Earlier | None = None,
) -> tuple[CheckReport, quality.Survey | None]:
    """Check the market that deliveries describe.

    Parameters
    ----------
    market : xarray.Dataset or models.blocks.Blocks
        Any of open, high, low, close, volume, shares, returns (date, ticker), and characteristics (date, ticker, char).
        Of blocks one is in memory at a time, and of all rows those that are flagged.
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
    earlier : Earlier, optional
        What was looked at before; the market is the end of all of it then, and the outcome that of all of it, as long
        as no date is blocked.

    Returns
    -------
    report : CheckReport
        What the checks say.
    survey : models.quality.Survey or None
        What was looked at; None if axes and types block the ingest.

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
    source = market.source if isinstance(market, Blocks) else market
    for axis in ("date", "ticker"):
        if not source.sizes.get(axis):
            raise DataError(f"there is nothing to check: the source has no {axis}s; look at its file and its columns")
    blocks = market if isinstance(market, Blocks) else Blocks(market)
    dates = blocks.dates if earlier is None else earlier.dates
    checks = declared(overrides, frequency)
    tables = {"structure": quality.structure(blocks.head), "keys": quality.keys(dates, blocks.tickers)}
    suites = _validate(tables, checks)
    report, survey = _report(suites, tables), None
    if not report.blocked_ingest:
        thresholds = thresholds_of(checks)
        if earlier is None:
            stray: tuple[date, ...] = ()
            if sessions is None:
                stray = _blocked_dates(_validate({"dates": _tallied(blocks).by_date(dates)}, checks))
            kept = ~dates.isin(pd.DatetimeIndex(list(stray)))
            survey = quality.Survey.of(blocks, thresholds, frequency, kept)
        else:
            survey = earlier.survey.followed_by(blocks, thresholds, frequency, earlier.followed)
        summaries = _market_tables(dates, blocks, survey, sessions, frequency, checks) | dict(delivery or {})
        looked_at, flagged = _halves(summaries["dates"], survey)
        suites += _validate({"dates": looked_at}, checks)
        suites += _validate(summaries | {"dates": flagged}, checks)
        tables |= summaries
        report = _report(suites, tables, dates, blocks.tickers, survey.flagged)
    return _documented(report, suites, data_docs, "market"), survey


@dataclass(frozen=True)
class Earlier:
    """What was looked at of a market before it got more dates.

    Attributes
    ----------
    survey : models.quality.Survey
        Of the dates before.
    dates : DatetimeIndex
        All dates, the new ones among them.
    followed : models.quality.Followed
        Where the dates of the end stand.
    """

    survey: quality.Survey
    dates: pd.DatetimeIndex
    followed: quality.Followed


def thresholds_of(checks: Mapping[str, Check]) -> dict[str, float]:
    """Return the thresholds of checks that have one, by name."""
    return {name: check.threshold for name, check in checks.items() if check.threshold is not None}


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
    report = _report(suites, tables)
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


def _tallied(blocks: Blocks) -> quality.Tally:
    return reduce(add, map(quality.Tally.of, blocks))


def _halves(dates: pd.DataFrame, survey: quality.Survey) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split the table of dates in what is known of them without any flag, and the rest."""
    flagged = [name for name in (*survey.flagged, "jump_cluster") if name in dates]
    return dates.drop(columns=flagged), dates[["date", *flagged]]


def _market_tables(
    dates: pd.DatetimeIndex,
    blocks: Blocks,
    survey: quality.Survey,
    sessions: pd.DatetimeIndex | None,
    frequency: Frequency,
    checks: Mapping[str, Check],
) -> dict[str, pd.DataFrame]:
    priced = int(survey.tally.counts["priced"].sum())
    whole: dict[str, object] = {"item": "all", "priced": priced}
    blocking = [rows for name, rows in survey.flagged.items() if checks[name].severity == "block"]
    if blocking:
        whole["quarantined_share"] = quality.rows_by_date(blocking, len(dates)).sum() / max(priced, 1)
    if "returns" in blocks.head:
        known = survey.sizes[np.isfinite(survey.sizes)]
        whole["return_unit"] = np.median(known) if len(known) else np.nan
    return {
        "sessions": quality.sessions_table(dates, sessions, frequency),
        "dates": survey.tally.by_date(dates, survey.flagged),
        "columns": survey.tally.by_variable(),
        "tickers": survey.tally.by_ticker(blocks.tickers),
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
    suites: list[SuiteOutcome],
    tables: Mapping[str, pd.DataFrame],
    dates: pd.DatetimeIndex | None = None,
    tickers: xr.DataArray | None = None,
    rows: Mapping[str, quality.Flagged] = MappingProxyType({}),
) -> CheckReport:
    outcomes = [outcome for suite in suites for outcome in suite.outcomes]
    in_rows = [one.check for one in outcomes if one.failing and one.check.scope == "row" and one.check.name in rows]
    cells: tuple[FlaggedCells, ...] = ()
    described: tuple[FlaggedRow, ...] = ()
    if dates is not None and tickers is not None:
        in_order = sorted(in_rows, key=lambda check: check.severity)
        cells, described = describe.flagged(in_order, dates, tickers, rows)
    return CheckReport(
        results=tuple(describe.result_of(one.check, one.failing, tables, rows) for one in outcomes),
        flagged_rows=described,
        flagged_cells=cells,
        blocked_dates=_blocked_dates(suites),
    )
