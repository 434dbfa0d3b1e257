"""Portfolio risk against the dense w' (X Omega X' + D) w, its invariances, and missing data."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from models.risk.benchmark import active_weights, tracking_error
from models.risk.portfolio import RiskModel
from schemas.errors import DataError

N_DATES, N_TICKERS, N_FACTORS, N_PORTFOLIOS = 4, 9, 3, 2
COORDS = {
    "portfolio": ["a", "b"],
    "date": pd.bdate_range("2020-01-01", periods=N_DATES),
    "ticker": [f"t{i}" for i in range(N_TICKERS)],
    "factor": [f"f{i}" for i in range(N_FACTORS)],
    "factor_": [f"f{i}" for i in range(N_FACTORS)],
}


def array(values: np.ndarray, *dims: str) -> xr.DataArray:
    return xr.DataArray(values, dims=dims, coords={dim: COORDS[dim] for dim in dims})


def parts(seed: int = 0) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray, xr.DataArray]:
    rng = np.random.default_rng(seed)
    roots = rng.normal(size=(N_DATES, N_FACTORS, N_FACTORS)) * 0.01
    return (
        array(rng.normal(size=(N_DATES, N_TICKERS, N_FACTORS)).astype(np.float32), "date", "ticker", "factor"),
        array(roots @ roots.transpose(0, 2, 1), "date", "factor", "factor_"),
        array(rng.uniform(1e-4, 1e-3, size=(N_DATES, N_TICKERS)).astype(np.float32), "date", "ticker"),
        array(
            rng.normal(size=(N_PORTFOLIOS, N_DATES, N_TICKERS)).astype(np.float32),
            "portfolio",
            "date",
            "ticker",
        ),
    )


def dense(loadings: xr.DataArray, omega: xr.DataArray, specific: xr.DataArray) -> np.ndarray:
    """(date, ticker, ticker) covariance of stock returns."""
    x = loadings.values.astype(np.float64)
    diagonal = np.stack([np.diag(row) for row in specific.values.astype(np.float64)])
    return x @ omega.values @ x.transpose(0, 2, 1) + diagonal


@pytest.mark.parametrize("seed", range(3))
def test_risk_equals_the_dense_covariance(seed: int) -> None:
    loadings, omega, specific, weights = parts(seed)
    model = RiskModel(loadings, omega, specific)
    covariance, w = dense(loadings, omega, specific), weights.values.astype(np.float64)
    marginal = np.einsum("dij,pdj->pdi", covariance, w)
    variance = model.variance(weights)
    assert variance.dims == ("portfolio", "date")
    assert variance.dtype == np.float64
    np.testing.assert_allclose(variance, (w * marginal).sum(axis=2), rtol=1e-12)
    np.testing.assert_allclose(model.volatility(weights) ** 2, variance, rtol=1e-12)
    np.testing.assert_allclose(model.marginal(weights), marginal, rtol=1e-10)
    np.testing.assert_allclose(model.asset_contributions(weights), w * marginal, rtol=1e-10)
    exposures = np.einsum("pdi,dik->pdk", w, loadings.values.astype(np.float64))
    np.testing.assert_allclose(model.exposures(weights), exposures, rtol=1e-12, atol=1e-14)


def test_marginal_is_half_the_gradient_of_the_variance() -> None:
    loadings, omega, specific, weights = parts()
    model, base = RiskModel(loadings, omega, specific), weights.astype(np.float64)
    bump = xr.zeros_like(base)
    bump[:, :, 2] = 1e-3
    slope = (model.variance(base + bump) - model.variance(base - bump)) / 2e-3
    np.testing.assert_allclose(slope, 2.0 * model.marginal(base)[:, :, 2], rtol=1e-9)


def test_contributions_sum_and_the_published_names_are_met() -> None:
    loadings, omega, specific, weights = parts()
    model = RiskModel(loadings, omega, specific)
    published = model.decompose(weights)
    assert {name: var.dims for name, var in published.data_vars.items()} == {
        "portfolio_variance": ("portfolio", "date"),
        "portfolio_variance_systematic": ("portfolio", "date"),
        "portfolio_variance_specific": ("portfolio", "date"),
        "portfolio_variance_factor": ("portfolio", "date", "factor"),
        "portfolio_exposure": ("portfolio", "date", "factor"),
    }
    xr.testing.assert_equal(published["portfolio_exposure"], model.exposures(weights))
    systematic, specific_part = (
        published["portfolio_variance_systematic"],
        published["portfolio_variance_specific"],
    )
    xr.testing.assert_allclose(published["portfolio_variance_factor"].sum("factor"), systematic, rtol=1e-13)
    xr.testing.assert_allclose(systematic + specific_part, published["portfolio_variance"], rtol=1e-13)
    xr.testing.assert_allclose(
        model.asset_contributions(weights).sum("ticker"), published["portfolio_variance"], rtol=1e-11
    )
    np.testing.assert_array_equal(model.specific(weights), specific_part)


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 999),
    tickers=st.permutations(range(N_TICKERS)),
    factors=st.permutations(range(N_FACTORS)),
)
def test_labels_decide_not_positions(seed: int, tickers: list[int], factors: list[int]) -> None:
    loadings, omega, specific, weights = parts(seed)
    straight = RiskModel(loadings, omega, specific)
    shuffled = RiskModel(loadings[:, tickers], omega[:, factors][:, :, factors[::-1]], specific[::-1])
    mixed = weights[:, :, tickers[::-1]]
    xr.testing.assert_allclose(shuffled.variance(mixed), straight.variance(weights), rtol=1e-11)
    by_factor = shuffled.factor_contributions(mixed).sel(factor=COORDS["factor"])
    xr.testing.assert_allclose(by_factor, straight.factor_contributions(weights), rtol=1e-9, atol=1e-14)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 999), unit=st.sampled_from([1e-2, 1.0, 100.0]), leverage=st.floats(0.1, 10.0))
def test_risk_survives_rotation_and_scales_with_units(seed: int, unit: float, leverage: float) -> None:
    """Loadings X R against R' Omega R say the same; percent instead of decimals multiply variance by 10^4."""
    loadings, omega, specific, weights = (part.astype(np.float64) for part in parts(seed))
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(N_FACTORS, N_FACTORS)))[0]
    plain = RiskModel(loadings, omega, specific).decompose(weights)
    turned = RiskModel(
        loadings.copy(data=loadings.values @ rotation),
        omega.copy(data=unit**2 * rotation.T @ omega.values @ rotation),
        unit**2 * specific,
    ).decompose(leverage * weights)
    for name in ("portfolio_variance", "portfolio_variance_systematic", "portfolio_variance_specific"):
        xr.testing.assert_allclose(turned[name], (unit * leverage) ** 2 * plain[name], rtol=1e-9)


