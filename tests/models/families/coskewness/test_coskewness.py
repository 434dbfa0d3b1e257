"""Factors beyond variance: against plain sums over triples, a known truth, and worlds without skewness."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from skewed_worlds import N_TRAINED, SEEDS, World, scores, skewed, table, world

from models.arrays import Float64Array
from models.families.coskewness import CoskewnessPCA
from models.families.coskewness.estimation import Triples, skewed_factors
from models.families.pca import PCA
from models.panel import Panel
from schemas.errors import ModelError


def trained(made: World) -> Panel:
    panel = made.panel()
    return panel.sel(end=panel.dates[N_TRAINED - 1])


def sample(n_dates: int = 12, n_stocks: int = 6) -> tuple[Float64Array, Float64Array]:
    rng = np.random.default_rng(3)
    values = skewed(rng, (n_dates, n_stocks))
    return values - values.mean(axis=0), rng.standard_normal(n_stocks)


def test_triples_are_the_sums_over_three_different_stocks() -> None:
    values, weights = sample()
    triples, n_stocks = Triples(values), values.shape[1]
    moments = np.einsum("ti,tj,tk->ijk", values, values, values) / len(values)
    slope, total = np.zeros(n_stocks), np.zeros(len(values))
    for i, j, k in permutations(range(n_stocks), 3):
        slope[i] += weights[j] * weights[k] * moments[i, j, k]
        total += weights[i] * weights[j] * weights[k] * values[:, i] * values[:, j] * values[:, k]
    np.testing.assert_allclose(triples.along(weights), slope, atol=1e-12)
    np.testing.assert_allclose(triples.by_date(weights).mean(), total.mean(), atol=1e-12)


def test_the_error_of_the_means_is_in_the_dates() -> None:
    """Moving all dates by a little moves the sum by what its slope says, and the corrected sum not at all."""
    values, weights = sample()
    step = 1e-6 * np.arange(1.0, 7.0)
    moved, kept = (Triples(each).by_date(weights).mean() for each in (values + step, values))
    assert abs(moved - kept) < 1e-9


def test_the_start_is_the_leading_eigenvector_of_the_co_skewness_matrix() -> None:
    values, _ = sample()
    matrix = np.zeros((6, 6))
    for one, other in permutations(range(len(values)), 2):
        for j, k in permutations(range(6), 2):
            matrix += np.outer(values[one], values[other]) * np.prod(values[one, [j, k]] * values[other, [j, k]])
    vector = np.linalg.eigh(matrix)[1][:, -1]
    assert abs(Triples(values).start(np.zeros((6, 0))) @ vector) == pytest.approx(1.0)


def test_a_weak_skewed_factor_is_found_in_any_units() -> None:
    made = world(0)
    seen, model = scores(CoskewnessPCA(), made)
    plain, _ = scores(PCA(n_factors=3), made)
    assert len(model.factors_) == 3
    assert seen > 0.35 > 0.05 > plain
    statistics = model.statistics()
    assert float(statistics["coskewness_p_value"]) < 1e-4
    assert float(statistics["skewness"][2]) > 0.5
    percent = CoskewnessPCA().fit(trained(world(0, unit=1.0)))
    np.testing.assert_allclose(percent.loadings_.values, model.loadings(made.panel()).values[0], atol=1e-6)
    later = model.clone().refit(model)
    assert later.get_params() == model.get_params() | {"n_factors": 2, "n_skewed": 1}


def test_without_skewness_it_is_plain_pca_and_says_so() -> None:
    """Also where every stock is skewed by itself, which no test of one portfolio's skewness would forgive."""
    panel = trained(world(0, gaussian=True, own=1.0))
    model, plain = CoskewnessPCA().fit(panel), PCA(n_factors=2).fit(panel)
    np.testing.assert_array_equal(model.loadings_.values, plain.loadings_.values)
    np.testing.assert_array_equal(model.premia_, plain.premia_)
    assert model.n_skewed_ == 0.0
    assert model.coskewness_p_value_ > 0.01


def test_twins_that_are_skewed_are_no_factor() -> None:
    """Two stocks with the same skewed noise: a pair is no triple."""
    rng = np.random.default_rng(0)
    residuals = rng.standard_normal((600, 30))
    residuals[:, :2] += 2.0 * skewed(rng, (600, 1))
    assert skewed_factors(residuals - residuals.mean(axis=0), 1, 0.01).loadings.shape == (30, 0)
    residuals[:, 2:8] += 2.0 * skewed(rng, (600, 1))
    found = skewed_factors(residuals - residuals.mean(axis=0), 1, 0.01).loadings
    assert np.square(found[2:8]).sum() > 0.95


def test_what_is_expected_of_gaps_has_the_moments_of_training() -> None:
    """Covariance of the factors, the skewed one too, and the variance that all of them leave to each stock."""
    panel = trained(world(0))
    model = CoskewnessPCA().fit(panel)
    loadings, expected = model.loadings_.values, model.expected_
    left = model.residuals(panel).values[1:]  # nothing is known before the first return
    np.testing.assert_allclose(expected.specific, left.var(axis=0), rtol=1e-6)
    factors = model.factor_returns(panel).values[1:]
    np.testing.assert_allclose(np.cov(factors, rowvar=False, ddof=0), expected.covariance, atol=1e-9)
    np.testing.assert_allclose(loadings.T @ loadings / 100.0, np.eye(3), atol=1e-10)


def test_a_rotation_turns_the_skewness_with_the_factors() -> None:
    panel = trained(world(0))
    model = CoskewnessPCA().fit(panel)
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]
    turned = model.rotate(rotation)
    factors = turned.factor_returns(panel).values[1:]
    centred = factors - factors.mean(axis=0)
    expected = (centred**3).mean(axis=0) / factors.std(axis=0) ** 3
    np.testing.assert_allclose(turned.statistics()["skewness"].values, expected, atol=1e-6)


def test_more_skewed_factors_than_stocks_carry_are_refused() -> None:
    panel = trained(world(0))
    with pytest.raises(ModelError, match="n_skewed=3 beside 5 components needs 40 dates and 10 stocks"):
        CoskewnessPCA(5, n_skewed=3).fit(Panel(panel.data.isel(ticker=slice(0, 8))))


@pytest.mark.slow
def test_twenty_four_worlds() -> None:
    found = table(range(SEEDS)).mean()
    assert found["coskewness_pca"] >= 0.47
    assert found["PCA, 3 factors"] == pytest.approx(0.181, abs=0.005)
    assert found["true loadings"] == pytest.approx(0.581, abs=0.005)
    gaussian = table(range(SEEDS), gaussian=True).mean()
    assert gaussian["coskewness_pca"] >= gaussian["PCA, as many factors"] - 0.002
    assert gaussian["skewed factors"] <= 0.05
    assert table(range(SEEDS), gaussian=True, own=1.0)["skewed factors"].mean() <= 0.1
