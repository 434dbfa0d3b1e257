"""What a portfolio would gain or lose if factors moved: scenarios, and spans of the past.

Here belong shocks to factors and what exposures make of them. How likely losses are belongs in `tails`. Returns are
simple, in decimals; a loss is negative. Portfolios and missing data are as `RiskModel` has them.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from models.arrays import BoolArray, Float64Array
from models.risk.portfolio import RiskModel, Weights
from schemas.errors import DataError

_RANK = 1e-10
"""Least share of the largest variance of shocked factors that a direction must have to say anything of the others."""


def scenario_stress(model: RiskModel, weights: Weights, shocks: xr.DataArray, *, propagate: bool = True) -> xr.Dataset:
    """Return of portfolios if some factors move by given amounts.

    With propagation the other factors move as is expected of them under Omega: for shocked factors s and others u,
    E[f_u | f_s] = Omega_us Omega_ss^-1 f_s (Kupiec 1998, Stress testing in a value at risk framework). Without it they
    stay where they are.

    Parameters
    ----------
    model : RiskModel
    weights : xarray.DataArray
        ([portfolio,] [date,] ticker).
    shocks : xarray.DataArray
        ([scenario,] factor) returns of factors over the scenario; factors left out, or NaN, are not shocked.
    propagate : bool
        Whether the other factors follow.

    Returns
    -------
    xarray.Dataset
        ``factor_shock`` ([date,] [scenario,] factor) moves of all factors; ``factor_return`` ([portfolio,] [date,]
        [scenario,] factor) what each brings; ``portfolio_return`` their sum; and ``residual_volatility``, per period,
        what the scenario leaves open: of the factors that are not shocked, given those that are, and specific.

    Raises
    ------
    DataError
        If a shocked factor is unknown, or none is shocked.

    Examples
    --------
    >>> import xarray as xr
    >>> from models import scenario_stress
    >>> from models.risk.example import example_risk
    >>> model = example_risk()
    >>> shocks = xr.DataArray([-0.1], {"factor": ["market"]}, ("factor",))
    >>> round(float(scenario_stress(model, {"A": 0.5, "D": 0.5}, shocks)["portfolio_return"]), 4)
    -0.1
    """
    factors = model.loadings.indexes["factor"]
    if not {"factor"} <= set(shocks.dims) <= {"scenario", "factor"}:
        raise DataError(f"shocks has dimensions {shocks.dims}; it needs ([scenario,] factor).")
    unknown = shocks.indexes["factor"].difference(factors)
    if len(unknown) or not shocks.indexes["factor"].is_unique:
        known = ", ".join(map(str, factors))
        raise DataError(f"shocks must name factors of the model, each once; it has {known}.")
    given = shocks.astype(np.float64).reindex(factor=factors)
    if given.isnull().all("factor").any():
        raise DataError("a scenario shocks no factor; give at least one a return.")
    moves, left = xr.apply_ufunc(
        _conditional if propagate else _alone,
        model.omega,
        given,
        input_core_dims=[["factor", "factor_"], ["factor"]],
        output_core_dims=[["factor"], ["factor", "factor_"]],
        vectorize=True,
    )
    exposure = model.exposures(weights)
    brought = exposure * moves
    systematic = xr.dot(exposure, xr.dot(left, exposure.rename(factor="factor_"), dim="factor_"), dim="factor")
    variance = systematic.clip(min=0.0) + model.specific(weights)
    parts = {
        "factor_shock": moves,
        "factor_return": brought,
        "portfolio_return": brought.sum("factor", skipna=False),
        "residual_volatility": variance**0.5,
    }
    return xr.Dataset({name: _ordered(part) for name, part in parts.items()})


def historical_stress(model: RiskModel, weights: Weights, factor_returns: xr.DataArray) -> xr.Dataset:
    """Return of portfolios, as they are exposed now, if the factors did again what they did over a span.

    Parameters
    ----------
    model : RiskModel
    weights : xarray.DataArray
        ([portfolio,] [date,] ticker).
    factor_returns : xarray.DataArray
        (date, factor) of the span, in the coordinates of the model's loadings.

    Returns
    -------
    xarray.Dataset
        ``path`` ([portfolio,] [date,] event_date) return of each period by factors, ``portfolio_return`` compounded
        over the span, ``worst`` the lowest compounded return on the way, at most 0, and ``factor_return`` (..., factor)
        sum of what each brings before compounding. NaN where a factor return is missing.

    Raises
    ------
    DataError
        If the span is empty or lacks a factor.

    Examples
    --------
    >>> import pandas as pd
    >>> import xarray as xr
    >>> from models import historical_stress
    >>> from models.risk.example import example_risk
    >>> model = example_risk()
    >>> dates = pd.bdate_range("2020-03-02", periods=2)
    >>> labels = {"date": dates, "factor": ["market", "style"]}
    >>> past = xr.DataArray([[-0.1, 0.0], [0.05, 0.0]], labels, ("date", "factor"))
    >>> round(float(historical_stress(model, {"A": 1.0}, past)["portfolio_return"]), 4)
    -0.055
    """
    factors = model.loadings.indexes["factor"]
    lacking = factors.difference(factor_returns.indexes["factor"])
    if len(lacking) or not factor_returns.sizes["date"]:
        raise DataError(f"factor_returns lacks the factor {lacking[0]}." if len(lacking) else "The span has no date.")
    events = factor_returns.astype(np.float64).sel(factor=factors).rename(date="event_date")
    exposure = model.exposures(weights)
    path = xr.dot(exposure, events, dim="factor")
    wealth = (1.0 + path).cumprod("event_date", skipna=False)
    parts = {
        "path": path,
        "portfolio_return": wealth.isel(event_date=-1, drop=True) - 1.0,
        "worst": (wealth.min("event_date", skipna=False) - 1.0).clip(max=0.0),
        "factor_return": exposure * events.sum("event_date", skipna=False),
    }
    return xr.Dataset({name: _ordered(part) for name, part in parts.items()})


def _conditional(omega: Float64Array, shocks: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Return moves of all factors (K,) given some, and what variance (K, K) that leaves."""
    shocked = np.isfinite(shocks)
    if not np.isfinite(omega).all():
        return np.full_like(shocks, np.nan), np.full_like(omega, np.nan)
    slopes = omega[:, shocked] @ np.linalg.pinv(omega[np.ix_(shocked, shocked)], rcond=_RANK, hermitian=True)
    moves = slopes @ shocks[shocked]
    left = omega - slopes @ omega[shocked]
    return _kept(shocks, shocked, moves, left)


def _alone(omega: Float64Array, shocks: Float64Array) -> tuple[Float64Array, Float64Array]:
    """As `_conditional`, but with the other factors where they are: nothing is left open of them either."""
    shocked = np.isfinite(shocks)
    return _kept(shocks, shocked, np.zeros_like(shocks), np.zeros_like(omega))


def _kept(
    shocks: Float64Array, shocked: BoolArray, moves: Float64Array, left: Float64Array
) -> tuple[Float64Array, Float64Array]:
    moves = np.where(shocked, shocks, moves)
    left = np.where(shocked[:, None] | shocked, 0.0, left)
    return moves, left


def _ordered(array: xr.DataArray) -> xr.DataArray:
    return array.transpose("portfolio", "date", "scenario", "event_date", "factor", missing_dims="ignore")
