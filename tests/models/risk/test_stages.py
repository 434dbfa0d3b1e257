"""Stages of Omega: against direct computations and peers, through time, turned, permuted, and on known truths."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import skfolio.moments
import sklearn.covariance
import xarray as xr
from factor_histories import correlated, history, holed
from hypothesis import given, settings
from hypothesis import strategies as st
from skfolio.moments.covariance import RegimeAdjustmentMethod, RegimeAdjustmentTarget

from models.risk.covariance import FactorCovariance
from models.risk.eigenfactor import volatility_bias
from models.risk.shrinkage import factor_qis, qis
from schemas.errors import ConfigError

STAGES = {
    "lags": {"newey_west_lags": 3},
    "lags, not centred": {"newey_west_lags": 3, "centred": False},
    "blend": {"volatility": {"halflives": (10.0, 40.0), "weights": (0.3, 0.7), "newey_west_lags": 1}},
    "oas": {"method": "oas"},
    "qis": {"method": "qis", "window": 40},
    "factor_qis": {"method": "factor_qis", "n_factors": 2},
    "shrunk ewma": {"halflife": 20.0, "shrinkage": {"method": "qis", "of": "covariance"}},
    "shrunk behind factors": {"shrinkage": {"method": "factor_qis", "of": "covariance"}},
    "average oracle": {"oracle": {"horizon": 5, "prior": 1.0, "halflife": 4.0}},
    "eigenfactor": {"halflife": 20.0, "eigenfactor": {"n_simulations": 50, "every": 4}},
    "eigenfactor of a sample": {"method": "qis", "eigenfactor": {"n_simulations": 50, "n_observations": 60}},
    "regime in all directions": {"regime": {"halflife": 10.0, "statistic": "mahalanobis", "method": "log"}},
}
"""Those that turn with the factors."""
BY_FACTOR = {
    "correlation": {"halflife": 10.0, "correlation": {"halflives": (30.0,), "newey_west_lags": 1}},
    "standardised": {"correlation": {"halflives": (20.0, 50.0), "standardised": True}},
    "shrunk correlation": {"shrinkage": {"method": "oas"}},
    "regime": {"regime": {"halflife": 10.0}},
    "all": {
        "halflife": 10.0,
        "newey_west_lags": 2,
        "correlation": {"halflives": (40.0,)},
        "shrinkage": {"method": "qis"},
        "eigenfactor": {"n_simulations": 50, "every": 5},
        "regime": {"method": "first_moment"},
    },
}
"""Those that speak of each factor by itself."""
COMBINED = {"method": "cm_iewma", "combination": {"halflives": ((5.0, 10.0), (20.0, 40.0)), "min_observations": 10}}
"""Follows the order of the factors too."""
EVERY = {**STAGES, **BY_FACTOR, "cm_iewma": COMBINED}


@pytest.mark.parametrize("name", EVERY)
def test_a_path_is_the_fold_of_its_steps_wherever_it_is_taken_up(name: str) -> None:
    estimator = FactorCovariance(**EVERY[name])
    x = correlated(90, 3)
    x[60:64, 1] = np.nan
    path = estimator.path(history(x))
    state = estimator.start(3)
    for row in x[:61]:
        state = estimator.step(state, row)
    kept = {key: array.copy() for key, array in state.items()}
    again = pickle.loads(pickle.dumps(estimator))  # noqa: S301  # as it travels to a worker
    for date, row in enumerate(x[61:], start=61):
        kept = again.step(kept, row)
        np.testing.assert_array_equal(again.read(kept), path[date])
    np.testing.assert_array_equal(estimator.read(state), path[60])
    assert all(isinstance(array, np.ndarray) and array.dtype.kind in "if" for array in kept.values())


@settings(max_examples=20, deadline=None)
@given(cut=st.integers(40, 98), seed=st.integers(0, 99), name=st.sampled_from(sorted(EVERY)))
def test_the_future_does_not_change_omega(cut: int, seed: int, name: str) -> None:
    x = correlated(100, 3, seed)
    disturbed = x.copy()
    disturbed[cut + 1 :] = np.random.default_rng(seed).normal(size=disturbed[cut + 1 :].shape)
    disturbed[-1, 0] = np.nan
    before, after = (FactorCovariance(**EVERY[name]).path(history(each)) for each in (x, disturbed))
    xr.testing.assert_identical(before[: cut + 1], after[: cut + 1])
    assert not np.allclose(before[-1], after[-1])


@pytest.mark.parametrize("name", STAGES)
def test_omega_turns_with_the_factors(name: str) -> None:
    x = correlated(70, 4)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))[0]
    estimator = FactorCovariance(**STAGES[name])
    omega = estimator.estimate(history(x)).values
    turned = estimator.estimate(history(10.0 * x @ rotation)).values
    np.testing.assert_allclose(turned, 100.0 * rotation.T @ omega @ rotation, atol=1e-7 * np.trace(turned))


@pytest.mark.parametrize("name", [*STAGES, *BY_FACTOR])
def test_omega_follows_the_order_and_the_units_of_the_factors_and_is_positive_definite(name: str) -> None:
    x = holed(correlated(70, 4), 0.05)
    x[:2] = 0.01 * np.eye(4)[:2] + 0.01
    x[2, ::2] = np.nan
    estimator = FactorCovariance(**{**STAGES, **BY_FACTOR}[name])
    omega, moved = (estimator.path(history(each)).values for each in (x, 10.0 * x[:, [2, 0, 3, 1]]))
    expected = 100.0 * omega[-1][np.ix_([2, 0, 3, 1], [2, 0, 3, 1])]
    np.testing.assert_allclose(moved[-1], expected, rtol=1e-6, atol=1e-7 * np.trace(expected))
    for each in omega[30:]:
        np.linalg.cholesky(each)
        np.testing.assert_array_equal(each, each.T)


@pytest.mark.parametrize("centred", [True, False])
def test_lags_are_those_of_the_weighted_series(centred: bool) -> None:
    x = correlated(60, 3)
    lags, weight = 4, 0.5 ** (np.arange(60)[::-1] / 15.0)
    mean = weight @ x / weight.sum() if centred else 0.0
    y = (x - mean) * np.sqrt(weight)[:, None]
    kernel = np.maximum(1.0 - np.abs(np.subtract.outer(range(60), range(60))) / (lags + 1.0), 0.0)
    expected = y.T @ kernel @ y / weight.sum()
    if centred:
        expected /= 1.0 - np.square(weight).sum() / weight.sum() ** 2
    omega = FactorCovariance(halflife=15.0, newey_west_lags=lags, centred=centred).estimate(history(x))
    np.testing.assert_allclose(omega, expected, rtol=1e-10)


@pytest.mark.parametrize("method", ["rms", "first_moment", "log"])
@pytest.mark.parametrize("statistic", ["diagonal", "mahalanobis"])
def test_a_regime_is_that_of_skfolio(method: str, statistic: str) -> None:
    x = correlated(1500, 4) * np.repeat([1.0, 1.4, 0.8], 500)[:, None]
    peer = skfolio.moments.RegimeAdjustedEWCovariance(
        half_life=30,
        regime_half_life=20,
        regime_method=RegimeAdjustmentMethod[method.upper()],
        regime_target=RegimeAdjustmentTarget[statistic.upper()],
        regime_multiplier_clip=(0.5, 2.0),
        min_observations=24,
        nearest=False,
    )
    spec = {"halflife": 20.0, "method": method, "statistic": statistic}
    omega = FactorCovariance(halflife=30.0, centred=False, regime=spec).estimate(history(x))
    np.testing.assert_allclose(omega, peer.fit(x).covariance_, rtol=1e-8)
    plain = FactorCovariance(halflife=30.0, centred=False).estimate(history(x))
    np.testing.assert_allclose(plain, skfolio.moments.EWCovariance(half_life=30).fit(x).covariance_, rtol=1e-8)
    assert not np.allclose(omega, plain, rtol=1e-3)


def test_half_lives_of_correlations_and_lags_are_those_of_skfolio() -> None:
    x = correlated(4000, 4)
    x[1:] += 0.3 * x[:-1]
    common = {"regime_multiplier_clip": (1.0 - 1e-12, 1.0 + 1e-12), "nearest": False}
    peer = skfolio.moments.RegimeAdjustedEWCovariance(half_life=20, corr_half_life=120, **common).fit(x)
    apart = {"halflives": (120.0,), "standardised": True}
    omega = FactorCovariance(halflife=20.0, centred=False, correlation=apart).estimate(history(x))
    np.testing.assert_allclose(omega, peer.covariance_, rtol=1e-7)
    # Theirs weighs a pair of dates by the later one, which a long half-life does not tell from the root of both.
    peer = skfolio.moments.RegimeAdjustedEWCovariance(half_life=1e7, hac_lags=3, min_observations=9, **common).fit(x)
    omega = FactorCovariance(halflife=1e7, newey_west_lags=3, centred=False).estimate(history(x))
    np.testing.assert_allclose(omega, peer.covariance_, rtol=1e-6)
    assert np.diagonal(omega)[0] > 1.3 * np.square(x).mean(axis=0)[0]


def test_oas_is_that_of_scikit_learn() -> None:
    x = correlated(150, 12)
    for t in (24, 149):
        expected = sklearn.covariance.OAS().fit(x[: t + 1]).covariance_
        omega = FactorCovariance(method="oas").estimate(history(x[: t + 1]))
        np.testing.assert_allclose(omega, expected, rtol=1e-10, atol=1e-12 * np.trace(expected))


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["tall", "near"])
def test_qis_is_that_of_its_author(shared_data: Path, name: str) -> None:
    stored = np.load(shared_data / "qis_golden.npz")
    omega = FactorCovariance(method="qis").estimate(history(stored[f"{name}_x"]))
    np.testing.assert_allclose(omega, stored[f"{name}_sigma"], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("n", [18, 39, 40, 41, 42, 60])
def test_qis_has_an_inverse_whatever_the_number_of_observations(n: int) -> None:
    x = np.random.default_rng(n).normal(size=(n, 40))
    x -= x.mean(axis=0)
    sample = x.T @ x / (n - 1)
    for shrunk in (qis(sample, n - 1.0), factor_qis(sample, n - 1.0, 2)):
        values = np.linalg.eigvalsh(shrunk)
        assert values[0] > 0.9e-4 * values.mean()
        assert np.trace(shrunk) == pytest.approx(np.trace(sample))


def test_qis_holds_where_a_factor_nearly_repeats_another_and_weights_make_observations_few() -> None:
    x = np.random.default_rng(0).normal(size=(200, 40))
    sample = np.cov(x.T)
    np.testing.assert_array_equal(qis(sample, 20.0), qis(sample, 40.0))  # of full rank: at least as many as factors
    x[:, 0] = x[:, 1] + 1e-4 * x[:, 0]
    values = np.linalg.eigvalsh(qis(np.cov(x.T), 199.0))
    assert values[0] == pytest.approx(1e-4 * values.mean(), rel=1e-2)


def test_factor_qis_keeps_what_leads_and_shrinks_the_rest() -> None:
    """One strong factor and noise: eigenvalues behind the factor come near their true value, the factor stays."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 1)) * 5.0 @ np.ones((1, 60)) + rng.normal(size=(100, 60))
    sample = np.cov(x.T)
    before, after = np.linalg.eigvalsh(sample), np.linalg.eigvalsh(factor_qis(sample, 99.0, 1))
    assert after[-1] == pytest.approx(before[-1])
    assert np.abs(after[:-1] - 1.0).max() < 0.35 < 0.5 * np.abs(before[:-1] - 1.0).max()


