"""Fama-MacBeth against linearmodels, Petersen's published numbers, and plain regressions on deficient dates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import linearmodels
import numpy as np
import pandas as pd
import pytest
import statsmodels.stats.tests
from hypothesis import given, settings
from hypothesis import strategies as st

from models.families.fama_macbeth.model import FamaMacBeth
from models.panel import Panel
from models.statistics.gram import GramStatistics, Weighting, gram_of, gram_statistics, managed_portfolios
from schemas.errors import ConfigError, DataError, ModelError


def unbalanced(n_dates: int = 90, n_stocks: int = 25, n_chars: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Simulate returns with gaps, and float32 characteristics that are missing for whole rows."""
    rng = np.random.default_rng(seed)
    characteristics = rng.standard_normal((n_dates, n_stocks, n_chars)).astype(np.float32)
    slopes = np.cumsum(0.002 * rng.standard_normal((n_dates, n_chars)), axis=0) + 0.01
    returns = np.einsum("tnl,tl->tn", characteristics, slopes)
    returns += 0.005 + 0.05 * rng.standard_normal((n_dates, n_stocks))
    returns[rng.random(returns.shape) < 0.2] = np.nan
    characteristics[rng.random(returns.shape) < 0.1] = np.nan
    returns[:30, :5] = np.nan
    return returns, characteristics


def peer_fit(
    panel: Panel, lags: int, weights: np.ndarray | None = None, *, debiased: bool = False
) -> linearmodels.panel.results.FamaMacBethResults:
    """Linearmodels on the same rows: Bartlett kernel, bandwidth ``lags``, divisor T unless debiased."""
    date, stock = np.nonzero(panel.mask.values)
    index = pd.MultiIndex.from_arrays([stock, panel.dates[date]], names=["entity", "time"])
    exog = pd.DataFrame(panel.characteristics.values[date, stock].astype(float), index, panel.chars)
    exog.insert(0, "intercept", 1.0)
    dependent = pd.DataFrame({"ret": panel.returns.values[date, stock]}, index)
    held = None if weights is None else pd.DataFrame({"weight": weights[date, stock]}, index)
    model = linearmodels.FamaMacBeth(dependent, exog, weights=held)
    return model.fit(cov_type="kernel", kernel="bartlett", bandwidth=lags, debiased=debiased)


@pytest.mark.parametrize("lags", [0, 3, None])
def test_premia_and_errors_agree_with_linearmodels_on_missing_data(lags: int | None) -> None:
    panel = Panel.from_arrays(*unbalanced())
    model = FamaMacBeth(newey_west_lags=lags).fit(panel)
    peer = peer_fit(panel, 3 if lags is None else lags)  # floor(4 (90 / 100)^(2/9)) = 3
    assert model.factors_ == ["intercept", *panel.chars]
    np.testing.assert_allclose(model.premia_, peer.params.values, rtol=1e-10)
    np.testing.assert_allclose(model.premia_stderr_, peer.std_errors.values, rtol=1e-10)
    np.testing.assert_allclose(model.t_statistics_, peer.tstats.values, rtol=1e-10)
    slopes = model.factor_returns(panel).values
    np.testing.assert_allclose(slopes, peer.all_params.values, rtol=1e-10, atol=1e-12)


