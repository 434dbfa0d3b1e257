"""How far back principal components of daily stocks should look: forecasts out of sample, by window.

Here belong the tables of `docs/results.md`. ``python -m benchmarks.pca_window`` takes the twenty stocks of the demo,
and ``python -m benchmarks.pca_window FILE`` daily closes in long form (date, ticker, close), such as those of
`examples/sp500_5yr.yaml`.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import xarray as xr
from skfolio.datasets import load_sp500_dataset

from models import PCA, Panel, WalkForward, forecast
from models.evaluation.forecasts import bias_statistic

WINDOWS = (None, 1512, 1008, 756, 504, 252)


def main(paths: list[str]) -> None:
    """Print a table."""
    if paths:
        prices = pd.read_parquet(paths[0]).pivot_table(index="date", columns="ticker", values="close")
        prices.index = pd.to_datetime(prices.index)
        returns, factors, schedule = prices.pct_change().iloc[1:], 5, WalkForward(first="2016-01-29", every="month")
    else:
        returns = load_sp500_dataset().pct_change().loc["2005":]
        factors, schedule = 3, WalkForward(first="2015-12-31")
    panel, cube = _data(returns)
    print("| window | total R2 | QLIKE, equal weight | inverse volatility | bias, equal weight | inverse volatility |")
    print("|---|---|---|---|---|---|")
    longest = int(returns.index.searchsorted(pd.Timestamp(schedule.first)))
    for window in WINDOWS:
        if window is not None and window > longest:
            continue
        rows = forecast(PCA(factors, window=window), panel, cube, schedule)
        rows = rows.where(rows["out_of_sample"], drop=True)
        left = ((1.0 - rows["total_r2"]) * rows["total_sst"]).sum() / rows["total_sst"].sum()
        qlike, bias = rows["qlike"].mean("date"), bias_statistic(rows["standardised_return"])
        cells = " | ".join([*(f"{one:.4f}" for one in qlike.values), *(f"{one:.3f}" for one in bias.values)])
        print(f"| {window or 'all'} | {1.0 - float(left):.4f} | {cells} |", flush=True)


def _data(returns: pd.DataFrame) -> tuple[Panel, xr.Dataset]:
    """Panel of returns and a row for the session after, and two portfolios as of every date."""
    following = returns.index.append(pd.bdate_range(returns.index[-1], periods=2)[1:])
    panel = Panel.from_arrays(returns.reindex(following).to_numpy(), dates=following, tickers=[*returns.columns])
    known = returns.notna().to_numpy()
    inverse = (1.0 / returns.rolling(63, min_periods=63).std()).fillna(0.0).to_numpy()
    held = np.stack([known.astype(np.float64), np.where(known, inverse, 0.0)])
    coords = {"portfolio": ["equal_weight", "inverse_volatility"], "date": returns.index, "ticker": [*returns.columns]}
    weights = held / np.maximum(held.sum(axis=-1, keepdims=True), 1.0e-12)
    cube = {"estimation": (("date", "ticker"), known), "weights": (("portfolio", "date", "ticker"), weights)}
    return panel, xr.Dataset(cube, coords)


if __name__ == "__main__":
    main(sys.argv[1:])
