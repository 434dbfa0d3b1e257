"""Commands that operate an installation: start it, and register its deployments."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from deploy.api import prefect_server
from schemas.settings import load_settings

_Config = Annotated[
    str | None,
    typer.Option(help="Config that deployments run without being told: a name in FACTORCUBE_CONFIGS. [default: demo]"),
]
_PromoteFirst = Annotated[
    bool, typer.Option("--promote-first", help="Promote the first version of a model if it passes the gate.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(serve)
    app.command()(deploy)


def serve(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the Prefect server on 127.0.0.1.")] = 4200,
    config: _Config = None,
    promote_first: _PromoteFirst = False,
) -> None:
    """Start a Prefect server, the deployments and a worker on this machine; Ctrl-C stops them all.

    The server's database and logs are kept under FACTORCUBE_ROOT, and are found again by the next start.
    """
    from deploy.serve import serve as run

    options = ([] if config is None else ["--config", config]) + (["--promote-first"] if promote_first else [])
    run(load_settings(), port, [sys.executable, "-m", "deploy.cli", "deploy", *options], typer.echo)


def deploy(config: _Config = None, promote_first: _PromoteFirst = False) -> None:
    """Register work pool, deployments and automations with the Prefect server of PREFECT_API_URL."""
    from deploy.deployments import deploy_all

    with prefect_server() as serving:
        serving()
        for name in deploy_all(load_settings(), config, promote_first=promote_first):
            typer.echo(f"deployed {name}")
