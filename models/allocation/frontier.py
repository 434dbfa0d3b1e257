"""The efficient frontier of a risk model: what long-only weights earn at most for their risk, from end to end.

Here belongs the curve as a whole. Weights at one risk aversion, under any limits, are `mean_variance` in `optimised`;
these agree with it, and are made by our own interior point method in factor form, without skfolio and a dense matrix.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from models.allocation.constraints import Constraints, Holdable
from models.evaluation.covariances import FactorForm
from models.evaluation.portfolios import long_only_minimum_variance
from models.risk.portfolio import RiskModel
from schemas.errors import DataError

_SPAN = 1e2
"""By how much the risk aversion varies on either side of the one at which return and risk weigh the same: far enough
that return alone counts at the end."""

_NO_CAP = 2.0
"""Largest weight, which weights that sum to 1 never reach."""


def efficient_frontier(model: RiskModel, expected_returns: xr.DataArray, n_points: int = 32) -> xr.Dataset:
    """Long-only weights argmax mu'w - (gamma / 2) w' Sigma w from the least variance to the highest expected return.

    Markowitz (1952), Portfolio selection. Stocks that are not covered, or have no expected return, are not held.

    Parameters
    ----------
    model : RiskModel
        Without dates.
    expected_returns : xarray.DataArray
        (ticker) mu per period, such as those of a factor model with alpha set to 0: loadings times premia.
    n_points : int
        Portfolios after that of the least variance.

    Returns
    -------
    xarray.Dataset
        Along ``point``: ``weights`` (point, ticker) that sum to 1, ``variance`` and ``expected_return`` per period,
        both rising, and ``risk_aversion`` gamma, falling from infinity.

    Raises
    ------
    DataError
        As `models.allocation.minimum_variance`, or if a specific variance is 0 or only one stock can be held.
    ModelError
        If no stock can be held, or the method does not converge.

    Examples
    --------
    >>> import xarray as xr
    >>> from models import efficient_frontier
    >>> from models.risk.example import example_risk
    >>> model = example_risk()
    >>> premia = xr.DataArray([0.01, 0.0], dims="factor", coords={"factor": model.loadings.factor})
    >>> frontier = efficient_frontier(model, model.loadings @ premia)
    >>> bool(frontier.expected_return.diff("point").min() >= 0)
    True
    """
    stocks = Holdable.of(model, Constraints(), xr.ufuncs.isfinite(expected_returns))
    if len(stocks.position) < 2:
        raise DataError("a frontier needs two stocks with loadings, specific variance and an expected return.")
    mu = expected_returns.reindex(ticker=stocks.tickers).values.astype(np.float64)[stocks.position] * stocks.scale
    covariance = FactorForm(stocks.loadings, stocks.omega, stocks.specific)
    spread = float(np.ptp(mu)) or 1.0
    balanced = float(covariance.diagonal.mean()) / spread
    tolerance = np.concatenate([[0.0], balanced * np.geomspace(1.0 / _SPAN, _SPAN, n_points)])
    values = np.stack([long_only_minimum_variance(covariance, _NO_CAP, one * (mu - mu.max())) for one in tolerance])
    weights = np.zeros((len(values), len(stocks.tickers)))
    weights[:, stocks.position] = values
    with np.errstate(divide="ignore"):
        aversion = 1.0 / tolerance
    return xr.Dataset(
        {
            "weights": (("point", "ticker"), weights),
            "variance": ("point", covariance.variance(values) / stocks.scale),
            "expected_return": ("point", values @ mu / stocks.scale),
            "risk_aversion": ("point", aversion),
        },
        coords={"ticker": stocks.tickers},
    )
