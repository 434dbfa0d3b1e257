"""What a run has to do: its models and those that they need, and the names of the versions that it makes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from models.families.registry import build
from schemas.base import nearest
from schemas.contracts import Manifest
from schemas.errors import ConfigError
from schemas.families import ModelSpec, model_spec
from schemas.refs import SnapshotRef, VersionRef
from schemas.spec import RunSpec
from storage import published
from tasks.digests import read_inputs
from tasks.provenance import key
from tasks.stages import Stage, family_code
from tasks.workspace import Workspace

DECISIVE = {"frequency", "calendar", "portfolios", "panel", "walk_forward", "covariance", "specific", "gate"}
"""Parts of the spec that a version depends on beside its data and its model."""


def chosen(spec: RunSpec, names: Sequence[str] | None) -> list[ModelSpec]:
    """Return the models of a spec that are meant, in the order of the spec; all if no names are given.

    Raises
    ------
    ConfigError
        If the spec has no model of such a name.
    """
    known = [model.name for model in spec.models]
    for name in names or ():
        if name not in known:
            raise ConfigError(f"{spec.universe} has no model '{name}' ({nearest(name, known)})")
    return [model for model in spec.models if names is None or model.name in names]


def with_bases(spec: RunSpec, models: Sequence[ModelSpec]) -> list[ModelSpec]:
    """Return models and those on whose residuals they are fitted, each once, before those that need it.

    Raises
    ------
    ConfigError
        If a model names one that the spec does not have, or that needs it in turn.
    """
    by_name = {model.name: model for model in spec.models}
    found: dict[str, ModelSpec] = {}

    def add(model: ModelSpec, waiting: tuple[str, ...]) -> None:
        base = build(model).base
        if base is not None and base not in by_name:
            raise ConfigError(f"model '{model.name}' is one on the residuals of '{base}' ({nearest(base, [*by_name])})")
        if base is not None and base in (*waiting, model.name):
            raise ConfigError(f"models '{model.name}' and '{base}' each need the residuals of the other")
        if base is not None:
            add(by_name[base], (*waiting, model.name))
        found.setdefault(model.name, model)

    for model in models:
        add(model, ())
    return [*found.values()]


def code_of(stage: Stage, spec: RunSpec, model: ModelSpec) -> str:
    """Hash the code of a stage for a model and those that it needs."""
    return stage.code(*(family_code(each.kind) for each in with_bases(spec, [model])))


def planned_version(
    space: Workspace, spec: RunSpec, model: ModelSpec, snapshot: SnapshotRef, as_of: date | None
) -> VersionRef:
    """Name of the version that these data, this config and this code make; known before anything is computed."""
    inputs = read_inputs(space, spec, snapshot)
    decisive = spec.model_dump(mode="json", include=DECISIVE)
    needed = [each.model_dump(mode="json") for each in with_bases(spec, [model])]
    content = key(code_of(Stage.VERSIONS, spec, model), inputs=inputs.digest(as_of), spec=decisive, models=needed)
    return VersionRef(universe=spec.universe, model=model.name, version=f"{inputs.as_of(as_of)}-{content[:8]}")


def planned_update(space: Workspace, parent: VersionRef, snapshot: SnapshotRef, until: date | None) -> VersionRef:
    """Name of the version that continues another one up to a date; the other one itself if it reaches that far."""
    manifest = published.read_manifest(space.layout, parent)
    spec = parent_spec(manifest)
    inputs = read_inputs(space, spec, snapshot)
    last = inputs.as_of(until)
    if f"{last}" <= parent.version[:10]:
        return parent.model_copy(update={"changed": False})
    code = code_of(Stage.UPDATES, spec, model_spec(manifest.params))
    content = key(code, parent=parent.version, model=parent.model, inputs=inputs.digest(last))
    return VersionRef(universe=parent.universe, model=parent.model, version=f"{last}-{content[:8]}")


def parent_spec(manifest: Manifest) -> RunSpec:
    """Return the spec that a version was made with, open at its end, so that it can be continued."""
    spec = RunSpec.parse(manifest.config, origin=f"{manifest.universe}/{manifest.model}/{manifest.version}")
    return spec.model_copy(update={"panel": spec.panel.model_copy(update={"end": None})})
