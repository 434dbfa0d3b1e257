"""The command line: run a config, write a report, and the commands of every area. It only calls what lies below it."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated, NoReturn

import typer
import yaml

from deploy import (
    cli_allocate,
    cli_backfill,
    cli_book,
    cli_check,
    cli_cube,
    cli_explore,
    cli_export,
    cli_handbook,
    cli_init,
    cli_judging,
    cli_operations,
    cli_team,
    cli_upkeep,
    cli_versions,
)
from deploy.api import prefect_server, send_no_telemetry
from deploy.ending import GO_ON, leaving_at_once, told_to_end
from deploy.terminal import Terminal
from schemas.errors import FactorcubeError, ModelsError
from schemas.odcs import published_contract
from schemas.settings import load_settings
from schemas.spec import RunSpec
from storage.configs import load_spec

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"factorcube {installed_version('factorcube')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Equity factor risk models as scheduled, versioned, checked workflows."""


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="A config file; see examples/.")],
    promote_first: Annotated[
        bool, typer.Option("--promote-first", help="Let the first version of a model become latest by itself.")
    ] = False,
    as_of: Annotated[
        datetime | None,
        typer.Option("--as-of", formats=["%Y-%m-%d"], help="Last date that models may know; the newest if left out."),
    ] = None,
) -> None:
    """Ingest a universe, fit its models, publish them and write the report.

    Running it again with the same data, config and code changes nothing.
    """
    spec = load_spec(config)
    settings = load_settings()
    send_no_telemetry()
    with told_to_end(GO_ON), prefect_server() as serving:
        from deploy.console import hush_foreseeable_errors, print_run
        from flows.pipeline import pipeline

        hush_foreseeable_errors()
        cli_check.read_first(spec, settings)
        serving()
        try:
            versions = pipeline(spec, promote_first=promote_first, as_of=as_of and as_of.date())
        except ModelsError as error:
            if error.versions:
                print_run(Terminal(), spec, error.versions, settings)
            raise
    print_run(Terminal(), spec, versions, settings)


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

    typer.echo(write_version_report(Workspace.of(load_settings()), version, output))


@app.command()
def schema(
    published: Annotated[bool, typer.Option("--published", help="The contract of what is published, in ODCS.")] = False,
) -> None:
    """Print the JSON schema of a config file, or the data contract of what is published."""
    if published:
        typer.echo(yaml.safe_dump(published_contract(), sort_keys=False), nl=False)
    else:
        typer.echo(json.dumps(RunSpec.model_json_schema(), indent=2))


AREAS = (
    cli_init, cli_check, cli_versions, cli_explore, cli_book, cli_export, cli_handbook, cli_judging, cli_allocate,
    cli_backfill, cli_cube, cli_operations, cli_team, cli_upkeep,
)  # fmt: skip
for area in AREAS:
    area.register(app)


def main() -> None:
    """Be the command line of a process of its own."""
    with leaving_at_once():
        obey()


def obey() -> None:
    """Obey the arguments of this process; a foreseeable failure prints one message and exits with 1.

    A file that the system refuses is foreseeable wherever it happens: no permission, a folder in its place.
    """
    try:
        app()
    except FactorcubeError as error:
        _refuse(str(error))
    except OSError as error:
        if error.filename is None:
            raise
        _refuse(f"{error.filename}: {error.strerror}; mend that and run again")


def _refuse(message: str) -> NoReturn:
    Terminal(stderr=True, soft_wrap=True).print(f"error: {message}", style="red", markup=False, highlight=False)
    sys.exit(1)


if __name__ == "__main__":
    main()