@pytest.mark.parametrize("dated_model", [True, False])
@pytest.mark.parametrize(
    "keep", [("portfolio", "date", "ticker"), ("portfolio", "ticker"), ("date", "ticker"), ("ticker",)]
)
def test_dimensions_left_out_hold_everywhere(dated_model: bool, keep: tuple[str, ...]) -> None:
    loadings, omega, specific, weights = parts()
    dropped = dict.fromkeys({"portfolio", "date"} - set(keep), 0)
    chosen = weights.isel(dropped, drop=True)
    full = [
        part if dated_model else xr.ones_like(part) * part[0].drop_vars("date") for part in (loadings, omega, specific)
    ]
    slim = full if dated_model else [part[0].drop_vars("date") for part in full]
    variance = RiskModel(*slim).variance(chosen)
    dims = [dim for dim in ("portfolio", "date") if dim in keep or (dim == "date" and dated_model)]
    assert variance.dims == tuple(dims)
    everywhere = RiskModel(*full).variance(chosen.broadcast_like(weights).transpose(*weights.dims))
    expected = everywhere.isel(dict.fromkeys({"portfolio", "date"} - set(dims), 0), drop=True)
    np.testing.assert_allclose(variance, expected, rtol=1e-12)


def test_mixed_parts_and_fewer_dates_and_tickers_in_weights() -> None:
    loadings, omega, specific, weights = parts()
    constant = RiskModel(loadings, omega[0].drop_vars("date"), specific)
    assert constant.variance(weights)[1, 0] == RiskModel(loadings, omega, specific).variance(weights)[1, 0]
    few = weights[:, [3, 1], :4]
    whole = weights.where(weights["ticker"].isin(few["ticker"]), 0.0)
    xr.testing.assert_allclose(constant.variance(few), constant.variance(whole)[:, [3, 1]], rtol=1e-12)


def test_weight_on_an_uncovered_ticker_gives_nan_and_zero_weight_there_nothing() -> None:
    loadings, omega, specific, weights = parts()
    loadings[1, 2, 0] = np.nan
    specific[2, 5] = np.nan
    weights[1, :, [2, 5]] = 0.0
    model = RiskModel(loadings, omega, specific)
    risk = model.decompose(weights)
    for name, var in risk.data_vars.items():
        undefined = np.isnan(var).any("factor") if "factor" in var.dims else np.isnan(var)
        np.testing.assert_array_equal(undefined, [[False, True, True, False], [False] * 4], err_msg=str(name))
    covariance = dense(loadings.fillna(0.0), omega, specific.fillna(0.0))
    w = weights[1].values.astype(np.float64)
    np.testing.assert_allclose(risk["portfolio_variance"][1], np.einsum("di,dij,dj->d", w, covariance, w), rtol=1e-12)
    share = np.abs(weights[0, 1, 2]) / np.abs(weights[0, 1]).sum()
    np.testing.assert_allclose(model.uncovered_weight(weights)[:, 1], [share, 0.0], rtol=1e-6)
    assert np.isnan(model.marginal(weights)[1, 1, 2])
    assert model.asset_contributions(weights)[1, 1, 2] == 0.0


