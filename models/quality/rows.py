"""Flags of single rows, (date, ticker): what is wrong with a bar or a return.

Here belong rules of one row and its own past. The three rules of jumps belong in `jumps`; how many flags
are too many is declared in `schemas.checks`.

A rule is left out when the data do not allow it. Every flag at t is known at the close of t, except
`reversed_jump`, which looks up to `jumps.LOOKAHEAD` sessions ahead: at the end of the data it is
provisional, and a later ingest may add to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr

from models.arrays import BoolArray, FloatArray
from models.quality import jumps
from models.quality.arrays import previous

PRICES = ("open", "high", "low", "close")


@dataclass(frozen=True)
class RowFlags:
    """Flags of rows by rule, and the numbers that a reader of a flag wants to see.

    Attributes
    ----------
    flags : dict of str to ndarray (date, ticker)
        True where the rule of that name objects.
    evidence : dict of str to ndarray (date, ticker)
        Simple return; and, of daily prices, the abnormal return in sigmas and turnover over its usual level.
    """

    flags: dict[str, BoolArray]
    evidence: dict[str, FloatArray]

    @property
    def any_jump(self) -> BoolArray | None:
        """Where any of the rules of jumps objects."""
        found = [self.flags[name] for name in jumps.RULES if name in self.flags]
        return np.logical_or.reduce(found) if found else None


def flag_rows(market: xr.Dataset, thresholds: Mapping[str, float], frequency: Literal["daily", "monthly"]) -> RowFlags:
    """Flag the rows of a market dataset.

    Parameters
    ----------
    market : xarray.Dataset
        Any of open, high, low, close, volume, shares, returns, each (date, ticker); dates ascend.
    thresholds : Mapping
        By name of the rule, in the rule's own unit: see `schemas.checks.CHECKS`.
    frequency : {"daily", "monthly"}
        Jumps are looked for in daily data only.

    Returns
    -------
    RowFlags
        One array per rule that the data allow.
    """
    fields = {str(name): market[name].values for name in market.data_vars if market[name].ndim == 2}
    flags: dict[str, BoolArray] = {}
    bars = {name: fields[name] for name in PRICES if name in fields}
    if bars:
        flags["nonpositive_price"] = _nonpositive_price(bars, thresholds["nonpositive_price"])
    if len(bars) > 1:
        flags["impossible_bar"] = _impossible_bar(bars, thresholds["impossible_bar"])
    amounts = [fields[name] for name in ("volume", "shares") if name in fields]
    if amounts:
        flags["negative_volume"] = np.logical_or.reduce([_negative(amount) for amount in amounts])
    if "returns" in fields:
        flags["impossible_return"] = _impossible_return(fields["returns"], thresholds["impossible_return"])
    returns = period_returns(market)
    if returns is None:
        return RowFlags(flags, {})
    flags["stale_price"] = _stale_price(returns, round(thresholds["stale_price"]))
    flags["return_bound"] = np.abs(returns) > thresholds["return_bound"]
    evidence = {"return": returns}
    if frequency == "daily":
        moves = jumps.measure(returns, fields)
        flags |= jumps.flag(moves, thresholds)
        evidence["sigmas"] = moves.abnormal / moves.scale
        if moves.turnover is not None:
            evidence["turnover"] = moves.turnover
    return RowFlags(flags, evidence)


def period_returns(market: xr.Dataset) -> FloatArray | None:
    """Return simple returns per period, (date, ticker), as given or from positive closes; None with neither."""
    if "returns" in market:
        returns: FloatArray = market["returns"].values
        return returns
    if "close" not in market:
        return None
    close = market["close"].values.astype(np.float64)
    close = np.where(np.isfinite(close) & (close > 0.0), close, np.nan)
    return close / previous(close) - 1.0


def _nonpositive_price(bars: Mapping[str, FloatArray], threshold: float) -> BoolArray:
    wrong: BoolArray = np.logical_or.reduce([np.isinf(p) | (p <= threshold) for p in bars.values()])
    return wrong


def _impossible_bar(bars: Mapping[str, FloatArray], tolerance: float) -> BoolArray:
    """Whether a price lies above the high or below the low by more than rounding; a missing one cannot."""
    top = np.fmax.reduce(list(bars.values()))
    bottom = np.fmin.reduce(list(bars.values()))
    slack = tolerance * np.abs(top)
    wrong = np.zeros(top.shape, dtype=np.bool_)
    if "high" in bars:
        wrong |= top > bars["high"] + slack
    if "low" in bars:
        wrong |= bottom < bars["low"] - slack
    return wrong


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
