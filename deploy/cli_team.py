"""Commands for a team: is this installation sound, and let others read what it has published."""

from __future__ import annotations

from typing import Annotated

import typer

from schemas.settings import load_settings


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(doctor)
    app.command()(share)


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Say what of this installation works: libraries, settings, folders, servers, workers.

    Exits with 1 if something does not. Nothing is changed, secrets are masked.
    """
    from deploy.doctor import examine, printed

    findings = examine()
    typer.echo(printed(findings, as_json=as_json))
    if any(finding.state == "FAIL" for finding in findings):
        raise typer.Exit(1)


def share(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 8080,
    reports: Annotated[bool, typer.Option("--reports", help="Serve the reports too.")] = False,
    data_docs: Annotated[bool, typer.Option("--data-docs", help="Serve the Data Docs too.")] = False,
) -> None:
    """Serve what is published read-only over HTTP on 127.0.0.1; Ctrl-C stops it."""
    from deploy import share as sharing
    from deploy.doors import HOST

    typer.echo(f"published versions: http://{HOST}:{port}/<universe>/<model>/<version>")
    sharing.share(load_settings(), port, reports=reports, data_docs=data_docs)
