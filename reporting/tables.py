"""Tables of the report, as plain text in cells: metrics, gate, checks, provenance.

Numbers become text here, with their unit and the sign for a missing one. Escaping and looks are the template's.
Tables about risk belong in `tables_risk`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import yaml

from models.evaluation.gate import asked
from reporting.readings import PublishedVersion, out_of_sample_start
from schemas.checks import CheckReport, CheckResult
from schemas.contracts import Criterion

MISSING = "–"
MOST_FLAGGED = 15


@dataclass(frozen=True)
class Cell:
    """One cell: its text, and the style sheet's word for it (num, date, key, good, bad, warn, best, code)."""

    text: str
    css: str = ""


@dataclass(frozen=True)
class Table:
    """Heads, rows of cells, and a note on how to read them."""

    heads: tuple[Cell, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str


def percent(value: float | None, digits: int = 1) -> str:
    """Write a share as percent."""
    return number(None if value is None else value * 100.0, digits, "%")


def number(value: float | None, digits: int = 2, unit: str = "") -> str:
    """Write a number, or the sign for a missing one."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:z.{digits}f}{unit}".replace("-", "−")


def num(text: str) -> Cell:
    """Return a cell of a column of numbers."""
    return Cell(text, "num")


def heads(*words: str | Cell) -> tuple[Cell, ...]:
    """Return the heads of a table."""
    return tuple(word if isinstance(word, Cell) else Cell(word) for word in words)


def grouped(rows: Iterable[tuple[Cell, ...]]) -> tuple[tuple[Cell, ...], ...]:
    """Write the first cell only where it changes."""
    groups = itertools.groupby(rows, key=lambda row: row[0])
    return tuple((Cell("", "same"), *row[1:]) if at else row for _, group in groups for at, row in enumerate(group))


def mean_metric(version: PublishedVersion, name: str) -> float | None:
    """Mean of a metric over the portfolios that have it."""
    metrics = version.manifest.metrics
    values = [metrics.get(f"{name}.{portfolio}") for portfolio in version.portfolios]
    known = [value for value in values if value is not None and math.isfinite(value)]
    return sum(known) / len(known) if known else None


def summary(versions: Sequence[PublishedVersion]) -> Table:
    """One row per model: R2 in and out of sample, bias statistic, QLIKE; the best of a column marked."""
    metrics = [version.manifest.metrics for version in versions]
    inside = [metric.get("total_r2_in_sample") for metric in metrics]
    outside = [metric.get("total_r2_out_of_sample") for metric in metrics]
    predictive = [metric.get("predictive_r2_out_of_sample") for metric in metrics]
    bias = [mean_metric(version, "bias_statistic") for version in versions]
    qlike = [mean_metric(version, "qlike") for version in versions]
    columns = [
        [num(percent(value, 2)) for value in inside],
        _ranked([percent(value, 2) for value in outside], outside),
        _ranked([percent(value, 3) for value in predictive], predictive),
        _ranked([number(value) for value in bias], [v if v is None else -abs(v - 1.0) for v in bias]),
        _ranked([number(value, 3) for value in qlike], [v if v is None else -v for v in qlike]),
    ]
    starts = [out_of_sample_start(version) for version in versions]
    rows = tuple(
        (
            Cell(version.model, "key"),
            Cell(str(version.manifest.as_of), "date"),
            Cell(MISSING if start is None else f"{start:%Y-%m-%d}", "date"),
            *cells,
            _gate(version),
        )
        for version, start, *cells in zip(versions, starts, *columns, strict=True)
    )
    r2 = (num("Total R2 in sample"), num("Total R2 out of sample"), num("Predictive R2 out of sample"))
    return Table(
        heads("Model", "As of", "Out of sample from", *r2, num("Bias statistic"), num("QLIKE"), "Gate"),
        rows,
        "R2 are uncentred and pooled over stocks and dates. Bias statistic (1 is right, above 1 understates risk) and "
        "QLIKE (lower is better) are means over the portfolios, out of sample. Bold: best of the column; it means "
        "something where models cover the same stocks and dates.",
    )


def gates(versions: Sequence[PublishedVersion]) -> Table:
    """One row per model: version, gate decision, the champion it was compared with and on what, reasons."""
    return Table(
        heads("Model", "Version", "Gate", "Champion", "Held-out dates of both", "Reasons"),
        tuple(
            (
                Cell(version.model, "key"),
                Cell(version.manifest.version, "code"),
                _gate(version),
                Cell(version.manifest.gate.champion or "none yet", "code" if version.manifest.gate.champion else ""),
                Cell(_held_out(version)),
                Cell(_reasons(version)),
            )
            for version in versions
        ),
        "A version that passes may become the champion, which “latest” names; one that does not stays published under "
        "its own name.",
    )


def criteria(versions: Sequence[PublishedVersion]) -> Table:
    """One row per criterion of every gate decision: the version's number, the champion's, and what is asked for."""
    return Table(
        heads("Model", "Criterion", num("Version"), num("Champion"), "Asked for", "Result"),
        grouped(
            (
                Cell(version.model, "key"),
                Cell(criterion.name),
                num(number(criterion.value, 4)),
                num(number(criterion.champion, 4)),
                Cell(criterion.limit),
                _result(criterion),
            )
            for version in versions
            for criterion in version.manifest.gate.criteria
        ),
        "Against the champion both are scored on the same held-out dates, stocks, returns and portfolios; the other "
        "criteria are about all out-of-sample dates of the version. QLIKE: lower is better.",
    )


def checks(report: CheckReport) -> Table:
    """One row per data check, the failed and blocking ones first."""
    ordered = sorted(report.results, key=lambda result: (result.passed, result.severity != "block"))
    return Table(
        heads("Check", "Suite", "Scope", "Severity", "Result", "Observed", "Expected", num("Failures")),
        tuple(
            (
                Cell(result.check, "key"),
                Cell(result.suite),
                Cell(result.scope),
                Cell(result.severity),
                _outcome(result),
                Cell(result.observed),
                Cell(result.expected),
                num(f"{result.failures:,}"),
            )
            for result in ordered
        ),
        "What a failure does. Scope row: the cell becomes missing (block), or stays and moves no number (warn), but "
        "that forecasts are judged with and without it. Scope date: the date is held back (block). Scope ingest: "
        "nothing lands (block). Any other warning changes nothing.",
    )


def flagged_count(report: CheckReport) -> int:
    """How many rows are flagged in all; the report describes only the first of them."""
    return max(len(report.flagged_rows), sum(cells.count for cells in report.flagged_cells))


def flagged(report: CheckReport) -> Table:
    """Return a sample of flagged rows: the blocking ones first, then the latest."""
    ordered = sorted(report.flagged_rows, key=lambda row: (row.severity != "block", -row.date.toordinal(), row.ticker))
    kept = ordered[:MOST_FLAGGED]
    return Table(
        heads("Date", "Ticker", "Check", "Severity", "Detail"),
        tuple(
            (
                Cell(str(row.date), "date"),
                Cell(row.ticker, "key"),
                Cell(row.check),
                Cell(row.severity),
                Cell(row.detail),
            )
            for row in kept
        ),
        f"{len(kept)} of {flagged_count(report):,} flagged rows, blocking ones first, then the latest.",
    )


def parameters(version: PublishedVersion) -> tuple[tuple[str, str], ...]:
    """Return what made a version, as pairs of a word and its text."""
    manifest = version.manifest
    seeds = {name: value for name, value in manifest.params.items() if "seed" in name}
    return (
        ("Version", manifest.version),
        ("Path", version.path),
        ("Kind", manifest.kind),
        ("Parameters", _flat(manifest.params) or "none"),
        ("Seeds", _flat(seeds) or "none among the parameters"),
        (f"Refits ({len(manifest.refits)})", ", ".join(map(str, manifest.refits)) or "none"),
        ("Made at", f"{manifest.created_at:%Y-%m-%d %H:%M:%S %Z}".strip()),
    )


def config_yaml(version: PublishedVersion) -> str:
    """Return the run's config as YAML."""
    return yaml.safe_dump(
        version.manifest.model_dump(mode="json")["config"], sort_keys=False, allow_unicode=True, width=100
    )


def _flat(values: dict[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _gate(version: PublishedVersion) -> Cell:
    return Cell("passed", "good") if version.manifest.gate.passed else Cell("held back", "bad")


def _reasons(version: PublishedVersion) -> str:
    gate = version.manifest.gate
    if gate.passed and gate.criteria:
        return "every criterion is met"
    return "; ".join(gate.reasons) or MISSING


def _held_out(version: PublishedVersion) -> str:
    gate = version.manifest.gate
    return f"{gate.first_date} to {gate.last_date} ({gate.dates:,})" if gate.dates else MISSING


def _result(criterion: Criterion) -> Cell:
    if not asked(criterion):
        return Cell("not applicable")
    return Cell("passed", "good") if criterion.passed else Cell("failed", "bad")


def _outcome(result: CheckResult) -> Cell:
    if result.passed:
        return Cell("pass", "good")
    return Cell("fail", "bad" if result.severity == "block" else "warn")


def _ranked(texts: Sequence[str], scores: Sequence[float | None]) -> list[Cell]:
    """Return cells of numbers, with the largest of several known scores marked."""
    known = [score for score in scores if score is not None and math.isfinite(score)]
    best = max(known) if len(known) > 1 else None
    return [
        Cell(text, "num best" if score is not None and score == best else "num")
        for text, score in zip(texts, scores, strict=True)
    ]
