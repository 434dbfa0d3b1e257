"""A network on residuals: a planted nonlinear factor is found, nothing is found where there is nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from residual_worlds import judge, mean_outcome, network, product

from models import FactorAnalysis, FactorCovariance, Panel, ResidualNetwork, SpecificRisk
from models.families.autoencoder.networks import LoadingsNetwork
from models.families.base import FactorModel
from models.families.profiled import ProfiledLoss, ProfiledRows
from models.families.residual_network.leaving_out import leave_one_out
from schemas.errors import ModelError

SMALL = {"n_stocks": 60, "n_train": 200, "n_test": 100}
QUICK = {"n_factors": 1, "hidden": (16,), "max_epochs": 30, "patience": 6, "seeds": (0,)}


def variance(model: FactorModel, panel: Panel, weights: np.ndarray) -> float:
    """Forecast the variance of a portfolio after the last date, by the usual estimators."""
    omega = FactorCovariance().estimate(model.factor_returns(panel)).values
    specific = SpecificRisk().estimate(model.residuals(panel)).values
    exposure = weights @ model.loadings(panel).values[-1]
    return float(exposure @ omega @ exposure + np.square(weights) @ specific)


def test_a_product_of_two_characteristics_is_found_and_seen_in_the_risk_of_who_holds_it() -> None:
    world = product(1, share=0.3, **SMALL)
    model = world.fit(ResidualNetwork("base", **QUICK))
    assert model.factors_ == ["constant", "c1", "c2", "residual_4"]
    assert model.adds_p_value_ < 0.001
    assert model.adds_r2_ > 0.1
    outcome = judge(model, world)
    assert outcome.correlation > 0.9
    assert outcome.r2 > 0.7 * outcome.attainable > 0.1
    base = model._base
    weights = np.sign(world.loadings[-1, :, 0]) / SMALL["n_stocks"]
    with_it, without = (variance(each, world.test, weights) for each in (model, base))
    planted = (weights @ world.loadings[-1, :, 0]) ** 2 * world.factors.var()
    assert 0.6 < (with_it - without) / planted < 1.4


def test_on_a_linear_world_the_model_is_its_base() -> None:
    world = product(0, share=0.0, **SMALL)
    model = world.fit(ResidualNetwork("base", **QUICK))
    base = model._base
    assert model.adds_ == 0.0
    assert model.adds_p_value_ > 0.01
    assert model.statistics()["adds"] == 0.0
    assert model.factors_ == base.factors_
    assert model.latent_blocks == base.latent_blocks
    for name in ("loadings", "factor_returns", "expected_returns", "residuals"):
        np.testing.assert_array_equal(getattr(model, name)(world.test), getattr(base, name)(world.test), err_msg=name)
    analysis = FactorAnalysis(2).fit(world.train)
    dropped = ResidualNetwork("base", **QUICK, adds=False).on(analysis).fit(world.train)
    np.testing.assert_array_equal(dropped.own_omega(), analysis.own_omega())
    stated = analysis.own_specific_variance(world.test)
    np.testing.assert_array_equal(dropped.own_specific_variance(world.test), stated)


def test_the_first_fit_decides_for_later_ones() -> None:
    first = product(0, share=0.0, **SMALL).fit(ResidualNetwork("base", **QUICK))
    world = product(1, share=0.3, **SMALL)
    later = world.fit(ResidualNetwork("base", **QUICK).refit(first))
    assert later.adds is False
    assert later.adds_p_value_ < 0.001
    assert later.factors_ == first.factors_
    chosen = ResidualNetwork("base", adds=True)
    assert chosen.refit(first) is chosen


def test_dates_on_which_factors_are_tried_teach_nothing() -> None:
    world = product(1, share=0.3, **SMALL)
    base = world.base.fit(world.train)
    rng = np.random.default_rng(0)
    returns = world.train.returns.values.copy()
    last = 160  # the last fifth of two hundred
    returns[last:] = 0.02 * rng.standard_normal(returns[last:].shape)
    other = Panel(world.train.data.assign(returns=(("date", "ticker"), returns)))
    fits = [ResidualNetwork("base", **QUICK, adds=True).on(base).fit(panel) for panel in (world.train, other)]
    np.testing.assert_array_equal(fits[0].loadings(world.test).values, fits[1].loadings(world.test).values)
    assert fits[0].adds_p_value_ < 0.001
    assert fits[1].adds_p_value_ > 0.01


def test_leaving_one_out_is_a_regression_without_the_stock() -> None:
    rng = np.random.default_rng(0)
    loadings, returns, weights = rng.normal(size=(3, 12, 2)), rng.normal(size=(3, 12)), rng.uniform(1, 2, (3, 12))
    weights[1, 4:] = weights[2] = 0.0
    loadings[1, 1:, 1] = 0.0  # the first stock alone decides the second factor
    found = leave_one_out(loadings, returns, weights)
    assert np.isnan(found[2]).all()
    for date in (0, 1):
        left = returns[date].copy()
        for stock in np.flatnonzero(weights[date]):
            root = np.sqrt(weights[date])
            root[stock] = 0.0
            slopes = np.linalg.lstsq(root[:, None] * loadings[date], root * returns[date], rcond=None)[0]
            left[stock] -= loadings[date, stock] @ slopes if (date, stock) != (1, 0) else 0.0
        means = [np.average(np.square(each), weights=weights[date]) for each in (returns[date], left)]
        np.testing.assert_allclose(found[date], means, rtol=1e-10)


def test_the_loss_has_the_slope_of_factor_returns_that_follow() -> None:
    world = product(0, share=0.3, n_stocks=30, n_train=40, n_test=20)
    rows = ProfiledRows.of(world.train, world.test)
    network = LoadingsNetwork(3, 2, (5,)).initialise(torch.Generator().manual_seed(0)).double().eval()
    rows = ProfiledRows(**{**vars(rows), "characteristics": rows.characteristics.double()})
    loss, dates = ProfiledLoss(network, rows), torch.tensor([7, 3, 30])

    def value() -> torch.Tensor:
        return loss.errors(dates).square().sum()

    torch.autograd.backward(value())
    weight = network.beta[0].weight
    slope, step = weight.grad[2, 1].item(), 1e-6
    with torch.no_grad():
        sides = []
        for move in (step, -2.0 * step):
            weight[2, 1] += move
            sides.append(value().item())
    assert slope == pytest.approx((sides[0] - sides[1]) / (2.0 * step), rel=1e-5)


def test_what_cannot_be_fitted_is_said() -> None:
    world = product(0, **SMALL)
    bare = Panel(world.train.data.isel(char=slice(0, 0)))
    base = FactorAnalysis(2).fit(world.train)
    with pytest.raises(ModelError, match="needs characteristics, and the panel has none"):
        ResidualNetwork("base").on(base).fit(bare)
    short = world.train.sel(end=world.train.dates[6])
    with pytest.raises(ModelError, match="or give a longer panel"):
        ResidualNetwork("base").on(world.base.fit(world.train)).fit(short)
    with pytest.raises(ModelError, match="found no further factors in the residuals of 'base'"):
        world.fit(ResidualNetwork("base", n_factors=4, hidden=(1,), max_epochs=1, seeds=(0,), adds=True))


@pytest.mark.slow
def test_the_aims_of_the_simulation() -> None:
    mean = mean_outcome(product, network, range(4))
    assert mean.adds == 1.0
    assert mean.correlation > 0.9
    assert mean.r2 > 0.75 * mean.attainable


@pytest.mark.slow
def test_nothing_is_found_on_linear_data_in_95_of_100_draws() -> None:
    brief = QUICK | {"hidden": (8,), "max_epochs": 10, "patience": 3}
    worlds = (product(seed, share=0.0, n_stocks=40, n_train=150, n_test=2) for seed in range(100))
    found = [world.fit(ResidualNetwork("base", **brief)).adds_ for world in worlds]
    assert sum(found) <= 5
