"""What a cube says beside its panel: what is held, and which returns its checks suspect or refute.

Here belongs what forecasts are judged on, and nothing of how they are made: reading it hangs on no model of risk.
"""

from __future__ import annotations

import xarray as xr

from schemas.checks import SuspectedReturns


def holdings(cube: xr.Dataset) -> xr.Dataset:
    """Take from a cube what is held, and what its checks say of returns, lazily.

    Returns
    -------
    xarray.Dataset
        ``weights`` (portfolio, date, ticker), ``estimation`` and ``refuted`` (date, ticker); nothing is refuted in a
        cube that does not say so.
    """
    refuted = cube["refuted"] if "refuted" in cube else xr.zeros_like(cube["estimation"])
    return cube[["estimation", "weights"]].assign(refuted=refuted).drop_attrs()


def counted(returns: xr.DataArray, held: xr.Dataset, suspected: SuspectedReturns = "counted") -> xr.DataArray:
    """Leave out of returns what forecasts of risk are not judged by: refuted ones, or all that a check suspects.

    Parameters
    ----------
    returns : xarray.DataArray
        (date, ticker) excess returns per period.
    held : xarray.Dataset
        From `holdings`.
    suspected : {"counted", "left_out"}
        What becomes of returns that a check suspects and none refutes.
    """
    if suspected == "left_out":
        return returns.where(reindexed(held["estimation"], returns))
    return returns.where(~reindexed(held["refuted"], returns))


def reindexed(flags: xr.DataArray, returns: xr.DataArray) -> xr.DataArray:
    """Bring flags of what is held to the dates and tickers of returns; False where nothing is known."""
    return flags.reindex({dim: returns.indexes[dim] for dim in ("date", "ticker")}, fill_value=False)
