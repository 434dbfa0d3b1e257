"""Batches: the partitions that are made in one go, because one piece of work makes them all.

An ingest takes consecutive months at once, a retrain all models of a month, an update all dates of a model between two
retrain versions: one version as of the last of them holds the rows of all, each as of its own date. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from schemas.backfill import PlannedPartition, Step


@dataclass(frozen=True)
class Batch:
    """Partitions of one step that are made together.

    Attributes
    ----------
    planned : tuple[PlannedPartition, ...]
        In the order of their periods; not empty.
    """

    planned: tuple[PlannedPartition, ...]

    @property
    def step(self) -> Step:
        """The step that all of them belong to."""
        return self.planned[0].partition.step

    @property
    def models(self) -> tuple[str, ...]:
        """Models of the batch, each once; empty for an ingest."""
        return tuple(dict.fromkeys(item.partition.model for item in self.planned if item.partition.model))

    @property
    def locks(self) -> tuple[str, ...]:
        """Names of the locks under which it is made, in the order in which everybody takes them."""
        return tuple(sorted({lock_of(item) for item in self.planned}))

    @property
    def label(self) -> str:
        """What a person calls it: step, models and periods."""
        first, last = (self.planned[index].partition.period for index in (0, -1))
        span = first if first == last else f"{first} to {last}"
        return " ".join(part for part in (self.step, ", ".join(self.models), span) if part)

    def halves(self) -> tuple[Batch, ...]:
        """Split a batch that failed, to find what failed in it; nothing if all of it stands or falls together."""
        if self.step == "update" or len(self.planned) == 1:
            return ()
        middle = len(self.planned) // 2
        return Batch(self.planned[:middle]), Batch(self.planned[middle:])


def lock_of(item: PlannedPartition) -> str:
    """Return the lock under which a partition is made: that of everything which one piece of work could make."""
    partition = item.partition
    match partition.step:
        case "ingest":
            return "ingest"
        case "retrain":
            return f"retrain-{partition.model}-{partition.period}"
        case "update":
            return f"update-{partition.model}-{item.inputs.parent if item.inputs else ''}"


def batches_of(included: Iterable[PlannedPartition], *, backward: bool) -> list[Batch]:
    """Join the partitions of one step into batches, in the order in which they are to be made."""
    items = list(included)
    if not items:
        return []
    match items[0].partition.step:
        case "ingest":
            found = _consecutive(items)
        case "retrain":
            items.sort(key=lambda item: item.partition.period)
            found = [Batch(tuple(group)) for _, group in groupby(items, key=lambda item: item.partition.period)]
        case "update":
            items.sort(key=lambda item: (lock_of(item), item.partition.period))
            found = [Batch(tuple(group)) for _, group in groupby(items, key=lock_of)]
            found.sort(key=lambda batch: (batch.planned[0].partition.period, batch.models))
    return found[::-1] if backward else found


def _consecutive(items: list[PlannedPartition]) -> list[Batch]:
    items.sort(key=lambda item: item.partition.period)
    counted = ((_ordinal(item.partition.period) - position, item) for position, item in enumerate(items))
    return [Batch(tuple(item for _, item in group)) for _, group in groupby(counted, key=lambda pair: pair[0])]


def _ordinal(month: str) -> int:
    return int(month[:4]) * 12 + int(month[5:7])
