"""From checked market data to the variables of a cube: returns, characteristics, estimation universe, weights.

Here belongs the wiring of pure functions, in the order in which the data need them. Definitions of characteristics and
portfolios belong in `models`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from models.arrays import FloatArray, IntArray
from models.blocks import run_of
from models.characteristics.listings import Listings
from models.characteristics.registry import MarketWeeks, compute, needs_market
from models.panel.assembly import UNKNOWN, order_industries
from models.portfolios.holdings import held_between, priced
from models.portfolios.weights import (
    allocated,
    by_value,
    by_volatility,
    equal_weight,
    fixed,
    long_short,
    trailing_value,
    trailing_volatility,
)
from schemas.checks import declared
from schemas.errors import DataError
from schemas.spec import (
    AllocatedWeights,
    EqualWeight,
    FixedWeights,
    Holdings,
    InverseVolatility,
    LongShort,
    Recipe,
    RunSpec,
    ValueWeight,
)

_HELD, _SUSPECTED, _TRUSTED, _CLOSE, _COMPANY = "held", "suspected", "trusted", "close", "company"
"""What portfolios are made of beside the variables of a cube: where a stock may be held, where a row is suspected, the
returns that nothing suspects, prices, and which company of its ticker a row belongs to."""
_BESIDE = (_HELD, _SUSPECTED, _TRUSTED, _CLOSE, _COMPANY)
SPAN = 256
"""Dates whose weights are made at once, for all tickers."""


@dataclass(frozen=True, eq=False)
class Checked:
    """Some stocks of a market that passed the checks.

    Attributes
    ----------
    market : xarray.Dataset
        (date, ticker) prices or returns, without what was quarantined.
    excluded, refuted : xarray.DataArray
        (date, ticker) bool: rows that a check suspects, and those of them that cannot be true.
    industry : xarray.DataArray or None
        (date, ticker) codes as a cube has them.
    """

    market: xr.Dataset
    excluded: xr.DataArray
    refuted: xr.DataArray
    industry: xr.DataArray | None = None


@dataclass(frozen=True, eq=False)
class Stocks:
    """What is known of some stocks alone, on every session.

    Attributes
    ----------
    own : xarray.Dataset
        Variables of `schemas.contracts.CUBE` (date, ticker) and, for `weights_by_span`, what portfolios are made of.
    scores : xarray.Dataset
        By portfolio (date, company): what its weights are in proportion to; each company of a ticker has its own.
    companies : numpy.ndarray
        (ticker,): how many companies each ticker has.
    """

    own: xr.Dataset
    scores: xr.Dataset
    companies: IntArray


def derive_cube(
    market: xr.Dataset,
    observed: xr.Dataset | None,
    excluded: xr.DataArray,
    sessions: pd.DatetimeIndex,
    spec: RunSpec | Recipe,
    refuted: xr.DataArray | None = None,
) -> xr.Dataset:
    """Compute what a cube stores from market data that passed the checks, all in memory.

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
    industry, names = None, None
    if observed is not None and "industry" in observed:
        codes, names = order_industries(observed["industry"].values, observed["industry_name"].values.tolist())
        industry = observed["industry"].copy(data=codes)
    refuted = xr.zeros_like(excluded) if refuted is None else refuted
    checked = Checked(market, excluded, refuted, industry)
    stocks = stocks_of(checked, sessions, spec, market_weeks([checked], sessions, spec))
    weights = xr.concat(weights_by_span(stocks, spec), "date")
    return cube_of(stocks.own, weights, observed, names, pd.DatetimeIndex(market.indexes["date"]))


def market_weeks(parts: Iterable[Checked], sessions: pd.DatetimeIndex, spec: RunSpec | Recipe) -> FloatArray | None:
    """Go through all stocks for the market that characteristics see (`MarketWeeks.mean`); None if none looks at it."""
    weeks: MarketWeeks | None = None
    if needs_market(spec.characteristics, spec.frequency):
        for part in parts:
            if "characteristics" in part.market:
                break
            grid, suspected, _ = _on_sessions(part, sessions)
            companies = _companies(part.market, grid, spec)
            weeks = weeks or MarketWeeks(grid.sizes["date"])
            weeks.add(companies.apart(grid["returns"]), companies.apart(suspected))
    return None if weeks is None else weeks.mean


