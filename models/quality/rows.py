"""Flags of single rows, (date, ticker): what is wrong with a bar or a return.

Here belong rules of one row and its own past. Which part of a wrong bar is wrong belongs in `bars`, the three
rules of jumps in `jumps`; how many flags are too many is declared in `schemas.checks`.

A rule is left out when the data do not allow it. Every flag at t is known at the close of t, except
`reversed_jump`, which looks up to `jumps.LOOKAHEAD` sessions ahead: at the end of the data it is
provisional, and a later ingest may add to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from models.arrays import BoolArray, FloatArray, IntArray
from models.blocks import Blocks
from models.quality import bars, jumps
from models.quality.arrays import previous
from models.quality.bars import PRICES


@dataclass(frozen=True)
class RowFlags:
    """Flags of rows by rule, and the numbers that a reader of a flag wants to see.

    Attributes
    ----------
    flags : dict of str to ndarray (date, ticker)
        True where the rule of that name objects.
    evidence : dict of str to ndarray (date, ticker)
        Simple return; return over a gap without prices; and, of daily prices, the abnormal return in sigmas
        and turnover over its usual level.
    blamed : dict of str to dict of str to ndarray (date, ticker)
        By rule and field: where that field is wrong and the rest of the row is not. A row that is flagged
        and not here is wrong as a whole.
    """

    flags: dict[str, BoolArray]
    evidence: dict[str, FloatArray]
    blamed: dict[str, dict[str, BoolArray]] = field(default_factory=dict)

    def spread(self, kept: BoolArray) -> RowFlags:
        """Put flags that were made of some dates of a dataset onto all of its dates, given which (date) those are."""

        def flags(values: BoolArray) -> BoolArray:
            out = np.zeros((len(kept), *values.shape[1:]), dtype=np.bool_)
            out[kept] = values
            return out

        def numbers(values: FloatArray) -> FloatArray:
            out = np.full((len(kept), *values.shape[1:]), np.nan)
            out[kept] = values
            return out

        return RowFlags(
            {rule: flags(found) for rule, found in self.flags.items()},
            {name: numbers(seen) for name, seen in self.evidence.items()},
            {rule: {name: flags(at) for name, at in fields.items()} for rule, fields in self.blamed.items()},
        )


@dataclass(frozen=True)
class Flagged:
    """The rows of a market that one rule flags, by date and then ticker; all arrays are (row,).

    Attributes
    ----------
    date, ticker : ndarray
        Positions along the axes of the market.
    fields : list of str
        Fields that the rule can blame alone.
    blamed : ndarray
        Which of them it does, a bit each; 0 where the whole row is wrong.
    values : dict of str to ndarray
        Evidence, and what the row says.
    """

    date: IntArray
    ticker: IntArray
    fields: list[str]
    blamed: IntArray
    values: dict[str, FloatArray]

    def __len__(self) -> int:
        return len(self.date)

    @classmethod
    def of(cls, market: xr.Dataset, rows: RowFlags, first: int) -> dict[str, Flagged]:
        """Return what each rule flags of some tickers, the first of which stands at a position of the market's axis."""
        shown = rows.evidence | {
            str(name): array.values for name, array in market.data_vars.items() if array.dims == ("date", "ticker")
        }
        found = {}
        for rule, flags in rows.flags.items():
            places = np.nonzero(flags)
            blamed = np.zeros(len(places[0]), dtype=np.int64)
            fields = rows.blamed.get(rule, {})
            for bit, wrong in enumerate(fields.values()):
                blamed += wrong[places].astype(np.int64) << bit
            values = {name: array[places] for name, array in shown.items()}
            found[rule] = cls(places[0], places[1] + first, list(fields), blamed, values)
        return found

    def among(self, start: int, stop: int | None = None) -> Flagged:
        """Return the rows of a span of dates, by position."""
        return self.chosen((self.date >= start) & (self.date < (np.inf if stop is None else stop)))

    def moved(self, dates: int, places: IntArray) -> Flagged:
        """Return the same rows where dates stand so many positions later, and tickers at given places."""
        return replace(self, date=self.date + dates, ticker=places[self.ticker])

    def chosen(self, rows: BoolArray | IntArray) -> Flagged:
        """Return some of the rows."""
        values = {name: array[rows] for name, array in self.values.items()}
        return Flagged(self.date[rows], self.ticker[rows], self.fields, self.blamed[rows], values)

    @classmethod
    def joined(cls, parts: Sequence[Flagged]) -> Flagged:
        """Join what one rule flags of all blocks of a market."""
        date, ticker = (np.concatenate([getattr(part, name) for part in parts]) for name in ("date", "ticker"))
        fields = max((part.fields for part in parts), key=len)
        blamed = np.concatenate([part.blamed for part in parts])
        values = {name: np.concatenate([part.values[name] for part in parts]) for name in parts[0].values}
        return cls(date, ticker, fields, blamed, values).chosen(np.lexsort((ticker, date)))


