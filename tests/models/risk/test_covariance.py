"""Omega and specific risk: against pandas and scikit-learn, under missing data, and without look-ahead."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import sklearn.covariance
import xarray as xr
from factor_histories import correlated, history, holed
from hypothesis import given, settings
from hypothesis import strategies as st

from models.risk.covariance import FactorCovariance
from models.risk.specific import SpecificRisk
from schemas.errors import ConfigError, DataError, ModelError

METHODS = [
    FactorCovariance(halflife=20.0),
    FactorCovariance(halflife=20.0, centred=False),
    FactorCovariance(method="ledoit_wolf"),
    FactorCovariance(method="ledoit_wolf", window=40, centred=False),
]


def test_ewma_equals_pandas_on_every_date_with_gaps() -> None:
    values = correlated(200, 4)
    values[np.random.default_rng(0).random(200) < 0.1] = np.nan
    factors = history(values)
    omega = FactorCovariance(halflife=15.0, min_observations=10).path(factors)
    complete = factors.to_pandas().dropna()
    peer = complete.ewm(halflife=15.0).cov()
    later = complete.index[10:]
    expected = np.stack([peer.loc[date].to_numpy() for date in later])
    np.testing.assert_allclose(omega.sel(date=later), expected, rtol=1e-10, atol=1e-18)
    assert omega.dims == ("date", "factor", "factor_")


def test_uncentred_ewma_is_the_weighted_second_moment() -> None:
    x = correlated(90, 3)
    weight = 0.5 ** (np.arange(90)[::-1] / 30.0)
    expected = (x * weight[:, None]).T @ x / weight.sum()
    omega = FactorCovariance(halflife=30.0, centred=False).estimate(history(x))
    np.testing.assert_allclose(omega, expected, rtol=1e-12)


@pytest.mark.parametrize("window", [None, 60])
@pytest.mark.parametrize("centred", [True, False])
def test_ledoit_wolf_equals_scikit_learn(window: int | None, centred: bool) -> None:
    x = correlated(150, 12)
    omega = FactorCovariance(method="ledoit_wolf", window=window, centred=centred).path(history(x))
    for t in (24, 80, 149):
        sample = x[max(0, t + 1 - (window or t + 1)) : t + 1]
        expected, shrinkage = sklearn.covariance.ledoit_wolf(sample, assume_centered=not centred)
        assert 0.0 < shrinkage < 1.0
        np.testing.assert_allclose(omega[t], expected, rtol=1e-10, atol=1e-10 * np.trace(expected))


@pytest.mark.parametrize("estimator", METHODS, ids=str)
def test_a_date_without_returns_changes_nothing_and_a_late_factor_is_waited_for(estimator: FactorCovariance) -> None:
    x = correlated(120, 3)
    gapped = x.copy()
    gapped[[50, 70, 119]] = np.nan
    gapped[:20, 1] = np.nan
    omega = estimator.path(history(gapped))
    dropped = estimator.path(history(gapped).dropna("date"))
    xr.testing.assert_identical(omega.sel(date=dropped["date"]), dropped)
    xr.testing.assert_identical(omega[70].drop_vars("date"), omega[69].drop_vars("date"))
    xr.testing.assert_identical(estimator.estimate(history(gapped)), omega[-1].drop_vars("date"))


@pytest.mark.parametrize("estimator", METHODS, ids=str)
def test_a_factor_without_returns_carries_alone(estimator: FactorCovariance) -> None:
    """One industry without a stock for 200 dates in which all else trebles: Omega of the others follows at once.

    The factor keeps its regression on the others and what they leave of it, so that its own variance moves with theirs.
    """
    x = correlated(400, 4)
    x[200:] *= 3.0
    gapped = x.copy()
    gapped[200:, 3] = np.nan
    omega, whole, alone = (estimator.path(history(each)) for each in (gapped, x, x[:, :3]))
    np.testing.assert_array_equal(omega[:200], whole[:200])
    others = omega[-1].values[:3, :3]
    if estimator.method == "ewma":
        np.testing.assert_allclose(others, alone[-1], rtol=1e-12)
    assert (np.diag(others) > 3.0 * np.diag(omega[199].values)[:3]).all()
    if estimator.method == "ewma":
        before, after = omega[199].values, omega[-1].values
        slopes = [np.linalg.solve(each[:3, :3], each[:3, 3]) for each in (before, after)]
        left = [each[3, 3] - each[3, :3] @ slope for each, slope in zip((before, after), slopes, strict=True)]
        if not estimator.centred:  # without the correction for the bias of the mean, which both share
            np.testing.assert_allclose(slopes[1], slopes[0], rtol=1e-9)
            np.testing.assert_allclose(left[1], left[0], rtol=1e-9)
    for each in omega[199:].values:
        assert np.linalg.eigvalsh(each).min() > -1e-14 * np.trace(each)


@pytest.mark.parametrize("estimator", METHODS, ids=str)
def test_a_path_is_the_fold_of_its_steps_wherever_it_is_taken_up(estimator: FactorCovariance) -> None:
    x = correlated(90, 3)
    x[60:64, 1] = np.nan
    path = estimator.path(history(x))
    state = estimator.start(3)
    for row in x[:61]:
        state = estimator.step(state, row)
    kept = {name: array.copy() for name, array in state.items()}
    for date, row in enumerate(x[61:], start=61):
        kept = estimator.step(kept, row)
        np.testing.assert_array_equal(estimator.read(kept), path[date])
    np.testing.assert_array_equal(estimator.read(state), path[60])


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(40, 98), seed=st.integers(0, 99), which=st.integers(0, len(METHODS) - 1))
def test_the_future_does_not_change_omega(cut: int, seed: int, which: int) -> None:
    x = correlated(100, 3, seed)
    disturbed = x.copy()
    disturbed[cut + 1 :] = np.random.default_rng(seed).normal(size=disturbed[cut + 1 :].shape)
    disturbed[-1, 0] = np.nan
    before, after = METHODS[which].path(history(x)), METHODS[which].path(history(disturbed))
    xr.testing.assert_identical(before[: cut + 1], after[: cut + 1])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 99), which=st.integers(0, len(METHODS) - 1), scale=st.sampled_from([1e-3, 1.0, 100.0]))
def test_omega_turns_with_the_factors_scales_with_units_and_is_psd(seed: int, which: int, scale: float) -> None:
    x = correlated(60, 5, seed)
    x[:, 4] = x[:, 3]  # a factor that adds nothing
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(5, 5)))[0]
    omega = METHODS[which].estimate(history(x)).values
    turned = METHODS[which].estimate(history(scale * x @ rotation)).values
    np.testing.assert_allclose(turned, scale**2 * rotation.T @ omega @ rotation, atol=1e-12 * np.trace(turned))
    assert np.array_equal(omega, omega.T) or np.allclose(omega, omega.T, rtol=1e-14)
    assert np.linalg.eigvalsh(omega).min() > -1e-14 * np.trace(omega)


@pytest.mark.parametrize("estimator", METHODS, ids=str)
def test_as_of_dates_may_be_any_and_early_ones_are_nan(estimator: FactorCovariance) -> None:
    factors = history(correlated(60, 3))
    weekend = pd.DatetimeIndex(["2019-12-31", "2020-01-10", "2020-03-07", "2020-03-08", "2030-01-01"])
    omega = estimator.path(factors, weekend)
    every = estimator.path(factors)
    assert np.isnan(omega[:2]).all()
    for row, friday in ((2, "2020-03-06"), (3, "2020-03-06"), (4, factors.indexes["date"][-1])):
        np.testing.assert_array_equal(omega[row], every.sel(date=friday))


def test_the_true_covariance_is_recovered() -> None:
    rng = np.random.default_rng(3)
    truth = np.array([[4.0, 1.0], [1.0, 2.0]]) * 1e-4
    x = rng.multivariate_normal([0.05, -0.05], truth, size=20_000)
    for estimator in (FactorCovariance(halflife=1e9), FactorCovariance(method="ledoit_wolf")):
        # Standard error of a variance over n draws: sqrt(2 / n), 1%.
        np.testing.assert_allclose(estimator.estimate(history(x)), truth, rtol=0.04)


def test_covariance_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ModelError, match=r"Omega of 30 factors needs 31 dates .* it has 30"):
        FactorCovariance().estimate(history(correlated(30, 30)))
    with pytest.raises(ModelError, match="needs 24 dates"):
        FactorCovariance().path(history(correlated(23, 2)))
    with pytest.raises(DataError, match="infinite on 2020-01-02"):
        FactorCovariance().path(history(np.where(np.eye(40, 2, k=-1) > 0, np.inf, 0.1)))
    with pytest.raises(DataError, match="sorted and unique"):
        FactorCovariance().path(history(correlated(40, 2))[::-1])
    for wrong in (
        {"method": "ewm"},
        {"halflife": 0.0},
        {"window": 50},
        {"method": "ledoit_wolf", "window": 5},
    ):
        with pytest.raises(ConfigError, match=r"^FactorCovariance: ") as error:
            FactorCovariance(**wrong)
        assert "\n" not in str(error.value)


def residuals(n_dates: int = 150, n_tickers: int = 8, seed: int = 0) -> xr.DataArray:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n_dates, n_tickers)) * np.linspace(0.01, 0.03, n_tickers)
    return history(holed(values, 0.1, seed).astype(np.float32), "ticker")


def test_specific_variance_equals_pandas_where_history_suffices() -> None:
    e = residuals()
    variance = SpecificRisk(halflife=30.0, floor=0.0, min_observations=20).path(e)
    peer = (e.to_pandas().astype(float) ** 2).ewm(halflife=30.0, ignore_na=True).mean()
    np.testing.assert_allclose(variance[40:], peer[40:], rtol=1e-6)
    assert variance.dtype == np.float32
    assert np.isnan(variance[:15]).all()


def test_short_histories_get_the_median_and_stale_prices_the_floor() -> None:
    e = residuals()
    e[:145, 0] = np.nan  # listed five dates ago
    e[:, 1] = 0.0  # a price that never moves
    e[:, 2] = np.nan  # covered, never yet observed
    covered = xr.ones_like(e, dtype=bool)
    covered[:, 3] = False
    model = SpecificRisk(halflife=30.0, floor=0.2)
    variance = model.estimate(e, covered)
    own = SpecificRisk(halflife=30.0, floor=0.0).estimate(e[:, [1, 4, 5, 6, 7]])
    median = float(own.median())
    np.testing.assert_allclose(variance[[0, 1, 2]], [median, 0.2 * median, median], rtol=1e-6)
    np.testing.assert_array_equal(variance[4:], own[1:])
    assert np.isnan(variance[3])
    imputed = model.imputed(e, coverage=covered)[-1]
    assert list(imputed["ticker"].values[imputed.values]) == ["ticker0", "ticker2"]
    assert np.isnan(model.estimate(e)[2])  # without coverage: not before its first residual


def test_the_median_is_that_of_covered_stocks_with_history_and_lies_between_the_middle_two() -> None:
    """Residuals of one size: the variance of a stock is its square, so that every number is exact."""
    e = history(np.tile(np.float32([1.0, 2.0, 4.0, 8.0, 100.0, 50.0]), (25, 1)), "ticker")
    covered = xr.ones_like(e, dtype=bool)
    covered[:, 4] = False
    e[:-5, 5] = np.nan  # its own variance has no say in the median of 1, 4, 16 and 64
    variance = SpecificRisk(halflife=30.0, floor=0.5, min_observations=20).estimate(e, covered)
    np.testing.assert_array_equal(variance, np.float32([5.0, 5.0, 16.0, 64.0, np.nan, 10.0]))


def test_the_last_residual_asked_for_gives_a_stock_its_own_variance() -> None:
    e = history(np.random.default_rng(0).normal(size=(25, 3)).astype(np.float32), "ticker")
    model = SpecificRisk(halflife=10.0, floor=0.0, min_observations=20)
    variance = model.path(e)
    assert np.isnan(variance[18]).all()
    assert len(np.unique(variance[19])) == 3
    np.testing.assert_array_equal(model.imputed(e).all("ticker"), np.arange(25) < 19)


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(30, 98), seed=st.integers(0, 99))
def test_the_future_does_not_change_specific_variance(cut: int, seed: int) -> None:
    e = residuals(100, 6, seed)
    disturbed = e.copy(deep=True)
    disturbed[cut + 1 :] = disturbed[cut + 1 :] * 50.0
    disturbed[cut + 1 :, 0] = np.nan
    model = SpecificRisk(halflife=10.0)
    xr.testing.assert_identical(model.path(e)[: cut + 1], model.path(disturbed)[: cut + 1])
    some = e.indexes["date"][[cut - 5, cut]]
    xr.testing.assert_identical(model.path(e, some), model.path(e).sel(date=some))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 99), order=st.permutations(range(6)))
def test_specific_variance_follows_its_ticker(seed: int, order: list[int]) -> None:
    e = residuals(60, 6, seed)
    shuffled = SpecificRisk().path(e[:, order])
    xr.testing.assert_identical(shuffled, SpecificRisk().path(e)[:, order])


def test_specific_risk_refuses_what_it_cannot_do() -> None:
    e = residuals()
    with pytest.raises(ModelError, match="No covered stock has 20 residuals"):
        SpecificRisk().path(e[:15])
    with pytest.raises(DataError, match="coverage lacks"):
        SpecificRisk().path(e, coverage=xr.ones_like(e[:-1], dtype=bool))
    with pytest.raises(DataError, match="infinite"):
        SpecificRisk().path(e.where(np.isfinite(e), np.inf))
    for wrong in ({"halflife": -1.0}, {"floor": 1.5}, {"min_observations": 0}):
        with pytest.raises(ConfigError, match=r"^SpecificRisk: "):
            SpecificRisk(**wrong)


def test_weights_halve_after_a_halflife() -> None:
    """One shock among zeros: its share of the variance halves every halflife, once the start is forgotten."""
    e = np.zeros((400, 1), dtype=np.float32)
    e[200] = 1.0
    variance = SpecificRisk(halflife=10.0, floor=0.0).path(history(e, "ticker"))[[300, 310, 320], 0].values
    for earlier, later in pairwise(variance):
        assert later / earlier == pytest.approx(0.5, rel=1e-4)
