"""Jumps that news does not explain: bad prints, spin-offs, special dividends, unadjusted splits.

Here belong the statistic of a jump and the three rules that use it. Rules that need none belong in `rows`.

A jump is measured as in Lee and Mykland (2008, "Jumps in financial markets", definition 1): the return over a trailing
volatility from bipower variation (Barndorff-Nielsen and Shephard, 2004), which one jump in the window moves little. The
return is the stock's log return less the median of that date, so that a crash of the market is not a jump of each
stock.

News makes people trade. A jump is *confirmed* by turnover of three times its usual level, and of more beyond ten
sigmas, growing with the square root of the jump; then nothing here objects to it. A price that jumps between a close
and the next open, on ordinary turnover, was moved by something else: cash or shares were paid out, or the number is
wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from models.arrays import BoolArray, FloatArray
from models.quality.arrays import previous, section_median, trailing_mean

RULES = ("reversed_jump", "unconfirmed_jump", "split_like_jump")
LOOKAHEAD = 5
"""Sessions within which a reversed jump must be undone."""

WINDOW = 63
LEAST = 20
LARGEST_RETURN = 0.5
LEAST_SCALE = 0.005
CONFIRMING_TURNOVER = 3.0
CONFIRMED_SIGMAS = 10.0
OVERNIGHT_SHARE = 0.7
_FACTORS = np.array([1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 20.0, 50.0, 100.0])
SPLIT_LOGS = np.sort(np.log(np.concatenate([_FACTORS, 1.0 / _FACTORS])))
SPLIT_TOLERANCE = 0.03


@dataclass(frozen=True)
class Moves:
    """How far each stock moved, and what else is known of the move; all (date, ticker), NaN where unknown.

    Attributes
    ----------
    abnormal : ndarray
        Log return less the median log return of the date.
    scale : ndarray
        Volatility of `abnormal` per period, from the dates before, not below 0.5%.
    overnight : ndarray or None
        The part of the move between the close before and the open; None without opens.
    turnover : ndarray or None
        Traded shares, or their value where that is less, over the geometric mean of the dates before: a split changes
        the one and a bad print the other, news raises both. None without volumes.
    prices : bool
        Whether the returns come from prices: a split can only hide there.
    """

    abnormal: FloatArray
    scale: FloatArray
    overnight: FloatArray | None
    turnover: FloatArray | None
    prices: bool

    def jump(self, sigmas: float) -> BoolArray:
        """Where the move is of at least so many sigmas and turnover does not confirm it."""
        size = np.abs(self.abnormal) / self.scale
        large: BoolArray = size >= sigmas
        if self.turnover is None:
            return large
        confirming = CONFIRMING_TURNOVER * np.sqrt(np.maximum(size / CONFIRMED_SIGMAS, 1.0))
        return large & ~(self.turnover >= confirming)

    def overnight_by(self, share: float) -> BoolArray:
        """Where at least this share of the move was made overnight; everywhere if opens are not known."""
        if self.overnight is None:
            return np.ones(self.abnormal.shape, dtype=np.bool_)
        agreed: BoolArray = self.overnight * np.sign(self.abnormal) >= share * np.abs(self.abnormal)
        return agreed


def measure(returns: FloatArray, fields: Mapping[str, FloatArray]) -> Moves:
    """Measure the moves of daily data; returns are simple, `fields` may hold open, close and volume."""
    abnormal = _abnormal(np.log1p(np.where(returns > -1.0, returns, np.nan)))
    capped = np.abs(np.clip(abnormal, -LARGEST_RETURN, LARGEST_RETURN))
    bipower = 0.5 * np.pi * trailing_mean(capped * previous(capped), WINDOW, LEAST)
    scale = np.maximum(np.sqrt(bipower), LEAST_SCALE)
    prices = "returns" not in fields
    overnight = turnover = None
    if prices and "open" in fields:
        overnight = _abnormal(_log(fields["open"]) - previous(_log(fields["close"])))
    if "close" in fields and "volume" in fields:
        shares = _log(fields["volume"])
        money = shares + _log(fields["close"])
        turnover = np.exp(np.minimum(_over_usual(shares), _over_usual(money)))
    return Moves(abnormal, scale, overnight, turnover, prices)


def flag(moves: Moves, thresholds: Mapping[str, float]) -> dict[str, BoolArray]:
    """Apply the rules that the data allow; thresholds are in sigmas, by name of the rule."""
    flags = {"reversed_jump": reversed_jump(moves, thresholds["reversed_jump"])}
    if moves.overnight is not None and moves.turnover is not None:
        flags["unconfirmed_jump"] = unconfirmed_jump(moves, thresholds["unconfirmed_jump"])
    if moves.prices:
        flags["split_like_jump"] = split_like_jump(moves, thresholds["split_like_jump"])
    return flags


def reversed_jump(moves: Moves, sigmas: float) -> BoolArray:
    """Both ends of an excursion: an unconfirmed jump, and the move within days that undoes it.

    With opens known, both moves must be made overnight for the most part, and half of the jump undone is
    enough, since true news mixes with bad prints. Without, a wild market is hard to tell from a bad print,
    and three quarters must be.
    """
    move = moves.abnormal
    undone = 0.75 if moves.overnight is None else 0.5
    overnight = moves.overnight_by(0.5)
    entry = moves.jump(sigmas) & overnight
    flags = np.zeros(move.shape, dtype=np.bool_)
    level = move
    for days in range(1, min(LOOKAHEAD, len(move) - 1) + 1):
        first, last = move[:-days], move[days:]
        level = level[:-1] + last  # the move from the close before the first date to the last date
        size = np.abs(first)
        back = (first * last < 0.0) & (np.abs(last) >= undone * size)
        found = entry[:-days] & overnight[days:] & back & (np.abs(level) <= (1.0 - undone) * size)
        flags[:-days] |= found
        flags[days:] |= found
    return flags


def unconfirmed_jump(moves: Moves, sigmas: float) -> BoolArray:
    """Jumps made overnight for the most part that turnover does not confirm."""
    return moves.jump(sigmas) & moves.overnight_by(OVERNIGHT_SHARE)


def split_like_jump(moves: Moves, sigmas: float) -> BoolArray:
    """Unconfirmed jumps to within 2 sigmas, and 3%, of a ratio of splits: 3:2, and 2 to 100 for one."""
    candidates = moves.jump(sigmas) & (np.abs(moves.abnormal) >= np.log(1.5) - SPLIT_TOLERANCE)
    flags = np.zeros(candidates.shape, dtype=np.bool_)
    move = moves.abnormal[candidates]
    distance = np.abs(move[:, None] - SPLIT_LOGS).min(axis=1, initial=np.inf)
    flags[candidates] = distance <= np.minimum(2.0 * moves.scale[candidates], SPLIT_TOLERANCE)
    return flags


def _log(values: FloatArray) -> FloatArray:
    positive = np.isfinite(values) & (values > 0.0)
    return np.log(np.where(positive, values, np.nan), dtype=np.float64)


def _over_usual(values: FloatArray) -> FloatArray:
    return values - trailing_mean(values, WINDOW, LEAST // 2)


def _abnormal(values: FloatArray) -> FloatArray:
    return values - section_median(values)
