"""From checked market data to the variables of a cube: returns, characteristics, estimation universe, weights.

Here belongs the wiring of pure functions, in the order in which the data need them. Definitions of characteristics and
portfolios belong in `models`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from models.characteristics.listings import Listings
from models.characteristics.registry import compute
from models.panel.assembly import order_industries
from models.portfolios.holdings import held_between, priced
from models.portfolios.weights import allocated, equal_weight, fixed, inverse_volatility, long_short, value_weight
from schemas.checks import declared
from schemas.errors import DataError
from schemas.spec import (
    AllocatedWeights,
    EqualWeight,
    FixedWeights,
    Holdings,
    InverseVolatility,
    LongShort,
    PortfolioSpec,
    Recipe,
    RunSpec,
    ValueWeight,
)


def derive_cube(
    market: xr.Dataset,
    observed: xr.Dataset | None,
    excluded: xr.DataArray,
    sessions: pd.DatetimeIndex,
    spec: RunSpec | Recipe,
    refuted: xr.DataArray | None = None,
) -> xr.Dataset:
    """Compute what a cube stores from market data that passed the checks.

    What a suspected row says moves no other number: neither a characteristic nor a weight, of this stock or another.
    The return itself is kept beside the flag, and the stock may be held.

    Parameters
    ----------
    market : xarray.Dataset
        (date, ticker) prices or returns, without what was quarantined.
    observed : xarray.Dataset or None
        factors (date, observed_factor) and risk_free (date), in decimals per period; industry (date, ticker) with
        industry_name.
    excluded : xarray.DataArray
        (date, ticker) bool: rows that a check suspects; kept, but not in the estimation universe.
    refuted : xarray.DataArray, optional
        (date, ticker) bool: those of them that cannot be true. Default: none.
    sessions : pandas.DatetimeIndex
        Every session of the calendar over the span: a return spans one session, never a gap. Without a calendar the
        dates that landed.
    spec : RunSpec or Recipe
        What to compute. No window reaches across two companies of one ticker, as the check `reused_ticker` tells them.

    Returns
    -------
    xarray.Dataset
        The variables of `schemas.contracts.CUBE`, at the dates of `market`.
    """
    dates = pd.DatetimeIndex(market.indexes["date"])
    grid = market.reindex(date=sessions.union(dates))
    if "returns" not in grid:
        grid["returns"] = grid["close"] / grid["close"].shift(date=1) - 1.0
    returns = grid["returns"].where(np.isfinite(grid["returns"]))
    gone = xr.zeros_like(returns, dtype=np.bool_)  # paid out at this close: earned, and held no more
    if "delisting_return" in grid:
        gone = grid["delisting_return"].notnull()
        returns = _with_delisting(returns, grid["delisting_return"])
    grid["returns"] = returns
    suspected = excluded.reindex_like(returns, fill_value=False)
    most = declared(spec.checks, spec.frequency)["reused_ticker"].threshold or 0.0
    companies = Listings(market, pd.DatetimeIndex(grid.indexes["date"]), most)
    if "characteristics" in grid:
        values = grid["characteristics"].astype(np.float32)
    else:
        fields, doubted = companies.apart(grid), companies.apart(suspected)
        apart = compute(fields, spec.characteristics, spec.frequency, suspected=doubted)
        values = companies.together(apart, grid["ticker"])
    present = returns.notnull()
    estimation = present & ~suspected
    trusted, held = grid.assign(returns=returns.where(estimation)), (present | suspected) & ~gone
    weights = [_weights(item, trusted, values, held, suspected, companies) for item in spec.portfolios]
    cube = xr.Dataset(
        {
            "returns": returns.astype(np.float32),
            "characteristics": values,
            "estimation": estimation,
            "refuted": suspected & (False if refuted is None else refuted.reindex_like(present, fill_value=False)),
            "weights": xr.concat(weights, "portfolio"),
        },
        coords={"portfolio": np.array([item.name for item in spec.portfolios])},
    ).sel(date=dates)
    if observed is not None:
        for name in ("risk_free", "factors"):
            if name in observed:
                cube[name] = observed[name].reindex(date=dates).astype(np.float32)
        if "industry" in observed:
            codes, names = order_industries(observed["industry"].values, observed["industry_name"].values.tolist())
            cube["industry"] = observed["industry"].copy(data=codes).sel(date=dates, ticker=cube["ticker"])
            cube = cube.assign_coords(industry_name=np.array(names, dtype=np.str_))
    return cube.drop_attrs().transpose("portfolio", "date", "ticker", "char", ..., missing_dims="ignore")


def _with_delisting(returns: xr.DataArray, delisting: xr.DataArray) -> xr.DataArray:
    """Compound returns with delisting returns, or take these where a row has no return of its own.

    As is usual with CRSP's (Beaver, McNichols and Price 2007, "Delisting returns and their effect on accounting-based
    market anomalies"): a delisting return runs from the last price to what holders got.
    """
    paid = delisting.where(np.isfinite(delisting))
    return ((1.0 + returns.fillna(0.0)) * (1.0 + paid) - 1.0).where(paid.notnull(), returns)


def _weights(
    spec: PortfolioSpec,
    grid: xr.Dataset,
    values: xr.DataArray,
    present: xr.DataArray,
    suspected: xr.DataArray,
    companies: Listings,
) -> xr.DataArray:
    """Weights of one portfolio, from returns that nothing suspects; a suspected value is the one known before it."""
    if isinstance(spec, InverseVolatility | ValueWeight):
        parts = [companies.apart(part) for part in (present, suspected)]
        return companies.together(_trailing(spec, companies.apart(grid), *parts), grid["ticker"])
    match spec:
        case EqualWeight():
            return equal_weight(present)
        case FixedWeights(weights=given):
            return fixed(given, present)
        case AllocatedWeights(name=name, rebalances=rebalances):
            return allocated({pd.Timestamp(one.as_of): one.weights for one in rebalances}, present, name)
        case Holdings():
            dated = {pd.Timestamp(one.as_of): one.weights for one in spec.rebalances}
            if spec.unit == "shares":
                dated = priced(dated, grid.get("close"), spec.name)
            return held_between(
                dated, grid["returns"], present, spec.name, rebalanced=spec.rebalanced, max_uncovered=spec.max_uncovered
            )
        case LongShort(characteristic=name, quantile=quantile):
            if name not in values["char"]:
                known = ", ".join(map(str, values["char"].values)) or "none"
                raise DataError(f"portfolio '{spec.name}' sorts on '{name}', which the cube lacks; it has {known}")
            return long_short(values.sel(char=name, drop=True).astype(np.float64), present, quantile)


def _trailing(
    spec: InverseVolatility | ValueWeight, grid: xr.Dataset, present: xr.DataArray, suspected: xr.DataArray
) -> xr.DataArray:
    if isinstance(spec, InverseVolatility):
        return inverse_volatility(grid["returns"], present & ~suspected, spec.window, spec.floor)
    times = "shares" if spec.value == "market_cap" else "volume"
    if not {"close", times} <= set(grid):
        raise DataError(f"portfolio '{spec.name}' needs close and {times}, which the data source does not name")
    return value_weight(_as_last_trusted(grid["close"] * grid[times], suspected), present, spec.window)


def _as_last_trusted(value: xr.DataArray, suspected: xr.DataArray) -> xr.DataArray:
    """Put in the place of a suspected value the last one before it that nothing suspects."""
    value = value.transpose("date", "ticker")
    before = value.copy(data=pd.DataFrame(value.where(~suspected).values).ffill().to_numpy())
    return value.where(~suspected, before)
