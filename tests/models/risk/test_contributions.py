"""Contributions to volatility: they add up, and the marginal ones are the gradient."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from risk_models import COORDS, N_TICKERS, dense, small_model, small_weights

from models.risk.contributions import volatility_by_factor, volatility_by_group, volatility_by_ticker
from schemas.errors import DataError

SECTORS = pd.Series(["tech", "energy", "banks"] * 4, index=pd.Index(COORDS["ticker"], name="ticker"))


def test_parts_of_volatility_add_up_and_are_amount_times_marginal() -> None:
    model, weights = small_model(), small_weights()
    volatility = np.sqrt(np.einsum("pdi,dij,pdj->pd", weights.values, dense(model), weights.values))
    by_factor, by_ticker = volatility_by_factor(model, weights), volatility_by_ticker(model, weights)
    by_group = volatility_by_group(model, weights, SECTORS[::-1])
    sums = (
        by_factor["contribution"].sum("factor") + by_factor["specific"],
        by_ticker["contribution"].sum("ticker"),
        by_group["contribution"].sum("group"),
    )
    for total in sums:
        np.testing.assert_allclose(total, volatility, rtol=1e-10)
    for parts, amount in ((by_factor, "exposure"), (by_ticker, "weight"), (by_group, "weight")):
        np.testing.assert_allclose(parts[amount] * parts["marginal"], parts["contribution"], rtol=1e-10)
    tech = by_ticker["contribution"].values[:, :, (SECTORS == "tech").to_numpy()].sum(axis=2)
    np.testing.assert_allclose(by_group["contribution"].sel(group="tech"), tech, rtol=1e-12)


def test_marginal_contributions_are_the_gradient_of_the_volatility() -> None:
    model, weights = small_model(1), small_weights(1)
    by_ticker, by_group = volatility_by_ticker(model, weights), volatility_by_group(model, weights, SECTORS)
    step = 1e-4
    bump = step * (weights["ticker"] == "t4")
    slope = (model.volatility(weights + bump) - model.volatility(weights - bump)) / (2.0 * step)
    np.testing.assert_allclose(slope, by_ticker["marginal"].sel(ticker="t4"), rtol=1e-6)
    scale = step * weights.where((SECTORS == "banks").to_numpy(), 0.0)
    slope = (model.volatility(weights + scale) - model.volatility(weights - scale)) / (2.0 * step)
    np.testing.assert_allclose(slope, by_group["contribution"].sel(group="banks"), rtol=1e-6)


def test_a_held_ticker_without_group_is_named_and_one_that_is_not_held_needs_none() -> None:
    model, weights = small_model(), small_weights()
    with pytest.raises(DataError, match="t11 has a weight and no group; 1 tickers lack one"):
        volatility_by_group(model, weights, SECTORS[:-1])
    weights[:, :, N_TICKERS - 1] = 0.0
    found = volatility_by_group(model, weights, SECTORS[:-1])
    np.testing.assert_allclose(found["contribution"].sum("group"), model.volatility(weights), rtol=1e-10)


def test_a_portfolio_without_risk_has_no_gradient() -> None:
    model, weights = small_model(), small_weights() * 0.0
    assert np.isnan(volatility_by_ticker(model, weights)["marginal"]).all()
    assert np.isnan(volatility_by_factor(model, weights)["contribution"]).all()
