"""Two risk models of one universe on common ground: the same dates, stocks, returns and portfolios.

Here belong pure functions that score a challenger beside a champion, so that a difference between their scores is one
between the models. Scoring one model belongs in `evaluation`; whether a difference is too large is decided elsewhere.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from models.evaluation.forecasts import evaluate
from models.risk.portfolio import RiskModel

CHALLENGER, CHAMPION = "challenger", "champion"
_FORECAST = ["loadings", "loading_scale", "factor_returns", "omega", "specific_variance"]


def held_out_dates(
    challenger: xr.Dataset, champion: xr.Dataset, returns: xr.DataArray, window: int | None = None
) -> pd.DatetimeIndex:
    """Dates on which both were forecasting out of sample, from the same date before.

    Parameters
    ----------
    challenger, champion : xarray.Dataset
        As published (`schemas.contracts.VERSION`).
    returns : xarray.DataArray
        (date, ticker) excess returns.
    window : int, optional
        Keep the last so many; by default all.

    Returns
    -------
    pandas.DatetimeIndex
        Dates of `returns`, in order. A date on which one model lacks the row before (it came late into the cube, or
        the other frequency skips it) does not count: the two would forecast over different periods.
    """
    axis = pd.DatetimeIndex(returns.indexes["date"])
    chosen = np.arange(len(axis)) > 0
    for version in (challenger, champion):
        dates = version.indexes["date"]
        rows = dates.get_indexer(axis)
        chosen[1:] &= (rows[:-1] >= 0) & (np.diff(rows) == 1)
        chosen &= axis.isin(dates[version["out_of_sample"].values.astype(bool)])
    found = axis[chosen]
    return found if window is None else found[-window:]


def compare(
    challenger: xr.Dataset, champion: xr.Dataset, returns: xr.DataArray, mask: xr.DataArray, dates: pd.DatetimeIndex
) -> xr.Dataset:
    """Score two models with the same functions on the same dates, stocks and portfolios.

    A return counts if the stock is in the estimation universe and both models explain it. Portfolios are those that
    both name, with the challenger's weights on the stocks that both cover; their variances are computed again from
    loadings, Omega and specific variance, since losses are comparable for one and the same portfolio only.

    Parameters
    ----------
    challenger, champion : xarray.Dataset
        As published; the number and names of factors, and whatever else only one of them has, do not matter.
    returns, mask : xarray.DataArray
        (date, ticker) excess returns per period and estimation universe.
    dates : pandas.DatetimeIndex
        From `held_out_dates`; at least one.

    Returns
    -------
    xarray.Dataset
        ``total_r2`` (version), pooled; ``qlike`` (version, portfolio), the mean over the dates on which the champion
        has one, for portfolios that the champion has forecast and that hold stocks that it covers; ``qlike_difference``
        (date), the challenger's less the champion's, mean over the portfolios of the date; ``coverage`` (),
        the share of the returns explained by the champion that the challenger explains too. A score is NaN where the
        challenger fails to forecast what the champion does, ``coverage`` if the champion explains nothing.
    """
    span = _span(returns, dates)
    tickers = sorted(set(champion.indexes["ticker"]) & set(returns.indexes["ticker"]))
    counted = span.isin(dates)
    scored = xr.DataArray(counted, dims="date", coords={"date": span})
    models = [_cut(version, span, tickers) for version in (challenger, champion)]
    covered = [_covered(model) for model in models]
    explained = [
        cover.shift(date=1, fill_value=False) & xr.ufuncs.isfinite(model["factor_returns"]).all("factor")
        for cover, model in zip(covered, models, strict=True)
    ]
    realised = returns.sel(date=span, ticker=tickers)
    known = mask.sel(date=span, ticker=tickers).astype(bool) & xr.ufuncs.isfinite(realised) & explained[1] & scored
    weights = _common_weights(challenger, champion, span, dates, tickers)
    shared = abs(weights.where(covered[1], 0.0)).sum("ticker", skipna=False) != 0.0
    weights = weights.isel(portfolio=shared.any("date").values)
    weights = weights.where((covered[0] & covered[1]) | xr.ufuncs.isnan(weights), 0.0)
    scores = [_score(model, weights, realised, known & explained[0]) for model in models]
    reference = xr.ufuncs.isfinite(scores[1]["qlike"]) & scored
    result = xr.Dataset(coords={"version": [CHALLENGER, CHAMPION], "portfolio": weights["portfolio"].values})
    result["total_r2"] = ("version", [_pooled_r2(score, scored) for score in scores])
    losses = [
        score["qlike"].where(reference, 0.0).sum("date", skipna=False)
        / reference.sum("date").where(reference.any("date"))
        for score in scores
    ]
    result["qlike"] = (("version", "portfolio"), np.stack([loss.values for loss in losses]))
    apart = (scores[0]["qlike"] - scores[1]["qlike"]).where(reference, 0.0).sum("portfolio", skipna=False)
    n_portfolios = reference.sum("portfolio")
    result["qlike_difference"] = (apart / n_portfolios.where(n_portfolios > 0)).sel(date=dates)
    total = int(known.sum())
    result["coverage"] = int((known & explained[0]).sum()) / total if total else np.nan
    return result


def _span(returns: xr.DataArray, dates: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """Take the dates of returns from the one before the first scored date to the last."""
    axis = pd.DatetimeIndex(returns.indexes["date"])
    first, last = axis.get_indexer(dates[[0, -1]])
    return axis[first - 1 : last + 1]


def _cut(version: xr.Dataset, span: pd.DatetimeIndex, tickers: list[str]) -> xr.Dataset:
    """Load what is forecast, on these dates and tickers; NaN where the version has none."""
    part = version[[name for name in _FORECAST if name in version]]
    inside = {"date": span[span.isin(part.indexes["date"])], "ticker": _kept(part, "ticker", tickers)}
    loaded = part.sel(inside).load().reindex(date=span, ticker=tickers)
    specific = loaded["specific_variance"]
    return loaded.assign(specific_variance=specific.where(specific >= 0.0)).drop_attrs()


def _kept(version: xr.Dataset, dim: str, labels: list[str]) -> list[str]:
    there = set(version.indexes[dim])
    return [label for label in labels if label in there]


def _covered(model: xr.Dataset) -> xr.DataArray:
    """Whether loadings and specific variance are known (date, ticker)."""
    risk = RiskModel(model["loadings"], model["omega"], model["specific_variance"])
    return risk.covered.transpose("date", "ticker")


def _common_weights(
    challenger: xr.Dataset, champion: xr.Dataset, span: pd.DatetimeIndex, dates: pd.DatetimeIndex, tickers: list[str]
) -> xr.DataArray:
    """Return the challenger's weights of the portfolios that the champion has forecast on these dates."""
    forecast = champion["qlike"].sel(date=dates).notnull().any("date")
    names = _kept(challenger, "portfolio", sorted(forecast["portfolio"].values[forecast.values].tolist()))
    rows, held = span[span.isin(challenger.indexes["date"])], _kept(challenger, "ticker", tickers)
    weights = challenger["weights"].sel(portfolio=names, date=rows, ticker=held).load().drop_attrs()
    return weights.reindex(ticker=tickers, fill_value=0.0).reindex(date=span)


def _score(model: xr.Dataset, weights: xr.DataArray, returns: xr.DataArray, mask: xr.DataArray) -> xr.Dataset:
    variance = RiskModel(model["loadings"], model["omega"], model["specific_variance"]).variance(weights)
    kept = [name for name in ("loadings", "loading_scale", "factor_returns") if name in model]
    version = model[kept].assign(weights=weights, portfolio_variance=variance)
    return evaluate(version, returns, mask)


def _pooled_r2(score: xr.Dataset, scored: xr.DataArray) -> float:
    totals: npt.NDArray[np.float64] = np.array(
        [score[name].where(scored).sum("date") for name in ("total_sse", "total_sst")]
    )
    return float(1.0 - totals[0] / totals[1]) if totals[1] > 0.0 else np.nan
