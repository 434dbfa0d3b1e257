"""The market that a recipe makes of what was delivered, and what the checks say of it, before there is any cube.

Here belongs what an ingest, a correction and `factorcube check` have in common. It imports no store and no Prefect: a
check of a config takes seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
import xarray as xr

from models import quality
from models.deliveries import market_of
from schemas.checks import CheckReport, declared
from schemas.errors import CheckError
from schemas.spec import Recipe
from storage import sources


def check_record(record: xr.Dataset, recipe: Recipe, **options: Any) -> CheckReport:
    """Check the market that a record describes; `options` are those of `tasks.checking.check_market`."""
    return check_described(described(record, recipe).market, recipe, **options)


def check_described(market: xr.Dataset, recipe: Recipe, **options: Any) -> CheckReport:
    """Check a market as a recipe says; `options` are those of `tasks.checking.check_market`."""
    from tasks import checking

    known = recipe.calendar != "none" and market.sizes["date"] > 0
    sessions = sessions_of(recipe, market) if known else None
    return checking.check_market(
        market, sessions=sessions, frequency=recipe.frequency, overrides=recipe.checks, **options
    )


def refuse_blocked(report: CheckReport, outcome: str = "the ingest is blocked and nothing was written") -> None:
    """Refuse what a check of the whole ingest blocks.

    Raises
    ------
    CheckError
        Naming the outcome, and every check that blocks.
    """
    if report.blocking:
        reasons = "; ".join(f"{r.check}: {r.observed} (expected {r.expected})" for r in report.blocking)
        raise CheckError(f"{outcome}: {reasons}")


@dataclass(frozen=True, eq=False)
class Described:
    """What a record says by a recipe: the market, what was observed beside it, and splits if they are adjusted."""

    market: xr.Dataset
    observed: xr.Dataset | None
    splits: pd.DataFrame | None


def described(record: xr.Dataset, recipe: Recipe) -> Described:
    """Return the market of a record, adjusted for splits if the recipe wants that."""
    market, observed = market_of(record, recipe.known)
    adjusted_market, splits = adjusted(market, recipe)
    return Described(adjusted_market, observed, splits)


def adjusted(market: xr.Dataset, recipe: Recipe) -> tuple[xr.Dataset, pd.DataFrame | None]:
    """Adjust a market for splits if the recipe wants that; the splits are None if it does not."""
    if recipe.adjust is None:
        return market, None
    sigmas = declared(recipe.checks, recipe.frequency)["split_like_jump"].threshold
    splits = quality.propose_splits(market, float(sigmas or 0.0))
    return quality.adjust_splits(market, splits), splits


def sessions_of(recipe: Recipe, market: xr.Dataset) -> pd.DatetimeIndex:
    """Return every session from the first to the last date of a market."""
    dates = pd.DatetimeIndex(market.indexes["date"])
    if recipe.frequency == "monthly":
        return pd.date_range(dates[0], dates[-1], freq="ME")
    return dates if recipe.calendar == "none" else sources.sessions(recipe.calendar, dates[0], dates[-1])
