"""What `factorcube handbook` prints and writes: the empirical notes of a model as tables.

Here belongs how they look; the numbers are those of `models.evaluation.handbook`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd
from rich.console import Console

from deploy.console_tables import Column, print_table
from models.evaluation.handbook import Handbook

_PERCENT = {
    "imputed", "total_r2", "predictive_r2", "dispersion", "mean", "volatility", "drawdown", "forecast", "realised",
    "var_95", "var_99",
}  # fmt: skip
_HEADS = {
    "imputed": "imputed %",
    "total_r2": "total R2 %",
    "predictive_r2": "predictive R2 %",
    "dispersion": "dispersion % a year",
    "mean": "mean % a year",
    "volatility": "volatility % a year",
    "ratio": "mean / volatility",
    "lag": "autocorrelation",
    "drawdown": "drawdown %",
    "inflation": "variance inflation",
    "forecast": "forecast % a year",
    "realised": "realised % a year",
    "var_95": "beyond VaR 95 %",
    "var_99": "beyond VaR 99 %",
}
_WHOLE = {"dates", "stocks"}
_LAST = ("lag", "drawdown", "inflation", "var_95", "var_99")
"""What a narrow terminal leaves out first."""


def print_handbook(console: Console, found: Handbook) -> None:
    """Print the tables for a terminal."""
    for title, frame in tables(found):
        heads = [Column(head, drop=1) if name in _LAST else head for name, head in _heads(frame).items()]
        print_table(console, heads, _cells(frame), title)


def markdown(found: Handbook, title: str) -> str:
    """Return the tables as a page in Markdown."""
    said = [f"# {title}", ""]
    for caption, frame in tables(found):
        rows = [[*_heads(frame).values()], ["---"] * (frame.shape[1] + 1), *_cells(frame)]
        said += [f"## {caption}", "", *(f"| {' | '.join(row)} |" for row in rows), ""]
    return "\n".join(said)


def tables(found: Handbook) -> Iterator[tuple[str, pd.DataFrame]]:
    """Give the title and the frame of each table; what specific risk means differs between them."""
    covered, power = found.coverage, found.explanatory_power
    yield "Who is covered", covered.assign(imputed=covered["imputed"] / covered["stocks"])
    yield (
        "What is explained",
        power.assign(specific=100.0 * power["specific"]).rename(columns={"specific": "specific % a year, median"}),
    )
    yield "Factors", found.factors
    yield "Correlation of the leading factors", found.correlation
    share = {"specific": "specific share of variance %"}
    yield "Portfolios", found.portfolios.assign(specific=100.0 * found.portfolios["specific"]).rename(columns=share)


def _heads(frame: pd.DataFrame) -> dict[str, str]:
    names = [str(frame.index.name), *map(str, frame.columns)]
    return {name: _HEADS.get(name, name) for name in names}


def _cells(frame: pd.DataFrame) -> list[list[str]]:
    return [[str(label), *(_cell(str(name), value) for name, value in row.items())] for label, row in frame.iterrows()]


def _cell(name: str, value: float) -> str:
    if not math.isfinite(value):
        return "" if math.isnan(value) else "inf"
    if name in _PERCENT:
        return f"{100.0 * value:.1f}"
    return f"{value:.0f}" if name in _WHOLE else f"{value:.1f}" if "%" in name else f"{value:.2f}"