def test_undefined_portfolios_and_missing_omega_have_no_risk() -> None:
    loadings, omega, specific, weights = parts()
    weights[0, 0] = np.nan
    omega[3] = np.nan
    variance = RiskModel(loadings, omega, specific).variance(weights)
    np.testing.assert_array_equal(np.isnan(variance), [[True, False, False, True], [False, False, False, True]])


def test_attributes_of_inputs_do_not_stick_to_risk() -> None:
    loadings, omega, specific, weights = (part.assign_attrs(units="1", long_name="input") for part in parts())
    risk = RiskModel(loadings, omega, specific).decompose(weights)
    assert all(not var.attrs for var in risk.data_vars.values())


def test_wrong_labels_are_named() -> None:
    loadings, omega, specific, weights = parts()
    model = RiskModel(loadings, omega, specific)
    with pytest.raises(DataError, match="weights has a ticker the risk model does not know: XYZ"):
        model.variance(weights.assign_coords(ticker=[*COORDS["ticker"][:-1], "XYZ"]))
    with pytest.raises(DataError, match="weights has a ticker twice: t0"):
        model.variance(weights.assign_coords(ticker=["t0", *COORDS["ticker"][:-1]]))
    with pytest.raises(DataError, match=r"weights has a date .* 2021"):
        model.variance(weights.assign_coords(date=pd.bdate_range("2021-01-01", periods=N_DATES)))
    with pytest.raises(DataError, match=r"needs .*ticker"):
        model.variance(weights.rename(portfolio="book"))
    with pytest.raises(DataError, match="omega has a factor_ the risk model does not know: other"):
        RiskModel(loadings, omega.assign_coords(factor_=["f0", "f1", "other"]), specific)
    with pytest.raises(DataError, match="specific_variance lacks the ticker t8"):
        RiskModel(loadings, omega, specific[:, :-1])
    with pytest.raises(DataError, match="omega lacks the date"):
        RiskModel(loadings, omega[1:], specific)
    with pytest.raises(DataError, match="specific variance of t4 is negative"):
        RiskModel(loadings, omega, specific.where(specific["ticker"] != "t4", -1.0))
    with pytest.raises(DataError, match="omega has dimensions"):
        RiskModel(loadings, omega.rename(factor_="k"), specific)


def test_weights_may_come_as_a_notebook_has_them() -> None:
    loadings, omega, specific, weights = parts()
    model = RiskModel(loadings, omega, specific)
    one = weights[0, 0].drop_vars(["portfolio", "date"])
    expected = model.variance(one)
    series = one.to_series()
    for same in (series.iloc[::-1], series.to_dict(), one.values, one.values.tolist()):
        xr.testing.assert_identical(model.variance(same), expected)
    held = {"t3": 0.5, "t1": 0.5}
    xr.testing.assert_identical(
        model.variance(held), model.variance(series.mul(0.0).add(pd.Series(held), fill_value=0))
    )
    by_date, by_name = weights[0].drop_vars("portfolio"), weights[:, 0].drop_vars("date")
    xr.testing.assert_identical(model.variance(by_date.to_pandas()), model.variance(by_date))
    xr.testing.assert_identical(model.variance(by_name.to_pandas()), model.variance(by_name))
    np.testing.assert_array_equal(model.variance(by_name.values).values, model.variance(by_name).values)
    xr.testing.assert_identical(tracking_error(model, series, held), model.volatility(active_weights(model, one, held)))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(4), r"shape \(4,\) and no labels, but the risk model has 9 tickers; give a pandas Series by ticker"),
        (np.ones((2, 2, 9)), r"shape \(2, 2, 9\) and no labels"),
        (1.0, r"shape \(\) and no labels"),
        ({"t1": 0.5, "TT": 0.5}, "has a ticker the risk model does not know: TT"),
        ({"t1": "much"}, "weights must be numbers: could not convert string"),
        (pd.Series([0.5, 0.5], index=["t1", "t1"]), "has a ticker twice: t1"),
    ],
)
def test_weights_that_do_not_match_are_refused(weights: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        RiskModel(*parts()[:3]).variance(weights)