def test_a_factor_that_adds_nothing_is_repaired_and_said() -> None:
    x = correlated(60, 3)
    whole, doubled = history(x), history(x[:, [0, 1, 1]])
    estimator = FactorCovariance(floor=1e-4)
    assert (estimator.repaired(whole)[30:] == 0.0).all()
    raised = estimator.repaired(doubled)
    assert np.isnan(raised[5])
    np.testing.assert_allclose(raised[30:], 1e-4 / 3.0, rtol=1e-6)
    assert np.linalg.eigvalsh(estimator.estimate(doubled))[0] > 0.0


def bias_of_eigenportfolios(spec: dict, tails: float | None, worlds: int = 60) -> np.ndarray:
    """Realised over forecast volatility of eigenportfolios, the smallest first, in worlds of known truth."""
    k, n, after = 20, 100, 100
    truth = np.geomspace(0.05, 20.0, k)
    ratios = np.zeros(k)
    for world in range(worlds):
        rng = np.random.default_rng(world)
        turn = np.linalg.qr(rng.normal(size=(k, k)))[0]
        x = rng.normal(size=(n + after, k)) * np.sqrt(truth)
        if tails is not None:
            x *= np.sqrt((tails - 2.0) / rng.chisquare(tails, (n + after, 1)))
        x = x @ turn.T
        estimator = FactorCovariance(halflife=1e6, centred=False, **spec)
        plain = FactorCovariance(halflife=1e6, centred=False).estimate(history(x[:n])).values
        omega = estimator.estimate(history(x[:n])).values
        vectors = np.linalg.eigh(plain)[1]
        forecast = np.einsum("ik,ij,jk->k", vectors, omega, vectors)
        ratios += np.square(x[n:] @ vectors).mean(axis=0) / forecast / worlds
    return np.sqrt(ratios)


