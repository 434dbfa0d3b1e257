"""Built-in portfolios: sums, symmetry, what is missing, and no look-ahead."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from models.portfolios.weights import allocated, equal_weight, fixed, inverse_volatility, long_short, value_weight
from schemas.errors import ConfigError, DataError

N_DATES, N_TICKERS = 30, 12


def grid(values: np.ndarray) -> xr.DataArray:
    coords = {
        "date": pd.bdate_range("2020-01-01", periods=N_DATES),
        "ticker": [f"t{i}" for i in range(N_TICKERS)],
    }
    return xr.DataArray(values, dims=("date", "ticker"), coords=coords, attrs={"units": "1"})


def market(seed: int = 0) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """Draw returns, a characteristic with ties and gaps, and coverage: of nobody on the third date."""
    rng = np.random.default_rng(seed)
    returns = np.where(rng.random((N_DATES, N_TICKERS)) < 0.05, np.nan, rng.normal(0.0, 0.01, (N_DATES, N_TICKERS)))
    characteristic = np.where(rng.random((N_DATES, N_TICKERS)) < 0.1, np.nan, rng.integers(0, 8, (N_DATES, N_TICKERS)))
    coverage = rng.random((N_DATES, N_TICKERS)) < 0.8
    coverage[2] = False
    return grid(returns.astype(np.float32)), grid(characteristic.astype(np.float32)), grid(coverage)


FIXED = {"t0": 0.5, "t3": 0.3, "t5": 0.4, "t7": -0.15, "t9": -0.05}
RULES: dict[str, Callable[[xr.DataArray, xr.DataArray, xr.DataArray], xr.DataArray]] = {
    "equal_weight": lambda _returns, _char, coverage: equal_weight(coverage),
    "fixed": lambda _returns, _char, coverage: fixed(FIXED, coverage),
    "long_short": lambda _returns, char, coverage: long_short(char, coverage, 0.3),
    "inverse_volatility": lambda returns, _char, coverage: inverse_volatility(returns, coverage, 10),
    "value_weight": lambda _returns, char, coverage: value_weight(char, coverage, 5),
}
NET = {"equal_weight": 1.0, "fixed": 1.0, "long_short": 0.0, "inverse_volatility": 1.0, "value_weight": 1.0}
GROSS = {"equal_weight": 1.0, "fixed": 1.4, "long_short": 2.0, "inverse_volatility": 1.0, "value_weight": 1.0}


@pytest.mark.parametrize("rule", RULES)
def test_sums_hold_on_every_defined_date_and_nothing_uncovered_is_held(rule: str) -> None:
    returns, char, coverage = market()
    weights = RULES[rule](returns, char, coverage)
    assert weights.dims == ("date", "ticker")
    assert weights.dtype == np.float32
    assert not weights.attrs
    defined = np.isfinite(weights).all("ticker")
    assert np.isnan(weights).all("ticker")[2]
    xr.testing.assert_equal(defined, np.isfinite(weights).any("ticker"))  # a date is defined for all or for none
    assert defined.sum() >= 15
    held = weights[defined]
    np.testing.assert_allclose(held.sum("ticker"), NET[rule], atol=1e-6)
    np.testing.assert_allclose(abs(held).sum("ticker"), GROSS[rule], atol=1e-6)
    assert ((held == 0.0) | coverage[defined]).all()


@settings(max_examples=40, deadline=None)
@given(rule=st.sampled_from(sorted(RULES)), seed=st.integers(0, 99), cut=st.integers(8, N_DATES - 2))
def test_the_future_does_not_change_weights(rule: str, seed: int, cut: int) -> None:
    now, other = market(seed), market(seed + 1000)
    disturbed = [xr.concat([a[: cut + 1], b[cut + 1 :]], "date") for a, b in zip(now, other, strict=True)]
    xr.testing.assert_equal(RULES[rule](*now)[: cut + 1], RULES[rule](*disturbed)[: cut + 1])


@settings(max_examples=40, deadline=None)
@given(rule=st.sampled_from(sorted(RULES)), seed=st.integers(0, 99), order=st.permutations(range(N_TICKERS)))
def test_weights_follow_the_ticker(rule: str, seed: int, order: list[int]) -> None:
    straight = RULES[rule](*market(seed))
    shuffled = RULES[rule](*(part[:, order] for part in market(seed)))
    xr.testing.assert_allclose(shuffled, straight[:, order], rtol=1e-6)


def test_fixed_scales_each_side_to_its_original_sum() -> None:
    coverage = grid(np.ones((N_DATES, N_TICKERS), dtype=bool))
    coverage[0, [3, 7]] = False
    coverage[1, [7, 9]] = False  # no short left
    weights = fixed(FIXED, coverage)
    np.testing.assert_allclose(
        weights[0].sel(ticker=["t0", "t3", "t5", "t7", "t9"]),
        [1.2 * 5 / 9, 0, 1.2 * 4 / 9, 0, -0.2],
        rtol=1e-6,
    )
    assert np.isnan(weights[1]).all()
    np.testing.assert_allclose(weights[2].sel(ticker=list(FIXED)), list(FIXED.values()), rtol=1e-6)


def test_long_short_holds_the_ends() -> None:
    coverage = grid(np.ones((N_DATES, N_TICKERS), dtype=bool))
    values = np.tile(np.arange(N_TICKERS, dtype=np.float64), (N_DATES, 1))
    values[1, :5] = 0.0  # five lowest tied: average rank 3 > 0.2 * 12, so that no short is left
    values[2, [0, 11]] = np.nan  # ten stocks, two at each end
    weights = long_short(grid(values), coverage, 0.2)
    np.testing.assert_allclose(weights[0], [-0.5, -0.5, *[0.0] * 8, 0.5, 0.5])
    assert np.isnan(weights[1]).all()
    np.testing.assert_allclose(weights[2], [0.0, -0.5, -0.5, *[0.0] * 6, 0.5, 0.5, 0.0])
    xr.testing.assert_allclose(long_short(-grid(values), coverage, 0.2), -weights)


def test_inverse_volatility_against_direct_computation() -> None:
    returns, _, coverage = market()
    returns[:, 4] = 0.0  # a price that never moves
    returns[-7:, 6] = np.nan  # a history too thin
    coverage[-1] = True
    weights = inverse_volatility(returns, coverage, 10)[-1]
    spread = returns[-10:].astype(np.float64).std("date", ddof=1).values
    usable = (returns[-10:].count("date").values >= 5) & (spread > 0.0)
    inverse = np.divide(1.0, spread, out=np.zeros(N_TICKERS), where=usable)
    np.testing.assert_allclose(weights, inverse / inverse.sum(), rtol=1e-5)
    assert weights[4] == weights[6] == 0.0


def test_a_steady_price_is_not_held_for_its_steadiness() -> None:
    returns, _, _ = market()
    covered = grid(np.ones((N_DATES, N_TICKERS), dtype=bool))
    returns[:, 4] = 5e-5 + 1e-7 * np.resize([1.0, -1.0], N_DATES)  # a fund that accrues interest
    returns[:, 5] = np.resize([0.0003, -0.0003], N_DATES)  # a fund of short bonds
    others = returns.astype(np.float64)[-10:].std("date", ddof=1)
    floored, low = inverse_volatility(returns, covered, 10)[-1], inverse_volatility(returns, covered, 10, 0.01)[-1]
    assert floored[4] == floored[5] == low[4] == 0.0
    np.testing.assert_allclose(floored.sum(), 1.0, rtol=1e-6)
    np.testing.assert_allclose(low[5] / low[0], others[0] / others[5], rtol=1e-5)
    assert inverse_volatility(returns, covered, 10, 0.0)[-1, 4] > 0.99


def test_portfolios_refuse_what_they_cannot_do() -> None:
    returns, char, coverage = market()
    with pytest.raises(DataError, match="universe does not have: XYZ"):
        fixed({"XYZ": 1.0}, coverage)
    with pytest.raises(DataError, match="t1 is not a finite number"):
        fixed({"t0": 1.0, "t1": float("nan")}, coverage)
    with pytest.raises(DataError, match="no weights"):
        fixed({}, coverage)
    with pytest.raises(DataError, match="same ticker axis"):
        long_short(char[:, ::-1], coverage)
    with pytest.raises(ConfigError, match="quantile"):
        long_short(char, coverage, 0.6)
    with pytest.raises(ConfigError, match="window"):
        inverse_volatility(returns, coverage, 2)
    with pytest.raises(ConfigError, match="floor"):
        inverse_volatility(returns, coverage, 10, 1.0)


def test_value_weights_follow_the_mean_value_of_the_window() -> None:
    values = np.tile(np.arange(1.0, N_TICKERS + 1.0), (N_DATES, 1))
    values[4, 0], values[:, 1], values[7, 2] = 4.0, np.nan, -1.0
    weights = value_weight(grid(values), grid(np.ones((N_DATES, N_TICKERS), dtype=bool)), 3)
    expected = np.array([2.0, 0.0, *range(3, N_TICKERS + 1)])
    np.testing.assert_allclose(weights[5], expected / expected.sum(), rtol=1e-6)
    np.testing.assert_allclose(weights[8, 2] / weights[8, 3], 3.0 / 4.0, rtol=1e-6)
    with pytest.raises(ConfigError, match="at least 1 date"):
        value_weight(grid(values), grid(values > 0.0), 0)


@pytest.mark.parametrize(("window", "enough"), [(1, 1), (3, 2), (4, 2), (5, 3)])
def test_a_value_known_on_half_of_the_window_counts_and_on_fewer_dates_does_not(window: int, enough: int) -> None:
    values = np.ones((N_DATES, N_TICKERS))
    values[:-enough, 0] = np.nan
    values[-enough:, 0] = 3.0
    values[: -enough + 1 or None, 1] = np.nan
    values[0, 2:] = np.nan
    weights = value_weight(grid(values), grid(np.ones((N_DATES, N_TICKERS), dtype=bool)), window)
    np.testing.assert_allclose(weights[-1], np.array([3.0, 0.0, *[1.0] * 10]) / 13.0, rtol=1e-6)
    assert np.isnan(weights[0]).all(), "a date on which nobody has a value"


@pytest.mark.parametrize(("window", "enough"), [(4, 2), (5, 3)])
def test_a_volatility_needs_returns_on_half_of_the_window(window: int, enough: int) -> None:
    returns = np.tile(np.resize([0.01, -0.01], N_DATES)[:, None], (1, N_TICKERS))
    returns[:-enough, 0] = np.nan
    returns[: -enough + 1, 1] = np.nan
    weights = inverse_volatility(grid(returns), grid(np.ones((N_DATES, N_TICKERS), dtype=bool)), window)
    assert weights[-1, 0] > 0.0
    assert weights[-1, 1] == 0.0


def test_allocated_weights_are_held_from_the_date_after_they_were_known_until_the_next() -> None:
    coverage = market()[2]
    dates = coverage.indexes["date"]
    first, second, last = {"t0": 0.6, "t1": 0.4}, {"t2": 1.0}, {"t3": 1.0}
    given = {dates[20]: second, dates[10]: first, dates[-1]: last}
    held = allocated(given, coverage, "mine")
    assert np.isnan(held[:11]).all(), "the date that weights were made from is not theirs"
    xr.testing.assert_identical(held[11:21], fixed(first, coverage)[11:21])
    xr.testing.assert_identical(held[21:], fixed(second, coverage)[21:])
    weekend = allocated({dates[10] + pd.Timedelta(hours=1): first}, coverage, "mine")
    xr.testing.assert_identical(weekend[11:21], held[11:21])
    with pytest.raises(DataError, match="portfolio 'mine' is an allocation without weights on any date"):
        allocated({dates[-1]: last}, coverage, "mine")
    with pytest.raises(DataError, match="there are none"):
        allocated({}, coverage, "mine")
