"""Commands that correct a cube by hand: a ticker that a vendor does not withdraw or rename, an old portfolio."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from schemas.refs import SnapshotRef
from schemas.settings import load_settings

_Universe = Annotated[str, typer.Argument(help="Name of the universe.")]
_Ticker = Annotated[str, typer.Argument(help="Ticker as it stands in the cube.")]
_Reason = Annotated[str, typer.Option(help="Why; the history of the cube keeps it.")]
_Start = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="First date; all if left out.")]
_End = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Last date; all if left out.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    ticker = typer.Typer(help="Correct the tickers of a cube, in one commit.", no_args_is_help=True)
    ticker.command()(withdraw)
    ticker.command()(rename)
    portfolio = typer.Typer(help="Correct the portfolios of a cube, in one commit.", no_args_is_help=True)
    portfolio.command()(remove)
    app.add_typer(ticker, name="ticker")
    app.add_typer(portfolio, name="portfolio")


def withdraw(universe: _Universe, ticker: _Ticker, reason: _Reason, start: _Start = None, end: _End = None) -> None:
    """Take the rows of a ticker out of a cube, and derive it anew. A source that still has them brings them back."""
    from tasks.correcting import withdraw_ticker

    first, last = (None if day is None else day.date() for day in (start, end))
    _say(withdraw_ticker(universe, ticker, first, last, reason, load_settings()))


def rename(
    universe: _Universe,
    ticker: _Ticker,
    name: Annotated[str, typer.Argument(help="The ticker that its rows get.")],
    reason: _Reason,
    start: _Start = None,
    end: _End = None,
) -> None:
    """Give the rows of a ticker to another one: a stock that was renamed, or, until a date, the company before."""
    from tasks.correcting import rename_ticker

    first, last = (None if day is None else day.date() for day in (start, end))
    _say(rename_ticker(universe, ticker, name, first, last, reason, load_settings()))


def remove(
    universe: _Universe,
    name: Annotated[str, typer.Argument(help="Name of the portfolio.")],
    reason: _Reason,
) -> None:
    """Let go of a portfolio and its definition, so that its name is free for another one."""
    from tasks.correcting import remove_portfolio

    _say(remove_portfolio(universe, name, reason, load_settings()))


def _say(ref: SnapshotRef) -> None:
    typer.echo(f"cube {ref.universe}: snapshot {ref.snapshot_id}")
