"""Portfolios of a covariance: what they minimise, span and sum to, beside a general solver."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

from models.evaluation import portfolios
from models.evaluation.covariances import Dense, FactorForm
from schemas.errors import ConfigError


def made(n: int, k: int = 6, seed: int = 0) -> FactorForm:
    rng = np.random.default_rng(seed)
    loadings = rng.normal(size=(n, k))
    loadings[:, 0] = 1.0 + 0.3 * loadings[:, 0]
    omega = np.diag(np.r_[1e-4, np.full(k - 1, 4e-6)])
    return FactorForm(loadings, omega, np.exp(rng.normal(size=n)) * 1e-4)


@pytest.mark.parametrize(("n", "cap"), [(40, 0.03), (40, 0.2), (40, 1.0), (200, 0.02), (200, 0.0051)])
def test_long_only_weights_are_those_of_a_general_solver(n: int, cap: float) -> None:
    form = made(n)
    weights = portfolios.long_only_minimum_variance(form, cap)
    x = cp.Variable(n)
    risk = cp.sum_squares(100.0 * form.scaled_loadings.T @ x) + cp.sum_squares(cp.multiply(100.0 * form.scale, x))
    cp.Problem(cp.Minimize(risk), [cp.sum(x) == 1.0, x >= 0.0, x <= cap]).solve(
        solver="CLARABEL", tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12
    )
    np.testing.assert_allclose(weights, x.value, atol=1e-6)
    assert weights.min() >= 0.0
    assert weights.max() <= cap
    assert weights.sum() == pytest.approx(1.0, abs=1e-12)
    dense = Dense(form.times(np.eye(n)))
    np.testing.assert_allclose(portfolios.long_only_minimum_variance(dense, cap), weights, atol=1e-7)


def test_a_cap_that_leaves_no_choice_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"give one above 0\.025"):
        portfolios.long_only_minimum_variance(made(40), 0.02)


def test_optimised_portfolios_satisfy_their_first_order_conditions() -> None:
    form = made(50)
    weights = portfolios.minimum_variance(form)
    assert weights.sum() == pytest.approx(1.0)
    slope = form.times(weights[:, None])[:, 0]
    np.testing.assert_allclose(slope, slope.mean(), rtol=1e-9)
    alphas = np.random.default_rng(1).normal(size=(3, 50))
    held = portfolios.random_alpha(form, alphas)
    np.testing.assert_allclose(np.abs(held).sum(axis=1), 1.0)
    for w, a in zip(held, alphas, strict=True):
        ratio = form.times(w[:, None])[:, 0] / a
        np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-8)
    earned = portfolios.factor_portfolios(form) @ form.loadings
    np.testing.assert_allclose(earned - np.diag(np.diag(earned)), 0.0, atol=1e-12)


@pytest.mark.parametrize("n", [70, 300])
def test_eigenportfolios_are_uncorrelated_and_beyond_the_factors_all_alike(n: int) -> None:
    form = made(n)
    found = portfolios.eigenportfolios(form, np.random.default_rng(2).normal(size=(60, n)))
    buckets = {70: ["1", "2-5", "6-20", "21-60", "last 20"]}
    assert list(found) == buckets.get(n, ["1", "2-5", "6-20", "21-60", "61-200", "201-", "last 20"])
    assert [len(found[name]) for name in ("1", "2-5")] == [1, 4]
    every = np.concatenate(list(found.values()))
    covariance = every @ form.times(every.T)
    scale = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(covariance / np.outer(scale, scale), np.eye(len(every)), atol=1e-8)
    loose = found["last 20"] * form.scale
    np.testing.assert_allclose(form.variance(found["last 20"]), np.square(loose).sum(axis=1), rtol=1e-8)
    dense = portfolios.eigenportfolios(Dense(form.times(np.eye(n))), np.zeros((0, n)))
    assert sum(map(len, dense.values())) == n


def test_buckets_of_ranks_cover_every_rank_once() -> None:
    for n in (2, 21, 25, 80, 300, 3000):
        ranks = [rank for first, end in portfolios.rank_buckets(n).values() for rank in range(first, end + 1)]
        assert sorted(ranks) == list(range(1, n + 1))


def test_random_portfolios_groups_and_turnover() -> None:
    held = portfolios.random_long_short(np.random.default_rng(3).normal(size=(4, 9)))
    np.testing.assert_allclose(held.sum(axis=1), 0.0, atol=1e-15)
    np.testing.assert_allclose(np.abs(held).sum(axis=1), 1.0)
    names, weights = portfolios.group_portfolios(["b", "a", "b"])
    assert names == ["a", "b"]
    np.testing.assert_allclose(weights, [[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])
    assert portfolios.turnover(np.array([1.0, 0.0, 0.0]), np.array([0.25, 0.75, 0.0])) == 0.75