@pytest.mark.parametrize(
    ("tails", "scale", "within"), [pytest.param(None, 1.0, 0.05, marks=pytest.mark.slow), (5.0, 1.4, 0.12)]
)
def test_eigenfactors_bring_the_bias_of_eigenportfolios_to_one(
    tails: float | None, scale: float, within: float
) -> None:
    """Normal returns need the scale 1; fat tails need what Menchero, Wang and Orr found, 1.4."""
    spec = {"eigenfactor": {"n_simulations": 400, "scale": scale}}
    without, adjusted = bias_of_eigenportfolios({}, tails), bias_of_eigenportfolios(spec, tails)
    assert without[0] > 1.35  # the portfolio that looks safest is riskier by a third
    assert without[:5].mean() > 1.25
    assert np.abs(adjusted - 1.0).max() < within


def test_the_simulation_is_that_of_menchero_wang_and_orr() -> None:
    """As they write it: returns drawn from Omega, their covariance, its eigenvectors; one date after the other."""
    values, n = np.geomspace(0.1, 5.0, 6), 40
    rng = np.random.default_rng(7)
    ratios = []
    for _ in range(4000):
        x = rng.normal(size=(n, 6)) * np.sqrt(values)
        estimated, vectors = np.linalg.eigh(x.T @ x / n)
        ratios.append(np.einsum("ik,i,ik->k", vectors, values, vectors) / estimated)
    expected = np.sqrt(np.mean(ratios, axis=0))
    found = volatility_bias(values, n, 4000, 0)
    np.testing.assert_allclose(found, expected, rtol=0.01)  # of which .003 is the standard error of each
    assert expected[0] > 1.1


