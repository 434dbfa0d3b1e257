"""How large losses may be: value at risk and expected shortfall, Gaussian and by filtered historical simulation.

Here belongs what turns a volatility, or a history of returns, into a loss at a level and a horizon. Losses are
positive, in decimals of the portfolio; a negative one is a gain. ``level`` is the probability that the loss is not
exceeded, such as 0.99.

Scaling by horizon takes returns for uncorrelated over time, with the variance of now: means grow with the number of
periods, volatilities with its square root.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import xarray as xr

from models.arrays import Float64Array
from schemas.errors import ConfigError, DataError

_NORMAL = NormalDist()


def variance_at_horizon(variance: xr.DataArray, periods: float) -> xr.DataArray:
    """Variance over several periods; with 252 or 12 it is annualised.

    Examples
    --------
    >>> import xarray as xr
    >>> from models import variance_at_horizon
    >>> round(float(variance_at_horizon(xr.DataArray(1e-4), 21)), 4)
    0.0021
    """
    return variance * _horizon(periods)


def volatility_at_horizon(volatility: xr.DataArray, periods: float) -> xr.DataArray:
    """Volatility over several periods; with 252 or 12 it is annualised.

    Examples
    --------
    >>> import xarray as xr
    >>> from models import volatility_at_horizon
    >>> round(float(volatility_at_horizon(xr.DataArray(0.01), 252)), 4)
    0.1587
    """
    return volatility * math.sqrt(_horizon(periods))


def gaussian_var(
    volatility: xr.DataArray, level: float = 0.99, periods: float = 1.0, mean: xr.DataArray | float = 0.0
) -> xr.DataArray:
    """Value at risk of normal returns, -h mu + sqrt(h) sigma z with z the quantile of `level`.

    Parameters
    ----------
    volatility : xarray.DataArray
        Per period, of any shape.
    level : float
        Probability that the loss is not exceeded, in (0.5, 1).
    periods : float
        Horizon h.
    mean : xarray.DataArray or float
        Expected return per period.

    Raises
    ------
    ConfigError
        If the level or the horizon cannot be.

    Examples
    --------
    >>> import xarray as xr
    >>> from models import gaussian_var
    >>> round(float(gaussian_var(xr.DataArray(0.01), level=0.99)), 4)
    0.0233
    """
    spread = volatility_at_horizon(volatility, periods)
    return spread * _NORMAL.inv_cdf(_level(level)) - mean * periods


def gaussian_es(
    volatility: xr.DataArray, level: float = 0.99, periods: float = 1.0, mean: xr.DataArray | float = 0.0
) -> xr.DataArray:
    """Return expected shortfall of normal returns, -h mu + sqrt(h) sigma phi(z) / (1 - level); as `gaussian_var`.

    Examples
    --------
    >>> import xarray as xr
    >>> from models import gaussian_es
    >>> round(float(gaussian_es(xr.DataArray(0.01), level=0.99)), 4)
    0.0267
    """
    spread = volatility_at_horizon(volatility, periods)
    density = math.exp(-(_NORMAL.inv_cdf(_level(level)) ** 2) / 2.0) / math.sqrt(2.0 * math.pi)
    return spread * (density / (1.0 - level)) - mean * periods


def filtered_historical(
    returns: xr.DataArray, variance: xr.DataArray, level: float = 0.99, periods: int = 1, *, least: int = 100
) -> xr.Dataset:
    """Value at risk and expected shortfall by filtered historical simulation, as of the last date.

    Each past return is divided by the volatility that was forecast for it, and these shocks are multiplied by the
    volatility that is forecast now (Barone-Adesi, Giannopoulos and Vosper 1999, VaR without correlations for
    portfolios of derivative securities; Hull and White 1998). So the shape of the tail is that of the past, its scale
    that of today. Over several periods the shocks of every run of so many consecutive dates are summed, with today's
    volatility throughout.

    Parameters
    ----------
    returns : xarray.DataArray
        ([portfolio,] date) realised at the date, as ``portfolio_return`` of a version.
    variance : xarray.DataArray
        ([portfolio,] date) forecast as of the date for the next, as ``portfolio_variance`` of a version, on the same
        dates.
    level : float
        As in `gaussian_var`.
    periods : int
        Horizon.
    least : int
        Fewer scenarios give NaN.

    Returns
    -------
    xarray.Dataset
        ``value_at_risk``, ``expected_shortfall`` and ``n_scenarios`` ([portfolio]). The former is the smallest loss
        that at least `level` of the scenarios do not exceed, the latter the mean of the worst 1 - level of them, with
        the scenario on the edge by its share (Acerbi and Tasche 2002), so that it is coherent.

    Raises
    ------
    DataError
        If the dates are not the same, sorted and unique.
    ConfigError
        If the level or the horizon cannot be.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> import xarray as xr
    >>> from models import filtered_historical
    >>> dates = {"date": pd.bdate_range("2024-01-01", periods=200)}
    >>> returns = xr.DataArray(np.random.default_rng(0).normal(0.0, 0.01, 200), dates, ("date",))
    >>> found = filtered_historical(returns, xr.full_like(returns, 1e-4), level=0.95)
    >>> [*found]
    ['value_at_risk', 'expected_shortfall', 'n_scenarios']
    """
    dates = returns.indexes["date"]
    if not (dates.equals(variance.indexes["date"]) and dates.is_monotonic_increasing and dates.is_unique):
        raise DataError("returns and variance must have the same dates, sorted and unique.")
    if periods != int(periods):
        raise ConfigError(f"filtered historical simulation needs whole periods, not {periods}.")
    _horizon(periods), _level(level)
    volatility = variance.where(variance > 0.0).astype(np.float64) ** 0.5
    shocks = returns.astype(np.float64) / volatility.shift(date=1)
    now = volatility.isel(date=-1, drop=True)
    found = xr.apply_ufunc(
        lambda path: _tail(path, level, int(periods), least),
        shocks,
        input_core_dims=[["date"]],
        output_core_dims=[["number"]],
        vectorize=True,
    )
    parts = {
        "value_at_risk": found.isel(number=0) * now,
        "expected_shortfall": found.isel(number=1) * now,
        "n_scenarios": found.isel(number=2).astype(np.int64),
    }
    return xr.Dataset(parts)


def _tail(shocks: Float64Array, level: float, periods: int, least: int) -> Float64Array:
    """Quantile and mean of the tail of losses, in volatilities, and the number of scenarios (3,)."""
    if len(shocks) < periods:
        return np.array([np.nan, np.nan, 0.0])
    sums = np.lib.stride_tricks.sliding_window_view(shocks, periods).sum(axis=1)
    losses = np.sort(-sums[np.isfinite(sums)])[::-1]
    if len(losses) < max(least, 1):
        return np.array([np.nan, np.nan, len(losses)])
    mass = round(len(losses) * (1.0 - level), 9)  # 1 - level is not exact, and must not move the edge
    whole = math.floor(mass)
    edge = losses[whole]
    shortfall = (losses[:whole].sum() + (mass - whole) * edge) / mass
    return np.array([edge, shortfall, len(losses)])


def _level(level: float) -> float:
    if not 0.5 < level < 1.0:
        raise ConfigError(f"level must be in (0.5, 1), such as 0.99, not {level}.")
    return level


def _horizon(periods: float) -> float:
    if not (math.isfinite(periods) and periods > 0):
        raise ConfigError(f"the horizon must be a positive number of periods, not {periods}.")
    return periods
