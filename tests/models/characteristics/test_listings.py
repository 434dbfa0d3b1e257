"""A ticker that comes back as another company carries nothing of the former one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from small_market import SMALL

from models.characteristics.cube import derive_cube
from models.quality import by_ticker
from schemas.spec import RunSpec

DATES = pd.bdate_range("2019-01-01", periods=420).as_unit("ns")
STAYED_AWAY = slice(300, 330)
SPEC = RunSpec.parse(
    {
        **SMALL,
        "calendar": "none",
        "characteristics": ["mom12m", "beta", "idiovol", "maxret"],
        "portfolios": [{"kind": "equal_weight"}, {"kind": "inverse_volatility", "window": 63}],
    },
    origin="test",
)


def market(times: float) -> pd.DataFrame:
    """Twelve stocks of one factor; T03 stays away for six weeks and comes back at so many times its price."""
    draw = np.random.default_rng(1)
    common = draw.normal(0.0004, 0.009, (420, 1))
    returns = common * np.linspace(0.6, 1.4, 12) + draw.normal(0.0, 0.012, (420, 12))
    prices = pd.DataFrame(50.0 * np.cumprod(1.0 + returns, axis=0), DATES, [f"T{n:02d}" for n in range(12)])
    prices.iloc[STAYED_AWAY, 3] = np.nan
    prices.iloc[330:, 3] *= times
    return prices


def derived(prices: pd.DataFrame) -> xr.Dataset:
    data = xr.Dataset({"close": (("date", "ticker"), prices.to_numpy())}, {"date": DATES, "ticker": [*prices]})
    excluded = xr.zeros_like(data["close"], dtype=bool)
    return derive_cube(data, None, excluded, DATES, SPEC)


@pytest.fixture(scope="module")
def apart() -> xr.Dataset:
    """Derive the cube in which the second company has a ticker of its own."""
    prices = market(0.05)
    prices.insert(4, "T03B", prices["T03"].where(np.arange(420) >= 330))
    prices.loc[DATES[330:], "T03"] = np.nan
    return derived(prices)


def test_windows_do_not_reach_across_two_companies_of_one_ticker(apart: xr.Dataset) -> None:
    one = derived(market(0.05))
    for name in ("returns", "characteristics", "estimation"):
        after = apart[name].sel(ticker="T03B").isel(date=slice(330, None))
        np.testing.assert_array_equal(one[name].sel(ticker="T03").isel(date=slice(330, None)), after)
        before = apart[name].sel(ticker="T03").isel(date=slice(None, 330))
        np.testing.assert_array_equal(one[name].sel(ticker="T03").isel(date=slice(None, 330)), before)
    others = [name for name in apart["ticker"].values if not name.startswith("T03")]
    xr.testing.assert_identical(one.sel(ticker=others), apart.sel(ticker=others))
    both = apart["weights"].sel(ticker=["T03", "T03B"]).sum("ticker", skipna=False)
    np.testing.assert_array_equal(one["weights"].sel(ticker="T03"), both)
    assert np.isnan(one["characteristics"].sel(ticker="T03", char="beta")[400])


@pytest.mark.parametrize(("times", "reused"), [(0.05, 30.0), (0.9, 30.0 / 12.0)])
def test_a_suspension_is_no_other_company(times: float, reused: float) -> None:
    prices = market(times)
    data = xr.Dataset({"close": (("date", "ticker"), prices.to_numpy())}, {"date": DATES, "ticker": [*prices]})
    away = by_ticker(data).set_index("ticker")["reused_ticker"]
    assert away["T03"] == reused
    assert (away.drop("T03") == 0.0).all()
    beta = derived(prices)["characteristics"].sel(ticker="T03", char="beta")[400]
    assert bool(np.isfinite(beta)) == (times > 0.5)
