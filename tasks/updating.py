"""The daily update: continue the champion with its own fit, date by date, without fitting anything again.

Rows up to the parent's as-of date are the parent's, bit for bit, whatever was restated since. Every new row is a
function of the parent's state and of the cube's rows up to its date alone: it is computed by itself, over the tickers
that had appeared by then. Updates one by one therefore give the same bits as one update over the same dates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property

import xarray as xr
from threadpoolctl import threadpool_limits

from models.arrays import NamedArrays
from models.blas import arithmetic
from models.evaluation.gate import believe
from models.families.base import ModelState
from models.families.registry import restore
from models.forecasting.calibrating import named, parted
from models.forecasting.continuing import behind, continued
from models.forecasting.following import RiskEstimators, serve
from models.forecasting.metrics import Metrics, metrics_of
from models.panel.digests import DataDigests
from schemas.contracts import Manifest, validate
from schemas.errors import PublishError
from schemas.families import model_spec
from schemas.refs import SnapshotRef, VersionRef
from schemas.settings import Settings
from schemas.spec import RunSpec
from schemas.statistics import version_contract
from storage import published
from tasks.artifacts import publish_gate_table
from tasks.assembling import kept_states
from tasks.assets import version_made
from tasks.digests import read_inputs
from tasks.logs import run_logger
from tasks.naming import code_of, parent_spec, planned_update
from tasks.offering import promote, promoted_before
from tasks.panels import CubeRows
from tasks.provenance import library_versions, source_version
from tasks.publishing import attributes
from tasks.snapshots import ingests_of, sources_of
from tasks.stages import Stage
from tasks.steps import step
from tasks.workspace import Workspace


@step("update", "update {universe}/{model}", retried=True)
def update_version(
    universe: str,
    model: str,
    snapshot: SnapshotRef,
    until: date | None,
    settings: Settings,
    *,
    parent: VersionRef | None = None,
) -> VersionRef:
    """Continue a version up to a date with its fit, publish the result, and promote it if its parent is the champion.

    Parameters
    ----------
    universe, model : str
        Which model.
    snapshot : SnapshotRef
        The data.
    until : date or None
        The last date; the last one of the snapshot if None.
    settings : Settings
        Where everything is kept.
    parent : VersionRef, optional
        The version to continue; the champion if left out.

    Returns
    -------
    VersionRef
        The parent itself if it reaches that far.

    Raises
    ------
    PublishError
        If the model has no champion.
    ConflictError
        If the champion was another one at the end than at the start; run again to continue that one.
    """
    space = Workspace.of(settings)
    champion = published.latest(space.layout, universe, model)
    parent = parent or champion
    if parent is None:
        raise PublishError(f"{universe}/{model} has no champion to continue; retrain it and promote a version first")
    is_champion = champion is not None and champion.version == parent.version
    ref = planned_update(space, parent, snapshot, until)
    if ref.version == parent.version:
        return ref.model_copy(update={"promoted": is_champion})
    there = published.find(space.layout, universe, model, ref.version)
    ref = _publish(space, parent, ref, snapshot) if there is None else there.model_copy(update={"changed": False})
    gate = published.read_manifest(space.layout, ref).gate
    if not gate.passed:
        run_logger().warning("%s is not promoted: %s", ref, "; ".join(gate.reasons))
    elif is_champion and not promoted_before(space, ref):
        return promote(space, ref, expected=parent.version, reason=f"continues {parent.version}")
    now = published.latest(space.layout, universe, model)
    return ref.model_copy(update={"promoted": now is not None and now.version == ref.version})


def continuable(spec: RunSpec, models: Sequence[str] | None, settings: Settings) -> list[str]:
    """Return the names of the models that have a champion, and say which have none."""
    space, found = Workspace.of(settings), []
    for model in spec.models_named(models):
        if published.latest(space.layout, spec.universe, model.name) is None:
            run_logger().warning(
                "%s/%s has no champion and is left out: promote a version of it first", spec.universe, model.name
            )
        else:
            found.append(model.name)
    return found


def _publish(space: Workspace, parent: VersionRef, ref: VersionRef, snapshot: SnapshotRef) -> VersionRef:
    continuation = Continuation.of(space, parent, snapshot)
    manifest = continuation.manifest
    rows, arrays = continuation.rows(ref.as_of)
    gate = believe(manifest, behind(continuation.last_row, rows), 1)
    publish_gate_table(ref, gate)
    ingests = ingests_of(space, snapshot)
    made = manifest.model_copy(
        update={
            "version": ref.version,
            "as_of": ref.as_of,
            "made_by": "update",
            "parent": parent.version,
            "created_at": datetime.now(UTC),
            "input_digest": continuation.inputs.digest(ref.as_of),
            "snapshot_id": snapshot.snapshot_id,
            "ingest_key": snapshot.ingest_key,
            "sources": sources_of(ingests),
            "ingests": ingests,
            "code_version": continuation.code,
            "source_version": source_version(),
            "metrics": continuation.metrics(rows),
            "gate": gate,
            "packages": library_versions(),
            "arithmetic": arithmetic(),
            "checksums": {},
        }
    )
    ref = published.publish(space.layout, rows, made, arrays, parent=parent)
    run_logger().info("published %s, which continues %s", ref, parent.version)
    version_made(ref, made)
    return ref


@dataclass(frozen=True, eq=False)
class Continuation:
    """A published version, opened to be continued on a snapshot.

    Attributes
    ----------
    parent : VersionRef
        The version.
    manifest : Manifest
        Its own.
    state : ModelState
        Its fit.
    calibration : dict[str, numpy.ndarray]
        State of its calibration after its last row.
    spec : RunSpec
        How it was made.
    inputs : DataDigests
        Of the snapshot.
    """

    space: Workspace
    snapshot: SnapshotRef
    parent: VersionRef
    manifest: Manifest
    state: ModelState
    calibration: NamedArrays
    spec: RunSpec
    inputs: DataDigests

    @classmethod
    def of(cls, space: Workspace, parent: VersionRef, snapshot: SnapshotRef) -> Continuation:
        """Read all but the rows."""
        manifest = published.read_manifest(space.layout, parent)
        arrays, calibration = parted(published.read_state(space.layout, parent))
        state, spec = ModelState(arrays, manifest.state_meta), parent_spec(manifest)
        return cls(space, snapshot, parent, manifest, state, calibration, spec, read_inputs(space, spec, snapshot))

    @property
    def code(self) -> str:
        """Hash of the code that makes the rows."""
        return code_of(Stage.UPDATES, self.spec, model_spec(self.manifest.params))

    @cached_property
    def old(self) -> xr.Dataset:
        """The rows of the version, lazily: of what stocks have, an update reads the last row alone."""
        return published.open_version(self.space.layout, self.parent)

    @property
    def last_row(self) -> xr.Dataset:
        """The last row of the version, in memory."""
        return self.old.isel(date=[-1]).load()

    def rows(self, until: date) -> tuple[xr.Dataset, NamedArrays]:
        """Return the rows of the dates after the version, up to one, and the arrays of the state after them."""
        rows, calibration = self._continued(self.inputs.position(until))
        rows.attrs = attributes(self.spec, self.parent.model, f"{until}")
        validate(rows, version_contract(rows), PublishError, f"{self.parent} up to {until}")
        return rows, self.state.arrays | named(calibration)

    def metrics(self, rows: xr.Dataset) -> Metrics:
        """Score the version with the rows behind its own; what was said in sample is the parent's."""
        axes = {"date"}, {"date", "portfolio"}
        series = [name for name, array in rows.data_vars.items() if set(array.dims) in axes]
        whole = behind(self.old[series].load(), rows[series])
        in_sample = {"total_r2": self.manifest.metrics.get("total_r2_in_sample")}
        return metrics_of(whole, in_sample, self.spec.periods_per_year)

    def _continued(self, last: int) -> tuple[xr.Dataset, NamedArrays]:
        """Make the rows after the version's last date, up to a position."""
        model = model_spec(self.manifest.params)
        reader = CubeRows(self.space, self.spec, self.snapshot, self.inputs, last)
        begin = int(self.inputs.dates.searchsorted(self.old.indexes["date"][-1], side="right"))
        with threadpool_limits(1):  # as on a worker: BLAS rounds by the number of its threads
            served = serve(
                restore(model, self.state),
                reader,
                begin,
                last + 1,
                RiskEstimators.of(self.spec.risk),
                fitted=self.inputs.position(self.manifest.refits[-1]),
                checkpoints=kept_states(self.space, self.spec, model, self.state, self.inputs),
            )
            new = reader.rows(begin, last + 1)
            calibration = (self.spec.risk.calibration, self.calibration)
            held = reader.holdings(begin, last + 1)
            return continued(self.old, served, held, new, reader.order, calibration, self.spec.benchmarks)
