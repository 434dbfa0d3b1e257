"""Allocations against closed forms, against skfolio on the dense covariance, and under their limits.

Tolerances are those of the solver: 1e-4 of weights and 1e-5 of limits, unless a closed form is met to more.
"""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import xarray as xr
from skfolio import RiskMeasure
from skfolio.optimization import MaximumDiversification, MeanRisk, RiskBudgeting
from skfolio.prior import BasePrior, ReturnDistribution

from models.allocation import (
    Constraints,
    allocate,
    efficient_frontier,
    factor_risk_parity,
    hierarchical_risk_parity,
    maximum_diversification,
    mean_variance,
    minimum_variance,
    risk_parity,
)
from models.allocation.prior import FactorPrior
from models.risk.portfolio import RiskModel
from schemas.allocation import AllocationSpec
from schemas.errors import ConfigError, DataError, ModelError

N, K = 24, 3
FREE = Constraints(long_only=False)
TICKERS, FACTORS = [f"t{i}" for i in range(N)], [f"f{k}" for k in range(K)]
METHODS = [minimum_variance, maximum_diversification, risk_parity, hierarchical_risk_parity]


def model_of(loadings: np.ndarray, omega: np.ndarray, specific: np.ndarray) -> RiskModel:
    names = {"ticker": TICKERS[: len(loadings)], "factor": FACTORS[: len(omega)], "factor_": FACTORS[: len(omega)]}
    return RiskModel(
        xr.DataArray(loadings, {"ticker": names["ticker"], "factor": names["factor"]}, ("ticker", "factor")),
        xr.DataArray(omega, {"factor": names["factor"], "factor_": names["factor_"]}, ("factor", "factor_")),
        xr.DataArray(specific, {"ticker": names["ticker"]}, ("ticker",)),
    )


def market(seed: int = 0, n: int = N, unit: float = 1e-4) -> RiskModel:
    """Market and two styles, in daily variances."""
    rng = np.random.default_rng(seed)
    loadings = np.column_stack([1.0 + 0.3 * rng.normal(size=n), rng.normal(size=(n, K - 1))])
    root = rng.normal(size=(K, K)) * 0.2
    omega = (root @ root.T + np.diag([1.0, 0.3, 0.2])) * unit
    return model_of(loadings, omega, rng.uniform(1.0, 5.0, n) * unit)


def dense(model: RiskModel) -> np.ndarray:
    x = model.loadings.values
    return x @ model.omega.values @ x.T + np.diag(model.specific_variance.values)


class DensePrior(BasePrior):
    """The covariance as a matrix, without factors: how skfolio would see it without the adapter."""

    def __init__(self, covariance: np.ndarray) -> None:
        self.covariance = covariance

    def fit(self, X: np.ndarray, *_: object) -> DensePrior:
        self.return_distribution_ = ReturnDistribution(np.zeros(len(self.covariance)), self.covariance, X)
        return self


def test_without_limits_weights_are_the_closed_forms() -> None:
    model = market()
    sigma = dense(model)
    ones, mu = np.linalg.solve(sigma, np.ones(N)), np.linspace(1e-4, 9e-4, N)
    np.testing.assert_allclose(minimum_variance(model, FREE), ones / ones.sum(), atol=1e-8)
    deviation = np.linalg.solve(sigma, np.sqrt(np.diag(sigma)))
    np.testing.assert_allclose(maximum_diversification(model, FREE), deviation / deviation.sum(), atol=1e-4)
    tilted = np.linalg.solve(sigma, mu) / 8.0
    expected = tilted + (1.0 - tilted.sum()) * ones / ones.sum()
    found = mean_variance(model, xr.DataArray(mu, {"ticker": TICKERS}, ("ticker",)), FREE, risk_aversion=8.0)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("cap", [None, 0.07])
