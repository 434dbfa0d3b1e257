"""Trailing windows over dates, vectorised over tickers, exact and causal.

Here belong sums, extremes and deviations over trailing windows of (date, ticker) arrays; what they mean belongs with
those who take them.

A window is put together from windows half its length (1, 2, 4, ... sessions). Unlike a running sum, nothing
is ever subtracted: a value holds the bits of its own window only, whatever came before it, after it, or
beside it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.arrays import FloatArray

MIN_SHARE = 0.8  # of the observations of a window that must be known, unless a caller says how many


def shift(values: FloatArray, sessions: int) -> FloatArray:
    """Values of so many sessions earlier; NaN in the first rows."""
    earlier = np.full_like(values, np.nan)
    earlier[sessions:] = values[: max(len(values) - sessions, 0)]
    return earlier


def window_reduce(ufunc: np.ufunc, values: FloatArray, length: int, stride: int = 1) -> FloatArray:
    """Reduce the ``length`` values at t, t - stride, ... by an associative ufunc; fewer in the first rows."""
    result: FloatArray | None = None
    part, size, done = values, 1, 0
    while done < length:
        if length & size:
            result = part.copy() if result is None else _joined(ufunc, result, part, done * stride)
            done += size
        if done < length:
            part = _joined(ufunc, part, part, size * stride)
            size *= 2
    assert result is not None  # noqa: S101  # length is positive
    return result


def _joined(ufunc: np.ufunc, recent: FloatArray, earlier: FloatArray, sessions: int) -> FloatArray:
    joined = recent.copy()
    if sessions < len(joined):
        ufunc(joined[sessions:], earlier[: len(joined) - sessions], out=joined[sessions:])
    return joined


def window_sum(values: FloatArray, length: int, stride: int = 1) -> FloatArray:
    """Sum of the known values of each trailing window."""
    return window_reduce(np.add, np.where(np.isfinite(values), values, 0.0), length, stride)


def window_count(values: FloatArray, length: int) -> FloatArray:
    """How many values of each trailing window are known."""
    return window_reduce(np.add, np.isfinite(values).astype(np.float64), length)


def enough(values: FloatArray, length: int, least: float | None = None) -> npt.NDArray[np.bool_]:
    """Whether at least so many values of a trailing window are known, by default `MIN_SHARE` of it."""
    return window_count(values, length) >= (MIN_SHARE * length if least is None else least)


def window_mean(values: FloatArray, length: int, least: float | None = None) -> FloatArray:
    """Mean of the known values of each trailing window; NaN unless there are `enough`."""
    count = window_count(values, length)
    known = enough(values, length, least)
    return np.where(known, window_sum(values, length) / np.maximum(count, 1.0), np.nan)


def window_max(values: FloatArray, length: int) -> FloatArray:
    """Largest known value of each trailing window; NaN unless there are enough."""
    largest = window_reduce(np.maximum, np.where(np.isfinite(values), values, -np.inf), length)
    return np.where(enough(values, length), largest, np.nan)


def window_std(values: FloatArray, length: int, least: float | None = None) -> FloatArray:
    """Deviation (standard, ddof 1) of each trailing window, in two passes; NaN unless there are `enough`."""
    mean = window_mean(values, length, least)
    squares = np.zeros_like(mean)
    for age in range(min(length, len(values))):
        deviation = values[: len(values) - age] - mean[age:]
        squares[age:] += np.where(np.isfinite(deviation), np.square(deviation), 0.0)
    degrees = window_count(values, length) - 1.0
    return np.where(np.isfinite(mean) & (degrees > 0), np.sqrt(squares / np.maximum(degrees, 1.0)), np.nan)
