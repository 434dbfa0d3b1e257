from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from lettau_pelger import monte_carlo

from models.families.pca.model import PCA
from models.families.pca.rppca import RPPCA, maximal_sharpe_ratio
from models.panel import Panel
from schemas.errors import ConfigError


def priced_panel(n_dates: int, n_stocks: int, gaps: float = 0.0, seed: int = 0, noise: float = 0.02) -> Panel:
    """Two factors, the second small in variance and large in Sharpe ratio."""
    rng = np.random.default_rng(seed)
    loadings = rng.standard_normal((n_stocks, 2)) + np.eye(1, 2)
    factors = [0.005, 0.004] + rng.standard_normal((n_dates, 2)) * [0.05, 0.005]
    returns = factors @ loadings.T + noise * rng.standard_normal((n_dates, n_stocks))
    returns[rng.random(returns.shape) < gaps] = np.nan
    return Panel.from_arrays(returns)


def projection(loadings: np.ndarray) -> np.ndarray:
    return loadings @ np.linalg.pinv(loadings)


@pytest.mark.parametrize("missing", ["em", "pairwise"])
@pytest.mark.parametrize("scale", ["covariance", "correlation"])
@pytest.mark.parametrize("gaps", [0.0, 0.15])
def test_gamma_of_minus_one_is_pca(missing: str, scale: str, gaps: float) -> None:
    panel = priced_panel(80, 30, gaps)
    ours = RPPCA(2, gamma=-1.0, scale=scale, missing=missing).fit(panel)
    pca = PCA(2, scale=scale, missing=missing).fit(panel)
    np.testing.assert_array_equal(ours.loadings_.values, pca.loadings_.values)
    np.testing.assert_array_equal(ours.factor_returns(panel).values, pca.factor_returns(panel).values)


@pytest.mark.parametrize(("n_dates", "n_stocks"), [(90, 30), (40, 100)], ids=["long", "wide"])
@pytest.mark.parametrize("gamma", [-0.5, 0.0, 10.0])
def test_loadings_are_eigenvectors_of_the_weighted_second_moments(n_dates: int, n_stocks: int, gamma: float) -> None:
    panel = priced_panel(n_dates, n_stocks)
    model = RPPCA(2, gamma=gamma).fit(panel)
    returns = panel.returns.values
    mean = returns.mean(axis=0)
    values, vectors = np.linalg.eigh(returns.T @ returns / n_dates + gamma * np.outer(mean, mean))
    loadings = vectors[:, :-3:-1] * np.sqrt(n_stocks)
    np.testing.assert_allclose(model.loadings_.values, loadings * np.sign(loadings.sum(axis=0)), atol=1e-9)
    np.testing.assert_allclose(model.statistics()["eigenvalues"].values, values[:-3:-1], rtol=1e-10)
    factors = model.factor_returns(panel).values
    np.testing.assert_allclose(factors, returns @ model.loadings_.values / n_stocks, atol=1e-12)
    if gamma == 0.0 and n_stocks > n_dates:  # asymptotic principal components of Connor and Korajczyk
        leading = np.linalg.eigh(returns @ returns.T / n_stocks)[1][:, -2:]
        np.testing.assert_allclose(projection(factors), projection(leading), atol=1e-10)


def test_measures_are_those_of_their_definitions() -> None:
    panel = priced_panel(200, 25)
    train, test = panel.sel(end=panel.dates[119]), panel.sel(start=panel.dates[120])
    model = RPPCA(2).fit(train)
    inside, outside = model.factor_returns(train).values, model.factor_returns(test).values
    fits = [sm.OLS(r, sm.add_constant(inside)).fit() for r in train.returns.values.T]
    np.testing.assert_allclose(model.pricing_errors(train).values, [fit.params[0] for fit in fits], atol=1e-10)
    errors = test.returns.values - outside @ np.array([fit.params[1:] for fit in fits]).T
    np.testing.assert_allclose(model.pricing_errors(test).values, errors.mean(axis=0), atol=1e-10)
    measures = model.evaluate(test)
    assert measures["rms_alpha"] == pytest.approx(np.sqrt(np.square(errors.mean(axis=0)).mean()))
    assert measures["unexplained_share"] == pytest.approx((errors.var(axis=0) / test.returns.values.var(axis=0)).mean())
    weights = np.linalg.solve(np.cov(inside.T), inside.mean(axis=0))
    assert measures["sharpe_ratio"] == pytest.approx((outside @ weights).mean() / (outside @ weights).std(ddof=1))
    assert model.evaluate(train)["sharpe_ratio"] == pytest.approx(maximal_sharpe_ratio(model.factor_returns(train)))
    assert measures["maximal_sharpe_ratio"] >= measures["sharpe_ratio"]
    statistics = model.statistics()
    assert statistics["sharpe_ratio"] == pytest.approx(model.evaluate(train)["sharpe_ratio"])
    assert statistics["rms_alpha"] == model.evaluate(train)["rms_alpha"]


def test_means_find_a_small_factor_that_pays() -> None:
    panel = priced_panel(800, 60, noise=0.06)
    train, test = panel.sel(end=panel.dates[399]), panel.sel(start=panel.dates[400])
    pca, ours = RPPCA(2, gamma=-1.0).fit(train).evaluate(test), RPPCA(2, gamma=20.0).fit(train).evaluate(test)
    assert ours["sharpe_ratio"] > pca["sharpe_ratio"] + 0.05
    assert ours["rms_alpha"] < pca["rms_alpha"]


@settings(max_examples=10, deadline=None)
@given(angle=st.floats(0.0, 6.0), gaps=st.sampled_from([0.0, 0.1]))
def test_measures_do_not_depend_on_the_rotation(angle: float, gaps: float) -> None:
    panel = priced_panel(100, 20, gaps)
    model = RPPCA(2).fit(panel)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    rotated = model.rotate(turn)
    for name, value in model.evaluate(panel).items():
        assert rotated.evaluate(panel)[name] == pytest.approx(value)
    share = model.statistics()["explained_share"].sum()
    assert rotated.statistics()["explained_share"].sum() == pytest.approx(float(share))


def test_a_negative_weight_beyond_the_covariance_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"gamma=-1.5 must be at least -1"):
        RPPCA(2, gamma=-1.5).fit(priced_panel(60, 20))


@pytest.mark.slow
def test_the_simulation_of_lettau_and_pelger() -> None:
    """Published: correlation .33 (PCA) and .90 (gamma = 10), maximal Sharpe ratio .43 and .80, truth .87."""
    found = monte_carlo(60, (-1.0, 10.0))
    (pca, _, pca_sharpe, *_), (correlation, _, sharpe, *_) = (found[gamma].mean(axis=0) for gamma in (-1.0, 10.0))
    assert pca == pytest.approx(0.33, abs=0.08)
    assert pca_sharpe == pytest.approx(0.43, abs=0.04)
    assert correlation >= 0.90
    assert sharpe >= 0.80
