"""Walk-forward evaluation: known truths, the shift by one date, and missing returns."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from models.evaluation.forecasts import (
    bias_band,
    bias_statistic,
    evaluate,
    portfolio_return,
    qlike,
    r_squared,
    standardised_return,
    summary,
)
from schemas.errors import ConfigError, DataError


def series(values: np.ndarray, *dims: str) -> xr.DataArray:
    coords: dict[str, object] = {
        dim: pd.bdate_range("2000-01-03", periods=size) if dim == "date" else [f"{dim}{i}" for i in range(size)]
        for dim, size in zip(dims, values.shape, strict=True)
    }
    return xr.DataArray(values, dims=dims, coords=coords)


def world(n_dates: int = 60, n_tickers: int = 25, seed: int = 0) -> tuple[xr.Dataset, xr.DataArray]:
    """Make a version whose loadings as of t-1 and factor returns at t give the returns at t, plus noise."""
    rng = np.random.default_rng(seed)
    loadings = rng.normal(size=(n_dates, n_tickers, 2)).astype(np.float32)
    factors = rng.normal(0.003, 0.01, size=(n_dates, 2))
    returns = rng.normal(0.0, 0.01, size=(n_dates, n_tickers))
    returns[1:] += np.einsum("dik,dk->di", loadings[:-1], factors[1:])
    version = xr.Dataset(
        {
            "loadings": series(loadings, "date", "ticker", "factor"),
            "factor_returns": series(factors, "date", "factor"),
            "expected_returns": series(loadings @ np.full(2, 0.003), "date", "ticker"),
            "weights": series(
                rng.normal(size=(2, n_dates, n_tickers)).astype(np.float32), "portfolio", "date", "ticker"
            ),
            "portfolio_variance": series(rng.uniform(0.001, 0.01, size=(2, n_dates)), "portfolio", "date"),
        }
    )
    return version.map(lambda var: var.assign_attrs(units="1")), series(returns, "date", "ticker")


@pytest.mark.parametrize(("understated", "expected"), [(1.0, 1.0), (4.0, 2.0), (0.25, 0.5)])
def test_bias_statistic_of_a_known_truth(understated: float, expected: float) -> None:
    """True variances that change every date: 1; variances a fourth of the truth: 2."""
    rng = np.random.default_rng(0)
    n_dates = 20_000
    truth = series(np.exp(rng.normal(-9.0, 1.0, size=n_dates)), "date")
    realised = series(rng.normal(size=n_dates), "date") * np.sqrt(truth.shift(date=1))
    statistic = float(bias_statistic(standardised_return(realised, truth / understated)))
    low, high = bias_band(n_dates - 1)
    assert expected * low < statistic < expected * high  # the band is 1 -+ 0.01: off by one date, it would be far out


def test_rolling_bias_statistic_and_the_share_within_its_band() -> None:
    rng = np.random.default_rng(1)
    z = series(rng.normal(size=(400, 100)), "portfolio", "date")
    low, high = bias_band(100)
    within = float(((bias_statistic(z) > low) & (bias_statistic(z) < high)).mean())
    assert 0.92 < within < 0.98  # nominally 95%; standard error over 400 portfolios 1.1%
    z = z.where(z["date"] != z["date"][30])
    rolling = bias_statistic(z, window=20)
    assert rolling.dims == z.dims
    np.testing.assert_allclose(rolling[:, 50], z[:, 31:51].std("date", ddof=1), rtol=1e-9)
    np.testing.assert_allclose(rolling[:, 40], z[:, 21:41].std("date", ddof=1), rtol=1e-9)
    assert np.isnan(rolling[:, :9]).all()
    assert np.isnan(bias_statistic(z[:, :1])).all()


def test_qlike_is_least_at_the_truth() -> None:
    rng = np.random.default_rng(2)
    truth = series(np.exp(rng.normal(-9.0, 1.0, size=20_000)), "date")
    realised = series(rng.normal(size=truth.size), "date") * np.sqrt(truth.shift(date=1))
    losses = {scale: float(qlike(scale * truth, realised).mean()) for scale in (0.5, 0.8, 1.0, 1.25, 2.0)}
    assert min(losses, key=losses.__getitem__) == 1.0
    # E[log(s h) + x^2 / (s h)] exceeds the least by log(s) + 1/s - 1.
    assert losses[2.0] - losses[1.0] == pytest.approx(math.log(2.0) - 0.5, abs=0.01)
    assert np.isnan(qlike(truth * 0.0, realised)).all()


def test_portfolio_return_earns_the_next_date_and_mends_small_gaps() -> None:
    weights = series(np.full((1, 5, 20), 0.05, dtype=np.float32), "portfolio", "date", "ticker")
    weights[0, 3] = np.nan
    returns = series(np.tile(np.arange(20) * 0.001, (5, 1)), "date", "ticker")
    returns[2, 19] = np.nan  # 95% known: scaled up
    returns[3, [18, 19]] = np.nan  # 90% known: none
    earned = portfolio_return(weights, returns)
    assert earned.dims == ("portfolio", "date")
    full = 0.001 * np.arange(20).mean()
    np.testing.assert_allclose(earned[0], [np.nan, full, 0.001 * np.arange(19).mean(), np.nan, np.nan], rtol=1e-6)
    assert np.isnan(portfolio_return(0.0 * weights, returns)).all()


def test_evaluate_against_a_plain_loop() -> None:
    version, returns = world()
    returns[10, 3] = np.nan
    version["loadings"][20, 5] = np.nan
    mask = np.isfinite(returns) & (returns["ticker"] != "ticker7")
    result = evaluate(version, returns, mask)
    for t in range(1, returns.sizes["date"]):
        fitted = version["loadings"].values[t - 1].astype(np.float64) @ version["factor_returns"].values[t]
        for kind, explained in (("total", fitted), ("predictive", version["expected_returns"].values[t - 1])):
            known = mask.values[t] & np.isfinite(explained)
            r = returns.values[t, known]
            expected = 1.0 - np.sum((r - explained[known]) ** 2) / np.sum(r**2)
            assert float(result[f"{kind}_r2"][t]) == pytest.approx(expected, abs=1e-10)
    z = result["portfolio_return"][:, 1:] / np.sqrt(version["portfolio_variance"].values[:, :-1])
    xr.testing.assert_allclose(result["standardised_return"][:, 1:], z, rtol=1e-12)
    assert all(
        np.isnan(result[name]).isel(date=0).all() for name in ("total_r2", "predictive_r2", "portfolio_return", "qlike")
    )
    assert all(not var.attrs for var in result.data_vars.values())
    assert set(evaluate(version[["loadings", "factor_returns"]], returns).data_vars) == {
        "total_r2",
        "total_sse",
        "total_sst",
    }


def test_summary_pools_sums_of_squares_over_the_chosen_dates() -> None:
    version, returns = world(400, 50)
    late = returns["date"] >= returns["date"][100]
    totals = summary(evaluate(version, returns), late)
    fitted = np.einsum(
        "dik,dk->di",
        version["loadings"].values[99:-1].astype(np.float64),
        version["factor_returns"].values[100:],
    )
    r = returns.values[100:]
    assert float(totals["total_r2"]) == pytest.approx(1.0 - np.square(r - fitted).sum() / np.square(r).sum(), abs=1e-12)
    # Signal 2 * (0.01^2 + 0.003^2) against noise 0.01^2.
    assert float(totals["total_r2"]) == pytest.approx(2.18 / 3.18, abs=0.03)
    assert (totals["observations"] == 300).all()
    z = evaluate(version, returns)["standardised_return"][:, 100:]
    np.testing.assert_allclose(totals["bias_statistic"], z.std("date", ddof=1), rtol=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), cut=st.integers(2, 57))
def test_the_future_does_not_change_evaluation(seed: int, cut: int) -> None:
    """Nothing after t, and no forecast as of t itself, enters the evaluation at t."""
    version, returns = world(seed=seed)
    other, other_returns = world(seed=seed + 1000)
    later = returns["date"] > returns["date"][cut]
    disturbed = xr.where(later, other, version)
    for forecast in ("loadings", "expected_returns", "weights", "portfolio_variance"):
        disturbed[forecast] = xr.where(later.shift(date=-1, fill_value=True), other[forecast], version[forecast])
    disturbed = disturbed.transpose("portfolio", "date", "ticker", "factor")
    before = evaluate(version, returns)
    after = evaluate(disturbed, xr.where(later, other_returns, returns).transpose("date", "ticker"))
    xr.testing.assert_equal(before.isel(date=slice(cut + 1)), after.isel(date=slice(cut + 1)))
    assert not before.isel(date=slice(cut + 1, None)).equals(after.isel(date=slice(cut + 1, None)))


def test_evaluation_refuses_what_does_not_line_up() -> None:
    version, returns = world()
    with pytest.raises(DataError, match="returns lacks ticker24"):
        evaluate(version, returns[:, :-1])
    with pytest.raises(DataError, match="returns lacks 2000-01-03"):
        portfolio_return(version["weights"], returns[1:])
    with pytest.raises(DataError, match="skips 2000-01-05"):
        evaluate(version.isel(date=[0, 1, 3, 4]), returns)
    wider = evaluate(version.isel(date=slice(5, 20), ticker=slice(0, 9)), returns)
    assert wider.sizes["date"] == 15
    with pytest.raises(ConfigError, match="at least one observation"):
        bias_band(0)
    dead = r_squared(0.0 * returns, returns)
    assert np.isnan(dead["r2"]).all()
