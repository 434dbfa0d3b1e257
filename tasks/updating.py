"""The daily update: continue the champion with its own fit, date by date, without fitting anything again.

Rows up to the parent's as-of date are the parent's, bit for bit, whatever was restated since. Every new row is a
function of the parent's state and of the cube's rows up to its date alone: it is computed by itself, over the tickers
that had appeared by then. Updates one by one therefore give the same bits as one update over the same dates.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime

import numpy as np
import xarray as xr
from prefect import task
from prefect.cache_policies import NO_CACHE

from models import ModelState
from models.blas import arithmetic
from models.evaluation import forecasts
from schemas.base import digest
from schemas.contracts import Manifest, validate
from schemas.errors import PublishError
from schemas.refs import SnapshotRef, VersionRef
from schemas.settings import Settings
from schemas.spec import RunSpec
from schemas.statistics import version_contract
from storage import published
from storage.versions import STATE
from tasks.artifacts import publish_gate_table
from tasks.assembling import metrics_of
from tasks.continuing import continued, sanity
from tasks.digests import read_inputs
from tasks.histories import History, Reader, history_of
from tasks.logs import run_logger
from tasks.offering import promote, promoted_before
from tasks.planning import chosen, parent_spec, planned_update
from tasks.promoting import shown
from tasks.provenance import library_versions, source_version
from tasks.publishing import attributes
from tasks.registry import MODELS, family_code
from tasks.runs import RETRIED
from tasks.snapshots import sources_of
from tasks.stages import Stage
from tasks.workspace import Workspace

__all__ = ["planned_update", "update_model"]


def update_model(
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
        run_logger().warning("%s is not promoted: %s", shown(ref), "; ".join(gate.reasons))
    elif is_champion and not promoted_before(space, ref):
        return promote(space, ref, expected=parent.version, reason=f"continues {parent.version}")
    now = published.latest(space.layout, universe, model)
    return ref.model_copy(update={"promoted": now is not None and now.version == ref.version})


def continuable(spec: RunSpec, models: Sequence[str] | None, settings: Settings) -> list[str]:
    """Return the names of the models that have a champion, and say which have none."""
    space, found = Workspace.of(settings), []
    for model in chosen(spec, models):
        if published.latest(space.layout, spec.universe, model.name) is None:
            run_logger().warning(
                "%s/%s has no champion and is left out: promote a version of it first", spec.universe, model.name
            )
        else:
            found.append(model.name)
    return found


update_version = task(name="update", task_run_name="update {universe}/{model}", cache_policy=NO_CACHE, **RETRIED)(
    update_model
)


def _publish(space: Workspace, parent: VersionRef, ref: VersionRef, snapshot: SnapshotRef) -> VersionRef:
    manifest = published.read_manifest(space.layout, parent)
    state = published.read_state(space.layout, parent)
    reader = _reader(space, manifest, ModelState(state, manifest.state_meta), snapshot)
    as_of = date.fromisoformat(ref.version[:10])
    position = reader.inputs.position(as_of)
    history = history_of(reader, position)
    old = published.open_version(space.layout, parent).load()
    dataset = continued(old, reader, history)
    dataset.attrs = attributes(reader.spec, ref.model, f"{as_of}")
    validate(dataset, version_contract(dataset), PublishError, shown(ref))
    gate = sanity(manifest, old, dataset)
    publish_gate_table(ref, gate)
    in_sample = manifest.metrics.get("total_r2_in_sample")
    made = manifest.model_copy(
        update={
            "version": ref.version,
            "as_of": as_of,
            "made_by": "update",
            "parent": parent.version,
            "created_at": datetime.now(UTC),
            "input_digest": reader.inputs.digests[position],
            "snapshot_id": snapshot.snapshot_id,
            "ingest_key": snapshot.ingest_key,
            "sources": sources_of(space, snapshot),
            "code_version": Stage.UPDATES.code(family_code(manifest.kind)),
            "source_version": source_version(),
            "metrics": _metrics(reader, history, dataset, np.nan if in_sample is None else in_sample),
            "gate": gate,
            "packages": library_versions(),
            "arithmetic": arithmetic(),
            "checksums": {},
        }
    )
    ref = published.publish(space.layout, dataset, made, state)
    run_logger().info("published %s, which continues %s", shown(ref), parent.version)
    return ref


def _reader(space: Workspace, manifest: Manifest, state: ModelState, snapshot: SnapshotRef) -> Reader:
    params = {name: value for name, value in manifest.params.items() if name not in ("kind", "name")}
    spec = parent_spec(manifest)
    return Reader(
        space=space,
        spec=spec,
        snapshot=snapshot,
        inputs=read_inputs(space, spec, snapshot),
        model=MODELS[manifest.kind].from_state(params, state),
        kind=manifest.kind,
        state=digest([manifest.kind, manifest.params, manifest.state_meta, manifest.checksums[STATE]]),
    )


def _metrics(reader: Reader, history: History, dataset: xr.Dataset, in_sample: float) -> dict[str, float | None]:
    """Score the whole series, old dates and new, on the returns as they are known now."""
    axes = {"date": dataset.indexes["date"], "ticker": dataset.indexes["ticker"]}
    returns = history.returns.reindex(axes)
    series = forecasts.evaluate(dataset, returns, history.mask.reindex(axes, fill_value=False))
    return metrics_of(series, dataset, {"total_r2": in_sample}, reader.spec.periods_per_year)
