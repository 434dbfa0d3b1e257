"""What a delivery does to a record: a full one replaces its span, an increment its rows, no one what it cannot know."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from models.deliveries import as_record, market_of, merged, observed_of, renamed, tidied, without
from schemas.errors import DataError

DAYS = pd.bdate_range("2024-01-01", periods=60).as_unit("ns")
NONE = pd.DatetimeIndex([])
PRICES = pd.DataFrame(
    np.exp(np.random.default_rng(0).normal(0.0, 0.02, (60, 3)).cumsum(axis=0) + 3.0), DAYS, ["A", "B", "C"]
)


def record(prices: pd.DataFrame = PRICES, **observed: np.ndarray) -> xr.Dataset:
    market = xr.Dataset({"close": (("date", "ticker"), prices.to_numpy())}, {"date": prices.index, "ticker": [*prices]})
    beside = xr.Dataset({name: ("date", values) for name, values in observed.items()}, {"date": prices.index})
    return tidied(as_record(market, beside if observed else None, None))


def put(before: xr.Dataset, delivery: xr.Dataset, kind: str = "full", silent: pd.DatetimeIndex = NONE) -> xr.Dataset:
    return tidied(merged(before, delivery, kind, silent)[0])  # type: ignore[arg-type]


def closes(data: xr.Dataset) -> pd.DataFrame:
    return data["close"].to_pandas()


def test_a_full_delivery_takes_back_what_it_lacks_between_its_first_and_last_date_and_nothing_else() -> None:
    later = PRICES.iloc[20:50].drop(index=DAYS[30]).rename(columns={"C": "D"})
    found = closes(put(record(), record(later)))
    assert list(found.columns) == ["A", "B", "C", "D"]
    assert DAYS[30] not in found.index
    assert found.loc[DAYS[20:50].drop(DAYS[30]), "C"].isna().all()
    np.testing.assert_array_equal(found["C"].dropna(), PRICES["C"].drop(DAYS[20:50]))
    np.testing.assert_array_equal(found["A"], PRICES["A"].drop(DAYS[30]))


def test_an_increment_replaces_the_rows_that_it_has() -> None:
    restated = PRICES.iloc[[5, 7]][["B"]] * 2.0
    found = closes(put(record(), record(restated), "increment"))
    expected = PRICES.copy()
    expected.loc[restated.index, "B"] *= 2.0
    np.testing.assert_array_equal(found, expected)


def test_dates_that_are_kept_out_stay_as_they_were() -> None:
    found = closes(put(record(), record(PRICES.iloc[10:20, :1]), silent=DAYS[[12, 15]]))
    np.testing.assert_array_equal(found.loc[DAYS[[12, 15]]], PRICES.loc[DAYS[[12, 15]]])
    assert found.loc[DAYS[13], ["B", "C"]].isna().all()


def test_a_rate_that_a_delivery_does_not_reach_stays_known() -> None:
    rates = np.arange(60.0)
    known = np.where((rates >= 45) & (rates < 55), rates * 2.0, np.nan)[40:]
    known[8] = np.nan  # between its first and its last: taken back
    found = put(record(risk_free=rates), record(PRICES.iloc[40:], risk_free=known))["risk_free"].values
    expected = rates.copy()
    expected[45:55] *= 2.0
    expected[48] = np.nan
    np.testing.assert_array_equal(found, expected)


def test_prices_before_a_window_on_another_basis_are_put_on_it() -> None:
    window = PRICES.iloc[20:].copy()
    window["B"] *= 0.5  # a split that the vendor has adjusted for
    window.loc[DAYS[25:30], "C"] *= 1.1  # five corrected rows, which are no basis
    found, moved = merged(record(), record(window), "full", NONE)
    assert moved == ["B"]
    np.testing.assert_allclose(closes(found)["B"], PRICES["B"] / 2.0, rtol=1e-12)
    np.testing.assert_array_equal(closes(found)["C"][:20], PRICES["C"][:20])
    assert merged(record(), record(window.iloc[:-1]), "full", NONE)[1] == [], "what is known later is on the old basis"
    assert merged(record(), record(window), "increment", NONE)[1] == []


def test_characteristics_that_are_lagged_by_their_source_are_known_at_the_date_before_across_deliveries() -> None:
    market = xr.Dataset(
        {
            "returns": (("date", "ticker"), PRICES.to_numpy()),
            "characteristics": (("date", "ticker", "char"), PRICES.to_numpy()[:, :, np.newaxis]),
        },
        {"date": DAYS, "ticker": [*PRICES], "char": ["size"]},
    )
    whole = as_record(market, None, None)
    parts = put(whole.isel(date=slice(0, 30)), whole.isel(date=slice(30, None)))
    found = market_of(parts, "before_date")
    np.testing.assert_array_equal(found["characteristics"][:-1, :, 0], PRICES[1:].to_numpy().astype(np.float32))
    assert np.isnan(found["characteristics"][-1]).all()


def test_an_industry_holds_where_no_delivery_has_spoken_of_it_and_not_before_the_stock_appears() -> None:
    prices = PRICES.copy()
    prices.iloc[:10, 2] = np.nan
    groups = xr.Dataset(
        {"industry": (("date", "ticker"), np.tile([1, -1, 0], (60, 1)).astype(np.int32))},
        {"date": DAYS, "ticker": [*PRICES], "industry_name": ["bank", "tech"]},
    )
    market = xr.Dataset({"close": (("date", "ticker"), prices.to_numpy())}, {"date": DAYS, "ticker": [*PRICES]})
    whole = as_record(market, None, groups)
    part = whole.isel(date=slice(30, 40), ticker=[0, 1])  # in which C has no row
    found = put(put(whole.isel(date=slice(0, 30)), part), whole.isel(date=slice(40, None)))
    observed = observed_of(found)
    names = np.append(observed["industry_name"].values, "")[observed["industry"].values]
    np.testing.assert_array_equal(names[:, 0], "tech")
    np.testing.assert_array_equal(names[:, 1], "")
    np.testing.assert_array_equal(names[:, 2], ["" if day < 10 else "bank" for day in range(60)])


def test_rows_can_be_taken_out_and_given_another_ticker() -> None:
    found = closes(renamed(record(), "B", "Z", None, DAYS[9]))
    np.testing.assert_array_equal(found["Z"].dropna(), PRICES["B"][:10])
    np.testing.assert_array_equal(found["B"].dropna(), PRICES["B"][10:])
    assert list(closes(without(record(), "B", None, None)).columns) == ["A", "C"]
    with pytest.raises(DataError, match="A cannot become B: both have rows on 2024-01-01"):
        renamed(record(), "A", "B", None, None)
    with pytest.raises(DataError, match="no row of X"):
        without(record(), "X", None, None)


def test_returns_and_prices_are_not_mixed() -> None:
    with pytest.raises(DataError, match="made of close, and this delivery brings returns"):
        merged(record(), record().rename(close="returns"), "full", NONE)
