"""Characteristics against slow, obvious references at sampled points; their timing and invariances."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from skfolio.datasets import load_sp500_dataset

from models.characteristics import CHARACTERISTICS, available, compute, lookback, registry
from schemas.errors import ConfigError, DataError

PRICES = Path(__file__).resolve().parents[4] / "shared" / "data" / "sp500_5yr_daily.parquet"
MONTH, WEEKS, SHARE = 21, 151, 0.8


def dataset(fields: dict[str, np.ndarray], dates: pd.DatetimeIndex, tickers: list[str]) -> xr.Dataset:
    variables = {name: (("date", "ticker"), values) for name, values in fields.items()}
    return xr.Dataset(variables, coords={"date": dates, "ticker": tickers})


def simulate(n_dates: int = 900, n_tickers: int = 9, seed: int = 0) -> xr.Dataset:
    """Simulate late listings, delistings, holes, idle sessions, and S2, which follows a week later."""
    rng = np.random.default_rng(seed)
    shape = (n_dates, n_tickers)
    market = rng.normal(0.0004, 0.01, (n_dates, 1))
    returns = rng.uniform(0.3, 1.7, (1, n_tickers)) * market + rng.normal(0, 0.01, shape)
    returns[5:, 2] += 0.8 * market[:-5, 0]
    returns[rng.random(shape) < 0.002] = np.nan
    returns[:300, 3] = returns[700:, 4] = np.nan
    close = 50 * np.cumprod(1 + np.nan_to_num(returns), axis=0)
    close[np.isnan(returns)] = np.nan
    volume = rng.lognormal(10, 1, shape).round()
    volume[rng.random(shape) < 0.02] = 0.0
    volume[:, 5] *= rng.random(n_dates) < 0.9
    spread = rng.uniform(0.001, 0.03, shape)
    shares = np.repeat(rng.uniform(1e6, 1e8, (1, n_tickers)), n_dates, axis=0)
    values = {"returns": returns, "close": close, "volume": volume, "shares": shares}
    values |= {"high": close * (1 + spread), "low": close * (1 - spread / 2)}
    return dataset(values, pd.bdate_range("2010-01-04", periods=n_dates), [f"S{i}" for i in range(n_tickers)])


@pytest.fixture(scope="module")
def prices_only() -> xr.Dataset:
    """Return six years of the 20 stocks that skfolio ships, with a few holes."""
    frame = load_sp500_dataset().iloc[-1512:]
    returns = frame.pct_change().to_numpy()
    returns[np.random.default_rng(0).random(returns.shape) < 0.001] = np.nan
    return dataset({"returns": returns}, frame.index.rename("date"), list(frame.columns))


class Reference:
    """Every characteristic of one stock at one date, with plain slices of plain arrays."""

    def __init__(self, fields: xr.Dataset) -> None:
        self.fields = {name: fields[name].values.astype(float) for name in fields}
        growth = 1 + self.fields["returns"]
        self.weekly = np.full_like(growth, np.nan)
        for t in range(4, len(growth)):
            self.weekly[t] = growth[t - 4 : t + 1].prod(axis=0) - 1
        self.market = pd.DataFrame(self.weekly).mean(axis=1).to_numpy()

    def at(self, name: str, t: int, i: int) -> float:
        if not np.isfinite(self.fields["returns"][max(0, t - 4) : t + 1, i]).any():
            return np.nan
        return getattr(self, name)(t, i)

    def months(self, name: str, t: int, i: int, first: int, last: int) -> np.ndarray:
        """Values of month ``first`` to month ``last`` counted back from t; empty if too few are known."""
        start, stop = t + 1 - MONTH * last, t + 1 - MONTH * (first - 1)
        values = self.fields[name][max(start, 0) : max(stop, 0), i]
        return values if np.isfinite(values).sum() >= SHARE * (stop - start) else np.array([])

    def momentum(self, t: int, i: int, first: int, last: int) -> float:
        values = self.months("returns", t, i, first, last)
        return float(np.nanprod(1 + values) - 1) if len(values) else np.nan

    def mom1m(self, t, i):
        return self.momentum(t, i, 1, 1)

    def mom6m(self, t, i):
        return self.momentum(t, i, 2, 6)

    def mom12m(self, t, i):
        return self.momentum(t, i, 2, 12)

    def mom36m(self, t, i):
        return self.momentum(t, i, 13, 36)

    def chmom(self, t, i):
        return self.momentum(t, i, 1, 6) - self.momentum(t, i, 7, 12)

    def maxret(self, t, i):
        values = self.months("returns", t, i, 1, 1)
        return np.nanmax(values) if len(values) else np.nan

    def retvol(self, t, i):
        return pd.Series(self.months("returns", t, i, 1, 1)).std()

    def regress(self, t: int, i: int, lags: int):
        weeks = [s for s in range(t, max(t - 5 * WEEKS, -1), -5) if s - 5 * lags >= 0]
        y = self.weekly[weeks, i]
        x = np.array([[self.market[s - 5 * lag] for lag in range(lags + 1)] for s in weeks]).reshape(-1, lags + 1)
        known = np.isfinite(y) & np.isfinite(x).all(axis=1)
        if known.sum() < 52:
            return None
        fits = [sm.OLS(y[known], sm.add_constant(x[known][:, : k + 1])).fit() for k in (0, lags)]
        return fits, known.sum()

    def beta(self, t, i):
        found = self.regress(t, i, 0)
        return found[0][0].params[1] if found else np.nan

    def betasq(self, t, i):
        return self.beta(t, i) ** 2

    def idiovol(self, t, i):
        found = self.regress(t, i, 0)
        return np.std(found[0][0].resid, ddof=1) if found else np.nan

    def pricedelay(self, t, i):
        found = self.regress(t, i, 4)
        return 1 - found[0][0].rsquared / found[0][1].rsquared if found else np.nan

    def mvel1(self, t, i):
        return np.log(self.fields["close"][t, i] * self.fields["shares"][t, i])

    def dolvol(self, t, i):
        values = self.months("volume", t, i, 2, 2)
        return np.log(MONTH * np.nanmean(values) * self.fields["close"][t - MONTH, i]) if len(values) else np.nan

    def daily(self, t: int, i: int, what) -> pd.Series:
        """Return the known daily values of the last month; empty if too few."""
        rows = pd.DataFrame({k: v[max(t - MONTH + 1, 0) : t + 1, i] for k, v in self.fields.items()})
        values = what(rows).replace([np.inf, -np.inf], np.nan).dropna()
        return values if len(values) >= SHARE * MONTH else pd.Series(dtype=float)

    def std_dolvol(self, t, i):
        with np.errstate(divide="ignore"):
            return self.daily(t, i, lambda d: np.log(d["close"] * d["volume"])).std()

    def ill(self, t, i):
        return self.daily(t, i, lambda d: d["returns"].abs() / (d["close"] * d["volume"])).mean()

    def baspread(self, t, i):
        return self.daily(t, i, lambda d: (d["high"] - d["low"]) / ((d["high"] + d["low"]) / 2)).mean()

    def turn(self, t, i):
        values = self.months("volume", t, i, 1, 3)
        return MONTH * np.nanmean(values) / self.fields["shares"][t, i] if len(values) else np.nan

    def std_turn(self, t, i):
        return self.daily(t, i, lambda d: d["volume"] / d["shares"]).std()

    def zerotrade(self, t, i):
        turnover = self.daily(t, i, lambda d: d["volume"] / d["shares"])
        if turnover.sum() == 0:
            return np.nan
        return ((turnover == 0).sum() + 1 / turnover.sum() / 480_000) * MONTH / len(turnover)


def check(fields: xr.Dataset, names: list[str], n_points: int, *, seed: int = 0, rtol: float = 2e-5) -> None:
    """Compare all characteristics with the reference at random points, the last date among them."""
    rng = np.random.default_rng(seed)
    computed, reference = compute(fields), Reference(fields)
    assert computed["char"].values.tolist() == names
    assert computed.dtype == np.float32
    dates = [*rng.integers(0, fields.sizes["date"], n_points), fields.sizes["date"] - 1]
    stocks = rng.integers(0, fields.sizes["ticker"], n_points + 1)
    for name in names:
        got = np.array([computed.sel(char=name).values[t, i] for t, i in zip(dates, stocks, strict=True)])
        expected = np.array([reference.at(name, t, i) for t, i in zip(dates, stocks, strict=True)])
        assert np.isfinite(expected).sum() >= 5, name
        np.testing.assert_allclose(got, expected, rtol=rtol, atol=1e-15, err_msg=name)


RETURNS_ONLY = [item.name for item in CHARACTERISTICS.values() if item.inputs == ("returns",)]


def test_agree_with_the_reference_on_twenty_stocks(prices_only):
    check(prices_only, RETURNS_ONLY, 60)


def test_agree_with_the_reference_on_simulated_prices_and_volumes():
    check(simulate(), list(CHARACTERISTICS), 120)


@pytest.mark.shared_data
@pytest.mark.skipif(not PRICES.exists(), reason="the 505-stock file is not here")
def test_agree_with_the_reference_on_505_stocks():
    frame = pd.read_parquet(PRICES).set_index(["date", "ticker"])[["close", "high", "low", "volume"]]
    fields = frame.to_xarray()
    fields["returns"] = fields["close"] / fields["close"].shift(date=1) - 1
    expected = [item.name for item in CHARACTERISTICS.values() if "shares" not in item.inputs]
    check(fields, expected, 40)
    assert np.isfinite(compute(fields)[-1].values).mean() > 0.97


def test_pricedelay_finds_the_stock_that_follows_a_week_later():
    delay = compute(simulate(), ["pricedelay"])[-1, :, 0]
    assert delay.idxmax("ticker") == "S2"


@settings(max_examples=15, deadline=None)
@given(row=st.integers(50, 899), seed=st.integers(1, 1000))
def test_the_future_changes_nothing(row, seed):
    fields = simulate()
    future = fields["date"] >= fields["date"][row]
    changed = xr.where(future, simulate(seed=seed), fields)
    xr.testing.assert_identical(compute(fields)[:row], compute(changed)[:row])


def test_just_enough_history_gives_the_same_bits():
    fields = simulate()
    for name in CHARACTERISTICS:
        short = fields.isel(date=slice(-lookback([name]), None))
        xr.testing.assert_identical(compute(short, [name])[-1], compute(fields, [name])[-1])


def test_lookback_is_no_longer_than_it_must_be():
    fields = simulate()
    for name in set(CHARACTERISTICS) - {
        "beta",
        "betasq",
        "idiovol",
        "pricedelay",
    }:  # these take fewer weeks, too
        history = lookback([name])
        full = np.isfinite(compute(fields.isel(date=slice(-history, None)), [name])[-1]).sum()
        assert full >= 5, name
        if history > 1:
            assert not np.isfinite(compute(fields.isel(date=slice(-int(0.75 * history), None)), [name])[-1]).any()


@settings(max_examples=5, deadline=None)
@given(order=st.permutations(range(9)), chunk=st.integers(1, 8))
def test_order_and_chunks_of_tickers_do_not_matter(order, chunk):
    fields = simulate()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_CHUNK", chunk)
        permuted = compute(fields.isel(ticker=order))
    xr.testing.assert_allclose(permuted, compute(fields).isel(ticker=order), rtol=1e-5, atol=1e-12)


def test_units_of_price():
    fields = simulate()
    scaled = fields.assign({name: fields[name] * 4.0 for name in ("close", "high", "low")})
    one, four = compute(fields), compute(scaled)
    shifted = {"dolvol": np.log(4.0), "mvel1": np.log(4.0)}
    for name in CHARACTERISTICS:
        expected = one.sel(char=name) / (4.0 if name == "ill" else 1.0) + shifted.get(name, 0.0)
        np.testing.assert_allclose(four.sel(char=name), expected, rtol=1e-5, err_msg=name)


def test_monthly_counts_one_session_per_month():
    fields = simulate(n_dates=60)
    names = ["mom1m", "mom6m", "mom12m", "mom36m", "chmom", "dolvol", "mvel1", "turn"]
    assert available(fields, "monthly") == names
    assert lookback(names, "monthly") == 36
    values = compute(fields, frequency="monthly")
    returns, t = fields["returns"].values, 55
    momentum = values.sel(char="mom12m")[t, 0]
    np.testing.assert_allclose(momentum, np.nanprod(1 + returns[t - 11 : t, 0]) - 1, rtol=1e-5)
    np.testing.assert_array_equal(values.sel(char="mom1m"), returns.astype(np.float32))
    assert np.isnan(values.values[np.isnan(returns)]).all()


def test_a_stock_that_is_gone_has_no_characteristics():
    values = compute(simulate()).sel(ticker="S4")
    assert np.isfinite(values[698]).all()
    assert np.isfinite(values.sel(char="mom12m")[703])  # its last return is that of row 699
    assert np.isnan(values[704:]).all()


def test_what_is_absent_is_absent():
    fields = simulate(n_dates=60)
    assert set(available(fields.drop_vars("volume"))) == {*RETURNS_ONLY, "baspread", "mvel1"}
    with pytest.raises(DataError, match="'dolvol' needs the field 'volume'"):
        compute(fields.drop_vars("volume"), ["dolvol"])
    with pytest.raises(DataError, match="'retvol' needs daily data"):
        compute(fields, ["retvol"], "monthly")
    with pytest.raises(DataError, match="'returns'"):
        compute(fields.drop_vars("returns"))
    with pytest.raises(ConfigError, match="Unknown characteristic 'size'"):
        lookback(["size"])
    with pytest.raises(ConfigError, match="Unknown frequency 'weekly'"):
        available(fields, "weekly")


def test_a_total_loss_stays_one():
    fields = simulate(n_dates=400)
    returns = fields["returns"].copy()
    returns[350, 0] = -1.0
    assert compute(fields.assign(returns=returns), ["mom12m"])[-1, 0, 0] == -1.0
