"""The command that looks before a run: what a config and its sources are understood to say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploy.terminal import Terminal
from schemas.settings import Settings, load_settings
from schemas.spec import RunSpec
from storage.configs import load_spec


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(check)


def check(config: Annotated[Path, typer.Argument(help="A config file; see examples/.")]) -> None:
    """Read and check the sources of a config, and show what was understood. Writes nothing, starts no server."""
    spec, settings = load_spec(config), load_settings()
    from deploy.api import send_no_telemetry
    from deploy.console_check import print_understanding
    from tasks.describing import refuse_blocked
    from tasks.understanding import understand

    send_no_telemetry()
    found = understand(spec, settings)
    print_understanding(Terminal(), spec, found)
    refuse_blocked(found.report, "an ingest of this would be blocked, and nothing be written")


def read_first(spec: RunSpec, settings: Settings) -> None:
    """Read and keep the sources before a server is started, so that a mistake in them is said at once, and once.

    The flow finds there what was read. If the store is opened with a secret of Prefect's, reading waits for the server.
    """
    from tasks.ingesting import read_source

    if settings.store_block is None:
        read_source(spec, settings)
