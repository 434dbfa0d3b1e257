"""What the command line prints of a config and its sources before a run: how they were understood."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import pandas as pd
import xarray as xr
from rich.console import Console

from deploy.console_tables import Column, print_table
from schemas.checks import CheckReport
from schemas.sources import FactorSource, IndustrySource, MarketSource
from schemas.spec import RunSpec
from tasks.understanding import Understanding

_FIRST_ROWS = 4
_LABELS = 4
_MEANINGS = {"volume": "shares traded", "shares": "shares outstanding", "returns": "simple return, decimal"}


def print_understanding(console: Console, spec: RunSpec, found: Understanding) -> None:
    """Print what was understood: dates, tickers, units and first rows of each source, checks, models."""
    calendar = "dates as they come" if spec.calendar == "none" else f"sessions of {spec.calendar}"
    _say(console, "universe", f"{spec.universe}: {spec.frequency}, {calendar}, {spec.currency}")
    _print_market(console, spec, found.market)
    if found.factors is not None:
        _print_factors(console, spec.factors, found.factors)
    if spec.industries is not None and found.industries is not None:
        _print_industries(console, spec.industries, found.industries)
    _print_checks(console, found.report)
    _say(console, "portfolios", _listed([item.name for item in spec.portfolios]))
    _say(console, "models", _listed([model.name for model in spec.models]))
    if found.refits:
        _say(
            console,
            "fitted",
            f"{len(found.refits)} time(s), as of {_day(found.refits[0])} to {_day(found.refits[-1])}; "
            f"out of sample after {_day(found.refits[0])}",
        )


def _print_market(console: Console, spec: RunSpec, market: xr.Dataset) -> None:
    _say(console, "data", f"{_origin(spec.data)} as {spec.data.shape}: {_span(market.indexes['date'])}")
    _say(console, "tickers", f"{market.sizes['ticker']}: {_listed(market.indexes['ticker'])}")
    rows = list(_variables(spec, market))
    columns = ("variable", Column("unit", text=True), "known", "least", "median", Column("largest", drop=1))
    print_table(console, columns, rows)
    names = [name for name in market if market[name].dims == ("date", "ticker")]
    beside = (Column(str(name), drop=len(names) - place) for place, name in enumerate(names[1:]))
    kept: list[Column | str] = ["date", "ticker", *(str(name) for name in names[:1]), *beside]
    first = (
        [_day(day), str(ticker), *(_number(float(market[name].values[i, j])) for name in names)]
        for i, day in enumerate(market.indexes["date"])
        for j, ticker in enumerate(market.indexes["ticker"])
        if any(np.isfinite(market[name].values[i, j]) for name in names)
    )
    print_table(console, kept, list(islice(first, _FIRST_ROWS)), "First rows, as understood")


def _variables(spec: RunSpec, market: xr.Dataset) -> Iterator[tuple[str, ...]]:
    units = getattr(spec.data, "units", None)
    for name in map(str, market):
        arrays = (
            {name: market[name]}
            if "char" not in market[name].dims
            else {str(char): market[name].sel(char=char) for char in market.indexes["char"]}
        )
        for label, array in arrays.items():
            meaning = _MEANINGS.get(
                name, "characteristic" if "char" in market[name].dims else f"price, {spec.currency}"
            )
            yield (
                label,
                meaning + (" (percent in the file)" if name == "returns" and units == "percent" else ""),
                *_facts(array.values),
            )


def _print_factors(console: Console, sources: Sequence[FactorSource], factors: xr.Dataset) -> None:
    for source in sources:
        known = factors["factors"].sel(observed_factor=list(source.columns)) if source.columns else None
        columns = {name: known.sel(observed_factor=name).values for name in source.columns} if known is not None else {}
        if source.risk_free is not None:
            columns[f"{source.risk_free} (risk-free)"] = factors["risk_free"].values
        rows = [(name, *_facts(values), *map(_number, values[:2])) for name, values in columns.items()]
        _say(console, "factors", f"{_origin(source)} in {source.units}, here in decimals on the dates of the data")
        dates = [_day(day) for day in factors.indexes["date"][:2]]
        first = (Column(day, drop=1 + at) for at, day in enumerate(dates))
        heads: list[Column | str] = ["factor", "known", "least", "median", "largest", *first]
        print_table(console, heads, rows)


def _print_industries(console: Console, source: IndustrySource, industries: xr.Dataset) -> None:
    names, last = industries["industry_name"].values, industries["industry"].values[-1]
    unknown = industries.indexes["ticker"][last < 0]
    _say(console, "industries", f"{_origin(source)}: {len(names)}: {_listed(names.tolist())}")
    if len(unknown):
        _say(console, "", f"{len(unknown)} ticker(s) without one at the end: {_listed(unknown)}")


def _print_checks(console: Console, report: CheckReport) -> None:
    failed = report.failed
    _say(console, "checks", f"{len(report.results)} of what was read: {len(report.results) - len(failed)} passed")
    if failed:
        columns = ("severity", "check", "n", Column("observed", text=True), Column("expected", text=True, drop=1))
        rows = [(one.severity, one.check, str(one.failures), one.observed, one.expected) for one in failed]
        print_table(console, columns, rows)
    if report.blocked_dates:
        _say(console, "", f"{len(report.blocked_dates)} date(s) would not land: {_listed(report.blocked_dates)}")


def _facts(values: np.ndarray) -> tuple[str, str, str, str]:
    """Return the share that is known, and the least, the median and the largest of it."""
    known = values[np.isfinite(values)]
    if not len(known):
        return "none", "-", "-", "-"
    least, median, largest = (_number(float(value)) for value in (known.min(), np.median(known), known.max()))
    return f"{known.size / values.size:.1%}", least, median, largest


def _say(console: Console, word: str, text: str) -> None:
    console.print(f"{word:11s} {text}", markup=False, highlight=False, soft_wrap=True)


def _origin(source: MarketSource | FactorSource | IndustrySource) -> str:
    origin = source.origin
    match origin.kind:
        case "files":
            return _listed([path.name for path in origin.paths])
        case "sql":
            return "a SQL query"
        case "duckdb":
            return (
                f"a DuckDB query of {_listed([*origin.tables, *([origin.database.name] if origin.database else [])])}"
            )
        case _:
            return f"{origin.kind} {origin.name}"


def _listed(names: Sequence[object] | pd.Index) -> str:
    told = [str(name) for name in names]
    return ", ".join(told if len(told) <= 2 * _LABELS else [*told[:_LABELS], "...", *told[-_LABELS:]])


def _span(dates: pd.Index) -> str:
    return f"{len(dates)} dates, {_day(dates[0])} to {_day(dates[-1])}"


def _day(day: pd.Timestamp) -> str:
    return f"{day:%Y-%m-%d}"


def _number(value: float) -> str:
    return "-" if not np.isfinite(value) else f"{value:.6g}"
