"""Stages of specific variance: against direct computations, through time, permuted, and on known truths."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from factor_histories import history, holed
from hypothesis import given, settings
from hypothesis import strategies as st

from models.forecasting.following import RiskState
from models.risk.linked import linked_blocks
from models.risk.specific import SpecificRisk
from models.risk.structural import shrunk_in_groups, structural_volatility
from schemas.risk import GroupShrinkageSpec

STAGES = {
    "lags": {"newey_west_lags": 3},
    "structural": {"structural": {"enough": 30}},
    "groups": {"shrinkage": {"groups": 3, "strength": 0.5}},
    "regime": {"regime": {"halflife": 10.0}},
    "all": {"newey_west_lags": 2, "structural": {"enough": 30}, "shrinkage": {}, "regime": {"method": "log"}},
}
N = 30


def market(n_dates: int, seed: int = 0) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """Residuals, loadings and sizes; volatility follows the first loading, and the last five stocks are young."""
    rng = np.random.default_rng(seed)
    exposures = rng.normal(size=(N, 2))
    values = holed(rng.normal(size=(n_dates, N)) * 0.02 * np.exp(0.5 * exposures[:, 0]), 0.05, seed)
    values[:-12, -5:] = np.nan
    e = history(values.astype(np.float32), "ticker")
    loadings = xr.DataArray(exposures, dims=("ticker", "factor"), coords={"ticker": e["ticker"]})
    size = xr.DataArray(rng.lognormal(size=N), dims="ticker", coords={"ticker": e["ticker"]})
    return e, loadings.expand_dims(date=e["date"]), size.expand_dims(date=e["date"])


@pytest.mark.parametrize("name", STAGES)
def test_a_path_is_the_fold_of_its_steps_wherever_it_is_taken_up(name: str) -> None:
    model = SpecificRisk(halflife=15.0, **STAGES[name])
    e, loadings, size = market(80)
    path = model.path(e, loadings=loadings, size=size)
    state = model.start(N)
    for row in e.values[:50]:
        state = model.step(state, row)
    kept = RiskState(50, 0, tuple(e["ticker"].values[::-1]), {}, {key: array.copy() for key, array in state.items()})
    kept = RiskState(50, 0, kept.tickers, {}, {k: v[::-1] if v.ndim else v for k, v in kept.specific.items()})
    state = kept.on((*e["ticker"].values, "new"), model.start(N + 1)).specific  # other tickers, another order
    for date in range(50, 80):
        state = model.step(state, np.append(e.values[date], np.nan))
        known = np.append(loadings.values[date], np.full((1, 2), np.nan), axis=0), np.append(size.values[date], np.nan)
        found = model.read(state, loadings=known[0], size=known[1])
        np.testing.assert_array_equal(found[:-1], path[date])
    assert all(isinstance(array, np.ndarray) and array.dtype.kind in "if" for array in state.values())


@settings(max_examples=20, deadline=None)
@given(cut=st.integers(40, 78), seed=st.integers(0, 99), name=st.sampled_from(sorted(STAGES)))
def test_the_future_does_not_change_specific_variance(cut: int, seed: int, name: str) -> None:
    model = SpecificRisk(halflife=15.0, **STAGES[name])
    e, loadings, size = market(80, seed)
    before = model.path(e, loadings=loadings, size=size)
    later = xr.where(np.arange(80) > cut, 1.0, 0.0) * xr.ones_like(e["date"], dtype=float)
    after = model.path(
        e * (1.0 + 49.0 * later).astype(np.float32),
        loadings=loadings * (1.0 + later),
        size=size + later * size.copy(data=size.values[:, ::-1]),
    )
    np.testing.assert_array_equal(before[: cut + 1], after[: cut + 1])
    assert not np.allclose(before[-1], after[-1])


@pytest.mark.parametrize("name", STAGES)
def test_specific_variance_follows_its_ticker_and_no_turn_of_the_factors(name: str) -> None:
    model = SpecificRisk(halflife=15.0, **STAGES[name])
    e, loadings, size = market(80)
    order = np.random.default_rng(1).permutation(N)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    plain = model.estimate(e) if name in {"lags", "regime"} else None
    found = model.path(e, loadings=loadings, size=size)[-1]
    moved = model.path(
        e[:, order],
        loadings=(loadings[:, order] @ xr.DataArray(turn, dims=("factor", "turned"))).rename(turned="factor"),
        size=size[:, order],
    )[-1]
    np.testing.assert_allclose(moved, found[order], rtol=2e-6)
    if plain is not None:
        np.testing.assert_array_equal(plain, found)


def test_lags_are_those_of_the_weighted_series_and_leave_a_variance_positive() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(70, 3))
    x[1:, 0] += 0.6 * x[:-1, 0]
    x[1:, 1] = 0.1 * x[1:, 1] - 0.99 * x[:-1, 1]
    lags, weight = 4, 0.5 ** (np.arange(70)[::-1] / 15.0)
    y = x * np.sqrt(weight)[:, None]
    kernel = np.maximum(1.0 - np.abs(np.subtract.outer(range(70), range(70))) / (lags + 1.0), 0.0)
    expected = np.einsum("ti,ts,si->i", y, kernel, y) / weight.sum()
    model = SpecificRisk(halflife=15.0, newey_west_lags=lags, floor=0.0)
    np.testing.assert_allclose(model.estimate(history(x, "ticker")), expected, rtol=1e-6)
    holes = np.insert(x, [20, 40], np.nan, axis=0)  # dates without residuals are skipped by the stock's own clock
    np.testing.assert_allclose(model.estimate(history(holes, "ticker")), expected, rtol=1e-6)
    assert expected.min() > 0.0


def test_a_structural_model_knows_the_volatility_of_stocks_without_history() -> None:
    """True volatilities follow exposures: those that the model has never seen are right to a tenth, without bias."""
    rng = np.random.default_rng(0)
    exposures = rng.normal(size=(600, 2))
    noise = np.exp(0.3 * rng.normal(size=600))
    truth = 0.02 * np.exp(exposures @ [0.4, -0.2]) * noise
    known = np.arange(600) < 400
    found = structural_volatility(np.where(known, truth, 1e9), exposures, known)
    ratio = truth[400:] / found[400:]
    assert ratio.mean() == pytest.approx(1.0, abs=0.06)  # without smearing exp(.3^2 / 2), 4.6% more
    expected = 0.02 * np.exp(exposures @ [0.4, -0.2]) * np.exp(0.045)
    inside = np.abs(np.log(expected / 0.02)) < 1.0
    np.testing.assert_allclose(found[inside], expected[inside], rtol=0.12)
    assert np.isnan(structural_volatility(truth, exposures, np.arange(600) < 8)).all()


def test_history_decides_how_much_of_a_volatility_is_structural() -> None:
    e, loadings, _ = market(200)
    e[:, -1] = np.nan
    covered = xr.ones_like(e, dtype=bool)
    model = SpecificRisk(structural={"always": 0.0, "enough": 60})
    plain, mixed = (
        each.path(e, e.indexes["date"][-1:], covered, loadings=loadings)[0] for each in (SpecificRisk(), model)
    )
    structural = structural_volatility(np.sqrt(plain.values.astype(float)), loadings.values[-1], np.arange(N) < N - 5)
    assert mixed[-1] == pytest.approx(structural[-1] ** 2, rel=1e-5)
    count = np.isfinite(e.values).sum(axis=0)
    weight = count / (count + 25.0)
    expected = np.square(weight * np.sqrt(plain) + (1.0 - weight) * structural)
    np.testing.assert_allclose(mixed[:-5], expected[:-5], rtol=1e-5)


def test_groups_of_size_shrink_the_most_extreme_most() -> None:
    rng = np.random.default_rng(0)
    size = np.repeat([1.0, 100.0], 50)
    volatility = np.where(size > 1.0, 0.01, 0.04) * np.exp(0.3 * rng.normal(size=100))
    spec = GroupShrinkageSpec(groups=2, strength=0.5)
    found = np.sqrt(shrunk_in_groups(spec, np.square(volatility), size))
    mean = volatility[50:].mean()
    off = np.abs(volatility[50:] - mean)
    share = 0.5 * off / (np.sqrt(np.mean(np.square(off))) + 0.5 * off)
    np.testing.assert_allclose(found[50:], share * mean + (1.0 - share) * volatility[50:], rtol=1e-12)
    # Who has no size has no say in what the others become.
    more = shrunk_in_groups(spec, np.square(np.append(volatility, 0.5)), np.append(size, np.nan))
    np.testing.assert_array_equal(np.sqrt(more[:-1]), found)
    assert np.sqrt(more[-1]) < 0.5


def test_a_regime_follows_a_jump_of_all_volatilities_at_once() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(400, 200)) * 0.02
    values[370:] *= 2.0
    e = history(values, "ticker")
    plain = SpecificRisk(halflife=250.0).estimate(e).mean()
    adjusted = SpecificRisk(halflife=250.0, regime={"halflife": 10.0, "bounds": (0.5, 3.0)}).estimate(e).mean()
    assert plain < 0.35 * 0.04**2
    assert adjusted == pytest.approx(0.04**2, rel=0.25)


def test_twins_are_found_and_their_hedge_is_not_free() -> None:
    rng = np.random.default_rng(0)
    e = rng.normal(size=(250, 600)) * 0.02
    e[:, 7] = 0.99 * e[:, 300] + 0.003 * rng.normal(size=250)
    e[:, 599] = e[:, 300]
    e[:40, 20] = e[:40, 21]
    e[40:, 20] = np.nan  # alike on too few dates
    blocks = linked_blocks(e)
    assert [list(members) for members in blocks.members] == [[7, 300, 599]]
    variance = np.full(600, 4e-4)
    held = np.zeros((3, 600))
    held[0, [7, 300]] = 1.0, -1.0
    held[1, [7, 300]] = 0.5
    held[2, [1, 2]] = 0.5
    total = np.square(held) @ variance + blocks.added_variance(held, variance)
    assert 0.0 < total[0] < 0.1 * 2.0 * 4e-4
    assert total[1] == pytest.approx(4e-4, rel=0.05)
    assert total[2] == 0.5 * 4e-4
    for correlation in blocks.correlations:
        assert np.linalg.eigvalsh(correlation)[0] > 0.005
    permuted = linked_blocks(e[:, ::-1])
    np.testing.assert_allclose(permuted.correlations[0], blocks.correlations[0][::-1, ::-1], atol=1e-12)
