"""Attribution: effects sum to the return, linked effects to the compounded one, and timing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from models.evaluation.forecasts import portfolio_return
from models.risk.attribution import attribute, link
from models.risk.portfolio import RiskModel
from schemas.errors import DataError

T, N, K = 300, 15, 3
DATES = pd.bdate_range("2020-01-01", periods=T)
TICKERS, FACTORS = [f"t{i}" for i in range(N)], [f"f{i}" for i in range(K)]


def simulated(seed: int = 0) -> tuple[RiskModel, xr.DataArray, xr.DataArray, xr.DataArray]:
    """Simulate a model, weights, factor returns and the returns r[t] = X[t-1] f[t] + e[t] that they explain."""
    rng = np.random.default_rng(seed)
    loadings, f = rng.normal(size=(T, N, K)), rng.normal(size=(T, K)) * 0.01
    residual = rng.normal(size=(T, N)) * 0.01
    returns = np.full((T, N), np.nan)
    returns[1:] = np.einsum("tik,tk->ti", loadings[:-1], f[1:]) + residual[1:]
    weights = rng.dirichlet(np.ones(N), size=(2, T))
    coords = {"date": DATES, "ticker": TICKERS, "factor": FACTORS, "factor_": FACTORS, "portfolio": ["a", "b"]}

    def labelled(values: np.ndarray, *dims: str) -> xr.DataArray:
        return xr.DataArray(values, {dim: coords[dim] for dim in dims}, dims)

    model = RiskModel(
        labelled(loadings, "date", "ticker", "factor"),
        labelled(np.tile(np.eye(K) * 1e-4, (T, 1, 1)), "date", "factor", "factor_"),
        labelled(np.full((T, N), 1e-4), "date", "ticker"),
    )
    return (
        model,
        labelled(weights, "portfolio", "date", "ticker"),
        labelled(f, "date", "factor"),
        labelled(returns, "date", "ticker"),
    )


def attributed(seed: int = 0) -> xr.Dataset:
    model, weights, f, returns = simulated(seed)
    return attribute(model.exposures(weights), f, portfolio_return(weights, returns))


def test_factor_and_specific_are_those_of_the_weights_and_loadings_of_the_date_before() -> None:
    model, weights, f, returns = simulated()
    found = attributed()
    x = np.einsum("pti,tik->ptk", weights.values, model.loadings.values)
    np.testing.assert_allclose(found["factor"][:, 1:], x[:, :-1] * f.values[1:], rtol=1e-12, atol=1e-16)
    residual = returns.values[1:] - np.einsum("tik,tk->ti", model.loadings.values[:-1], f.values[1:])
    specific = np.einsum("pti,ti->pt", weights.values[:, :-1], residual)
    np.testing.assert_allclose(found["specific"][:, 1:], specific, rtol=1e-10, atol=1e-15)
    total = found["factor"].sum("factor", skipna=False) + found["specific"]
    np.testing.assert_allclose(total, found["portfolio_return"], rtol=1e-12)
    assert np.isnan(found["specific"][:, 0]).all()


@pytest.mark.parametrize("seed", range(3))
def test_linked_effects_sum_to_the_compounded_return(seed: int) -> None:
    single = attributed(seed)
    single["portfolio_return"][0, 7] = 0.0  # the limit of ln(1 + r) / r
    single["specific"][0, 7] = -single["factor"][0, 7].sum()
    linked = link(single)
    compounded = np.prod(1.0 + single["portfolio_return"].values[:, 1:], axis=1) - 1.0
    np.testing.assert_allclose(linked["portfolio_return"], compounded, rtol=0.0, atol=1e-12)
    total = linked["factor"].sum("factor") + linked["specific"]
    np.testing.assert_allclose(total, compounded, rtol=0.0, atol=1e-12)
    np.testing.assert_array_equal(linked["n_dates"], [T - 1, T - 1])


def test_one_period_links_to_itself_and_unknown_dates_are_counted_out() -> None:
    single = attributed()
    one = link(single.isel(date=[5]))
    xr.testing.assert_allclose(one["factor"], single["factor"][:, 5].drop_vars("date"), rtol=1e-12)
    holes = single.copy(deep=True)
    for name in ("portfolio_return", "specific", "factor"):
        holes[name][0, 10:20] = np.nan
    linked, without = link(holes), link(single.drop_sel(date=DATES[10:20]))
    np.testing.assert_array_equal(linked["n_dates"], [T - 11, T - 1])
    np.testing.assert_allclose(linked["factor"][0], without["factor"][0], rtol=1e-12)
    nothing = link(single.isel(date=[0]))
    assert np.isnan(nothing["portfolio_return"]).all()
    assert np.isnan(nothing["factor"]).all()


def test_what_cannot_be_linked_is_refused() -> None:
    single = attributed()
    single["portfolio_return"][1, 3] = -1.0
    with pytest.raises(DataError, match="2020-01-06"):
        link(single)
    model, weights, f, returns = simulated()
    with pytest.raises(DataError, match="date axis"):
        attribute(model.exposures(weights), f[1:], portfolio_return(weights, returns))
