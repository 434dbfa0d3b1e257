"""The protocol: true forecasts score as they should, wrong ones as wrong, and nothing looks ahead."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from models.evaluation.meanings import MEANING
from models.evaluation.protocol import Dense, FactorForm, Forecast, Rules, judge, published, rebalancings
from schemas.errors import ConfigError, DataError

RULES = Rules(first=60, step=20, history=60, block=240, cap=0.05, n_bootstrap=50)
SECTORS = ("energy", "banks", "health")


def world(n: int = 60, n_dates: int = 660, seed: int = 0) -> tuple[xr.DataArray, FactorForm]:
    rng = np.random.default_rng(seed)
    loadings = rng.normal(size=(n, 4))
    loadings[:, 0] = 1.0 + 0.3 * loadings[:, 0]
    form = FactorForm(loadings, np.diag([1e-4, 2e-5, 1e-5, 5e-6]), rng.uniform(5e-5, 4e-4, n))
    returns = rng.standard_normal((n_dates, 4)) @ np.sqrt(form.omega) @ loadings.T
    returns += rng.standard_normal((n_dates, n)) * form.scale
    coords = {"date": pd.bdate_range("2015-01-01", periods=n_dates), "ticker": [f"T{i:03d}" for i in range(n)]}
    return xr.DataArray(returns, dims=("date", "ticker"), coords=coords), form


RETURNS, TRUE = world()
TICKERS = RETURNS.indexes["ticker"]
GROUPS = {ticker: SECTORS[place % 3] for place, ticker in enumerate(TICKERS)}


def truth(_: pd.Timestamp, __: pd.Index) -> Forecast:
    return Forecast(TICKERS, TRUE)


def scored(result: xr.Dataset, name: str, family: str, horizon: int = 1) -> float:
    return float(result[name].sel(family=family, horizon=horizon))


JUDGED = judge(truth, RETURNS, RULES, groups=GROUPS)


def test_a_true_forecast_is_right_in_every_family() -> None:
    families = set(JUDGED["family"].values.tolist())
    assert {"equal_weight", "sectors", "factors", "stocks", "minimum_variance", "eigenportfolios last 20"} <= families
    errors = JUDGED["bias_statistic_stderr"].sel(horizon=1)
    assert (abs(JUDGED["bias_statistic"].sel(horizon=1) - 1.0) < 4.0 * errors + 0.01).all()
    for family in ("random_long_short", "stocks", "factors"):
        assert scored(JUDGED, "mrad", family) == pytest.approx(scored(JUDGED, "mrad_floor", family), rel=0.25)
        assert scored(JUDGED, "q_statistic", family) == pytest.approx(2.27, abs=0.08)
    assert scored(JUDGED, "var_95_violations", "stocks") == pytest.approx(0.05, abs=0.004)
    for name in ("var_99_kupiec_rejected", "es_z2_rejected", "ljung_box_rejected", "basel_red"):
        assert scored(JUDGED, name, "stocks") < 0.15
    assert float(JUDGED["mahalanobis"]) == pytest.approx(1.0, abs=0.02)
    assert float(JUDGED["dispersion_bias"]) == pytest.approx(1.0, abs=0.02)
    assert float(JUDGED["coverage"]) == float(JUDGED["known_returns"]) == 1.0
    assert float(JUDGED["turnover"].sel(family="minimum_variance")) == pytest.approx(0.0, abs=1e-12)
    assert (float(JUDGED["subspace_overlap"]), float(JUDGED["systematic_change"])) == pytest.approx((1.0, 0.0))


def test_a_number_is_that_of_its_definition() -> None:
    """Equal weight, both horizons, by hand; and minus the density of scipy's normal."""
    weights = np.full((1, 60), 1 / 60)
    earned = RETURNS.values[60:].mean(axis=1)
    h = TRUE.variance(weights)[0]
    assert scored(JUDGED, "bias_statistic", "equal_weight") == pytest.approx((earned / h**0.5).std(ddof=1), rel=1e-12)
    longer = earned.reshape(30, 20).sum(axis=1)
    z = longer / (20 * h) ** 0.5
    assert scored(JUDGED, "bias_statistic", "equal_weight", 20) == pytest.approx(z.std(ddof=1), rel=1e-12)
    assert scored(JUDGED, "volatility", "equal_weight", 20) == pytest.approx(
        100 * longer.std(ddof=1) * (252 / 20) ** 0.5, rel=1e-9
    )
    blocks = [abs(part.std(ddof=1) - 1) for part in np.split(earned / h**0.5, [240, 480])]
    assert scored(JUDGED, "mrad", "equal_weight") == pytest.approx(np.mean(blocks), rel=1e-9)
    loss = np.log(h) + earned**2 / h
    np.testing.assert_allclose(JUDGED["qlike_by_date"].sel(family="equal_weight"), loss, rtol=1e-10)
    assert JUDGED.indexes["date"].equals(RETURNS.indexes["date"][60:])
    assert JUDGED.indexes["as_of"].equals(RETURNS.indexes["date"][59:-1:20])


