"""From what a book holds, on some dates, to its weights on all dates: values, shares, drift between the dates.

Holdings of a date are known at its close, and held from it on. Weights by rule, and how what is not covered is made up
for, belong in `weights`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr

from models.portfolios.weights import rescaled
from schemas.base import first_of
from schemas.errors import DataError

_LEAST_NET = 0.05
"""Share of the gross value below which the net value says nothing of the size of a book."""
_SHOWN = 5


def weights_of_values(values: pd.Series, name: str) -> pd.Series:
    """Return market values over their sum.

    Parameters
    ----------
    values : pandas.Series
        By ticker, sold short below zero.
    name : str
        Of the book, for messages.

    Raises
    ------
    DataError
        If a value is not finite, or longs and shorts leave next to nothing, so that weights cannot be told.
    """
    amounts = values.astype(np.float64)
    if not np.isfinite(amounts).all():
        raise DataError(f"{name}: the value of {amounts.index[~np.isfinite(amounts)][0]} is not a finite number.")
    net, gross = float(amounts.sum()), float(amounts.abs().sum())
    if not net > _LEAST_NET * gross:
        raise DataError(
            f"{name}: its values sum to {net:g} with {gross:g} held long and short, which is no size to take weights "
            "of; give a column `weight`, in parts of the book's capital"
        )
    return amounts / net


def priced(
    dated: Mapping[pd.Timestamp, Mapping[str, float]], close: xr.DataArray | None, name: str
) -> dict[pd.Timestamp, dict[str, float]]:
    """Return weights of shares by the closes of the first date at or after that of the holdings.

    Parameters
    ----------
    dated : mapping
        Date to ticker to number of shares.
    close : xarray.DataArray or None
        (date, ticker) prices as paid on their date, not adjusted for what came later.
    name : str
        Of the portfolio, for messages.

    Returns
    -------
    dict
        Date to ticker to weight, of the dates that are priced. A ticker without a price keeps none.

    Raises
    ------
    DataError
        If there are no prices, or a ticker that is held has none on its date.
    """
    if close is None:
        raise DataError(
            f"portfolio '{name}' is given in shares, and the universe has no prices; give values or weights."
        )
    dates, found = close.indexes["date"], {}
    for day, shares in dated.items():
        row = dates.searchsorted(day, side="left")
        if row == len(dates):
            continue
        prices = close.isel(date=row).to_series().reindex([*shares])
        bare = prices.index[~(prices > 0.0)]
        if len(bare):
            raise DataError(
                f"portfolio '{name}' holds shares of {bare[0]} on {day:%Y-%m-%d}, which has no price that date "
                f"({len(bare)} tickers have none); leave it out, or give values in place of shares."
            )
        values = prices * pd.Series(dict(shares), dtype=np.float64)
        weights = weights_of_values(values, f"portfolio '{name}' on {day:%Y-%m-%d}")
        found[day] = dict(zip(weights.index.map(str), weights.tolist(), strict=True))
    return found


def held_between(
    dated: Mapping[pd.Timestamp, Mapping[str, float]],
    returns: xr.DataArray,
    coverage: xr.DataArray,
    name: str,
    *,
    rebalanced: bool = False,
    max_uncovered: float = 0.05,
) -> xr.DataArray:
    """Hold the weights of each date from its close until the next, drifting with returns, over covered stocks.

    A position grows with the returns since its date, a missing one counts as none; cash, what the weights lack to 1,
    does not grow. What is not covered is made up for by its side, as in `weights.rescaled`.

    Parameters
    ----------
    dated : mapping
        Date to ticker to weight. Between two dates of the axis the last one counts.
    returns : xarray.DataArray
        (date, ticker) simple returns per period, NaN where missing or not trusted.
    coverage : xarray.DataArray
        (date, ticker) bool: what can be held.
    name : str
        Of the portfolio, for messages.
    rebalanced : bool
        Bring the weights back to those of their date every period: no drift.
    max_uncovered : float
        Most of the gross weight that may lie on unknown or uncovered tickers when weights begin to be held.

    Returns
    -------
    xarray.DataArray
        (date, ticker) float32; NaN before the first date.

    Raises
    ------
    DataError
        If nothing is held on any date, too much is not covered, or losses leave nothing of a book.
    """
    dates, tickers = coverage.indexes["date"], coverage.indexes["ticker"]
    days = sorted(dated)
    first = dates.searchsorted(pd.DatetimeIndex(days), side="left")
    if not days or first[0] == len(dates):
        raise DataError(f"portfolio '{name}' has no holdings on or before the last date of the universe; give some.")
    weights = xr.full_like(coverage, np.nan, dtype=np.float32).transpose("date", "ticker")
    for day, start, stop in zip(days, first, [*first[1:], len(dates)], strict=True):
        if start < stop:
            span = {"date": slice(int(start), int(stop))}
            given = pd.Series(dict(dated[day]), dtype=np.float64).rename_axis("ticker")
            axis = tickers.append(given.index.difference(tickers)).rename("ticker")
            covered = coverage.isel(span).reindex(ticker=axis, fill_value=False).transpose("date", "ticker")
            _refuse_uncovered(
                given, covered.isel(date=0).to_series(), f"portfolio '{name}' on {day:%Y-%m-%d}", max_uncovered
            )
            start_weights = given.reindex(axis, fill_value=0.0).to_xarray()
            target = start_weights.broadcast_like(covered)
            if not rebalanced:
                target = _drifted(start_weights, returns.isel(span).reindex(ticker=axis), name)
            weights[span] = rescaled(target, covered).sel(ticker=tickers).transpose("date", "ticker").values
    return weights.drop_attrs().rename("weights")


def _drifted(weights: xr.DataArray, returns: xr.DataArray, name: str) -> xr.DataArray:
    """Weights (date, ticker) of positions that are bought at the first close and left alone."""
    later = returns.fillna(0.0).astype(np.float64)
    later = later.where(later["date"] > later["date"][0], 0.0)
    value = weights * (1.0 + later).cumprod("date")
    capital = value.sum("ticker") + (1.0 - weights.sum("ticker"))
    if not (capital > 0.0).all():
        day = capital.indexes["date"][np.argmax(capital.values <= 0.0)]
        raise DataError(
            f"portfolio '{name}' has lost all of its capital by {day:%Y-%m-%d}; give holdings of later dates."
        )
    return value / capital


def _refuse_uncovered(given: pd.Series, covered: pd.Series, what: str, most: float) -> None:
    missing = given[~covered.reindex(given.index)].abs().sort_values(ascending=False, kind="stable")
    share = float(missing.sum() / given.abs().sum())
    if share > most:
        names = first_of([*missing.index], _SHOWN)
        raise DataError(
            f"{what}: {share:.1%} of its gross weight is on tickers that the universe does not have or that cannot be "
            f"held that date ({names}), more than max_uncovered {most:.1%}; add them to the data, or raise it."
        )


def unknown_shares(dated: Mapping[pd.Timestamp, Mapping[str, float]], tickers: pd.Index) -> pd.Series:
    """Return the tickers that a universe does not have, with the largest part of the gross amount each has on a date.

    Parameters
    ----------
    dated : mapping
        Date to ticker to weight or shares.
    tickers : pandas.Index
        Those of the universe.
    """
    amounts = pd.DataFrame({day: pd.Series(dict(of_day), dtype=np.float64) for day, of_day in dated.items()}).abs()
    shares = (amounts / amounts.sum()).max(axis=1).sort_values(ascending=False, kind="stable")
    return shares[~shares.index.isin(tickers)]
