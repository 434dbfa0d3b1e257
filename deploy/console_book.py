"""What `factorcube risk` prints and writes: the numbers of a book for people, and for programs.

Here belongs the choice of what is shown; the numbers are those of `models.risk.book.BookRisk`.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from typing import Any

import pandas as pd
from rich.console import Console

from deploy.console_tables import Column, print_table
from models.risk.book import LEVELS, BookRisk
from schemas.base import first_of

_FACTORS, _GROUPS, _TICKERS, _DIVERSIFIERS, _NAMED = 15, 15, 10, 5, 10


def print_book(console: Console, version: str, found: BookRisk, held: pd.Timestamp | None) -> None:
    """Print the risk of a book as tables: as a whole, by factor, group and ticker, and what is active."""
    of = "" if held is None else f", holdings of {held:%Y-%m-%d}"
    _line(console, f"{version} as of {found.date:%Y-%m-%d}{of}: {len(found.weights)} tickers")
    for note in notes(found):
        _line(console, note)
    print_table(console, ["", "value"], whole(found))
    for title, heads, cells in parts(found):
        print_table(console, heads, cells, title)
    columns: list[Column | str] = ["ticker", "weight %", Column("volatility % a year", drop=1), "share of risk %"]
    rows = found.diversifiers(_DIVERSIFIERS)
    if len(rows):
        year = math.sqrt(found.periods_per_year)
        cells = [
            [str(name), _percent(row["weight"]), _percent(row["volatility"] * year), _percent(row["share"], 1)]
            for name, row in rows.iterrows()
        ]
        print_table(console, columns, cells, "the least risk for their size")
    if found.active is not None:
        for title, heads, cells in parts(found.active):
            print_table(console, heads, cells, f"active to {found.benchmark}, {title}")


def content(found: BookRisk, form: str, version: str, held: pd.Timestamp | None) -> str | bytes:
    """Return the whole result as JSON, or as the long table of `BookRisk.table` in CSV or Parquet."""
    if form == "json":
        dates = {"version": version, "date": f"{found.date:%Y-%m-%d}", "holdings": held and f"{held:%Y-%m-%d}"}
        return json.dumps({**dates, "benchmark": found.benchmark, **_plain(found)}, indent=2)
    if form == "csv":
        return found.table().to_csv(index=False)
    stream = io.BytesIO()
    found.table().to_parquet(stream, index=False)
    return stream.getvalue()


def notes(found: BookRisk) -> list[str]:
    """Return what a reader must know before the numbers: what is not covered, cash and borrowing, a sentence each."""
    net = float(found.weights.sum())
    said = []
    if len(found.uncovered):
        names = [str(name) for name in found.uncovered.abs().sort_values(ascending=False, kind="stable").index]
        said.append(
            f"not covered: {found.uncovered_share:.2%} of the book, in {first_of(names, _NAMED)}; the covered "
            "ones stand for them"
        )
    if abs(net - 1.0) > 0.005:
        what = f"the rest, {1.0 - net:.1%}, is cash" if net < 1.0 else f"{net - 1.0:.1%} of it is borrowed"
        said.append(f"the weights sum to {net:.4g}: {what}")
    return said


def whole(found: BookRisk) -> list[list[str]]:
    """Return the numbers of the book as a whole: a row each of what it is and its value."""
    period = "day" if found.periods_per_year == 252 else "month"
    rows = [
        ["volatility % a year", _percent(found.annual_volatility)],
        [f"volatility % a {period}", _percent(found.volatility, 3)],
    ]
    for level in LEVELS:
        rows.append([f"value at risk {level:.0%}, 1 {period}, %", _percent(found.value_at_risk(level), 3)])
        rows.append([f"expected shortfall {level:.0%}, 1 {period}, %", _percent(found.expected_shortfall(level), 3)])
    rows.append(["share of factors %", _percent(1.0 - found.specific_share, 1)])
    rows.append(["share of what is specific %", _percent(found.specific_share, 1)])
    if found.active is not None:
        rows.append([f"beta to {found.benchmark}", f"{found.beta:.3f}"])
        rows.append(["tracking error % a year", _percent(found.active.annual_volatility)])
        rows.append(["share of factors in it %", _percent(1.0 - found.active.specific_share, 1)])
    return rows


def parts(found: BookRisk) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Give a title, columns and rows of the largest contributions by factor, group and ticker."""
    year = math.sqrt(found.periods_per_year)
    frames: list[tuple[str, str, pd.DataFrame, int]] = [("factor", "exposure", found.by_factor, _FACTORS)]
    if found.by_group is not None:
        frames.append(("industry", "weight", found.by_group, _GROUPS))
    frames.append(("ticker", "weight", found.by_ticker, _TICKERS))
    for name, amount, frame, most in frames:
        order = frame["contribution"].abs().sort_values(ascending=False, kind="stable").index[:most]
        rows = [
            [
                str(label),
                f"{row[amount]:.3f}" if amount == "exposure" else _percent(row[amount]),
                _percent(row["contribution"] * year),
                _percent(row["share"], 1),
            ]
            for label, row in frame.loc[order].iterrows()
        ]
        columns = [name, amount if amount == "exposure" else f"{amount} %", "volatility from it % a year", "share %"]
        yield f"by {name}" + (f", {most} of {len(frame)}" if len(frame) > most else ""), columns, rows


def _plain(found: BookRisk) -> dict[str, Any]:
    frames = {"by_factor": found.by_factor, "by_group": found.by_group, "by_ticker": found.by_ticker}
    plain: dict[str, Any] = {"summary": _finite(found.summary()["value"].to_dict())}
    plain |= {name: None if frame is None else _records(frame) for name, frame in frames.items()}
    plain["uncovered"] = _finite(found.uncovered.to_dict())
    plain["active"] = None if found.active is None else _plain(found.active)
    return plain


def _records(frame: pd.DataFrame) -> dict[str, Any]:
    return {str(name): _finite(row.to_dict()) for name, row in frame.iterrows()}


def _finite(values: dict[Any, float]) -> dict[str, float | None]:
    return {str(name): value if math.isfinite(value) else None for name, value in values.items()}


def _percent(value: float, digits: int = 2) -> str:
    return f"{100.0 * value:.{digits}f}"


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
