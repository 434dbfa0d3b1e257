"""Size and liquidity: prices times volumes, turnover, spreads, and days without trade.

Here belong characteristics that need more than returns. Month k is the k-th block of ``month`` sessions
counted back from the date t, and month 1 ends at t itself. Definitions follow Green, Hand and Zhang (2017),
appendix, with months of 21 sessions on a daily calendar. Statistics over a month need 80% of its sessions.
``volume`` and ``shares`` are in the same unit of shares, and adjusted for splits like ``close``.
"""

from __future__ import annotations

import numpy as np

from models.arrays import FloatArray
from models.characteristics.fields import Fields
from models.windows import enough, shift, window_count, window_mean, window_std, window_sum

ZERO_TRADE_DEFLATOR = 480_000.0  # keeps what breaks ties of one month below one session


def mvel1(data: Fields) -> FloatArray:
    """Size: log of closing price times shares outstanding, at t (Banz 1981)."""
    return _log(data["close"] * data["shares"])


def dolvol(data: Fields) -> FloatArray:
    """Log of the volume of month 2 times the price at its end (Chordia, Subrahmanyam and Anshuman 2001).

    The volume of a month is the mean over its known sessions times the number of its sessions.
    """
    volume = data.month * window_mean(data["volume"], data.month)
    return shift(_log(volume * data["close"]), data.month)


def std_dolvol(data: Fields) -> FloatArray:
    """Deviation (standard, ddof 1) over month 1 of the log of daily dollar volume (Chordia et al. 2001).

    Sessions without trade have no logarithm and count as missing.
    """
    return window_std(_log(data.dollar_volume), data.month)


def ill(data: Fields) -> FloatArray:
    """Illiquidity: mean over month 1 of daily abs(return) over dollar volume (Amihud 2002).

    Sessions without trade count as missing. Per unit of currency, not scaled: of the order of
    1e-10 for large stocks in dollars.
    """
    traded = np.where(data.dollar_volume > 0.0, data.dollar_volume, np.nan)
    return window_mean(np.abs(data["returns"]) / traded, data.month)


def baspread(data: Fields) -> FloatArray:
    """Mean over month 1 of the daily range, high less low, over its midpoint (Amihud and Mendelson 1989)."""
    middle = (data["high"] + data["low"]) / 2.0
    return window_mean((data["high"] - data["low"]) / np.where(middle > 0.0, middle, np.nan), data.month)


def turn(data: Fields) -> FloatArray:
    """Mean monthly volume of months 1 to 3 over the shares outstanding at t (Datar et al. 1998)."""
    return data.month * window_mean(data["volume"], 3 * data.month) / _positive(data["shares"])


def std_turn(data: Fields) -> FloatArray:
    """Deviation (standard, ddof 1) over month 1 of daily volume over shares (Chordia et al. 2001)."""
    return window_std(data["volume"] / _positive(data["shares"]), data.month)


def zerotrade(data: Fields) -> FloatArray:
    """Days without trade in month 1, ties broken by turnover (Liu 2006, eq. 1).

    (number of sessions with zero volume + 1 / (turnover of the month x 480,000)) x 21 / number of known
    sessions; NaN if nothing was traded in the whole month.
    """
    turnover = data["volume"] / _positive(data["shares"])
    total = window_sum(turnover, data.month)
    idle = np.where(np.isfinite(turnover), (turnover == 0.0).astype(np.float64), np.nan)
    score = window_sum(idle, data.month) + 1.0 / (_positive(total) * ZERO_TRADE_DEFLATOR)
    known = np.maximum(window_count(turnover, data.month), 1.0)
    return np.where(enough(turnover, data.month), score * data.month / known, np.nan)


def _positive(values: FloatArray) -> FloatArray:
    return np.where(values > 0.0, values, np.nan)


def _log(values: FloatArray) -> FloatArray:
    return np.log(_positive(values))
