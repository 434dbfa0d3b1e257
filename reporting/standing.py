"""Where a portfolio stands: its risk now and through time, what it earned, its losses, by one model.

Here belong the numbers of one portfolio by one model, from the rows of a version alone: of a portfolio of the version,
or of a book that no version knows. Words and looks belong in the modules that draw and write.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from models.arrays import Float64Array
from models.evaluation.attributed import earned, exposures_by_date, loadings_of_returns, moves
from models.evaluation.calibration import bias_interval, kurtosis
from models.portfolios.weights import rescaled
from models.risk.attribution import link
from models.risk.book import BookRisk, VersionRisk
from models.risk.calibration import BUDGET
from models.risk.portfolio import RiskModel
from models.risk.stress import historical_stress
from reporting.readings import REALISED_WINDOW, PublishedVersion, surprises, trailing_mean
from schemas.errors import DataError

STRESS_WINDOW = {252: 21, 12: 3}
"""Periods of an episode of stress, by periods per year."""
MOST_SPANS = 5
_VARIANCE = "portfolio_variance"
_PARTS = (_VARIANCE, "portfolio_variance_specific", "portfolio_variance_factor")
_MODEL = ("loadings", "loading_scale", "omega", "specific_variance", "factor_returns")
_READ = (*_MODEL, *_PARTS, "weights", "portfolio_return", "standardised_return", "out_of_sample")


@dataclass(frozen=True, eq=False)
class Standing:
    """One portfolio by one model. Numbers are per period in decimals unless a name says otherwise.

    Attributes
    ----------
    portfolio, model : str
        Their names.
    now : BookRisk
        The risk as of the last forecast, beside a benchmark where one was given.
    weights : xarray.DataArray
        (ticker) as of the last forecast.
    rows : xarray.Dataset
        From the first forecast on, by date: ``portfolio_variance``, ``portfolio_variance_specific``,
        ``portfolio_variance_factor`` (date, factor) and ``exposure`` (date, factor), all as of the date.
    earned : xarray.Dataset or None
        From `attribute`, from the first forecast on; None for a book, of which no returns are known.
    surprises : numpy.ndarray
        (date,) of `rows`: returns over their forecast volatility out of sample; NaN where there is none.
    bias_statistic : float or None
        Of these, as the manifest has it.
    returns : pandas.Series
        By date, the whole sample: what the portfolio earned; for a book what the factors would have brought it as it
        stands now.
    factor_returns : xarray.DataArray
        (date, factor) of the whole sample.
    exposed : RiskModel
        As of the last forecast, with the loadings that explain returns.
    """

    portfolio: str
    model: str
    now: BookRisk
    weights: xr.DataArray
    rows: xr.Dataset
    earned: xr.Dataset | None
    surprises: Float64Array
    bias_statistic: float | None
    returns: pd.Series
    factor_returns: xr.DataArray
    exposed: RiskModel

    @property
    def dates(self) -> pd.DatetimeIndex:
        """Dates of the forecasts, ascending."""
        return pd.DatetimeIndex(self.rows.indexes["date"])

    @property
    def periods_per_year(self) -> int:
        """252 or 12."""
        return self.now.periods_per_year

    @property
    def judged(self) -> int:
        """Number of returns out of sample that had a forecast."""
        return int(np.isfinite(self.surprises).sum())

    @property
    def volatility(self) -> Float64Array:
        """(date,) forecast volatility a year."""
        variance: Float64Array = self.rows[_VARIANCE].values
        volatility: Float64Array = np.sqrt(np.where(variance > 0.0, variance, np.nan) * self.periods_per_year)
        return volatility

    @property
    def percentile(self) -> float:
        """Share of the forecasts before that lie below the last one, in [0, 1]; NaN if there are none."""
        known = self.volatility[np.isfinite(self.volatility)]
        return float((known[:-1] < known[-1]).mean()) if len(known) > 1 else math.nan

    def realised(self) -> tuple[Float64Array, Float64Array, Float64Array]:
        """(date,) trailing realised volatility a year, and the edges of the band in which true forecasts have it.

        The band is the root mean square of the forecasts of the same dates, times the interval of the bias statistic
        for as many dates and tails as met: both look back over one window.
        """
        window = REALISED_WINDOW[self.periods_per_year]
        forecast = pd.Series(self.volatility).shift(1).to_numpy()
        returns = self.returns.reindex(self.dates).to_numpy() * math.sqrt(self.periods_per_year)
        seen = np.where(np.isfinite(forecast) & np.isfinite(returns), 1.0, np.nan)
        realised, expected = (np.sqrt(trailing_mean((values * seen) ** 2, window)) for values in (returns, forecast))
        tails = kurtosis(self.surprises)
        low, high = bias_interval(window, kurtosis=tails if tails > 1.0 else 3.0)
        return realised, expected * low, expected * high

    def wealth(self) -> pd.Series:
        """Compounded value of 1 by date from the first forecast on; an unknown return counts as none."""
        return (1.0 + self.returns.reindex(self.dates).fillna(0.0)).cumprod()

    def drawdown(self) -> pd.Series:
        """Loss by date since the highest value before, at most 0."""
        wealth = self.wealth()
        return wealth / wealth.cummax().clip(lower=1.0) - 1.0


@dataclass(frozen=True)
class Fall:
    """One drawdown: its depth, and when it began, was deepest and was made up for (None: not yet)."""

    depth: float
    peak: pd.Timestamp
    trough: pd.Timestamp
    recovered: pd.Timestamp | None


@dataclass(frozen=True)
class Episode:
    """A span of the sample: what the portfolio earned in it, and what the same factor returns would do to it now."""

    start: pd.Timestamp
    end: pd.Timestamp
    earned: float
    again: float
    worst: float


def standings(version: PublishedVersion, portfolios: Sequence[str]) -> dict[str, Standing]:
    """Return where portfolios of a version stand, by name; those without a forecast are left out."""
    stored = version.dataset[[name for name in _READ if name in version.dataset]]
    rows = stored.drop_dims("ticker").compute()
    if not len(version.portfolios) or not (rows[_VARIANCE] > 0.0).any():
        return {}
    of_risk = exposures_by_date(stored, lambda block: block["loadings"])
    effects = earned(stored)
    found = {}
    for name in (name for name in version.portfolios if name in portfolios):
        own = rows.sel(portfolio=name, drop=True)
        known = np.flatnonzero((own[_VARIANCE] > 0.0).values)
        if not len(known):
            continue
        span, day = slice(int(known[0]), int(known[-1]) + 1), version.dates[known[-1]]
        weights = stored["weights"].sel(portfolio=name, date=day, drop=True).astype(np.float64).compute()
        found[name] = Standing(
            portfolio=name,
            model=version.model,
            now=VersionRisk(stored).risk(weights.to_series(), date=day),
            weights=weights,
            rows=_parts(own).isel(date=span).assign(exposure=of_risk.sel(portfolio=name, drop=True).isel(date=span)),
            earned=effects.sel(portfolio=name, drop=True).isel(date=span),
            surprises=surprises(version, name)[span],
            bias_statistic=version.manifest.metrics.get(f"bias_statistic.{name}"),
            returns=own["portfolio_return"].to_series().loc[:day],
            factor_returns=moves(rows).sel(date=slice(None, day)),
            exposed=_exposed(version, day),
        )
    return found


def standing_of_book(version: PublishedVersion, found: BookRisk, name: str) -> Standing:
    """Return where a book stands: its weights as they are, held against the rows of every date of a version.

    On a date on which the version does not cover a ticker, the covered ones of its side stand for it. No returns of
    tickers are in a version: what the book would have earned is what the factors would have brought it.
    """
    names = [name for name in _MODEL if name in version.dataset]
    rows = version.dataset[names].sel(date=slice(None, found.date)).compute()
    version = PublishedVersion(rows, version.manifest)
    model = RiskModel(rows["loadings"], rows["omega"], rows["specific_variance"])
    given = found.weights.rename_axis("ticker").to_xarray()
    by_date = rescaled(given, model.covered.reindex(ticker=given["ticker"], fill_value=False))
    by_date = by_date.sel(ticker=given.indexes["ticker"].intersection(model.loadings.indexes["ticker"]))
    parts = model.decompose(by_date)
    known = np.flatnonzero((parts[_VARIANCE] > 0.0).values)
    span = slice(int(known[0]), int(known[-1]) + 1)
    weights = by_date.isel(date=int(known[-1]), drop=True)
    exposed = _exposed(version, found.date)
    brought = xr.dot(exposed.exposures(weights), moves(rows), dim="factor")
    return Standing(
        portfolio=name,
        model=version.model,
        now=found,
        weights=weights,
        rows=_parts(parts).isel(date=span).assign(exposure=model.exposures(by_date).isel(date=span)),
        earned=None,
        surprises=np.full(span.stop - span.start, np.nan),
        bias_statistic=None,
        returns=brought.to_series(),
        factor_returns=moves(rows),
        exposed=exposed,
    )


def earned_over(standing: Standing, periods: int | None) -> xr.Dataset | None:
    """Return the linked attribution of the last so many periods, or of all; None if none is known or all was lost."""
    if standing.earned is None:
        return None
    try:
        linked = link(standing.earned.isel(date=slice(None if periods is None else -periods, None)))
    except DataError:
        return None
    return linked if int(linked["n_dates"]) else None


def falls(standing: Standing, most: int = 3) -> list[Fall]:
    """Return the deepest drawdowns since the first forecast, the deepest first."""
    drawdown = standing.drawdown()
    under = (drawdown < 0.0).to_numpy()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], under, [False]]).astype(int)))
    dates = standing.dates
    found = [
        Fall(
            float(drawdown.iloc[start:stop].min()),
            dates[max(start - 1, 0)],
            drawdown.index[start + int(np.argmin(drawdown.iloc[start:stop]))],
            dates[stop] if stop < len(dates) else None,
        )
        for start, stop in zip(edges[::2], edges[1::2], strict=True)
    ]
    return sorted(found, key=lambda fall: fall.depth)[:most]


def worst_episodes(standing: Standing) -> list[Episode]:
    """Return the worst spans of the sample that do not overlap, and what each would do to the portfolio now."""
    window = STRESS_WINDOW[standing.periods_per_year]
    usable = standing.factor_returns.notnull().all("factor").to_series()
    returns = standing.returns.where((standing.returns > -1.0) & usable).dropna()
    found = []
    for start, end, brought in _worst_spans(returns, window):
        events = standing.factor_returns.sel(date=slice(start, end))
        stressed = historical_stress(standing.exposed, standing.weights, events.dropna("date"))
        found.append(
            Episode(start, end, brought, float(stressed["portfolio_return"]), float(stressed["worst"])),
        )
    return found


def _worst_spans(returns: pd.Series, window: int) -> Iterator[tuple[pd.Timestamp, pd.Timestamp, float]]:
    """Yield start, end and compounded return of the worst spans, each apart from those before."""
    sums = np.log1p(returns).rolling(window).sum().to_numpy(copy=True)
    for _ in range(MOST_SPANS):
        if not np.isfinite(sums).any() or np.nanmin(sums) >= 0.0:
            return
        last = int(np.nanargmin(sums))
        yield returns.index[last - window + 1], returns.index[last], math.expm1(sums[last])
        sums[max(0, last - window + 1) : last + window] = np.nan


def _parts(rows: xr.Dataset) -> xr.Dataset:
    return rows[[*_PARTS]].astype(np.float64)


def _exposed(version: PublishedVersion, day: pd.Timestamp) -> RiskModel:
    """Return the model of a date with the loadings that explain returns, and without the factor that has none."""
    names = [name for name in version.factors if name != BUDGET]
    rows = version.dataset[[name for name in _MODEL if name in version.dataset]].sel(date=day, drop=True).compute()
    loadings = loadings_of_returns(rows)
    kept = {"factor": names, "factor_": names}
    return RiskModel(loadings.sel(factor=names), rows["omega"].sel(kept), rows["specific_variance"])
