"""Weights of the built-in portfolios, as of the close of each date.

Here belong rules that turn what is known at a close into weights. Optimised portfolios belong in the
allocation module, the risk of any portfolio in `risk`.

Every input is labelled with the date at whose close it is known, and the weights of a date use that date and
earlier ones only; they are earned at the next date. ``coverage`` (date, ticker) is True where a stock may be
held. Weights are (date, ticker) float32: 0 where a stock is not held, and NaN on every ticker of a date on
which the portfolio is not defined.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr

from models.quality.arrays import section_median, section_sums
from models.windows import window_mean, window_std
from schemas.errors import ConfigError, DataError


def equal_weight(coverage: xr.DataArray) -> xr.DataArray:
    """Hold the same in every covered stock, in all 1; not defined on a date that covers nobody."""
    return _weights(_scaled(coverage.astype(np.float64), 1.0))


def fixed(weights: Mapping[str, float], coverage: xr.DataArray) -> xr.DataArray:
    """Hold given weights, without the stocks that are not covered, and scale the rest to make up for them.

    Long and short positions are scaled apart, each side to its original sum, so that net and gross weight
    both stay. The portfolio is not defined on a date on which nothing of a side is covered.

    Parameters
    ----------
    weights : mapping
        Ticker to weight.
    coverage : xarray.DataArray
        (date, ticker) bool.

    Returns
    -------
    xarray.DataArray
        (date, ticker) float32.

    Raises
    ------
    DataError
        If there are no weights, one is not finite, or a ticker is not on the axis of `coverage`.
    """
    tickers = coverage.indexes["ticker"]
    unknown = sorted(set(weights) - set(tickers))
    if unknown:
        raise DataError(f"The portfolio holds tickers that the universe does not have: {', '.join(unknown[:5])}.")
    bad = [ticker for ticker, weight in weights.items() if not math.isfinite(weight)]
    if bad or not weights:
        raise DataError(f"The weight of {bad[0]} is not a finite number." if bad else "The portfolio has no weights.")
    values = pd.Series(dict(weights), dtype=np.float64).reindex(tickers, fill_value=0.0)
    target = xr.DataArray(values.to_numpy(), dims="ticker", coords={"ticker": tickers})
    return _weights(rescaled(target, coverage))


def rescaled(target: xr.DataArray, coverage: xr.DataArray) -> xr.DataArray:
    """Leave out stocks that are not covered, and scale the others of their side, long or short, to its original sum.

    Parameters
    ----------
    target : xarray.DataArray
        ([date,] ticker) finite weights.
    coverage : xarray.DataArray
        ([date,] ticker) bool on the same tickers.

    Returns
    -------
    xarray.DataArray
        ([date,] ticker) float64; NaN where nothing of a side that has weights is covered.
    """
    held = target.where(coverage, 0.0)
    long = _scaled(held.clip(min=0.0), _sums(target.clip(min=0.0)))
    short = _scaled((-held).clip(min=0.0), _sums((-target).clip(min=0.0)))
    return long - short


def allocated(
    rebalances: Mapping[pd.Timestamp, Mapping[str, float]], coverage: xr.DataArray, name: str
) -> xr.DataArray:
    """Hold the weights that were allocated last before each date, rescaled over covered stocks as `fixed` does.

    Weights that were allocated as of a date know its close; they are computed after it, and held from the close of the
    next date on. So they move nothing of the dates that they were made from. The portfolio is not defined before.

    Parameters
    ----------
    rebalances : mapping
        As-of date to ticker to weight.
    coverage : xarray.DataArray
        (date, ticker) bool.
    name : str
        Of the portfolio, for messages.

    Returns
    -------
    xarray.DataArray
        (date, ticker) float32.

    Raises
    ------
    DataError
        If no weights are held on any date, or as `fixed`.
    """
    dates = coverage.indexes["date"]
    as_of = sorted(rebalances)
    first = dates.searchsorted(pd.DatetimeIndex(as_of), side="right")
    if not as_of or first[0] == len(dates):
        since = f"the first are as of {as_of[0]:%Y-%m-%d}, and no later date is known" if as_of else "there are none"
        raise DataError(
            f"portfolio '{name}' is an allocation without weights on any date: {since}; leave it out until it has some."
        )
    weights = xr.full_like(coverage, np.nan, dtype=np.float32).transpose("date", "ticker")
    for day, start, stop in zip(as_of, first, [*first[1:], len(dates)], strict=True):
        if start < stop:
            span = {"date": slice(int(start), int(stop))}
            weights[span] = fixed(rebalances[day], coverage.isel(span)).values
    return _weights(weights)


def long_short(characteristic: xr.DataArray, coverage: xr.DataArray, quantile: float = 0.2) -> xr.DataArray:
    """Hold the stocks highest in a characteristic (in all +1) against the lowest (-1), equally weighted.

    Of N covered stocks with a known characteristic those with a (tie-averaged) rank of at most ``quantile *
    N`` from either end are held; ties are so held or left out together. The portfolio is not defined if an
    end is then empty.

    Parameters
    ----------
    characteristic, coverage : xarray.DataArray
        (date, ticker), the latter bool.
    quantile : float
        Share of the stocks at each end, in (0, 0.5].

    Returns
    -------
    xarray.DataArray
        (date, ticker) float32.

    Raises
    ------
    ConfigError
        If `quantile` is outside (0, 0.5].
    DataError
        If `characteristic` and `coverage` do not have the same axes.
    """
    if not 0.0 < quantile <= 0.5:
        raise ConfigError(f"long_short: quantile must be in (0, 0.5], not {quantile}.")
    _require_same_labels(characteristic, coverage, "characteristic")
    eligible = characteristic.where(coverage).transpose("date", "ticker")
    frame = pd.DataFrame(eligible.values.astype(np.float64))
    from_bottom = eligible.copy(data=frame.rank(axis=1).to_numpy())
    from_top = eligible.copy(data=frame.rank(axis=1, ascending=False).to_numpy())
    # The small excess forgives rounding in quantile * N, which must not cost a stock.
    most = quantile * eligible.count("ticker") + 1e-9
    ends = [(rank <= most).astype(np.float64) for rank in (from_top, from_bottom)]
    return _weights(_scaled(ends[0], 1.0) - _scaled(ends[1], 1.0))


def inverse_volatility(
    returns: xr.DataArray, coverage: xr.DataArray, window: int = 63, floor: float = 0.1
) -> xr.DataArray:
    """Hold covered stocks in proportion to the inverse of their volatility, in all 1.

    A stock needs returns on half the dates of the window. One that hardly moves beside the others (a fund that accrues
    interest, a price that nobody makes) is not held: the inverse of next to nothing would take the whole portfolio.

    Parameters
    ----------
    returns, coverage : xarray.DataArray
        (date, ticker), the latter bool; the return of a date is known at its close. A return outside the estimation
        universe is to be given as missing.
    window : int
        Dates, the present one included, over which the standard deviation is taken; at least 4.
    floor : float
        Least volatility of a stock that is held, as a share of the median volatility of the covered stocks on the
        date, in [0, 1).

    Returns
    -------
    xarray.DataArray
        (date, ticker) float32.

    Raises
    ------
    ConfigError
        If `window` is less than 4, or `floor` is outside [0, 1).
    DataError
        If `returns` and `coverage` do not have the same axes.
    """
    _require_same_labels(returns, coverage, "returns")
    return by_volatility(trailing_volatility(returns, window), coverage, floor)


def trailing_volatility(returns: xr.DataArray, window: int = 63) -> xr.DataArray:
    """Return the volatility (date, ticker) of each stock alone, as `inverse_volatility` takes it."""
    if window < 4:
        raise ConfigError(f"inverse_volatility: window must be at least 4 dates, not {window}.")
    ordered = returns.transpose("date", "ticker")
    return ordered.copy(data=window_std(ordered.values.astype(np.float64), window, math.ceil(window / 2)))


def by_volatility(volatility: xr.DataArray, coverage: xr.DataArray, floor: float = 0.1) -> xr.DataArray:
    """Weigh the stocks of each date as `inverse_volatility` does, given their volatility (date, ticker)."""
    if not 0.0 <= floor < 1.0:
        raise ConfigError(f"inverse_volatility: floor must be in [0, 1), not {floor}.")
    moving = volatility.where(coverage & (volatility > 0.0)).transpose("date", "ticker")
    usable = moving >= floor * section_median(moving.values)
    return _weights(_scaled((1.0 / moving.where(usable)).fillna(0.0), 1.0))


def value_weight(value: xr.DataArray, coverage: xr.DataArray, window: int = 1) -> xr.DataArray:
    """Hold covered stocks in proportion to a value, in all 1: market capitalisation, or what stands for it.

    Parameters
    ----------
    value, coverage : xarray.DataArray
        (date, ticker), the latter bool; the value of a date is known at its close, and one that is not above 0 counts
        as missing.
    window : int
        Dates, the present one included, over which the value is averaged; it must be known on half of them.

    Returns
    -------
    xarray.DataArray
        (date, ticker) float32.

    Raises
    ------
    ConfigError
        If `window` is less than 1.
    DataError
        If `value` and `coverage` do not have the same axes.
    """
    _require_same_labels(value, coverage, "value")
    return by_value(trailing_value(value, window), coverage)


def trailing_value(value: xr.DataArray, window: int = 1) -> xr.DataArray:
    """Return the value (date, ticker) of each stock alone, averaged as `value_weight` does."""
    if window < 1:
        raise ConfigError(f"value_weight: window must be at least 1 date, not {window}.")
    ordered = value.transpose("date", "ticker")
    positive = ordered.where((ordered > 0.0) & np.isfinite(ordered)).values.astype(np.float64)
    return ordered.copy(data=window_mean(positive, window, math.ceil(window / 2)))


def by_value(value: xr.DataArray, coverage: xr.DataArray) -> xr.DataArray:
    """Weigh the stocks of each date as `value_weight` does, given their averaged value (date, ticker)."""
    return _weights(_scaled(value.where(coverage).fillna(0.0), 1.0))


def _require_same_labels(array: xr.DataArray, coverage: xr.DataArray, name: str) -> None:
    for dim in ("date", "ticker"):
        if not array.indexes[dim].equals(coverage.indexes[dim]):
            raise DataError(f"{name} and coverage do not have the same {dim} axis; align them first.")


def _scaled(side: xr.DataArray, total: xr.DataArray | float) -> xr.DataArray:
    """Scale non-negative weights to a sum; NaN on dates that have none, unless the sum asked for is zero."""
    asked, sums = xr.DataArray(total), _sums(side)
    return side * (asked / sums.where(sums > 0.0)).where(asked != 0.0, 1.0)


def _sums(side: xr.DataArray) -> xr.DataArray:
    """Sum over tickers; one that joins, or another order of them, moves no bit of a date that it is not held on."""
    sums: xr.DataArray = xr.apply_ufunc(section_sums, side, input_core_dims=[["ticker"]])
    return sums


def _weights(array: xr.DataArray) -> xr.DataArray:
    return array.transpose("date", "ticker").astype(np.float32).drop_attrs().rename("weights")
