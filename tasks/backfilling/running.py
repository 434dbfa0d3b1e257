"""Making a batch: under its locks, with a record before and after, split where it fails.

Here belongs what makes a backfill survive: a batch is made by one process at a time, what another one has made
meanwhile is found and not made again, and what failed is named without taking along what is independent of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

from schemas.backfill import PartitionOutcome, PartitionRecord, PlannedPartition, Step
from schemas.errors import FactorcubeError
from schemas.refs import SnapshotRef
from storage.partitions import PartitionStore
from tasks.backfilling.deciding.batches import Batch, lock_of
from tasks.backfilling.engine import Engine
from tasks.logs import run_logger

_PATIENCE_SECONDS = 12 * 3600.0
"""How long another backfill may hold a batch before this one counts it as failed."""
_LONGEST_ERROR = 500


@dataclass(frozen=True)
class JobResult:
    """What became of a batch, and the spans of time (seconds since the epoch) in which it was worked on."""

    outcomes: tuple[PartitionOutcome, ...]
    worked: tuple[tuple[float, float], ...] = ()


class Job:
    """One batch, ready to be made by whoever calls `run`.

    Not a dataclass: Prefect walks through those that are parameters of a task, partition by partition.
    """

    def __init__(
        self,
        batch: Batch,
        snapshot: SnapshotRef | None,
        planned_at: datetime,
        engine: Engine,
        store: PartitionStore,
    ) -> None:
        self.batch = batch
        self._snapshot = snapshot
        self._planned_at = planned_at
        self._engine = engine
        self._store = store

    @property
    def label(self) -> str:
        """What a person calls it: universe, step, models and periods."""
        return f"{self.batch.planned[0].partition.universe}: {self.batch.label}"

    def run(self) -> JobResult:
        """Make what nobody has made meanwhile; never raises for what only concerns this batch."""
        try:
            with ExitStack() as stack:
                for lock in self.batch.locks:
                    stack.enter_context(self._store.hold(lock, timeout_seconds=_PATIENCE_SECONDS))
                return self._make_what_is_left()
        except FactorcubeError as error:  # a lock that is not let go, records that cannot be read or written
            return failed(self.batch, str(error))

    def _make_what_is_left(self) -> JobResult:
        before = self._records()
        found = {item for item in before if _made_since(before[item], item, self._planned_at)}
        left = tuple(item for item in self.batch.planned if item not in found)
        outcomes = [
            PartitionOutcome(partition=item.partition, result="found", version=before[item].version)
            for item in self.batch.planned
            if item in found
        ]
        results = self._make(Batch(left), before) if left else []
        outcomes += [outcome for result in results for outcome in result.outcomes]
        return JobResult(tuple(outcomes), tuple(span for result in results for span in result.worked))

    def _make(self, batch: Batch, before: Mapping[PlannedPartition, PartitionRecord]) -> list[JobResult]:
        """Make a batch, or its halves if it fails, down to the smallest that fails by itself."""
        started = datetime.now(UTC)
        running = {item: _begun(before.get(item), item, started) for item in batch.planned}
        self._remember(running)
        clock, begin = time.perf_counter(), time.time()
        try:
            products = self._engine.make(batch, self._snapshot)
        except Exception as error:  # noqa: BLE001  # one partition must not take the others along, whatever it raised
            worked = ((begin, time.time()),)
            halves = batch.halves()
            if halves:
                run_logger().warning("%s failed and is split: %s", batch.label, _reason(error))
                return [JobResult((), worked), *(result for half in halves for result in self._make(half, before))]
            return [self._failed(batch, running, error, worked)]
        seconds = (time.perf_counter() - clock) / len(batch.planned)
        done = {"status": "done", "finished_at": datetime.now(UTC), "seconds": seconds, "error": None}
        self._remember(
            {
                item: record.model_copy(
                    update={
                        **done,
                        "version": products[item.partition].version,
                        "dates": products[item.partition].dates,
                        "inputs": item.inputs,
                    }
                )
                for item, record in running.items()
            }
        )
        outcomes = tuple(
            PartitionOutcome(
                partition=item.partition, result="done", version=products[item.partition].version, seconds=seconds
            )
            for item in batch.planned
        )
        return [JobResult(outcomes, ((begin, time.time()),))]

    def _failed(
        self,
        batch: Batch,
        running: Mapping[PlannedPartition, PartitionRecord],
        error: Exception,
        worked: tuple[tuple[float, float], ...],
    ) -> JobResult:
        reason = _reason(error)
        run_logger().error(
            "%s failed: %s", batch.label, reason, exc_info=None if isinstance(error, FactorcubeError) else error
        )
        ended = {"status": "failed", "finished_at": datetime.now(UTC), "error": reason}
        self._remember({item: record.model_copy(update=ended) for item, record in running.items()})
        return failed(batch, reason, worked)

    def _records(self) -> dict[PlannedPartition, PartitionRecord]:
        found: dict[PlannedPartition, PartitionRecord] = {}
        for (step, model), items in _documents(self.batch.planned).items():
            records = self._store.read(step, model)
            found |= {item: records[item.partition.period] for item in items if item.partition.period in records}
        return found

    def _remember(self, records: Mapping[PlannedPartition, PartitionRecord]) -> None:
        for (step, model), items in _documents(records).items():
            self._store.write(step, model, {item.partition.period: records[item] for item in items})


def failed(batch: Batch, reason: str, worked: tuple[tuple[float, float], ...] = ()) -> JobResult:
    """Return the result of a batch that failed as a whole."""
    outcomes = (PartitionOutcome(partition=item.partition, result="failed", why=reason) for item in batch.planned)
    return JobResult(tuple(outcomes), worked)


def _begun(before: PartitionRecord | None, item: PlannedPartition, now: datetime) -> PartitionRecord:
    if before is None:
        return PartitionRecord(status="running", attempts=1, lock=lock_of(item), started_at=now)
    begun = {"status": "running", "attempts": before.attempts + 1, "lock": lock_of(item), "started_at": now}
    return before.model_copy(update={**begun, "finished_at": None, "error": None, "seconds": None})


def _made_since(record: PartitionRecord, item: PlannedPartition, planned_at: datetime) -> bool:
    """Whether another backfill has made a partition, from the same inputs, since it was planned here."""
    if record.status != "done" or record.finished_at is None:
        return False
    return record.finished_at > planned_at and record.inputs == item.inputs


def _documents(items: Iterable[PlannedPartition]) -> dict[tuple[Step, str], list[PlannedPartition]]:
    """Group partitions by the document that holds their records."""
    found: dict[tuple[Step, str], list[PlannedPartition]] = {}
    for item in items:
        found.setdefault((item.partition.step, item.partition.model), []).append(item)
    return found


def _reason(error: Exception) -> str:
    text = str(error) if isinstance(error, FactorcubeError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:_LONGEST_ERROR]
