"""Weights from a published version, published in turn; and how they come back as a portfolio of the cube.

Here belong the one way to make published weights, and what a run does about those that its config declares.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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
from storage.cube import Cube
from tasks.artifacts import publish_table
from tasks.assets import allocation_made
from tasks.events import announce_failed_allocation
from tasks.holdings import read_positions
from tasks.logs import run_logger
from tasks.outcomes import reason_of
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
    ConfigError
        If a limit is of an industry or factor that there is not.
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
    industries = _industries(space, ref, rows["ticker"]) if spec.by_industry else None
    with threadpool_limits(1):  # BLAS rounds by the number of its threads
        dataset = _allocated(rows, spec, previous, industries)
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
    allocation_made(made, ref)
    return made


def allocate_declared(spec: RunSpec, models: Collection[str], settings: Settings) -> list[AllocationRef]:
    """Make the weights that a config declares for some models, by their champions as of the last date; old ones stay.

    Weights of a name and a date are made once: by whatever champion came first. What cannot be made is told, with an
    event, and takes nothing else along.

    Parameters
    ----------
    spec : RunSpec
        Its `allocations`.
    models : collection of str
        Names of the models of this run.
    settings : Settings
        Where everything is kept.

    Returns
    -------
    list[AllocationRef]
        What there is now; `changed` says whether this run made it.

    Raises
    ------
    OSError
        A store that does not answer or a full disk: the next one would meet it too.
    """
    space, made = Workspace.of(settings), []
    for item in [item for item in spec.allocations if item.model in models]:
        champion = published.latest(space.layout, spec.universe, item.model)
        if champion is None:
            run_logger().warning("allocation %s waits: %s/%s has no champion", item.name, spec.universe, item.model)
            continue
        try:
            made.append(_by_champion(space, champion, item.spec, settings))
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever one raises, versions and other weights are published
            reason = reason_of(error)
            run_logger().warning("allocation %s by %s failed: %s", item.name, champion, reason)
            announce_failed_allocation(champion, item.name, reason)
    return made


def _by_champion(space: Workspace, champion: VersionRef, spec: AllocationSpec, settings: Settings) -> AllocationRef:
    there = find_allocation(space.layout, champion.universe, spec.name, champion.as_of)
    if there is None:
        return allocate_weights(str(champion), spec, settings)
    if read_allocation(space.layout, there)[1].spec == spec:
        return there
    return _unless_other(space, there, champion, spec)


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


def _industries(space: Workspace, ref: VersionRef, tickers: xr.DataArray) -> dict[str, list[str]]:
    """Return which tickers of a version are in each industry as of its date, in the snapshot that it was made from."""
    snapshot = published.read_manifest(space.layout, ref).snapshot_id
    cube = Cube.open(space.layout, ref.universe).open_dataset(snapshot)
    if "industry" not in cube:
        raise ConfigError(
            f"{ref.universe} has no industries to limit; add `industries:` to its config, or list the tickers of the "
            "group"
        )
    codes = cube["industry"].sel(date=np.datetime64(ref.as_of), ticker=tickers).to_series()
    return {
        str(name): [str(ticker) for ticker in codes.index[codes == code]]
        for code, name in enumerate(cube["industry_name"].values)
    }


def _allocated(
    rows: xr.Dataset,
    spec: AllocationSpec,
    previous: xr.DataArray | None,
    industries: Mapping[str, Sequence[str]] | None,
) -> xr.Dataset:
    model = RiskModel(rows["loadings"], rows["omega"], rows["specific_variance"])
    if previous is not None:  # a ticker that the version does not know was withdrawn since: there is nothing to sell
        previous = previous[np.isin(previous["ticker"].values, model.loadings["ticker"].values)]
    mu = rows.get("expected_returns")
    weights = allocate(model, spec, expected_returns=mu, previous=previous, industries=industries)
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