def test_factor_form_is_skfolio_on_the_dense_covariance(cap: float | None) -> None:
    model = market(1)
    sigma = dense(model) / np.diag(dense(model)).mean()
    options = {"prior_estimator": DensePrior(sigma), "max_weights": 1.0 if cap is None else cap}
    zeros, limits = np.zeros((2, N)), Constraints(cap=cap)
    peers = {
        minimum_variance: MeanRisk(**options),
        maximum_diversification: MaximumDiversification(**options),
        risk_parity: RiskBudgeting(risk_measure=RiskMeasure.STANDARD_DEVIATION, **options),
    }
    for ours, theirs in peers.items():
        w, v = ours(model, limits).values, theirs.fit(zeros).weights_
        np.testing.assert_allclose(w, v, atol=2e-4, err_msg=ours.__name__)
        np.testing.assert_allclose(w @ sigma @ w, v @ sigma @ v, rtol=1e-4)
        assert abs(w.sum() - 1.0) < 1e-12
        assert w.min() >= 0.0
        assert w.max() <= (cap or 1.0)


def test_the_optimiser_sees_the_square_root_in_factor_form() -> None:
    model = market()
    prior = FactorPrior(model.loadings.values, model.omega.values, model.specific_variance.values)
    seen = prior.fit(np.zeros((2, N))).return_distribution_
    root = seen.covariance_sqrt
    assert [part.shape for part in root.components] == [(N, K)]
    rebuilt = root.components[0] @ root.components[0].T + np.diag(root.diagonal**2)
    np.testing.assert_allclose(rebuilt, dense(model), rtol=1e-12)
    np.testing.assert_allclose(seen.covariance, dense(model), rtol=1e-12)


def test_risk_parity_makes_contributions_equal() -> None:
    model = market(2)
    w = risk_parity(model)
    parts = w * model.marginal(w)
    np.testing.assert_allclose(parts / model.variance(w), 1.0 / N, rtol=1e-3)
    xr.testing.assert_equal(
        risk_parity(model, Constraints(long_only=False, cap=0.9)), risk_parity(model, Constraints(cap=0.9))
    )
    pair = model_of(np.array([[1.0], [2.0]]), np.array([[1e-4]]), np.array([1e-4, 5e-4]))
    inverse = 1.0 / np.sqrt(np.diag(dense(pair)))
    np.testing.assert_allclose(risk_parity(pair), inverse / inverse.sum(), atol=1e-4)


def test_hierarchical_risk_parity_without_correlation_is_inverse_variance() -> None:
    plain = market()
    alone = RiskModel(plain.loadings * 0.0, plain.omega, plain.specific_variance)
    inverse = 1.0 / plain.specific_variance.values
    np.testing.assert_allclose(hierarchical_risk_parity(alone), inverse / inverse.sum(), rtol=1e-10)


def shares_of(model: RiskModel, w: xr.DataArray) -> np.ndarray:
    return (model.factor_contributions(w) / model.systematic(w)).values


def test_factors_contribute_their_shares_with_the_least_specific_variance() -> None:
    model = market(3)
    w = factor_risk_parity(model)
    np.testing.assert_allclose(shares_of(model, w), 1.0 / K, rtol=1e-9)
    assert abs(w.sum() - 1.0) < 1e-12
    uneven = factor_risk_parity(model, shares={"f0": 2.0, "f1": 1.0, "f2": 1.0})
    np.testing.assert_allclose(shares_of(model, uneven), [0.5, 0.25, 0.25], rtol=1e-9)
    null = np.linalg.svd(np.column_stack([model.loadings.values, np.ones(N)]).T)[2][K + 1 :]
    step = 1e-3 * np.random.default_rng(0).normal(size=len(null)) @ null  # changes neither exposures nor the sum
    assert model.specific(w) < model.specific(w + step)
    assert model.specific(w) < model.specific(w - step)


