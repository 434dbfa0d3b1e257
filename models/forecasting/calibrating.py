"""Rows of a version, calibrated date by date by what the forecasts before them met.

Here belongs how the stages of `models.risk.calibration` run along the rows of all fits, and how their state is kept
beside that of a model. What the stages do is said there.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from models.arrays import Float64Array, NamedArrays, under
from models.risk.calibration import BUDGET, Calibration
from schemas.calibration import CalibrationSpec

_PREFIX = "calibration."


def calibrated(
    rows: xr.Dataset, returns: xr.DataArray, spec: CalibrationSpec, state: NamedArrays | None = None
) -> tuple[xr.Dataset, NamedArrays]:
    """Calibrate rows, and return the state after the last of them.

    Parameters
    ----------
    rows : xarray.Dataset
        ``loadings`` (date, ticker, factor), ``imputed`` (date, ticker), ``factor_returns`` (date, factor), ``omega``
        (date, factor, factor_) and ``specific_variance`` (date, ticker).
    returns : xarray.DataArray
        (date, ticker) excess returns that may enter a stock's risk, NaN elsewhere, on the same dates and tickers.
    spec : CalibrationSpec
        Which stages.
    state : dict[str, numpy.ndarray], optional
        After the date before the first row, on the same tickers; without it the rows are the first.

    Returns
    -------
    rows : xarray.Dataset
        With scaled ``loadings``, the ``loading_scale`` (date, ticker) by which they were multiplied, ``omega`` and
        ``specific_variance``; with a budget stage one factor more, on which every stock has a loading of one.
    state : dict[str, numpy.ndarray]
        To go on from.
    """
    calibration = Calibration(**spec.model_dump())
    x = rows["loadings"].transpose("date", "ticker", "factor").values
    omega, specific = rows["omega"].values, rows["specific_variance"].transpose("date", "ticker").values
    own = np.isfinite(x).all(axis=2) & ~rows["imputed"].transpose("date", "ticker").values
    realised = returns.transpose("date", "ticker").values
    state = state or calibration.start(x.shape[2], x.shape[1])
    wide = x.shape[2] + (spec.budget is not None)
    scale = np.where(np.isfinite(x).all(axis=2), np.float32(1.0), np.float32(np.nan))
    final, left = np.full((len(x), wide, wide), np.nan), specific.copy()
    for date in range(len(x)):
        state = calibration.step(state, realised[date])
        if not np.isfinite(omega[date]).all():
            continue
        found = calibration.read(state, x[date], omega[date], specific[date], own[date])
        if found is None:
            final[date] = _widened(omega[date], wide)
            continue
        state = calibration.opened(state, found)
        scale[date], final[date], left[date] = found.scale, found.omega, found.specific_variance
    names = [*map(str, rows["factor"].values), BUDGET][:wide]
    loadings = x * scale[..., np.newaxis]
    factors = rows["factor_returns"].transpose("date", "factor").values
    if spec.budget is not None:
        level = np.where(np.isfinite(scale), np.float32(1.0), np.float32(np.nan))
        loadings = np.concatenate([loadings, level[..., np.newaxis]], axis=2)
        earned = np.where(np.isfinite(factors).any(axis=1), 0.0, np.nan)
        factors = np.concatenate([factors, earned[:, np.newaxis]], axis=1)
    others = rows.drop_vars(["loadings", "omega", "specific_variance", "factor_returns"]).drop_dims(
        ["factor", "factor_"], errors="ignore"
    )
    axes = ("date", "ticker")
    return others.assign_coords(factor=names, factor_=names).assign(
        loadings=((*axes, "factor"), loadings),
        loading_scale=(axes, scale),
        factor_returns=(("date", "factor"), factors),
        omega=(("date", "factor", "factor_"), final),
        specific_variance=(axes, left.astype(np.float32)),
    ), state


def _widened(omega: Float64Array, size: int) -> Float64Array:
    wide = np.zeros((size, size))
    wide[: len(omega), : len(omega)] = omega
    return wide


def on_tickers(
    state: NamedArrays, spec: CalibrationSpec, before: pd.Index, after: pd.Index, n_factors: int
) -> NamedArrays:
    """Bring a state from one axis of tickers to another; those that it lacks are as before the first date."""
    if before.equals(after):
        return state
    start = Calibration(**spec.model_dump()).start(n_factors, len(after))
    place = after.get_indexer(before)
    moved = dict(state)
    for name in Calibration.of_stocks(start):
        moved[name] = start[name].copy()
        moved[name][..., place[place >= 0]] = state[name][..., place >= 0]
    return moved


def named(state: NamedArrays) -> NamedArrays:
    """Name the arrays of a state as they lie beside those of a model."""
    return {f"{_PREFIX}{name}": array for name, array in state.items()}


def parted(arrays: NamedArrays) -> tuple[NamedArrays, NamedArrays]:
    """Part the arrays that are kept with a version: those of its model, and the state of its calibration."""
    return {name: value for name, value in arrays.items() if not name.startswith(_PREFIX)}, under(_PREFIX, arrays)
