"""A simulated market for the tests of data quality: bars that hold together, and volume that follows news."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr


def simulated_market(dates: int = 160, tickers: int = 24, seed: int = 7) -> xr.Dataset:
    """Bars of a one-factor market on business days; one in a hundred days brings news, which people trade on."""
    rng = np.random.default_rng(seed)
    shape = (dates, tickers)
    news = rng.random(shape) < 0.01
    overnight = 0.004 * rng.standard_normal(shape) + np.where(news, 0.06 * rng.standard_normal(shape), 0.0)
    intraday = 0.008 * rng.standard_normal(shape) + 0.006 * rng.standard_normal((dates, 1))
    close = 50.0 * np.exp(np.cumsum(overnight + intraday, axis=0))
    open_ = close / np.exp(intraday)
    high = np.maximum(open_, close) * np.exp(np.abs(0.003 * rng.standard_normal(shape)))
    low = np.minimum(open_, close) * np.exp(-np.abs(0.003 * rng.standard_normal(shape)))
    volume = 1e6 * np.exp(0.3 * rng.standard_normal(shape)) * np.where(news, 8.0, 1.0)
    fields = {"open": open_, "high": high, "low": low, "close": close, "volume": np.round(volume)}
    return xr.Dataset(
        {name: (("date", "ticker"), values) for name, values in fields.items()},
        coords={
            "date": pd.bdate_range("2020-01-01", periods=dates).to_numpy("datetime64[ns]"),
            "ticker": np.array([f"T{number:02d}" for number in range(tickers)]),
        },
    )


def scaled(market: xr.Dataset, days: slice | int, ticker: int, factor: float) -> xr.Dataset:
    """Multiply the whole bar of a ticker on some days: a bad print, or a split that was not adjusted for."""
    out = market.copy(deep=True)
    for name in ("open", "high", "low", "close"):
        out[name][days, ticker] = out[name][days, ticker] * factor
    return out


def changed(market: xr.Dataset, name: str, days: slice | int, tickers: slice | int, value: float) -> xr.Dataset:
    """Set a field to a value on some days."""
    out = market.copy(deep=True)
    out[name][days, tickers] = value
    return out
