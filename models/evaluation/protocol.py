"""One protocol by which any covariance forecast is judged: factor models and dense peers alike, on identical dates.

Every so many dates a forecast is asked for, made of the past only, and held against the returns of the dates up to the
next: those of portfolios that know nothing of it, of those that it optimises itself, of each stock, and of whole
cross-sections.

>>> def forecast(as_of, tickers):                                  # of the returns up to and including `as_of`
...     past = returns.sel(date=slice(None, as_of), ticker=tickers)
...     return Forecast(tickers, Dense(shrunk(past)))
>>> judged = judge(forecast, returns)                                               # doctest: +SKIP
>>> judged["bias_statistic"].sel(family="minimum_variance", horizon=1)              # doctest: +SKIP

Two of them are compared by `models.inference.diebold_mariano` on ``qlike_by_date``, ``squared_return`` and
``log_likelihood_by_date``, which have the same dates. Here belong the dates, stocks and portfolios; numbers of a family
come from `scoring`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr
from threadpoolctl import ThreadpoolController

from models.evaluation.asking import Forecast, Forecaster, Rebalancing, Rules, published, rebalancings
from models.evaluation.covariances import Covariance, Dense, FactorForm
from models.evaluation.gathering import Windows

__all__ = [
    "Covariance",
    "Dense",
    "FactorForm",
    "Forecast",
    "Forecaster",
    "Rebalancing",
    "Rules",
    "judge",
    "published",
    "rebalancings",
]


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
        Asked once per date of `rebalancings`, in order.
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

    Examples
    --------
    >>> import numpy as np
    >>> from models import Dense, Forecast, Rules, judge
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> returns = panel.returns
    >>> def forecast(as_of, tickers):
    ...     past = returns.sel(date=slice(None, as_of), ticker=tickers)
    ...     return Forecast(tickers, Dense(np.diag(past.var("date").values.astype(float))))
    >>> rules = Rules(first=60, history=60, step=20, block=20, n_directions=5, n_bootstrap=10)
    >>> judge(forecast, returns, rules).sizes["date"]
    60
    """
    rules = rules or Rules()
    ordered = returns.transpose("date", "ticker").sortby("ticker")
    windows = Windows(rules, groups or {}, capitalisation)
    dates, alone = rebalancings(ordered, rules), ThreadpoolController()
    for one in dates:
        ahead = ordered.isel(date=slice(one.start, one.start + rules.step)).sel(ticker=one.tickers)
        made = forecast(one.as_of, one.tickers)
        with alone.limit(limits=1, user_api="blas"):  # threads cost more than they give on matrices this narrow
            windows.add(one, made, ahead.values.astype(np.float64))
    first = dates[0].start
    judged = ordered.indexes["date"][first : first + rules.step * len(dates)]
    return windows.result(judged, pd.DatetimeIndex([one.as_of for one in dates]))