def test_a_simulation_of_three_weeks_ago_will_do() -> None:
    x = correlated(400, 8) * np.repeat([1.0, 2.0], 200)[:, None]
    daily, rarely = (
        FactorCovariance(eigenfactor={"n_simulations": 200, "every": every}).path(history(x))[100:].values
        for every in (1, 21)
    )
    plain = FactorCovariance().path(history(x))[100:].values
    estimator, state = FactorCovariance(eigenfactor={"n_simulations": 200}), None
    for row in x:
        state = estimator.step(state or estimator.start(8), row)
    age = int(state["simulated_age"])
    assert age < 21
    np.testing.assert_allclose(state["simulated"], np.linalg.eigvalsh(plain[299 - age]))
    inverse = np.linalg.eigvalsh(rarely)[:, 0] / np.linalg.eigvalsh(daily)[:, 0]
    assert np.abs(inverse - 1.0).max() < 0.05
    assert (np.linalg.eigvalsh(daily)[:, 0] / np.linalg.eigvalsh(plain)[:, 0]).min() > 1.05


def test_average_oracle_eigenvalues_come_nearer_to_the_truth() -> None:
    rng = np.random.default_rng(0)
    truth = np.geomspace(0.05, 20.0, 15)
    x = rng.normal(size=(3000, 15)) * np.sqrt(truth)
    plain = FactorCovariance(halflife=20.0, centred=False)
    oracle = FactorCovariance(halflife=20.0, centred=False, oracle={"prior": 1.0})
    least = [np.linalg.eigvalsh(each.estimate(history(x)))[0] for each in (plain, oracle)]
    vector = np.linalg.eigh(plain.estimate(history(x)).values)[1][:, 0]
    real = np.square(vector) @ truth
    assert least[0] < 0.6 * real
    assert 0.75 * real < least[1] < 1.3 * real


def test_stages_refuse_what_they_cannot_do() -> None:
    for wrong, message in (
        ({"method": "qis", "newey_west_lags": 2}, "newey_west_lags goes with method: ewma"),
        ({"method": "cm_iewma", "window": 60}, "window goes with"),
        ({"volatility": {"halflives": (9.0, 20.0), "weights": (0.5, 0.6)}}, "sum to 1"),
        ({"regime": {"bounds": (1.2, 2.0)}}, "bounds must hold 1"),
        ({"oracle": {}, "eigenfactor": {}}, "oracle and eigenfactor mend the same"),
    ):
        with pytest.raises(ConfigError, match=message):
            FactorCovariance(**wrong)
