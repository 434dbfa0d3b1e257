"""The command that asks for the risk of a book: holdings in a file, by a published version."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from deploy.terminal import Terminal, say
from schemas.errors import ConfigError
from schemas.settings import load_settings


class Format(StrEnum):
    """How the result is written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(risk)


def risk(
    version: Annotated[str, typer.Argument(help="A version such as us_demo/ipca/latest.")],
    holdings: Annotated[
        Path, typer.Argument(help="CSV or Parquet with ticker and weight or value, and maybe date and portfolio.")
    ],
    benchmark: Annotated[str | None, typer.Option(help="A portfolio of the version to hold the book against.")] = None,
    portfolio: Annotated[str | None, typer.Option(help="Which book of the file, where it has several.")] = None,
    form: Annotated[
        Format | None, typer.Option("--format", help="The ending of --out says it too; a table if left out.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write to, in place of the terminal.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with figures to this file, too.")] = None,
) -> None:
    """Say the risk of a book by a published version, as of its last date: the book need not be in any config.

    What a book's weights lack to 1 is cash. Tickers that the version does not cover are named, and the covered ones of
    their side stand for them.
    """
    from deploy.console_book import content, print_book
    from storage.files import write_atomic
    from tasks.books import book_page, open_risk, weights_of_file
    from tasks.promoting import find_version
    from tasks.workspace import Workspace

    chosen = _format(form, out)
    settings = load_settings()
    layout = Workspace.of(settings).layout
    ref = find_version(layout, version)
    opened = open_risk(layout, ref)
    held = weights_of_file(holdings, portfolio, opened, settings)
    found = opened.risk(held.weights, benchmark)
    if chosen is Format.TABLE:
        print_book(Terminal(), str(ref), found, held.date)
    elif out is None:
        typer.echo(content(found, chosen, str(ref), held.date))
    else:
        write_atomic(out, content(found, chosen, str(ref), held.date))
        say(f"the risk of {holdings} by {ref} is in {out}")
    if html is not None:
        write_atomic(html, book_page(layout, ref, found, portfolio or holdings.stem))
        say(f"the page of {holdings} by {ref} is in {html}")


def _format(form: Format | None, out: Path | None) -> Format:
    ending = None if out is None else out.suffix.lstrip(".")
    chosen = form or (Format(ending) if ending in tuple(Format) else Format.TABLE)
    if out is not None and chosen is Format.TABLE:
        raise ConfigError(f"--out {out}: a table is for the terminal; end the name with .json, .csv or .parquet")
    if out is None and chosen is Format.PARQUET:
        raise ConfigError("--format parquet is not for a terminal; name a file with --out")
    return chosen