def rows_by_date(found: Sequence[Flagged], dates: int) -> IntArray:
    """Count the rows of each date that any of some rules flags, (date,)."""
    date, ticker = (np.concatenate([getattr(each, axis) for each in found]) for axis in ("date", "ticker"))
    width = ticker.max(initial=0) + 1
    return np.bincount(np.unique(date * width + ticker) // width, minlength=dates)


def flag_rows(
    market: xr.Dataset,
    thresholds: Mapping[str, float],
    frequency: Literal["daily", "monthly"],
    sections: jumps.Sections | None = None,
    before: FloatArray | None = None,
) -> RowFlags:
    """Flag the rows of a market dataset, or of some of its tickers.

    Parameters
    ----------
    market : xarray.Dataset
        Any of open, high, low, close, volume, shares, returns, delisting_return, each (date, ticker); dates
        ascend.
    thresholds : Mapping
        By name of the rule, in the rule's own unit: see `schemas.checks.CHECKS`.
    frequency : {"daily", "monthly"}
        Jumps are looked for in daily data only.
    sections : models.quality.jumps.Sections, optional
        What the whole market did, as from `sections_of`, if these are not all of its tickers.
    before : ndarray (ticker,), optional
        Last price above zero before the first date, by which `lost_return` knows what a gap lost that began earlier.

    Returns
    -------
    RowFlags
        One array per rule that the data allow.
    """
    fields = _fields(market)
    flags, blamed = _impossible(fields, thresholds)
    returns = period_returns(market)
    if returns is None:
        return RowFlags(flags, {}, blamed)
    flags["stale_price"] = _stale_price(returns, round(thresholds["stale_price"]))
    flags["return_bound"] = np.abs(returns) > thresholds["return_bound"]
    evidence = {"return": returns}
    if "returns" not in fields:
        over_gap = _return_over_gap(fields, before)
        flags["lost_return"] = np.abs(over_gap) > thresholds["lost_return"]
        evidence["over_gap"] = over_gap
    if frequency == "daily":
        moves = jumps.measure(returns, fields, sections)
        flags |= jumps.flag(moves, thresholds)
        evidence["sigmas"] = moves.abnormal / moves.scale
        if moves.turnover is not None:
            evidence["turnover"] = moves.turnover
    return RowFlags(flags, evidence, blamed)


def sections_of(blocks: Blocks) -> jumps.Sections | None:
    """Return what the whole market did on each date, for `flag_rows` of its blocks; None without prices or returns."""
    if period_returns(blocks.head) is None:
        return None

    def parts() -> Iterator[jumps.Part]:
        for block in blocks:
            returns = period_returns(block)
            if returns is not None:
                yield returns, _fields(block)

    return jumps.Sections.of(len(blocks.dates), parts)


def _fields(market: xr.Dataset) -> dict[str, FloatArray]:
    return {str(name): array.values for name, array in market.data_vars.items() if array.ndim == 2}


def _impossible(
    fields: Mapping[str, FloatArray], thresholds: Mapping[str, float]
) -> tuple[dict[str, BoolArray], dict[str, dict[str, BoolArray]]]:
    """Flag what cannot be, whatever was before: flags by rule, and by rule and field what alone is wrong."""
    flags: dict[str, BoolArray] = {}
    blamed: dict[str, dict[str, BoolArray]] = {}
    prices = {name: fields[name] for name in PRICES if name in fields}
    if prices:
        flags["nonpositive_price"], blamed["nonpositive_price"] = bars.nonpositive(
            prices, thresholds["nonpositive_price"]
        )
    if len(prices) > 1:
        flags["impossible_bar"], blamed["impossible_bar"] = bars.impossible(prices, thresholds["impossible_bar"])
    amounts: dict[str, BoolArray] = {name: _negative(fields[name]) for name in ("volume", "shares") if name in fields}
    if amounts:
        flags["negative_volume"] = np.logical_or.reduce(list(amounts.values()))
        blamed["negative_volume"] = amounts
    given = {
        name: _impossible_return(fields[name], thresholds["impossible_return"])
        for name in ("returns", "delisting_return")
        if name in fields
    }
    if given:
        flags["impossible_return"] = np.logical_or.reduce(list(given.values()))
        blamed["impossible_return"] = {name: wrong for name, wrong in given.items() if name != "returns"}
    return flags, blamed


def period_returns(market: xr.Dataset) -> FloatArray | None:
    """Return simple returns per period, (date, ticker), as given or from positive closes; None with neither."""
    if "returns" in market:
        returns: FloatArray = market["returns"].values
        return returns
    if "close" not in market:
        return None
    close = _positive(market["close"].values)
    return close / previous(close) - 1.0


def _positive(close: FloatArray) -> FloatArray:
    known: FloatArray = np.where(np.isfinite(close) & (close > 0.0), close, np.nan).astype(np.float64)
    return known


def _return_over_gap(fields: Mapping[str, FloatArray], before: FloatArray | None) -> FloatArray:
    """Return from the last known close, at the first close after dates without one; NaN elsewhere.

    It belongs to no period, and so no model ever sees it. A close of zero after a positive one is a loss of
    all. A delisting return says what was paid, and then nothing is lost.
    """
    close = fields["close"].astype(np.float64)
    worthless = close == 0.0
    ended = _positive(close)
    last = previous(pd.DataFrame(ended).ffill().to_numpy(dtype=np.float64))
    if before is not None:
        last = np.where(np.isnan(last), before, last)
    after_gap = np.isnan(previous(ended)) & np.isfinite(ended)
    went_to_zero = worthless & ~np.isnan(previous(ended))
    over = np.where(went_to_zero, -1.0, np.where(after_gap, ended / last - 1.0, np.nan))
    if "delisting_return" in fields:
        over = np.where(np.isfinite(fields["delisting_return"]), np.nan, over)
    return over


def _negative(amount: FloatArray) -> BoolArray:
    wrong: BoolArray = (amount < 0.0) | np.isinf(amount)
    return wrong


def _impossible_return(returns: FloatArray, loss: float) -> BoolArray:
    wrong: BoolArray = np.isinf(returns) | (returns < -loss)
    return wrong


def _stale_price(returns: FloatArray, periods: int) -> BoolArray:
    """Whether the price has not changed over the last `periods` periods; a missing return ends a run."""
    position = np.arange(len(returns))[:, None]
    moved = np.where(returns == 0.0, -1, position)
    last_move = np.maximum.accumulate(moved, axis=0)
    stale: BoolArray = position - last_move >= max(1, periods)
    return stale
