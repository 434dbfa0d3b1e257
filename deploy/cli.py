"""The command line: run a config, show what is published, write a report. It only calls flows and reads stores."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from schemas.errors import FactorcubeError
from schemas.settings import load_settings
from schemas.spec import RunSpec, load_spec

app = typer.Typer(
    help="Equity factor risk models as scheduled, versioned, checked workflows.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
}


@app.command()
def run(config: Annotated[Path, typer.Argument(help="A config file; see examples/.")]) -> None:
    """Ingest a universe, fit its models, publish them and write the report.

    Running it again with the same data, config and code changes nothing.
    """
    spec = load_spec(config)
    settings = load_settings()
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    from deploy.console import hush_foreseeable_errors, print_run
    from flows.pipeline import pipeline

    hush_foreseeable_errors()
    versions = pipeline(spec)
    print_run(Console(), spec, versions, settings)


@app.command()
def show(
    version: Annotated[
        str | None, typer.Argument(help="A version such as us_demo/ipca/latest; all are listed if left out.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """List the published versions, or describe one."""
    from deploy.console import print_version, print_versions
    from storage import published
    from tasks.workspace import Workspace

    layout = Workspace(load_settings().root).layout
    if version is None:
        print_versions(Console(), layout)
        return
    ref = published.resolve(layout, version)
    if as_json:
        typer.echo(published.read_manifest(layout, ref).model_dump_json(indent=2))
    else:
        print_version(Console(), layout, ref)


@app.command()
def report(
    version: Annotated[str, typer.Argument(help="A version such as us_demo/ipca/latest.")],
    output: Annotated[
        Path | None, typer.Option(help="Where to write the HTML; the reports folder if left out.")
    ] = None,
) -> None:
    """Write the HTML report of one published version."""
    from tasks.publishing import write_version_report
    from tasks.workspace import Workspace

    typer.echo(write_version_report(Workspace(load_settings().root), version, output))


@app.command()
def schema() -> None:
    """Print the JSON schema of a config file."""
    typer.echo(json.dumps(RunSpec.model_json_schema(), indent=2))


def main() -> None:
    """Run the command line; a foreseeable failure prints one message and exits with 1."""
    try:
        app()
    except FactorcubeError as error:
        Console(stderr=True, soft_wrap=True).print(f"error: {error}", style="red", markup=False, highlight=False)
        sys.exit(1)


if __name__ == "__main__":
    main()
