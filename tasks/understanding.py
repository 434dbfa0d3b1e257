"""What a config and its sources are understood to say, before anything is written: the work of `factorcube check`.

Here belongs reading, checking and planning without a store. It imports no Prefect: what it finds comes within seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import xarray as xr

from models.forecasting.schedule import refit_dates
from schemas.checks import CheckReport
from schemas.settings import Settings
from schemas.spec import RunSpec
from storage import sources
from tasks.describing import adjusted, check_described


@dataclass(frozen=True)
class Understanding:
    """What was read, what the checks say of it, and when models would be fitted.

    Attributes
    ----------
    market : xarray.Dataset
        As `storage.sources.read_market` gives it, adjusted for splits if the config wants that.
    factors, industries : xarray.Dataset or None
        What lies beside it, on its dates; None if the config names none.
    report : CheckReport
        The checks of what was read. Those of a cube's variables need the cube, and come with the ingest.
    refits : list of Timestamp
        As of when models are fitted; none if the checks block everything.
    """

    market: xr.Dataset
    factors: xr.Dataset | None
    industries: xr.Dataset | None
    report: CheckReport
    refits: list[pd.Timestamp]


def understand(spec: RunSpec, settings: Settings) -> Understanding:
    """Read and check the sources of a config; nothing is written.

    Raises
    ------
    SourceError, DataError, ConfigError
        If a source is not what the config says of it.
    ModelError
        If the walk-forward has no history before its first refit.
    """
    frequency, calendar = spec.frequency, spec.calendar
    market = sources.read_market(spec.data, frequency=frequency, calendar=calendar, settings=settings)
    dates = pd.DatetimeIndex(market.indexes["date"])
    factors = sources.read_factors(spec.factors, dates=dates, frequency=frequency, calendar=calendar, settings=settings)
    industries = sources.read_industries(spec.industries, market=market, frequency=frequency, settings=settings)
    market = adjusted(market, spec.recipe)
    report, _ = check_described(market, spec.recipe, data_docs=None)
    return Understanding(market, factors, industries, report, _refits(spec, dates, report))


def _refits(spec: RunSpec, dates: pd.DatetimeIndex, report: CheckReport) -> list[pd.Timestamp]:
    """Return the dates of the refits on those dates that land, between the first and the last of the panel."""
    if report.blocked_ingest:
        return []
    landing = dates[~dates.isin(pd.DatetimeIndex(report.blocked_dates))]
    first, last = pd.Timestamp(spec.panel.start or landing[0]), pd.Timestamp(spec.panel.end or landing[-1])
    landing = landing[(landing >= first) & (landing <= last)]
    return refit_dates(landing, spec.walk_forward, sources.next_session(spec.calendar, spec.frequency, landing[-1]))
