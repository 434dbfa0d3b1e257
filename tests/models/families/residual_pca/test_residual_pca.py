"""Nonlinear components of residuals: a planted curve is found better than by lines, nothing where there is nothing."""

from __future__ import annotations

import numpy as np
import pytest
from residual_worlds import World, clusters, curve, judge
from scipy import stats

from models import PCA, Panel, ResidualPCA, diebold_mariano
from models.families.residual_network.leaving_out import leave_one_out
from models.families.residual_pca.estimation import principal_curve
from schemas.errors import ConfigError, ModelError

SMALL = {"n_stocks": 200, "n_train": 100, "n_test": 120}


def test_a_planted_curve_explains_what_as_many_linear_components_do_not() -> None:
    world = curve(1, **SMALL)
    model = world.fit(ResidualPCA("base"))
    assert model.adds_p_value_ < 0.001
    outcome = judge(model, world)
    assert outcome.correlation > 0.93
    left, learnt = model._left(world.test), model._left(world.train)
    returns = np.where(left.mask.values, left.returns.values, 0.0)
    linear = PCA(n_factors=4, scale="correlation").fit(learnt).loadings(left).values
    by_lines, by_curve = (
        leave_one_out(loadings, returns, left.mask.values * world.weights)
        for loadings in (linear, model._further.loadings(left).values)
    )
    assert diebold_mariano(by_curve[:, 1], by_lines[:, 1]).statistic < -4.0
    r2_lines, r2_curve = (1.0 - losses[:, 1].sum() / losses[:, 0].sum() for losses in (by_lines, by_curve))
    assert r2_curve - r2_lines > 0.3 * (outcome.attainable - r2_lines) > 0.003
    hidden = np.argsort(world.loadings[0, :, 0] * np.sqrt(world.weights))
    assert abs(stats.spearmanr(model.coordinate_[hidden], np.arange(200)).statistic) > 0.9


def test_without_a_curve_the_model_is_its_base() -> None:
    world = curve(0, shares=(), **SMALL)
    model = world.fit(ResidualPCA("base"))
    assert model.adds_ == 0.0
    assert model.coordinate_ is None
    assert "coordinate" not in model.statistics()
    np.testing.assert_array_equal(model.loadings(world.test).values, model._base.loadings(world.test).values)


def test_stocks_are_laid_on_their_curve_and_gaps_are_no_zeros() -> None:
    rng = np.random.default_rng(0)
    place = rng.permutation(np.linspace(-1.0, 1.0, 60))
    on_curve = np.polynomial.legendre.legvander(place, 3)[:, 1:] * np.sqrt([3.0, 5.0, 7.0])
    z = rng.normal(size=(120, 3)) * [0.9, 0.3, 0.2] @ on_curve.T + 0.2 * rng.normal(size=(120, 60))
    z /= np.sqrt(np.square(z).mean(axis=0))
    for histories in (z, np.where(rng.random(z.shape) < 0.3, np.nan, z)):
        found = principal_curve(histories, 5, 4, 20)
        assert abs(stats.spearmanr(found.coordinate, place).statistic) > 0.96
        np.testing.assert_allclose(found.loadings.T @ found.loadings / 60, np.eye(4), atol=1e-12)
        fitted = z @ found.loadings @ found.loadings.T / 60
        assert np.square(z - fitted).sum() < 0.11 * np.square(z).sum()


def test_factor_returns_and_losses_are_those_of_regressions_on_what_is_known() -> None:
    world = curve(0, n_stocks=60, n_train=120, n_test=4)
    model = world.fit(ResidualPCA("base", 2, adds=True))
    left, found = model._left(world.test), model._further
    mask = left.mask.values.copy()
    mask[2, ::3] = False
    held = Panel(left.data.assign(mask=(("date", "ticker"), mask)))
    scale = found.of_stocks["scale"].values
    loadings, returns = found.loadings(held).values, found.factor_returns(held).values
    for date in range(4):
        inside = np.flatnonzero(mask[date])
        rows, own = loadings[date, inside] / scale[inside, None], left.returns.values[date, inside] / scale[inside]
        np.testing.assert_allclose(returns[date], np.linalg.lstsq(rows, own, rcond=None)[0], rtol=1e-9)
        errors = [
            own[place] - rows[place] @ np.linalg.lstsq(np.delete(rows, place, 0), np.delete(own, place), rcond=None)[0]
            for place in range(len(inside))
        ]
        expected = np.square(own).mean(), np.square(errors).mean()
        np.testing.assert_allclose(found.losses(held)[date], expected, rtol=1e-9)


def test_a_stock_that_is_not_on_the_curve_keeps_the_factors_of_the_model() -> None:
    world = curve(1, **SMALL)
    data = world.train.data.copy(deep=True)
    data["mask"][:-40, 0] = False
    base = world.base.set_params(min_observations=20).fit(Panel(data))
    model = ResidualPCA("base", adds=True).on(base).fit(Panel(data))
    loadings = model.loadings(Panel(data)).values[-1]
    assert loadings[0, 0] != 0.0
    assert (loadings[0, 1:] == 0.0).all()
    assert np.isfinite(loadings).all()
    assert model.coordinate_.sizes["ticker"] == SMALL["n_stocks"] - 1


def test_components_are_turned_among_themselves() -> None:
    world = curve(1, n_stocks=60, n_train=120, n_test=20)
    model = world.fit(ResidualPCA("base", 3, adds=True))
    assert model.latent_blocks == (slice(1, 4),)
    rotation = np.eye(4)
    rotation[1:, 1:] = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turned = ResidualPCA.from_state(model.get_params(), model.rotate(rotation).state())
    for name in ("loadings", "factor_returns"):
        expected = getattr(model, name)(world.test).values @ rotation
        np.testing.assert_allclose(getattr(turned, name)(world.test).values, expected, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(turned.residuals(world.test), model.residuals(world.test), atol=1e-12)
    np.testing.assert_array_equal(turned.coordinate_, model.coordinate_)


def test_what_cannot_be_fitted_is_said() -> None:
    world = curve(0, n_stocks=15, n_train=100, n_test=10)
    with pytest.raises(ConfigError, match="degree 2 moves in 3 directions at most, and n_factors=4"):
        world.fit(ResidualPCA("base", 4, degree=2))
    with pytest.raises(ModelError, match="A curve of degree 5 needs 18 stocks with min_observations=60 residuals"):
        world.fit(ResidualPCA("base"))


@pytest.mark.slow
@pytest.mark.parametrize("n_train", [160, 100])
def test_nothing_is_found_without_a_curve_in_95_of_100_draws(n_train: int) -> None:
    def drawn(seed: int) -> World:
        return clusters(seed, share=0.0, n_stocks=40, n_train=n_train, n_test=2)

    found = [world.fit(ResidualPCA("base")).adds_ for world in map(drawn, range(100))]
    assert sum(found) <= 5
