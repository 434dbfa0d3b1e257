"""The variables of a cube: what a suspected row moves, which is nothing, in characteristics and in weights."""

from __future__ import annotations

from functools import cache
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from masking import ABSURD, assert_unmoved

from models.characteristics import CHARACTERISTICS, compute
from models.characteristics.cube import derive_cube
from models.quality import flag_rows
from schemas import spec as specs
from schemas.checks import CheckOverrides, declared
from schemas.spec import PortfolioSpec, RunSpec

N_DATES, TICKERS = 330, [f"S{i}" for i in range(6)]
DATES = pd.bdate_range("2020-01-01", periods=N_DATES)
PRICES = ("returns", "close", "high", "low")
PORTFOLIOS = {
    "EqualWeight": {},
    "FixedWeights": {"name": "given", "weights": {"S1": 0.5, "S2": 0.5}},
    "LongShort": {"name": "momentum", "characteristic": "mom6m", "quantile": 0.34},
    "InverseVolatility": {},
    "ValueWeight": {},
    "Holdings": {"name": "book", "rebalances": [{"as_of": "2020-06-01", "weights": {"S1": 0.5, "S2": 0.4}}]},
}


@cache
def market() -> xr.Dataset:
    rng = np.random.default_rng(2)
    shape = (N_DATES, len(TICKERS))
    returns = rng.uniform(0.5, 1.5, len(TICKERS)) * rng.normal(0, 0.01, (N_DATES, 1)) + rng.normal(0, 0.01, shape)
    close = 64.0 * np.cumprod(1 + returns, axis=0)
    fields = {
        "returns": returns,
        "close": close,
        "high": 1.01 * close,
        "low": 0.99 * close,
        "volume": rng.lognormal(10, 1, shape).round(),
        "shares": np.broadcast_to(rng.uniform(1e6, 1e7, len(TICKERS)), shape),
    }
    return xr.Dataset(
        {name: (("date", "ticker"), values) for name, values in fields.items()}, {"date": DATES, "ticker": TICKERS}
    )


def flags(*cells: tuple[int, int]) -> xr.DataArray:
    found = xr.zeros_like(market()["returns"], dtype=np.bool_)
    for cell in cells:
        found.values[cell] = True
    return found


@cache
def run_spec() -> RunSpec:
    portfolios = [getattr(specs, name)(**fields) for name, fields in PORTFOLIOS.items()]
    source = {"shape": "long_prices", "origin": {"kind": "files", "paths": ["prices.csv"]}}
    return RunSpec(
        universe="test",
        calendar="none",
        data=source,
        characteristics=tuple(CHARACTERISTICS),
        portfolios=portfolios,
        models=[{"kind": "market"}],
        walk_forward={"first": "2021-01-01", "every": "year"},
    )


def derived(data: xr.Dataset, suspected: xr.DataArray) -> xr.Dataset:
    return derive_cube(data, None, suspected, DATES, run_spec())


def changed(cell: tuple[int, int], value: float) -> xr.Dataset:
    """Another return, and prices as wrong, in one row."""
    data = market().copy(deep=True)
    data["returns"].values[cell] = value
    for power, name in enumerate(PRICES):
        if power:
            data[name].values[cell] *= (1.0 + value) ** power
    return data


def monthly(data: xr.Dataset, suspected: xr.DataArray) -> xr.DataArray:
    """Characteristics as if each row were a month, so that the longest windows are full."""
    return compute(data, frequency="monthly", suspected=suspected)


@settings(max_examples=4, deadline=None)
@given(cell=st.tuples(st.integers(0, N_DATES - 1), st.integers(0, 5)), value=st.sampled_from(ABSURD))
def test_a_suspected_row_moves_no_characteristic_and_no_weight(cell: tuple[int, int], value: float) -> None:
    suspected = flags(cell)
    before, after = derived(market(), suspected), derived(changed(cell, value), suspected)
    assert_unmoved(before.drop_vars("returns"), after.drop_vars("returns"))
    assert_unmoved(monthly(market(), suspected), monthly(changed(cell, value), suspected))
    others = xr.where(suspected, 0.0, after["returns"])
    np.testing.assert_array_equal(others, xr.where(suspected, 0.0, before["returns"]))