def stocks_of(part: Checked, sessions: pd.DatetimeIndex, spec: RunSpec | Recipe, market: FloatArray | None) -> Stocks:
    """Compute what is known of some stocks alone, given the market that characteristics see.

    Parameters
    ----------
    part : Checked
        The stocks.
    sessions, spec
        As `derive_cube` takes them.
    market : numpy.ndarray or None
        As `market_weeks` gives it.
    """
    grid, suspected, gone = _on_sessions(part, sessions)
    returns = grid["returns"]
    companies = _companies(part.market, grid, spec)
    if "characteristics" in grid:
        values = grid["characteristics"].astype(np.float32)
    else:
        fields, doubted = companies.apart(grid), companies.apart(suspected)
        apart = compute(fields, spec.characteristics, spec.frequency, suspected=doubted, market=market)
        values = companies.together(apart, grid["ticker"])
    present = returns.notnull()
    estimation = present & ~suspected
    own = xr.Dataset(
        {
            "returns": returns.astype(np.float32),
            "characteristics": values,
            "estimation": estimation,
            "refuted": suspected & part.refuted.reindex_like(present, fill_value=False),
            _HELD: (present | suspected) & ~gone,
        }
    )
    if part.industry is not None:
        own["industry"] = part.industry.reindex(date=grid["date"], fill_value=UNKNOWN)
    trusted = grid.assign(returns=returns.where(estimation))
    if any(isinstance(item, Holdings) for item in spec.portfolios):
        own[_TRUSTED] = trusted["returns"]
        own = own.assign({_CLOSE: grid["close"]} if "close" in grid else {})
    trailing = [item for item in spec.portfolios if isinstance(item, InverseVolatility | ValueWeight)]
    scores = {}
    if trailing:
        own[_SUSPECTED] = suspected
        own[_COMPANY] = returns.copy(data=companies.number.astype(np.int16))
        fields, doubted = companies.apart(trusted), companies.apart(suspected)
        scores = {item.name: _score(item, fields, doubted).rename(ticker=_COMPANY) for item in trailing}
    ordered = own.drop_attrs().transpose("date", "ticker", "char")
    return Stocks(ordered, xr.Dataset(scores).drop_vars(_COMPANY, errors="ignore").drop_attrs(), companies.companies)


def weights_by_span(stocks: Stocks, spec: RunSpec | Recipe) -> Iterator[xr.DataArray]:
    """Weigh all stocks of a market, which may be lazy, in spans of dates.

    Yields
    ------
    xarray.DataArray
        (portfolio, date, ticker) float32, on every session. What follows a book from one date to the next is made over
        all dates at once.
    """
    names = np.array([item.name for item in spec.portfolios])
    over_time = {
        item.name: _followed(item, stocks.own)
        for item in spec.portfolios
        if isinstance(item, AllocatedWeights | Holdings)
    }
    needed = [name for name in (_HELD, _SUSPECTED, _COMPANY) if name in stocks.own]
    for start in range(0, stocks.own.sizes["date"], SPAN):
        at = {"date": slice(start, start + SPAN)}
        span, scores = stocks.own[needed].isel(at).load(), stocks.scores.isel(at, missing_dims="ignore").load()
        weights = []
        for item in spec.portfolios:
            if isinstance(item, AllocatedWeights | Holdings):
                weights.append(over_time[item.name].isel(at))
            elif isinstance(item, InverseVolatility | ValueWeight):
                companies = Listings(span[_COMPANY].values, stocks.companies)
                weights.append(_by_score(item, span, scores[item.name], companies))
            else:
                weights.append(_by_section(item, span[_HELD], stocks.own["characteristics"].isel(at)))
        yield xr.concat([one.transpose("date", "ticker") for one in weights], "portfolio").assign_coords(
            portfolio=names
        )


def cube_of(
    own: xr.Dataset,
    weights: xr.DataArray,
    observed: xr.Dataset | None,
    industries: Sequence[str] | None,
    dates: pd.DatetimeIndex,
) -> xr.Dataset:
    """Put the variables of a cube together, each of which may be lazy.

    Parameters
    ----------
    own : xarray.Dataset
        Of all stocks, as `stocks_of` gives it.
    weights : xarray.DataArray
        As `weights_by_span` yields it.
    observed : xarray.Dataset or None
        factors (date, observed_factor) and risk_free (date).
    industries : sequence of str or None
        Names of the codes of industries.
    dates : pandas.DatetimeIndex
        Dates of the cube.
    """
    cube = own.drop_vars([name for name in _BESIDE if name in own]).assign(weights=weights)
    cube = cube.isel(date=run_of(own.indexes["date"].get_indexer(dates)))
    if observed is not None:
        for name in ("risk_free", "factors"):
            if name in observed:
                cube[name] = observed[name].reindex(date=dates).astype(np.float32)
    return cube if industries is None else cube.assign_coords(industry_name=np.array(industries, dtype=np.str_))


