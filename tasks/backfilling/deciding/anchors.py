"""Which retrain version is in force at a date: the one that an update of that date continues.

Here belongs the choice among what is published, what a plan will make, and what failed. Pure: it sees a `World`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date

from schemas.backfill import Inputs, Made, Partition, PlannedPartition
from tasks.backfilling.deciding.world import World, month_of


@dataclass(frozen=True)
class Anchor:
    """A retrain version, there or to come, or one that failed.

    Attributes
    ----------
    as_of : date
        It is in force from this date on, up to the next one.
    partition : Partition
        The retrain that makes it.
    version : str or None
        Its name; None if it is yet to be made.
    failed : bool
        Whether it could not be made and is not tried again now.
    """

    as_of: date
    partition: Partition
    version: str | None = None
    failed: bool = False


@dataclass(frozen=True)
class Anchors:
    """All anchors of one model, in the order of their dates."""

    known: tuple[Anchor, ...]

    def at(self, day: date) -> Anchor | None:
        """Return the one in force at a date; None before the first."""
        position = bisect_right(self.known, day, key=lambda anchor: anchor.as_of)
        return self.known[position - 1] if position else None


def best(found: Iterable[Made], now: Inputs) -> Made | None:
    """Choose among versions of one date: the one of today's inputs, else the newest."""
    return max(found, key=lambda made: (made.inputs == now, made.created_at, made.version), default=None)


def retrained(world: World, model: str) -> Mapping[date, list[Made]]:
    """Return the published retrain versions of a model by as-of date."""
    found: dict[date, list[Made]] = {}
    for made in world.versions.get(model, ()):
        if made.retrained:
            found.setdefault(made.as_of, []).append(made)
    return found


def anchors_of(world: World, model: str, retrains: Iterable[PlannedPartition]) -> Anchors:
    """Return the anchors of a model: published ones, those that this plan will make, and those that failed."""
    known: dict[date, Anchor] = {}
    for as_of, found in retrained(world, model).items():
        chosen = best(found, world.inputs(model, as_of))
        partition = _retrain(world, model, month_of(as_of))
        known[as_of] = Anchor(as_of, partition, version=chosen.version if chosen else None)
    for planned in retrains:
        if planned.included and planned.partition.model == model and planned.as_of is not None:
            version = planned.version if planned.state == "done" else None
            known[planned.as_of] = Anchor(planned.as_of, planned.partition, version=version)
    for month, record in world.records.get(("retrain", model), {}).items():
        held = world.held_in(month)
        if record.status == "failed" and held and held[-1] not in known:
            known[held[-1]] = Anchor(held[-1], _retrain(world, model, month), failed=True)
    return Anchors(tuple(known[as_of] for as_of in sorted(known)))


def _retrain(world: World, model: str, month: str) -> Partition:
    return Partition(step="retrain", universe=world.universe, model=model, period=month)
