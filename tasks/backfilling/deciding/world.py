"""What a plan is made from: the state of cube, versions and records at one moment, as plain values.

Here belongs what the planner may look at, and nothing that fetches it (`tasks.backfilling.survey`).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property
from statistics import median

from schemas.backfill import Inputs, Made, PartitionRecord, Step

_LIKE = 20
"""So many of the last like partitions are looked at for an estimate of time."""


@dataclass(frozen=True)
class World:
    """The state of one universe.

    Attributes
    ----------
    universe : str
        Its name.
    models : tuple[str, ...]
        Models of the request.
    first_refit : date
        `walk_forward.first`.
    today : date
        What is after it cannot be there yet.
    sessions : tuple[date, ...]
        Sessions of the calendar over all months of the request, in order.
    calendar_free : bool
        Whether sessions are a guess, so that a month may be whole without some of them.
    held : tuple[date, ...]
        Dates of the cube, in order.
    digests : Mapping[date, str]
        Hash of the cube's rows up to each of its dates that the panel spans.
    codes : Mapping[tuple[Step, str], str]
        Hash of the code that makes a partition, by step and model.
    configs : Mapping[str, str]
        Hash of the decisive config by model; that of an ingest under ``""``.
    source : str or None
        Hash of the source; None if no ingest is asked for.
    records : Mapping[tuple[Step, str], Mapping[str, PartitionRecord]]
        Records of partitions by step and model.
    versions : Mapping[str, Sequence[Made]]
        Published versions by model.
    held_locks : frozenset[str]
        Locks of batches that a living process holds.
    """

    universe: str
    models: tuple[str, ...]
    first_refit: date
    today: date
    sessions: tuple[date, ...] = ()
    calendar_free: bool = False
    held: tuple[date, ...] = ()
    digests: Mapping[date, str] = field(default_factory=dict)
    codes: Mapping[tuple[Step, str], str] = field(default_factory=dict)
    configs: Mapping[str, str] = field(default_factory=dict)
    source: str | None = None
    records: Mapping[tuple[Step, str], Mapping[str, PartitionRecord]] = field(default_factory=dict)
    versions: Mapping[str, Sequence[Made]] = field(default_factory=dict)
    held_locks: frozenset[str] = frozenset()

    @cached_property
    def holds(self) -> frozenset[date]:
        """Dates of the cube."""
        return frozenset(self.held)

    @cached_property
    def version_names(self) -> Mapping[str, frozenset[str]]:
        """Names of the published versions by model."""
        return {model: frozenset(made.version for made in found) for model, found in self.versions.items()}

    def sessions_in(self, month: str) -> tuple[date, ...]:
        """Return the sessions of a month."""
        return within(self.sessions, *span_of(month))

    def held_in(self, month: str) -> tuple[date, ...]:
        """Return the dates of a month that the cube holds."""
        return within(self.held, *span_of(month))

    def record(self, step: Step, model: str, period: str) -> PartitionRecord | None:
        """Return the record of a partition, if there is one."""
        return self.records.get((step, model), {}).get(period)

    def running(self, record: PartitionRecord | None) -> bool:
        """Whether a living process is making a partition."""
        return record is not None and record.status == "running" and record.lock in self.held_locks

    def inputs(self, model: str, as_of: date | None, parent: str | None = None) -> Inputs:
        """Return what a version would be made from now; an update takes its config from its parent."""
        return Inputs(
            data=None if as_of is None else self.digests.get(as_of),
            code=self.codes.get(("retrain" if parent is None else "update", model), ""),
            config=self.configs.get(model, "") if parent is None else "",
            parent=parent,
        )

    def estimate(self, step: Step, model: str) -> float | None:
        """Return the median time of the last like partitions of this universe; None if there were none."""
        done = [record for record in self.records.get((step, model), {}).values() if record.seconds is not None]
        done.sort(key=lambda record: record.started_at)
        return median(record.seconds or 0.0 for record in done[-_LIKE:]) if done else None


def within(days: Sequence[date], start: date, end: date) -> tuple[date, ...]:
    """Cut sorted dates to a span, both ends included."""
    return tuple(days[bisect_left(days, start) : bisect_right(days, end)])


def span_of(month: str) -> tuple[date, date]:
    """Return the first and the last day of a month such as 2016-07."""
    first = date.fromisoformat(f"{month}-01")
    return first, (first + timedelta(days=31)).replace(day=1) - timedelta(days=1)


def month_of(day: date) -> str:
    """Return the month of a date, as 2016-07."""
    return f"{day:%Y-%m}"


def months(start: date, end: date) -> list[str]:
    """Return all months that a span touches, in order."""
    count = (end.year - start.year) * 12 + end.month - start.month + 1
    first = start.year * 12 + start.month - 1
    return [f"{(first + n) // 12:04d}-{(first + n) % 12 + 1:02d}" for n in range(count)]
