"""The words of a report: what a check saw, and what a flagged row looks like.

Here belongs text for people. What decides belongs in `tasks.checking`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from models.quality.arrays import labels
from models.quality.rows import Flagged
from models.quality.summaries import EVENTS
from schemas.base import first_of
from schemas.checks import MAX_FLAGGED_ROWS, Check, CheckResult, FlaggedCells, FlaggedRow

_SHOWN = 3


def result_of(
    check: Check, failing: Sequence[str], tables: Mapping[str, pd.DataFrame], rows: Mapping[str, Flagged]
) -> CheckResult:
    """Say in one line what a check saw that failed on the rows of its table with these labels."""
    table = tables[check.table]
    failures = len(failing)
    if check.scope == "row":
        failures = len(rows[check.name]) if failing else 0
        observed = (
            f"{failures} row{'s' * (failures != 1)} on {len(failing)} of {len(table)} dates" if failing else "no rows"
        )
        if failing and check.name == "lost_return":
            observed += f", the largest {_largest(rows[check.name], table)}"
    elif check.rule in {"unique", "in_set"}:
        seen = dict(zip(table.iloc[:, 0], table[check.name], strict=True))
        labels = [f"{label}: {seen[label]}" for label in failing] if check.rule == "in_set" else failing
        observed = _listed(labels) or f"all {len(table)}"
    else:
        observed = _worst(check, table)
        if failing and len(table) > 1:
            observed = f"{failures} of {len(table)} ({_listed(failing)}), worst {observed}"
    return CheckResult(
        check=check.name,
        suite=check.suite,
        severity=check.severity,
        scope=check.scope,
        passed=not failing,
        observed=observed,
        expected=check.expected,
        failures=failures,
    )


def flagged(
    checks: Iterable[Check], dates: pd.DatetimeIndex, tickers: xr.DataArray, rows: Mapping[str, Flagged]
) -> tuple[tuple[FlaggedCells, ...], tuple[FlaggedRow, ...]]:
    """Name all flagged rows of these checks, and describe the first of them."""
    days, names = dates.date, labels(tickers)
    named: list[FlaggedCells] = []
    described: list[FlaggedRow] = []
    for check in checks:
        found = rows[check.name]
        for code in np.unique(found.blamed):
            fields = tuple(field for bit, field in enumerate(found.fields) if code >> bit & 1)
            places = np.flatnonzero(found.blamed == code)
            cells: dict[str, list[object]] = {}
            for place in places:
                cells.setdefault(str(names[found.ticker[place]]), []).append(days[found.date[place]])
            named.append(FlaggedCells(check=check.name, severity=check.severity, fields=fields, cells=cells))
            wrong = f"{' and '.join(fields)} wrong: " if fields else ""
            described += [
                FlaggedRow(
                    date=days[found.date[place]],
                    ticker=str(names[found.ticker[place]]),
                    check=check.name,
                    severity=check.severity,
                    detail=wrong + _detail(found, place),
                )
                for place in places[: MAX_FLAGGED_ROWS - len(described)]
            ]
    return tuple(named), tuple(described)


def _worst(check: Check, table: pd.DataFrame) -> str:
    values = table[check.name].to_numpy(dtype=np.float64)
    if np.isnan(values).all():
        return "nothing to compare with"
    place = int(np.nanargmin(values) if check.rule == "at_least" else np.nanargmax(values))
    text = f"{values[place]:,.0f}" if values[place] >= 1000.0 else f"{values[place]:.4g}"
    if len(table) == 1 or values[place] == 0.0:
        return text
    of = f"{check.name}_of"
    culprit = f", {table[of].iloc[place]!s}" if of in table else ""
    return f"{text} ({table.iloc[place, 0]!s}{culprit})"


def _largest(found: Flagged, table: pd.DataFrame) -> str:
    place = np.argmax(np.abs(found.values["over_gap"]))
    return f"{found.values['over_gap'][place]:+.1%} ({table.iloc[int(found.date[place]), 0]!s})"


def _listed(labels: Sequence[str]) -> str:
    return first_of(labels, _SHOWN)


def _detail(found: Flagged, place: int) -> str:
    values = {name: float(array[place]) for name, array in found.values.items()}
    rare = {"over_gap", *EVENTS}  # known of few rows
    return ", ".join(
        f"{name} {value:.6g}" for name, value in values.items() if name not in rare or not math.isnan(value)
    )
