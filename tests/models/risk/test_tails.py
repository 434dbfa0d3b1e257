"""VaR and ES against closed forms, simulation and a direct count of the tail; scaling by horizon."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from models.risk.tails import (
    filtered_historical,
    gaussian_es,
    gaussian_var,
    variance_at_horizon,
    volatility_at_horizon,
)
from schemas.errors import ConfigError, DataError


def test_gaussian_tails_are_those_of_tables_and_of_simulation() -> None:
    sigma = xr.DataArray([0.01, 0.02], dims="portfolio")
    np.testing.assert_allclose(gaussian_var(sigma, 0.99), 2.3263478740408408 * sigma, rtol=1e-12)
    np.testing.assert_allclose(gaussian_es(sigma, 0.99), 2.665214220345808 * sigma, rtol=1e-12)
    losses = np.sort(-0.001 * 10 - 0.01 * np.sqrt(10) * np.random.default_rng(0).standard_normal(2_000_000))
    tail = losses[-len(losses) // 20 :]
    np.testing.assert_allclose(gaussian_var(sigma, 0.95, 10, 0.001)[0], tail[0], rtol=5e-3)
    np.testing.assert_allclose(gaussian_es(sigma, 0.95, 10, 0.001)[0], tail.mean(), rtol=5e-3)


def test_horizon_scales_variance_by_time() -> None:
    sigma = xr.DataArray([0.01], dims="portfolio")
    np.testing.assert_allclose(volatility_at_horizon(sigma, 252) ** 2, variance_at_horizon(sigma**2, 252), rtol=1e-14)
    np.testing.assert_allclose(variance_at_horizon(sigma**2, 252), 0.0252, rtol=1e-14)


def history(n: int = 500) -> tuple[xr.DataArray, xr.DataArray]:
    """Simulate returns whose volatility is known, fat-tailed, and high at the end."""
    rng = np.random.default_rng(3)
    dates = pd.bdate_range("2015-01-01", periods=n)
    volatility = 0.01 * np.exp(rng.normal(size=(2, n)) * 0.3)
    volatility[:, -1] *= 4.0
    ahead = np.concatenate([np.full((2, 1), np.nan), volatility[:, :-1]], axis=1)
    returns = ahead * rng.standard_t(5, size=(2, n))
    coords = {"portfolio": ["a", "b"], "date": dates}
    return tuple(xr.DataArray(values, coords, ("portfolio", "date")) for values in (returns, volatility**2))


@pytest.mark.parametrize("level", [0.95, 0.99, 0.987])
def test_filtered_history_is_past_shocks_at_todays_volatility(level: float) -> None:
    returns, variance = history()
    found = filtered_historical(returns, variance, level)
    for p in range(2):
        now = np.sqrt(variance.values[p, -1])
        losses = sorted(-returns.values[p, 1:] / np.sqrt(variance.values[p, :-1]) * now, reverse=True)
        assert found["n_scenarios"][p] == len(losses)
        quantile = np.quantile(losses, level, method="inverted_cdf")
        # the quantile's own mass: minimise q + E[(L - q)+] / (1 - level) (Rockafellar and Uryasev 2000)
        shortfall = min(q + np.maximum(np.array(losses) - q, 0.0).mean() / (1.0 - level) for q in losses)
        np.testing.assert_allclose(found["value_at_risk"][p], quantile, rtol=1e-12)
        np.testing.assert_allclose(found["expected_shortfall"][p], shortfall, rtol=1e-10)


def test_several_periods_sum_consecutive_shocks_and_gaps_cost_the_runs_that_hold_them() -> None:
    returns, variance = history()
    returns[0, 100] = np.nan
    found = filtered_historical(returns, variance, 0.95, 5)
    np.testing.assert_array_equal(found["n_scenarios"], [495 - 5, 495])
    shocks = pd.Series(returns.values[1, 1:] / np.sqrt(variance.values[1, :-1])).rolling(5).sum().dropna()
    losses = -shocks * np.sqrt(variance.values[1, -1])
    np.testing.assert_allclose(found["value_at_risk"][1], np.quantile(losses, 0.95, method="inverted_cdf"), rtol=1e-12)


def test_the_return_of_a_date_does_not_meet_the_variance_as_of_that_date() -> None:
    """The variance as of t has seen the return of t."""
    returns, variance = history()
    peeking = variance.copy()
    peeking[:, 250] *= 1e6  # forecasts the return of 251 alone
    shrunk = filtered_historical(returns, peeking, 0.99, least=10)
    without = returns.copy()
    without[:, 251] = 0.0
    xr.testing.assert_allclose(
        shrunk["value_at_risk"], filtered_historical(without, variance, 0.99)["value_at_risk"], rtol=1e-2
    )


def test_too_little_history_and_impossible_levels() -> None:
    returns, variance = history(50)
    found = filtered_historical(returns, variance)
    assert np.isnan(found["value_at_risk"]).all()
    np.testing.assert_array_equal(found["n_scenarios"], [49, 49])
    with pytest.raises(ConfigError, match="level"):
        gaussian_var(variance, 99.0)
    with pytest.raises(DataError, match="same dates"):
        filtered_historical(returns[:, 1:], variance)
