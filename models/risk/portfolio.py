"""Portfolio risk through factors: Var(r_P) = x' Omega x + w' D w with exposures x = X' w.

Here belongs what follows from given loadings, Omega and specific variance. How these are estimated belongs in
`covariance` and `specific`, how portfolios are formed in `portfolios`. No ticker x ticker matrix is ever
formed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from models.arrays import BoolArray, Float64Array, FloatArray
from schemas.base import first_of
from schemas.errors import DataError

Weights = xr.DataArray | pd.Series | pd.DataFrame | Mapping[str, float] | FloatArray
"""Weights as `RiskModel.labelled_weights` reads them."""

if TYPE_CHECKING:
    from models.risk.book import VersionRisk
    from models.risk.plotting import RiskPlot


@dataclass(frozen=True, eq=False)
class RiskModel:
    """Loadings, factor covariance and specific variance, all as of a date, and the risk that they imply.

    Any part may do without its ``date``; it then holds on all dates. Tickers, factors and dates are matched
    by label, whatever their order: those of the parts must be the same, those of weights a subset (a ticker
    left out has no weight), and a label that the model does not know is an error. Stored numbers may be
    float32; sums are in float64.

    A ticker is *covered* on a date if all its loadings and its specific variance are known. A portfolio with
    a weight other than zero on a ticker that is not covered has no variance (NaN), since leaving the ticker
    out would understate its risk; `uncovered_weight` says how much it is. A NaN weight means that the
    portfolio is not defined.

    Parameters
    ----------
    loadings : xarray.DataArray
        ([date,] ticker, factor).
    omega : xarray.DataArray
        ([date,] factor, factor_) variance per period.
    specific_variance : xarray.DataArray
        ([date,] ticker) variance per period.

    Raises
    ------
    DataError
        If dimensions are others, labels are not the same or not unique, or a specific variance is negative.

    Notes
    -----
    ``weights`` is always ([portfolio,] [date,] ticker); another dimension, or an unknown or repeated label,
    raises DataError. What may be given in place of a DataArray says `labelled_weights`. Results have those of
    ``portfolio`` and ``date`` that the weights or the model have. Variances are per period, in squared decimals. By
    Euler's theorem the contributions of factors sum to the systematic variance, and those of assets to the variance.

    Examples
    --------
    >>> from models.risk.example import example_risk
    >>> model = example_risk()
    >>> weights = {"A": 0.5, "B": 0.5}
    >>> round(float(model.variance(weights)), 7)
    0.0005313
    >>> model.factor_contributions(weights).values.round(7).tolist()
    [0.0004, 5.62e-05]
    """

    loadings: xr.DataArray
    omega: xr.DataArray
    specific_variance: xr.DataArray

    def __post_init__(self) -> None:
        _require_dims(self.loadings, "loadings", "ticker", "factor")
        _require_dims(self.omega, "omega", "factor", "factor_")
        _require_dims(self.specific_variance, "specific_variance", "ticker")
        factors, tickers = self.loadings.indexes["factor"], self.loadings.indexes["ticker"]
        parts = {
            "loadings": _matched(self.loadings, "loadings", factor=factors, ticker=tickers),
            "omega": _matched(self.omega, "omega", factor=factors, factor_=factors),
            "specific_variance": _matched(self.specific_variance, "specific_variance", ticker=tickers),
        }
        dates = _dates(*parts.values())
        for name, part in parts.items():
            dated = {} if dates is None or "date" not in part.dims else {"date": dates}
            object.__setattr__(self, name, _matched(part, name, **dated))
        negative = (self.specific_variance < 0.0).any([dim for dim in ("date",) if dim in self.specific_variance.dims])
        if negative.any():
            raise DataError(f"The specific variance of {tickers[negative.values][0]} is negative.")

    @staticmethod
    def open(address: str | Path) -> VersionRisk:
        """Open a published version for the risk of any book; see `models.risk.book`.

        Parameters
        ----------
        address : str or Path
            Path or URL of the version; on a disk also its link ``latest``, which is followed once.

        Raises
        ------
        PublishError
            If there is no published version at the address.
        """
        from models.risk.book import VersionRisk, open_rows

        return VersionRisk(open_rows(address))

    @cached_property
    def covered(self) -> xr.DataArray:
        """Whether loadings and specific variance are known, ([date,] ticker)."""
        loaded: xr.DataArray = xr.ufuncs.isfinite(self.loadings).all("factor")
        varying: xr.DataArray = xr.ufuncs.isfinite(self.specific_variance)
        return loaded & varying

    def labelled_weights(self, weights: Weights) -> xr.DataArray:
        """Weights as a DataArray ([portfolio,] [date,] ticker).

        Parameters
        ----------
        weights : xarray.DataArray, pandas.Series, pandas.DataFrame, mapping of str to float, or array_like
            A DataArray is taken as it is. A Series or a mapping is by ticker; a DataFrame has tickers as its columns,
            and rows that are dates if its index is one of dates, else portfolios. An array without labels is
            ([portfolio,] ticker), in the order of the model's tickers, all of them.

        Raises
        ------
        DataError
            If they are no numbers, or an array without labels has another number of tickers.
        """
        if isinstance(weights, xr.DataArray):
            return weights
        tickers = self.loadings.indexes["ticker"]
        if isinstance(weights, pd.DataFrame):
            rows = "date" if isinstance(weights.index, pd.DatetimeIndex) else "portfolio"
            labels = {rows: weights.index.to_numpy(), "ticker": weights.columns.to_numpy()}
        elif isinstance(weights, pd.Series | Mapping):
            weights = pd.Series(weights)
            labels = {"ticker": weights.index.to_numpy()}
        else:
            shape = np.shape(weights)
            if len(shape) not in {1, 2} or shape[-1] != len(tickers):
                raise DataError(
                    f"weights has shape {shape} and no labels, but the risk model has {len(tickers)} tickers; give a "
                    "pandas Series by ticker, or an array with all tickers in the order of the model."
                )
            labels = {"ticker": tickers.to_numpy()}
        try:
            values = np.asarray(weights, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"weights must be numbers: {error}.") from error
        dims = [*labels] if values.ndim == len(labels) else ["portfolio", *labels]
        return xr.DataArray(values, labels, dims)

    @property
    def plot(self) -> RiskPlot:
        """Pictures as of one date: ``plot.by_factor(weights)``, ``plot.by_ticker(weights)``."""
        from models.risk.plotting import RiskPlot

        return RiskPlot(self)

    def exposures(self, weights: Weights) -> xr.DataArray:
        """Return the portfolio's loadings x = X' w, (portfolio, date, factor)."""
        w = self._aligned(weights)
        x = _by_date(_exposures, (w, self.covered, self.loadings), (_HELD, ("ticker",), ("ticker", "factor")), "factor")
        return _ordered(x, "factor").where(self._defined(w))

    def factor_contributions(self, weights: Weights) -> xr.DataArray:
        """Euler contributions x_k (Omega x)_k to the systematic variance, (portfolio, date, factor)."""
        return self._contributions(self.exposures(weights))

    def systematic(self, weights: Weights) -> xr.DataArray:
        """Systematic variance x' Omega x, (portfolio, date)."""
        return self.factor_contributions(weights).sum("factor", skipna=False)

    def specific(self, weights: Weights) -> xr.DataArray:
        """Specific variance w' D w, (portfolio, date)."""
        w = self._aligned(weights)
        parts = (w, self.covered, self.specific_variance)
        return _ordered(_by_date(_specific, parts, (_HELD, ("ticker",), ("ticker",)))).where(self._defined(w))

    def variance(self, weights: Weights) -> xr.DataArray:
        """Portfolio variance, systematic plus specific, (portfolio, date)."""
        return self.systematic(weights) + self.specific(weights)

    def volatility(self, weights: Weights) -> xr.DataArray:
        """Square root of the portfolio variance, per period, (portfolio, date)."""
        return self.variance(weights) ** 0.5

    def marginal(self, weights: Weights) -> xr.DataArray:
        """Covariance of each stock with the portfolio, X Omega x + D w: half the gradient of the variance.

        Dimensions are (portfolio, date, ticker); NaN where the ticker is not covered.
        """
        return self._marginal(weights).where(self.covered)

    def asset_contributions(self, weights: Weights) -> xr.DataArray:
        """Euler contributions w_i (X Omega x + D w)_i to the variance, (portfolio, date, ticker)."""
        return _ordered(self._aligned(weights) * self._marginal(weights), "ticker")

    def uncovered_weight(self, weights: Weights) -> xr.DataArray:
        """Share of the gross weight that lies on tickers that are not covered, (portfolio, date)."""
        gross = abs(self._aligned(weights))
        missing = xr.dot(gross, (~self.covered).astype(np.float64), dim="ticker")
        return _ordered(missing / gross.sum("ticker", skipna=False))

    def decompose(self, weights: Weights) -> xr.Dataset:
        """Portfolio variance and its parts, under the names of a published version.

        Returns
        -------
        xarray.Dataset
            ``portfolio_variance``, ``portfolio_variance_systematic``, ``portfolio_variance_specific``
            (portfolio, date), ``portfolio_variance_factor`` and ``portfolio_exposure`` (portfolio, date, factor),
            float64.
        """
        exposure, specific = self.exposures(weights), self.specific(weights)
        factor = self._contributions(exposure)
        systematic = factor.sum("factor", skipna=False)
        return xr.Dataset(
            {
                "portfolio_variance": systematic + specific,
                "portfolio_variance_systematic": systematic,
                "portfolio_variance_specific": specific,
                "portfolio_variance_factor": factor,
                "portfolio_exposure": exposure,
            }
        )

    # Zeros where not covered: a weight of zero there counts for nothing; `_defined` turns others into NaN.
    @cached_property
    def _filled_loadings(self) -> xr.DataArray:
        return self.loadings.where(self.covered, 0.0)

    @cached_property
    def _filled_specific(self) -> xr.DataArray:
        return self.specific_variance.where(self.covered, 0.0)

    def _defined(self, w: xr.DataArray) -> xr.DataArray:
        return ~((w != 0.0) & ~self.covered).any("ticker")

    def _contributions(self, x: xr.DataArray) -> xr.DataArray:
        return _ordered(x * self._times_omega(x), "factor")

    def _times_omega(self, x: xr.DataArray) -> xr.DataArray:
        cores = (("portfolio", "factor"), ("factor", "factor_"))
        return _by_date(np.matmul, (x, self.omega), cores, "factor_").rename(factor_="factor")

    def _marginal(self, weights: Weights) -> xr.DataArray:
        priced = self._times_omega(self.exposures(weights))
        systematic = xr.dot(self._filled_loadings, priced, dim="factor")
        return _ordered(systematic + self._filled_specific * self._aligned(weights), "ticker")

    def _aligned(self, weights: Weights) -> xr.DataArray:
        """Weights in float64 on the tickers of the model, zero where a ticker was left out."""
        weights = self.labelled_weights(weights)
        if "ticker" not in weights.dims or not {"portfolio", "date", "ticker"}.issuperset(weights.dims):
            raise DataError(f"weights has dimensions {weights.dims}; it needs ([portfolio,] [date,] ticker).")
        tickers = self.loadings.indexes["ticker"]
        _require_known(weights.indexes["ticker"], tickers, "weights", "ticker")
        dates = _dates(self.loadings, self.omega, self.specific_variance)
        if "date" in weights.dims and dates is not None:
            _require_known(weights.indexes["date"], dates, "weights", "date")
        aligned = weights.astype(np.float64).drop_attrs()
        return aligned.reindex(ticker=tickers, fill_value=0.0)


