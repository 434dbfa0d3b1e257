"""What a portfolio's volatility is made of: by factor, by ticker, by group of tickers.

Here belong marginal and total contributions to volatility, in decimals per period. Volatility is homogeneous of degree
one in weights, so that by Euler's theorem the total contributions, each an amount times its marginal contribution,
add up to it (Litterman 1996, Hot spots and hedges; Meucci 2007, Risk contributions from generic user-defined factors).
Contributions to variance are methods of `RiskModel`.

In every result ``contribution`` = amount x ``marginal``, and NaN is as `RiskModel` has it; also where the volatility is
zero, which has no gradient.
"""

from __future__ import annotations

import pandas as pd
import xarray as xr

from models.risk.benchmark import held
from models.risk.portfolio import RiskModel, Weights
from schemas.errors import DataError


def volatility_by_factor(model: RiskModel, weights: Weights) -> xr.Dataset:
    """Exposure, marginal and total contribution of each factor, and what is specific.

    Parameters
    ----------
    model : RiskModel
    weights : xarray.DataArray
        ([portfolio,] [date,] ticker).

    Returns
    -------
    xarray.Dataset
        ``exposure`` x, ``marginal`` (Omega x)_k / sigma, ``contribution`` (portfolio, date, factor), ``specific`` and
        ``volatility`` sigma (portfolio, date). Contributions and ``specific`` sum to ``volatility``.

    Examples
    --------
    >>> from models import volatility_by_factor
    >>> from models.risk.example import example_risk
    >>> model = example_risk()
    >>> parts = volatility_by_factor(model, {"A": 1.0})
    >>> parts["contribution"].values.round(4).tolist()
    [0.0163, 0.0041]
    """
    exposure = model.exposures(weights)
    volatility = _positive(model.volatility(weights))
    priced = xr.dot(model.omega, exposure.rename(factor="factor_"), dim="factor_")
    marginal = _ordered(priced / volatility, "factor")
    return xr.Dataset(
        {
            "exposure": exposure,
            "marginal": marginal,
            "contribution": exposure * marginal,
            "specific": model.specific(weights) / volatility,
            "volatility": volatility,
        }
    )


def volatility_by_ticker(model: RiskModel, weights: Weights) -> xr.Dataset:
    """Weight, marginal and total contribution of each ticker.

    Parameters
    ----------
    model : RiskModel
    weights : xarray.DataArray
        ([portfolio,] [date,] ticker).

    Returns
    -------
    xarray.Dataset
        ``weight``, ``marginal`` (Sigma w)_i / sigma, the gradient of the volatility, and ``contribution`` (portfolio,
        date, ticker); ``volatility`` sigma (portfolio, date). Contributions sum to ``volatility``. The marginal
        contribution of a ticker that is not covered is NaN, its contribution zero as it may have no weight.

    Examples
    --------
    >>> from models import volatility_by_ticker
    >>> from models.risk.example import example_risk
    >>> model = example_risk()
    >>> parts = volatility_by_ticker(model, {"A": 0.5, "B": 0.5})
    >>> parts["contribution"].values.round(4).tolist()
    [0.0114, 0.0117, 0.0, 0.0]
    """
    volatility = _positive(model.volatility(weights))
    return xr.Dataset(
        {
            "weight": _ordered(held(model, weights), "ticker"),
            "marginal": model.marginal(weights) / volatility,
            "contribution": model.asset_contributions(weights) / volatility,
            "volatility": volatility,
        }
    )


def volatility_by_group(model: RiskModel, weights: Weights, groups: xr.DataArray | pd.Series) -> xr.Dataset:
    """Weight, marginal and total contribution of each group of tickers.

    Parameters
    ----------
    model : RiskModel
    weights : xarray.DataArray
        ([portfolio,] [date,] ticker).
    groups : xarray.DataArray or pandas.Series
        (ticker) label of each ticker's group, such as its sector; it may have more tickers than are held.

    Returns
    -------
    xarray.Dataset
        ``weight`` net weight of the group, ``marginal`` change of volatility per unit of it if the group is scaled as
        it stands, and ``contribution`` (portfolio, date, group); ``volatility`` (portfolio, date). Contributions sum
        to ``volatility``; those of a group without net weight too, though it has no marginal one.

    Raises
    ------
    DataError
        If a ticker that has a weight has no group.

    Examples
    --------
    >>> import pandas as pd
    >>> from models import volatility_by_group
    >>> from models.risk.example import example_risk
    >>> model = example_risk()
    >>> groups = pd.Series(["x", "x", "y", "y"], index=["A", "B", "C", "D"])
    >>> parts = volatility_by_group(model, {"A": 0.5, "C": 0.5}, groups)
    >>> parts["contribution"].values.round(4).tolist()
    [0.0111, 0.0102]
    """
    labels = group_labels(model, weights, groups)
    parts = volatility_by_ticker(model, weights)
    sums = parts[["weight", "contribution"]].groupby(labels).sum(skipna=False)
    weight, contribution = (_ordered(sums[name], "group") for name in ("weight", "contribution"))
    return xr.Dataset(
        {
            "weight": weight,
            "marginal": contribution / weight.where(weight != 0.0),
            "contribution": contribution,
            "volatility": parts["volatility"],
        }
    )


def group_labels(model: RiskModel, weights: Weights, groups: xr.DataArray | pd.Series) -> xr.DataArray:
    """Return the group of every ticker of a model as text, "" where a ticker without weight has none.

    Raises
    ------
    DataError
        If a ticker that has a weight has no group, or one has two.
    """
    series = groups.to_series() if isinstance(groups, xr.DataArray) else groups
    if not series.index.is_unique:
        raise DataError(f"groups has the ticker {series.index[series.index.duplicated()][0]} twice.")
    tickers = model.loadings.indexes["ticker"]
    known = series.reindex(tickers)
    holds = held(model, weights) != 0.0
    used = holds.any([dim for dim in holds.dims if dim != "ticker"])
    bare = known.isna().to_numpy() & used.values
    if bare.any():
        raise DataError(f"{tickers[bare][0]} has a weight and no group; {int(bare.sum())} tickers lack one.")
    text = known.astype(object).where(known.notna(), "").astype(str)
    return xr.DataArray(text.to_numpy(), {"ticker": tickers}, ("ticker",), name="group")


def _positive(volatility: xr.DataArray) -> xr.DataArray:
    return volatility.where(volatility > 0.0)


def _ordered(array: xr.DataArray, *last: str) -> xr.DataArray:
    return array.transpose("portfolio", "date", *last, missing_dims="ignore")
