"""From checked market data to a cube: the mask in portfolios, and what holders of a stock got at its end."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from markets import changed, simulated_market

from models.characteristics.cube import derive_cube
from schemas.spec import RunSpec

MARKET = simulated_market(dates=90, tickers=8)
DATES = pd.DatetimeIndex(MARKET.indexes["date"])


def spec(**changes: object) -> RunSpec:
    content = {
        "universe": "made_up",
        "calendar": "none",
        "data": {"shape": "long_prices", "origin": {"kind": "files", "paths": ["prices.csv"]}},
        "characteristics": ["mom1m"],
        "models": [{"kind": "fama_macbeth"}],
        "walk_forward": {"first": "2020-03-01"},
    }
    return RunSpec.parse(content | changes, origin="a test")


def excluded(market: xr.Dataset, *cells: tuple[int, int]) -> xr.DataArray:
    mask = xr.zeros_like(market["close"], dtype=bool)
    for cell in cells:
        mask[cell] = True
    return mask


def test_a_return_outside_the_mask_has_no_weight_in_inverse_volatility() -> None:
    portfolio = {"portfolios": [{"kind": "inverse_volatility", "window": 20}]}
    mask = excluded(MARKET, (60, 3), (61, 3))
    absurd = changed(MARKET, "close", 60, 3, 1e6)
    plain, changed_ = (derive_cube(data, None, mask, DATES, spec(**portfolio)) for data in (MARKET, absurd))
    np.testing.assert_array_equal(changed_["weights"], plain["weights"])
    assert (plain["weights"][0, [60, 61], 3] == 0.0).all()
    assert plain["weights"][0, 62, 3] > 0.0


def test_a_delisting_return_is_compounded_with_the_return_of_its_row_or_takes_its_place() -> None:
    paid = xr.full_like(MARKET["close"], np.nan)
    paid[50, 2], paid[51, 3] = -0.4, -1.0
    market = changed(changed(MARKET, "close", slice(51, None), 2, np.nan), "close", slice(50, None), 3, np.nan)
    cube = derive_cube(market.assign(delisting_return=paid), None, excluded(MARKET), DATES, spec())
    returns = cube["returns"].values
    last = MARKET["close"].values[49:51, 2]
    assert returns[50, 2] == np.float32(0.6 * last[1] / last[0] - 1.0)
    assert returns[51, 3] == -1.0  # the stock had no price on the date before either
    assert np.isnan(returns[51:, 2]).all()
    assert np.isnan(returns[[50, *range(52, 90)], 3]).all()
    assert cube["estimation"].values[[50, 51], [2, 3]].all()
    weights = cube["weights"].sel(portfolio="equal_weight").values
    assert (weights[[50, 51], [2, 3]] == 0.0).all(), "what was paid out is held no more"
    assert (weights[[49, 50], [2, 4]] > 0.0).all()
    others = derive_cube(market, None, excluded(MARKET), DATES, spec())["returns"].values
    np.testing.assert_array_equal(np.delete(returns, [2, 3], axis=1), np.delete(others, [2, 3], axis=1))
