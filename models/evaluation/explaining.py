"""What moves the loadings of a model: how much each characteristic counts, loadings over a grid, factors beside others.

Here belong numbers about any fitted model, made of what every model answers. Judging forecasts belongs in `forecasts`
and `protocol`, what published loadings look like in `structure`.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import pandas as pd
import scipy.linalg
import xarray as xr
from annotated_types import Ge

from models.arrays import Float64Array
from models.families.base import FactorModel, contributing
from models.panel import Panel
from models.panel.row_blocks import row_blocks
from schemas.errors import DataError, ModelError

_ROWS = 256
_ENDS = (0.01, 0.99)


def characteristic_importance(model: FactorModel, panel: Panel) -> xr.DataArray:
    """Drop in total R2 when one characteristic is set to its median, all others and the factor returns as they were.

    The median is that of all rows of covered stocks, which is 0 for ranks. Factor returns are those that the model
    gives with all characteristics, so that only loadings change. Source: Gu, Kelly and Xiu (2021), "Autoencoder asset
    pricing models", Journal of Econometrics 222, section on the importance of characteristics, where it is set to zero
    and the estimates are held fixed.

    Parameters
    ----------
    model : FactorModel
        Fitted.
    panel : Panel
        Its rows are explained. R2 is that of `FactorModel.score`, over the estimation universe; rows of which the
        loadings look at rows before them (`row_memory`) are fully so only if the panel has these.

    Returns
    -------
    xarray.DataArray
        (char,) as shares of 1, in the order of the panel; 0 for a characteristic without a role, and for a constant.
        Negative where the characteristic makes the fit to these rows worse. NaN if there is nothing to explain.

    Raises
    ------
    DataError
        If the panel covers no stock.

    Examples
    --------
    >>> from models import IPCA, characteristic_importance
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> characteristic_importance(IPCA(n_factors=2).fit(panel), panel).dims
    ('char',)
    """
    (typical,) = _quantiles(panel, [0.5])
    realised = model.factor_returns(panel).transpose("date", "factor").values
    factors = contributing(realised).astype(np.float64)
    left, total = np.zeros(1 + len(typical)), 0.0
    for block in row_blocks(panel, 0, len(panel.dates), _ROWS, model.row_memory):
        rows, own, earned = block.panel, block.own, factors[block.first : block.last]
        returns: Float64Array = rows.returns.values[own].astype(np.float64)
        error = returns - _explained(model, rows, own, earned)
        known = rows.mask.values[own] & np.isfinite(error)
        total += float(np.square(returns[known]).sum())
        left[0] += float(np.square(error[known]).sum())
        for place, value in enumerate(typical):
            changed = _explained(model, _set(rows, place, value), own, earned)
            left[1 + place] += float(np.square((returns - changed)[known]).sum())
    drop = (left[1:] - left[0]) / total if total > 0.0 else np.full(len(typical), np.nan)
    return xr.DataArray(drop, {"char": panel.chars}, ("char",), name="characteristic_importance")


def response_surface(
    model: FactorModel, panel: Panel, one: str, other: str | None = None, points: Annotated[int, Ge(2)] = 21
) -> xr.DataArray:
    """Return loadings over a grid of one or two characteristics, with all others at their median.

    The grid is even, from the 1% to the 99% quantile of the rows of covered stocks. A point is a stock that the model
    has not met, with these characteristics at every row, in the industry of most rows.

    Parameters
    ----------
    model : FactorModel
        Fitted; its loadings are functions of characteristics.
    panel : Panel
        Where quantiles come from.
    one, other : str
        Characteristics that vary in the panel.
    points : int
        Of the grid, along each of them.

    Returns
    -------
    xarray.DataArray
        (value, factor), or (value, value_, factor) with ``other`` along ``value_``; the coordinates are values of the
        characteristics as the model sees them.

    Raises
    ------
    ModelError
        If the loadings belong to named stocks, as those of principal components do, or to whole cross-sections.
    DataError
        If the panel lacks a characteristic, or it does not vary, or no stock is covered.

    Examples
    --------
    >>> from models import IPCA, response_surface
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> dict(response_surface(IPCA(n_factors=1).fit(panel), panel, "size", "value", points=5).sizes)
    {'value': 5, 'value_': 5, 'factor': 1}
    """
    names = [one] if other is None else [one, other]
    places = [_place(panel, name) for name in names]
    low, typical, high = _quantiles(panel, [_ENDS[0], 0.5, _ENDS[1]])
    flat = [name for name, place in zip(names, places, strict=True) if not high[place] > low[place]]
    if flat or one == other:
        raise DataError(f"A grid of {names} has no two values: name characteristics that differ and vary.")
    axes = [_grid(low[place], high[place], points) for place in places]
    rows = np.tile(typical, (points ** len(axes), 1))
    for place, values in zip(places, np.meshgrid(*axes, indexing="ij"), strict=True):
        rows[:, place] = values.ravel()
    found = _loadings_at(model, panel, rows).reshape(*(len(axis) for axis in axes), -1)
    along = dict(zip(("value", "value_"), axes, strict=False))
    return xr.DataArray(found, along | {"factor": model.factors_}, (*along, "factor"), name="loadings")


def response_curves(model: FactorModel, panel: Panel, points: Annotated[int, Ge(2)] = 21) -> xr.DataArray:
    """`response_surface` of each characteristic that varies, by itself.

    Returns
    -------
    xarray.DataArray
        (char, level, factor), with the values of each characteristic as the coordinate ``value`` (char, level). Levels
        run from 0, the 1% quantile, to 1, the 99% quantile.

    Raises
    ------
    ModelError
        If the loadings belong to named stocks, as those of principal components do, or to whole cross-sections.
    DataError
        If the panel covers no stock, or none of its characteristics varies.

    Examples
    --------
    >>> from models import IPCA, response_curves
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> dict(response_curves(IPCA(n_factors=1).fit(panel), panel, points=5).sizes)
    {'char': 2, 'level': 5, 'factor': 1}
    """
    low, typical, high = _quantiles(panel, [_ENDS[0], 0.5, _ENDS[1]])
    places = np.flatnonzero(high > low)
    if not len(places):
        raise DataError(f"None of the characteristics {panel.chars} varies: there is no curve to draw.")
    values = np.stack([_grid(low[place], high[place], points) for place in places])
    rows = np.tile(typical, (len(places), points, 1))
    rows[np.arange(len(places)), :, places] = values
    found = _loadings_at(model, panel, rows.reshape(-1, len(typical))).reshape(len(places), points, -1)
    coords = {
        "char": [panel.chars[place] for place in places],
        "level": np.linspace(0.0, 1.0, points),
        "factor": model.factors_,
        "value": (("char", "level"), values),
    }
    return xr.DataArray(found, coords, ("char", "level", "factor"), name="loadings")


def canonical_correlations(factors: xr.DataArray, others: xr.DataArray) -> xr.DataArray:
    """Canonical correlations of two sets of factor returns over the dates on which all of them are known.

    The singular values of Q'P, where Q and P are orthonormal bases of the two sets less their means (Björck and Golub
    1973, "Numerical methods for computing angles between linear subspaces", Mathematics of Computation 27). All are 1
    where one set is a rotation of the other, or has it among its combinations.

    Parameters
    ----------
    factors, others : xarray.DataArray
        (date, factor) in any units.

    Returns
    -------
    xarray.DataArray
        (pair,) from the largest to the smallest, as many as the smaller set has factors; 0 for one that does not vary.

    Raises
    ------
    DataError
        If fewer dates are known than both sets have factors together, and two more: fewer show correlations of one
        where there are none.

    Examples
    --------
    >>> from models import IPCA, PCA, canonical_correlations
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> one, other = (model.fit(panel).factor_returns(panel) for model in (IPCA(n_factors=1), PCA(n_factors=1)))
    >>> canonical_correlations(one, other).values.round(1).tolist()
    [1.0]
    """
    dates = factors.indexes["date"].intersection(others.indexes["date"])
    one, other = (
        each.sel(date=dates).transpose("date", "factor").values.astype(np.float64) for each in (factors, others)
    )
    known = np.isfinite(one).all(axis=1) & np.isfinite(other).all(axis=1)
    least = one.shape[1] + other.shape[1] + 2
    if known.sum() < least:
        raise DataError(
            f"{int(known.sum())} dates on which all factors are known are too few for canonical correlations of "
            f"{one.shape[1]} and {other.shape[1]} factors: give {least} or more."
        )
    correlations = np.zeros(min(one.shape[1], other.shape[1]))
    found = scipy.linalg.svdvals(_basis(one[known]).T @ _basis(other[known]))
    correlations[: len(found)] = np.clip(found, 0.0, 1.0)
    pairs = np.arange(1, len(correlations) + 1)
    return xr.DataArray(correlations, {"pair": pairs}, ("pair",), name="canonical_correlations")


def _basis(values: Float64Array) -> Float64Array:
    """Orthonormal basis (date, rank) of columns less their means; units do not matter."""
    centred = values - values.mean(axis=0)
    length, size = np.linalg.norm(centred, axis=0), np.linalg.norm(values, axis=0)
    varies = length > len(values) * np.finfo(np.float64).eps * size
    q, r, _ = scipy.linalg.qr(centred[:, varies] / length[varies], mode="economic", pivoting=True)
    rank = int((np.abs(np.diagonal(r)) > len(values) * np.finfo(np.float64).eps).sum())
    basis: Float64Array = q[:, :rank]
    return basis


def _quantiles(panel: Panel, shares: list[float]) -> Float64Array:
    """Quantiles (share, char) of the rows of covered stocks."""
    covered = panel.coverage.values
    if not covered.any():
        raise DataError("The panel covers no stock: its characteristics have no median.")
    columns = [
        np.quantile(panel.characteristics.isel(char=place).values[covered].astype(np.float64), shares)
        for place in range(len(panel.chars))
    ]
    return np.stack(columns, axis=1) if columns else np.empty((len(shares), 0))


def _place(panel: Panel, name: str) -> int:
    if name not in panel.chars:
        raise DataError(f"The panel lacks the characteristic '{name}'; it has {panel.chars}.")
    return panel.chars.index(name)


def _grid(low: float, high: float, points: int) -> Float64Array:
    """Even values that float32 holds, as those of a panel."""
    return np.linspace(low, high, points).astype(np.float32).astype(np.float64)


def _set(block: Panel, place: int, value: float) -> Panel:
    """Give one characteristic the same value at all rows of covered stocks."""
    values = block.characteristics.values.copy()
    values[block.coverage.values, place] = value
    return Panel(block.data.assign(characteristics=block.characteristics.copy(data=values)))


def _explained(model: FactorModel, block: Panel, own: slice, factors: Float64Array) -> Float64Array:
    """X[t-1] f[t] (date, ticker) with loadings of the rows ``own`` of a block, and factor returns that are given."""
    loadings = model.loadings(block).transpose("date", "ticker", "factor").values[own].astype(np.float64)
    explained: Float64Array = np.einsum("tnk,tk->tn", loadings, factors)
    return explained


def _loadings_at(model: FactorModel, panel: Panel, rows: Float64Array) -> Float64Array:
    """Return loadings (row, factor) of stocks that the model has not met, by their characteristics (row, char).

    Raises
    ------
    ModelError
        If it has none for them, or others for one by itself.
    """
    found, alone = (_loadings_of_unmet(model, panel, some) for some in (rows, rows[:1]))
    size = np.abs(found).max(axis=0, initial=0.0)
    if not np.isfinite(found).all() or not (np.abs(found[:1] - alone) <= 1e-4 * size).all():
        raise ModelError(
            f"The loadings of {type(model).__name__} belong to named stocks or to whole cross-sections and are no "
            "function of a stock's characteristics alone: ask a model such as IPCA or ConditionalAutoencoder."
        )
    return found


def _loadings_of_unmet(model: FactorModel, panel: Panel, rows: Float64Array) -> Float64Array:
    shape = (model.row_memory + 1, len(rows))
    around: dict[str, Any] = {}
    if panel.industries:
        codes = panel.industry.values[panel.coverage.values]
        most = np.bincount(codes[codes >= 0], minlength=len(panel.industries)).argmax()
        around = {"industry": np.full(shape, most, dtype=np.int16), "industries": panel.industries}
    if "factors" in panel.data:
        names = panel.factors["observed_factor"].values
        around |= {"factors": np.full((shape[0], len(names)), np.nan), "observed_factors": names}
    unmet = Panel.from_arrays(
        np.full(shape, np.nan),
        np.broadcast_to(rows, (*shape, rows.shape[1])).astype(np.float32),
        coverage=np.ones(shape, dtype=np.bool_),
        dates=pd.date_range(end=panel.dates[-1], periods=shape[0]),
        tickers=[f"point {place + 1} of the grid" for place in range(len(rows))],
        chars=panel.chars,
        **around,
    )
    found: Float64Array = model.loadings(unmet).transpose("date", "ticker", "factor").values[-1].astype(np.float64)
    return found
