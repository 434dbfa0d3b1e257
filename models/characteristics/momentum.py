"""Momentum and reversal: compound past returns over calendar windows.

Here belong characteristics that are past returns and nothing else. Month k is the k-th block of ``month``
sessions counted back from the date t: month 1 ends at t itself, and is the most recent month known at the
close of t. Definitions follow Green, Hand and Zhang (2017), appendix, with months of 21 sessions on a daily
calendar.

Momentum compounds returns, and never divides prices: across a split that nobody adjusted prices do not compare, while
the returns beside it do. A missing return counts as no growth, and so does a suspected one; a window with less than 80%
of its returns known is NaN.
"""

from __future__ import annotations

import numpy as np

from models.arrays import FloatArray
from models.characteristics.fields import Fields
from models.windows import enough, shift, window_reduce


def _compound(data: Fields, first: int, last: int) -> FloatArray:
    """Compound return over months ``first`` (the more recent) to ``last``, both included."""
    length = (last - first + 1) * data.month
    growth = np.where(np.isnan(data.log_growth), 0.0, data.log_growth)
    total = np.expm1(window_reduce(np.add, growth, length))
    return shift(np.where(enough(data["returns"], length), total, np.nan), (first - 1) * data.month)


def mom1m(data: Fields) -> FloatArray:
    """Short-term reversal: return over month 1, up to t itself (Jegadeesh 1990)."""
    return _compound(data, 1, 1)


def mom6m(data: Fields) -> FloatArray:
    """Momentum: compound return over months 2 to 6, the last one left out (Jegadeesh and Titman 1993)."""
    return _compound(data, 2, 6)


def mom12m(data: Fields) -> FloatArray:
    """Momentum: compound return over months 2 to 12, the last one left out (Jegadeesh 1990)."""
    return _compound(data, 2, 12)


def mom36m(data: Fields) -> FloatArray:
    """Long-term reversal: compound return over months 13 to 36 (Jegadeesh and Titman 1993)."""
    return _compound(data, 13, 36)


def chmom(data: Fields) -> FloatArray:
    """Change in momentum: return over months 1 to 6 less that over 7 to 12 (Gettleman and Marks 2006)."""
    return _compound(data, 1, 6) - _compound(data, 7, 12)
