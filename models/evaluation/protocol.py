"""One protocol by which any covariance forecast is judged: factor models and dense peers alike, on identical dates.

Every so many dates a forecast is asked for, made of the past only, and held against the returns of the dates up to the
next: those of portfolios that know nothing of it, of those that it optimises itself, of each stock, and of whole
cross-sections.

>>> def forecast(as_of, tickers):                                  # of the returns up to and including `as_of`
...     past = returns.sel(date=slice(None, as_of), ticker=tickers)
...     return Forecast(tickers, Dense(shrunk(past)))
>>> judged = judge(forecast, returns)                                               # doctest: +SKIP
>>> judged["bias_statistic"].sel(family="minimum_variance", horizon=1)              # doctest: +SKIP

Two of them are compared by `models.evaluation.superiority` on ``qlike_by_date``, ``squared_return`` and
``log_likelihood_by_date``, which have the same dates. Here belong the dates, stocks and portfolios; numbers of a family
come from `scoring`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import xarray as xr
from threadpoolctl import ThreadpoolController

from models.arrays import BoolArray, Float64Array, FloatArray
from models.evaluation import portfolios
from models.evaluation.covariances import Covariance, Dense, FactorForm
from models.evaluation.likelihood import CrossSections, gaussian
from models.evaluation.meanings import MEANING
from models.evaluation.resampling import stationary_bootstrap
from models.evaluation.scoring import Family, score
from schemas.errors import ConfigError, DataError

__all__ = ["Dense", "FactorForm", "Forecast", "Rebalancing", "Rules", "judge", "published", "rebalancings"]


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
        Largest weight of the long-only portfolio.
    periods_per_year : float
        For volatilities a year.
    n_bootstrap, bootstrap_windows : int, float
        Draws, and windows in a block on average, of the standard errors.
    seed : int
        Of everything random. The draws of a date are those of its chosen tickers in sorted order, whatever is judged.
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


def judge(
    forecast: Forecaster,
    returns: xr.DataArray,
    rules: Rules | None = None,
    *,
    groups: Mapping[str, str] | None = None,
    capitalisation: xr.DataArray | None = None,
) -> xr.Dataset:
    """Judge forecasts of a covariance by what happened.

    Weights are set at the as-of date and held constant over the window; a missing return of a portfolio's stock counts
    as zero, that of a single stock or in a likelihood is left out. Over a window returns are summed, and the variance
    is the daily one times the number of days.

    Parameters
    ----------
    forecast : callable
        Asked once per date of :func:`rebalancings`, in order.
    returns : xarray.DataArray
        (date, ticker) simple or excess returns per period, decimals.
    rules : Rules, optional
        Dates, stocks and portfolios.
    groups : mapping, optional
        Ticker to sector; without it there is no family of sectors. Tickers it does not name belong to none.
    capitalisation : xarray.DataArray, optional
        (date, ticker) market value, known at the date; without it there is no cap-weighted portfolio.

    Returns
    -------
    xarray.Dataset
        By family of portfolios and horizon (1 and ``step`` dates) the metrics that `models.evaluation.meanings` lists;
        by date ``qlike_by_date`` and ``squared_return`` (family, date), means over the portfolios of the family, and
        ``log_likelihood_by_date``; and what concerns the whole covariance without dimensions.

    Raises
    ------
    DataError
        If there is nothing to judge, or a forecast covers fewer than two of the stocks asked for.
    """
    rules = rules or Rules()
    ordered = returns.transpose("date", "ticker").sortby("ticker")
    run = _Run(rules, groups or {}, capitalisation)
    dates, alone = rebalancings(ordered, rules), ThreadpoolController()
    for one in dates:
        ahead = ordered.isel(date=slice(one.start, one.start + rules.step)).sel(ticker=one.tickers)
        made = forecast(one.as_of, one.tickers)
        with alone.limit(limits=1, user_api="blas"):  # threads cost more than they give on matrices this narrow
            run.add(one, made, ahead.values.astype(np.float64))
    first = dates[0].start
    judged = ordered.indexes["date"][first : first + rules.step * len(dates)]
    return run.result(judged, pd.DatetimeIndex([one.as_of for one in dates]))


@dataclass(eq=False)
class _Run:
    """What is gathered window by window."""

    rules: Rules
    groups: Mapping[str, str]
    capitalisation: xr.DataArray | None
    realised: dict[str, list[pd.DataFrame]] = field(default_factory=dict)
    variance: dict[str, list[pd.Series]] = field(default_factory=dict)
    turnover: dict[str, list[float]] = field(default_factory=dict)
    before: dict[str, pd.DataFrame] = field(default_factory=dict)
    sections: list[CrossSections] = field(default_factory=list)
    covered: list[tuple[int, int, int, int]] = field(default_factory=list)
    dispersion: list[float] = field(default_factory=list)

    def add(self, one: Rebalancing, forecast: Forecast, returns: Float64Array) -> None:
        """Hold a forecast against the returns (date, ticker) of its window."""
        place = forecast.tickers.get_indexer(one.tickers)
        asked = place >= 0
        if asked.sum() < 2:
            raise DataError(
                f"The forecast as of {one.as_of:%Y-%m-%d} covers {int(asked.sum())} of the stocks asked for."
            )
        tickers, returns = one.tickers[asked], returns[:, asked]
        covariance = forecast.covariance.restricted(place[asked])
        known = np.isfinite(returns)
        filled = np.where(known, returns, 0.0)
        for family, weights in self._weights(one, asked, covariance).items():
            self._hold(family, weights, covariance.variance(weights.to_numpy()), filled @ weights.to_numpy().T)
        single = pd.DataFrame(returns, columns=tickers)
        self.realised.setdefault("stocks", []).append(single)
        self.variance.setdefault("stocks", []).append(pd.Series(covariance.diagonal, index=tickers))
        self.sections.append(gaussian(covariance, returns))
        self.covered.append((int(asked.sum()), len(asked), int(known.sum()), known.size))
        spread = (covariance.diagonal.sum() - covariance.variance(np.ones((1, len(tickers))))[0] / len(tickers)) / (
            len(tickers) - 1
        )
        self.dispersion.append(float(filled.var(axis=1, ddof=1).mean() / spread))

    def _hold(self, family: str, weights: pd.DataFrame, variance: Float64Array, realised: Float64Array) -> None:
        self.variance.setdefault(family, []).append(pd.Series(variance, index=weights.index))
        self.realised.setdefault(family, []).append(pd.DataFrame(realised, columns=weights.index))
        if family in _LASTING:
            earlier = self.before.get(family)
            if earlier is not None:
                mine, theirs = weights.align(earlier, fill_value=0.0)
                change = portfolios.turnover(theirs.to_numpy(), mine.to_numpy()) / len(mine)
                self.turnover.setdefault(family, []).append(change)
            self.before[family] = weights

    def _weights(self, one: Rebalancing, asked: BoolArray, covariance: Covariance) -> dict[str, pd.DataFrame]:
        """Return the portfolios of a date, (portfolio, ticker) by family."""
        rules, tickers, n = self.rules, one.tickers[asked], int(asked.sum())
        rng = np.random.default_rng([rules.seed, one.number])
        sizes = (rules.n_random, rules.n_alphas, rules.n_directions)
        random, alphas, directions = (rng.standard_normal((size, len(asked)))[:, asked] for size in sizes)
        found = {
            "equal_weight": np.full((1, n), 1.0 / n),
            "random_long_short": portfolios.random_long_short(random),
            "random_alpha": portfolios.random_alpha(covariance, alphas),
            "minimum_variance": portfolios.minimum_variance(covariance)[None],
            "minimum_variance_long_only": portfolios.long_only_minimum_variance(covariance, rules.cap)[None],
        }
        if isinstance(covariance, FactorForm):
            found["factors"] = portfolios.factor_portfolios(covariance)
        ranked = portfolios.eigenportfolios(covariance, directions)
        found |= {f"eigenportfolios {bucket}": weights for bucket, weights in ranked.items()}
        named = {family: pd.DataFrame(weights, columns=tickers) for family, weights in found.items()}
        if self.capitalisation is not None:
            value = self.capitalisation.sel(date=one.as_of).to_series().reindex(tickers).clip(lower=0.0).fillna(0.0)
            named["cap_weight"] = (value / value.sum()).to_frame().T.reset_index(drop=True)
        member = np.array([ticker in self.groups for ticker in tickers])
        if member.any():
            names, weights = portfolios.group_portfolios([self.groups[ticker] for ticker in tickers[member]])
            held = pd.DataFrame(weights, index=names, columns=tickers[member])
            named["sectors"] = held.reindex(columns=tickers, fill_value=0.0)
        return named

    def result(self, judged: pd.DatetimeIndex, as_of: pd.DatetimeIndex) -> xr.Dataset:
        """Assemble everything that was gathered."""
        rules = self.rules
        draws = stationary_bootstrap(len(as_of), rules.bootstrap_windows, rules.n_bootstrap, rules.seed)
        daily = {family: self._family(family) for family in self.realised}
        scores = {}
        for horizon in dict.fromkeys((1, rules.step)):
            for family, held in daily.items():
                scores[family, horizon] = score(
                    held if horizon == 1 else held.summed(),
                    block=rules.block // rules.step,
                    periods_per_year=rules.periods_per_year / horizon,
                    draws=draws,
                )
        index = pd.MultiIndex.from_tuples(scores, names=["family", "horizon"])
        result = pd.DataFrame(list(scores.values()), index=index).to_xarray().reindex(family=list(daily))
        losses = [_by_date(held.losses()) for held in daily.values()]
        squares = [_by_date(np.square(held.realised)) for held in daily.values()]
        turnover = [float(np.mean(self.turnover.get(family, [math.nan]))) for family in daily]
        likelihood = np.concatenate([part.log_likelihood for part in self.sections])
        distance = np.concatenate([part.mahalanobis for part in self.sections])
        n_stocks = np.concatenate([part.n_stocks for part in self.sections])
        by_window = np.stack([likelihood, distance, n_stocks]).reshape(3, len(as_of), -1)
        sums = np.nansum(by_window, axis=2)
        resampled = sums[:, draws].sum(axis=2)
        asked = np.array(self.covered).sum(axis=0)
        result = result.assign(
            turnover=("family", turnover),
            qlike_by_date=(("family", "date"), np.stack(losses)),
            squared_return=(("family", "date"), np.stack(squares)),
            log_likelihood_by_date=("date", likelihood / np.where(n_stocks > 0, n_stocks, np.nan)),
            log_likelihood=sums[0].sum() / sums[2].sum(),
            log_likelihood_stderr=float(np.std(resampled[0] / resampled[2], ddof=1)),
            mahalanobis=sums[1].sum() / sums[2].sum(),
            dispersion_bias=math.sqrt(float(np.mean(self.dispersion))),
            coverage=asked[0] / asked[1],
            known_returns=asked[2] / asked[3],
        ).assign_coords(date=judged, as_of=as_of)
        for name, (units, meaning) in MEANING.items():
            if name in result:
                result[name].attrs = {"units": units, "long_name": meaning}
        return result

    def _family(self, family: str) -> Family:
        """Put the windows of a family side by side; a portfolio that a window lacks is NaN in it."""
        variance = pd.concat(self.variance[family], axis=1).T
        windows = [part.reindex(columns=variance.columns).to_numpy() for part in self.realised[family]]
        return Family(np.stack(windows), variance.to_numpy(dtype=np.float64))


_LASTING = {"equal_weight", "cap_weight", "sectors", "minimum_variance", "minimum_variance_long_only"}
"""Families whose portfolios are the same ones at the next date: of those, turnover means something."""


def _by_date(values: Float64Array) -> Float64Array:
    """Mean over known portfolios (date,) of (window, period, portfolio)."""
    flat = values.reshape(-1, values.shape[-1])
    known = np.isfinite(flat)
    count = known.sum(axis=1)
    mean: Float64Array = np.where(known, flat, 0.0).sum(axis=1) / np.where(count > 0, count, np.nan)
    return mean
