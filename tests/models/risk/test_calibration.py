"""Calibration: what each stage may change, and that a biased model becomes right where the truth is known."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from models.arrays import Float64Array, NamedArrays
from models.evaluation.protocol import FactorForm, Forecast, Rules, judge
from models.families.factor_analysis.estimation import factor_analysis
from models.risk.calibration import Calibrated, Calibration
from models.risk.volatility import StockVolatility
from schemas.calibration import BudgetSpec, CurveSpec, MarketSpec, VolatilitySpec

FULL = Calibration()
OFF = Calibration(curve=None, market=None, budget=None)
SHORT = Calibration(volatility=VolatilitySpec(horizon=5))
"""Horizons end often."""
CURVE, MARKET, BUDGET = FULL.curve or CurveSpec(), FULL.market or MarketSpec(), FULL.budget or BudgetSpec()


def drawn(n_stocks: int, n_factors: int, n_dates: int, degrees: float | None = None, seed: int = 0):
    """Draw a model with a market, and returns that it is true of: normal, or t scaled to the same covariance."""
    rng = np.random.default_rng(seed)
    loadings = rng.normal(size=(n_stocks, n_factors))
    loadings[:, 0] = 1.0 + 0.3 * loadings[:, 0]
    omega = np.diag([1e-4, *np.geomspace(2.5e-5, 6e-6, n_factors - 1)])
    form = FactorForm(loadings, omega, rng.uniform(1e-4, 3e-4, n_stocks))

    def draw(size: int) -> Float64Array:
        if degrees is None:
            return rng.normal(size=(n_dates, size))
        return rng.standard_t(degrees, (n_dates, size)) * np.sqrt(1.0 - 2.0 / degrees)

    return draw(n_factors) @ np.sqrt(omega) @ loadings.T + draw(n_stocks) * form.scale, form


def small(n_dates: int = 64) -> tuple[Float64Array, FactorForm]:
    """Return holed returns and a model that is wrong in every way that is mended."""
    returns, form = drawn(30, 4, n_dates, seed=3)
    returns[np.random.default_rng(3).random(returns.shape) < 0.03] = np.nan
    rng = np.random.default_rng(4)
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    omega = turn @ np.diag([8e-5, 6e-5, 2e-5, 2e-6]) @ turn.T
    return 2.0 * returns, FactorForm(form.loadings + 0.3 * rng.normal(size=(30, 4)), omega, 0.7 * form.diagonal)


def ran(
    returns: Float64Array, form: FactorForm, calibration: Calibration, state: NamedArrays | None = None
) -> tuple[NamedArrays, Calibrated]:
    """Follow dates with the same model on each, in the order that a walk has."""
    n_stocks, n_factors = form.loadings.shape
    state = calibration.start(n_factors, n_stocks) if state is None else state
    found = None
    for row in returns:
        state = calibration.step(state, row)
        parts = (form.loadings, form.omega, form.specific_variance)
        found = calibration.read(state, *parts, np.ones(n_stocks, dtype=bool))
        state = calibration.opened(state, found)
    assert found is not None
    return state, found


def calibrated(form: FactorForm, found: Calibrated) -> FactorForm:
    loadings = form.loadings * found.scale[:, None]
    if len(found.omega) > loadings.shape[1]:
        loadings = np.concatenate([loadings, np.ones((len(loadings), 1))], axis=1)
    return FactorForm(loadings, found.omega, found.specific_variance)


def dense(form: FactorForm) -> Float64Array:
    return form.times(np.eye(form.n_stocks))


def followed(returns: Float64Array, form: FactorForm, calibration: Calibration) -> FactorForm:
    return calibrated(form, ran(returns, form, calibration)[1])


def assert_near(one: Float64Array, other: Float64Array, tolerance: float = 1e-9) -> None:
    np.testing.assert_allclose(one, other, atol=tolerance * np.abs(other).max(), rtol=0.0)


def test_it_turns_with_the_factors() -> None:
    returns, form = small()
    expected = dense(followed(returns, form, SHORT))
    rng = np.random.default_rng(5)
    for matrix in (np.linalg.qr(rng.normal(size=(4, 4)))[0], rng.normal(size=(4, 4)) + 3.0 * np.eye(4)):
        inverse = np.linalg.inv(matrix)
        turned = FactorForm(form.loadings @ matrix, inverse @ form.omega @ inverse.T, form.specific_variance)
        assert_near(dense(followed(returns, turned, SHORT)), expected)


def test_permuted_tickers_permute() -> None:
    returns, form = small()
    order = np.random.default_rng(6).permutation(30)
    found = dense(followed(returns[:, order], form.restricted(order), SHORT))
    assert_near(found, dense(followed(returns, form, SHORT))[np.ix_(order, order)])


def test_a_state_is_kept_as_it_was_whatever_comes_later_and_continues_bit_for_bit() -> None:
    returns, form = small()
    first, at_first = ran(returns[:43], form, SHORT)
    assert 0.0 < first["age"] < 5.0, "in the middle of a horizon"
    file = io.BytesIO()
    np.savez(file, **first)
    before = {name: getattr(at_first, name).copy() for name in Calibrated.__dataclass_fields__}
    later, found = ran(returns[43:], form, SHORT, first)
    file.seek(0)
    stored = dict(np.load(file))
    built, at_last = ran(returns, form, SHORT)
    again, _ = ran(returns[43:], form, SHORT, stored)
    for name in built:
        np.testing.assert_array_equal(first[name], stored[name], err_msg=name)
        np.testing.assert_array_equal(later[name], built[name], err_msg=name)
        np.testing.assert_array_equal(again[name], built[name], err_msg=name)
    for name, value in before.items():
        np.testing.assert_array_equal(getattr(at_first, name), value, err_msg=name)
        np.testing.assert_array_equal(getattr(found, name), getattr(at_last, name), err_msg=name)
    assert not np.array_equal(later["curve"], first["curve"])


@pytest.mark.parametrize("curve", [None, CURVE], ids=["plain", "curve"])
def test_the_diagonal_is_the_variance_that_is_forecast_of_each_stock(curve: CurveSpec | None) -> None:
    returns, form = small()
    one = SHORT.model_copy(update={"curve": curve, "market": None, "budget": None})
    found = followed(returns, form, one)
    stocks = StockVolatility(horizon=5)
    state = stocks.start(30)
    for row in returns:
        state = stocks.step(state, row)
    np.testing.assert_allclose(found.diagonal, stocks.read(state), rtol=1e-12)


def test_without_stages_correlations_are_those_of_the_model_down_to_its_floor() -> None:
    returns, form = small()
    found, deviation = followed(returns, form, OFF), np.sqrt(form.diagonal)
    correlations = dense(found) / np.sqrt(np.outer(found.diagonal, found.diagonal))
    assert_near(correlations, dense(form) / np.outer(deviation, deviation), 1e-12)
    bare = FactorForm(form.loadings, form.omega, np.full(30, 1e-12))
    shares = followed(returns, bare, OFF)
    np.testing.assert_allclose(shares.specific_variance / shares.diagonal, OFF.floor / (1.0 + OFF.floor), rtol=1e-5)


def test_a_stage_changes_its_own_part_alone() -> None:
    """The curve eigenvalues, the market one direction, the budget that direction and a column of ones."""
    returns, form = small()
    found = {
        name: followed(returns, form, SHORT.model_copy(update=dict.fromkeys(left_out)))
        for name, left_out in {
            "none": ("curve", "market", "budget"),
            "curve": ("market", "budget"),
            "market": ("curve", "budget"),
            "budget": ("curve", "market"),
        }.items()
    }
    plain = dense(found["none"])
    assert [form.loadings.shape[1] for form in found.values()] == [4, 4, 4, 5]

    def whitened(one: FactorForm) -> Float64Array:
        return dense(one) / np.outer(one.scale, one.scale)

    projectors = []
    for name in ("none", "curve"):
        values, vectors = np.linalg.eigh(whitened(found[name]))
        np.testing.assert_allclose(values[:-4], 1.0, atol=1e-9)
        projectors.append(vectors[:, -4:] @ vectors[:, -4:].T)
    np.testing.assert_allclose(np.diag(dense(found["curve"])), np.diag(plain), rtol=1e-10)
    assert np.abs(dense(found["curve"]) / plain - 1.0).max() > 0.05
    for name in ("market", "budget"):
        np.testing.assert_array_equal(found[name].specific_variance, found["none"].specific_variance)
    leading = found["none"].scale * np.linalg.eigh(whitened(found["none"]))[1][:, -1]
    change = dense(found["market"]) - plain
    assert_near(change, np.outer(leading, leading) * (change.sum() / leading.sum() ** 2))
    assert abs(change.sum()) > 0.01 * plain.sum()
    budget = found["budget"].omega[-1, -1]
    assert budget > 0.0
    assert not found["budget"].omega[-1, :-1].any()
    change = dense(found["budget"]) - plain - budget
    assert_near(change, -np.outer(leading, leading) * (900.0 * budget / leading.sum() ** 2))


@pytest.mark.parametrize("share", [0.05, 1.0], ids=["free", "clipped"])
def test_the_budget_factor_leaves_equal_weights_and_adds_to_minimum_variance(share: float) -> None:
    returns, form = small()
    one = SHORT.model_copy(update={"budget": BudgetSpec(share=share)})
    (state, found), (_, without) = (ran(returns, form, each) for each in (one, one.model_copy(update={"budget": None})))
    equal = np.full((1, 30), 1.0 / 30.0)
    with_it, plain = calibrated(form, found), calibrated(form, without)
    assert with_it.variance(equal)[0] == pytest.approx(plain.variance(equal)[0], rel=1e-9)
    assert found.variances[0] == pytest.approx(plain.variance(equal)[0], rel=1e-9)
    inverse = plain.solve(np.ones((30, 1)))[:, 0]
    np.testing.assert_allclose(found.minimum_variance, inverse / inverse.sum(), rtol=1e-8)
    assert found.variances[1] == pytest.approx(1.0 / inverse.sum(), rel=1e-9)
    wanted = share * (state["budget"][0] / state["budget"][1] - 1.0) / inverse.sum()
    if share < 1.0:
        assert found.omega[-1, -1] == pytest.approx(wanted, rel=1e-9)
    else:
        assert 0.0 < found.omega[-1, -1] < 0.5 * plain.variance(equal)[0] < wanted


def test_a_horizon_adds_what_became_of_the_forecast_and_its_level_counts_for_the_market_alone() -> None:
    """By dense matrices: eigenvectors of the whitened correlations, equal weights, minimum variance."""
    returns, form = small(30)
    ahead = np.nan_to_num(returns[25:])
    state, found = ran(returns[:25], form, SHORT)
    assert state["age"] == 0.0
    assert found.variances[0] == pytest.approx(state["variances"][0])
    before = state
    for row in ahead:
        state = SHORT.step(state, row)
    assert state["age"] == -1.0
    deviation, psi = np.sqrt(form.diagonal), form.specific_variance / form.diagonal
    values, vectors = np.linalg.eigh(dense(form) / np.outer(deviation, deviation) / np.sqrt(np.outer(psi, psi)))
    values, vectors = values[::-1], vectors[:, ::-1]
    y = ahead / np.sqrt(StockVolatility(horizon=5).read(_volatility(before)) * psi)
    assert np.abs(y).max() < 8.0, "nothing is clipped"
    y *= np.sqrt(values.mean() / np.square(y).mean())
    squares = np.square(y @ vectors).mean(axis=0)
    decay = 0.5 ** (1.0 / CURVE.halflife)
    expected = decay * before["curve"] + np.stack([squares[:4] / values[:4], np.ones(4)], axis=1)
    np.testing.assert_allclose(state["curve"], expected, rtol=1e-9)
    np.testing.assert_allclose(state["rest"], decay * before["rest"] + [squares[4:].mean(), 1.0], rtol=1e-9)
    plain = calibrated(form, ran(returns[:25], form, SHORT.model_copy(update={"budget": None}))[1])
    inverse = plain.solve(np.ones((30, 1)))[:, 0]
    for name, spec, weights in (("market", MARKET, np.full(30, 1 / 30)), ("budget", BUDGET, inverse / inverse.sum())):
        ratio = np.square(ahead @ weights).mean() / plain.variance(weights[None])[0]
        after = 0.5 ** (1.0 / spec.halflife) * before[name] + [ratio, 1.0]
        np.testing.assert_allclose(state[name], after, rtol=1e-9)
    louder = before
    for row in 1.5 * ahead:
        louder = SHORT.step(louder, row)
    for name in ("curve", "rest"):
        np.testing.assert_allclose(louder[name], state[name], rtol=1e-9)
    fresh = state["market"] - 0.5 ** (1.0 / MARKET.halflife) * before["market"]
    np.testing.assert_allclose(louder["market"] - state["market"], [1.25 * fresh[0], 0.0], rtol=1e-9, atol=1e-12)


def _volatility(state: NamedArrays) -> NamedArrays:
    return {name.removeprefix("volatility."): value for name, value in state.items() if name.startswith("volatility.")}


def test_stocks_that_the_model_leaves_out_are_left_out_and_borrowed_ones_do_not_judge_it() -> None:
    returns, form = small()
    loadings = form.loadings.copy()
    loadings[3] = np.nan
    state = SHORT.start(4, 30)
    own = np.arange(30) != 7
    for row in returns:
        state = SHORT.step(state, row)
        found = SHORT.read(state, loadings, form.omega, form.specific_variance, own)
        state = SHORT.opened(state, found)
    assert found is not None
    assert np.isnan(found.scale[3])
    assert np.isnan(found.specific_variance[3])
    assert np.isfinite(np.delete(found.scale, 3)).all()
    assert not found.directions[[3, 7]].any()
    assert not found.minimum_variance[[3, 7]].any()
    assert np.isinf(found.deviation[[3, 7]]).all()
    np.testing.assert_allclose(found.directions.T @ found.directions, np.eye(4), atol=1e-9)
    nothing = SHORT.read(SHORT.start(4, 30), loadings, form.omega, form.specific_variance, own)
    assert nothing is None
    assert SHORT.opened(state, None) is state


# What follows judges forecasts of a world that is known. Models are estimated on the last half year of 120 stocks, with
# 15 factors where there are 10, so their eigenvalues are biased: 2 to 15 are over-forecast by sampling, all else is
# under-forecast. Two years pass before the first forecast is judged, three years are.

N_STOCKS, N_TRUE, N_FITTED, WINDOW, FIRST = 120, 10, 15, 126, 504
RULES = Rules(first=FIRST, history=252, cap=0.05, n_random=60, n_alphas=20, n_bootstrap=2)
WEAK, TAIL = "eigenportfolios 2-5", ("eigenportfolios 21-60", "eigenportfolios 61-200", "eigenportfolios last 20")


def pca(past: Float64Array) -> FactorForm:
    values, vectors = np.linalg.eigh(past.T @ past / len(past))
    values, vectors = values[-N_FITTED:], vectors[:, -N_FITTED:]
    return FactorForm(vectors, np.diag(values), np.square(past).mean(axis=0) - np.square(vectors) @ values)


def analysed(past: Float64Array) -> FactorForm:
    deviation = np.sqrt(np.square(past).mean(axis=0))
    found = factor_analysis(past / deviation, np.full(len(past), 1.0 / len(past)), N_FITTED, 0.1)
    return FactorForm(found.loadings * deviation[:, None], np.eye(N_FITTED), found.specific * deviation**2)


ESTIMATORS = {"pca": pca, "factor_analysis": analysed}


@cache
def judged(estimator: str, degrees: float | None, stages: str) -> xr.Dataset:
    """Judge the estimates of a world as they are, or after all stages, or all but the budget factor."""
    returns, _ = drawn(N_STOCKS, N_TRUE, FIRST + 756, degrees)
    calibration = {"estimates": None, "no budget": Calibration(budget=None), "all": FULL}[stages]
    state = FULL.start(N_FITTED, N_STOCKS)
    forms = {}
    for end in range(1, len(returns) + 1):
        if calibration is not None:
            state = calibration.step(state, returns[end - 1])
        if end < WINDOW or end % 21:
            continue
        forms[end] = form = ESTIMATORS[estimator](returns[end - WINDOW : end])
        if calibration is not None:
            parts = (form.loadings, form.omega, form.specific_variance)
            found = calibration.read(state, *parts, np.ones(N_STOCKS, dtype=bool))
            state = calibration.opened(state, found)
            assert found is not None
            forms[end] = calibrated(form, found)
    dates = pd.bdate_range("2010-01-04", periods=len(returns))
    tickers = pd.Index([f"T{place:03d}" for place in range(N_STOCKS)], name="ticker")

    def forecast(as_of: pd.Timestamp, _: pd.Index) -> Forecast:
        return Forecast(tickers, forms[dates.get_loc(as_of) + 1])

    return judge(forecast, xr.DataArray(returns, {"date": dates, "ticker": tickers}, ("date", "ticker")), RULES)


def scored(result: xr.Dataset, family: str, name: str = "bias_statistic") -> float:
    return float(result[name].sel(family=family, horizon=1))


WORLDS = [
    pytest.param(estimator, degrees, marks=[pytest.mark.slow] * (degrees is None))
    for estimator in ESTIMATORS
    for degrees in (None, 6.0)
]
"""Normal returns are the easier world."""


@pytest.mark.parametrize(("estimator", "degrees"), WORLDS)
def test_known_truth_biased_estimates_become_right(estimator: str, degrees: float | None) -> None:
    """Bias within .05 of 1 for every bucket of ranks and for optimised portfolios; outside of it without."""
    raw, mended = (judged(estimator, degrees, stages) for stages in ("estimates", "all"))
    buckets = ["eigenportfolios 1", WEAK, "eigenportfolios 6-20", *TAIL]
    for family in (*buckets, "random_alpha", "random_long_short", "stocks", "equal_weight"):
        assert scored(mended, family) == pytest.approx(1.0, abs=0.05), family
    assert scored(raw, WEAK) < 0.94
    for family in (*TAIL, "random_alpha"):
        assert scored(raw, family) > 1.12, family
    assert float(mended["mahalanobis"]) == pytest.approx(1.0, abs=0.05)
    assert float(raw["mahalanobis"]) > 1.2
    assert float(mended["log_likelihood"]) > float(raw["log_likelihood"]) + 0.02


@pytest.mark.parametrize("estimator", [pytest.param("pca", marks=pytest.mark.slow), "factor_analysis"])
def test_known_truth_the_budget_factor_brings_minimum_variance_towards_one(estimator: str) -> None:
    raw, without, full = (
        scored(judged(estimator, None, stages), "minimum_variance") for stages in ("estimates", "no budget", "all")
    )
    assert raw > 1.25
    assert 1.07 < without < raw - 0.1
    assert abs(full - 1.0) < 0.5 * (without - 1.0)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_known_truth_portfolios_that_know_nothing_score_as_under_the_truth(estimator: str) -> None:
    """Of three blocks of 252 days, MRAD at most a fifth above its floor; Q within .03 of 2.270."""
    result = judged(estimator, None, "all")
    floor = scored(result, "random_long_short", "mrad_floor")
    assert floor == pytest.approx(0.0356, abs=1e-4)
    assert scored(result, "random_long_short", "mrad") == pytest.approx(floor, rel=0.2)
    assert scored(result, "random_long_short", "q_statistic") == pytest.approx(2.270, abs=0.03)
