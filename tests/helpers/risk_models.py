"""Small risk models, dated or not, and the dense covariance that they imply: what tests of risk compare with."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from models.risk.portfolio import RiskModel

N_DATES, N_TICKERS, N_FACTORS, N_PORTFOLIOS = 4, 12, 3, 2
COORDS = {
    "portfolio": ["a", "b"],
    "date": pd.bdate_range("2020-01-01", periods=N_DATES),
    "ticker": [f"t{i}" for i in range(N_TICKERS)],
    "factor": [f"f{i}" for i in range(N_FACTORS)],
    "factor_": [f"f{i}" for i in range(N_FACTORS)],
}


def array(values: np.ndarray, *dims: str) -> xr.DataArray:
    return xr.DataArray(values, dims=dims, coords={dim: COORDS[dim] for dim in dims})


def small_model(seed: int = 0) -> RiskModel:
    """Dated, with all tickers covered."""
    rng = np.random.default_rng(seed)
    roots = rng.normal(size=(N_DATES, N_FACTORS, N_FACTORS)) * 0.01
    return RiskModel(
        array(rng.normal(size=(N_DATES, N_TICKERS, N_FACTORS)), "date", "ticker", "factor"),
        array(roots @ roots.transpose(0, 2, 1), "date", "factor", "factor_"),
        array(rng.uniform(1e-4, 1e-3, size=(N_DATES, N_TICKERS)), "date", "ticker"),
    )


def at_last(model: RiskModel) -> RiskModel:
    """Return the model of the last date, without dates."""
    parts = (model.loadings, model.omega, model.specific_variance)
    return RiskModel(*(part.isel(date=-1, drop=True) for part in parts))


def small_weights(seed: int = 0, *dims: str) -> xr.DataArray:
    dims = dims or ("portfolio", "date", "ticker")
    shape = [len(COORDS[dim]) for dim in dims]
    return array(np.random.default_rng(1000 + seed).normal(size=shape), *dims)


def dense(model: RiskModel) -> np.ndarray:
    """([date,] ticker, ticker) covariance of stock returns, of all tickers."""
    x, specific = model.loadings.values.astype(np.float64), model.specific_variance.values.astype(np.float64)
    return x @ model.omega.values @ np.swapaxes(x, -1, -2) + specific[..., None] * np.eye(specific.shape[-1])
