"""What a backfill is asked for, what it plans, and what is remembered of each of its partitions.

A partition is one period of one universe, and of one model unless it is an ingest: a month of an ingest or a retrain, a
date of an update. Here belong the words and the rules among them. How partitions are planned and run belongs in
`tasks.backfilling`, where their records lie in `storage.partitions`.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from schemas.base import Frozen, Name
from schemas.parameters import Shown

Step = Literal["ingest", "retrain", "update"]
State = Literal["missing", "running", "failed", "stale", "done"]
Selection = Literal["missing", "failed", "missing_and_failed", "stale", "all"]
Result = Literal["done", "found", "failed", "blocked", "stopped"]
Period = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}(-\d{2})?$")]
STEPS: tuple[Step, ...] = ("ingest", "retrain", "update")
"""The steps in the order in which they depend on each other."""
MAX_CONCURRENCY = 16


class BackfillRequest(Frozen):
    """Which partitions to make, in which order, and when to give up."""

    what: Literal["all", "ingest", "retrain", "update"] = Field(
        default="all", description="Step to make for the span of dates; all: ingest, then retrain, then update."
    )
    start: date = Field(description="First date of the span.")
    end: date = Field(
        description="Last date of the span. An ingest takes every month that the span touches as a whole; a retrain is "
        "made as of the last session of a month, if that lies in the span."
    )
    models: tuple[Name, ...] = Field(
        default=(), description="Names of the models to retrain and update; all models of the config if left empty."
    )
    select: Selection = Field(
        default="missing",
        description="Partitions to make: missing (never made), failed, both of them, stale (data, code or config have "
        "changed since), or all of these and those that are done.",
    )
    direction: Literal["forward", "backward"] = Field(
        default="forward", description="Make early periods first, or late ones."
    )
    concurrency: int = Field(
        default=1, ge=1, le=MAX_CONCURRENCY, description="Most batches of partitions that run at the same time."
    )
    max_failures: Annotated[
        int | None, Shown("Start nothing more after this many failures; go on to the end if left empty.")
    ] = Field(default=None, ge=1)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps that are asked for, in the order of their dependence."""
        return tuple(step for step in STEPS if self.what in ("all", step))

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.start > self.end:
            raise ValueError(f"start {self.start} is after end {self.end}")
        return self


Request = Annotated[BackfillRequest, Shown("Which partitions to make, in which order, and when to give up.")]


class Partition(Frozen):
    """The unit of a backfill."""

    step: Step
    universe: Name
    model: Name | Literal[""] = Field(default="", description="Empty for an ingest, which is of the whole universe.")
    period: Period = Field(description="A month such as 2016-07, or for an update a date.")

    def __str__(self) -> str:
        return " ".join(part for part in (self.step, self.model, self.period) if part)


class Inputs(Frozen):
    """What a partition is made from. Two partitions with the same inputs are the same, bit for bit."""

    data: str | None = Field(
        default=None, description="Hash of the cube's rows up to the period, or of the source of an ingest."
    )
    code: str = Field(description="Hash of the code that can change what is made.")
    config: str = Field(description="Hash of the part of the config that decides the numbers.")
    parent: str | None = Field(default=None, description="Retrain version that an update continues.")

    def changed(self, now: Inputs) -> tuple[str, ...]:
        """Name the inputs that are other ones now."""
        return tuple(name for name in type(self).model_fields if getattr(self, name) != getattr(now, name))


class PartitionRecord(Frozen):
    """What is remembered of one partition."""

    status: Literal["running", "done", "failed"]
    attempts: int = Field(ge=1)
    lock: str = Field(description="Lock of the batch that made it; `running` is true only while it is held.")
    started_at: datetime
    finished_at: datetime | None = None
    seconds: float | None = Field(default=None, ge=0.0, description="Share of this partition in the time of its batch.")
    error: str | None = Field(default=None, description="Why the last attempt failed.")
    version: str | None = Field(default=None, description="Version or snapshot that the last good attempt made.")
    inputs: Inputs | None = Field(default=None, description="What the last good attempt was made from.")
    dates: int | None = Field(default=None, description="Dates of an ingested month that the cube held afterwards.")


class Made(Frozen):
    """One published version, as far as a backfill needs to know it."""

    version: str
    as_of: date
    root: str = Field(description="Retrain version whose fit it holds: itself, or the one that an update goes back to.")
    inputs: Inputs
    created_at: datetime

    @property
    def retrained(self) -> bool:
        """Whether a retrain made it, not an update."""
        return self.root == self.version


class PlannedPartition(Frozen):
    """One partition of a plan: its state, whether it will be made, and why."""

    partition: Partition
    state: State
    included: bool
    blocked: bool = Field(default=False, description="Would be made if what it depends on had not failed.")
    why: str
    depends_on: tuple[Partition, ...] = ()
    changed: tuple[str, ...] = Field(default=(), description="Inputs that have changed since it was made.")
    version: str | None = Field(default=None, description="Version or snapshot that holds it now.")
    as_of: date | None = Field(default=None, description="As-of date of what is to be made.")
    inputs: Inputs | None = Field(default=None, description="What it would be made from now; None if not yet known.")
    seconds: float | None = Field(default=None, description="Estimate from like partitions; None if there were none.")


class BackfillPlan(Frozen):
    """Every partition of a request, in the order of steps, models and periods."""

    universe: Name
    request: BackfillRequest
    snapshot_id: str | None = Field(description="State of the cube that was looked at; None if there is none.")
    made_at: datetime
    partitions: tuple[PlannedPartition, ...]

    @property
    def included(self) -> tuple[PlannedPartition, ...]:
        """The partitions that will be made."""
        return tuple(planned for planned in self.partitions if planned.included)

    @property
    def seconds(self) -> float | None:
        """Estimate of the work: the sum over the partitions with an estimate; None if no partition has one."""
        known = [planned.seconds for planned in self.included if planned.seconds is not None]
        return sum(known) if known else None


class PartitionOutcome(Frozen):
    """What became of one partition in one backfill."""

    partition: Partition
    result: Result = Field(
        description="found: another backfill made it meanwhile; blocked: what it depends on failed; "
        "stopped: not started after too many failures."
    )
    version: str | None = None
    why: str = ""
    seconds: float = 0.0


class BackfillSummary(Frozen):
    """What became of a backfill."""

    universe: Name
    request: BackfillRequest
    outcomes: tuple[PartitionOutcome, ...]
    versions: int = Field(description="Different versions or snapshots that hold what was made.")
    batches: int
    seconds: float = Field(description="Wall time of the whole.")
    bookkeeping: float = Field(ge=0.0, le=1.0, description="Share of that time in which no partition was worked on.")

    def of(self, *results: Result) -> tuple[PartitionOutcome, ...]:
        """Return the outcomes with these results."""
        return tuple(outcome for outcome in self.outcomes if outcome.result in results)

    @property
    def complete(self) -> bool:
        """Whether everything that was to be made is there."""
        return not self.of("failed", "blocked", "stopped")
