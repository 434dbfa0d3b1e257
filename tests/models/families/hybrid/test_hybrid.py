"""A hybrid: a hidden factor of residuals is found, and risk that would be taken for specific is seen."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from models import PCA, FactorCovariance, Hybrid, Panel, SpecificRisk, TimeSeriesModel
from models.families.base import FactorModel
from models.forecasting.joining import Realised, rotations
from schemas.errors import ModelError

N_DATES, N_STOCKS = 700, 80


def world(seed: int = 0) -> tuple[Panel, np.ndarray, np.ndarray]:
    """Make a market that is observed and a factor of residuals that is not; return its returns and slopes too."""
    rng = np.random.default_rng(seed)
    dates = pd.bdate_range("2015-01-01", periods=N_DATES)
    market, hidden = 0.01 * rng.normal(size=N_DATES), 0.006 * rng.normal(size=N_DATES)
    betas, slopes = rng.uniform(0.6, 1.4, N_STOCKS), rng.normal(size=N_STOCKS)
    returns = np.outer(market, betas) + np.outer(hidden, slopes) + 0.012 * rng.normal(size=(N_DATES, N_STOCKS))
    index = pd.MultiIndex.from_product([dates, [f"S{i:02d}" for i in range(N_STOCKS)]], names=["date", "ticker"])
    frame = pd.DataFrame({"ret": returns.ravel()}, index=index).reset_index()
    observed = pd.DataFrame({"market": market}, index=dates)
    return Panel.from_long(frame, factors=observed, constant=False), hidden, slopes


def variance(model: FactorModel, panel: Panel, weights: np.ndarray) -> float:
    """Forecast the variance of a portfolio after the last date, by the usual estimators."""
    factors, left = model.factor_returns(panel), model.residuals(panel)
    omega = FactorCovariance().estimate(factors).values
    specific = SpecificRisk().estimate(left).values
    exposure = weights @ model.loadings(panel).values[-1]
    return float(exposure @ omega @ exposure + np.square(weights) @ specific)


def test_a_hidden_factor_of_residuals_is_found_and_seen_in_the_risk_of_who_holds_it() -> None:
    panel, hidden, slopes = world()
    base = TimeSeriesModel(("market",)).fit(panel)
    model = Hybrid("capm", n_factors=1).on(base).fit(panel)
    assert model.factors_ == ["market", "residual_2"]
    np.testing.assert_array_equal(model.loadings(panel).values[..., :1], base.loadings(panel).values)
    found = model.factor_returns(panel).values[10:, 1]
    assert np.corrcoef(found, hidden[10:])[0, 1] ** 2 > 0.9
    weights = np.sign(slopes) / N_STOCKS
    truth = (weights @ slopes * 0.006) ** 2 + np.square(weights).sum() * 0.012**2
    betas = base.loadings(panel).values[-1, :, 0]
    truth += (weights @ betas * 0.01) ** 2
    with_it, without = (variance(each, panel, weights) / truth for each in (model, base))
    assert 0.75 < with_it < 1.25
    assert without < 0.25


def test_a_stock_that_the_factor_analysis_does_not_know_keeps_the_factors_of_the_model() -> None:
    panel, _, _ = world()
    data = panel.data.copy(deep=True)
    data["mask"][:-40, 0] = False
    base = TimeSeriesModel(("market",), min_observations=20).fit(Panel(data))
    loadings = Hybrid("capm", n_factors=1).on(base).fit(Panel(data)).loadings(Panel(data)).values[-1]
    assert loadings[0, 0] != 0.0
    assert loadings[0, 1] == 0.0
    assert (loadings[1:, 1] != 0.0).all()


def test_each_set_of_factors_is_turned_by_itself() -> None:
    panel, _, _ = world()
    model = Hybrid("pca", n_factors=2).on(PCA(n_factors=2).fit(panel)).fit(panel)
    turns = [np.linalg.qr(np.random.default_rng(seed).normal(size=(2, 2)))[0] for seed in (0, 1)]
    rotation = np.zeros((4, 4))
    rotation[:2, :2], rotation[2:, 2:] = turns
    turned = model.rotate(rotation)
    for part, turn, at in ((turned._base, turns[0], slice(0, 2)), (turned._further, turns[1], slice(2, 4))):
        before = (model._base, model._further)[at.start // 2]
        np.testing.assert_allclose(part.premia_, before.premia_.values @ turn, atol=1e-12)
    expected = model.loadings(panel).values @ rotation
    np.testing.assert_allclose(turned.loadings(panel).values, expected, atol=1e-9)
    back = rotations([Realised.of(each, panel) for each in (model, turned)], model.latent_blocks)[1]
    np.testing.assert_allclose(back, rotation.T, atol=1e-9)
    assert (back[:2, 2:] == 0.0).all()
    again = Hybrid.from_state(turned.get_params(), turned.state())
    np.testing.assert_array_equal(again.loadings(panel).values, turned.loadings(panel).values)
    given = Hybrid("capm", n_factors=2).on(TimeSeriesModel(("market",)).fit(panel)).fit(panel)
    assert given.latent_blocks == (slice(1, 3),)


def test_it_asks_for_the_model_that_it_is_fitted_on() -> None:
    panel, _, _ = world()
    with pytest.raises(ModelError, match=r"Hybrid is fitted on pca: hand them, fitted, to on\(\) first"):
        Hybrid("pca").fit(panel)
    fitted = PCA(n_factors=2).fit(panel)
    with pytest.raises(ModelError, match=r"on 1 model\(s\), not on 2"):
        Hybrid("pca").on(fitted, fitted)
    with pytest.raises(ModelError, match=r"on 0 model\(s\), not on 1"):
        PCA().on(fitted)
