"""What the command line prints: tables of checks, models, volatilities and versions."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from rich.console import Console
from rich.table import Column, Table

from schemas.checks import CheckReport
from schemas.contracts import Manifest
from schemas.errors import FactorcubeError
from schemas.refs import VersionRef
from schemas.settings import Settings
from schemas.spec import RunSpec
from storage import published
from storage.layout import Layout
from tasks.publishing import checks_of, report_path
from tasks.workspace import Workspace


def print_run(console: Console, spec: RunSpec, versions: Sequence[VersionRef], settings: Settings) -> None:
    """Print the summary of one run."""
    space = Workspace(settings.root)
    manifests = [published.read_manifest(space.layout, ref) for ref in versions]
    console.print()
    if not any(ref.changed for ref in versions):
        console.print("[bold]Nothing changed:[/] the same inputs, config and code are published already.")
    _print_checks(console, checks_of(space, manifests[0]))
    _print_models(console, versions, manifests)
    _print_volatilities(console, spec, manifests)
    console.print("[bold]Published[/]")
    for ref in versions:
        console.print(
            f"  {space.layout.published(ref.universe, ref.model) / ref.version}", soft_wrap=True, highlight=False
        )
    console.print(f"[bold]Report[/]\n  {report_path(space, spec, versions)}", soft_wrap=True, highlight=False)
    docs = space.layout.data_docs(spec.universe) / "index.html"
    if docs.exists():
        console.print(f"[bold]Data Docs[/]\n  {docs}", soft_wrap=True, highlight=False)
    best = versions[-1]
    latest = space.layout.published(best.universe, best.model) / ("latest" if best.promoted else best.version)
    console.print("[bold]Read it[/] (needs only xarray and zarr)")
    console.print("  import xarray as xr", highlight=False)
    console.print(f'  ds = xr.open_zarr("{latest}")', soft_wrap=True, highlight=False)
    console.print("  print(ds.portfolio_variance.isel(date=-1).to_series())", highlight=False, markup=False)


def print_versions(console: Console, layout: Layout) -> None:
    """Print all published versions, the champion of each model marked."""
    refs = published.list_versions(layout)
    if not refs:
        console.print(f"nothing is published under {layout.root}; run `factorcube run CONFIG.yaml` first", markup=False)
        return
    table = Table(Column("version", overflow="fold"), "as of", "total R2 out of sample", "gate", "latest")
    for ref in refs:
        manifest = published.read_manifest(layout, ref)
        champion = published.latest(layout, ref.universe, ref.model)
        table.add_row(
            f"{ref.universe}/{ref.model}/{ref.version}",
            str(manifest.as_of),
            _number(manifest.metrics.get("total_r2_out_of_sample"), ".4f"),
            "passed" if manifest.gate.passed else "failed",
            "yes" if champion is not None and champion.version == ref.version else "",
        )
    console.print(table)


def print_version(console: Console, layout: Layout, ref: VersionRef) -> None:
    """Describe one version: what it is made from, its metrics and its variables."""
    manifest = published.read_manifest(layout, ref)
    console.print(f"[bold]{ref.universe}/{ref.model}/{ref.version}[/]", highlight=False)
    facts = {
        "as of": manifest.as_of,
        "created": f"{manifest.created_at:%Y-%m-%d %H:%M:%S} UTC",
        "model": f"{manifest.kind} {manifest.params}",
        "refits": f"{len(manifest.refits)}, {manifest.refits[0]} to {manifest.refits[-1]}",
        "snapshot": manifest.snapshot_id,
        "code": manifest.code_version,
        "config": manifest.config_digest[:16],
        "sources": ", ".join(f"{source.name} ({source.sha256[:12]})" for source in manifest.sources),
        "gate": ("passed: " if manifest.gate.passed else "failed: ") + "; ".join(manifest.gate.reasons),
        "path": layout.published(ref.universe, ref.model) / ref.version,
    }
    for name, value in facts.items():
        console.print(f"  {name:9s} {value}", soft_wrap=True, highlight=False, markup=False)
    table = Table("metric", "value")
    for metric, number in manifest.metrics.items():
        table.add_row(metric, _number(number, ".4f"))
    console.print(table)
    variables = Table("variable", "dimensions", "what it is")
    for key, array in published.open_version(layout, ref).data_vars.items():
        variables.add_row(str(key), ", ".join(map(str, array.dims)), str(array.attrs.get("long_name", "")))
    console.print(variables)


def hush_foreseeable_errors() -> None:
    """Keep Prefect from logging a traceback for an error whose message already says what to do."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], FactorcubeError))


def _print_checks(console: Console, report: CheckReport | None) -> None:
    if report is None:
        return
    failed = report.failed
    console.print(
        f"[bold]Checks[/]  {len(report.results)} run, {len(report.results) - len(failed)} passed, "
        f"{len(failed)} failed; {len(report.blocked_dates)} date(s) blocked"
    )
    for result in failed:
        console.print(
            f"  {result.severity:5s} {result.check}: {result.observed}", markup=False, highlight=False, soft_wrap=True
        )


def _print_models(console: Console, versions: Sequence[VersionRef], manifests: Sequence[Manifest]) -> None:
    table = Table(
        "model", "refits", "total R2 in sample", "total R2 out of sample", "predictive R2 out of sample", "latest"
    )
    for ref, manifest in zip(versions, manifests, strict=True):
        metrics = manifest.metrics
        table.add_row(
            ref.model,
            str(len(manifest.refits)),
            _number(metrics["total_r2_in_sample"], ".4f"),
            _number(metrics["total_r2_out_of_sample"], ".4f"),
            _number(metrics["predictive_r2_out_of_sample"], ".4f"),
            "yes" if ref.promoted else "no",
        )
    console.print(table)


def _print_volatilities(console: Console, spec: RunSpec, manifests: Sequence[Manifest]) -> None:
    def found(manifest: Manifest, metric: str, portfolio: str, form: str) -> str:
        return _number(manifest.metrics.get(f"{metric}.{portfolio}"), form)

    portfolios = [item.name for item in spec.portfolios]
    table = Table(title="Annualised volatility out of sample: forecast (bias statistic)", title_justify="left")
    table.add_column("model", no_wrap=True)
    for portfolio in portfolios:
        table.add_column(portfolio, overflow="fold")
    for manifest in manifests:
        cells = [
            f"{found(manifest, 'forecast_volatility', portfolio, '.1%')} "
            f"({found(manifest, 'bias_statistic', portfolio, '.2f')})"
            for portfolio in portfolios
        ]
        table.add_row(manifest.model, *cells)
    table.add_section()
    realised = [found(manifests[0], "realised_volatility", portfolio, ".1%") for portfolio in portfolios]
    table.add_row("realised", *realised)
    console.print(table)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
