"""Risk beside something else: covariance with other portfolios, beta, tracking error, and what trades would change.

Here belongs what two sets of weights say of each other under one `RiskModel`, in factor form: with exposures x = X'w
and y = X'v, Cov(r_w, r_v) = x' Omega y + w' D v. The risk of a portfolio by itself belongs in `portfolio`, its parts
in `contributions`.

Weights are as `RiskModel` takes them, and are covered, undefined or unknown by its rules: a weight other than zero on
a ticker that is not covered makes every number of the portfolio NaN.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from models.risk.portfolio import RiskModel, Weights
from schemas.errors import DataError


def covariance(model: RiskModel, weights: Weights, others: xr.DataArray, *, dim: str = "other") -> xr.DataArray:
    """Covariance of portfolios with others, x' Omega y + w' D v.

    Parameters
    ----------
    model : RiskModel
    weights : xarray.DataArray
        ([portfolio,] [date,] ticker).
    others : xarray.DataArray
        ([`dim`,] [date,] ticker).
    dim : str
        Name of the axis of the others.

    Returns
    -------
    xarray.DataArray
        ([portfolio,] [date,] [`dim`]) float64, in squared decimals per period.

    Raises
    ------
    DataError
        If a dimension, ticker or date is not the model's.

    Examples
    --------
    >>> import xarray as xr
    >>> from models import covariance
    >>> from models.risk.example import example_risk
    >>> model = example_risk()
    >>> others = xr.DataArray([[0.0, 1.0]], {"other": ["second"], "ticker": ["A", "B"]}, ("other", "ticker"))
    >>> covariance(model, {"A": 1.0}, others).values.round(6).tolist()
    [0.00045]
    """
    second = others.rename({dim: "portfolio"}) if dim in others.dims else others
    back = {"portfolio": dim} if dim in others.dims else {}
    ours, theirs = model.exposures(weights), model.exposures(second).rename(back)
    priced = xr.dot(model.omega, theirs.rename(factor="factor_"), dim="factor_")
    varying = model.specific_variance.where(model.covered, 0.0).astype(np.float64)
    shared = xr.dot(held(model, weights) * varying, held(model, second).rename(back), dim="ticker")
    found: xr.DataArray = xr.dot(ours, priced, dim="factor") + shared
    return found.transpose("portfolio", "date", dim, missing_dims="ignore")


def active_weights(model: RiskModel, weights: Weights, benchmark: Weights) -> xr.DataArray:
    """Weights less those of a benchmark, on all tickers of the model; a ticker that either leaves out has none there.

    Parameters
    ----------
    model : RiskModel
    weights : xarray.DataArray
        ([portfolio,] [date,] ticker).
    benchmark : xarray.DataArray
        ([date,] ticker).

    Returns
    -------
    xarray.DataArray
        ([portfolio,] [date,] ticker) float64. Whatever a `RiskModel` says of these weights is active risk.

    Raises
    ------
    DataError
        If the benchmark is more than one portfolio, or a label is unknown.

    Examples
    --------
    >>> from models import active_weights
    >>> from models.risk.example import example_risk
    >>> model = example_risk()
    >>> active_weights(model, {"A": 1.0}, [0.25, 0.25, 0.25, 0.25]).values.tolist()
    [0.75, -0.25, -0.25, -0.25]
    """
    difference = held(model, weights) - held(model, _require_one(model, benchmark))
    return difference.transpose("portfolio", "date", "ticker", missing_dims="ignore")


def tracking_error(model: RiskModel, weights: Weights, benchmark: Weights) -> xr.DataArray:
    """Volatility of the active weights per period, ([portfolio,] [date]); see `active_weights`.

    Examples
    --------
    >>> from models import tracking_error
    >>> from models.risk.example import example_risk
    >>> model = example_risk()
    >>> round(float(tracking_error(model, {"A": 1.0}, [0.25, 0.25, 0.25, 0.25])), 4)
    0.0141
    """
    return model.volatility(active_weights(model, weights, benchmark))


def beta(model: RiskModel, weights: Weights, benchmark: Weights) -> xr.DataArray:
    """Predicted beta to a benchmark, Cov(r_P, r_B) / Var(r_B), ([portfolio,] [date]).

    Parameters and errors are those of `active_weights`. NaN where either is not defined, or the benchmark has no risk.

    Examples
    --------
    >>> from models import beta
    >>> from models.risk.example import example_risk
    >>> model = example_risk()
    >>> round(float(beta(model, {"A": 1.0}, [0.25, 0.25, 0.25, 0.25])), 2)
    0.94
    """
    benchmark = _require_one(model, benchmark)
    variance = model.variance(benchmark)
    found = covariance(model, weights, benchmark) / variance.where(variance > 0.0)
    return found.transpose("portfolio", "date", missing_dims="ignore")


def active_risk(model: RiskModel, weights: xr.DataArray, benchmarks: Mapping[str, str]) -> xr.Dataset:
    """Beta and tracking error of portfolios whose benchmarks are portfolios too, as a version publishes them.

    With 2 Cov(r_P, r_B) = Var(r_P) + Var(r_B) - Var(r_P - r_B) all comes from variances, which the dates beside a date
    do not round: one date has the bits of many.

    Parameters
    ----------
    model : RiskModel
    weights : xarray.DataArray
        (portfolio, [date,] ticker), of portfolios and benchmarks.
    benchmarks : mapping of str to str
        Portfolio to its benchmark.

    Returns
    -------
    xarray.Dataset
        ``portfolio_beta`` and ``tracking_error`` (portfolio, [date]), per period; NaN for portfolios without benchmark.

    Raises
    ------
    DataError
        If a name is not that of a portfolio.

    Examples
    --------
    >>> import numpy as np
    >>> from models.risk.benchmark import active_risk
    >>> from models.risk.example import example_risk
    >>> model = example_risk()
    >>> held = model.labelled_weights(np.array([[1.0, 0.0, 0.0, 0.0], [0.25] * 4]))
    >>> held = held.assign_coords(portfolio=["fund", "index"])
    >>> active_risk(model, held, {"fund": "index"})["portfolio_beta"].values.round(2).tolist()
    [0.94, nan]
    """
    known = weights.indexes["portfolio"]
    for name in (*benchmarks, *benchmarks.values()):
        if name not in known:
            raise DataError(f"There is no portfolio '{name}' to have or to be a benchmark; known: {', '.join(known)}.")
    ours, theirs = (held(model, weights.sel(portfolio=list(names))) for names in (benchmarks, benchmarks.values()))
    theirs = theirs.assign_coords(portfolio=ours["portfolio"])
    active, own, other = (model.variance(each) for each in (ours - theirs, ours, theirs))
    found = {
        "portfolio_beta": (own + other - active) / (2.0 * other.where(other > 0.0)),
        "tracking_error": active**0.5,
    }
    return xr.Dataset(found).reindex(portfolio=known)


def incremental_risk(model: RiskModel, weights: Weights, trades: xr.DataArray) -> xr.Dataset:
    """How each trade of a list would change the risk of each portfolio, each by itself and all at once.

    The change of variance by a trade v is exactly 2 Cov(r_P, r_v) + Var(r_v); to first order it is 2 Cov(r_P, r_v).
    A trade's cash leg carries no risk and need not be written.

    Parameters
    ----------
    model : RiskModel
    weights : xarray.DataArray
        ([portfolio,] [date,] ticker) before the trades.
    trades : xarray.DataArray
        (trade, ticker) changes of weight, bought above and sold below zero; one trade may have several tickers.

    Returns
    -------
    xarray.Dataset
        ``variance_change``, ``volatility_change`` and ``marginal_variance_change`` ([portfolio,] [date,] trade), and
        ``variance_change_of_all`` and ``volatility_change_of_all`` ([portfolio,] [date]), per period. Changes of single
        trades do not sum to that of all, as trades have covariances; the marginal ones do, to first order.

    Raises
    ------
    DataError
        If trades are not (trade, ticker), or a ticker is unknown.

    Examples
    --------
    >>> import xarray as xr
    >>> from models import incremental_risk
    >>> from models.risk.example import example_risk
    >>> model = example_risk()
    >>> trades = xr.DataArray([[-0.1, 0.1]], {"trade": ["swap"], "ticker": ["A", "D"]}, ("trade", "ticker"))
    >>> found = incremental_risk(model, {"A": 1.0}, trades)
    >>> found["variance_change"].values.round(6).tolist()
    [-5.1e-05]
    """
    if set(trades.dims) != {"trade", "ticker"}:
        raise DataError(f"trades has dimensions {trades.dims}; it needs (trade, ticker).")
    before = model.variance(weights)
    marginal = 2.0 * covariance(model, weights, trades, dim="trade")
    each = marginal + model.variance(trades.rename(trade="portfolio")).rename(portfolio="trade")
    after_all = model.variance(held(model, weights) + held(model, trades.sum("trade", skipna=False)))
    changes = {
        "variance_change": each,
        "volatility_change": (before + each).clip(min=0.0) ** 0.5 - before**0.5,
        "marginal_variance_change": marginal,
        "variance_change_of_all": after_all - before,
        "volatility_change_of_all": after_all**0.5 - before**0.5,
    }
    ordered = ("portfolio", "date", "trade")
    return xr.Dataset({name: part.transpose(*ordered, missing_dims="ignore") for name, part in changes.items()})


def held(model: RiskModel, weights: Weights) -> xr.DataArray:
    """Weights in float64 on the tickers of a model, zero where one is left out.

    Raises
    ------
    DataError
        If a ticker is unknown to the model, or there twice.
    """
    weights = model.labelled_weights(weights)
    tickers = model.loadings.indexes["ticker"]
    given = weights.indexes["ticker"]
    unknown = given.difference(tickers)
    if len(unknown) or not given.is_unique:
        what = f"does not know: {unknown[0]}" if len(unknown) else f"would hold twice: {given[given.duplicated()][0]}"
        raise DataError(f"weights has a ticker that the risk model {what}.")
    return weights.astype(np.float64).drop_attrs().reindex(ticker=tickers, fill_value=0.0)


def _require_one(model: RiskModel, benchmark: Weights) -> xr.DataArray:
    labelled = model.labelled_weights(benchmark)
    if "portfolio" in labelled.dims:
        raise DataError("The benchmark has a dimension 'portfolio'; choose one of them: it needs ([date,] ticker).")
    return labelled
