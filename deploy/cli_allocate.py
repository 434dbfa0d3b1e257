"""The command that allocates: weights by the covariance of a published version."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, get_args

import typer

from deploy.api import prefect_server, send_no_telemetry
from deploy.ending import GO_ON, told_to_end
from deploy.terminal import say
from schemas.allocation import AllocationSpec, Method
from schemas.errors import ConfigError
from schemas.settings import load_settings

Methods = StrEnum("Methods", {name.upper(): name for name in get_args(Method)})  # type: ignore[misc]  # of the schema

_DEFAULT = Methods("minimum_variance")


def _help(field: str) -> str:
    return AllocationSpec.model_fields[field].description or ""


def _limits(what: str, text: str) -> dict[str, str | None]:
    """Read NAME:LOWER:UPPER; a name may have colons of its own."""
    parts = text.rsplit(":", 2)
    if len(parts) != 3:
        raise ConfigError(f"'{text}' is no limit: write NAME:LOWER:UPPER, such as Energy::0.1 for at most 0.1")
    name, lower, upper = parts
    return {what: name, "lower": lower or None, "upper": upper or None}


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(allocate)


def allocate(
    version: Annotated[str, typer.Argument(help="A version such as us_demo/ipca/latest.")],
    method: Annotated[Methods, typer.Option(help=_help("method"))] = _DEFAULT,
    name: Annotated[str | None, typer.Option(help=f"{_help('name')} The method's if left out.")] = None,
    cap: Annotated[float | None, typer.Option(help=_help("cap"))] = None,
    long_only: Annotated[bool, typer.Option("--long-only/--long-short", help=_help("long_only"))] = True,
    risk_aversion: Annotated[float, typer.Option(help=_help("risk_aversion"))] = 10.0,
    max_turnover: Annotated[float | None, typer.Option(help=_help("max_turnover"))] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(help="Limits of the weight of an industry, INDUSTRY:LOWER:UPPER; either may be empty."),
    ] = None,
    exposure: Annotated[
        list[str] | None,
        typer.Option(help="Limits of the exposure to a factor, FACTOR:LOWER:UPPER; either may be empty."),
    ] = None,
) -> None:
    """Allocate by a published version as of its last date, and publish the weights under a name.

    Weights of a name and a date never change. Limits of lists of tickers are given in a config, under `allocations:`. A
    portfolio of kind `allocation` with this name, in the portfolios of a
    config, takes them up at the next ingest.
    """
    spec = AllocationSpec.parse(
        {
            "name": name or method.value,
            "method": method.value,
            "cap": cap,
            "long_only": long_only,
            "risk_aversion": risk_aversion,
            "max_turnover": max_turnover,
            "groups": [_limits("name", text) for text in group or ()],
            "exposures": [_limits("factor", text) for text in exposure or ()],
        },
        origin="allocate",
    )
    settings = load_settings()
    send_no_telemetry()
    with told_to_end(GO_ON), prefect_server() as serving:
        from deploy.console import hush_foreseeable_errors
        from flows.allocate import allocate as flow
        from storage.allocations import locate_allocation
        from tasks.workspace import Workspace

        hush_foreseeable_errors()
        serving()
        ref = flow(version, spec)
    where = locate_allocation(Workspace.of(settings).layout, ref)
    say(f"{ref} {'is published' if ref.changed else 'was published already'}: {where}")
