"""The names of the versions that a run makes, known before anything is computed."""

from __future__ import annotations

from datetime import date

from schemas.contracts import Manifest
from schemas.families import ModelSpec, model_spec, with_bases
from schemas.refs import SnapshotRef, VersionRef
from schemas.spec import RunSpec
from storage import published
from tasks.digests import read_inputs
from tasks.provenance import key
from tasks.stages import Stage, family_code
from tasks.workspace import Workspace

DECISIVE = {"frequency", "calendar", "portfolios", "panel", "walk_forward", "risk", "gate"}
"""Parts of the spec that a version depends on beside its data and its model."""


def code_of(stage: Stage, spec: RunSpec, model: ModelSpec) -> str:
    """Hash the code of a stage for a model and those that it needs."""
    return stage.code(*(family_code(each.kind) for each in with_bases([model], spec.models)))


def planned_version(
    space: Workspace, spec: RunSpec, model: ModelSpec, snapshot: SnapshotRef, as_of: date | None
) -> VersionRef:
    """Name of the version that these data, this config and this code make; known before anything is computed."""
    inputs = read_inputs(space, spec, snapshot)
    without = {"portfolios": {"__all__": {"source"}}}  # what it says is in the cube, wherever it lies
    decisive = spec.model_dump(mode="json", include=DECISIVE, exclude=without)
    needed = [each.model_dump(mode="json") for each in with_bases([model], spec.models)]
    content = key(code_of(Stage.VERSIONS, spec, model), inputs=inputs.digest(as_of), spec=decisive, models=needed)
    return VersionRef(universe=spec.universe, model=model.name, version=f"{inputs.as_of(as_of)}-{content[:8]}")


def planned_update(space: Workspace, parent: VersionRef, snapshot: SnapshotRef, until: date | None) -> VersionRef:
    """Name of the version that continues another one up to a date; the other one itself if it reaches that far."""
    manifest = published.read_manifest(space.layout, parent)
    spec = parent_spec(manifest)
    inputs = read_inputs(space, spec, snapshot)
    last = inputs.as_of(until)
    if last <= parent.as_of:
        return parent.model_copy(update={"changed": False})
    code = code_of(Stage.UPDATES, spec, model_spec(manifest.params))
    content = key(code, parent=parent.version, model=parent.model, inputs=inputs.digest(last))
    return VersionRef(universe=parent.universe, model=parent.model, version=f"{last}-{content[:8]}")


def parent_spec(manifest: Manifest) -> RunSpec:
    """Return the spec that a version was made with, open at its end, so that it can be continued."""
    spec = RunSpec.parse(manifest.config, origin=str(manifest))
    return spec.model_copy(update={"panel": spec.panel.model_copy(update={"end": None})})
