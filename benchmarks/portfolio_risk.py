"""The risk of ten thousand portfolios of five thousand names in one call, against the bare product X'w of the same.

Weights are drawn as float64, with and without names that the model does not cover. The peer is the least that anybody
must do: the exposures of all portfolios as one matrix product, without specific risk, labels or checks.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import xarray as xr

from benchmarks.harness import Row, measure
from models.arrays import Float64Array
from models.risk.many import portfolio_variances
from models.risk.portfolio import RiskModel

PORTFOLIOS, STOCKS = 10_000, 5_000
FACTORS = (5, 20, 60)
QUICK = 20
"""How many times fewer portfolios and stocks there are in a quick run."""
REPEATS = 5


def run(*, quick: bool) -> list[Row]:
    """Time each number of factors; the weights are the same."""
    shrunk = QUICK if quick else 1
    portfolios, stocks = PORTFOLIOS // shrunk, STOCKS // shrunk
    rng = np.random.default_rng(0)
    values = rng.standard_normal((portfolios, stocks))
    values[:, :: stocks // 10] = 0.0
    names = [f"S{n}" for n in range(stocks)]
    weights = xr.DataArray(values, {"portfolio": np.arange(portfolios), "ticker": names}, ("portfolio", "ticker"))
    rows = [_against_product(weights, _model(names, n, covered=True), n, "") for n in FACTORS]
    rows.append(_against_product(weights, _model(names, FACTORS[1], covered=False), FACTORS[1], ", 10 not covered"))
    return rows


def _model(names: list[str], n_factors: int, *, covered: bool) -> RiskModel:
    rng = np.random.default_rng(n_factors)
    loadings = rng.standard_normal((len(names), n_factors))
    if not covered:
        loadings[:: len(names) // 10] = np.nan
    factors = [f"f{k}" for k in range(n_factors)]
    root = 0.01 * rng.standard_normal((n_factors, n_factors))
    return RiskModel(
        xr.DataArray(loadings, {"ticker": names, "factor": factors}, ("ticker", "factor")),
        xr.DataArray(root @ root.T, {"factor": factors, "factor_": factors}, ("factor", "factor_")),
        xr.DataArray(rng.uniform(1e-4, 1e-3, len(names)), {"ticker": names}, ("ticker",)),
    )


def _against_product(weights: xr.DataArray, model: RiskModel, n_factors: int, note: str) -> Row:
    bare = np.nan_to_num(model.loadings.values)
    product = measure(partial(_product, weights.values, bare), repeats=REPEATS)
    ours = measure(lambda: portfolio_variances(model, weights), repeats=REPEATS)
    few = weights.isel(portfolio=slice(50))
    apart = float(abs(ours.value["portfolio_variance"][:50] / model.variance(few) - 1.0).max())
    size = f"{weights.sizes['portfolio']:,} portfolios x {weights.sizes['ticker']:,} stocks"
    return Row(
        f"variance of {size}, {n_factors} factors{note}",
        ours.seconds,
        "the bare product X'w",
        product.seconds,
        note=f"largest relative difference to RiskModel.variance {apart:.0e}",
        target=0.5,
        ours_peak_bytes=ours.peak_bytes,
        peer_peak_bytes=product.peak_bytes,
    )


def _product(weights: Float64Array, loadings: Float64Array) -> Float64Array:
    return weights @ loadings
