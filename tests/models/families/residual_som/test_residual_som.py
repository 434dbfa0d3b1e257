"""A map of residuals: planted clusters are found, nothing is found where there is nothing."""

from __future__ import annotations

import numpy as np
import pytest
from residual_worlds import N_CLUSTERS, clusters, judge
from sklearn.metrics import adjusted_rand_score

from models import Panel, ResidualSOM
from models.families.residual_som.estimation import means_of_others, organise
from schemas.errors import ConfigError, ModelError

SMALL = {"n_stocks": 60, "n_train": 240, "n_test": 120}


def groups(model: ResidualSOM) -> float:
    """Agreement of the nodes with the planted clusters: 1 if they are the same, about 0 by chance."""
    return float(adjusted_rand_score(np.arange(len(model.node_)) % N_CLUSTERS, model.node_.values))


def test_planted_clusters_are_found_out_of_sample() -> None:
    world = clusters(1, share=0.2, **SMALL)
    model = world.fit(ResidualSOM("base"))
    assert model.adds_p_value_ < 0.001
    assert groups(model) > 0.9
    outcome = judge(model, world)
    assert outcome.correlation > 0.8
    assert outcome.r2 > 0.8 * outcome.attainable > 0.1
    left, found = model._left(world.test), model._further
    explained = left.returns.values - model.residuals(world.test).values
    assert np.square(explained).sum() > 0.0
    of_map = found.map
    z = left.returns.values / of_map["scale"].values
    means = z @ of_map["weights"].values / of_map["weights"].values.sum(axis=0)
    unit = np.sqrt(np.square(of_map["scale"].values).mean())
    np.testing.assert_allclose(found.factor_returns(left).values, unit * means, atol=1e-14)


def test_without_clusters_the_model_is_its_base() -> None:
    world = clusters(0, share=0.0, **SMALL)
    model = world.fit(ResidualSOM("base"))
    assert model.adds_ == 0.0
    assert model.node_ is None
    assert "node" not in model.statistics()
    np.testing.assert_array_equal(model.loadings(world.test).values, model._base.loadings(world.test).values)


def test_losses_are_those_without_the_stock_itself() -> None:
    world = clusters(0, share=0.2, n_stocks=30, n_train=120, n_test=5)
    model = world.fit(ResidualSOM("base", 2, 2, adds=True))
    left, found = model._left(world.test), model._further
    of_map, returns = found.map, left.returns.values.copy()
    mask = np.isfinite(returns)
    mask[2, ::3] = False
    held = Panel(left.data.assign(mask=(("date", "ticker"), mask)))
    z, weights = returns / of_map["scale"].values, of_map["weights"].values
    says = (of_map["memberships"] * of_map["slopes"]).values
    expected = np.empty((5, 2))
    for date in range(5):
        inside = np.flatnonzero(mask[date])
        errors = []
        for stock in inside:
            others = inside[inside != stock]
            means = z[date, others] @ weights[others] / weights[others].sum(axis=0)
            errors.append(z[date, stock] - says[stock] @ means)
        expected[date] = np.square(z[date, inside]).mean(), np.square(errors).mean()
    np.testing.assert_allclose(found.losses(held), expected, rtol=1e-10)


def test_a_stock_does_not_hold_itself_and_gaps_are_no_zeros() -> None:
    values = np.array([[1.0, 2.0, 4.0], [1.0, 0.0, 3.0], [5.0, 0.0, 0.0]])
    known = np.array([[True, True, True], [True, False, True], [True, False, False]])
    found = means_of_others(values, known, np.array([1.0, 3.0, 1.0]))
    np.testing.assert_allclose(found, [[2.5, 2.5, 7 / 4], [3.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    rng = np.random.default_rng(0)
    z = rng.normal(size=(200, 3)) @ np.kron(np.eye(3), np.ones((1, 8))) + 0.5 * rng.normal(size=(200, 24))
    gaps = np.where(rng.random(z.shape) < 0.4, np.nan, z)
    cluster = np.arange(24) // 8
    for histories in (z, gaps):
        assert adjusted_rand_score(cluster, organise(histories, 1, 3, 0.3).node) == 1.0


def test_a_stock_that_the_map_does_not_know_keeps_the_factors_of_the_model() -> None:
    world = clusters(1, share=0.2, **SMALL)
    data = world.train.data.copy(deep=True)
    data["mask"][:-40, 0] = False
    base = world.base.set_params(min_observations=20).fit(Panel(data))
    model = ResidualSOM("base", adds=True).on(base).fit(Panel(data))
    loadings = model.loadings(Panel(data)).values[-1]
    assert loadings[0, 0] != 0.0
    assert (loadings[0, 1:] == 0.0).all()
    assert np.isfinite(loadings).all()
    assert (loadings[1:, 1:] != 0.0).any(axis=1).all()
    assert model.node_.sizes["ticker"] == SMALL["n_stocks"] - 1


def test_nodes_are_turned_among_themselves() -> None:
    world = clusters(1, share=0.2, **SMALL)
    model = world.fit(ResidualSOM("base", 2, 2, adds=True))
    assert model.latent_blocks == (slice(1, 5),)
    rotation = np.eye(5)
    rotation[1:, 1:] = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    turned = ResidualSOM.from_state(model.get_params(), model.rotate(rotation).state())
    for name in ("loadings", "factor_returns"):
        expected = getattr(model, name)(world.test).values @ rotation
        np.testing.assert_allclose(getattr(turned, name)(world.test).values, expected, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(turned.residuals(world.test), model.residuals(world.test), atol=1e-12)
    np.testing.assert_array_equal(turned.node_, model.node_)


def test_what_cannot_be_fitted_is_said() -> None:
    world = clusters(0, n_stocks=24, n_train=100, n_test=10)
    with pytest.raises(ConfigError, match="one node has nothing to organise"):
        world.fit(ResidualSOM("base", 1, 1))
    with pytest.raises(ModelError, match="A map of 9 nodes needs 27 stocks with min_observations=60 residuals"):
        world.fit(ResidualSOM("base"))


@pytest.mark.slow
def test_nothing_is_found_without_clusters_in_95_of_100_draws() -> None:
    worlds = (clusters(seed, share=0.0, n_stocks=40, n_train=160, n_test=2) for seed in range(100))
    found = [world.fit(ResidualSOM("base")).adds_ for world in worlds]
    assert sum(found) <= 5
