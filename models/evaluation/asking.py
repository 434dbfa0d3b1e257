"""What is asked of a forecast: on which dates, of which stocks, and in which form it is given.

Here belong the rules of the protocol and the forecast that answers them, made of the past only. What is done with the
answer is in `protocol`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from models.arrays import FloatArray
from models.evaluation.covariances import Covariance, FactorForm
from schemas.errors import ConfigError, DataError


@dataclass(frozen=True)
class Rules:
    """What is judged, and when.

    Attributes
    ----------
    first : int
        Position among the dates of the first return that is judged.
    step : int
        Dates from one forecast to the next, all of which it is held against; the longer horizon.
    history : int
        Dates before a forecast on which a stock is asked to be known.
    least_known : float
        Share of them above which a stock is chosen.
    block : int
        Dates in a block of MRAD, T; a multiple of `step`.
    n_random, n_alphas, n_directions : int
        Random long-short portfolios, random alphas, and random directions behind the factors, drawn at each forecast.
    cap : float
        Largest weight of the long-only portfolio; twice an equal weight in a small universe.
    periods_per_year : float
        For volatilities a year.
    n_bootstrap, bootstrap_windows : int, float
        Draws, and windows in a block on average, of the standard errors.
    seed : int
        Of everything random. The draws of a date are those of its chosen tickers in sorted order, whatever is judged.

    Examples
    --------
    >>> from models import Rules
    >>> Rules(first=60, history=60, step=20, block=60).step
    20
    """

    first: int = 504
    step: int = 21
    history: int = 504
    least_known: float = 0.98
    block: int = 252
    n_random: int = 20
    n_alphas: int = 5
    n_directions: int = 100
    cap: float = 0.02
    periods_per_year: float = 252.0
    n_bootstrap: int = 200
    bootstrap_windows: float = 3.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.step < 1 or self.block % self.step:
            raise ConfigError(f"block is {self.block}: give a multiple of step, {self.step}.")
        if not 1 <= self.history <= self.first:
            raise ConfigError(f"history is {self.history}: give at least 1 and at most first, {self.first}.")


@dataclass(frozen=True, eq=False)
class Forecast:
    """Covariance per period of the next dates.

    Attributes
    ----------
    tickers : pandas.Index
        (n,) the stocks that are covered; others than those asked for are left out.
    covariance : FactorForm or Dense
        Of these stocks, in this order.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from models import Dense, Forecast
    >>> Forecast(pd.Index(["A", "B"]), Dense(np.eye(2) * 1e-4)).tickers.tolist()
    ['A', 'B']
    """

    tickers: pd.Index
    covariance: Covariance

    def __post_init__(self) -> None:
        if len(self.tickers) != self.covariance.n_stocks:
            raise DataError(f"{len(self.tickers)} tickers, but a covariance of {self.covariance.n_stocks} stocks.")
        if not self.tickers.is_unique:
            raise DataError(f"The forecast has {self.tickers[self.tickers.duplicated()][0]} twice.")

    @classmethod
    def of_known(
        cls, tickers: pd.Index, loadings: FloatArray, omega: FloatArray, specific_variance: FloatArray
    ) -> Forecast:
        """Make a factor form of the stocks whose loadings (n, K) and specific variance (n,) are known."""
        with np.errstate(invalid="ignore"):
            known = np.isfinite(loadings).all(axis=1) & np.isfinite(specific_variance) & (specific_variance > 0.0)
        parts = (part.astype(np.float64) for part in (loadings[known], omega, specific_variance[known]))
        return cls(tickers[known], FactorForm(*parts))


Forecaster = Callable[[pd.Timestamp, pd.Index], Forecast]
"""From an as-of date and the tickers chosen then to a forecast that uses no return after the date."""


@dataclass(frozen=True, eq=False)
class Rebalancing:
    """A date on which a forecast is asked for.

    Attributes
    ----------
    number, start : int
        Its place among those dates, and the position of the first return that is judged.
    as_of : pandas.Timestamp
        The date before that: the last one whose returns may be used.
    tickers : pandas.Index
        Stocks chosen by their past, sorted.
    """

    number: int
    start: int
    as_of: pd.Timestamp
    tickers: pd.Index


def published(version: xr.Dataset) -> Forecaster:
    """Forecast as a published version does (`schemas.contracts.VERSION`): with its rows as of the date."""

    def forecast(as_of: pd.Timestamp, tickers: pd.Index) -> Forecast:
        if as_of not in version.indexes["date"]:
            raise DataError(f"The version has no row as of {as_of:%Y-%m-%d}.")
        chosen = version.indexes["ticker"].intersection(tickers)
        row = version[["loadings", "omega", "specific_variance"]].sel(date=as_of, ticker=chosen).load()
        loadings = row["loadings"].transpose("ticker", "factor").values
        omega = row["omega"].transpose("factor", "factor_").values
        return Forecast.of_known(chosen, loadings, omega, row["specific_variance"].values)

    return forecast


def rebalancings(returns: xr.DataArray, rules: Rules | None = None) -> list[Rebalancing]:
    """Dates on which forecasts are asked for, each with the stocks that its past chooses.

    Parameters
    ----------
    returns : xarray.DataArray
        (date, ticker) per period, NaN where not known.
    rules : Rules
        Only whole windows of ``step`` dates count.

    Raises
    ------
    DataError
        If there are too few dates, or too few stocks on one.
    """
    rules = rules or Rules()
    ordered = returns.transpose("date", "ticker").sortby("ticker")
    known = np.isfinite(ordered.values)
    dates, tickers = ordered.indexes["date"], ordered.indexes["ticker"]
    starts = range(rules.first, len(dates) - rules.step + 1, rules.step)
    if not starts:
        raise DataError(f"{len(dates)} dates: to judge one window takes {rules.first + rules.step}.")
    found = []
    for number, start in enumerate(starts):
        chosen = known[start - rules.history : start].mean(axis=0) > rules.least_known
        if chosen.sum() < 2:
            raise DataError(f"{int(chosen.sum())} stocks are known long enough as of {dates[start - 1]:%Y-%m-%d}.")
        found.append(Rebalancing(number, start, dates[start - 1], tickers[chosen]))
    return found
