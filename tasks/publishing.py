"""The last steps: publish what is new with the gate's decision, and write the report."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import xarray as xr

from models.blas import arithmetic
from models.forecasting.metrics import Metrics
from schemas.base import digest
from schemas.checks import CheckReport
from schemas.contracts import Manifest, validate
from schemas.errors import PublishError
from schemas.families import ModelSpec, model_spec
from schemas.refs import PanelRef, RiskRef, SnapshotRef, VersionRef
from schemas.settings import Settings
from schemas.spec import ReportSpec, RunSpec
from schemas.statistics import version_contract
from storage import published
from storage.allocations import allocations_of, read_allocation
from storage.files import write_atomic
from storage.work import Kind
from tasks.artifacts import publish_link
from tasks.assembling import evaluation_key
from tasks.assets import report_made, version_made
from tasks.committing import ingest_record
from tasks.logs import run_logger
from tasks.naming import code_of, planned_version
from tasks.offering import judge
from tasks.panels import Sample
from tasks.provenance import library_versions, source_version
from tasks.snapshots import ingests_of, sources_of
from tasks.stages import Stage
from tasks.steps import step
from tasks.workspace import Workspace


@step("plan versions", "plan {spec.universe}")
def plan_versions(
    spec: RunSpec, models: Sequence[ModelSpec], snapshot: SnapshotRef, as_of: date | None, settings: Settings
) -> dict[str, VersionRef]:
    """Name the versions that this run makes, by model; `changed` is False for those already published."""
    space = Workspace.of(settings)
    planned = {}
    for model in models:
        version = planned_version(space, spec, model, snapshot, as_of)
        planned[model.name] = _published(space, version) or version
    done = [name for name, ref in planned.items() if not ref.changed]
    if done:
        run_logger().info("already published, nothing to compute: %s", ", ".join(done))
    return planned


@step("publish", "publish {planned}", retried=True)
def publish_version(
    spec: RunSpec, panel: PanelRef, risk: RiskRef, planned: VersionRef, metrics: Metrics, settings: Settings
) -> VersionRef:
    """Let the gate decide about one version, and publish it whole with the decision; it is not promoted here."""
    space = Workspace.of(settings)
    there = _published(space, planned)
    if there is not None:
        return there
    dataset = published_rows(space, spec, risk)
    arrays, meta = space.work.get_arrays(Kind.STATES, risk.key)
    config = _portable(spec)
    ingests = ingests_of(space, panel.snapshot)
    manifest = Manifest(
        universe=spec.universe,
        model=risk.model,
        version=planned.version,
        as_of=panel.as_of,
        created_at=datetime.now(UTC),
        input_digest=Sample(space, panel, spec).inputs.digest(panel.as_of),
        snapshot_id=panel.snapshot.snapshot_id,
        ingest_key=panel.snapshot.ingest_key,
        sources=sources_of(ingests),
        ingests=ingests,
        code_version=code_of(Stage.VERSIONS, spec, model_spec(meta["params"])),
        source_version=source_version(),
        config_digest=digest(config),
        config=config,
        kind=meta["kind"],
        params=meta["params"],
        state_meta=meta["state"],
        refits=tuple(fit.as_of for fit in risk.fits),
        metrics=metrics,
        gate=judge(space, spec, panel, planned, dataset, metrics),
        packages=library_versions(),
        arithmetic=arithmetic(),
    )
    ref: VersionRef = published.publish(space.layout, dataset, manifest, arrays)
    run_logger().info("published %s", ref)
    version_made(ref, manifest)
    return ref


def _published(space: Workspace, planned: VersionRef) -> VersionRef | None:
    """Return the version if it is there, whatever snapshot or file its data came from."""
    there = published.find(space.layout, planned.universe, planned.model, planned.version)
    return None if there is None else there.model_copy(update={"changed": False})


@step("write report", "report of {spec.universe}")
def write_report(spec: RunSpec, snapshot: SnapshotRef, versions: list[VersionRef], settings: Settings) -> Path:
    """Write one HTML report of all versions of a run; an existing one is left alone."""
    space = Workspace.of(settings)
    path = report_path(space, spec, versions)
    if not path.exists():
        checks = _checks(space, snapshot.checks_key)
        write_atomic(path, report_of(space, versions, checks, spec.report))
        report_made(versions)
    publish_link(spec.universe, "report", path.as_uri())
    return path


def write_version_report(space: Workspace, version: str, output: Path | None) -> Path:
    """Write the report of one published version; to the reports folder if no path is given."""
    ref = published.resolve(space.layout, version)
    manifest = published.read_manifest(space.layout, ref)
    path = output or space.layout.reports / ref.universe / f"{ref.model}-{ref.version}.html"
    write_atomic(path, report_of(space, [ref], checks_of(space, manifest), ReportSpec()))
    return path


def report_path(space: Workspace, spec: RunSpec, versions: Sequence[VersionRef]) -> Path:
    """Where the report of a run lies: named by its as-of date, its config, its versions and their weights."""
    shown = [version.model_dump(include={"model", "version"}) for version in versions]
    weights = [str(ref) for version in versions for ref in allocations_of(space.layout, version)]
    name = digest([spec.digest(), shown, weights])[:8]
    return space.layout.reports / spec.universe / f"{versions[0].as_of}-{name}.html"


def checks_of(space: Workspace, manifest: Manifest) -> CheckReport | None:
    """Return the check report of the ingest that a version was made from; None if it was cleaned away."""
    record = ingest_record(manifest.ingest_key, manifest.snapshot_id)
    if not space.work.has(Kind.INGESTS, record):
        return None
    return _checks(space, SnapshotRef.model_validate(space.work.get_json(Kind.INGESTS, record)).checks_key)


def _checks(space: Workspace, checks_key: str) -> CheckReport | None:
    if not space.work.has(Kind.CHECKS, checks_key):
        return None
    return CheckReport.model_validate(space.work.get_json(Kind.CHECKS, checks_key))


def report_of(space: Workspace, versions: list[VersionRef], checks: CheckReport | None, shown: ReportSpec) -> str:
    """Render the report of published versions, read back as any reader reads them."""
    from reporting import PublishedVersion, render_report  # libraries that draw load when something is drawn

    loaded = [
        PublishedVersion(
            dataset=published.open_version(space.layout, ref),
            manifest=published.read_manifest(space.layout, ref),
            allocations={
                made.name: read_allocation(space.layout, made)[0]["weights"]
                for made in allocations_of(space.layout, ref)
            },
        )
        for ref in versions
    ]
    title = f"Factor risk of {versions[0].universe}"
    return render_report(loaded, checks, title=title, tickers=shown.tickers, portfolios=shown.portfolios)


def _portable(spec: RunSpec) -> dict[str, Any]:
    """Return what decides a version as JSON: without report and allocations, and without folders of this machine."""
    config = spec.model_dump(mode="json", exclude={"report", "allocations"})
    held = (item.get("source") for item in config["portfolios"])
    for source in (config["data"], *config["factors"], config["industries"], *held):
        if source is not None and "paths" in source["origin"]:
            source["origin"]["paths"] = [Path(path).name for path in source["origin"]["paths"]]
    return config


def published_rows(space: Workspace, spec: RunSpec, risk: RiskRef) -> xr.Dataset:
    """Return the rows of a risk model with their evaluation, as they are published, lazily."""
    whole = space.work.open_dataset(Kind.RISKS, risk.key)
    evaluated = space.work.open_dataset(Kind.EVALUATIONS, evaluation_key(risk))
    dataset: xr.Dataset = whole.merge(evaluated)
    dataset.attrs = attributes(spec, risk.model, str(dataset["date"].values[-1].astype("datetime64[D]")))
    validate(dataset, version_contract(dataset), PublishError, f"{spec.universe}/{risk.model}")
    return dataset


def attributes(spec: RunSpec, model: str, as_of: str) -> dict[str, Any]:
    """Return what a version says of itself as a whole."""
    return {
        "title": f"{model} factor risk model of {spec.universe}",
        "universe": spec.universe,
        "model": model,
        "frequency": spec.frequency,
        "periods_per_year": spec.periods_per_year,
        "as_of": as_of,
        "currency": spec.currency,
        "comment": "Returns are simple excess returns per period in decimals; variances are per period. Every row is "
        "as of its date: r[t] = X[t-1] f[t] + e[t]. See manifest.json for inputs, code and config.",
    }
