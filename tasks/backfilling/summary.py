"""What a backfill adds up to, and the table in which Prefect shows it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from schemas.backfill import BackfillRequest, BackfillSummary, PartitionOutcome
from schemas.errors import BackfillError
from tasks.artifacts import publish_table
from tasks.backfilling.running import JobResult
from tasks.logs import run_logger

_NAMED = 3
"""How many failures a message names before it counts them."""


def summarise(
    universe: str,
    request: BackfillRequest,
    results: Sequence[JobResult],
    began: float,
    planned: Sequence[tuple[float, float]],
) -> BackfillSummary:
    """Add up the results of all batches.

    Parameters
    ----------
    universe : str
        Name of the universe.
    request : BackfillRequest
        What was asked for.
    results : sequence of JobResult
        What became of it.
    began : float
        When it began, in seconds since the epoch.
    planned : sequence of (float, float)
        Spans of time in which it was planned, which is work as well.
    """
    outcomes = tuple(outcome for result in results for outcome in result.outcomes)
    ended = time.time()
    worked = _union([*planned, *(span for result in results for span in result.worked)])
    return BackfillSummary(
        universe=universe,
        request=request,
        outcomes=outcomes,
        versions=len({(one.partition.model, one.version) for one in outcomes if one.version is not None}),
        batches=sum(bool(result.worked) for result in results),
        seconds=ended - began,
        bookkeeping=min(1.0, max(0.0, 1.0 - worked / max(ended - began, 1e-9))),
    )


def conclude(summary: BackfillSummary) -> BackfillSummary:
    """Show the summary as a table of the run.

    Raises
    ------
    BackfillError
        If something failed or was not reached; it carries the summary.
    """
    text = (
        f"Backfill of {summary.universe}, {summary.request.start} to {summary.request.end}: {summary.batches} batches, "
        f"{summary.versions} versions, {summary.seconds:.1f} s, of which {summary.bookkeeping:.1%} bookkeeping"
    )
    run_logger().info(text)
    publish_table("backfill", summary.universe, summary_rows(summary.outcomes), text)
    if not summary.complete:
        raise BackfillError(_message(summary), summary)
    return summary


def summary_rows(outcomes: Iterable[PartitionOutcome]) -> list[dict[str, Any]]:
    """Return one row per step, model, result and reason, with the periods that share them."""
    groups: dict[tuple[str, ...], list[PartitionOutcome]] = {}
    for one in outcomes:
        groups.setdefault((one.partition.step, one.partition.model, one.result, one.why), []).append(one)
    rows = []
    for (step, model, result, why), members in groups.items():
        periods = sorted(one.partition.period for one in members)
        rows.append(
            {
                "step": step,
                "model": model,
                "result": result,
                "partitions": len(members),
                "first": periods[0],
                "last": periods[-1],
                "versions": len({one.version for one in members if one.version}),
                "seconds": round(sum(one.seconds for one in members), 2),
                "why": why,
            }
        )
    return rows


def _message(summary: BackfillSummary) -> str:
    failures, waiting = summary.of("failed"), summary.of("blocked", "stopped")
    named = "; ".join(f"{one.partition}: {one.why}" for one in failures[:_NAMED])
    more = f"; and {len(failures) - _NAMED} more" if len(failures) > _NAMED else ""
    left = f", {len(waiting)} were not reached because of that" if waiting else ""
    return (
        f"{len(failures)} of {len(summary.outcomes)} partitions of {summary.universe} failed{left}: "
        f"{named or waiting[0].why}{more}; run the backfill again with select=failed once that is mended"
    )


def _union(spans: Sequence[tuple[float, float]]) -> float:
    """Return the length of the union of spans of time."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total
