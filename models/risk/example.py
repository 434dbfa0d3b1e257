"""A risk model small enough to be followed by hand, for examples in docstrings.

Here belongs nothing that is estimated.
"""

from __future__ import annotations

import xarray as xr

from models.risk.portfolio import RiskModel


def example_risk() -> RiskModel:
    """Return loadings of four tickers on a market and a style, Omega, and specific variances, without dates."""
    tickers, factors = ["A", "B", "C", "D"], ["market", "style"]
    loadings = [[1.0, 1.0], [1.0, 0.5], [1.0, -0.5], [1.0, -1.0]]
    return RiskModel(
        xr.DataArray(loadings, {"ticker": tickers, "factor": factors}, ("ticker", "factor")),
        xr.DataArray([[4e-4, 0.0], [0.0, 1e-4]], {"factor": factors, "factor_": factors}, ("factor", "factor_")),
        xr.DataArray([1e-4, 2e-4, 1e-4, 4e-4], {"ticker": tickers}, ("ticker",)),
    )
