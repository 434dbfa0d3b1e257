"""Looking at what is there before a plan is made: cube, sources, published versions and records.

Here belongs everything that the planner needs and that must be read from somewhere. Nothing here writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import pandas as pd

from schemas.backfill import BackfillPlan, BackfillRequest, Inputs, Made, PartitionRecord, Step
from schemas.base import digest
from schemas.contracts import Manifest
from schemas.errors import ConfigError, CorruptionError, CubeError
from schemas.families import model_spec, with_bases
from schemas.refs import SnapshotRef
from schemas.settings import Settings
from schemas.spec import RunSpec
from storage import published
from storage.cube import Cube
from storage.partitions import PartitionStore
from storage.sources import sessions
from storage.sources.calendars import NO_CALENDAR
from tasks.backfilling.deciding.partitions import make_plan
from tasks.backfilling.deciding.world import World, months, span_of
from tasks.digests import input_digests
from tasks.ingesting import head_snapshot, ingest_config, source_files
from tasks.logs import run_logger
from tasks.naming import DECISIVE, code_of
from tasks.stages import Stage
from tasks.workspace import Workspace


def plan_backfill(
    spec: RunSpec, request: BackfillRequest, settings: Settings
) -> tuple[BackfillPlan, SnapshotRef | None]:
    """Plan a request against what is there now; also return the state of the cube that was looked at.

    Raises
    ------
    ConfigError
        If the request names a model that the spec does not have.
    SourceError
        If an ingest is asked for and its source cannot be read.
    """
    now = datetime.now(UTC)
    world, snapshot = survey(spec, request, settings)
    return make_plan(world, request, snapshot_id=snapshot.snapshot_id if snapshot else None, now=now), snapshot


def survey(spec: RunSpec, request: BackfillRequest, settings: Settings) -> tuple[World, SnapshotRef | None]:
    """Read what a plan of this request depends on; raises as `plan_backfill` does."""
    space = Workspace.of(settings)
    models = tuple(model.name for model in spec.models_named(request.models or None))
    records, held_locks = _records(PartitionStore(space.layout, spec.universe), models)
    try:
        snapshot = head_snapshot(spec.universe, settings)
    except CubeError:
        snapshot = None
    held: tuple[date, ...] = ()
    digests: Mapping[date, str] = {}
    if snapshot is not None:
        cube = Cube.open(space.layout, spec.universe).open_dataset(snapshot.snapshot_id)
        held = tuple(stamp.date() for stamp in cube.indexes["date"])
        digests = {} if request.what == "ingest" else input_digests(space, spec, snapshot)
    source = digest([file.model_dump() for file in source_files(spec, settings)]) if request.what in _READS else None
    world = World(
        universe=spec.universe,
        models=models,
        first_refit=spec.walk_forward.first,
        today=datetime.now(UTC).date(),
        sessions=_sessions(spec, request),
        calendar_free=spec.calendar == NO_CALENDAR,
        held=held,
        digests=digests,
        codes=_codes(spec, models),
        configs={"": digest(ingest_config(spec))} | {name: _config(_plain(spec), name) for name in models},
        source=source,
        records=records,
        versions={name: _versions(space, spec.universe, name) for name in models},
        held_locks=held_locks,
    )
    return world, snapshot


_READS = ("ingest", "all")


def _records(
    store: PartitionStore, models: Sequence[str]
) -> tuple[dict[tuple[Step, str], Mapping[str, PartitionRecord]], frozenset[str]]:
    steps: list[tuple[Step, str]] = [("ingest", "")]
    steps += [(step, model) for model in models for step in ("retrain", "update")]
    found: dict[tuple[Step, str], Mapping[str, PartitionRecord]] = {key: store.read(*key) for key in steps}
    running = {record.lock for records in found.values() for record in records.values() if record.status == "running"}
    return found, frozenset(lock for lock in running if store.held(lock))


def _sessions(spec: RunSpec, request: BackfillRequest) -> tuple[date, ...]:
    touched = months(request.start, request.end)
    first, last = span_of(touched[0])[0], span_of(touched[-1])[1]
    stamps = (
        pd.date_range(first, last, freq="ME") if spec.frequency == "monthly" else sessions(spec.calendar, first, last)
    )
    return tuple(stamp.date() for stamp in stamps)


def _versions(space: Workspace, universe: str, model: str) -> tuple[Made, ...]:
    manifests: dict[str, Manifest] = {}
    for ref in published.list_versions(space.layout, universe, model):
        try:
            manifests[ref.version] = published.read_manifest(space.layout, ref)
        except CorruptionError as error:
            run_logger().warning("a damaged version does not count: %s", error)
    return tuple(_made(name, manifests) for name in manifests)


def _made(name: str, manifests: Mapping[str, Manifest]) -> Made:
    manifest, root = manifests[name], name
    while root in manifests and manifests[root].made_by == "update":
        root = manifests[root].parent or ""
    updated = manifest.made_by == "update"
    return Made(
        version=name,
        as_of=manifest.as_of,
        root=root,
        inputs=Inputs(
            data=manifest.input_digest,
            code=manifest.code_version,
            config="" if updated else _config(manifest.config, manifest.model),
            parent=root if updated else None,
        ),
        created_at=manifest.created_at,
    )


def _codes(spec: RunSpec, models: Sequence[str]) -> dict[tuple[Step, str], str]:
    """Hash the code behind each kind of partition: an edit of one family makes stale what its models made."""
    codes: dict[tuple[Step, str], str] = {("ingest", ""): Stage.INGEST.code()}
    for model in spec.models:
        if model.name in models:
            codes["retrain", model.name] = code_of(Stage.VERSIONS, spec, model)
            codes["update", model.name] = code_of(Stage.UPDATES, spec, model)
    return codes


def _plain(spec: RunSpec) -> dict[str, Any]:
    return spec.model_dump(mode="json")


def _config(config: Mapping[str, Any], model: str) -> str:
    """Hash the part of a config that decides the numbers of one model, and of those that it is fitted on."""
    decisive = {name: config.get(name) for name in sorted(DECISIVE)}
    try:
        specs = {item["name"]: model_spec(item) for item in config["models"]}
        names = {each.name for each in with_bases([specs[model]], [*specs.values()])}
    except ConfigError:  # of a version whose family or parameters are no longer there: stale by its code
        names = {model}
    return digest([decisive, [item for item in config["models"] if item["name"] in names]])
