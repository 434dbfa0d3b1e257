"""Simulated factor returns and residuals, for the tests of risk."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr


def history(values: np.ndarray, dim: str = "factor") -> xr.DataArray:
    dates = pd.bdate_range("2020-01-01", periods=len(values))
    names = [f"{dim}{i}" for i in range(values.shape[1])]
    return xr.DataArray(values, dims=("date", dim), coords={"date": dates, dim: names}, name="history")


def correlated(n_dates: int, n_factors: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(n_factors, n_factors)) * np.logspace(0, -1, n_factors)
    return 0.01 * (rng.normal(size=(n_dates, n_factors)) @ mixing + 0.3)


def holed(values: np.ndarray, share: float, seed: int = 1) -> np.ndarray:
    return np.where(np.random.default_rng(seed).random(values.shape) < share, np.nan, values)
