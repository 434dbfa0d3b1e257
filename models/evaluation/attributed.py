"""What every portfolio of a version earned by which factor, and what was specific, date by date.

Here belongs the attribution of what a version holds. The split itself, and linking over a span, is
`models.risk.attribution`.
"""

from __future__ import annotations

import xarray as xr

from models.families.base import contributing
from models.risk.attribution import attribute
from models.risk.portfolio import RiskModel


def loadings_of_returns(version: xr.Dataset) -> xr.DataArray:
    """Return (date, ticker, factor) loadings of the model of returns, before they were scaled for risk."""
    loadings = version["loadings"]
    return loadings / version["loading_scale"] if "loading_scale" in version else loadings


def moves(version: xr.Dataset) -> xr.DataArray:
    """Return (date, factor) factor returns as they enter X f."""
    returns = version["factor_returns"].transpose("date", "factor")
    return returns.copy(data=contributing(returns.values))


def earned(version: xr.Dataset) -> xr.Dataset:
    """Split ``portfolio_return`` of every portfolio into factors and a specific rest.

    Parameters
    ----------
    version : xarray.Dataset
        ``loadings``, ``factor_returns``, ``omega``, ``specific_variance``, ``weights`` and ``portfolio_return``, as
        published; if there, also ``loading_scale``.

    Returns
    -------
    xarray.Dataset
        From `attribute`, for every ``portfolio``.

    Examples
    --------
    >>> from models import IPCA, Panel, WalkForward, earned, forecast
    >>> from models.panel import example_cube
    >>> cube = example_cube()
    >>> panel = Panel.from_cube(cube, next_date="2024-06-17")
    >>> version = forecast(IPCA(n_factors=1), panel, cube, WalkForward(first="2024-05-31", every="month"))
    >>> earned(version)["factor"].dims
    ('portfolio', 'date', 'factor')
    """
    model = RiskModel(loadings_of_returns(version), version["omega"], version["specific_variance"])
    return attribute(model.exposures(version["weights"]), moves(version), version["portfolio_return"])
