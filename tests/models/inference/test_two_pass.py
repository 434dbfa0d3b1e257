"""Shanken's errors of premia of estimated betas: the formula, the peer, and a simulation whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from linearmodels.asset_pricing import LinearFactorModel

from models.families.fama_macbeth.model import FamaMacBeth
from models.inference.regression import newey_west_covariance
from models.inference.two_pass import full_sample_betas, mean_covariance, shanken_covariance
from models.panel import Panel
from schemas.errors import ModelError

LAMBDA = np.array([0.4, 0.25])  # large against factors of unit variance, so that the correction matters: c = 0.22


def market(n_dates: int, n_stocks: int = 25, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Simulate returns whose means are 0.1 + beta lambda, and factors."""
    rng = np.random.default_rng(seed)
    beta = np.random.default_rng(99).uniform(-1.0, 1.5, (n_stocks, 2))
    factors = rng.standard_normal((n_dates, 2))
    returns = 0.1 + (LAMBDA + factors) @ beta.T + 2.0 * rng.standard_normal((n_dates, n_stocks))
    return returns, factors


def two_pass(returns: np.ndarray, factors: np.ndarray, **params: object) -> tuple[FamaMacBeth, Panel]:
    panel = Panel.from_arrays(returns, factors=factors, observed_factors=["mkt", "hml"])
    betas = full_sample_betas(panel)
    named = {"beta_mkt": "mkt", "beta_hml": "hml"}
    return FamaMacBeth(newey_west_lags=0, estimated_betas=named, **params).fit(betas), betas


def test_errors_are_those_of_the_theorem() -> None:
    returns, factors = market(300)
    model, betas = two_pass(returns, factors)
    X = np.column_stack([np.ones(25), betas.characteristics.values[0].astype(float)])
    design = np.column_stack([np.ones(300), factors])
    residuals = returns - design @ np.linalg.lstsq(design, returns)[0]
    A = np.linalg.pinv(X)
    premia = A @ returns.mean(axis=0)
    sigma_f = np.cov(factors.T, ddof=0)
    c = premia[1:] @ np.linalg.solve(sigma_f, premia[1:])
    expected = (1.0 + c) * A @ (residuals.T @ residuals / 300) @ A.T
    expected[1:, 1:] += sigma_f
    np.testing.assert_allclose(model.premia_, premia, rtol=1e-6)
    np.testing.assert_allclose(model.shanken_stderr_, np.sqrt(np.diagonal(expected) / 300), rtol=1e-6)
    np.testing.assert_allclose(model.t_statistics_, model.premia_ / model.shanken_stderr_)
    assert model.statistics()["shanken_stderr"].dims == ("factor",)
    restored = FamaMacBeth.from_state(model.get_params(), model.state())
    np.testing.assert_array_equal(restored.shanken_stderr_, model.shanken_stderr_)


def test_premia_and_errors_are_those_of_linearmodels_in_a_long_sample() -> None:
    """Its errors allow for heteroskedasticity; where there is none, both converge to the same."""
    returns, factors = market(20_000, n_stocks=8)
    model, _ = two_pass(returns, factors)
    peer = LinearFactorModel(returns, factors, risk_free=True).fit(cov_type="robust", debiased=False)
    np.testing.assert_allclose(model.premia_, peer.risk_premia.values, rtol=1e-5)
    np.testing.assert_allclose(model.shanken_stderr_, peer.risk_premia_se.values, rtol=0.015)
    assert (model.premia_stderr_ < 0.95 * model.shanken_stderr_).all()  # they differ by more than that tolerance


def test_errors_cover_the_truth_where_those_of_fama_and_macbeth_are_too_small() -> None:
    """The spread of premia over simulated samples is that of Shanken's errors, and above that of the plain ones."""
    found, shanken, plain = [], [], []
    for seed in range(500):
        returns, factors = market(200, n_stocks=40, seed=seed + 1)
        design = np.column_stack([np.ones(200), factors])
        beta = np.linalg.lstsq(design, returns)[0][1:].T
        slopes = returns @ np.linalg.pinv(np.column_stack([np.ones(40), beta])).T
        columns = np.column_stack([np.full(200, np.nan), factors])
        found.append(slopes.mean(axis=0) - np.r_[0.0, factors.mean(axis=0)])  # given the factors: noise alone
        noise = shanken_covariance(slopes, columns, 0) - mean_covariance(np.where(np.isnan(columns), 0.0, columns), 0)
        shanken.append(np.diagonal(noise))
        plain.append(np.diagonal(mean_covariance(slopes - np.nan_to_num(columns), 0)))
    spread = np.var(found, axis=0)
    np.testing.assert_allclose(np.mean(shanken, axis=0) / spread, 1.0, atol=0.15)
    assert (np.mean(plain, axis=0) / spread < 0.9).all()


def test_covariance_of_means_over_different_dates() -> None:
    rng = np.random.default_rng(0)
    series = rng.standard_normal((80, 3)).cumsum(axis=0) * 0.1 + rng.standard_normal((80, 3))
    np.testing.assert_allclose(mean_covariance(series, 3), newey_west_covariance(series, 3), rtol=1e-12)
    series[:30, 1] = np.nan
    found = mean_covariance(series, 3)
    np.testing.assert_allclose(found[1, 1], newey_west_covariance(series[30:, 1:2], 3)[0, 0], rtol=1e-12)
    np.testing.assert_allclose(found[0, 2], newey_west_covariance(series[:, [0, 2]], 3)[0, 1], rtol=1e-12)
    d = np.nan_to_num(series - np.nanmean(series, axis=0))
    np.testing.assert_allclose(mean_covariance(series, 0)[0, 1], (d[:, 0] @ d[:, 1]) / (80 * 50), rtol=1e-12)
    inflated = mean_covariance(series, 3, debiased=True)
    np.testing.assert_allclose(np.diagonal(inflated / found), [80 / 79, 50 / 49, 80 / 79], rtol=1e-12)


def test_betas_are_those_of_each_history_and_mistakes_are_named() -> None:
    returns, factors = market(120)
    returns[:60, 0] = np.nan
    returns[10:, 1] = np.nan
    model, betas = two_pass(returns, factors)
    design = np.column_stack([np.ones(60), factors[60:]])
    own = np.linalg.lstsq(design, returns[60:, 0])[0][1:]
    np.testing.assert_allclose(betas.characteristics.values[:, 0], np.broadcast_to(own, (120, 2)), rtol=1e-5)
    assert not betas.coverage.values[:, 1].any()  # ten returns
    for named, message in (
        ({"beta_mkt": "smb"}, r"names \['smb'\]"),
        ({"size": "mkt"}, r"names \['size'\]"),
        ({"beta_mkt": "mkt", "beta_hml": "mkt"}, "name each factor once"),
    ):
        with pytest.raises(ModelError, match=message):
            FamaMacBeth(estimated_betas=named).fit(betas)
    factors[7, 0] = np.nan
    with pytest.raises(ModelError, match="mkt is missing on 2000-01-12"):
        two_pass(returns, factors)
    assert model.n_dropped_ == 0
