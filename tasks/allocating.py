"""Weights from a published version, published in turn; and how they come back as a portfolio of the cube."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

from models.allocation import allocate
from models.blas import arithmetic
from models.risk.portfolio import RiskModel
from schemas.allocated import AllocationManifest
from schemas.allocation import AllocationSpec
from schemas.errors import ConfigError, ConflictError
from schemas.refs import AllocationRef, VersionRef
from schemas.settings import Settings
from schemas.spec import AllocatedWeights, DatedWeights, Holdings, PortfolioSpec, RunSpec
from storage import published
from storage.allocations import find_allocation, list_allocations, publish_allocation, read_allocation
from tasks.artifacts import publish_table
from tasks.holdings import read_positions
from tasks.logs import run_logger
from tasks.provenance import library_versions, source_version
from tasks.stages import Stage
from tasks.steps import step
from tasks.workspace import Workspace

_LARGEST = 20
"""How many positions the table of a run shows."""


@step("allocate", "allocate {spec.name} by {version}", retried=True)
def allocate_weights(version: str, spec: AllocationSpec, settings: Settings) -> AllocationRef:
    """Allocate by the last rows of a published version, and publish the weights; those that are there stay.

    Parameters
    ----------
    version : str
        Such as ``us_large/ipca/latest``.
    spec : AllocationSpec
        By what, and within which limits. Turnover counts from the last weights of this name before the version's date.
    settings : Settings
        Where everything is kept.

    Raises
    ------
    PublishError
        If there is no such version.
    ConflictError
        If other weights were published under this name as of this date.
    ModelError
        If no weights keep the limits.
    """
    space = Workspace.of(settings)
    ref = published.resolve(space.layout, version)
    there = find_allocation(space.layout, ref.universe, spec.name, ref.as_of)
    if there is not None:
        return _unless_other(space, there, ref, spec)
    before = [one for one in list_allocations(space.layout, ref.universe, spec.name) if one.as_of < ref.as_of]
    previous = read_allocation(space.layout, before[-1])[0]["weights"] if before else None
    rows = published.open_version(space.layout, ref).isel(date=-1, drop=True).load()
    with threadpool_limits(1):  # BLAS rounds by the number of its threads
        dataset = _allocated(rows, spec, previous)
    weights = dataset["weights"]
    manifest = AllocationManifest(
        universe=ref.universe,
        name=spec.name,
        as_of=ref.as_of,
        version=str(ref),
        previous=before[-1].as_of if before else None,
        spec=spec,
        variance=float(dataset["risk_contribution"].sum()),
        turnover=None if previous is None else float(_changes(weights, previous)),
        created_at=datetime.now(UTC),
        code_version=Stage.ALLOCATIONS.code(),
        source_version=source_version(),
        packages=library_versions(),
        arithmetic=arithmetic(),
    )
    made = publish_allocation(space.layout, dataset, manifest)
    run_logger().info("published the weights %s, made from %s", made, ref)
    _show(made, dataset)
    return made


def with_allocations(spec: RunSpec, settings: Settings) -> RunSpec:
    """Return a spec whose allocations and holdings have their weights; what the config says of them itself stays.

    Raises
    ------
    ConfigError
        If nothing is published under the name of an allocation.
    CorruptionError
        If a file of published weights is damaged.
    SourceError, DataError
        If a source of holdings cannot be read, or its rows cannot be used.
    """
    if not any(isinstance(item, AllocatedWeights | Holdings) for item in spec.portfolios):
        return spec
    space = Workspace.of(settings)
    read: list[PortfolioSpec] = []
    for item in spec.portfolios:
        if isinstance(item, AllocatedWeights):
            read.append(_read(space, spec.universe, item))
        else:
            read.append(read_positions(item, spec.frequency, settings) if isinstance(item, Holdings) else item)
    return spec.model_copy(update={"portfolios": tuple(read)})


def _read(space: Workspace, universe: str, item: AllocatedWeights) -> AllocatedWeights:
    if item.rebalances:
        return item
    found = []
    for ref in list_allocations(space.layout, universe, item.name):
        weights = read_allocation(space.layout, ref)[0]["weights"]
        held = weights[weights.values != 0.0]
        by_ticker = dict(zip(held["ticker"].values.tolist(), held.values.tolist(), strict=True))
        found.append(DatedWeights(as_of=ref.as_of, weights=by_ticker))
    if not found:
        raise ConfigError(
            f"no weights of {universe} are published under '{item.name}'; make some with `factorcube allocate` before "
            "the config names them"
        )
    return item.model_copy(update={"rebalances": tuple(found)})


def _allocated(rows: xr.Dataset, spec: AllocationSpec, previous: xr.DataArray | None) -> xr.Dataset:
    model = RiskModel(rows["loadings"], rows["omega"], rows["specific_variance"])
    if previous is not None:  # a ticker that the version does not know was withdrawn since: there is nothing to sell
        previous = previous[np.isin(previous["ticker"].values, model.loadings["ticker"].values)]
    weights = allocate(model, spec, expected_returns=rows.get("expected_returns"), previous=previous)
    parts = {
        "weights": weights,
        "risk_contribution": model.asset_contributions(weights),
        "exposures": model.exposures(weights),
    }
    return xr.Dataset(parts).drop_attrs()


def _unless_other(space: Workspace, there: AllocationRef, ref: VersionRef, spec: AllocationSpec) -> AllocationRef:
    manifest = read_allocation(space.layout, there)[1]
    if manifest.version == str(ref) and manifest.spec == spec:
        return there
    what = "by another spec" if manifest.version == str(ref) else f"from {manifest.version}"
    raise ConflictError(
        f"{there} is already published, made {what}; weights of a date never change, allocate under another name"
    )


def _changes(weights: xr.DataArray, previous: xr.DataArray) -> xr.DataArray:
    one, other = xr.align(weights, previous, join="outer", fill_value=0.0)
    return abs(one - other).sum()


def _show(ref: AllocationRef, dataset: xr.Dataset) -> None:
    order = np.argsort(-abs(dataset["weights"].values), kind="stable")[:_LARGEST]
    total = float(dataset["risk_contribution"].sum())
    rows: list[dict[str, object]] = [
        {
            "ticker": str(dataset["ticker"].values[i]),
            "weight": round(float(dataset["weights"].values[i]), 6),
            "share of variance": round(float(dataset["risk_contribution"].values[i]) / total, 6),
        }
        for i in order
    ]
    publish_table("allocation", f"{ref.universe}-{ref.name}", rows, f"The largest positions of {ref}")
