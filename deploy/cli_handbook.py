"""The command that writes the handbook of a model: the tables that vendors print of theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploy.terminal import Terminal, say
from schemas.settings import load_settings


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(handbook)


def handbook(
    version: Annotated[str, typer.Argument(help="A version such as us_demo/ipca/latest.")],
    out: Annotated[Path | None, typer.Option(help="Markdown file to write, in place of the terminal.")] = None,
) -> None:
    """Print the empirical notes of a model, out of sample: coverage, R2 and dispersion by year, factors, portfolios."""
    from deploy.console_handbook import markdown, print_handbook
    from models.evaluation.handbook import handbook as notes_of
    from storage import published
    from storage.files import write_atomic
    from tasks.promoting import find_version
    from tasks.workspace import Workspace

    layout = Workspace.of(load_settings()).layout
    ref = find_version(layout, version)
    found = notes_of(published.open_version(layout, ref))
    if out is None:
        print_handbook(Terminal(), found)
    else:
        write_atomic(out, markdown(found, f"Handbook of {ref}"))
        say(f"the handbook of {ref} is in {out}")
