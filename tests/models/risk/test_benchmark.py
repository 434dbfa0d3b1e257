"""Covariance between portfolios, active risk and trades against the dense covariance."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from risk_models import N_FACTORS, N_TICKERS, array, dense, small_model, small_weights

from models.risk.benchmark import active_risk, active_weights, beta, covariance, incremental_risk, tracking_error
from models.risk.portfolio import RiskModel
from schemas.errors import DataError


def trades_list() -> xr.DataArray:
    values = np.zeros((3, 4))
    values[0, 0], values[1, [1, 2]], values[2, 3] = 0.2, (-0.1, 0.1), -0.3
    return xr.DataArray(
        values, {"trade": ["buy", "switch", "sell"], "ticker": ["t7", "t0", "t3", "t5"]}, ("trade", "ticker")
    )


@pytest.mark.parametrize("seed", range(3))
def test_covariance_beta_and_tracking_error_equal_the_dense_ones(seed: int) -> None:
    model, weights = small_model(seed), small_weights(seed)
    sigma, w = dense(model), weights.values
    benchmark = small_weights(seed + 7, "date", "ticker")
    others = small_weights(seed + 9).rename(portfolio="other")
    b = benchmark.values
    expected = np.einsum("pdi,dij,odj->pdo", w, sigma, others.values)
    np.testing.assert_allclose(covariance(model, weights, others), expected, rtol=1e-10, atol=1e-16)
    variance = np.einsum("di,dij,dj->d", b, sigma, b)
    np.testing.assert_allclose(
        beta(model, weights, benchmark), np.einsum("pdi,dij,dj->pd", w, sigma, b) / variance, rtol=1e-10
    )
    active = w - b
    np.testing.assert_allclose(
        tracking_error(model, weights, benchmark) ** 2, np.einsum("pdi,dij,pdj->pd", active, sigma, active), rtol=1e-10
    )
    np.testing.assert_allclose(beta(model, benchmark, benchmark), 1.0, rtol=1e-13)
    np.testing.assert_allclose(tracking_error(model, benchmark, benchmark), 0.0, atol=1e-18)


def test_active_risk_of_many_portfolios_equals_the_dense_one_each_beside_its_own_benchmark() -> None:
    model, parts = small_model(), [small_weights(seed, "date", "ticker") for seed in range(3)]
    weights = xr.concat(parts, "portfolio").assign_coords(portfolio=["fund", "index", "other"])
    weights[2, 1] = np.nan
    sigma = dense(model)
    found = active_risk(model, weights, {"other": "index", "fund": "other"})
    for name, benchmark in (("other", "index"), ("fund", "other")):
        w, b = (weights.sel(portfolio=each).values for each in (name, benchmark))
        variance, shared = (np.einsum("di,dij,dj->d", each, sigma, b) for each in (b, w))
        error = np.sqrt(np.einsum("di,dij,dj->d", w - b, sigma, w - b))
        np.testing.assert_allclose(found["portfolio_beta"].sel(portfolio=name), shared / variance, rtol=1e-10)
        np.testing.assert_allclose(found["tracking_error"].sel(portfolio=name), error, rtol=1e-10)
        assert np.isnan(error).sum() == 1
    assert found.sel(portfolio="index").isnull().all().to_array().all()
    one = active_risk(model, weights[:, [2]], {"other": "index", "fund": "other"})
    xr.testing.assert_identical(one, found.isel(date=[2]))
    with pytest.raises(DataError, match="no portfolio 'S&P' to have or to be a benchmark; known: fund, index, other"):
        active_risk(model, weights, {"fund": "S&P"})


def test_a_trade_changes_the_variance_by_what_the_dense_covariance_says() -> None:
    model, weights, trades = small_model(), small_weights(), trades_list()
    sigma, w = dense(model), weights.values
    v = trades.reindex(ticker=weights["ticker"], fill_value=0.0).values
    found = incremental_risk(model, weights, trades)

    def variance(held: np.ndarray) -> np.ndarray:
        return np.einsum("pdi,dij,pdj->pd", held, sigma, held)

    each = np.stack([variance(w + one) - variance(w) for one in v], axis=-1)
    np.testing.assert_allclose(found["variance_change"], each, rtol=1e-10, atol=1e-17)
    roots = np.stack([np.sqrt(variance(w + one)) - np.sqrt(variance(w)) for one in v], axis=-1)
    np.testing.assert_allclose(found["volatility_change"], roots, rtol=1e-9, atol=1e-16)
    np.testing.assert_allclose(
        found["variance_change_of_all"], variance(w + v.sum(axis=0)) - variance(w), rtol=1e-10, atol=1e-17
    )
    tiny = incremental_risk(model, weights, trades * 1e-6)
    np.testing.assert_allclose(tiny["marginal_variance_change"], found["marginal_variance_change"] * 1e-6, rtol=1e-9)
    np.testing.assert_allclose(tiny["variance_change"], tiny["marginal_variance_change"], rtol=1e-3)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 999), tickers=st.permutations(range(N_TICKERS)))
def test_rotated_factors_and_permuted_tickers_say_the_same(seed: int, tickers: list[int]) -> None:
    model, weights, benchmark = small_model(seed), small_weights(seed), small_weights(seed + 1, "date", "ticker")
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(N_FACTORS, N_FACTORS)))[0]
    turned = RiskModel(
        model.loadings.copy(data=model.loadings.values @ turn)[:, tickers],
        model.omega.copy(data=turn.T @ model.omega.values @ turn),
        model.specific_variance,
    )
    for function in (beta, tracking_error):
        there = function(turned, weights[:, :, tickers], benchmark[:, tickers[::-1]])
        xr.testing.assert_allclose(there, function(model, weights, benchmark), rtol=1e-8)


def test_what_is_not_covered_has_no_covariance_unless_its_weight_is_zero() -> None:
    whole, weights = small_model(), small_weights()
    loadings = whole.loadings.copy(deep=True)
    loadings[1, 2, 0] = np.nan
    model = RiskModel(loadings, whole.omega, whole.specific_variance)
    weights[1, :, 2] = 0.0
    benchmark = array(np.full((4, N_TICKERS), 1.0 / N_TICKERS), "date", "ticker")
    benchmark[:, 2] = 0.0
    found = beta(model, weights, benchmark)
    np.testing.assert_array_equal(np.isnan(found), [[False, True, False, False], [False] * 4])
    np.testing.assert_allclose(found[1], beta(whole, weights, benchmark)[1], rtol=1e-12)
    trades = xr.DataArray([[0.1], [0.1]], {"trade": [0, 1], "ticker": ["t2"]}, ("trade", "ticker"))
    assert np.isnan(incremental_risk(model, weights, trades)["variance_change"][1, 1]).all()


def test_wrong_labels_are_refused() -> None:
    model, weights = small_model(), small_weights()
    with pytest.raises(DataError, match="'portfolio'"):
        active_weights(model, weights, weights)
    with pytest.raises(DataError, match="does not know: XYZ"):
        active_weights(model, weights.assign_coords(ticker=["XYZ", *weights["ticker"].values[1:]]), weights[0])
    with pytest.raises(DataError, match="trades has dimensions"):
        incremental_risk(model, weights, weights[0])
