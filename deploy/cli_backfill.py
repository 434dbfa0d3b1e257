"""The commands of backfills: plan one, run one."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from deploy.api import prefect_server, send_no_telemetry
from deploy.cli_check import read_first
from deploy.ending import GO_ON, told_to_end
from deploy.terminal import Terminal
from schemas.backfill import MAX_CONCURRENCY, BackfillRequest
from schemas.errors import BackfillError
from schemas.settings import load_settings
from storage.configs import load_spec

backfill_app = typer.Typer(help="Make a span of the past: what is missing, failed or stale.", no_args_is_help=True)


class What(StrEnum):
    """Steps that a backfill can make."""

    ALL = "all"
    INGEST = "ingest"
    RETRAIN = "retrain"
    UPDATE = "update"


class Select(StrEnum):
    """Partitions that a backfill can pick."""

    MISSING = "missing"
    FAILED = "failed"
    MISSING_AND_FAILED = "missing_and_failed"
    STALE = "stale"
    ALL = "all"


class Direction(StrEnum):
    """Orders in which a backfill can go."""

    FORWARD = "forward"
    BACKWARD = "backward"


Config = Annotated[Path, typer.Argument(help="A config file; see examples/.")]
Start = Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="First date of the span.")]
End = Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="Last date of the span.")]
WhatOption = Annotated[What, typer.Option(help="Step to make; all: ingest, then retrain, then update.")]
Models = Annotated[str, typer.Option(help="Names of models, separated by commas; all of the config if left out.")]
SelectOption = Annotated[
    Select,
    typer.Option(help="Partitions to make: never made, failed, both, stale (data, code or config changed), or all."),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.add_typer(backfill_app, name="backfill")


@backfill_app.command()
def plan(
    config: Config,
    start: Start,
    end: End,
    what: WhatOption = What.ALL,
    models: Models = "",
    select: SelectOption = Select.MISSING,
    as_json: Annotated[bool, typer.Option("--json", help="Print every partition as JSON.")] = False,
) -> None:
    """Show what a backfill would make: every partition, its state, whether it is in or out and why. Changes nothing."""
    from deploy.console_backfill import print_plan
    from tasks.backfilling.survey import plan_backfill

    request = _request(start, end, what, models, select)
    found, _ = plan_backfill(load_spec(config), request, load_settings())
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        print_plan(Terminal(), found)


@backfill_app.command()
def run(
    config: Config,
    start: Start,
    end: End,
    what: WhatOption = What.ALL,
    models: Models = "",
    select: SelectOption = Select.MISSING,
    direction: Annotated[Direction, typer.Option(help="Early periods first, or late ones.")] = Direction.FORWARD,
    concurrency: Annotated[
        int, typer.Option(min=1, max=MAX_CONCURRENCY, help="Most batches that run at the same time.")
    ] = 1,
    max_failures: Annotated[int | None, typer.Option(min=1, help="Start nothing more after this many.")] = None,
) -> None:
    """Make what a plan shows. Started again, it goes on with what is not done; exits with 1 if something failed."""
    request = _request(
        start, end, what, models, select, direction=direction.value, concurrency=concurrency, max_failures=max_failures
    )
    spec = load_spec(config)
    send_no_telemetry()
    with told_to_end(GO_ON), prefect_server() as serving:
        from deploy.console import hush_foreseeable_errors
        from deploy.console_backfill import print_summary
        from flows.backfill import backfill

        hush_foreseeable_errors()
        settings = load_settings()
        if "ingest" in request.steps:
            read_first(spec, settings)
        serving()
        try:
            summary = backfill(spec, request)
        except BackfillError as error:
            if error.summary is not None:
                print_summary(Terminal(), error.summary)
            raise
    print_summary(Terminal(), summary)


def _request(start: datetime, end: datetime, what: What, models: str, select: Select, **more: Any) -> BackfillRequest:
    names = [name.strip() for name in models.split(",") if name.strip()]
    given = {"start": start.date(), "end": end.date(), "what": what.value, "models": names, "select": select.value}
    return BackfillRequest.parse({**given, **more}, origin="backfill")