@pytest.mark.filterwarnings("ignore:.*deficient rank")
def test_deficient_dates_are_dropped_and_counted() -> None:
    returns, characteristics = unbalanced()
    characteristics[10, :, 1] = 2.0 * characteristics[10, :, 0]  # collinear
    characteristics[11, :, 2] = 1.0  # collinear with the intercept
    covered = np.flatnonzero(np.isfinite(characteristics[12]).all(axis=1))
    returns[12] = np.nan
    returns[12, covered[:4]] = 0.01  # as many stocks as regressors: slopes without a residual
    returns[13] = np.nan  # nobody: no date to be counted
    panel = Panel.from_arrays(returns, characteristics)
    model = FamaMacBeth(newey_west_lags=2).fit(panel)
    slopes = model.factor_returns(panel).values
    assert np.flatnonzero(np.isnan(slopes).all(axis=1)).tolist() == [10, 11, 12, 13]
    assert (model.n_dropped_, model.n_dates_) == (3, 86)
    without = Panel(panel.data.isel(date=np.delete(np.arange(90), [12, 13])))
    peer = peer_fit(without, 2)
    np.testing.assert_allclose(model.premia_, peer.params.values, rtol=1e-8)
    np.testing.assert_allclose(model.premia_stderr_, peer.std_errors.values, rtol=1e-8)
    assert np.isfinite(FamaMacBeth(min_stocks=4).fit(panel).factor_returns(panel).values[12]).all()


def test_a_constant_characteristic_takes_the_place_of_the_intercept() -> None:
    returns, characteristics = unbalanced()
    ones = np.where(np.isfinite(characteristics[..., :1]), np.float32(1.0), np.float32(np.nan))
    plain = FamaMacBeth().fit(Panel.from_arrays(returns, characteristics))
    panel = Panel.from_arrays(
        returns, np.concatenate([characteristics, ones], axis=2), chars=["a", "b", "c", "constant"]
    )
    model = FamaMacBeth().fit(panel)
    assert model.factors_ == ["a", "b", "c", "constant"]
    np.testing.assert_allclose(model.premia_[[3, 0, 1, 2]], plain.premia_, rtol=1e-10)
    np.testing.assert_array_equal(model.loadings(panel).values, panel.characteristics.values)
    np.testing.assert_allclose(
        model.residuals(panel).values,
        plain.residuals(Panel.from_arrays(returns, characteristics)).values,
        atol=1e-12,
    )


def test_characteristics_are_found_by_name() -> None:
    panel = Panel.from_arrays(*unbalanced(), chars=["a", "b", "c"])
    model = FamaMacBeth().fit(panel)
    permuted = Panel(panel.data.isel(char=[2, 0, 1]))
    np.testing.assert_array_equal(model.loadings(permuted).values, model.loadings(panel).values)
    np.testing.assert_array_equal(model.factor_returns(permuted).values, model.factor_returns(panel).values)
    with pytest.raises(ModelError, match=r"lacks.*\['b'\]"):
        model.loadings(Panel(panel.data.isel(char=[0, 2])))
    with pytest.raises(ModelError, match="Only 0 of 90 dates"):
        FamaMacBeth(min_stocks=1000).fit(panel)


