"""Walk-forward evaluation: whether forecasts as of one date held at the next.

Here belong pure functions from published arrays and realised returns to evaluation series and their totals.
Gates that act on them belong elsewhere.

Timing: everything forecast (loadings, expected returns, weights, variances) is labelled *as of* a date, as
published, and every function here shifts it by one date by itself; what is realised (returns, factor returns)
is labelled with the date on which it happened. Results are labelled with the date on which they were
realised, and are NaN on the first.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import xarray as xr

from models.families.base import contributing
from schemas.errors import ConfigError, DataError

LEAST_KNOWN_WEIGHT = 0.95
WITHOUT_SUSPECTS = "_without_suspects"
"""Ends the names of what is judged by returns alone that no check suspects."""


def portfolio_return(weights: xr.DataArray, returns: xr.DataArray) -> xr.DataArray:
    """Return of a portfolio at each date: the sum of weights[t-1] * returns[t].

    Where returns of held stocks are missing, the return over the rest is scaled up by gross weight if at
    least 95% of the gross weight has a return, and is NaN if less has one. It is also NaN where the portfolio
    is not defined, or empty.

    Parameters
    ----------
    weights : xarray.DataArray
        ([portfolio,] date, ticker), as of the date.
    returns : xarray.DataArray
        (date, ticker) per period, with at least the dates and tickers of `weights`.

    Returns
    -------
    xarray.DataArray
        ([portfolio,] date) float64.

    Raises
    ------
    DataError
        If `returns` lacks dates or tickers of `weights`.
    """
    realised = _like(returns, weights, "returns").astype(np.float64)
    ahead = realised.shift(date=-1)
    known = xr.ufuncs.isfinite(ahead)
    gross = abs(weights)
    share = _over_tickers(gross * known) / _over_tickers(gross)
    earned = _over_tickers(weights * ahead.where(known, 0.0)) / share
    return _named(earned.where(share > LEAST_KNOWN_WEIGHT - 1e-9).shift(date=1), "portfolio_return")


def standardised_return(realised: xr.DataArray, variance: xr.DataArray) -> xr.DataArray:
    """Realised return at t over the volatility forecast as of t-1; NaN unless that is positive.

    Parameters
    ----------
    realised, variance : xarray.DataArray
        ([portfolio,] date): returns at the date, and variances per period as of the date.
    """
    forecast = variance.where(variance > 0.0).shift(date=1)
    return _named(realised / forecast**0.5, "standardised_return")


def bias_statistic(standardised: xr.DataArray, window: int | None = None) -> xr.DataArray:
    """Sample standard deviation of standardised returns: 1 for true risk forecasts, above 1 if too low.

    As in Menchero, Orr and Wang (2011), The Barra US Equity Model (USE4), Methodology Notes;
    `bias_band` says how far from 1 it may lie by chance.

    Parameters
    ----------
    standardised : xarray.DataArray
        ([portfolio,] date), see `standardised_return`. NaN is left out.
    window : int, optional
        Give a rolling series ([portfolio,] date) over so many dates, with at least half of them known,
        instead of one number.
    """
    if window is None:
        known = standardised.count("date")
        deviation = standardised - standardised.sum("date") / known.where(known > 1)
        return _named(((deviation**2).sum("date") / (known - 1).where(known > 1)) ** 0.5, "bias_statistic")
    ordered = standardised.transpose("date", ...)
    frame = pd.DataFrame(ordered.values.reshape(ordered.sizes["date"], -1))
    rolled = frame.rolling(window, min_periods=max(2, math.ceil(window / 2))).std().to_numpy()
    series = ordered.copy(data=rolled.reshape(ordered.shape)).transpose(*standardised.dims)
    return _named(series, "bias_statistic")


def bias_band(n_observations: int) -> tuple[float, float]:
    """1 -+ sqrt(2 / T): about 95% of bias statistics of T normal returns with true variances lie within."""
    if n_observations < 1:
        raise ConfigError("The band of the bias statistic needs at least one observation.")
    half_width = math.sqrt(2.0 / n_observations)
    return 1.0 - half_width, 1.0 + half_width


def qlike(variance: xr.DataArray, realised: xr.DataArray) -> xr.DataArray:
    """Gaussian loss log(h[t-1]) + r[t]^2 / h[t-1] of a variance forecast h; lower is better.

    The QLIKE loss of Patton (2011), Volatility forecast comparison using imperfect volatility proxies: its
    expectation is least at the true variance, whatever the noise in r^2. It is not normalised: only
    differences between forecasts of the same portfolio over the same dates mean something.

    Parameters
    ----------
    variance, realised : xarray.DataArray
        ([portfolio,] date): variances per period as of the date, and returns at the date.
    """
    forecast = variance.where(variance > 0.0).shift(date=1)
    loss: xr.DataArray = xr.ufuncs.log(forecast) + realised**2 / forecast
    return _named(loss, "qlike")


def r_squared(returns: xr.DataArray, explained: xr.DataArray, mask: xr.DataArray | None = None) -> xr.Dataset:
    """Uncentred R2 of every date, 1 - sse / sst over tickers, with the sums that pool it.

    Parameters
    ----------
    returns, explained : xarray.DataArray
        (date, ticker), both labelled with the date of the return.
    mask : xarray.DataArray, optional
        (date, ticker) bool, the estimation universe; by default all.

    Returns
    -------
    xarray.Dataset
        ``r2``, ``sse``, ``sst`` (date) over the stocks whose return and explained return are both known;
        ``r2`` is NaN where ``sst`` is zero. Over many dates the R2 is 1 - sum(sse) / sum(sst), not the mean
        of ``r2``.
    """
    realised = _like(returns, explained, "returns").astype(np.float64)
    error = realised - explained
    known = xr.ufuncs.isfinite(error)
    if mask is not None:
        known = known & _like(mask, explained, "mask")
    sse = _over_tickers(error.where(known, 0.0) ** 2)
    sst = _over_tickers(realised.where(known, 0.0) ** 2)
    return xr.Dataset({"r2": 1.0 - sse / sst.where(sst > 0.0), "sse": sse, "sst": sst})


def evaluate(
    version: xr.Dataset,
    returns: xr.DataArray,
    mask: xr.DataArray | None = None,
    trusted: xr.DataArray | None = None,
) -> xr.Dataset:
    """Evaluate all forecasts of a published version, or of a Dataset laid out like one.

    A suspected return may be a crash: risk forecasts are judged by all returns that are given, and beside that, under
    names that end in `WITHOUT_SUSPECTS`, by those alone that no check suspects.

    Parameters
    ----------
    version : xarray.Dataset
        ``loadings`` (date, ticker, factor) and ``factor_returns`` (date, factor); if there, also ``loading_scale``
        (date, ticker), by which the loadings that explain returns were multiplied,
        ``expected_returns`` (date, ticker), ``weights`` (portfolio, date, ticker) and ``portfolio_variance``
        (portfolio, date). For a walk-forward evaluation loadings as of t-1 and factor returns at t must stem
        from one fit, made by t-1.
    returns, mask : xarray.DataArray
        (date, ticker) excess returns per period and estimation universe, with the dates and tickers of
        `version`.
    trusted : xarray.DataArray, optional
        (date, ticker) bool, returns that no check suspects; without it nothing is evaluated a second time.

    Returns
    -------
    xarray.Dataset
        ``total_r2``, ``total_sse``, ``total_sst`` (date); with expected returns the same for ``predictive_``;
        with weights ``portfolio_return`` (portfolio, date), and with variances ``standardised_return`` and
        ``qlike``; these three twice if `trusted` is given.

    Raises
    ------
    DataError
        If `returns` or `mask` lacks dates or tickers of `version`.
    """
    version = version.drop_attrs()
    # X[t-1] f[t]: f is moved to the date before and the product back, which spares a copy of the loadings.
    realised = version["factor_returns"].transpose("date", "factor")
    ahead = realised.copy(data=contributing(realised.values)).shift(date=-1)
    total = _times(version["loadings"], ahead)
    if "loading_scale" in version:
        total = total / version["loading_scale"]
    explained = {"total": total.shift(date=1)}
    if "expected_returns" in version:
        explained["predictive"] = version["expected_returns"].shift(date=1)
    result = xr.Dataset()
    for kind, part in explained.items():
        series = r_squared(returns, part, mask)
        result = result.assign({f"{kind}_{name}": series[name] for name in series.data_vars})
    if "weights" in version:
        counted = {"": returns}
        if trusted is not None:
            counted[WITHOUT_SUSPECTS] = returns.where(_like(trusted, returns, "trusted"))
        for suffix, chosen in counted.items():
            realised = portfolio_return(version["weights"], chosen)
            result[f"portfolio_return{suffix}"] = realised
            if "portfolio_variance" in version:
                variance = version["portfolio_variance"]
                result[f"standardised_return{suffix}"] = standardised_return(realised, variance)
                result[f"qlike{suffix}"] = qlike(variance, realised)
    return result


def with_errors(version: xr.Dataset) -> xr.Dataset:
    """Give the R2 of a version their ``sse`` (date) again, which are not published, for `summary`."""
    return version.assign(
        {f"{kind}_sse": (1.0 - version[f"{kind}_r2"]) * version[f"{kind}_sst"] for kind in ("total", "predictive")}
    )


def summary(evaluation: xr.Dataset, where: xr.DataArray | None = None) -> xr.Dataset:
    """Totals of an evaluation: one number per R2, and per portfolio and statistic.

    Parameters
    ----------
    evaluation : xarray.Dataset
        From `evaluate`.
    where : xarray.DataArray, optional
        (date) bool, the dates that count, such as those out of sample.

    Returns
    -------
    xarray.Dataset
        Pooled ``total_r2`` and ``predictive_r2`` (), ``bias_statistic``, mean ``qlike`` and ``observations``,
        the number of standardised returns behind them, (portfolio), the last three also without suspects; those that
        `evaluation` has.
    """
    chosen = evaluation if where is None else evaluation.where(where)
    result = xr.Dataset()
    for kind in ("total", "predictive"):
        if f"{kind}_sst" in chosen:
            sst = chosen[f"{kind}_sst"].sum("date")
            result[f"{kind}_r2"] = 1.0 - chosen[f"{kind}_sse"].sum("date") / sst.where(sst > 0.0)
    for suffix in ("", WITHOUT_SUSPECTS):
        if f"standardised_return{suffix}" in chosen:
            standardised = chosen[f"standardised_return{suffix}"]
            result[f"bias_statistic{suffix}"] = bias_statistic(standardised)
            result[f"qlike{suffix}"] = chosen[f"qlike{suffix}"].mean("date")
            result[f"observations{suffix}"] = standardised.count("date")
    return result


def _over_tickers(array: xr.DataArray) -> xr.DataArray:
    """Sum over tickers, one after the other: stocks that are nothing in between do not change the rounding."""
    ordered = array.transpose(..., "ticker")
    if not ordered.size:
        return ordered.sum("ticker", dtype=np.float64)
    return ordered.isel(ticker=0, drop=True).copy(data=np.cumsum(ordered.values, axis=-1, dtype=np.float64)[..., -1])


def _times(loadings: xr.DataArray, factor_returns: xr.DataArray) -> xr.DataArray:
    """X f as (date, ticker), one factor after the other."""
    product = xr.zeros_like(loadings.isel(factor=0, drop=True), dtype=np.float64)
    for factor in range(loadings.sizes["factor"]):
        product = product + loadings.isel(factor=factor, drop=True) * factor_returns.isel(factor=factor, drop=True)
    return product


def _like(array: xr.DataArray, other: xr.DataArray, name: str) -> xr.DataArray:
    """Take the dates and tickers of another array, which must be there without a gap between dates."""
    dates, tickers = other.indexes["date"], other.indexes["ticker"]
    absent = [*dates.difference(array.indexes["date"]), *tickers.difference(array.indexes["ticker"])]
    if absent:
        raise DataError(f"{name} lacks {absent[0]}, which is to be evaluated.")
    chosen = array.sel(date=slice(dates[0], dates[-1]), ticker=tickers).drop_attrs()
    skipped = chosen.indexes["date"].difference(dates)
    if len(skipped):
        raise DataError(
            f"What is evaluated skips {skipped[0]}, a date of {name}: a forecast must be for the next date."
        )
    return chosen


def _named(array: xr.DataArray, name: str) -> xr.DataArray:
    return array.drop_attrs().rename(name)
