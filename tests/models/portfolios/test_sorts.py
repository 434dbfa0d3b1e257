"""Sorted and managed portfolios against direct computation, and what must not change them."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from models.panel import Panel
from models.portfolios.sorts import SortedPortfolios, double_sort, managed_returns, managed_weights, quantile_sort
from schemas.errors import ConfigError, DataError, ModelError

N_DATES, N_STOCKS = 12, 40


@cache
def market() -> Panel:
    """Gaps in returns and in coverage, ties in ``bm``, unequal market weights, and a next date without returns."""
    rng = np.random.default_rng(3)
    shape = (N_DATES, N_STOCKS)
    characteristics = rng.standard_normal((*shape, 2)).astype(np.float32)
    characteristics[..., 1] = np.round(characteristics[..., 1] + 0.5 * characteristics[..., 0], 1)
    characteristics[rng.random(shape) < 0.15] = np.nan
    returns = 0.05 * rng.standard_normal(shape)
    returns[rng.random(shape) < 0.1] = np.nan
    returns[-1] = np.nan
    return Panel.from_arrays(
        returns, characteristics, chars=["size", "bm"], market_weight=rng.pareto(1.5, shape) + 0.01
    )


def long(panel: Panel) -> pd.DataFrame:
    """One row per covered stock and date."""
    frame = panel.data[["returns", "market_weight", "coverage"]].to_dataframe()
    chars = panel.characteristics.to_dataset("char").to_dataframe()
    return frame.join(chars)[lambda f: f["coverage"]].reset_index()


def average(rows: pd.DataFrame, weight: str | None) -> float:
    rows = rows.dropna(subset="returns")
    weights = np.ones(len(rows)) if weight is None else rows[weight].to_numpy(float)
    return float(np.average(rows["returns"], weights=weights)) if len(rows) else float("nan")


def agree(found: SortedPortfolios, frame: pd.DataFrame, bucket: pd.Series, weight: str | None) -> None:
    """Compare with a plain loop over dates and portfolios."""
    for i, date in enumerate(found.returns["date"].values):
        for j in range(found.returns.sizes["portfolio"]):
            rows = frame[(frame["date"] == date) & (bucket == j)]
            assert found.counts.values[i, j] == len(rows)
            assert found.n_missing.values[i, j] == rows["returns"].isna().sum()
            np.testing.assert_allclose(found.returns.values[i, j], average(rows, weight), rtol=1e-12)


@pytest.mark.parametrize("weighting", ["equal", "cap"])
def test_quantile_sorts_are_those_of_pandas(weighting: str) -> None:
    panel = market()
    frame = long(panel)
    found = quantile_sort(panel, "size", 5, weighting=weighting)
    bucket = frame.groupby("date")["size"].transform(lambda values: pd.qcut(values, 5, labels=False))
    assert found.returns["portfolio"].values.tolist() == [f"size{i}" for i in range(1, 6)]
    agree(found, frame, bucket, None if weighting == "equal" else "market_weight")
    spread = found.spread()
    np.testing.assert_allclose(spread, found.returns[:, 4] - found.returns[:, 0], rtol=1e-12)
    assert np.isnan(spread.values[-1])  # no returns yet
    assert np.isfinite(found.weights.values[:, -1]).all()  # but weights are known


def test_uneven_breakpoints_from_a_subset() -> None:
    """Fama and French: terciles 30/40/30 whose breakpoints are set by some of the stocks."""
    panel = market()
    frame = long(panel)
    exchange = xr.zeros_like(panel.mask)
    exchange[:, ::3] = True
    found = quantile_sort(panel, "size", [0.3, 0.7], breakpoints=exchange)
    listed = frame["ticker"].isin(np.array(panel.tickers)[::3])
    by_date = frame[listed].groupby("date")["size"]
    levels = [frame["date"].map(by_date.quantile(q, interpolation="lower")) for q in (0.3, 0.7)]
    at = np.column_stack(levels)
    agree(found, frame, pd.Series((frame["size"].to_numpy()[:, None] > at).sum(axis=1)), None)
    assert int(found.counts.sum()) == len(frame)  # who sets no breakpoint is sorted all the same
    only = quantile_sort(panel, "size", 3, universe=exchange)
    assert int(only.counts.sum()) == listed.sum()
    assert (only.bucket.values[:, 1::3] == -1).all()


@pytest.mark.parametrize("dependent", [False, True])
def test_double_sorts_are_those_of_pandas(dependent: bool) -> None:
    panel = market()
    frame = long(panel)
    found = double_sort(panel, "size", "bm", (2, 3), dependent=dependent, weighting="cap")
    rows = frame.groupby("date")["size"].transform(lambda values: pd.qcut(values, 2, labels=False))
    groups = [frame["date"], rows] if dependent else [frame["date"]]
    levels = [frame.groupby(groups)["bm"].transform(lambda v, q=q: v.quantile(q, "lower")) for q in (1 / 3, 2 / 3)]
    columns = sum((frame["bm"] > level).astype(int) for level in levels)
    agree(found, frame, rows * 3 + columns, "market_weight")
    assert found.returns["portfolio"].values.tolist()[:4] == ["size1/bm1", "size1/bm2", "size1/bm3", "size2/bm1"]
    r = found.returns.values
    np.testing.assert_allclose(found.spread("bm"), (r[:, 2] + r[:, 5] - r[:, 0] - r[:, 3]) / 2, rtol=1e-10)
    np.testing.assert_allclose(found.spread("size"), r[:, 3:].mean(axis=1) - r[:, :3].mean(axis=1), rtol=1e-10)


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(N_STOCKS)), power=st.sampled_from([1, 3, 5]), subset=st.booleans())
def test_order_of_tickers_and_monotone_transforms_do_not_matter(order: list[int], power: int, subset: bool) -> None:
    panel = market()
    exchange = panel.coverage & (xr.DataArray(np.arange(N_STOCKS) % 4, dims="ticker") > 0) if subset else None
    plain = double_sort(panel, "size", "bm", (3, 2), dependent=True, breakpoints=exchange)
    permuted = Panel(panel.data.isel(ticker=list(order)))
    size, bm = (np.arctan(permuted.characteristics.sel(char=c, drop=True).astype(float)) for c in ("size", "bm"))
    found = double_sort(
        permuted, (size**power).rename("size"), bm.rename("bm"), (3, 2), dependent=True, breakpoints=exchange
    )
    np.testing.assert_array_equal(found.bucket.values, plain.bucket.values[:, list(order)])
    np.testing.assert_allclose(found.returns.values, plain.returns.values, rtol=1e-10)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), n_stocks=st.integers(1, 12), n_buckets=st.integers(2, 6))
def test_weights_sum_to_one_and_earn_the_returns(seed: int, n_stocks: int, n_buckets: int) -> None:
    rng = np.random.default_rng(seed)
    characteristics = rng.integers(0, 4, (5, n_stocks, 1)).astype(np.float32)
    characteristics[rng.random((5, n_stocks)) < 0.2] = np.nan
    returns = rng.standard_normal((5, n_stocks))
    panel = Panel.from_arrays(returns, characteristics, chars=["a"], market_weight=rng.random((5, n_stocks)))
    found = quantile_sort(panel, "a", n_buckets, weighting="cap")
    weights, empty = found.weights.values, found.counts.values.T == 0
    assert np.isnan(weights[empty]).all()
    assert np.isnan(found.returns.values.T[empty]).all()
    np.testing.assert_allclose(weights[~empty].sum(axis=1), 1.0, rtol=1e-5)
    earned = np.nansum(weights * returns, axis=2)
    np.testing.assert_allclose(earned[~empty], found.returns.values.T[~empty], atol=1e-5)
    assert (found.counts.sum("portfolio").values == np.isfinite(characteristics[..., 0]).sum(axis=1)).all()
    spread = np.nansum(found.spread_weights().values * returns, axis=1)
    defined = np.isfinite(found.spread().values)
    np.testing.assert_allclose(spread[defined], found.spread().values[defined], atol=1e-12)
    assert (np.isfinite(found.spread_weights().values).all(axis=1) == defined).all()


def test_missing_values_are_in_no_bucket_and_empty_ones_are_told() -> None:
    panel = market()
    raw = panel.characteristics.sel(char="size", drop=True).rename("raw")
    raw = raw.where(xr.DataArray(np.arange(N_STOCKS) > 5, dims="ticker"))
    found = quantile_sort(panel, raw, 4)
    assert (found.bucket.values[:, :6] == -1).all()
    assert np.isnan(found.weight.values[:, :6]).all()
    tied = xr.ones_like(panel.returns).rename("tied")
    one = quantile_sort(panel, tied, 4)
    assert (one.counts.values[:, 1:] == 0).all()
    assert np.isnan(one.returns.values[:, 1:]).all()
    assert np.isnan(one.spread().values).all()
    nobody = quantile_sort(panel, "size", 4, breakpoints=xr.zeros_like(panel.mask))
    assert (nobody.counts.values == 0).all()  # without breakpoints there are no buckets


def test_the_future_does_not_reach_a_sort() -> None:
    panel = market()
    data = panel.data.copy(deep=True)
    data["returns"][6:] = 9.0
    changed = quantile_sort(Panel(data), "size", 5)
    plain = quantile_sort(panel, "size", 5)
    np.testing.assert_array_equal(changed.bucket.values, plain.bucket.values)
    np.testing.assert_array_equal(changed.weight.values, plain.weight.values)
    np.testing.assert_array_equal(changed.returns.values[:6], plain.returns.values[:6])


def test_managed_portfolios_are_least_squares_without_and_with_weights() -> None:
    panel = market().sel(end=market().dates[-2])
    found = managed_returns(panel)
    for t in range(len(panel.dates)):
        rows = panel.mask.values[t]
        Z = panel.characteristics.values[t, rows].astype(float)
        expected = np.linalg.lstsq(Z, panel.returns.values[t, rows])[0]
        np.testing.assert_allclose(found.values[t], expected, rtol=1e-9, atol=1e-13)
    complete = Panel(panel.data.assign(coverage=panel.mask))
    weights = managed_weights(complete)
    earned = (weights * complete.returns.fillna(0.0)).sum("ticker").transpose("date", "char")
    np.testing.assert_allclose(earned, found, rtol=1e-9, atol=1e-13)
    assert managed_weights(market()).dims == ("char", "date", "ticker")
    assert np.isfinite(managed_weights(market()).values[:, -1]).all()  # for the next date


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda p: quantile_sort(p, "value"), ModelError, r"lacks.*\['value'\]"),
        (lambda p: quantile_sort(p, "size", 1), ConfigError, "at least 2"),
        (lambda p: quantile_sort(p, "size", [0.7, 0.3]), ConfigError, "increase"),
        (lambda p: quantile_sort(p, "size", weighting="rank"), ConfigError, "'equal' or 'cap'"),
        (lambda p: quantile_sort(p, p.returns.rename(None)), ConfigError, "need a name"),
        (lambda p: quantile_sort(p, p.returns[:, 1:]), DataError, "every date and ticker"),
        (lambda p: double_sort(p, "size", "size"), ConfigError, "different names"),
        (lambda p: double_sort(p, "size", "bm").spread(), ConfigError, r"one of \['size', 'bm'\]"),
        (lambda p: quantile_sort(p, "size").spread("bm"), ConfigError, "no sort on 'bm'"),
    ],
)
def test_mistakes_are_named(build, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build(market())
