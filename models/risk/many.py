"""The variance of very many portfolios at once: ten thousand of five thousand names in one pass over their weights.

Here belongs the one quantity that is asked for in bulk, by optimisers, simulations and desks with a book per client.
All else, and a few portfolios, belong in `portfolio`, whose numbers these are up to the order of sums.

Weights of so many portfolios are larger than any cache, and to read them from memory is what a product X'w costs. So
they are read once, some rows at a time: exposures, squared specific parts and the check for uncovered names are all
made while the rows are in cache, into buffers that are used again.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from models.arrays import BoolArray, Float64Array
from models.risk.portfolio import RiskModel, Weights
from schemas.errors import DataError

_CELLS_IN_CACHE = 320_000
"""Weights that are worked on at a time, 2.5 MB in float64: fewer rows would slow the product down."""


def portfolio_variances(model: RiskModel, weights: Weights) -> xr.Dataset:
    """Variance of many portfolios under a model of one date, as `RiskModel.decompose` gives it, without factors.

    Parameters
    ----------
    model : RiskModel
        Without dates: all its parts are as of one.
    weights : xarray.DataArray
        (portfolio, ticker) of any float type; tickers are a subset of the model's. Fastest if they are all tickers in
        the order of the model.

    Returns
    -------
    xarray.Dataset
        ``portfolio_variance``, ``portfolio_variance_systematic`` and ``portfolio_variance_specific`` (portfolio)
        float64, squared decimals per period. NaN where a portfolio is not defined or holds what is not covered.

    Raises
    ------
    DataError
        If the model has dates, or a label is unknown or given twice.

    Examples
    --------
    >>> import pandas as pd
    >>> from models import portfolio_variances
    >>> from models.risk.example import example_risk
    >>> model = example_risk()
    >>> weights = pd.DataFrame([[1.0, 0.0], [0.5, 0.5]], ["one", "two"], ["A", "D"])
    >>> portfolio_variances(model, weights)["portfolio_variance"].values.round(6).tolist()
    [0.0006, 0.000525]
    """
    weights = model.labelled_weights(weights)
    dated = [part for part in (model.loadings, model.omega, model.specific_variance) if "date" in part.dims]
    if dated or set(weights.dims) != {"portfolio", "ticker"}:
        raise DataError("many portfolios need a model without dates (choose one with .sel) and (portfolio, ticker).")
    tickers, given = model.loadings.indexes["ticker"], weights.indexes["ticker"]
    position = tickers.get_indexer(given)
    if (position < 0).any() or not given.is_unique:
        wrong = given[position < 0] if (position < 0).any() else given[given.duplicated()]
        raise DataError(f"weights has a ticker that the risk model does not know, or twice: {wrong[0]}.")
    covered = model.covered.values[position]
    loadings = np.where(
        covered[:, None], model.loadings.transpose("ticker", "factor").values.astype(np.float64)[position], 0.0
    )
    deviation = np.sqrt(np.where(covered, model.specific_variance.values.astype(np.float64)[position], 0.0))
    omega = model.omega.transpose("factor", "factor_").values.astype(np.float64)
    exposures, specific = _in_blocks(weights.transpose("portfolio", "ticker").values, covered, loadings, deviation)
    systematic = np.einsum("pk,pk->p", exposures @ omega, exposures)
    parts = {
        "portfolio_variance": systematic + specific,
        "portfolio_variance_systematic": systematic,
        "portfolio_variance_specific": specific,
    }
    coords = {"portfolio": weights["portfolio"]} if "portfolio" in weights.coords else None
    return xr.Dataset({name: ("portfolio", values) for name, values in parts.items()}, coords)


def _in_blocks(
    weights: npt.NDArray[np.floating], covered: BoolArray, loadings: Float64Array, deviation: Float64Array
) -> tuple[Float64Array, Float64Array]:
    """Exposures (portfolio, factor) and specific variances (portfolio,); NaN where not defined."""
    n_portfolios, n_tickers = weights.shape
    rows = max(8, _CELLS_IN_CACHE // max(n_tickers, 1))
    scaled = np.empty((rows, n_tickers))
    exposures, specific = np.empty((n_portfolios, loadings.shape[1])), np.empty(n_portfolios)
    uncovered = np.flatnonzero(~covered)
    for start in range(0, n_portfolios, rows):
        block = weights[start : start + rows]
        stop = start + len(block)
        np.matmul(block, loadings, out=exposures[start:stop])
        part = np.multiply(block, deviation, out=scaled[: len(block)])
        np.einsum("pi,pi->p", part, part, out=specific[start:stop])
        if len(uncovered):
            undefined = (block[:, uncovered] != 0.0).any(axis=1)
            exposures[start:stop][undefined] = np.nan
            specific[start:stop][undefined] = np.nan
    return exposures, specific
