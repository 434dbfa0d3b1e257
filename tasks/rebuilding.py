"""Making a published version again from its manifest, to see whether its inputs still give the same bits (P4, P7).

Here belongs the way from a manifest back to the steps that made the version, and the comparison. Nothing is published
and no intermediate result is looked at: everything is made anew in a folder of its own, which is removed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy.typing as npt
import xarray as xr
from pydantic import Field

from models.blas import arithmetic
from models.evaluation.differences import Spread, spread
from models.evaluation.matching import array_difference, compare
from models.forecasting.continuing import behind
from schemas.base import Frozen
from schemas.contracts import Manifest
from schemas.differences import ArrayDifference, VersionDifference
from schemas.errors import CubeError
from schemas.families import model_spec
from schemas.refs import SnapshotRef, VersionRef
from schemas.settings import Settings
from schemas.spec import RunSpec
from schemas.stores import SCHEMES
from storage import cube_upkeep, published
from storage.cube import Cube
from storage.files import staging
from storage.work import Kind
from tasks.assembling import estimate_covariance, evaluate_models
from tasks.cluster import Cluster
from tasks.fitting import fit_models
from tasks.naming import code_of
from tasks.panels import build_panel
from tasks.provenance import library_versions
from tasks.publishing import published_rows
from tasks.stages import Stage
from tasks.updating import Continuation
from tasks.workspace import Workspace


class Rebuilt(Frozen):
    """What came of making a version again."""

    version: str
    identical: bool = Field(description="Every number and every array of the state is the same, bit for bit.")
    difference: VersionDifference = Field(description="From what was published (A) to what was made now (B).")
    state: tuple[ArrayDifference, ...] = Field(description="Arrays of the model's state that differ.")

    @property
    def other_code(self) -> str | None:
        """What of this installation is not what made the version, in words; None if all of it is."""
        names = [one.name for one in self.difference.inputs if one.name.startswith(_INSTALLATION)]
        return ", ".join(names) or None


def beside_shared_work(settings: Settings) -> Settings:
    """Return the settings of the cluster of a rebuild, whose results no other run finds.

    They lie on a disk of this machine: where workers elsewhere share no disk with it, its own take their place.
    """
    return settings if settings.work is None else settings.model_copy(update={"work": None, "dask_scheduler": None})


def rebuild_version(ref: VersionRef, cluster: Cluster, settings: Settings) -> Rebuilt:
    """Make a version again from the snapshot, config and as-of date of its manifest, and compare every bit.

    The rows of an update are made again behind those of its parent as it was published.

    Parameters
    ----------
    ref : VersionRef
        Which one.
    cluster : Cluster
        Where fits run; opened by what `beside_shared_work` gives.
    settings : Settings
        Where it is published. Everything is made in a folder of its own below the root.

    Raises
    ------
    CubeError
        If the snapshot that it was made from has gone.
    CorruptionError
        If the version, or the parent that it continues, is damaged.
    """
    space = Workspace.of(settings)
    published.verify(space.layout, ref)
    manifest = published.read_manifest(space.layout, ref)
    snapshot = _snapshot(space, manifest)
    with _elsewhere(space, settings) as scratch:
        make = _updated if manifest.made_by == "update" else _retrained
        rows, state, again = make(manifest, snapshot, cluster, scratch)
        difference = compare((published.open_version(space.layout, ref), rows), (manifest, again), latent=False)
    known = published.read_state(space.layout, ref)
    other = tuple(_differing(known, state))
    identical = difference.identical and not other and manifest.metrics == again.metrics
    return Rebuilt(version=str(ref), identical=identical, difference=difference, state=other)


_INSTALLATION = ("code_version", "packages.", "arithmetic.")
_Found = TypeVar("_Found")
_State = dict[str, npt.NDArray[Any]]
_Made = tuple[xr.Dataset, _State, Manifest]
"""Rows and state of a version, and a manifest that says what made them now."""


def _retrained(manifest: Manifest, snapshot: SnapshotRef, cluster: Cluster, settings: Settings) -> _Made:
    """Make a version as `tasks.training.train` does, up to its publication."""
    spec = RunSpec.parse(manifest.config, origin=str(manifest))
    models = spec.models_named([manifest.model])
    panel = build_panel(spec, snapshot, manifest.as_of, settings)
    fits = _sound(fit_models(spec, models, panel, cluster, settings))
    (risk,) = _sound(estimate_covariance(spec, models, panel, fits, cluster, settings))
    metrics = _sound(evaluate_models(spec, panel, [risk], cluster, settings))[risk.model]
    space = Workspace.of(settings)
    state, _ = space.work.get_arrays(Kind.STATES, risk.key)
    again = manifest.model_copy(
        update={"metrics": metrics, **_installation(code_of(Stage.VERSIONS, spec, model_spec(manifest.params)))}
    )
    return published_rows(space, spec, risk), state, again


def _updated(manifest: Manifest, snapshot: SnapshotRef, _: Cluster, settings: Settings) -> _Made:
    """Make a version as `tasks.updating.update_version` does, up to its publication."""
    space = Workspace.of(settings)
    parent = VersionRef(universe=manifest.universe, model=manifest.model, version=manifest.parent or "")
    continuation = Continuation.of(space, parent, snapshot)
    rows, state = continuation.rows(manifest.as_of)
    again = manifest.model_copy(update={"metrics": continuation.metrics(rows), **_installation(continuation.code)})
    return behind(continuation.old.load(), rows), state, again


def _sound(found: tuple[_Found, dict[str, Exception]]) -> _Found:
    """Return what a stage made; raise what the one model, or one that it needs, failed with."""
    made, failed = found
    for error in failed.values():
        raise error
    return made


def _installation(code: str) -> dict[str, Any]:
    return {"code_version": code, "packages": library_versions(), "arithmetic": arithmetic()}


def _snapshot(space: Workspace, manifest: Manifest) -> SnapshotRef:
    """Find the snapshot that a version was made from, with what its commit says."""
    cube = Cube.open(space.layout, manifest.universe)
    metadata = next((one.metadata for one in cube_upkeep.living(cube) if one.id == manifest.snapshot_id), None)
    if metadata is None:
        raise CubeError(
            f"{manifest} cannot be made again: the cube of {manifest.universe} no longer holds snapshot "
            f"{manifest.snapshot_id}, which it was made from; restore the cube from a copy that does"
        )
    return SnapshotRef(
        universe=manifest.universe,
        snapshot_id=manifest.snapshot_id,
        ingest_key=manifest.ingest_key,
        checks_key=metadata.get("checks_key", manifest.ingest_key),
        changed=False,
    )


@contextmanager
def _elsewhere(space: Workspace, settings: Settings) -> Iterator[Settings]:
    """Give settings with the same cubes and versions, and a folder of intermediate results that is empty."""
    with staging(space.layout.rebuilds) as scratch:
        here = {} if settings.store else {"store": f"file://{settings.root}", "allowed_schemes": SCHEMES}
        yield settings.model_copy(update={"root": scratch, "work": None, **here})


def _differing(published_state: _State, state: _State) -> Iterator[ArrayDifference]:
    """Yield the arrays of a state that are not the same bit for bit."""
    for name in sorted({*published_state, *state}):
        one, other = published_state.get(name), state.get(name)
        if one is None or other is None or one.shape != other.shape:
            entries = sum(each.size for each in (one, other) if each is not None)
            yield array_difference(name, Spread(unmatched=entries, identical=False))
        elif not (found := spread(one, other)).identical:
            yield array_difference(name, found)
