"""What a run has to do: refit dates, and the names of the versions that it makes, known before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from itertools import pairwise

import pandas as pd

from schemas.base import nearest
from schemas.contracts import Manifest
from schemas.errors import ConfigError, ModelError
from schemas.modelspecs import ModelSpec
from schemas.refs import SnapshotRef, VersionRef
from schemas.spec import RunSpec, WalkForward
from storage import published
from tasks.digests import read_inputs
from tasks.provenance import key
from tasks.registry import family_code
from tasks.stages import Stage
from tasks.workspace import Workspace

_PERIODS = {"month": "M", "quarter": "Q", "year": "Y"}
_LEAST_HISTORY = 24
DECISIVE = {"frequency", "calendar", "portfolios", "panel", "walk_forward", "covariance", "specific", "gate"}
"""Parts of the spec that a version depends on beside its data and its model."""


def refit_dates(dates: pd.DatetimeIndex, schedule: WalkForward, next_session: pd.Timestamp) -> list[pd.Timestamp]:
    """Dates as of which models are fitted: the last session not after `first`, then the last of every period.

    Parameters
    ----------
    dates : pandas.DatetimeIndex
        Sessions of the panel, up to the last with a return.
    schedule : WalkForward
        When to refit.
    next_session : pandas.Timestamp
        The session after the last date: it tells whether the last period is over.

    Raises
    ------
    ModelError
        If there is too little history before the first refit.
    """
    first = int(dates.searchsorted(pd.Timestamp(schedule.first), side="right")) - 1
    if first + 1 < _LEAST_HISTORY:
        begin = dates[min(_LEAST_HISTORY, len(dates)) - 1]
        raise ModelError(
            f"walk_forward.first is {schedule.first}, but only {max(first + 1, 0)} dates lie before it and a fit needs "
            f"{_LEAST_HISTORY}; choose a date after {begin:%Y-%m-%d}"
        )
    span = pd.DatetimeIndex([*dates[first:], next_session])
    periods = span.to_period(_PERIODS[schedule.every])
    ends = [day for (day, this), (_, following) in pairwise(zip(span, periods, strict=True)) if this != following]
    return sorted({dates[first], *ends})


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


def planned_version(
    space: Workspace, spec: RunSpec, model: ModelSpec, snapshot: SnapshotRef, as_of: date | None
) -> VersionRef:
    """Name of the version that these data, this config and this code make; known before anything is computed."""
    inputs = read_inputs(space, spec, snapshot)
    decisive = spec.model_dump(mode="json", include=DECISIVE)
    code = Stage.VERSIONS.code(family_code(model.kind))
    content = key(code, inputs=inputs.digest(as_of), spec=decisive, model=model.model_dump(mode="json"))
    return VersionRef(universe=spec.universe, model=model.name, version=f"{inputs.as_of(as_of)}-{content[:8]}")


def planned_update(space: Workspace, parent: VersionRef, snapshot: SnapshotRef, until: date | None) -> VersionRef:
    """Name of the version that continues another one up to a date; the other one itself if it reaches that far."""
    manifest = published.read_manifest(space.layout, parent)
    spec = parent_spec(manifest)
    inputs = read_inputs(space, spec, snapshot)
    last = inputs.as_of(until)
    if f"{last}" <= parent.version[:10]:
        return parent.model_copy(update={"changed": False})
    code = Stage.UPDATES.code(family_code(manifest.kind))
    content = key(code, parent=parent.version, model=parent.model, inputs=inputs.digest(last))
    return VersionRef(universe=parent.universe, model=parent.model, version=f"{last}-{content[:8]}")


def parent_spec(manifest: Manifest) -> RunSpec:
    """Return the spec that a version was made with, open at its end, so that it can be continued."""
    spec = RunSpec.parse(manifest.config, origin=f"{manifest.universe}/{manifest.model}/{manifest.version}")
    return spec.model_copy(update={"panel": spec.panel.model_copy(update={"end": None})})
