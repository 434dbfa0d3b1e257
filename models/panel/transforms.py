"""Cross-sectional transforms: what is done to the characteristics of one date before a model sees them.

Here belong functions of one date's cross-section. Lags, masks and all else that looks along time belong in
`assembly`.

Each takes ``values`` (date, ticker, char) and ``coverage`` (date, ticker), uses covered stocks only, and
returns float32 of the same shape: NaN on rows that are not covered, and 0 (the middle of the cross-section)
where a covered stock misses a value. Infinite values count as missing. No date touches another, so that any
span of dates gives the same bits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from models.arrays import BoolArray, FloatArray

Transform = Callable[[FloatArray, BoolArray], npt.NDArray[np.float32]]

WINSOR_QUANTILES = (0.01, 0.99)
_CHUNK = 2_000_000  # values worked on at once, so that temporaries stay small and warm


def _per_date(rows: Callable[[FloatArray], FloatArray]) -> Transform:
    """Lift a function of (date, char, ticker) with NaN for missing, to the contract of this module."""

    @functools.wraps(rows)
    def transform(values: FloatArray, coverage: BoolArray) -> npt.NDArray[np.float32]:
        out = np.empty(values.shape, dtype=np.float32)
        step = max(1, _CHUNK // max(1, values[:1].size))
        for start in range(0, len(values), step):
            span = slice(start, start + step)
            covered = coverage[span, :, None]
            known = covered & np.isfinite(values[span])
            section = np.ascontiguousarray(np.moveaxis(np.where(known, values[span], np.nan), 2, 1))
            result = np.moveaxis(rows(section), 1, 2)
            out[span] = np.where(known, result, np.where(covered, np.float32(0.0), np.float32(np.nan)))
        return out

    return transform


def _counts(section: FloatArray) -> npt.NDArray[np.int64]:
    counts: npt.NDArray[np.int64] = np.isfinite(section).sum(axis=-1, keepdims=True)
    return counts


def _total(section: FloatArray) -> FloatArray:
    """Sum of what is known, one after the other: absent stocks in between do not change the rounding."""
    total: FloatArray = np.nancumsum(section, axis=-1)[..., -1:]
    return total


@_per_date
def rank_to_unit_interval(section: FloatArray) -> FloatArray:
    """Ranks mapped linearly to [-1, 1], ties averaged (Gu, Kelly and Xiu 2020); a stock by itself gets 0."""
    order = np.argsort(section, axis=-1)  # NaN last
    ordered = np.take_along_axis(section, order, axis=-1)
    position = np.arange(section.shape[-1], dtype=np.int32)
    starts = np.ones(section.shape, dtype=np.bool_)
    starts[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    ends = np.ones(section.shape, dtype=np.bool_)
    ends[..., :-1] = starts[..., 1:]
    first = np.maximum.accumulate(np.where(starts, position, 0), axis=-1)
    backwards = np.where(ends, position, position.size)[..., ::-1]
    last = np.minimum.accumulate(backwards, axis=-1)[..., ::-1]
    counts = _counts(section)
    scaled = (first + last) / np.maximum(counts - 1, 1) - (counts > 1)
    ranks = np.empty_like(scaled)
    np.put_along_axis(ranks, order, scaled, axis=-1)
    return ranks


def _zscore(section: FloatArray) -> FloatArray:
    counts = np.maximum(_counts(section), 1)
    section = section.astype(np.float64)
    mean = _total(section) / counts
    deviation = section - mean
    std = np.sqrt(_total(np.square(deviation)) / counts)
    varies = std > 1e-12 * np.abs(mean)
    return np.where(varies, deviation / np.where(varies, std, 1.0), 0.0)


@_per_date
def standardise(section: FloatArray) -> FloatArray:
    """Z-scores: mean 0 and (population) standard deviation 1 over covered stocks; 0 where all are equal."""
    return _zscore(section)


@_per_date
def winsorise(section: FloatArray) -> FloatArray:
    """Z-scores after clipping at the 1% and 99% quantiles of the date (linearly interpolated)."""
    ordered = np.sort(section, axis=-1).astype(np.float64)
    top = np.maximum(_counts(section) - 1, 0)
    bounds = []
    for quantile in WINSOR_QUANTILES:
        place = quantile * top
        below = np.floor(place).astype(np.int64)
        low = np.take_along_axis(ordered, below, axis=-1)
        high = np.take_along_axis(ordered, np.minimum(below + 1, top), axis=-1)
        bounds.append(low + (place - below) * (high - low))
    return _zscore(np.clip(section.astype(np.float64), *bounds))


@_per_date
def keep(section: FloatArray) -> FloatArray:
    """Keep values as they are. Having no neutral fill, they make a panel cover complete rows only."""
    return section


TRANSFORMS: MappingProxyType[str, Transform] = MappingProxyType(
    {"rank": rank_to_unit_interval, "standardise": standardise, "winsorise": winsorise, "none": keep}
)
