"""The last steps: let the gate decide, publish what is new, and write the report."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from schemas.base import digest
from schemas.checks import CheckReport
from schemas.contracts import VERSION, GateDecision, Manifest, SourceFile, validate
from schemas.errors import PublishError
from schemas.refs import PanelRef, RiskRef, SnapshotRef, VersionRef
from schemas.settings import Settings
from schemas.spec import GateSpec, RunSpec
from storage import published
from storage.files import write_atomic
from tasks.artifacts import publish_link
from tasks.ingesting import ingest_record
from tasks.panels import open_span
from tasks.planning import version_of
from tasks.provenance import code_version, library_versions
from tasks.reporting import PublishedVersion, render_report
from tasks.workspace import Workspace

Metrics = dict[str, float | None]


@task(name="plan versions", cache_policy=NO_CACHE)
def plan_versions(spec: RunSpec, snapshot: SnapshotRef, settings: Settings) -> dict[str, VersionRef]:
    """Name the versions that this run makes, by model; `changed` is False for those already published."""
    space = Workspace(settings.root)
    as_of = open_span(spec, snapshot, settings).indexes["date"][-1].date()
    planned = {}
    for model in spec.models:
        version = version_of(spec, model, snapshot, as_of)
        there = [
            ref
            for ref in published.list_versions(space.layout, spec.universe, model.name)
            if ref.version == version.version
        ]
        finished = there and space.work.has("published", _publication(version))
        planned[model.name] = there[0].model_copy(update={"changed": False}) if finished else version
    done = [name for name, ref in planned.items() if not ref.changed]
    if done:
        get_run_logger().info("already published, nothing to compute: %s", ", ".join(done))
    return planned


@task(name="gate", cache_policy=NO_CACHE)
def decide(spec: RunSpec, metrics: dict[str, Metrics]) -> dict[str, GateDecision]:
    """Decide for every model whether its version may become `latest`, with the reasons."""
    decisions = {model: gate(found, spec.gate) for model, found in metrics.items()}
    for model, decision in decisions.items():
        if not decision.passed:
            get_run_logger().warning("%s is not promoted: %s", model, "; ".join(decision.reasons))
    return decisions


def gate(metrics: Metrics, criteria: GateSpec) -> GateDecision:
    """Compare the metrics of one model with the criteria."""
    total = metrics["total_r2_out_of_sample"]
    biases = [value for name, value in metrics.items() if name.startswith("bias_statistic.") and value is not None]
    bias = float(np.mean(biases)) if biases else None
    low, high = criteria.min_bias_statistic, criteria.max_bias_statistic
    tests = [
        (
            total is not None and total >= criteria.min_total_r2,
            f"out-of-sample total R2 {_shown(total)}, at least {criteria.min_total_r2:g} is asked for",
        ),
        (
            bias is not None and low <= bias <= high,
            f"mean bias statistic {_shown(bias)}, between {low:g} and {high:g} is asked for",
        ),
    ]
    failed = tuple(reason for passed, reason in tests if not passed)
    return GateDecision(passed=not failed, reasons=failed or tuple(reason for _, reason in tests))


@task(name="publish", task_run_name="publish {risk.model}", cache_policy=NO_CACHE)
def publish_version(
    spec: RunSpec,
    panel: PanelRef,
    risk: RiskRef,
    planned: VersionRef,
    metrics: Metrics,
    decision: GateDecision,
    settings: Settings,
) -> VersionRef:
    """Publish one version whole, and make it `latest` if the gate let it pass."""
    space = Workspace(settings.root)
    dataset = _dataset(space, spec, risk)
    arrays, meta = space.work.get_arrays("states", risk.key)
    config = _portable(spec)
    sources = space.work.open_dataset("staged", panel.snapshot.ingest_key).attrs["sources"]
    manifest = Manifest(
        universe=spec.universe,
        model=risk.model,
        version=planned.version,
        as_of=pd.Timestamp(dataset["date"].values[-1]).date(),
        created_at=datetime.now(UTC),
        snapshot_id=panel.snapshot.snapshot_id,
        ingest_key=panel.snapshot.ingest_key,
        sources=tuple(SourceFile.model_validate(source) for source in sources),
        code_version=code_version(),
        config_digest=digest(config),
        config=config,
        kind=meta["kind"],
        params=meta["params"],
        state_meta=meta["state"],
        refits=tuple(fit.as_of for fit in risk.fits),
        metrics=metrics,
        gate=decision,
        packages=library_versions(),
    )
    ref: VersionRef = published.publish(space.layout, dataset, manifest, arrays, promote=decision.passed)
    space.work.put_json("published", _publication(ref), {"promoted": ref.promoted})
    get_run_logger().info(
        "%s %s/%s/%s%s",
        "published" if ref.changed else "already published",
        ref.universe, ref.model, ref.version,
        ", now latest" if ref.promoted else "",
    )  # fmt: skip
    return ref


@task(name="write report", cache_policy=NO_CACHE)
def write_report(spec: RunSpec, snapshot: SnapshotRef, versions: list[VersionRef], settings: Settings) -> Path:
    """Write one HTML report of all versions of a run; an existing one is left alone."""
    space = Workspace(settings.root)
    path = report_path(space, spec, versions)
    if not path.exists():
        checks = CheckReport.model_validate(space.work.get_json("checks", snapshot.checks_key))
        write_atomic(path, report_of(space, versions, checks, spec.report.tickers))
    publish_link(spec.universe, "report", path.as_uri())
    return path


def write_version_report(space: Workspace, version: str, output: Path | None) -> Path:
    """Write the report of one published version; to the reports folder if no path is given."""
    ref = published.resolve(space.layout, version)
    manifest = published.read_manifest(space.layout, ref)
    path = output or space.layout.reports / ref.universe / f"{ref.model}-{ref.version}.html"
    write_atomic(path, report_of(space, [ref], checks_of(space, manifest), ()))
    return path


def report_path(space: Workspace, spec: RunSpec, versions: Sequence[VersionRef]) -> Path:
    """Where the report of a run lies: named by its as-of date, its config and its versions."""
    name = digest([spec.digest(), [version.model_dump(include={"model", "version"}) for version in versions]])[:8]
    return space.layout.reports / spec.universe / f"{versions[0].version[:10]}-{name}.html"


def checks_of(space: Workspace, manifest: Manifest) -> CheckReport | None:
    """Return the check report of the ingest that a version was made from; None if it was cleaned away."""
    record = ingest_record(manifest.ingest_key, manifest.snapshot_id)
    if not space.work.has("ingests", record):
        return None
    snapshot = SnapshotRef.model_validate(space.work.get_json("ingests", record))
    return CheckReport.model_validate(space.work.get_json("checks", snapshot.checks_key))


def report_of(
    space: Workspace, versions: list[VersionRef], checks: CheckReport | None, tickers: tuple[str, ...]
) -> str:
    """Render the report of published versions, read back as any reader reads them."""
    loaded = [
        PublishedVersion(
            dataset=published.open_version(space.layout, ref), manifest=published.read_manifest(space.layout, ref)
        )
        for ref in versions
    ]
    return render_report(loaded, checks, title=f"Factor risk of {versions[0].universe}", tickers=tickers)


def _publication(version: VersionRef) -> str:
    """Key of the record that a version was published and offered for promotion: a run killed between goes on there."""
    return digest([version.universe, version.model, version.version])[:32]


def _portable(spec: RunSpec) -> dict[str, Any]:
    """Return what decides a version as JSON: without the report's looks, and without folders of this machine."""
    config = spec.model_dump(mode="json", exclude={"report"})
    for source in (config["data"], *config["factors"]):
        if "paths" in source["origin"]:
            source["origin"]["paths"] = [Path(path).name for path in source["origin"]["paths"]]
    return config


def _dataset(space: Workspace, spec: RunSpec, risk: RiskRef) -> xr.Dataset:
    whole = space.work.open_dataset("risks", risk.key).load()
    evaluated = space.work.open_dataset("evaluations", risk.key).load()
    dataset: xr.Dataset = whole.merge(evaluated[[name for name in evaluated if name in VERSION]])
    dataset.attrs = {
        "title": f"{risk.model} factor risk model of {spec.universe}",
        "universe": spec.universe,
        "model": risk.model,
        "frequency": spec.frequency,
        "periods_per_year": spec.periods_per_year,
        "as_of": str(dataset["date"].values[-1].astype("datetime64[D]")),
        "currency": spec.currency,
        "comment": "Returns are simple excess returns per period in decimals; variances are per period. Every row is "
        "as of its date: r[t] = X[t-1] f[t] + e[t]. See manifest.json for inputs, code and config.",
    }
    validate(dataset, VERSION, PublishError, f"{spec.universe}/{risk.model}")
    return dataset


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"