def test_limits_leave_factors_their_shares() -> None:
    model = market(3)
    free = factor_risk_parity(model)
    loose = Constraints(long_only=False, cap=2.0 * float(abs(free).max()))
    np.testing.assert_allclose(factor_risk_parity(model, loose), free, atol=1e-4)
    tight = Constraints(long_only=False, cap=0.8 * float(abs(free).max()))
    w = factor_risk_parity(model, tight)
    np.testing.assert_allclose(shares_of(model, w), 1.0 / K, rtol=1e-4)
    assert float(abs(w).max()) <= tight.cap
    assert model.specific(w) / model.systematic(w) > model.specific(free) / model.systematic(free)
    with pytest.raises(ModelError, match="no weights within the limits"):
        factor_risk_parity(model, Constraints(cap=1.5 / N))


def test_group_limits_and_turnover_hold_and_bind() -> None:
    model = market(4)
    groups = {"a": TICKERS[::3], "b": TICKERS[1::3], "c": TICKERS[2::3]}
    held = xr.DataArray(np.full(N, 1.0 / N), {"ticker": TICKERS}, ("ticker",))
    for method in (minimum_variance, maximum_diversification, risk_parity):
        assert float(abs(method(model) - held).sum()) > 0.2
        w = method(model, Constraints(groups=groups, group_limits={"a": (0.0, 0.29)}, previous=held, max_turnover=0.15))
        np.testing.assert_allclose(abs(w - held).sum(), 0.15, atol=1e-5, err_msg=method.__name__)
        np.testing.assert_allclose(w[::3].sum(), 0.29, atol=1e-5, err_msg=method.__name__)
        raised = method(model, Constraints(groups=groups, group_limits={"a": (0.5, 0.7), "b": (0.0, 0.1)}))
        assert 0.5 - 1e-5 <= float(raised[::3].sum()) <= 0.7 + 1e-5, method.__name__
        assert float(raised[1::3].sum()) <= 0.1 + 1e-5, method.__name__
    with pytest.raises(ModelError, match="no weights satisfy all limits"):
        minimum_variance(
            model, Constraints(groups=groups, group_limits={"a": (0.0, 0.2)}, previous=held, max_turnover=0.1)
        )
    stay = minimum_variance(model, Constraints(previous=held, max_turnover=0.0))
    np.testing.assert_allclose(stay, held, atol=1e-6)


def test_limits_of_lists_industries_and_exposures_are_those_of_a_direct_solution() -> None:
    model, industries = market(8), {"Energy": TICKERS[:8], "Banks": TICKERS[8:16]}
    free = minimum_variance(model, Constraints(cap=0.15))
    spec = AllocationSpec.parse(
        {
            "name": "limited",
            "cap": 0.15,
            "groups": [
                {"name": "Energy", "lower": float(free[:8].sum()) + 0.1},
                {"name": "few", "tickers": ["t8", "t9", "t20"], "upper": 0.02},
            ],
            "exposures": [{"factor": "f1", "lower": -0.05, "upper": 0.0}, {"factor": "f2", "lower": 0.3}],
        },
        origin="test",
    )
    found = allocate(model, spec, industries=industries)
    w, few = cp.Variable(N), [8, 9, 20]
    exposures = model.loadings.values.T @ w
    within = [w >= 0.0, w <= 0.15, cp.sum(w) == 1.0, cp.sum(w[:8]) >= spec.groups[0].lower, cp.sum(w[few]) <= 0.02]
    within += [exposures[1] <= 0.0, exposures[1] >= -0.05, exposures[2] >= 0.3]
    cp.Problem(cp.Minimize(cp.quad_form(w, cp.psd_wrap(dense(model) * 1e4))), within).solve(solver="CLARABEL")
    np.testing.assert_allclose(found, w.value, atol=2e-4)
    assert abs(found - free).sum() > 0.15
    with pytest.raises(ConfigError, match="no group 'Energy' to limit; known: few"):
        allocate(model, spec)
    for mistake, told in (
        ({"groups": [{"name": "Energy"}]}, "give lower, upper or both"),
        ({"groups": [{"name": "Energy", "lower": 0.2, "upper": 0.1}]}, "the first may not be larger"),
        ({"exposures": [{"factor": "f1", "lower": 0.0}, {"factor": "f1", "upper": 1.0}]}, "f1 is limited twice"),
        ({"method": "hierarchical_risk_parity", "exposures": [{"factor": "f1", "lower": 0.0}]}, "takes a cap alone"),
    ):
        with pytest.raises(ConfigError, match=told):
            AllocationSpec.parse({"name": "a", **mistake}, origin="test")


