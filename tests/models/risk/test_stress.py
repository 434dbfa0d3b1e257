"""Scenarios against the conditional distribution of the dense model, and replays of the past."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from risk_models import COORDS, N_FACTORS, small_model, small_weights

from models.risk.portfolio import RiskModel
from models.risk.stress import historical_stress, scenario_stress
from schemas.errors import DataError


def shocks() -> xr.DataArray:
    values = [[-0.05, np.nan], [0.02, 0.01]]
    return xr.DataArray(values, {"scenario": ["one", "two"], "factor": ["f2", "f0"]}, ("scenario", "factor"))


def test_unshocked_factors_move_as_is_expected_of_them() -> None:
    model, weights = small_model(), small_weights()
    found = scenario_stress(model, weights, shocks())
    x = model.exposures(weights).values
    for d, omega in enumerate(model.omega.values):
        one = omega[:, 2] / omega[2, 2] * -0.05
        given_two = [0, 2]
        two = omega[:, given_two] @ np.linalg.solve(omega[np.ix_(given_two, given_two)], [0.01, 0.02])
        moves = np.stack([one, two])
        np.testing.assert_allclose(found["factor_shock"][d], moves, rtol=1e-10)
        np.testing.assert_allclose(found["portfolio_return"][:, d], x[:, d] @ moves.T, rtol=1e-10)
        left = omega - np.outer(omega[:, 2], omega[2]) / omega[2, 2]
        variance = np.einsum("pk,kl,pl->p", x[:, d], left, x[:, d]) + model.specific(weights).values[:, d]
        np.testing.assert_allclose(found["residual_volatility"][:, d, 0] ** 2, variance, rtol=1e-9)
    np.testing.assert_allclose(found["factor_return"].sum("factor"), found["portfolio_return"], rtol=1e-12)


def test_without_propagation_the_others_stay() -> None:
    model, weights = small_model(), small_weights()
    found = scenario_stress(model, weights, shocks(), propagate=False)
    np.testing.assert_array_equal(found["factor_shock"][0], [[0.0, 0.0, -0.05], [0.01, 0.0, 0.02]])
    np.testing.assert_allclose(found["residual_volatility"][..., 0] ** 2, model.specific(weights), rtol=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999))
def test_a_shock_to_all_factors_survives_rotation(seed: int) -> None:
    model, weights = small_model(seed), small_weights(seed)
    rng = np.random.default_rng(seed)
    turn, f = np.linalg.qr(rng.normal(size=(N_FACTORS, N_FACTORS)))[0], rng.normal(size=N_FACTORS)
    turned = RiskModel(
        model.loadings.copy(data=model.loadings.values @ turn),
        model.omega.copy(data=turn.T @ model.omega.values @ turn),
        model.specific_variance,
    )
    plain = xr.DataArray(f, {"factor": COORDS["factor"]}, ("factor",))
    one = scenario_stress(model, weights, plain)["portfolio_return"]
    other = scenario_stress(turned, weights, plain.copy(data=turn.T @ f))["portfolio_return"]
    xr.testing.assert_allclose(one, other, rtol=1e-9)


def test_the_past_is_replayed_with_the_exposures_of_now() -> None:
    model, weights = small_model(), small_weights()
    values = np.random.default_rng(5).normal(size=(6, N_FACTORS)) * 0.01
    events = pd.bdate_range("2008-09-15", periods=6)
    returns = xr.DataArray(values, {"date": events, "factor": COORDS["factor"]}, ("date", "factor"))
    found = historical_stress(model, weights, returns[:, ::-1])
    path = np.einsum("pdk,ek->pde", model.exposures(weights).values, values)
    wealth = np.cumprod(1.0 + path, axis=2)
    np.testing.assert_allclose(found["path"], path, rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(found["portfolio_return"], wealth[..., -1] - 1.0, rtol=1e-10)
    np.testing.assert_allclose(found["worst"], np.minimum(wealth.min(axis=2) - 1.0, 0.0), rtol=1e-10)
    np.testing.assert_allclose(found["factor_return"].sum("factor"), path.sum(axis=2), rtol=1e-10)
    returns[2, 1] = np.nan
    assert np.isnan(historical_stress(model, weights, returns)["portfolio_return"]).all()


def test_shocks_that_cannot_be_are_refused() -> None:
    model, weights = small_model(), small_weights()
    with pytest.raises(DataError, match="f0, f1, f2"):
        scenario_stress(model, weights, shocks().assign_coords(factor=["f2", "oil"]))
    with pytest.raises(DataError, match="shocks no factor"):
        scenario_stress(model, weights, shocks() * np.nan)