def test_every_portfolio_and_every_characteristic_of_a_price_is_tested() -> None:
    """Each of them moves if the same row is not suspected; allocated weights come from a version, and not from here."""
    kinds = {kind.__name__ for kind in get_args(get_args(PortfolioSpec)[0])}
    assert kinds - {"AllocatedWeights"} == set(PORTFOLIOS)
    cell, nothing = (N_DATES - 50, 2), flags()
    before, after = derived(market(), nothing), derived(changed(cell, 0.9), nothing)
    moved = _moved(before["characteristics"], after["characteristics"])
    moved |= _moved(monthly(market(), nothing), monthly(changed(cell, 0.9), nothing))
    assert moved == {name for name, item in CHARACTERISTICS.items() if set(PRICES) & set(item.inputs)}
    weights = (before["weights"] != after["weights"]).any(["date", "ticker"])
    assert weights["portfolio"].values[weights.values].tolist() == [
        "momentum",
        "inverse_volatility",
        "value_weight",
        "book",
    ]


def _moved(before: xr.DataArray, after: xr.DataArray) -> set[str]:
    moved = (before.fillna(0.0) != after.fillna(0.0)).any(["date", "ticker"])
    return set(moved["char"].values[moved.values].tolist())


def test_a_suspected_value_is_the_last_one_before_it() -> None:
    cell = (200, 3)
    found = derived(changed(cell, 99.0), flags(cell))["weights"].sel(portfolio="value_weight").values
    value = (market()["close"] * market()["shares"]).values.copy()
    value[cell] = value[199, 3]
    np.testing.assert_allclose(found, value / value.sum(axis=1, keepdims=True), rtol=1e-6)


def test_a_split_that_nobody_adjusted_is_no_fall_and_a_bad_print_no_market() -> None:
    """One row of 330 is left out: momentum and volatility stay what they are, and so does every other stock."""
    split, bad = market().copy(deep=True), market().copy(deep=True)
    split["close"].values[300:, 3] /= 2.0
    bad["close"].values[300, 3] *= 100.0
    checks = declared(CheckOverrides(), "daily").items()
    thresholds = {name: one.threshold for name, one in checks if one.threshold is not None}
    last = {"date": DATES[-20]}
    true = derived(market(), flags())["characteristics"].sel(last)
    for data, rows in ((split, [300]), (bad, [300, 301])):
        prices = data[["close"]]
        found = np.logical_or.reduce([*flag_rows(prices, thresholds, "daily").flags.values()])
        assert np.argwhere(found).tolist() == [[row, 3] for row in rows]
        data["returns"] = data["close"] / data["close"].shift(date=1) - 1.0
        data["high"], data["low"] = 1.01 * data["close"], 0.99 * data["close"]
        seen = derived(data, flags().copy(data=found))["characteristics"].sel(last)
        mine, right = (array.sel(ticker="S3").to_series() for array in (seen, true))
        assert abs(mine["mom1m"] - right["mom1m"]) < 0.05
        assert mine["retvol"] == pytest.approx(right["retvol"], rel=0.15)
        assert mine["beta"] == pytest.approx(right["beta"], abs=0.1)
        others = [name for name in TICKERS if name != "S3"]
        weekly = ["beta", "betasq", "idiovol", "pricedelay"]
        np.testing.assert_allclose(
            seen.sel(ticker=others, char=weekly), true.sel(ticker=others, char=weekly), rtol=0.2, atol=0.02
        )
        rest = [name for name in CHARACTERISTICS if name not in weekly]
        np.testing.assert_array_equal(seen.sel(ticker=others, char=rest), true.sel(ticker=others, char=rest))


def test_what_looks_further_back_than_the_data_reach_is_missing() -> None:
    for n_dates in (1, 19):
        values = compute(market().isel(date=slice(0, n_dates)))
        assert not values.sel(char=["dolvol", "mom36m", "pricedelay"]).notnull().any()
