"""What the command line prints after a run: tables of checks, models and volatilities.

Published versions are printed by `console_versions`, what differs between two of them by `console_difference`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from httpx import TransportError
from rich.console import Console

from deploy.console_tables import Column, print_in_parts, print_table
from deploy.console_versions import number
from schemas.base import printable
from schemas.checks import CheckReport
from schemas.contracts import Manifest
from schemas.errors import FactorcubeError
from schemas.refs import VersionRef
from schemas.settings import Settings
from schemas.spec import RunSpec
from storage import published
from tasks.publishing import checks_of, report_path
from tasks.workspace import Workspace


def print_run(console: Console, spec: RunSpec, versions: Sequence[VersionRef], settings: Settings) -> None:
    """Print the summary of one run."""
    space = Workspace.of(settings)
    manifests = [published.read_manifest(space.layout, ref) for ref in versions]
    console.print()
    if not any(ref.changed for ref in versions):
        console.print("[bold]Nothing changed:[/] the same inputs, config and code are published already.")
    _print_checks(console, checks_of(space, manifests[0]))
    _print_models(console, versions, manifests)
    _print_volatilities(console, spec, manifests)
    console.print("[bold]Published[/]")
    for ref in versions:
        console.print(f"  {published.locate(space.layout, ref)}", soft_wrap=True, highlight=False, markup=False)
    for ref in (ref for ref in versions if not published.promotions(space.layout, ref.universe, ref.model)):
        console.print(
            f"[bold]No champion yet[/] of {ref.model}: factorcube promote {ref}", soft_wrap=True, highlight=False
        )
    console.print(f"[bold]Report[/]\n  {report_path(space, spec, versions)}", soft_wrap=True, highlight=False)
    docs = space.layout.data_docs(spec.universe) / "index.html"
    if docs.exists():
        console.print(f"[bold]Data Docs[/]\n  {docs}", soft_wrap=True, highlight=False)
    best = versions[-1]
    path = published.locate_latest(space.layout, best.universe, best.model) if best.promoted else None
    path = path or published.locate(space.layout, best)
    console.print("[bold]Read it[/] (needs only xarray and zarr)")
    console.print("  import xarray as xr", highlight=False)
    console.print(f'  ds = xr.open_zarr("{path}")', soft_wrap=True, highlight=False)
    console.print("  print(ds.portfolio_variance.isel(date=-1).to_series())", highlight=False, markup=False)


def hush_foreseeable_errors() -> None:
    """Keep Prefect from logging control characters, and a traceback for an error that already says what to do."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_fit_to_print)


def _fit_to_print(record: logging.LogRecord) -> bool:
    record.msg, record.args = printable(record.getMessage()), None
    error = record.exc_info[1] if record.exc_info else None
    refused_file = isinstance(error, OSError) and error.filename is not None
    return not (refused_file or isinstance(error, FactorcubeError | TransportError))


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
    columns = (
        "model",
        Column("refits", drop=1),
        Column("total R2 in sample", drop=2),
        "total R2 out of sample",
        "predictive R2 out of sample",
        "latest",
    )
    metrics = ("total_r2_in_sample", "total_r2_out_of_sample", "predictive_r2_out_of_sample")
    rows = [
        (
            ref.model,
            str(len(manifest.refits)),
            *(number(manifest.metrics[name], ".4f") for name in metrics),
            "yes" if ref.promoted else "no",
        )
        for ref, manifest in zip(versions, manifests, strict=True)
    ]
    print_table(console, columns, rows)


def _print_volatilities(console: Console, spec: RunSpec, manifests: Sequence[Manifest]) -> None:
    def found(manifest: Manifest, metric: str, portfolio: str, form: str) -> str:
        return number(manifest.metrics.get(f"{metric}.{portfolio}"), form)

    portfolios = [item.name for item in spec.portfolios]
    rows = [
        [
            manifest.model,
            *(
                f"{found(manifest, 'forecast_volatility', portfolio, '.1%')} "
                f"({found(manifest, 'bias_statistic', portfolio, '.2f')})"
                for portfolio in portfolios
            ),
        ]
        for manifest in manifests
    ]
    rows.append(
        ["realised", *(found(manifests[0], "realised_volatility", portfolio, ".1%") for portfolio in portfolios)]
    )
    title = "Annualised volatility out of sample: forecast (bias statistic)"
    print_in_parts(console, ["model", *portfolios], rows, title)
