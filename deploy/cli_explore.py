"""The command that opens what is published to a browser on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from schemas.errors import ConfigError
from schemas.settings import load_settings


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(explore)


def explore(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 5006,
) -> None:
    """Explore published versions in a browser: risk, portfolios, a book of your own, two versions compared.

    It only reads. The address that it prints lets in whoever has it; Ctrl-C ends it.
    """
    try:
        from deploy.explore import explore as run
    except ModuleNotFoundError as missing:
        raise ConfigError(
            f"the explorer needs the packages panel and hvplot, and {missing.name} is not installed here; install both"
        ) from None
    run(load_settings(), port, typer.echo)
