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

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from models.arrays import BoolArray, FloatArray
from models.quality.arrays import SectionMedians, previous, trailing_mean

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
_FACTORS = np.array([1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 15.0, 20.0, 25.0, 30.0, 50.0, 100.0])
SPLIT_RATIOS = np.concatenate([_FACTORS, 1.0 / _FACTORS])
"""Shares after a split for one before."""
SPLIT_SIGMAS = 4.0
SPLIT_TOLERANCE = (0.05, 0.12)
USUAL_SCALE = 0.02
"""Volatility per day of a stock that none is known of, nor of any other on that date."""


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
    usual : ndarray
        Median of `scale` over all stocks of a date, (date, 1); 2% where nothing is known.
    """

    abnormal: FloatArray
    scale: FloatArray
    overnight: FloatArray | None
    turnover: FloatArray | None
    prices: bool
    usual: FloatArray

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


Part = tuple[FloatArray, Mapping[str, FloatArray]]
"""Simple returns (date, ticker) of some stocks, and what is known beside them, as `measure` takes both."""


@dataclass(frozen=True)
class Sections:
    """What all stocks of a date did, by which the move of one is judged; each (date, 1), NaN where not known.

    Attributes
    ----------
    returns, overnight : ndarray
        Median log return, and median log move from the close before to the open; the latter None without opens.
    scale : ndarray
        Median of `Moves.scale`.
    """

    returns: FloatArray
    overnight: FloatArray | None
    scale: FloatArray

    @classmethod
    def of(cls, dates: int, parts: Callable[[], Iterable[Part]]) -> Sections:
        """Go twice through all stocks of a market, some at a time."""
        moved, opened, scales = (SectionMedians(dates) for _ in range(3))
        known = False
        for returns, fields in parts():
            moved.add(_logs(returns))
            overnight = _overnight(fields)
            if overnight is not None:
                known = True
                opened.add(overnight)
        medians = moved.medians()
        for returns, _ in parts():
            scales.add(_scale(_logs(returns) - medians))
        return cls(medians, opened.medians() if known else None, scales.medians())


def measure(returns: FloatArray, fields: Mapping[str, FloatArray], sections: Sections | None = None) -> Moves:
    """Measure the moves of daily data.

    Parameters
    ----------
    returns : ndarray
        Simple returns (date, ticker).
    fields : mapping
        May hold open, close and volume, (date, ticker).
    sections : Sections, optional
        Medians of the whole market, if these are not all of its stocks.
    """
    sections = sections or Sections.of(len(returns), lambda: [(returns, fields)])
    abnormal = _logs(returns) - sections.returns
    overnight, turnover = _overnight(fields), None
    if overnight is not None and sections.overnight is not None:
        overnight = overnight - sections.overnight
    if "close" in fields and "volume" in fields:
        shares = _log(fields["volume"])
        money = shares + _log(fields["close"])
        turnover = np.exp(np.minimum(_over_usual(shares), _over_usual(money)))
    usual = np.where(np.isfinite(sections.scale), sections.scale, USUAL_SCALE)
    return Moves(abnormal, _scale(abnormal), overnight, turnover, "returns" not in fields, usual)


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
    """Unconfirmed jumps to within 4 sigmas (5% to 12%) of a ratio of splits: 3:2, 5:2, and 2 to 100 for one.

    On the day of a split a stock moves as on any other day, by more than 2 sigmas on one of fifteen. Where the open is
    known, the move up to it may be near the ratio instead: a split is all there at the open. A stock too young to have
    a scale is given that of the others.
    """
    candidates, distances = split_distances(moves, sigmas)
    flags = np.zeros(moves.abnormal.shape, dtype=np.bool_)
    flags[candidates] = distances.min(axis=(0, 2), initial=np.inf) <= split_tolerance(moves, candidates)
    return flags


def split_distances(moves: Moves, sigmas: float) -> tuple[BoolArray, FloatArray]:
    """Find the jumps that may be splits, and how far they are from each ratio.

    Returns
    -------
    candidates : ndarray (date, ticker)
    distances : ndarray (part, jump, ratio)
        Of the whole move, and of its overnight part where that is known, from each of `SPLIT_RATIOS`, in logs; jumps in
        the order of ``candidates``. Infinite where not known.
    """
    candidates = replace(moves, scale=usual_scale(moves)).jump(sigmas) & (
        np.abs(moves.abnormal) >= np.log(1.5) - SPLIT_TOLERANCE[1]
    )
    parts = [part[candidates] for part in (moves.abnormal, moves.overnight) if part is not None]
    distances = np.abs(np.stack(parts)[:, :, None] + np.log(SPLIT_RATIOS))
    return candidates, np.where(np.isfinite(distances), distances, np.inf)


def split_tolerance(moves: Moves, candidates: BoolArray) -> FloatArray:
    """How far a jump may be from a ratio of splits, in logs, of the candidates."""
    tolerance: FloatArray = np.clip(SPLIT_SIGMAS * usual_scale(moves)[candidates], *SPLIT_TOLERANCE)
    return tolerance


def usual_scale(moves: Moves) -> FloatArray:
    """Scale of each move, or, of a stock that has none yet, the median of the date; (date, ticker)."""
    return np.where(np.isfinite(moves.scale), moves.scale, moves.usual)


def _logs(returns: FloatArray) -> FloatArray:
    logs: FloatArray = np.log1p(np.where(returns > -1.0, returns, np.nan))
    return logs


def _overnight(fields: Mapping[str, FloatArray]) -> FloatArray | None:
    """Log move from the close before to the open; None without opens."""
    if "returns" in fields or "open" not in fields:
        return None
    return _log(fields["open"]) - previous(_log(fields["close"]))


def _scale(abnormal: FloatArray) -> FloatArray:
    capped = np.abs(np.clip(abnormal, -LARGEST_RETURN, LARGEST_RETURN))
    bipower = 0.5 * np.pi * trailing_mean(capped * previous(capped), WINDOW, LEAST)
    scale: FloatArray = np.maximum(np.sqrt(bipower), LEAST_SCALE)
    return scale


def _log(values: FloatArray) -> FloatArray:
    positive = np.isfinite(values) & (values > 0.0)
    return np.log(np.where(positive, values, np.nan), dtype=np.float64)


def _over_usual(values: FloatArray) -> FloatArray:
    return values - trailing_mean(values, WINDOW, LEAST // 2)
