"""Statistics along one axis that skip what is missing: no more than this package needs.

Cross-section statistics sort once, since numpy's NaN-aware quantiles loop over rows in Python.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from models.arrays import FloatArray


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


def trailing_mean(values: FloatArray, window: int, least: int) -> FloatArray:
    """Mean over the `window` dates before each date; NaN with fewer than `least` values."""
    rolled = pd.DataFrame(values).rolling(window, min_periods=least).mean().shift(1)
    return rolled.to_numpy(dtype=np.float64)


def trailing_median(values: FloatArray, window: int, least: int) -> FloatArray:
    """Median over the `window` dates before each date; NaN with fewer than `least` values."""
    rolled = pd.DataFrame(values).rolling(window, min_periods=least).median().shift(1)
    return rolled.to_numpy(dtype=np.float64)


def previous(values: FloatArray) -> FloatArray:
    """Shift by one date; the first one becomes NaN."""
    out = np.full(values.shape, np.nan)
    out[1:] = values[:-1]
    return out
