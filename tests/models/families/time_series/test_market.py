from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from models.families.time_series.market import MarketModel
from models.inference.regression import newey_west_covariance, time_series_regression
from models.panel import Panel
from schemas.errors import ModelError


def unequal_histories(n_dates: int = 150, n_stocks: int = 12, seed: int = 0) -> tuple[Panel, np.ndarray]:
    """Stocks that list late, delist early, have gaps, or are known on three dates only (the last one)."""
    rng = np.random.default_rng(seed)
    market = 0.0004 + 0.01 * rng.standard_normal(n_dates)
    beta = rng.uniform(0.2, 1.8, n_stocks)
    returns = 0.0001 + np.outer(market, beta) + 0.02 * rng.standard_normal((n_dates, n_stocks))
    returns[:40, 0] = np.nan
    returns[90:, 1] = np.nan
    returns[rng.random(n_dates) < 0.3, 2] = np.nan
    returns[3:, -1] = np.nan
    noise = rng.standard_normal(n_dates)
    factors = np.column_stack([noise, market])
    factors[120:125, 1] = np.nan
    return Panel.from_arrays(returns, factors=factors, observed_factors=["Noise", "Mkt-RF"]), market


def test_every_stock_agrees_with_statsmodels_over_its_own_history() -> None:
    panel, _ = unequal_histories()
    model = MarketModel("Mkt-RF", min_observations=20).fit(panel)
    market = panel.factors.sel(observed_factor="Mkt-RF").values
    for i, ticker in enumerate(panel.tickers[:-1]):
        returns = panel.returns.values[:, i]
        known = np.isfinite(returns) & np.isfinite(market)
        peer = sm.OLS(returns[known], sm.add_constant(market[known])).fit()
        ours = [
            getattr(model, name).sel(ticker=ticker).item()
            for name in (
                "alpha_",
                "beta_",
                "alpha_stderr_",
                "beta_stderr_",
                "r_squared_",
                "residual_variance_",
            )
        ]
        theirs = [*peer.params, *peer.bse, peer.rsquared, peer.mse_resid]
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)
        assert model.n_obs_.sel(ticker=ticker) == peer.nobs
    assert np.isnan(model.beta_.values[-1])
    assert np.isnan(model.loadings(panel).values[:, -1]).all()
    np.testing.assert_allclose(model.premia_, [np.nanmean(market)], rtol=1e-12)


def test_newey_west_errors_agree_with_statsmodels() -> None:
    panel, _ = unequal_histories(seed=1)
    model = MarketModel("Mkt-RF", cov_type="HAC", newey_west_lags=4, min_observations=20).fit(
        panel.sel(end=panel.dates[110])
    )
    market = panel.factors.sel(observed_factor="Mkt-RF").values[:111]
    for i in (0, 1, 3, 4):  # histories without gaps: there a lag is the same thing for both
        returns = panel.returns.values[:111, i]
        known = np.isfinite(returns)
        design = sm.add_constant(market[known])
        peer = sm.OLS(returns[known], design).fit(cov_type="HAC", cov_kwds={"maxlags": 4})
        ours = [model.alpha_stderr_.values[i], model.beta_stderr_.values[i]]
        np.testing.assert_allclose(ours, peer.bse, rtol=1e-10)


def test_two_returns_make_no_beta_and_a_date_without_the_factor_enters_nowhere() -> None:
    panel, market = unequal_histories()
    returns = panel.returns.values.copy()
    returns[2, -1] = np.nan
    model = MarketModel("Mkt-RF", min_observations=0).fit(
        Panel.from_arrays(returns, factors=market[:, None], observed_factors=["Mkt-RF"])
    )
    assert model.n_obs_.values[-1] == 2
    assert np.isnan([model.beta_.values[-1], model.beta_stderr_.values[-1], model.r_squared_.values[-1]]).all()
    gap = np.where(np.arange(150) == 70, np.nan, market)[:, None]
    known = np.isfinite(returns)
    whole = time_series_regression(returns, gap, known, min_observations=10)
    known[70] = False
    without = time_series_regression(returns, market[:, None], known, min_observations=10)
    np.testing.assert_array_equal(whole.n_obs, without.n_obs)
    np.testing.assert_allclose(whole.beta, without.beta, rtol=1e-12)
    np.testing.assert_allclose(whole.alpha_stderr, without.alpha_stderr, rtol=1e-12)


