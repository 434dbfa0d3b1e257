"""The empirical notes of a risk model: the tables that vendors print of theirs, out of one published version alone.

Here belongs what those tables hold (Menchero, Orr and Wang 2011, The Barra US Equity Model (USE4), Empirical Notes):
whom the model covers, how much it explains and how far returns spread, what its factors earned and how they move
together, whether the risk of portfolios was right. Everything is out of sample. Beside other forecasts, on the same
dates and portfolios, a model is judged in `protocol`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pandas as pd
import xarray as xr

from models.arrays import BoolArray, Float64Array
from models.evaluation.forecasts import bias_statistic, summary, with_errors
from models.evaluation.structure import factor_stability, variance_inflation
from schemas.errors import ModelError

_MONTH = {252: 21, 12: 1}
"""Periods of a month, by those of a year."""
_LEADING = 10
"""Factors whose correlations are shown."""
_ARRAYS = (
    "loadings", "imputed", "factor_returns", "specific_variance", "out_of_sample",
    "total_r2", "total_sst", "predictive_r2", "predictive_sst",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Handbook:
    """Tables of one model, out of sample; decimals, and per year what has a time.

    Attributes
    ----------
    coverage : pandas.DataFrame
        By year: ``dates``, mean numbers of ``stocks`` that are covered, and of those ``imputed``.
    explanatory_power : pandas.DataFrame
        By year: ``total_r2`` and ``predictive_r2``, uncentred; ``dispersion``, the root mean square of the excess
        returns that total_r2 is a share of; ``specific``, the median forecast of specific volatility.
    factors : pandas.DataFrame
        By factor that returns something (the one of estimation error does not): ``mean`` and ``volatility`` of its
        return, their ``ratio``, ``t`` of the mean; ``lag`` one autocorrelation, the deepest ``drawdown`` of its
        compounded return; ``stability`` of its loadings over a month and ``inflation`` of their variance by the other
        factors', means over months (`models.evaluation.structure`).
    correlation : pandas.DataFrame
        (factor, factor) of the returns of the factors that move the average stock most.
    portfolios : pandas.DataFrame
        By portfolio: ``forecast`` and ``realised`` volatility, ``bias`` statistic, share of dates beyond the ``var_95``
        and ``var_99`` of a normal law, ``specific`` share of the forecast variance.
    """

    coverage: pd.DataFrame
    explanatory_power: pd.DataFrame
    factors: pd.DataFrame
    correlation: pd.DataFrame
    portfolios: pd.DataFrame


def handbook(version: xr.Dataset) -> Handbook:
    """Gather the empirical notes of a model from its published rows.

    Parameters
    ----------
    version : xarray.Dataset
        As published, lazy or in memory; of the loadings one date a month is read, and their first factor.

    Raises
    ------
    ModelError
        If an array is missing, or no date is out of sample yet.
    """
    missing = [name for name in _ARRAYS if name not in version]
    if missing or "periods_per_year" not in version.attrs:
        raise ModelError(f"the dataset lacks {', '.join(missing) or 'periods_per_year'}: it is no published version")
    outside = version["out_of_sample"].values
    if not outside.any():
        raise ModelError("no date of the version is out of sample yet; there is nothing to note")
    year = int(version.attrs["periods_per_year"])
    covered = version["loadings"].isel(factor=0).notnull().transpose("date", "ticker").values
    return Handbook(
        coverage=_coverage(version, outside, covered),
        explanatory_power=_explanatory_power(version, outside, covered, year),
        factors=_factors(version, outside, year),
        correlation=_correlation(version, outside),
        portfolios=_portfolios(version, outside, year),
    )


def _years(version: xr.Dataset, outside: BoolArray) -> pd.Index:
    return pd.Index(pd.DatetimeIndex(version.indexes["date"])[outside].year, name="year")


def _coverage(version: xr.Dataset, outside: BoolArray, covered: BoolArray) -> pd.DataFrame:
    imputed = version["imputed"].transpose("date", "ticker").values
    by_date = pd.DataFrame(
        {"stocks": covered[outside].sum(axis=1), "imputed": (imputed & covered)[outside].sum(axis=1)},
        index=_years(version, outside),
    )
    grouped = by_date.groupby(level="year")
    return pd.concat([grouped.size().rename("dates"), grouped.mean()], axis=1)


def _explanatory_power(version: xr.Dataset, outside: BoolArray, covered: BoolArray, year: int) -> pd.DataFrame:
    years, n_stocks = _years(version, outside), np.roll(covered.sum(axis=1), 1)[outside]
    total = pd.Series(version["total_sst"].values[outside], index=years)
    series = with_errors(version[["total_r2", "total_sst", "predictive_r2", "predictive_sst"]].load())
    totals = {
        one: summary(series, version["out_of_sample"] & (version["date"].dt.year == one)) for one in years.unique()
    }
    found: dict[str, pd.Series] = {
        name: pd.Series({one: float(total[name]) for one, total in totals.items()}).rename_axis("year")
        for name in ("total_r2", "predictive_r2")
    }
    squares = (total / np.maximum(n_stocks, 1)).groupby(level="year").mean()
    specific = version["specific_variance"].transpose("date", "ticker").values
    known = np.isfinite(specific).any(axis=1) & outside
    median = np.full(len(outside), np.nan)
    median[known] = np.sqrt(np.nanmedian(specific[known].astype(np.float64), axis=1))
    found["dispersion"] = np.sqrt(squares * year)
    found["specific"] = pd.Series(median[outside], index=years).groupby(level="year").mean() * math.sqrt(year)
    return pd.DataFrame(found)


def _factors(version: xr.Dataset, outside: BoolArray, year: int) -> pd.DataFrame:
    returns = _series(version, "factor_returns", "factor")[outside]
    mean, deviation = returns.mean(), returns.std()
    wealth = (1.0 + returns.fillna(0.0)).cumprod()
    stability, inflation = _structure(version, outside, _MONTH.get(year, 1))
    found = pd.DataFrame(
        {
            "mean": mean * year,
            "volatility": deviation * math.sqrt(year),
            "ratio": mean / deviation * math.sqrt(year),
            "t": mean / deviation * np.sqrt(returns.count()),
            "lag": returns.apply(lambda one: one.autocorr()),
            "drawdown": (wealth / wealth.cummax()).min() - 1.0,
            "stability": stability,
            "inflation": inflation,
        }
    )
    return found[deviation > 0.0]


def _structure(version: xr.Dataset, outside: BoolArray, month: int) -> tuple[Float64Array, Float64Array]:
    """Return the mean over months of the stability of loadings and of the inflation of their variance, (factor,)."""
    dates = np.flatnonzero(outside)[::month]
    rows = version["loadings"].isel(date=dates).transpose("date", "ticker", "factor").values.astype(np.float64)
    if "loading_scale" in version:
        rows = rows / version["loading_scale"].isel(date=dates).transpose("date", "ticker").values[..., None]
    known = np.asarray(np.isfinite(rows).all(axis=2))
    stability, inflation = [], []
    for place in range(len(rows)):
        inflation.append(variance_inflation(rows[place, known[place]]))
        both = np.logical_and(known[place], known[place - 1])
        if place and both.sum() > 1:
            stability.append(factor_stability(rows[place - 1, both], rows[place, both]))
    return _mean(stability, rows.shape[2]), _mean(inflation, rows.shape[2])


def _mean(by_month: list[Float64Array], n_factors: int) -> Float64Array:
    stacked = np.array(by_month).reshape(-1, n_factors)
    known = ~np.isnan(stacked)
    total = np.where(known, stacked, 0.0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)


def _correlation(version: xr.Dataset, outside: BoolArray) -> pd.DataFrame:
    returns = _series(version, "factor_returns", "factor")[outside]
    last = version["loadings"].isel(date=-1).transpose("ticker", "factor").values.astype(np.float64)
    moved = np.nanmean(np.square(last), axis=0) * returns.var().to_numpy()
    leading = np.argsort(-np.nan_to_num(moved), kind="stable")[:_LEADING]
    leading = leading[np.nan_to_num(moved[leading]) > 0.0]
    found: pd.DataFrame = returns.iloc[:, leading].corr()
    return found


def _portfolios(version: xr.Dataset, outside: BoolArray, year: int) -> pd.DataFrame:
    z = _series(version, "standardised_return", "portfolio")[outside]
    variance = _series(version, "portfolio_variance", "portfolio").shift()[outside]
    specific = _series(version, "portfolio_variance_specific", "portfolio").shift()[outside]
    returns = _series(version, "portfolio_return", "portfolio")[outside]
    judged = z.notna()
    return pd.DataFrame(
        {
            "forecast": np.sqrt(variance.where(judged).mean() * year),
            "realised": returns.where(judged).std() * math.sqrt(year),
            "bias": bias_statistic(version["standardised_return"].isel(date=outside)).to_series(),
            "var_95": (z < -NormalDist().inv_cdf(0.95)).sum() / judged.sum(),
            "var_99": (z < -NormalDist().inv_cdf(0.99)).sum() / judged.sum(),
            "specific": specific.where(judged).sum() / variance.where(judged).sum(),
        }
    )


def _series(version: xr.Dataset, name: str, of: str) -> pd.DataFrame:
    """Return an array as series by date, a column for each factor or portfolio."""
    values = version[name].transpose("date", of).values
    labels = pd.Index([str(label) for label in version[of].values], name=of)
    return pd.DataFrame(values, index=version.indexes["date"], columns=labels)