def _dates(*parts: xr.DataArray) -> pd.Index | None:
    return next((part.indexes["date"] for part in parts if "date" in part.dims), None)


_HELD = ("portfolio", "ticker")


def _by_date(
    function: Callable[..., Any], parts: Sequence[xr.DataArray], cores: Sequence[tuple[str, ...]], *last: str
) -> xr.DataArray:
    """Apply a function of arrays of one date to each date by itself: the dates beside it do not round it."""
    single = "portfolio" not in parts[0].dims
    first = parts[0].expand_dims("portfolio") if single else parts[0]
    found: xr.DataArray = xr.apply_ufunc(
        function,
        first,
        *parts[1:],
        input_core_dims=[list(core) for core in cores],
        output_core_dims=[["portfolio", *last]],
        vectorize=True,
        join="inner",
        output_dtypes=[np.float64],
    )
    return found.isel(portfolio=0, drop=True) if single else found


def _exposures(weights: Float64Array, covered: BoolArray, loadings: FloatArray) -> Float64Array:
    """X'w of one date (portfolio, factor) over covered stocks; others must have no weight."""
    exposures: Float64Array = weights[:, covered] @ loadings[covered].astype(np.float64)
    return exposures


def _specific(weights: Float64Array, covered: BoolArray, variance: FloatArray) -> Float64Array:
    """W'Dw of one date (portfolio,) over covered stocks."""
    specific: Float64Array = np.square(weights[:, covered]) @ variance[covered].astype(np.float64)
    return specific


