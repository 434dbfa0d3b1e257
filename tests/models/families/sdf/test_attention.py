"""The SDF with attention: the closed form written out, worlds that need attention and that do not."""

from __future__ import annotations

import numpy as np
import pytest
from sdf_worlds import judge, linear, simulate, simulate_timed

from models.families.sdf import AttentionSDF, RandomFeatureSDF
from models.families.sdf.attention.estimation import CrossSection, learn_attention
from models.families.sdf.estimation import samples_of, screened_products, squared_sharpe
from models.panel import Panel
from models.statistics.features import Units, sections_of
from schemas.errors import ModelError

SMALL = {"n_stocks": 120, "n_train": 200, "n_test": 200}


def test_the_closed_form_is_the_ridge_on_all_features_written_out() -> None:
    """Every weight x_ij S_kl is a portfolio of its own, and the ridge a solution over all of them."""
    drawn = simulate_timed(0, n_stocks=30, n_train=60, n_test=2).train
    spread = np.random.default_rng(0).uniform(0.5, 1.5, (60, 1, 3)).astype(np.float32)
    train = Panel(drawn.data.assign(characteristics=drawn.characteristics * spread))
    sections = sections_of(train, train.chars, 10)
    units = Units.of(sections)
    prior = screened_products(sections, units, 2)
    section = CrossSection(units, prior.products.at(np.flatnonzero(prior.products.first == 0)))
    moments = section.moments_of(train, train.chars, 10)
    moments -= moments.mean(axis=0)
    found = learn_attention(prior, moments, [2.0])
    assert found.strength == 2.0

    x = np.array([section(one.rows) for one in sections])
    second = np.einsum("tij,tik->tjk", x, x) / 30
    second -= second.mean(axis=0)
    size = np.sqrt(4 * np.square(second).sum(axis=(1, 2)).mean())
    explicit = np.einsum("ti,tij,tkl->tjkl", train.returns.values, x, second).reshape(60, -1) / 30
    fits = []
    for kept, scale, sample in zip(prior.kept, prior.scales, samples_of(60, 2), strict=True):
        portfolios = np.concatenate([prior.managed[:, kept] * scale, np.sqrt(2.0) / size * explicit], axis=1)
        gram = portfolios[sample.learnt].T @ portfolios[sample.learnt] / len(sample.learnt)
        ridges = 10.0 ** np.arange(-4.0, 1.5, 0.5) * np.trace(gram)
        mean = portfolios[sample.learnt].mean(axis=0)
        thetas = np.array([np.linalg.solve(gram + z * np.eye(len(gram)), mean) for z in ridges]).T
        fits.append((portfolios, portfolios[sample.held] @ thetas, thetas))
    values = squared_sharpe(np.concatenate([held for _, held, _ in fits]))
    assert found.value == pytest.approx(values.max(), abs=1e-8)
    expected = fits[-1][0] @ fits[-1][2][:, values.argmax()]
    linear_portfolios = np.einsum("ti,tij->tj", train.returns.values, x) / 30
    own = prior.managed[:, prior.kept[-1]] @ found.plain + np.einsum(
        "tj,jm,tm->t", linear_portfolios, found.theta, moments
    )
    np.testing.assert_allclose(own, expected, rtol=1e-8, atol=1e-8)
    model = AttentionSDF(strengths=(2.0,), n_folds=2).fit(train)
    sdf = model.factor_returns(train).values[:, 0]
    np.testing.assert_allclose(sdf / sdf.std(), expected / expected.std(), rtol=1e-8, atol=1e-8)


def test_a_price_that_depends_on_the_cross_section_is_found() -> None:
    world = simulate_timed(1, irrelevant=2, **SMALL)
    model = AttentionSDF(beside=("c1",)).fit(world.train)
    outcome = judge(model, world)
    assert outcome.relative > 0.9
    assert outcome.relative > judge(RandomFeatureSDF(n_waves=0).fit(world.train), world).relative + 0.3
    assert model.strength_ > 0.0
    weights, factors = model.weights(world.train).values, model.factor_returns(world.train).values
    np.testing.assert_allclose((weights * world.train.returns.values[..., None]).mean(axis=1), factors)
    np.testing.assert_allclose(factors.mean(axis=0), model.premia_)
    assert np.square(weights[..., 0]).mean() == pytest.approx(1.0, abs=1e-6)


def test_where_no_price_depends_on_it_the_plain_one_is_as_good() -> None:
    world = simulate_timed(0, timed=False, irrelevant=2, **SMALL)
    plain = judge(RandomFeatureSDF(n_waves=0).fit(world.train), world)
    assert judge(AttentionSDF().fit(world.train), world).relative > plain.relative - 0.02


def test_attention_looks_at_covered_stocks_also_where_their_return_is_missing() -> None:
    """So that a row is the same before its returns are known; absurd returns outside the mask move nothing."""
    train = simulate_timed(0, n_stocks=60, n_train=100, n_test=2).train
    mask, returns = train.mask.values.copy(), train.returns.values.copy()
    mask[:, ::3] = False
    thin = Panel(train.data.assign(mask=(("date", "ticker"), mask)))
    returns[:, ::3] = 1e6
    wild = Panel(thin.data.assign(returns=(("date", "ticker"), returns)))
    one, other = AttentionSDF(strengths=(100.0,)).fit(thin), AttentionSDF(strengths=(100.0,)).fit(wild)
    assert one.strength_ == 100.0
    np.testing.assert_array_equal(one.weights(train).values, other.weights(train).values)
    np.testing.assert_array_equal(one.factor_returns(thin).values, other.factor_returns(wild).values)
    np.testing.assert_allclose(one.factor_returns(thin).values.mean(axis=0), one.premia_)
    uncovered = Panel(thin.data.assign(coverage=thin.mask))
    assert not np.allclose(AttentionSDF(strengths=(100.0,)).fit(uncovered).premia_, one.premia_, rtol=1e-6)


def test_what_cannot_be_fitted_is_refused() -> None:
    train = simulate(linear, 0, **SMALL).train
    with pytest.raises(ModelError, match=r"AttentionSDF needs 24 dates .* lower n_folds or min_stocks"):
        AttentionSDF().fit(train.sel(end=train.dates[22]))
    with pytest.raises(ModelError, match="earn nothing"):
        AttentionSDF().fit(Panel(train.data.assign(returns=0.0 * train.returns)))
