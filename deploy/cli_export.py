"""The command that hands a published version to people without Python: long tables as Parquet, CSV or DuckDB."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from deploy.terminal import say
from schemas.settings import load_settings


class Format(StrEnum):
    """What an export may be."""

    parquet = "parquet"
    csv = "csv"
    duckdb = "duckdb"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(export)


def export(
    version: Annotated[str, typer.Argument(help="A version such as us_demo/ipca/latest.")],
    to: Annotated[Format, typer.Option("--to", help="Folder of Parquet or CSV files, or one DuckDB file.")],
    out: Annotated[Path, typer.Option("--out", help="The folder or file to write.")],
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export there.")] = False,
) -> None:
    """Write a published version as long tables that R, Excel or SQL can read; whole, or not at all."""
    from storage import published
    from storage.exports import export as export_tables
    from tasks.promoting import find_version
    from tasks.workspace import Workspace

    layout = Workspace.of(load_settings()).layout
    ref = find_version(layout, version)
    tables = export_tables(published.open_version(layout, ref), out, to.value, replace=force)
    say(f"{ref} is in {out}: {', '.join(tables)}")