def _ordered(array: xr.DataArray, *last: str) -> xr.DataArray:
    return array.transpose("portfolio", "date", *last, missing_dims="ignore")


def _require_dims(part: xr.DataArray, name: str, *dims: str) -> None:
    if set(part.dims) - {"date"} != set(dims):
        raise DataError(f"{name} has dimensions {part.dims}; it needs ([date,] {', '.join(dims)}).")


def _require_known(labels: pd.Index, known: pd.Index, name: str, dim: str) -> None:
    unknown = labels.difference(known)
    if len(unknown):
        raise DataError(f"{name} has a {dim} the risk model does not know: {first_of([*map(str, unknown)], 5)}.")
    if not labels.is_unique:
        raise DataError(f"{name} has a {dim} twice: {labels[labels.duplicated()][0]}.")


def _matched(part: xr.DataArray, name: str, **labels: pd.Index) -> xr.DataArray:
    """Bring the labels of a part into the given order; they must be the same ones."""
    for dim, wanted in labels.items():
        _require_known(part.indexes[dim], wanted, name, dim)
        missing = wanted.difference(part.indexes[dim])
        if len(missing):
            raise DataError(f"{name} lacks the {dim} {missing[0]} that another part of the risk model has.")
        if not part.indexes[dim].equals(wanted):
            part = part.sel({dim: wanted})
    return part.drop_attrs()
