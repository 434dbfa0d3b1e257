"""What lies outside the mask moves no number: every public function of a panel, and all of a version."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache

import numpy as np
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from masking import ABSURD, assert_unmoved

import models
from models import (
    IPCA,
    MarketModel,
    Panel,
    WalkForward,
    characteristic_importance,
    double_sort,
    forecast,
    full_sample_betas,
    managed_returns,
    managed_weights,
    predictive_r2_scorer,
    quantile_sort,
    response_curves,
    response_surface,
    search,
    total_r2_scorer,
)

N_DATES, N_STOCKS, CELL = 60, 24, (50, 3)


@cache
def cube() -> xr.Dataset:
    """Cube in which a check suspects one return, and a later price refuted another."""
    rng = np.random.default_rng(6)
    shape = (N_DATES, N_STOCKS)
    returns = rng.uniform(0.5, 1.5, N_STOCKS) * rng.normal(0, 0.01, (N_DATES, 1)) + rng.normal(0, 0.01, shape)
    fields = {
        "returns": (("date", "ticker"), returns.astype(np.float32)),
        "characteristics": (("date", "ticker", "char"), rng.normal(size=(*shape, 2)).astype(np.float32)),
        "estimation": (("date", "ticker"), np.ones(shape, dtype=np.bool_)),
        "refuted": (("date", "ticker"), np.zeros(shape, dtype=np.bool_)),
        "weights": (("portfolio", "date", "ticker"), np.full((1, *shape), 1 / N_STOCKS, dtype=np.float32)),
        "factors": (("date", "observed_factor"), rng.normal(0, 0.01, (N_DATES, 1)).astype(np.float32)),
    }
    coords = {
        "date": np.arange("2021-01-01", "2021-03-02", dtype="datetime64[D]").astype("datetime64[ns]"),
        "ticker": [f"S{place:02d}" for place in range(N_STOCKS)],
        "char": ["first", "second"],
        "observed_factor": ["given"],
        "portfolio": ["all"],
    }
    data = xr.Dataset(fields, coords)
    data["estimation"].values[CELL] = data["estimation"].values[30, 5] = False
    data["refuted"].values[30, 5] = True
    return data


def with_returns(suspected: float, refuted: float) -> xr.Dataset:
    data = cube().copy(deep=True)
    data["returns"].values[CELL], data["returns"].values[30, 5] = suspected, refuted
    return data


def version(data: xr.Dataset) -> xr.Dataset:
    panel = Panel.from_cube(data, next_date="2021-03-02")
    return forecast(MarketModel(min_observations=20), panel, data, WalkForward(first="2021-02-01", every="month"))


def of_panel(function: Callable[[Panel], object]) -> Callable[[xr.Dataset], object]:
    return lambda data: function(Panel.from_cube(data))


FUNCTIONS: dict[str, Callable[[xr.Dataset], object]] = {
    "characteristic_importance": of_panel(lambda panel: characteristic_importance(IPCA(1).fit(panel), panel)),
    "double_sort": of_panel(lambda panel: double_sort(panel, "first", "second", (2, 2))),
    "forecast": version,
    "full_sample_betas": of_panel(lambda panel: full_sample_betas(panel).characteristics),
    "managed_returns": of_panel(managed_returns),
    "managed_weights": of_panel(managed_weights),
    "predictive_r2_scorer": of_panel(lambda panel: predictive_r2_scorer(IPCA(1).fit(panel), panel)),
    "quantile_sort": of_panel(lambda panel: quantile_sort(panel, "first", 3, weighting="cap")),
    "response_curves": of_panel(lambda panel: response_curves(IPCA(1).fit(panel), panel)),
    "response_surface": of_panel(lambda panel: response_surface(IPCA(1).fit(panel), panel, "first")),
    "search": of_panel(lambda panel: search(IPCA(1), {"n_factors": [1, 2]}, panel, budget=2, seed=0).model.gamma_),
    "total_r2_scorer": of_panel(lambda panel: total_r2_scorer(IPCA(1).fit(panel), panel)),
}
SUSPECTS = {"portfolio_return", "standardised_return", "qlike", "attribution_specific"}
"""What a suspected return that nothing refutes does move: the judgement of risk, beside the one without it."""


@cache
def unchanged() -> dict[str, object]:
    return {name: function(cube()) for name, function in FUNCTIONS.items()}


@settings(max_examples=2, deadline=None)
@given(suspected=st.sampled_from(ABSURD), refuted=st.sampled_from(ABSURD))
def test_no_suspected_return_moves_a_number(suspected: float, refuted: float) -> None:
    for name, function in FUNCTIONS.items():
        before, after = unchanged()[name], function(with_returns(suspected, refuted))
        if isinstance(before, xr.Dataset) and isinstance(after, xr.Dataset):
            moved = {str(one) for one in before if not before[one].identical(after[one])}
            assert moved == SUSPECTS
            day = {"date": slice(CELL[0], CELL[0] + 1)}
            for one in SUSPECTS:
                off = before["date"].values != before["date"].values[CELL[0]]
                np.testing.assert_array_equal(before[one].isel(date=off), after[one].isel(date=off))
                assert not before[one].isel(day).identical(after[one].isel(day))
        else:
            assert_unmoved(before, after)


def test_every_public_function_of_a_panel_is_tested() -> None:
    public = {name: getattr(models, name) for name in models.__all__}
    functions = {name: one for name, one in public.items() if inspect.isfunction(one)}
    assert {name for name, one in functions.items() if "panel" in inspect.signature(one).parameters} == set(FUNCTIONS)
