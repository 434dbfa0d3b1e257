"""Statistics along one axis that skip what is missing: no more than this package needs.

Cross-section statistics sort once, since numpy's NaN-aware quantiles loop over rows in Python.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from models.arrays import FloatArray, IntArray
from models.windows import window_mean


def labels(coordinate: xr.DataArray) -> npt.NDArray[np.str_]:
    """Labels of an axis as plain numpy strings, whichever of its types of strings they came in."""
    return np.array([str(label) for label in coordinate.values], dtype=np.str_)


def quantiles(values: FloatArray, levels: Sequence[float]) -> FloatArray:
    """Quantiles along the last axis, linearly interpolated, ignoring NaN; NaN where there is no value.

    Returns
    -------
    ndarray (..., level)
        float64.
    """
    ordered = np.sort(values, axis=-1).astype(np.float64)  # NaN last
    counts = np.isfinite(ordered).sum(axis=-1)[..., None]
    place = np.asarray(levels) * np.maximum(counts - 1, 0)
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, np.maximum(counts - 1, 0))
    low = np.take_along_axis(ordered, below, axis=-1)
    out: FloatArray = low + (place - below) * (np.take_along_axis(ordered, above, axis=-1) - low)
    return out


def section_median(values: FloatArray) -> FloatArray:
    """Median of each date over tickers, (date, 1)."""
    return quantiles(values, (0.5,))


def section_sums(values: FloatArray) -> FloatArray:
    """Sum along the last axis, rounded once: the same in any order of tickers, and beside any that have a zero."""
    rows = values.reshape(-1, values.shape[-1])
    sums = [math.fsum(row[row != 0.0].tolist()) for row in rows]
    return np.array(sums, dtype=np.float64).reshape(values.shape[:-1])


class SectionMedians:
    """Medians of each date over the tickers of all blocks: `section_median` of what does not lie side by side.

    Only what is known is kept.

    Parameters
    ----------
    dates : int
        Dates of every block.
    """

    def __init__(self, dates: int) -> None:
        self._counts = np.zeros(dates, dtype=np.int64)
        self._known: list[tuple[IntArray, FloatArray]] = []

    def add(self, values: FloatArray) -> None:
        """Take in the values (date, ticker) of a block."""
        known = np.isfinite(values)
        counts = known.sum(axis=1)
        self._counts += counts
        self._known.append((counts, values[known]))

    def medians(self) -> FloatArray:
        """Return the medians (date, 1); NaN where nothing is known."""
        ends = np.cumsum(self._counts)
        starts = ends - self._counts
        joined = np.empty(int(self._counts.sum()))
        filled = starts.copy()
        for counts, values in self._known:
            within = np.arange(len(values)) - np.repeat(np.cumsum(counts) - counts, counts)
            joined[np.repeat(filled, counts) + within] = values
            filled += counts
        out = np.full((len(starts), 1), np.nan)
        for date in np.flatnonzero(self._counts):
            out[date] = quantiles(joined[starts[date] : ends[date]], (0.5,))
        return out


def trailing_mean(values: FloatArray, window: int, least: int) -> FloatArray:
    """Mean over the `window` dates before each date; NaN with fewer than `least` values."""
    return previous(window_mean(values, window, least))


def trailing_median(values: FloatArray, window: int, least: int) -> FloatArray:
    """Median over the `window` dates before each date; NaN with fewer than `least` values."""
    rolled = pd.DataFrame(values).rolling(window, min_periods=least).median().shift(1)
    return rolled.to_numpy(dtype=np.float64)


def previous(values: FloatArray) -> FloatArray:
    """Shift by one date; the first one becomes NaN."""
    out = np.full(values.shape, np.nan)
    out[1:] = values[:-1]
    return out