def test_factors_share_risk_within_limits_of_groups_and_exposures() -> None:
    model = market(3)
    free = factor_risk_parity(model)
    first = float(free[:6].sum())
    limits = Constraints(
        long_only=False, cap=2.0, groups={"a": TICKERS[:6]}, group_limits={"a": (-np.inf, first - 0.05)}
    )
    w = factor_risk_parity(model, limits)
    np.testing.assert_allclose(shares_of(model, w), 1.0 / K, rtol=1e-4)
    np.testing.assert_allclose(w[:6].sum(), first - 0.05, atol=1e-5)


def test_what_is_not_covered_is_not_held_and_selling_it_counts() -> None:
    whole = market(5)
    loadings = whole.loadings.copy(deep=True)
    loadings[0, 1] = np.nan
    model = RiskModel(loadings, whole.omega, whole.specific_variance)
    rest = RiskModel(
        *(part.isel(ticker=slice(1, None)) if "ticker" in part.dims else part for part in vars(whole).values())
    )
    for method in METHODS:
        w = method(model)
        assert w[0] == 0.0
        np.testing.assert_allclose(w[1:], method(rest), atol=1e-6)
    held = xr.DataArray([0.3, 0.7], {"ticker": ["t0", "t1"]}, ("ticker",))
    w = minimum_variance(model, Constraints(previous=held, max_turnover=0.8))
    moved = abs(w - held.reindex(ticker=TICKERS, fill_value=0.0)).sum()
    np.testing.assert_allclose(moved, 0.8, atol=1e-4)
    with pytest.raises(ModelError, match=r"0.3 must be sold"):
        minimum_variance(model, Constraints(previous=held, max_turnover=0.2))


@pytest.mark.parametrize("method", [*METHODS, factor_risk_parity])
def test_order_of_tickers_units_and_rotation_of_factors_decide_nothing(method: object) -> None:
    model, order = market(6), np.random.default_rng(6).permutation(N)
    same = RiskModel(model.loadings[order], 1e4 * model.omega, 1e4 * model.specific_variance)
    xr.testing.assert_allclose(method(same).sel(ticker=TICKERS), method(model), atol=1e-4)
    if method is not factor_risk_parity:  # which is about the factors as they are labelled
        turn = np.linalg.qr(np.random.default_rng(6).normal(size=(K, K)))[0]
        turned = model_of(
            model.loadings.values @ turn, turn.T @ model.omega.values @ turn, model.specific_variance.values
        )
        xr.testing.assert_allclose(method(turned), method(model), atol=1e-4)


def test_a_spec_chooses_the_method() -> None:
    model, mu = market(7), xr.DataArray(np.linspace(1e-4, 9e-4, N), {"ticker": TICKERS}, ("ticker",))
    made = {
        method: allocate(
            model,
            AllocationSpec(name="a", method=method, long_only=method != "factor_risk_parity"),
            expected_returns=mu,
        )
        for method in (
            "minimum_variance",
            "maximum_diversification",
            "risk_parity",
            "factor_risk_parity",
            "mean_variance",
            "hierarchical_risk_parity",
        )
    }
    xr.testing.assert_equal(made["minimum_variance"], minimum_variance(model))
    xr.testing.assert_equal(made["mean_variance"], mean_variance(model, mu))
    assert len({w.values.tobytes() for w in made.values()}) == len(made)
    for w in made.values():
        np.testing.assert_allclose(w.sum(), 1.0, atol=1e-12)
    with pytest.raises(ModelError, match="needs expected returns"):
        allocate(model, AllocationSpec(name="a", method="mean_variance"))