def test_half_of_the_variance_is_seen_everywhere_and_a_missing_factor_by_the_optimiser() -> None:
    half = judge(
        lambda *_: Forecast(TICKERS, FactorForm(TRUE.loadings, TRUE.omega / 2, TRUE.specific_variance / 2)),
        RETURNS,
        RULES,
    )
    for family in half["family"].values:
        expected = 2.0**0.5 * scored(JUDGED, "bias_statistic", family)
        assert scored(half, "bias_statistic", family) == pytest.approx(expected, rel=1e-6)
    assert scored(half, "basel_red", "stocks") > 0.5
    assert float(half["log_likelihood"]) < float(JUDGED["log_likelihood"])
    blind = judge(
        lambda *_: Forecast(TICKERS, FactorForm(TRUE.loadings[:, :1], TRUE.omega[:1, :1], TRUE.diagonal / 2)),
        RETURNS,
        RULES,
    )
    assert scored(blind, "volatility", "minimum_variance") > scored(JUDGED, "volatility", "minimum_variance")
    assert float(blind["log_likelihood"]) < float(JUDGED["log_likelihood"])


def test_the_same_covariance_given_dense_gives_the_same_numbers() -> None:
    dense = Dense(TRUE.times(np.eye(60)))
    found = judge(lambda *_: Forecast(TICKERS, dense), RETURNS, RULES, groups=GROUPS)
    common = [str(name) for name in found["family"].values if "eigen" not in str(name)]
    assert "factors" not in common
    for name in found.data_vars:
        if "family" in found[name].dims:
            mine, theirs = (each[name].sel(family=common) for each in (found, JUDGED))
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-7, err_msg=str(name))
    for name in ("log_likelihood", "mahalanobis", "dispersion_bias"):
        assert float(found[name]) == pytest.approx(float(JUDGED[name]), rel=1e-9)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_order_of_tickers_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    order, columns = rng.permutation(60), rng.permutation(60)
    short = RETURNS.isel(date=slice(0, 300))
    straight = judge(truth, short, RULES, groups=GROUPS)
    mixed = judge(
        lambda *_: Forecast(TICKERS[order], TRUE.restricted(order)), short.isel(ticker=columns).T, RULES, groups=GROUPS
    )
    xr.testing.assert_allclose(mixed, straight, rtol=1e-6)


def test_nothing_after_the_date_chooses_stocks_or_weights() -> None:
    """Whatever happens from a date on, what was asked and held before it is the same."""
    asked: list[list[tuple[pd.Timestamp, list[str]]]] = [[], []]
    crash = RETURNS.copy()
    crash[{"date": slice(500, None), "ticker": slice(0, 20)}] = np.nan
    for which, returns in enumerate((RETURNS, crash)):

        def forecast(as_of: pd.Timestamp, tickers: pd.Index, which: int = which) -> Forecast:
            asked[which].append((as_of, list(tickers)))
            return Forecast(TICKERS, TRUE)

        result = judge(forecast, returns, RULES)
    before = RETURNS.indexes["date"][500]
    assert [one for one in asked[0] if one[0] < before] == [one for one in asked[1] if one[0] < before]
    assert len(asked[1][-1][1]) == 40
    until = slice(None, RETURNS.indexes["date"][499])
    xr.testing.assert_allclose(
        result["qlike_by_date"].sel(date=until), JUDGED["qlike_by_date"].sel(family=result["family"], date=until)
    )
    assert float(result["known_returns"]) < 1.0
    for one in rebalancings(RETURNS, RULES):
        assert one.as_of == RETURNS.indexes["date"][one.start - 1]


