"""Doing the work of one batch with the steps that every flow uses: ingest, train, update.

Here belongs the way from partitions to arguments and back. Locks and records belong in `tasks.backfilling.running`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Protocol

from schemas.backfill import Partition, PlannedPartition
from schemas.errors import ExecutionError
from schemas.refs import SnapshotRef
from schemas.settings import Settings
from schemas.spec import RunSpec
from storage import published
from storage.cube import Cube
from tasks.allocating import with_allocations
from tasks.backfilling.deciding.batches import Batch
from tasks.backfilling.deciding.world import month_of, span_of
from tasks.cluster import Cluster
from tasks.ingesting import check_data, find_snapshot, read_source, write_cube
from tasks.training import train
from tasks.updating import update_version
from tasks.workspace import Workspace


@dataclass(frozen=True)
class Product:
    """What holds a partition now: a version or snapshot, and for an ingested month its number of dates."""

    version: str
    dates: int | None = None


class Engine(Protocol):
    """What makes batches."""

    def make(self, batch: Batch, snapshot: SnapshotRef | None) -> dict[Partition, Product]:
        """Make all partitions of a batch from one state of the cube, or raise."""
        ...


@dataclass(frozen=True)
class FlowEngine:
    """The engine of the flows.

    Attributes
    ----------
    spec : RunSpec
        What is ingested and fitted.
    settings : Settings
        Where.
    cluster : Cluster
        Where fits run; it is opened when the first one is needed.
    alone : bool
        Whether no other batch runs at the same time: a cluster that was lost can then be opened anew.
    """

    spec: RunSpec
    settings: Settings
    cluster: Cluster
    alone: bool = True

    def make(self, batch: Batch, snapshot: SnapshotRef | None) -> dict[Partition, Product]:
        """Make all partitions of a batch."""
        if batch.step == "ingest":
            return self._ingest(batch)
        if snapshot is None:
            raise ExecutionError(f"the cube of {self.spec.universe} does not exist; backfill its ingest first")
        return self._retrain(batch, snapshot) if batch.step == "retrain" else self._update(batch, snapshot)

    def _ingest(self, batch: Batch) -> dict[Partition, Product]:
        first, last = (batch.planned[index].partition.period for index in (0, -1))
        ref = _ingest(self.spec, span_of(first)[0], span_of(last)[1], self.settings)
        cube = Cube.open(Workspace.of(self.settings).layout, self.spec.universe).open_dataset(ref.snapshot_id)
        held = [month_of(stamp.date()) for stamp in cube.indexes["date"]]
        return {
            item.partition: Product(ref.snapshot_id, dates=held.count(item.partition.period)) for item in batch.planned
        }

    def _retrain(self, batch: Batch, snapshot: SnapshotRef) -> dict[Partition, Product]:
        models = [model for model in self.spec.models if model.name in batch.models]
        try:
            refs = train(self.spec, models, snapshot, _as_of(batch.planned[0]), self.cluster, self.settings)
        except ExecutionError:
            if self.alone:
                self.cluster.close()
            raise
        made = {ref.model: ref.version for ref in refs}
        return {item.partition: Product(made[item.partition.model]) for item in batch.planned}

    def _update(self, batch: Batch, snapshot: SnapshotRef) -> dict[Partition, Product]:
        last = batch.planned[-1]
        model, name = last.partition.model, (last.inputs.parent if last.inputs else None) or ""
        parent = published.resolve(Workspace.of(self.settings).layout, f"{self.spec.universe}/{model}/{name}")
        ref = update_version(self.spec.universe, model, snapshot, _as_of(last), self.settings, parent=parent)
        return {item.partition: Product(ref.version) for item in batch.planned}


def _ingest(spec: RunSpec, start: date, end: date, settings: Settings) -> SnapshotRef:
    """Do what the flow of this name does, inside the one task of a batch."""
    spec = with_allocations(spec, settings)
    raw = read_source(spec, settings, start, end)
    known = find_snapshot(spec, raw, settings)
    return known or write_cube(spec, raw, check_data(spec, raw, settings), settings)


def _as_of(item: PlannedPartition) -> date:
    if item.as_of is None:
        raise ExecutionError(f"{item.partition}: its as-of date is not known; plan again after the ingest")
    return item.as_of
