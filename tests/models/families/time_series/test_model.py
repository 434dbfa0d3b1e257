"""Regressions over time: every stock beside statsmodels and linearmodels, paths beside refits, shrinkage, state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import xarray as xr
from linearmodels.asset_pricing import TradedFactorModel
from linearmodels.datasets import french

from models.families.cross_section import CrossSectionalModel
from models.families.fama_macbeth import FamaMacBeth
from models.families.time_series.market import MarketModel
from models.families.time_series.model import TimeSeriesModel
from models.forecasting.forecast import with_statistics
from models.inference.betas import beta_paths, blume_coefficients, shrink_blume, shrink_vasicek
from models.inference.factor_premia import premia_of_dates, two_pass
from models.inference.regression import time_series_regression
from models.panel import Panel
from schemas.errors import ConfigError, ModelError
from schemas.statistics import version_contract

FACTORS = ["MktRF", "SMB", "HML"]


def simulated(n_dates: int = 140, n_stocks: int = 10, seed: int = 0, holes: bool = True) -> Panel:
    """Late and ended listings, heteroskedastic errors; a stock with holes and dates without one factor if asked for."""
    rng = np.random.default_rng(seed)
    factors = 0.001 + 0.01 * rng.standard_normal((n_dates, 3))
    beta = rng.standard_normal((n_stocks, 3)) * 0.3 + [1.0, 0.2, 0.1]
    errors = 0.02 * rng.standard_normal((n_dates, n_stocks)) * (1.0 + 50.0 * np.abs(factors[:, :1]))
    returns = factors @ beta.T + errors
    returns[:50, 0] = np.nan
    returns[100:, 1] = np.nan
    returns[4:, 3] = np.nan
    if holes:
        returns[rng.random(n_dates) < 0.2, 2] = np.nan
        factors[[60, 61], 1] = np.nan
    return Panel.from_arrays(returns, factors=factors, observed_factors=FACTORS)


@pytest.fixture(scope="module")
def sorted_portfolios() -> Panel:
    data = french.load()
    names = [name for name in data.columns if name[0] == "S" and name[2] in "MV"]
    returns = data[names].to_numpy() - data[["RF"]].to_numpy()
    return Panel.from_arrays(
        returns,
        tickers=names,
        dates=pd.to_datetime(data["dates"]),
        factors=data[FACTORS].to_numpy(),
        observed_factors=FACTORS,
    )


@pytest.mark.parametrize("cov_type", ["nonrobust", "HC0", "HC1", "HC2", "HC3", "HAC"])
def test_every_stock_agrees_with_statsmodels_over_its_own_history(cov_type: Any) -> None:
    """For "HAC" without holes: only statsmodels takes the two sides of a hole for neighbours."""
    options: dict[str, Any] = {"cov_kwds": {"maxlags": 5}} if cov_type == "HAC" else {}
    panel = simulated(holes=not options)
    lags = 5 if options else None
    model = TimeSeriesModel(cov_type=cov_type, newey_west_lags=lags, min_observations=20).fit(panel)
    factors = panel.factors.values
    for i in (0, 1, 2, *range(4, 10)):
        returns = panel.returns.values[:, i]
        known = np.isfinite(returns) & np.isfinite(factors).all(axis=1)
        peer = sm.OLS(returns[known], sm.add_constant(factors[known])).fit(cov_type=cov_type, **options)
        ours = [model.alpha_.values[i], *model.beta_.values[i]]
        np.testing.assert_allclose(ours, peer.params, rtol=1e-10)
        ours = [model.alpha_stderr_.values[i], *model.beta_stderr_.values[i]]
        np.testing.assert_allclose(ours, peer.bse, rtol=1e-10)
        assert model.r_squared_.values[i] == pytest.approx(peer.rsquared, rel=1e-10)
        assert model.residual_variance_.values[i] == pytest.approx(peer.mse_resid, rel=1e-10)
    assert np.isnan(model.beta_.values[3]).all()
    assert np.isnan(model.alpha_stderr_.values[3])


def test_sorted_portfolios_agree_with_the_traded_factor_model(sorted_portfolios: Panel) -> None:
    panel = sorted_portfolios
    model = TimeSeriesModel(cov_type="HC1").fit(panel)
    peer = TradedFactorModel(panel.returns.values, panel.factors.values).fit()  # robust and debiased: HC1
    np.testing.assert_allclose(model.alpha_, peer.alphas, rtol=1e-9)
    np.testing.assert_allclose(model.beta_, peer.betas, rtol=1e-9)
    errors = np.column_stack([model.alpha_stderr_, model.beta_stderr_])
    np.testing.assert_allclose(errors, peer.std_errors, rtol=1e-9)
    np.testing.assert_allclose(model.premia_, peer.risk_premia, rtol=1e-12)
    np.testing.assert_allclose(model.premia_stderr_, peer.risk_premia_se, rtol=1e-12)
    statistics = model.statistics()
    assert statistics["alpha_chi2"].item() == pytest.approx(peer.j_statistic.stat, rel=1e-9)
    assert statistics["n_tested"] == len(panel.tickers)
    assert 0.0 < statistics["grs_pvalue"] < 0.01  # three factors do not price these portfolios
    capm = MarketModel("MktRF", cov_type="HAC", newey_west_lags=3).fit(panel)
    peer = TradedFactorModel(panel.returns.values, panel.factors.values[:, :1]).fit(
        cov_type="kernel", bandwidth=3, debiased=False
    )
    np.testing.assert_allclose(capm.alpha_stderr_, peer.std_errors["alpha"], rtol=1e-9)
    np.testing.assert_allclose(capm.premia_stderr_, peer.risk_premia_se, rtol=1e-9)


def test_statistics_split_the_variance_and_say_why_a_test_is_missing() -> None:
    panel = simulated()
    model = TimeSeriesModel(("HML", "MktRF"), min_observations=20).fit(panel)
    assert model.factors_ == ["HML", "MktRF"]
    found = model.statistics()
    whole = found["return_variance_systematic"] + found["return_variance_specific"]
    np.testing.assert_allclose(whole, found["return_variance"], rtol=1e-12)
    returns = panel.returns.values[:, 5]
    fitted = panel.factors.values[:, [2, 0]] @ model.beta_.values[5]
    assert found["return_variance"].values[5] == pytest.approx(np.var(returns, ddof=1))
    assert found["return_variance_systematic"].values[5] == pytest.approx(np.var(fitted, ddof=1))
    assert found["beta_stderr"].dims == ("ticker", "factor")
    assert np.isfinite(found["grs"])
    assert found["n_tested"] == 6  # of ten: one lists late, one is delisted, one has holes, one four returns
    assert "comment" not in found["grs"].attrs
    short = TimeSeriesModel(min_observations=5).fit(Panel(panel.data.isel(date=slice(70, 79))))
    found = short.statistics()
    assert np.isnan([found["grs"].item(), found["alpha_chi2_pvalue"].item()]).all()
    assert "needs more dates than assets and factors" in found["grs"].attrs["comment"]
    restored = TimeSeriesModel.from_state(short.get_params(), short.state())
    assert restored.statistics()["grs"].attrs == found["grs"].attrs
    version = with_statistics(xr.Dataset(coords={"ticker": panel.tickers, "factor": FACTORS}), found)
    told = {name: variable.comment for name, variable in version_contract(version).items() if name in found}
    assert told["grs"].startswith("Not made: The GRS test needs more dates than assets")
    assert told["alpha"] == "Of the last fit. NaN: not known, or the stock is not covered."
    own = MarketModel(min_observations=20).fit(Panel.from_arrays(panel.returns.values[:, 4:]))
    assert "linearly dependent" in own.tests_comment_  # the market is a portfolio of the stocks


def test_premia_of_dates_are_two_passes_on_complete_histories(sorted_portfolios: Panel) -> None:
    returns, factors = sorted_portfolios.returns.values.astype(np.float64), sorted_portfolios.factors.values
    known = np.isfinite(returns)
    beta = time_series_regression(returns, factors, known, min_observations=20).beta
    cases: list[tuple[Any, int | None]] = [("nonrobust", None), ("HC0", None), ("HAC", 4)]
    for cov_type, lags in cases:
        peer = two_pass(returns, factors, cov_type=cov_type, newey_west_lags=lags)
        premia, errors, dropped = premia_of_dates(
            returns, factors, known, beta, cov_type=cov_type, newey_west_lags=lags
        )
        np.testing.assert_allclose(premia, peer.premia, rtol=1e-9)
        np.testing.assert_allclose(errors, peer.premia_stderr, rtol=1e-9)
        assert dropped == 0
    model = TimeSeriesModel(premia="gls", cov_type="HC0").fit(sorted_portfolios)
    peer = two_pass(returns, factors, weighting="gls")
    np.testing.assert_allclose(model.premia_, peer.premia, rtol=1e-12)
    np.testing.assert_allclose(model.premia_stderr_, peer.premia_stderr, rtol=1e-12)


def test_premia_of_dates_cover_the_truth_on_unequal_histories() -> None:
    """Premia are so large that intervals which take betas for known cover 0.82 only."""
    rng = np.random.default_rng(11)
    truth, beta = np.array([3.0, -2.4]), np.column_stack([np.linspace(0.4, 1.6, 20), rng.standard_normal(20)])
    first = rng.integers(0, 150, 20)
    known = np.arange(240)[:, None] >= np.where(np.arange(20) < 6, 0, first)
    shanken, gmm = [], []
    for _ in range(400):
        factors = rng.standard_normal((240, 2))
        returns = (truth + factors) @ beta.T + rng.standard_normal((240, 20))
        estimated = time_series_regression(returns, factors, known, min_observations=20).beta
        premia, errors, _ = premia_of_dates(returns, factors, known, estimated, cov_type="nonrobust")
        robust = premia_of_dates(returns, factors, known, estimated, cov_type="HC0")[1]
        shanken.append(np.abs(premia - truth) < 1.96 * errors)
        gmm.append(np.abs(premia - truth) < 1.96 * robust)
    np.testing.assert_allclose(np.mean(shanken, axis=0), 0.95, atol=0.035)
    np.testing.assert_allclose(np.mean(gmm, axis=0), 0.95, atol=0.035)


def test_paths_are_refits_up_to_each_date_and_forget_what_left_the_window() -> None:
    panel = simulated()
    for window in (None, 30):
        model = TimeSeriesModel(window=window, min_observations=12)
        path = model.beta_path(panel)
        assert path["beta"].dims == ("date", "ticker", "factor")
        for t in (25, 60, 61, 62, 110, 139):
            fit = model.clone().fit(panel.sel(end=panel.dates[t]))
            for name in ("alpha", "beta", "alpha_stderr", "beta_stderr", "r_squared", "residual_variance"):
                ours, theirs = path[name].values[t], getattr(fit, f"{name}_").values
                np.testing.assert_allclose(ours, theirs, rtol=1e-9, err_msg=f"{name} at {t}, window {window}")
            np.testing.assert_array_equal(path["n_obs"].values[t], fit.n_obs_)
    returns = panel.returns.values.copy()
    returns[40, 5] = 1e9  # a bad print
    known = np.isfinite(returns)
    bad, good = (
        beta_paths(r, panel.factors.values, known, window=30, min_observations=12)["beta"].values[72:, 5]
        for r in (returns, panel.returns.values)
    )
    np.testing.assert_array_equal(bad, good)


def test_paths_do_not_see_the_future() -> None:
    panel = simulated()
    other = panel.returns.values.copy()
    other[100:] = simulated(seed=4).returns.values[100:]
    for model in (
        MarketModel(shrinkage="vasicek", min_observations=12),
        TimeSeriesModel(window=30, min_observations=12),
    ):
        before = model.beta_path(panel)["beta"].values
        after = model.beta_path(Panel(panel.data.assign(returns=(("date", "ticker"), other))))["beta"].values
        np.testing.assert_array_equal(before[:100], after[:100])
        assert not np.array_equal(before[100], after[100], equal_nan=True)


def test_vasicek_is_the_posterior_mean_and_nearer_to_the_truth() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(1.0, 0.3, 300)
    market = 0.04 * rng.standard_normal(120)
    returns = market[:, None] * truth + 0.15 * rng.standard_normal((120, 300))
    returns[:90, ::2] = np.nan  # every second one has a short history
    panel = Panel.from_arrays(returns, factors=market[:, None], observed_factors=["m"])
    plain = MarketModel("m", min_observations=20).fit(panel)
    shrunk = MarketModel("m", min_observations=20, shrinkage="vasicek").fit(panel)
    b, v = plain.beta_.values, plain.beta_stderr_.values**2
    prior = b.var(ddof=1)
    expected = (b.mean() / prior + b / v) / (1.0 / prior + 1.0 / v)
    np.testing.assert_allclose(shrunk.beta_, expected, rtol=1e-12)
    np.testing.assert_array_equal(shrunk.beta_ols_, plain.beta_)
    np.testing.assert_array_equal(shrunk.loadings(panel).values[0, :, 0], shrunk.beta_)
    assert np.mean((shrunk.beta_.values - truth) ** 2) < 0.7 * np.mean((b - truth) ** 2)
    moved = np.abs(shrunk.beta_.values - b) / np.abs(b - b.mean())
    assert moved[::2].mean() > 1.5 * moved[1::2].mean()  # the shorter the history, the more
    path = MarketModel("m", min_observations=20, shrinkage="vasicek").beta_path(panel)
    np.testing.assert_allclose(path["beta"].values[-1], shrunk.beta_, rtol=1e-9)
    np.testing.assert_array_equal(shrink_vasicek(np.array([1.0, np.nan]), np.array([0.1, np.nan])), [1.0, np.nan])


def test_blume_predicts_the_next_period() -> None:
    np.testing.assert_allclose(shrink_blume(np.array([0.5, 1.0, 2.0])), [0.6815, 1.02, 1.697])
    panel = simulated()
    model = MarketModel("MktRF", shrinkage="blume", min_observations=20).fit(panel)
    np.testing.assert_allclose(model.beta_, 0.343 + 0.677 * model.beta_ols_, rtol=1e-12)
    rng = np.random.default_rng(2)
    truth = rng.normal(1.0, 0.4, 4000)
    earlier, later = (truth + 0.3 * rng.standard_normal(4000) for _ in range(2))
    earlier[0] = np.nan
    intercept, slope = blume_coefficients(earlier, later)
    assert slope == pytest.approx(0.16 / 0.25, abs=0.03)  # the reliability of the first estimate
    assert intercept == pytest.approx(1.0 - slope, abs=0.02)
    with pytest.raises(ModelError, match="three stocks"):
        blume_coefficients(earlier[:3], later[:3])


def test_unusable_requests_are_refused_with_their_name() -> None:
    panel = simulated()
    with pytest.raises(ModelError, match=r"lacks the observed factors \['RMW'\]; it has \['MktRF'"):
        TimeSeriesModel(("MktRF", "RMW")).fit(panel)
    with pytest.raises(ConfigError, match="each once"):
        TimeSeriesModel(("MktRF", "MktRF")).fit(panel)
    with pytest.raises(ConfigError, match="cov_type='HC4' is not known"):
        TimeSeriesModel(cov_type="HC4").fit(panel)  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(ConfigError, match="newey_west_lags=3 needs cov_type='HAC'"):
        MarketModel("MktRF", newey_west_lags=3).fit(panel)
    with pytest.raises(ConfigError, match="shrinkage='james'"):
        MarketModel("MktRF", shrinkage="james").fit(panel)  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(ModelError, match="window=3 is too short"):
        TimeSeriesModel(window=3).beta_path(panel)
    with pytest.raises(ModelError, match="GLS needs more dates"):
        TimeSeriesModel(min_observations=5, premia="gls").fit(Panel(panel.data.isel(date=slice(70, 79))))


def test_joint_tests_leave_out_the_date_that_the_lag_leaves_uncovered(sorted_portfolios: Panel) -> None:
    """The first date of a panel with lagged characteristics has no stock in its mask."""
    mask = np.ones(sorted_portfolios.mask.shape, dtype=bool)
    mask[0] = False
    lagged = Panel(sorted_portfolios.data.assign(mask=(("date", "ticker"), mask)))
    expected = sorted_portfolios.sel(start=sorted_portfolios.dates[1])
    for premia in ("mean", "gls"):
        ours = TimeSeriesModel(premia=premia).fit(lagged)
        direct = TimeSeriesModel(premia=premia).fit(expected)
        assert ours.n_tested_.item() == len(lagged.tickers)
        for name in ("grs", "grs_pvalue", "alpha_chi2", "alpha_chi2_pvalue"):
            assert getattr(ours, f"{name}_").item() == pytest.approx(getattr(direct, f"{name}_").item(), rel=1e-10)
        if premia == "gls":
            np.testing.assert_allclose(ours.premia_, direct.premia_, rtol=1e-10)
            np.testing.assert_allclose(ours.premia_stderr_, direct.premia_stderr_, rtol=1e-10)


def test_why_no_stock_has_a_beta_names_the_factors() -> None:
    rng = np.random.default_rng(0)
    market = rng.standard_normal((80, 1))
    factors = np.hstack([market, rng.standard_normal((80, 1)), 2.0 * market])
    panel = Panel.from_arrays(rng.standard_normal((80, 4)), factors=factors, observed_factors=["MKT", "SMB", "MKT_x2"])
    with pytest.raises(ModelError, match="factors MKT, MKT_x2 are collinear, or constant, on the 80 dates"):
        TimeSeriesModel().fit(panel)
    assert np.isfinite(TimeSeriesModel(("MKT", "SMB")).fit(panel).premia_).all()
    other = Panel(panel.data.assign(factors=panel.data["factors"] * np.nan))
    with pytest.raises(ModelError, match="have no date in common"):
        TimeSeriesModel().fit(other)
    with pytest.raises(ModelError, match=r"min_observations=90 returns .* longest history has 80 of 80 dates"):
        TimeSeriesModel(("MKT",), min_observations=90).fit(panel)


@pytest.mark.parametrize("model", [FamaMacBeth(), CrossSectionalModel()], ids=["fama_macbeth", "cross_section"])
def test_a_characteristic_twice_is_named(model: FamaMacBeth | CrossSectionalModel) -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((30, 12, 3))
    values[..., 2] = values[..., 0]
    panel = Panel.from_arrays(rng.standard_normal((30, 12)), values, chars=["size", "value", "cap"])
    with pytest.raises(ModelError, match=r"size, cap are collinear on all of them"):
        model.fit(panel)
