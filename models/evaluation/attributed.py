"""What every portfolio of a version earned by which factor, and what was specific, date by date.

Here belongs the attribution of what a version holds. The split itself, and linking over a span, is
`models.risk.attribution`.
"""

from __future__ import annotations

from collections.abc import Callable

import xarray as xr

from models.families.base import contributing
from models.panel.row_blocks import rows_at_once
from models.risk.attribution import attribute
from models.risk.portfolio import RiskModel

_OF_STOCKS = ("loadings", "loading_scale", "omega", "specific_variance", "weights")


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
    exposures = exposures_by_date(version, loadings_of_returns)
    return attribute(exposures, moves(version), version["portfolio_return"])


def exposures_by_date(version: xr.Dataset, loadings_of: Callable[[xr.Dataset], xr.DataArray]) -> xr.DataArray:
    """Return (portfolio, date, factor) exposures of the portfolios of a version, some dates in memory at a time.

    Parameters
    ----------
    version : xarray.Dataset
        As for `earned`; may be lazy.
    loadings_of : callable
        Gives the loadings (date, ticker, factor) of some dates of it.
    """
    needed = version[[name for name in _OF_STOCKS if name in version]]
    size = rows_at_once(version.sizes["ticker"], version.sizes["factor"])
    found = []
    for start in range(0, max(1, version.sizes["date"]), size):
        block = needed.isel(date=slice(start, start + size)).compute()
        model = RiskModel(loadings_of(block), block["omega"], block["specific_variance"])
        found.append(model.exposures(block["weights"]))
    return found[0] if len(found) == 1 else xr.concat(found, "date")