def test_gram_statistics_agree_with_plain_products_and_join() -> None:
    returns, characteristics = unbalanced(n_dates=300)  # more than one block
    panel = Panel.from_arrays(returns, characteristics)
    weight = np.random.default_rng(0).uniform(0.5, 2.0, returns.shape)
    weights = panel.returns.copy(data=weight)
    gram = gram_statistics(panel, weights=weights, intercept=True)
    for t in (0, 29, 255, 256, 299):
        known = panel.mask.values[t]
        Z = np.column_stack([np.ones(known.sum()), characteristics[t, known].astype(float)])
        w, r = weight[t, known], returns[t, known]
        np.testing.assert_allclose(gram.zz[t], (Z.T * w) @ Z, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(gram.zr[t], (Z.T * w) @ r, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(gram.rr[t], (w * r) @ r, rtol=1e-12)
        assert gram.n[t] == known.sum()
    cut = panel.dates[100]
    joined = GramStatistics.concat([gram.sel(end=cut), gram.sel(start=panel.dates[101])])
    np.testing.assert_array_equal(joined.zz, gram.zz)
    assert joined.dates.equals(panel.dates)
    with pytest.raises(DataError, match="follow one another"):
        GramStatistics.concat([gram.sel(end=cut), gram.sel(start=cut)])


def test_managed_portfolios_are_finite_at_any_rank() -> None:
    returns, characteristics = unbalanced()
    characteristics[5, :, 1] = -characteristics[5, :, 0]
    returns[6, 2:] = np.nan
    returns[6, :2], characteristics[6, :2] = 0.01, [[1.0, 2.0, 3.0], [0.0, 1.0, -1.0]]
    returns[7] = np.nan
    panel = Panel.from_arrays(returns, characteristics)
    portfolios = managed_portfolios(gram_statistics(panel))
    assert np.isnan(portfolios[7]).all()
    assert np.isfinite(np.delete(portfolios, 7, axis=0)).all()
    for t in (0, 5, 6, 89):  # whatever the solution, the fit is that of least squares
        known = panel.mask.values[t]
        Z, r = characteristics[t, known].astype(float), returns[t, known]
        peer = np.linalg.lstsq(Z, r)[0]
        np.testing.assert_allclose(Z @ portfolios[t], Z @ peer, atol=1e-10)


def test_characteristics_that_nobody_has_are_named():
    rng = np.random.default_rng(0)
    characteristics = rng.uniform(-1.0, 1.0, (30, 20, 3)).astype(np.float32)
    characteristics[:, :, 1] = 0.0
    panel = Panel.from_arrays(rng.normal(size=(30, 20)), characteristics, chars=["size", "mom36m", "value"])
    with pytest.raises(ModelError, match=r"No stock has mom36m on most of them"):
        FamaMacBeth().fit(panel)


def test_weighted_slopes_and_debiased_errors_agree_with_linearmodels() -> None:
    returns, characteristics = unbalanced()
    cap = np.random.default_rng(5).pareto(1.5, returns.shape) + 0.01
    panel = Panel.from_arrays(returns, characteristics, market_weight=cap)
    weights = panel.market_weight.values.astype(np.float64)
    for weighting, held in (("cap", weights), ("sqrt_cap", np.sqrt(weights))):
        model = FamaMacBeth(newey_west_lags=2, weighting=weighting, debiased=True).fit(panel)
        peer = peer_fit(panel, 2, weights=held, debiased=True)
        np.testing.assert_allclose(model.premia_, peer.params.values, rtol=1e-10)
        np.testing.assert_allclose(model.premia_stderr_, peer.std_errors.values, rtol=1e-10)
        np.testing.assert_allclose(model.premia_covariance_, peer.cov.values, rtol=1e-9, atol=1e-18)


def test_petersen_published_slope_and_error() -> None:
    """Petersen (2009), Review of Financial Studies 22, and his programming page: slope 1.0356, standard error .0333.

    His simulated panel of 500 firms and 10 years ships with statsmodels; the error is that with T - 1 in the divisor.
    """
    table = np.loadtxt(Path(statsmodels.stats.tests.__file__).parent / "test_data.txt")
    frame = pd.DataFrame(table, columns=["ticker", "year", "x", "y"])
    frame["date"] = pd.to_datetime((1990 + frame["year"]).astype(int).astype(str))
    panel = Panel.from_long(frame, returns="y", characteristics=["x"], lag=0, transform="none", constant=False)
    assert (int(panel.mask.sum()), len(panel.dates)) == (5000, 10)
    model = FamaMacBeth(newey_west_lags=0, debiased=True).fit(panel)
    assert model.premia_[1] == pytest.approx(1.0356, abs=5e-5)
    assert model.premia_stderr_[1] == pytest.approx(0.0333, abs=5e-5)


@pytest.mark.filterwarnings("ignore:.*deficient rank", "ignore:Of .* dates")
def test_a_characteristic_that_nobody_has_costs_its_own_slope_alone() -> None:
    """Linearmodels drops such dates; here the other slopes are those of the regression without the column."""
    returns, characteristics = unbalanced()
    covered = np.isfinite(characteristics[..., 1])
    characteristics[:40, :, 1] = np.where(covered[:40], np.float32(0.0), np.float32(np.nan))
    panel = Panel.from_arrays(returns, characteristics)
    model = FamaMacBeth(newey_west_lags=2).fit(panel)
    slopes = model.factor_returns(panel).values
    assert (model.n_dates_, model.n_dropped_, model.n_partial_) == (90, 0, 40)
    assert model.n_slopes_.tolist() == [90, 90, 50, 90]
    assert np.isnan(slopes[:40, 2]).all()
    early = Panel(panel.data.isel(date=slice(40), char=[0, 2]))
    np.testing.assert_allclose(slopes[:40][:, [0, 1, 3]], peer_fit(early, 0).all_params.values, rtol=1e-9, atol=1e-12)
    late = peer_fit(panel.sel(start=panel.dates[40]), 2)  # for this column, all the dates that there are
    np.testing.assert_allclose(model.premia_[2], late.params.values[2], rtol=1e-10)
    np.testing.assert_allclose(model.premia_stderr_[2], late.std_errors.values[2], rtol=1e-10)
    np.testing.assert_allclose(model.premia_, np.nanmean(slopes, axis=0), rtol=1e-12)
    assert np.linalg.eigvalsh(model.premia_covariance_).min() > 0.0

    drop = FamaMacBeth(newey_west_lags=2, deficient="drop").fit(panel)
    peer = peer_fit(panel, 2)
    assert len(peer.all_params.dropna()) == 50
    assert (drop.n_dates_, drop.n_dropped_, drop.n_partial_) == (50, 40, 0)
    np.testing.assert_allclose(drop.premia_, peer.params.values, rtol=1e-10)


@pytest.mark.filterwarnings("ignore:Of .* dates")
def test_fits_of_partial_dates_are_complete_and_scores_agree() -> None:
    returns, characteristics = unbalanced()
    characteristics[:40, :, 1] *= 0.0
    characteristics[50, :, 1] = characteristics[50, :, 0]
    panel = Panel.from_arrays(returns, characteristics)
    gram = gram_of(panel, FamaMacBeth().design(panel))
    for deficient, known in (("drop_column", 89), ("ridge", 90), ("drop", 49)):
        model = FamaMacBeth(deficient=deficient).fit(panel)
        slopes, fitted = model.factor_returns(panel), model.fitted_returns(panel).values
        dates = slopes.notnull().any("factor").values
        assert dates.sum() == known
        assert np.isfinite(fitted[panel.mask.values & dates[:, None]]).all()
        assert np.isnan(fitted[~dates]).all()
        first = panel.mask.values[45] & np.isfinite(fitted[45])
        X = model.loadings(panel).values[45, first]
        np.testing.assert_allclose(fitted[45, first], X @ slopes.values[45], atol=1e-12)
        assert model.score_gram(gram) == pytest.approx(model.score(panel), abs=1e-9)


def test_the_score_of_a_weighted_model_is_over_the_whole_universe() -> None:
    returns, characteristics = unbalanced()
    weight = np.random.default_rng(5).lognormal(size=returns.shape)
    panel = Panel.from_arrays(returns, characteristics, market_weight=weight)
    model = FamaMacBeth(weighting="cap").fit(panel)
    design = model.design(panel)
    own, equal = gram_of(panel, design), gram_of(panel, replace(design, weighting="equal"))
    assert model.score_gram(own, over=equal) == pytest.approx(model.score(panel), abs=1e-9)


def test_collinear_dates_are_ridged_and_counted() -> None:
    returns, characteristics = unbalanced()
    characteristics[10, :, 1] = 2.0 * characteristics[10, :, 0]
    panel = Panel.from_arrays(returns, characteristics)
    with pytest.warns(UserWarning, match="1 are collinear and have ridge slopes"):
        model = FamaMacBeth(deficient="ridge", ridge=1e-3).fit(panel)
    assert (model.n_dates_, model.n_dropped_, model.n_ridged_, model.n_partial_) == (90, 0, 1, 0)
    slopes = model.factor_returns(panel).values
    known = panel.mask.values[10]
    Z = np.column_stack([np.ones(known.sum()), characteristics[10, known].astype(float)])
    penalty = 1e-3 * np.diag(np.square(Z).sum(axis=0))
    expected = np.linalg.solve(Z.T @ Z + penalty, Z.T @ returns[10, known])
    np.testing.assert_allclose(slopes[10], expected, rtol=1e-9)
    assert slopes[10, 1] == pytest.approx(2.0 * slopes[10, 2], rel=1e-9)  # shared in the units of each
    plain = FamaMacBeth().fit(panel)
    np.testing.assert_array_equal(np.delete(slopes, 10, axis=0), np.delete(plain.factor_returns(panel), 10, axis=0))
    assert (plain.n_dropped_, plain.n_ridged_) == (1, 0)
    restored = FamaMacBeth.from_state(model.get_params(), model.state())
    assert (restored.n_ridged_, restored.n_dates_) == (1, 90)
    np.testing.assert_array_equal(restored.t_statistics_, model.t_statistics_)


def test_unknown_parameters_are_refused() -> None:
    panel = Panel.from_arrays(*unbalanced())
    for params, message in (
        ({"deficient": "pinv"}, "deficient='pinv' is unknown"),
        ({"weighting": "value"}, "weighting='value' is unknown"),
        ({"deficient": "ridge", "ridge": 0.0}, "must be positive"),
    ):
        with pytest.raises(ConfigError, match=message):
            FamaMacBeth(**params).fit(panel)
    with pytest.raises(ModelError, match="needs the observed factors"):
        FamaMacBeth(estimated_betas={"char0": "market"}).fit(panel)


@settings(max_examples=15, deadline=None)
@given(start=st.integers(0, 40), length=st.integers(20, 50), weighting=st.sampled_from(["equal", "cap", "sqrt_cap"]))
def test_any_window_is_fitted_from_the_statistics_alone(start: int, length: int, weighting: Weighting) -> None:
    """Bit for bit what a fit of those dates of the panel gives."""
    panel = Panel.from_arrays(*unbalanced())
    model = FamaMacBeth(weighting=weighting)
    first, last = panel.dates[[start, start + length - 1]]
    apart = model.clone().fit_gram(gram_of(panel, model.design(panel)).sel(first, last))
    whole = model.clone().fit(panel.sel(first, last))
    np.testing.assert_array_equal(apart.premia_, whole.premia_)
    np.testing.assert_array_equal(apart.premia_covariance_, whole.premia_covariance_)


@settings(max_examples=15, deadline=None)
@given(units=st.lists(st.floats(1e-3, 1e3), min_size=3, max_size=3), n_lost=st.integers(0, 30))
@pytest.mark.filterwarnings("ignore:Of .* dates")
def test_units_of_a_characteristic_scale_its_premium_alone(units: list[float], n_lost: int) -> None:
    returns, characteristics = unbalanced()
    characteristics[:n_lost, :, 2] *= 0.0
    characteristics[40, :, 1] = characteristics[40, :, 0]
    scale = np.array([1.0, *units])
    for deficient in ("drop_column", "ridge"):
        model = FamaMacBeth(deficient=deficient)
        plain = model.clone().fit(Panel.from_arrays(returns, characteristics.astype(np.float64)))
        scaled = model.clone().fit(Panel.from_arrays(returns, characteristics * np.array(units)))
        np.testing.assert_allclose(scaled.premia_ * scale, plain.premia_, rtol=1e-4, atol=1e-8)
        np.testing.assert_allclose(scaled.t_statistics_, plain.t_statistics_, rtol=1e-3, atol=1e-6)
        assert (scaled.n_dates_, scaled.n_partial_) == (plain.n_dates_, plain.n_partial_)
