"""A delivery that begins after all that a cube has: the end of the market alone is looked at and derived anew.

Here belongs when that is so, and how far back it must be looked. Whatever is derived this way has the bits of what is
derived of the whole record (ADR 0030); where that cannot be told, a delivery goes the long way of `tasks.delivering`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from models.characteristics import CHARACTERISTICS, lookback
from models.characteristics.fields import WEEK
from models.deliveries import tidied
from models.deliveries.record import industries_after, merged
from models.panel.assembly import first_seen, industry_places
from models.quality import Followed, Survey, delivery_tables, labels, looked_back
from models.quality.delivery import ACTIVE_DATES
from schemas.checks import CheckReport, declared
from schemas.contracts import CUBE, validate
from schemas.errors import CubeError
from schemas.spec import AllocatedWeights, Holdings, InverseVolatility, Recipe, ValueWeight
from storage.work import Kind
from tasks.committing import derived_of
from tasks.delivering import Delivery, State
from tasks.describing import Described, sessions_of
from tasks.stages import Stage
from tasks.workspace import Workspace

_MOST_DATES = 256
"""Of a delivery: what is longer is gone through block by block, as a whole market is."""
_NO_DATES = pd.DatetimeIndex([])
_CLASSES, _NAMES = "classified", "industry_name"


@dataclass(frozen=True, eq=False)
class Tail:
    """The end of a record with a delivery that follows it.

    Attributes
    ----------
    record : xarray.Dataset
        All tickers, on the new dates and on as many before as anything of them looks back on; in memory.
    looked_at : xarray.Dataset
        The same with tickers that are delivered without a row.
    delivery : Delivery
        What follows.
    recipe : Recipe
        How the cube is derived, and was before.
    dates : DatetimeIndex
        All dates of the record with the delivery.
    survey : Survey
        What was looked at of the record without the delivery.
    at : Followed
        Where the dates of `record` stand.
    """

    record: xr.Dataset
    looked_at: xr.Dataset
    delivery: Delivery
    recipe: Recipe
    dates: pd.DatetimeIndex
    survey: Survey
    at: Followed

    @classmethod
    def of(cls, space: Workspace, state: State, delivery: Delivery) -> Tail | None:
        """Look whether a delivery follows a cube in a state; None if the long way is to be gone."""
        known, recipe = state.record, delivery.recipe.beside(state.recipe)
        survey = _survey_of(space, state)
        if known is None or survey is None or recipe != state.recipe or not _local(recipe):
            return None
        old = known.indexes["date"]
        start = len(old) - _looked_back(recipe, stated="stated" in known)
        rows = delivery.rows
        if start < 1 or rows.sizes["date"] > _MOST_DATES or len(old) != len(state.dates):
            return None
        if not rows.indexes["date"][0] > old[-1] or not _alike(known, rows):
            return None
        rows = rows.load()
        landing = tidied(rows)
        if landing.sizes["date"] < rows.sizes["date"] or not set(_names(landing)) <= set(_names(known)):
            return None
        end = known.isel(date=slice(start, None)).load()
        record = looked_at = merged(end, landing, delivery.kind, _NO_DATES)[0]
        if landing.sizes["ticker"] < rows.sizes["ticker"]:
            looked_at = merged(end, rows, delivery.kind, _NO_DATES)[0]
        dates = pd.DatetimeIndex(old.append(rows.indexes["date"]))
        return cls(record, looked_at, delivery, recipe, dates, survey, Followed(start, len(old)))

    def checked(self, state: State, data_docs: Path | None) -> tuple[CheckReport, Survey] | None:
        """Check the whole market by its end; None if that does not tell all, and the long way is to be gone."""
        from tasks import checking

        assert state.record is not None  # noqa: S101  a tail has one
        newest = state.record.isel(date=slice(-ACTIVE_DATES, None)).load()
        report, survey = checking.check_market(
            Described.of(self.looked_at, self.recipe).market,
            sessions=None if self.recipe.calendar == "none" else sessions_of(self.recipe, self.dates),
            frequency=self.recipe.frequency,
            overrides=self.recipe.checks,
            data_docs=data_docs,
            delivery=delivery_tables(newest, self.delivery.rows, self.looked_at, self.delivery.kind),
            earlier=checking.Earlier(self.survey, self.dates, self.at),
        )
        return (report, survey) if survey is not None and self.tells(report) else None

    def tells(self, report: CheckReport) -> bool:
        """Whether a report is known by the end alone, and what is derived by it.

        Not so if a date is blocked: rows are judged without it. Nor if a value by which a portfolio is weighed is
        suspected for longer than is looked back on: it is taken from before.
        """
        from tasks import checking

        if report.blocked_dates:
            return False
        weighed = [item for item in self.recipe.portfolios if isinstance(item, ValueWeight)]
        needed = self.at.open - self.at.start - max((item.window for item in weighed), default=0)
        for block in Described.of(self.record, self.recipe).market if weighed else ():
            suspected = checking.estimation_exclusions(block, report).values
            known = [block[name].notnull().values for name in ("close", "volume", "shares") if name in block]
            trusted = np.logical_or.accumulate(np.logical_and.reduce([*known, ~suspected]), axis=0)
            if (suspected & ~trusted)[needed:].any():
                return False
        return True

    @property
    def first_derived(self) -> pd.Timestamp:
        """First date of which anything may be other than before."""
        day: pd.Timestamp = self.dates[self.at.open]
        return day

    @property
    def delivered(self) -> xr.Dataset:
        """Rows of the record on the new dates."""
        return self.record.isel(date=slice(self.at.known - self.at.start, None))

    def derived(self, report: CheckReport, folder: Path, cube: xr.Dataset) -> xr.Dataset:
        """Derive the dates of a cube of which anything may be other than before.

        Parameters
        ----------
        report, folder
            As `tasks.committing.derived_of` takes them.
        cube : xarray.Dataset
            As it is without the delivery; may be lazy.
        """
        plain = self.record.drop_vars([_CLASSES, _NAMES], errors="ignore")
        derived = derived_of(plain, self.recipe, report, folder)
        derived = derived.isel(date=slice(self.at.open - self.at.start, None))
        if _CLASSES in self.record:
            derived = self._classified(derived, cube)
        validate(derived, CUBE, CubeError, "the derived end of the cube")
        return derived

    def _classified(self, derived: xr.Dataset, cube: xr.Dataset) -> xr.Dataset:
        """Add industries: on the dates before they are what they were."""
        known = [str(name) for name in cube[_NAMES].values] if _NAMES in cube.coords else []
        names = _names(self.record)
        tickers = self.record.indexes["ticker"]
        held = np.full((self.at.known - self.at.open, len(tickers)), -1, dtype=np.int64)
        own = cube.indexes["ticker"].get_indexer(tickers)
        if "industry" in cube:
            stored = cube["industry"].transpose("date", "ticker").isel(date=slice(self.at.open, self.at.known)).values
            held = np.where(own >= 0, stored[:, own], -1)
        said = np.array([names.index(name) for name in known] + [-1], dtype=np.int64)
        new = industries_after(self.delivered, said[held[-1]], tickers.isin(self.survey.tickers))
        first = first_seen(new, len(names))
        _, found = industry_places(first, names)
        joined = [*known, *(name for name in found if name not in known)]
        place = np.array([joined.index(name) if name in joined else -1 for name in names] + [-1], dtype=np.int64)
        codes = np.concatenate([held, place[new]]).astype(np.int16)
        industry = xr.DataArray(codes, coords=[derived["date"], derived["ticker"]], dims=["date", "ticker"])
        return derived.assign(industry=industry).assign_coords({_NAMES: np.array(joined, dtype=np.str_)})


def keep_survey(space: Workspace, name: str, survey: Survey) -> None:
    """Keep what was looked at of a market, for the delivery that follows."""
    arrays, said = survey.arrays()
    space.work.put_arrays(Kind.SURVEYS, name, arrays, said)


def _survey_of(space: Workspace, state: State) -> Survey | None:
    """Return what was looked at of the record of a state by this code; None if it is not known any more."""
    name = state.survey_key
    if state.record is None or name is None or state.derived_by != Stage.INGEST.code():
        return None
    if not space.work.has(Kind.SURVEYS, name):
        return None
    survey = Survey.from_arrays(*space.work.get_arrays(Kind.SURVEYS, name))
    if len(survey.sizes) != state.record.sizes["date"]:
        return None
    return survey.among(labels(state.record["ticker"].sortby("ticker")))


def _local(recipe: Recipe) -> bool:
    """Whether all that a recipe derives of a date depends on some dates before it, and on a few after it."""
    followed = any(isinstance(item, AllocatedWeights | Holdings) for item in recipe.portfolios)
    return recipe.adjust is None and not followed


def _looked_back(recipe: Recipe, *, stated: bool) -> int:
    """Return how many dates before the first new one are looked at; characteristics may be stated, and not computed."""
    from tasks import checking

    thresholds = checking.thresholds_of(declared(recipe.checks, recipe.frequency))
    names = [*CHARACTERISTICS] if recipe.characteristics is None else recipe.characteristics
    sessions = 1 if stated else lookback(names, recipe.frequency) + 2 * WEEK
    windows = [item.window for item in recipe.portfolios if isinstance(item, InverseVolatility | ValueWeight)]
    return looked_back(thresholds) + max([sessions, *windows])


def _alike(record: xr.Dataset, rows: xr.Dataset) -> bool:
    """Whether rows have the variables of a record, and its labels but for dates and tickers."""
    fixed = [dim for dim in record.dims if dim not in ("date", "ticker", _NAMES)]
    same = set(record.data_vars) == set(rows.data_vars) and len({"close", "returns"} & set(record.data_vars)) == 1
    return same and all(record.indexes[dim].equals(rows.indexes[dim]) for dim in fixed)


def _names(record: xr.Dataset) -> list[Any]:
    return record[_NAMES].values.tolist() if _NAMES in record.coords else []
