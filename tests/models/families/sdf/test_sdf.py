"""The SDF of random features: a known truth, plain sums, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from sdf_worlds import judge, linear, mean_outcome, nothing, product, simulate, wave

from models.families.sdf import RandomFeatureSDF
from models.families.sdf.estimation import loadings_of, ridge_path, samples_of
from models.families.sdf.pricing import cross_sectional_r2, explained_variation
from models.panel import Panel
from models.statistics.features import Features, Products, Section, Units, Waves
from schemas.errors import ModelError

SMALL = {"n_stocks": 200, "n_train": 150, "n_test": 100}


def with_rows(panel: Panel, name: str, values: np.ndarray) -> Panel:
    """Panel with one characteristic more, in front."""
    rows = np.concatenate([values[..., None], panel.characteristics.values], axis=2, dtype=np.float32)
    return Panel.from_arrays(
        panel.returns.values, rows, mask=panel.mask.values, dates=panel.dates, chars=[name, *panel.chars]
    )


def test_a_product_of_two_characteristics_is_found_among_eight_others() -> None:
    world = simulate(product, 1, irrelevant=8, **SMALL)
    model = RandomFeatureSDF(n_waves=50).fit(world.train)
    outcome = judge(model, world)
    assert outcome.relative > 0.95
    assert outcome.xs_r2 > 0.1
    assert set(model.relevance_.to_series().nlargest(2).index) == {"c1", "c2"}


def test_random_features_find_what_products_miss() -> None:
    world = simulate(wave, 1, **SMALL)
    model = RandomFeatureSDF(n_waves=50).fit(world.train)
    assert model.bandwidth_ > 0.0
    assert judge(model, world).relative > judge(RandomFeatureSDF(n_waves=0).fit(world.train), world).relative + 0.2
    again = RandomFeatureSDF(n_waves=50).fit(world.train)
    other = RandomFeatureSDF(n_waves=50, seed=1).fit(world.train)
    for name, array in model.state().arrays.items():
        np.testing.assert_array_equal(again.state().arrays[name], array)
    assert not np.array_equal(other.loadings(world.test).values, model.loadings(world.test).values)


def test_without_a_signal_the_factor_earns_nothing() -> None:
    world = simulate(nothing, 0, irrelevant=8, **SMALL)
    outcome = judge(RandomFeatureSDF(n_waves=50).fit(world.train), world)
    assert abs(outcome.sharpe) < 0.25
    assert abs(outcome.xs_r2) < 0.1


def test_the_factors_beside_the_sdf_are_portfolios_orthogonal_to_it() -> None:
    world = simulate(linear, 0, **SMALL)
    model = RandomFeatureSDF(beside=("c2", "constant"), n_waves=0).fit(world.train)
    assert model.factors_ == ["sdf", "c2", "constant"]
    sdf, second, average = model.factor_returns(world.train).values.T
    np.testing.assert_allclose([sdf @ second, sdf @ average], 0.0, atol=1e-10)
    plain = world.train.returns.values.mean(axis=1)
    np.testing.assert_allclose(average, plain - sdf * (sdf @ plain) / (sdf @ sdf), atol=1e-10)
    weights = model.weights(world.train).values
    assert np.square(weights[..., 0]).mean() == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose((weights[..., 0] * world.train.returns.values).mean(axis=1), sdf)


def test_a_constant_characteristic_moves_nothing() -> None:
    train = simulate(linear, 0, **SMALL).train
    padded = with_rows(train, "flat", np.full(train.returns.shape, 0.7))
    one, other = RandomFeatureSDF(n_waves=10).fit(train), RandomFeatureSDF(n_waves=10).fit(padded)
    np.testing.assert_array_equal(one.loadings(train).values, other.loadings(padded).values)
    np.testing.assert_array_equal(one.loadings(train).values, other.loadings(train).values)
    assert other.relevance_.sel(char="flat") == 0.0


def test_a_date_with_too_few_stocks_enters_neither_the_fit_nor_the_factors() -> None:
    train = simulate(linear, 0, **SMALL).train
    mask, returns = train.mask.values.copy(), train.returns.values.copy()
    mask[70, 9:] = False
    thin = Panel(train.data.assign(mask=(("date", "ticker"), mask)))
    returns[70] *= 100.0
    wild = Panel(thin.data.assign(returns=(("date", "ticker"), returns)))
    one, other = RandomFeatureSDF(n_waves=10).fit(thin), RandomFeatureSDF(n_waves=10).fit(wild)
    np.testing.assert_array_equal(one.loadings(train).values, other.loadings(train).values)
    assert np.isnan(one.factor_returns(thin).values[70]).all()
    assert np.isfinite(RandomFeatureSDF(n_waves=10, min_stocks=9).fit(thin).factor_returns(thin).values[70]).all()


def test_what_cannot_be_fitted_is_refused() -> None:
    train = simulate(linear, 0, **SMALL).train
    none = Panel.from_arrays(train.returns.values, dates=train.dates)
    with pytest.raises(ModelError, match="a characteristic that varies"):
        RandomFeatureSDF().fit(none)
    with pytest.raises(ModelError, match=r"needs 24 dates .* Give more dates"):
        RandomFeatureSDF().fit(train.sel(end=train.dates[22]))
    with pytest.raises(ModelError, match=r"beside=\['c9'\] .* choose among \['constant', 'c1', 'c2'\]"):
        RandomFeatureSDF(beside=("c9",)).fit(train)
    with pytest.raises(ModelError, match="earn nothing"):
        RandomFeatureSDF(n_waves=0).fit(Panel(train.data.assign(returns=0.0 * train.returns)))


def sections(n_dates: int = 6, n_stocks: int = 30) -> tuple[list[np.ndarray], list[Section]]:
    rng = np.random.default_rng(0)
    u = [rng.standard_normal((n_stocks + date, 3)) for date in range(n_dates)]
    return u, [Section(rows, rng.standard_normal(len(rows)), np.arange(len(rows))) for rows in u]


def test_managed_portfolios_are_the_sums_of_the_definition() -> None:
    u, found = sections()
    products = Products.of(u)
    rng = np.random.default_rng(1)
    waves, managed = Waves.managed(rng.standard_normal((3, 5)), rng.uniform(0.0, 6.0, 5), u, found)
    for feature, portfolios in ((products, products.portfolios(u, found)), (waves, managed)):
        expected = [section.returns @ feature(rows) / len(rows) for rows, section in zip(u, found, strict=True)]
        np.testing.assert_allclose(portfolios, expected, atol=1e-12)
        pooled = np.concatenate([feature(rows) for rows in u])
        np.testing.assert_allclose(pooled[:, 1:].mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(np.concatenate([products(rows) for rows in u])[:, 1:].std(axis=0), 1.0)


@pytest.mark.parametrize("n_features", [4, 40])
def test_the_ridge_is_the_solution_of_its_equation(n_features: int) -> None:
    rng = np.random.default_rng(0)
    portfolios, scale = rng.standard_normal((20, n_features)) + 0.3, rng.uniform(0.5, 1.0, n_features)
    moments = portfolios.T @ portfolios / 20
    trace = np.trace(moments * np.outer(scale, scale))
    for column, share in ((0, 1e-4), (-1, 10.0)):
        expected = np.linalg.solve(moments + share * trace * np.diag(scale**-2.0), portfolios.mean(axis=0))
        np.testing.assert_allclose(ridge_path(portfolios, scale)[:, column], expected, rtol=1e-6, atol=1e-9)


def test_the_loadings_without_noise_are_the_true_ones() -> None:
    """Also where cross-sections differ, and factors have other scales."""
    rng = np.random.default_rng(0)
    u = [rng.standard_normal((12, 2)) for _ in range(90)]
    features = Features(Units(np.zeros(2), np.ones(2)), Products.of(u), Waves.none(2))
    true = rng.standard_normal((features.size, 2)) * [1.0, 100.0]
    factors = rng.standard_normal((90, 2)) @ np.array([[1.0, 0.006], [0.0, 0.01]])
    found = [Section(rows, features(rows) @ true @ f, np.arange(12)) for rows, f in zip(u, factors, strict=True)]
    portfolios = np.array([section.returns @ features(section.rows) / 12 for section in found])
    slopes = loadings_of(features, found, portfolios, factors, 3)
    np.testing.assert_allclose(slopes, true, rtol=0.02, atol=0.02)


def test_each_date_is_held_out_once_of_those_it_is_not_learnt_from() -> None:
    *folds, whole = samples_of(20, 3)
    np.testing.assert_array_equal(np.concatenate([fold.held for fold in folds]), np.arange(20))
    assert all(not np.intersect1d(fold.held, fold.learnt).size for fold in folds)
    assert all(len(fold.held) + len(fold.learnt) == 20 for fold in folds)
    np.testing.assert_array_equal(whole.learnt, np.arange(20))


def test_scores_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    returns, residuals = rng.standard_normal((2, 30, 8))
    mask = rng.random((30, 8)) < 0.8
    mask[3], mask[:, 2] = False, False
    residuals[5, 5] = np.nan
    known = mask & np.isfinite(residuals)
    squares = [
        [np.square(values[date, known[date]]).mean() for date in range(30) if known[date].any()]
        for values in (residuals, returns)
    ]
    assert explained_variation(returns, residuals, mask) == pytest.approx(1.0 - np.sum(squares[0]) / np.sum(squares[1]))
    means = [
        [known[:, i].sum() * values[known[:, i], i].mean() ** 2 for i in range(8) if known[:, i].any()]
        for values in (residuals, returns)
    ]
    assert cross_sectional_r2(returns, residuals, mask) == pytest.approx(1.0 - np.sum(means[0]) / np.sum(means[1]))


@pytest.mark.slow
@pytest.mark.parametrize(("irrelevant", "least"), [(0, 0.98), (8, 0.95), (56, 0.95)])
def test_the_simulation_of_chen_pelger_and_zhu(irrelevant: int, least: float) -> None:
    """The published network has 0.94 and 0.07 without irrelevant characteristics."""
    mean = mean_outcome("product", irrelevant, range(8))
    assert mean.relative > least
    assert mean.xs_r2 > 0.12


@pytest.mark.slow
def test_other_shapes_are_found_too() -> None:
    assert all(mean_outcome(loading, 8, range(3)).relative > 0.95 for loading in ("linear", "wave", "corner"))
