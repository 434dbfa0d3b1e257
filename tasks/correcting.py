"""Corrections of a cube by hand: withdraw or rename a ticker, let go of a portfolio. One commit each, with its reason.

Here belong the steps of the commands. Which rows are meant belongs in `models.deliveries`, the commit in
`tasks.committing`.
"""

from __future__ import annotations

from datetime import date
from typing import Any, TypeVar

import pandas as pd
import xarray as xr

from models.deliveries import renamed, without
from schemas.contracts import Ingest
from schemas.errors import ConfigError, CubeError
from schemas.refs import SnapshotRef
from schemas.settings import Settings
from schemas.spec import AllocatedWeights, DatedWeights, FixedWeights, Holdings, PortfolioSpec, Recipe
from storage.cube import Cube
from tasks.committing import Change, commit_record
from tasks.delivering import State
from tasks.describing import check_record, refuse_blocked
from tasks.provenance import key
from tasks.stages import Stage
from tasks.workspace import Workspace


def withdraw_ticker(
    universe: str, ticker: str, start: date | None, end: date | None, reason: str, settings: Settings
) -> SnapshotRef:
    """Take the rows of a ticker out of a cube, from a first to a last date; all of them if left out.

    Raises
    ------
    CubeError
        If there is no cube, or it has no record.
    DataError
        If there are no such rows, or a portfolio holds the ticker.
    CheckError
        If what is left does not pass the checks; nothing was written.
    """
    state, record, recipe = _opened(universe, settings)
    left = without(record, ticker, _stamp(start), _stamp(end))
    what = f"withdraw {ticker}{_between(start, end)}"
    return _corrected(universe, state, left, recipe, what, reason, settings)


def rename_ticker(
    universe: str, ticker: str, name: str, start: date | None, end: date | None, reason: str, settings: Settings
) -> SnapshotRef:
    """Give the rows of a ticker, and the weights of fixed portfolios if it is for all dates, to another one.

    Raises
    ------
    CubeError, CheckError
        As for `withdraw_ticker`.
    DataError
        If there are no such rows, or both tickers have rows on one date.
    """
    if not name or name != name.strip():
        raise ConfigError(f"'{name}' is no ticker: it is empty, or has a blank at an end")
    state, record, recipe = _opened(universe, settings)
    moved = renamed(record, ticker, name, _stamp(start), _stamp(end))
    if start is None and end is None:
        portfolios = tuple(_holding(item, ticker, name) for item in recipe.portfolios)
        recipe = recipe.model_copy(update={"portfolios": portfolios})
    what = f"rename {ticker} to {name}{_between(start, end)}"
    return _corrected(universe, state, moved, recipe, what, reason, settings)


def remove_portfolio(universe: str, portfolio: str, reason: str, settings: Settings) -> SnapshotRef:
    """Let go of a portfolio of a cube: its weights, and its definition, so that the name is free for another one.

    Raises
    ------
    CubeError, CheckError
        As for `withdraw_ticker`.
    ConfigError
        If there is no such portfolio, or it is the only one.
    """
    state, record, recipe = _opened(universe, settings)
    left = tuple(item for item in recipe.portfolios if item.name != portfolio)
    if len(left) == len(recipe.portfolios) or not left:
        known = ", ".join(item.name for item in recipe.portfolios)
        raise ConfigError(f"the cube of {universe} has the portfolios {known}; name one of several")
    recipe = recipe.model_copy(update={"portfolios": left})
    return _corrected(universe, state, record, recipe, f"remove portfolio {portfolio}", reason, settings)


def _opened(universe: str, settings: Settings) -> tuple[State, xr.Dataset, Recipe]:
    state = State.of(Cube.open(Workspace.of(settings).layout, universe))
    if state.record is None or state.recipe is None:
        raise CubeError(f"the cube of {universe} was written before deliveries were recorded; ingest it first")
    return state, state.record.load(), state.recipe


def _corrected(
    universe: str,
    state: State,
    record: xr.Dataset,
    recipe: Recipe,
    what: str,
    reason: str,
    settings: Settings,
) -> SnapshotRef:
    if not record.sizes["ticker"]:
        raise CubeError(f"nothing would be left of the cube of {universe}; nothing was written")
    space = Workspace.of(settings)
    report, _ = check_record(record, recipe, data_docs=space.layout.data_docs(universe))
    refuse_blocked(report)
    dates = record.indexes["date"]
    span = (dates[0].date(), dates[-1].date())
    name = key(Stage.INGEST.code(), correction=what, reason=reason, snapshot=state.snapshot_id)
    new = Ingest(ingest_key=name, kind="correction", spans=(span,), reason=f"{what}: {reason}")
    facts: dict[str, Any] = {"reason": reason, "sources": []}
    change = Change(key=name, message=f"{what}: {reason}", span=span, ingests=(*state.ingests, new), facts=facts)
    return commit_record(space, universe, state, record, recipe, report, change, settings)


Weighted = TypeVar("Weighted", FixedWeights, DatedWeights)


def _holding(item: PortfolioSpec, ticker: str, name: str) -> PortfolioSpec:
    if isinstance(item, AllocatedWeights | Holdings):
        renamed = tuple(_renamed(one, ticker, name) for one in item.rebalances)
        return item.model_copy(update={"rebalances": renamed})
    return _renamed(item, ticker, name) if isinstance(item, FixedWeights) else item


def _renamed(item: Weighted, ticker: str, name: str) -> Weighted:
    if ticker not in item.weights:
        return item
    return item.model_copy(update={"weights": {name if of == ticker else of: w for of, w in item.weights.items()}})


def _stamp(day: date | None) -> pd.Timestamp | None:
    return None if day is None else pd.Timestamp(day)


def _between(start: date | None, end: date | None) -> str:
    return "".join([f" from {start}" if start else "", f" until {end}" if end else ""])