def test_newey_west_covariance_of_a_mean_agrees_with_statsmodels() -> None:
    rng = np.random.default_rng(3)
    series = np.convolve(rng.standard_normal(203), [1.0, 0.5, 0.2, 0.1], mode="valid")
    peer = sm.OLS(series, np.ones(200)).fit(cov_type="HAC", cov_kwds={"maxlags": 5})
    ours = newey_west_covariance(series[:, None], 5)
    np.testing.assert_allclose(ours, peer.cov_params(), rtol=1e-10)
    with pytest.raises(ModelError, match="newey_west_lags=200"):
        newey_west_covariance(series[:, None], 200)


def test_own_market_is_the_weighted_return_of_stocks_that_have_one() -> None:
    panel, _ = unequal_histories()
    rng = np.random.default_rng(2)
    weights = rng.random(panel.returns.shape)
    panel = Panel.from_arrays(panel.returns.values, market_weight=weights)
    model = MarketModel(min_observations=30).fit(panel)
    returns = panel.returns.values
    expected = [
        np.average(r[np.isfinite(r)], weights=w[np.isfinite(r)])
        for r, w in zip(returns, panel.market_weight.values, strict=True)
    ]
    np.testing.assert_allclose(model.factor_returns(panel).values[:, 0], expected, rtol=1e-6)
    assert model.factors_ == ["market"]
    held = np.average(model.beta_.values[3:-1], weights=weights.mean(axis=0)[3:-1])
    assert held == pytest.approx(1.0, abs=0.2)


def test_expected_returns_leave_alpha_out_and_window_keeps_the_last_dates() -> None:
    panel, _ = unequal_histories()
    whole = MarketModel("Mkt-RF").fit(panel)
    np.testing.assert_allclose(
        whole.expected_returns(panel).values[0, 3], whole.beta_.values[3] * whole.premia_[0], rtol=1e-12
    )
    last = panel.sel(start=panel.dates[-75])
    windowed = MarketModel("Mkt-RF", window=70).fit(panel)  # five of the last 75 dates have no market return
    np.testing.assert_array_equal(windowed.beta_.values, MarketModel("Mkt-RF").fit(last).beta_.values)


def test_loadings_follow_the_tickers_of_the_panel() -> None:
    panel, _ = unequal_histories()
    model = MarketModel("Mkt-RF", min_observations=20).fit(panel)
    other = Panel.from_arrays(
        np.zeros((2, 2)), tickers=[panel.tickers[4], "new"], dates=pd.bdate_range("2030-01-01", periods=2)
    )
    loadings = model.loadings(other)
    np.testing.assert_array_equal(loadings.sel(ticker=panel.tickers[4]).values[:, 0], model.beta_.values[4])
    assert np.isnan(loadings.sel(ticker="new")).all()


def test_unusable_requests_are_refused_with_their_name() -> None:
    panel, _ = unequal_histories()
    with pytest.raises(ModelError, match=r"'SMB'.*Mkt-RF"):
        MarketModel("SMB").fit(panel)
    with pytest.raises(ModelError, match="min_observations=1000"):
        MarketModel("Mkt-RF", min_observations=1000).fit(panel)
    with pytest.raises(ModelError, match="not fitted"):
        MarketModel().loadings(panel)
    with pytest.raises(ModelError, match="rotated"):
        MarketModel("Mkt-RF").fit(panel).rotate(np.eye(1))
