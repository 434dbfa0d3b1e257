"""What a run made, as assets in Prefect, each with those that it was made from.

Here belong their keys and what is said of each. A cube, a model, the reports of a universe and weights by a name are
assets; a snapshot, a version, a file and the weights of a date are materialisations of them. They are told where they
were made, and only then: a run that finds everything there tells nothing, and a step that fails after it has published
does not take the word back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prefect.assets import Asset, AssetProperties, add_asset_metadata, materialize
from prefect.cache_policies import NO_CACHE

from schemas.contracts import Manifest
from schemas.refs import AllocationRef, SnapshotRef, VersionRef
from tasks.artifacts import courtesy


def cube_made(ref: SnapshotRef) -> None:
    """Tell that a cube has a new snapshot; nothing if it was there already."""
    if ref.changed:
        _materialise(_cube(ref.universe), [], {"snapshot": ref.snapshot_id})


def version_made(ref: VersionRef, manifest: Manifest) -> None:
    """Tell that a model has a new version, made from the cube; nothing if it was there already."""
    if ref.changed:
        facts = {
            "version": ref.version,
            "snapshot": manifest.snapshot_id,
            "made_by": manifest.made_by,
            "gate": "passed" if manifest.gate.passed else "failed",
        }
        _materialise(_model(ref), [_cube(ref.universe)], facts)


def report_made(versions: Sequence[VersionRef]) -> None:
    """Tell that a universe has a new report, made from versions of its models."""
    universe = versions[0].universe
    report = _asset(universe, "report", f"report of {universe}")
    _materialise(report, [_model(ref) for ref in versions], {"versions": [str(ref) for ref in versions]})


def allocation_made(ref: AllocationRef, version: VersionRef) -> None:
    """Tell that weights were published, made from a version; nothing if they were there already."""
    if ref.changed:
        weights = _asset(ref.universe, f"allocation/{ref.name}", f"weights {ref.universe}/{ref.name}")
        _materialise(weights, [_model(version)], {"as_of": f"{ref.as_of}", "version": str(version)})


def _cube(universe: str) -> Asset:
    return _asset(universe, "cube", f"cube of {universe}")


def _model(ref: VersionRef) -> Asset:
    return _asset(ref.universe, f"model/{ref.model}", ref.qualified_model)


def _asset(universe: str, what: str, name: str) -> Asset:
    return Asset(key=f"factorcube://{universe}/{what}", properties=AssetProperties(name=name))


def _materialise(asset: Asset, made_from: Sequence[Asset], facts: Mapping[str, object]) -> None:
    """Run a task that does nothing but stand for what was made: Prefect counts what a task has materialised."""

    @materialize(asset, asset_deps=list(made_from), name="made", task_run_name=asset.key, cache_policy=NO_CACHE)
    def made() -> None:
        add_asset_metadata(asset, dict(facts))

    courtesy(made)