def test_the_frontier_runs_through_the_portfolios_of_mean_variance_from_end_to_end() -> None:
    whole = market(9)
    loadings = whole.loadings.copy(deep=True)
    loadings[3, 1] = np.nan
    model = RiskModel(loadings, whole.omega, whole.specific_variance)
    mu = (loadings * xr.DataArray([4e-4, 1e-4, -2e-4], {"factor": FACTORS}, ("factor",))).sum("factor", skipna=False)
    found = efficient_frontier(model, mu)
    assert (np.diff(found["variance"]) >= -1e-16).all()
    assert (np.diff(found["expected_return"]) >= -1e-12).all()
    np.testing.assert_allclose(found["weights"].sum("ticker"), 1.0, atol=1e-12)
    assert float(found["weights"].min()) >= 0.0
    assert not found["weights"].sel(ticker="t3").any()
    np.testing.assert_allclose(found["weights"][0], minimum_variance(model), atol=1e-4)
    np.testing.assert_allclose(found["expected_return"][-1], mu.max(), rtol=1e-9)
    for point in (10, 16, 22):
        gamma = float(found["risk_aversion"][point])
        peer = mean_variance(model, mu, risk_aversion=gamma)
        np.testing.assert_allclose(found["weights"][point], peer, atol=2e-4, err_msg=f"{gamma}")
        np.testing.assert_allclose(found["variance"][point], model.variance(peer), rtol=1e-3)
    np.testing.assert_allclose(
        found["variance"], model.variance(found["weights"].rename(point="portfolio")), rtol=1e-12
    )


def test_what_cannot_be_is_refused_by_name() -> None:
    model = market()
    with pytest.raises(ModelError, match="cannot sum to 1"):
        minimum_variance(model, Constraints(cap=0.9 / N))
    with pytest.raises(DataError, match="one date"):
        minimum_variance(RiskModel(model.loadings.expand_dims(date=[0]), model.omega, model.specific_variance))
    with pytest.raises(ModelError, match="none is covered"):
        minimum_variance(RiskModel(model.loadings * np.nan, model.omega, model.specific_variance))
    with pytest.raises(ConfigError, match="cap alone"):
        hierarchical_risk_parity(model, FREE)
    with pytest.raises(DataError, match="'a' has t99, which the risk model does not know"):
        minimum_variance(model, Constraints(groups={"a": ["t0", "t99"]}, group_limits={"a": (0.0, 0.5)}))
    with pytest.raises(ConfigError, match="no group 'Enrgy' to limit; did you mean 'Energy'"):
        Constraints(groups={"Energy": ["t0"]}, group_limits={"Enrgy": (0.0, 0.5)})
    with pytest.raises(ConfigError, match="no factor 'f9' whose exposure could be limited"):
        minimum_variance(model, Constraints(exposure_limits={"f9": (0.0, 0.5)}))
    with pytest.raises(ModelError, match=r"'a' shall be at most 0.5, but single weights .* reach no less than 1;"):
        minimum_variance(model, Constraints(groups={"a": TICKERS}, group_limits={"a": (0.0, 0.5)}))
    with pytest.raises(ModelError, match=r"'a' shall be at least 0.4, but single weights .* reach at most 0.2;"):
        minimum_variance(model, Constraints(cap=0.1, groups={"a": TICKERS[:2]}, group_limits={"a": (0.4, 1.0)}))
    with pytest.raises(ModelError, match="Omega is singular"):
        factor_risk_parity(RiskModel(model.loadings, model.omega * 0.0, model.specific_variance))
