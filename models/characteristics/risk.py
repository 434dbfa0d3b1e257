"""Risk: the spread of daily returns, and regressions of weekly returns on the market.

Here belong characteristics that describe the distribution of returns. Definitions follow Green, Hand and
Zhang (2017), appendix; the market is the equal-weighted mean of all tickers given.

The regressions use non-overlapping weeks of five sessions that end at t, t - 5, t - 10, ...: 151 of them,
which is three years of 252 sessions. They need at least 52 weeks in which the stock's five returns are all
known. Moments are sums of raw products: weekly returns are small beside their spread, so that nothing is
lost to cancellation.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models.arrays import FloatArray
from models.characteristics.fields import WEEK, Fields
from models.windows import shift, window_max, window_std, window_sum

WEEKS = 36 * 21 // WEEK
MIN_WEEKS = 52
DELAYS = 4  # weekly lags of the market
_SINGULAR = 1e-10  # share of a regressor's variation left by the others, below which it counts as one of them


def maxret(data: Fields) -> FloatArray:
    """Largest daily return of the last month: t - 20 to t (Bali, Cakici and Whitelaw 2011)."""
    return window_max(data["returns"], data.month)


def retvol(data: Fields) -> FloatArray:
    """Volatility: standard deviation (ddof 1) of daily returns, t - 20 to t (Ang et al. 2006)."""
    return window_std(data["returns"], data.month)


def beta(data: Fields) -> FloatArray:
    """Slope of weekly returns on the market's, over 151 weeks to t, at least 52 (Fama and MacBeth 1973)."""
    return _market_line(data)[0]


def betasq(data: Fields) -> FloatArray:
    """Square of `beta` (Fama and MacBeth 1973)."""
    return np.square(_market_line(data)[0])


def idiovol(data: Fields) -> FloatArray:
    """Idiosyncratic volatility: standard deviation (ddof 1) of the residuals of `beta` (Ali et al. 2003)."""
    return _market_line(data)[1]


def pricedelay(data: Fields) -> FloatArray:
    """1 - R2 on the market of the week, over R2 on it and on its four lags, after Hou and Moskowitz (2005).

    Both regressions use the same weeks out of 151 to t, at least 52: those whose stock return and five market
    returns are known. 0: the stock follows at once; 1: only later. NaN where the market explains
    nothing at all.
    """
    moments = _moments(data.weekly, [shift(data.market, WEEK * lag) for lag in range(DELAYS + 1)])
    explained = _explained(moments)
    total = np.sum(explained, axis=0)
    return moments.where_enough(1.0 - explained[0] / np.where(total > 0.0, total, np.nan))


class _Moments(NamedTuple):
    """Sums over the weeks of each window, each (date, ticker), of deviations from the mean."""

    weeks: FloatArray
    stock: FloatArray  # stock x stock
    cross: list[FloatArray]  # regressor x stock
    inner: list[list[FloatArray]]  # regressor i x regressor j <= i

    def where_enough(self, values: FloatArray) -> FloatArray:
        return np.where(self.weeks >= MIN_WEEKS, values, np.nan)


def _moments(stock: FloatArray, regressors: list[FloatArray]) -> _Moments:
    known = np.isfinite(stock) & np.all([np.isfinite(x) for x in regressors], axis=0)
    y, *xs = (np.where(known, series, 0.0) for series in (stock, *regressors))
    weeks = window_sum(known.astype(np.float64), WEEKS, WEEK)
    count = np.maximum(weeks, 1.0)
    y_mean, *x_means = (window_sum(series, WEEKS, WEEK) / count for series in (y, *xs))
    return _Moments(
        weeks=weeks,
        stock=window_sum(y * y, WEEKS, WEEK) - count * y_mean * y_mean,
        cross=[window_sum(x * y, WEEKS, WEEK) - count * mean * y_mean for x, mean in zip(xs, x_means, strict=True)],
        inner=[
            [window_sum(xs[i] * xs[j], WEEKS, WEEK) - count * x_means[i] * x_means[j] for j in range(i + 1)]
            for i in range(len(xs))
        ],
    )


def _market_line(data: Fields) -> tuple[FloatArray, FloatArray]:
    """Slope on the market and standard deviation of the residuals."""
    moments = _moments(data.weekly, [data.market])
    (cross,), ((spread,),) = moments.cross, moments.inner
    slope = cross / np.where(spread > 0.0, spread, np.nan)
    residual = np.maximum(moments.stock - slope * cross, 0.0)
    deviation = np.sqrt(residual / np.maximum(moments.weeks - 1.0, 1.0))
    return moments.where_enough(slope), moments.where_enough(deviation)


def _explained(moments: _Moments) -> list[FloatArray]:
    """Sum of squares that each regressor explains beyond those before it, by elimination on the moments."""
    cross, inner = list(moments.cross), [list(row) for row in moments.inner]
    explained: list[FloatArray] = []
    for i in range(len(cross)):
        pivot = np.where(inner[i][i] > _SINGULAR * moments.inner[i][i], inner[i][i], np.inf)
        explained.append(np.square(cross[i]) / pivot)
        for j in range(i + 1, len(cross)):
            ratio = inner[j][i] / pivot
            cross[j] = cross[j] - ratio * cross[i]
            for k in range(i + 1, j + 1):
                inner[j][k] = inner[j][k] - ratio * inner[k][i]
    return explained
