"""The market that a recipe makes of what was delivered, and what the checks say of it, before there is any cube.

Here belongs what an ingest, a correction and `factorcube check` have in common. It imports no store and no Prefect: a
check of a config takes seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import xarray as xr

from models import quality
from models.blocks import Blocks
from models.deliveries import market_of
from schemas.checks import CheckReport, declared
from schemas.errors import CheckError
from schemas.spec import Recipe
from storage import sources

Checked = tuple[CheckReport, quality.Survey | None]
"""As `tasks.checking.check_market` returns it."""


def check_record(record: xr.Dataset, recipe: Recipe, **options: Any) -> Checked:
    """Check the market that a record describes; `options` are those of `tasks.checking.check_market`."""
    return check_described(Described.of(record, recipe).market, recipe, **options)


def check_described(market: xr.Dataset | Blocks, recipe: Recipe, **options: Any) -> Checked:
    """Check a market as a recipe says; `options` are those of `tasks.checking.check_market`."""
    from tasks import checking

    dates = pd.DatetimeIndex((market.source if isinstance(market, Blocks) else market).indexes["date"])
    sessions = sessions_of(recipe, dates) if recipe.calendar != "none" and len(dates) else None
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
    """What a record says by a recipe, some tickers at a time.

    Attributes
    ----------
    record : Blocks
        What deliveries have said.
    known : {"at_date", "before_date"}
        Whether the characteristics of a row are known at its date.
    splits : DataFrame or None
        By which prices are adjusted; None if the recipe does not want that.
    """

    record: Blocks
    known: Literal["at_date", "before_date"]
    splits: pd.DataFrame | None

    @classmethod
    def of(cls, record: xr.Dataset, recipe: Recipe) -> Described:
        """Describe a record, which may be lazy; look for splits if the recipe wants them adjusted."""
        blocks = Blocks(record)
        splits = _splits(blocks.then(lambda block: market_of(block, recipe.known)), recipe)
        return cls(blocks, recipe.known, splits)

    def of_block(self, block: xr.Dataset) -> xr.Dataset:
        """Return the market of a block of the record, adjusted for splits."""
        market = market_of(block, self.known)
        return market if self.splits is None else quality.adjust_splits(market, self.splits)

    @property
    def market(self) -> Blocks:
        """The market, adjusted for splits if the recipe wants that."""
        return self.record.then(self.of_block)


def adjusted(market: xr.Dataset, recipe: Recipe) -> xr.Dataset:
    """Adjust a market in memory for splits if the recipe wants that."""
    splits = _splits(Blocks(market), recipe)
    return market if splits is None else quality.adjust_splits(market, splits)


def _splits(market: Blocks, recipe: Recipe) -> pd.DataFrame | None:
    if recipe.adjust is None:
        return None
    sigmas = declared(recipe.checks, recipe.frequency)["split_like_jump"].threshold
    return quality.propose_splits(market, float(sigmas or 0.0))


def sessions_of(recipe: Recipe, dates: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """Return every session from the first to the last date of a market."""
    if recipe.frequency == "monthly":
        return pd.date_range(dates[0], dates[-1], freq="ME")
    return dates if recipe.calendar == "none" else sources.sessions(recipe.calendar, dates[0], dates[-1])
