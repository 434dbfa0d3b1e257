"""What characteristics are computed from: prices, returns and volumes of some tickers over all dates.

Here belong the inputs, the calendar that turns months and weeks into sessions, and intermediate results that
several characteristics share. The characteristics themselves belong in `momentum`, `risk` and `liquidity`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np

from models.arrays import FloatArray
from models.windows import window_count, window_reduce
from schemas.errors import ConfigError

WEEK = 5  # sessions


class Frequency(StrEnum):
    """Length of a period, and with it how many sessions make a month."""

    DAILY = "daily"
    MONTHLY = "monthly"

    @classmethod
    def _missing_(cls, value: object) -> Frequency:
        raise ConfigError(f"Unknown frequency '{value}'; choose one of {', '.join(cls)}.")

    @property
    def month(self) -> int:
        """Sessions per month: 21 on a daily calendar, 1 on a monthly one."""
        return 21 if self is Frequency.DAILY else 1


@dataclass(frozen=True)
class Fields:
    """Inputs as (date, ticker) float64 arrays, NaN where missing.

    Attributes
    ----------
    values : Mapping[str, numpy.ndarray]
        ``returns`` (simple total returns), ``close``, ``high``, ``low`` (prices), ``volume`` (shares traded
        in the period) and ``shares`` (shares outstanding), as far as they exist. Returns and prices of a suspected
        row are missing.
    month : int
        Sessions per month.
    market : numpy.ndarray
        (date, 1) equal-weighted mean over all tickers of the weekly returns that end at the date; a week with a
        missing or suspected return does not enter.
    """

    values: Mapping[str, FloatArray]
    month: int
    market: FloatArray

    def __getitem__(self, name: str) -> FloatArray:
        return self.values[name]

    @cached_property
    def log_growth(self) -> FloatArray:
        """log(1 + return), which adds up over time; -inf after a total loss."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.log1p(self["returns"])

    @cached_property
    def weekly(self) -> FloatArray:
        """Compound return of the five sessions up to each date; NaN unless all five are known."""
        return weekly_returns(self["returns"])

    @cached_property
    def dollar_volume(self) -> FloatArray:
        """Closing price times shares traded."""
        return self["close"] * self["volume"]


def weekly_returns(returns: FloatArray) -> FloatArray:
    """Compound return of the five sessions up to each date; NaN unless all five are known."""
    growth = window_reduce(np.multiply, 1.0 + returns, WEEK)
    return np.where(window_count(returns, WEEK) == WEEK, growth - 1.0, np.nan)