def _on_sessions(part: Checked, sessions: pd.DatetimeIndex) -> tuple[xr.Dataset, xr.DataArray, xr.DataArray]:
    """Lay a market on every session: fields with returns, rows that are suspected, and rows that were paid out."""
    grid = part.market.reindex(date=sessions.union(pd.DatetimeIndex(part.market.indexes["date"])))
    if "returns" not in grid:
        grid["returns"] = grid["close"] / grid["close"].shift(date=1) - 1.0
    returns = grid["returns"].where(np.isfinite(grid["returns"]))
    gone = xr.zeros_like(returns, dtype=np.bool_)  # paid out at this close: earned, and held no more
    if "delisting_return" in grid:
        gone = grid["delisting_return"].notnull()
        returns = _with_delisting(returns, grid["delisting_return"])
    grid["returns"] = returns
    return grid, part.excluded.reindex_like(returns, fill_value=False), gone


def _companies(market: xr.Dataset, grid: xr.Dataset, spec: RunSpec | Recipe) -> Listings:
    most = declared(spec.checks, spec.frequency)["reused_ticker"].threshold or 0.0
    return Listings.of(market, pd.DatetimeIndex(grid.indexes["date"]), most)


def _with_delisting(returns: xr.DataArray, delisting: xr.DataArray) -> xr.DataArray:
    """Compound returns with delisting returns, or take these where a row has no return of its own.

    As is usual with CRSP's (Beaver, McNichols and Price 2007, "Delisting returns and their effect on accounting-based
    market anomalies"): a delisting return runs from the last price to what holders got.
    """
    paid = delisting.where(np.isfinite(delisting))
    return ((1.0 + returns.fillna(0.0)) * (1.0 + paid) - 1.0).where(paid.notnull(), returns)


def _score(spec: InverseVolatility | ValueWeight, fields: xr.Dataset, suspected: xr.DataArray) -> xr.DataArray:
    """Return what the weights of companies are in proportion to; a suspected value is the one known before it."""
    if isinstance(spec, InverseVolatility):
        return trailing_volatility(fields["returns"], spec.window)
    times = "shares" if spec.value == "market_cap" else "volume"
    if not {"close", times} <= set(fields):
        raise DataError(f"portfolio '{spec.name}' needs close and {times}, which the data source does not name")
    return trailing_value(_as_last_trusted(fields["close"] * fields[times], suspected), spec.window)


def _by_score(
    spec: InverseVolatility | ValueWeight, span: xr.Dataset, score: xr.DataArray, companies: Listings
) -> xr.DataArray:
    held, suspected = (companies.apart(span[name]) for name in (_HELD, _SUSPECTED))
    score = score.rename({_COMPANY: "ticker"}).assign_coords(ticker=held["ticker"])
    if isinstance(spec, InverseVolatility):
        weights = by_volatility(score, held & ~suspected, spec.floor)
    else:
        weights = by_value(score, held)
    return companies.together(weights, span["ticker"])


def _by_section(
    spec: EqualWeight | FixedWeights | LongShort, held: xr.DataArray, characteristics: xr.DataArray
) -> xr.DataArray:
    match spec:
        case EqualWeight():
            return equal_weight(held)
        case FixedWeights(weights=given):
            return fixed(given, held)
        case LongShort(characteristic=name, quantile=quantile):
            if name not in characteristics["char"]:
                known = ", ".join(map(str, characteristics["char"].values)) or "none"
                raise DataError(f"portfolio '{spec.name}' sorts on '{name}', which the cube lacks; it has {known}")
            values = characteristics.sel(char=name, drop=True).load()
            return long_short(values.astype(np.float64), held, quantile)


def _followed(spec: AllocatedWeights | Holdings, own: xr.Dataset) -> xr.DataArray:
    """Return the weights (date, ticker) of a book that is followed from date to date."""
    dated = {pd.Timestamp(one.as_of): one.weights for one in spec.rebalances}
    held = own[_HELD].load()
    if isinstance(spec, AllocatedWeights):
        return allocated(dated, held, spec.name)
    if spec.unit == "shares":
        dated = priced(dated, own.get(_CLOSE), spec.name)
    return held_between(
        dated, own[_TRUSTED].load(), held, spec.name, rebalanced=spec.rebalanced, max_uncovered=spec.max_uncovered
    )


def _as_last_trusted(value: xr.DataArray, suspected: xr.DataArray) -> xr.DataArray:
    """Put in the place of a suspected value the last one before it that nothing suspects."""
    value = value.transpose("date", "ticker")
    before = value.copy(data=pd.DataFrame(value.where(~suspected).values).ffill().to_numpy())
    return value.where(~suspected, before)
