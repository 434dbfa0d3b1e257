"""What the command line prints of backfills: a plan, and what became of it."""

from __future__ import annotations

from collections import Counter

from rich.console import Console

from deploy.console_tables import Column, print_table
from schemas.backfill import BackfillPlan, BackfillSummary, Partition, PlannedPartition
from tasks.backfilling.summary import summary_rows


def print_plan(console: Console, plan: BackfillPlan) -> None:
    """Print a plan; partitions of a step and model that stand alike are one line."""
    columns = (
        "step",
        "model",
        "periods",
        Column("n", drop=3),
        "state",
        "made",
        Column("why", text=True),
        Column("needs", text=True, drop=1),
        Column("time", drop=2),
    )
    print_table(console, columns, plan_rows(plan))
    states = Counter(item.state for item in plan.partitions)
    known = sum(item.seconds is not None for item in plan.included)
    console.print(
        f"{len(plan.partitions)} partitions of {plan.universe}: {', '.join(f'{n} {s}' for s, n in states.items())}; "
        f"{len(plan.included)} would be made"
        + (f", about {_time(plan.seconds)} of work" if known else "")
        + (f" and an unknown time for {len(plan.included) - known}" if known < len(plan.included) else ""),
        highlight=False,
        markup=False,
    )


def plan_rows(plan: BackfillPlan) -> list[tuple[str, ...]]:
    """Return the lines of a plan as text, in the order in which their first partitions come."""
    groups: dict[tuple[object, ...], list[PlannedPartition]] = {}
    for item in plan.partitions:
        groups.setdefault(_alike(item), []).append(item)
    return [_row(group) for group in groups.values()]


def print_summary(console: Console, summary: BackfillSummary) -> None:
    """Print what became of a backfill."""
    if not summary.outcomes:
        console.print("[bold]Nothing to do:[/] no partition of the request is in this state; see `backfill plan`.")
        return
    columns = (
        "step",
        "model",
        "result",
        Column("n", drop=3),
        "first",
        "last",
        Column("versions", drop=1),
        Column("seconds", drop=2),
        Column("why", text=True),
    )
    print_table(console, columns, [[str(cell) for cell in row.values()] for row in summary_rows(summary.outcomes)])
    console.print(
        f"{summary.batches} batches, {summary.versions} versions or snapshots, {_time(summary.seconds)}, of which "
        f"{summary.bookkeeping:.1%} bookkeeping",
        highlight=False,
        markup=False,
    )


def _alike(item: PlannedPartition) -> tuple[object, ...]:
    return item.partition.step, item.partition.model, item.state, item.included, item.why


def _row(group: list[PlannedPartition]) -> tuple[str, ...]:
    first, last = group[0], group[-1]
    known = [item.seconds for item in group if item.seconds is not None]
    needs = [*first.depends_on, *last.depends_on]
    return (
        first.partition.step,
        first.partition.model,
        _span(first.partition.period, last.partition.period),
        str(len(group)),
        first.state,
        "yes" if first.included else "no",
        first.why,
        _needs(needs) if first.included or first.blocked else "",
        _time(sum(known)) if known else ("unknown" if first.included else ""),
    )


def _needs(needs: list[Partition]) -> str:
    return f"{needs[0].step} {_span(needs[0].period, needs[-1].period)}" if needs else ""


def _span(first: str, last: str) -> str:
    return first if first == last else f"{first} to {last}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