def test_a_return_that_is_missing_is_zero_in_a_portfolio_and_left_out_of_the_rest() -> None:
    gaps = RETURNS.copy()
    gaps[{"date": 100, "ticker": 7}] = np.nan
    result = judge(truth, gaps, RULES)
    at = RETURNS.indexes["date"][100]
    earned = RETURNS.values[100].sum() - RETURNS.values[100, 7]
    assert float(result["squared_return"].sel(family="equal_weight", date=at)) == pytest.approx((earned / 60) ** 2)
    others = np.delete(RETURNS.values[100], 7)
    assert float(result["squared_return"].sel(family="stocks", date=at)) == pytest.approx(np.mean(others**2))
    part = TRUE.restricted(np.delete(np.arange(60), 7))
    density = -(59 * np.log(2 * np.pi) + part.log_determinant() + others @ part.solve(others[:, None])[:, 0]) / 2
    assert float(result["log_likelihood_by_date"].sel(date=at)) == pytest.approx(density / 59, rel=1e-9)


def test_a_forecast_may_cover_other_stocks_and_every_model_gets_the_same_draws() -> None:
    """Leaving out ten stocks moves no weight drawn for the others, other than through the mean and the gross weight."""
    kept = np.arange(50)
    result = judge(lambda *_: Forecast(TICKERS[kept], TRUE.restricted(kept)), RETURNS, RULES)
    assert float(result["coverage"]) == pytest.approx(50 / 60)
    assert scored(result, "bias_statistic", "random_long_short") == pytest.approx(1.0, abs=0.03)
    extra = Forecast(TICKERS.append(pd.Index(["ZZZ"])), Dense(np.diag(np.append(TRUE.diagonal, 1.0))))
    assert judge(lambda *_: extra, RETURNS, RULES)["coverage"] == 1.0
    with pytest.raises(DataError, match="covers 1 of the stocks"):
        judge(lambda *_: Forecast(TICKERS[:1], TRUE.restricted(kept[:1])), RETURNS, RULES)


def test_cap_weights_and_a_published_version_are_judged() -> None:
    value = xr.zeros_like(RETURNS) + np.arange(60)
    dates = RETURNS.indexes["date"]
    specific = np.tile(TRUE.specific_variance, (len(dates), 1))
    specific[:, 3] = np.nan
    version = xr.Dataset(
        {
            "loadings": (("date", "ticker", "factor"), np.tile(TRUE.loadings, (len(dates), 1, 1)).astype(np.float32)),
            "omega": (("date", "factor", "factor_"), np.tile(TRUE.omega, (len(dates), 1, 1))),
            "specific_variance": (("date", "ticker"), specific),
        },
        coords={"date": dates, "ticker": TICKERS},
    )
    result = judge(published(version), RETURNS, RULES, capitalisation=value)
    assert float(result["coverage"]) == pytest.approx(59 / 60)
    weights = np.arange(60.0)
    weights[3] = 0.0
    weights /= weights.sum()
    earned = RETURNS.values[60] @ weights
    found = float(result["squared_return"].sel(family="cap_weight", date=dates[60]))
    assert found == pytest.approx(earned**2, rel=1e-9)
    with pytest.raises(DataError, match="no row as of"):
        judge(published(version.isel(date=slice(100, None))), RETURNS, RULES)


def test_every_number_says_what_it_is_and_rules_are_checked() -> None:
    assert [name for name in JUDGED.data_vars if "long_name" not in JUDGED[name].attrs] == []
    assert [name for name in MEANING if name not in JUDGED] == []
    with pytest.raises(ConfigError, match="multiple of step"):
        Rules(step=20)
    with pytest.raises(DataError, match="takes 525"):
        judge(truth, RETURNS.isel(date=slice(0, 100)))
    with pytest.raises(DataError, match="twice"):
        Forecast(TICKERS[[0, 0]], TRUE.restricted(np.arange(2)))
