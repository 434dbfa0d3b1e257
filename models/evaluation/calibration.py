"""Calibration of variance forecasts: whether z = return / forecast volatility has the variance 1, and when not.

Here belong statistics of plain arrays (date, portfolio), in order of time, in which NaN is left out. Series with labels
are judged in `forecasts`, tails in `tails`, two models against each other in `models.inference.diebold_mariano`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from models.arrays import Float64Array
from models.inference.regression import automatic_lags, newey_west_covariance
from schemas.errors import ConfigError

Q_FLOOR = 1.0 + math.log(2.0) + float(np.euler_gamma)
"""Expectation 2.2704 of z^2 - ln z^2 for a normal z of variance 1, which no forecast can undercut."""


def pooled_bias_statistic(z: Float64Array) -> float:
    """Sample standard deviation of all z of a family of portfolios together; above 1 if risk is under-forecast."""
    known = z[np.isfinite(z)]
    return float(known.std(ddof=1)) if known.size > 1 else math.nan


def bias_interval(n_observations: int, *, kurtosis: float = 3.0, level: float = 0.95) -> tuple[float, float]:
    """Interval in which the bias statistic of true forecasts lies with a given probability.

    For normal z the sample variance times nu is chi-square with nu = T - 1 degrees of freedom: the interval is exact.
    For others nu = 2 / Var(s^2), where Var(s^2) = (kurtosis - (T - 3) / (T - 1)) / T is exact for independent z
    (O'Neill 2014, Some useful moment results in sampling problems): fat tails widen it.

    Parameters
    ----------
    n_observations : int
        T, independent ones; at least 2.
    kurtosis : float
        Of z, 3 for a normal; see `kurtosis`.
    level : float
        Probability of the interval.

    Raises
    ------
    ConfigError
        If there are fewer than two observations.
    """
    if n_observations < 2:
        raise ConfigError("The interval of the bias statistic needs at least two observations.")
    n = float(n_observations)
    freedom = 2.0 * n / (max(kurtosis, 1.0) - (n - 3.0) / (n - 1.0))
    low, high = (float(stats.chi2.ppf(chance, freedom)) for chance in ((1.0 - level) / 2.0, (1.0 + level) / 2.0))
    return math.sqrt(low / freedom), math.sqrt(high / freedom)


def kurtosis(z: Float64Array) -> float:
    """Kurtosis of all known z about their mean, 3 for a normal; NaN if they do not vary."""
    known = z[np.isfinite(z)]
    deviation = known - known.mean() if known.size else known
    spread = float(np.mean(deviation**2)) if known.size else 0.0
    return float(np.mean(deviation**4)) / spread**2 if spread > 0.0 else math.nan


def mrad(z: Float64Array, block: int) -> float:
    """Mean absolute deviation from 1 of bias statistics over consecutive blocks of T dates, over portfolios and blocks.

    Unlike the bias statistic of the whole span, errors of one sign in one year do not make up for others in the next.
    Menchero, Orr and Wang (2011) take it over rolling windows of 12 months; blocks do not overlap here.

    Parameters
    ----------
    z : numpy.ndarray
        (date, portfolio). A last block that is not whole counts if it has half of the dates, a portfolio in a block if
        it is known on half of the block's dates.
    block : int
        T, at least 2.

    Returns
    -------
    float
        At best `mrad_floor`; NaN if there is no block.
    """
    if block < 2:
        raise ConfigError(f"MRAD needs blocks of at least 2 dates, not {block}.")
    edges = np.arange(0, len(z), block)
    return mrad_of_moments(np.add.reduceat(moments(z), edges, axis=0), block) if len(z) else math.nan


def moments(z: Float64Array) -> Float64Array:
    """Return number, sum and sum of squares of what is known of z (...), each an entry of the last axis (..., 3).

    Those of spans add up, and the standard deviation of any union of spans follows.
    """
    known = np.isfinite(z)
    filled = np.where(known, z, 0.0)
    return np.stack([known.astype(np.float64), filled, np.square(filled)], axis=-1)


def mrad_of_moments(sums: Float64Array, block: int) -> float:
    """MRAD (`mrad`) from the `moments` of each block and portfolio (block, portfolio, 3)."""
    kept = sums[..., 0] >= max(2, math.ceil(block / 2))
    return float(np.abs(deviations(sums[kept]) - 1.0).mean()) if kept.any() else math.nan


def deviations(sums: Float64Array) -> Float64Array:
    """Sample standard deviations from `moments` (..., 3); NaN with fewer than two observations."""
    count, total, squares = (sums[..., place] for place in range(3))
    several = np.where(count > 1.0, count, np.nan)
    spread: Float64Array = np.sqrt(np.maximum(squares - total**2 / several, 0.0) / (several - 1.0))
    return spread


def mrad_floor(block: int, *, kurtosis: float = 3.0) -> float:
    """MRAD of true forecasts, sqrt(2 / pi) times the standard deviation of the bias statistic of T dates.

    For normal z the expectation of |s - 1|, s^2 (T - 1) chi-square, to the first order in 1 / T: 0.036 for 252 dates.
    """
    variance = (kurtosis - (block - 3.0) / (block - 1.0)) / block
    return math.sqrt(2.0 / math.pi * variance / 4.0)


def q_statistic(z: Float64Array) -> float:
    """Mean of z^2 - ln z^2 (Patton's QLIKE of z), at least `Q_FLOOR` on average; a z of exactly 0 is left out."""
    known = z[np.isfinite(z) & (z != 0.0)]
    return float(np.mean(known**2 - np.log(known**2))) if known.size else math.nan


def qlike_loss(realised: Float64Array, variance: Float64Array) -> Float64Array:
    """Losses ln h + r^2 / h of variances h for returns r of the same shape; NaN unless h is positive."""
    h = np.where(variance > 0.0, variance, np.nan)
    loss: Float64Array = np.log(h) + realised**2 / h
    return loss


@dataclass(frozen=True)
class MincerZarnowitz:
    """Regression r^2 = a + b h: a right variance forecast has a = 0 and b = 1.

    Attributes
    ----------
    intercept, slope : float
        a, in squared decimals per period, and b.
    intercept_stderr, slope_stderr : float
        Newey-West standard errors.
    statistic, p_value : float
        Wald test of a = 0 and b = 1, chi-square with 2 degrees of freedom.
    """

    intercept: float
    slope: float
    intercept_stderr: float
    slope_stderr: float
    statistic: float
    p_value: float


def mincer_zarnowitz(
    realised: Float64Array, variance: Float64Array, *, lags: int | None = None, weighted: bool = True
) -> MincerZarnowitz:
    """Regress squared returns on their forecast variance (Mincer and Zarnowitz 1969).

    Parameters
    ----------
    realised, variance : numpy.ndarray
        (date,) returns and the variances forecast for them; dates on which one is missing, or the variance is not
        positive, are left out.
    lags : int, optional
        Of Newey and West; by default `models.inference.regression.automatic_lags`.
    weighted : bool
        Divide both sides by h, the weighted least squares of Patton and Sheppard (2009, Evaluating volatility and
        correlation forecasts): r^2 has a standard deviation in proportion to h.

    Returns
    -------
    MincerZarnowitz
        NaN with fewer than ten dates, or where all forecasts are the same.
    """
    known = np.isfinite(realised) & (variance > 0.0)
    response, h = realised[known] ** 2, variance[known]
    if len(h) < 10 or np.ptp(h) <= 1e-12 * h.max():
        return MincerZarnowitz(*[math.nan] * 6)
    unit = float(h.mean())  # both columns near 1
    response, h = response / unit, h / unit
    weight = 1.0 / h if weighted else np.ones_like(h)
    design = np.column_stack([weight, weight * h])
    inverse = np.linalg.inv(design.T @ design)
    a, b = inverse @ (design.T @ (response * weight))
    influence = (design * (response * weight - design @ (a, b))[:, None]) @ inverse * len(h)
    covariance = newey_west_covariance(influence, automatic_lags(len(h)) if lags is None else lags)
    apart = np.array([a, b - 1.0])
    statistic = float(apart @ np.linalg.solve(covariance, apart))
    errors = np.sqrt(np.diag(covariance))
    return MincerZarnowitz(a * unit, b, errors[0] * unit, errors[1], statistic, float(stats.chi2.sf(statistic, 2)))


def ljung_box(series: Float64Array, lags: int = 10) -> tuple[Float64Array, Float64Array]:
    """Test each column for autocorrelation up to a lag; of z^2 it finds variance that the forecast did not follow.

    Q = T (T + 2) sum_l rho_l^2 / (T - l), chi-square with as many degrees of freedom as lags (Ljung and Box 1978).
    A gap counts as its mean: pairs with one side missing add nothing.

    Parameters
    ----------
    series : numpy.ndarray
        (date, portfolio).
    lags : int
        At least 1, fewer than the dates.

    Returns
    -------
    statistic, p_value : numpy.ndarray
        (portfolio,); NaN where there are not more known dates than lags, or the series does not vary.
    """
    if not 1 <= lags < max(len(series), 2):
        raise ConfigError(f"Ljung-Box over {len(series)} dates needs from 1 to {len(series) - 1} lags, not {lags}.")
    known = np.isfinite(series)
    count = known.sum(axis=0).astype(np.float64)
    filled = np.where(known, series, 0.0)
    deviation = np.where(known, filled - filled.sum(axis=0) / np.maximum(count, 1.0), 0.0)
    squares = np.square(deviation).sum(axis=0)
    usable = (count > lags) & (squares > 0.0)
    total = np.zeros(series.shape[1])
    for lag in range(1, lags + 1):
        correlation = (deviation[lag:] * deviation[:-lag]).sum(axis=0) / np.where(usable, squares, 1.0)
        total += correlation**2 / np.where(usable, count - lag, 1.0)
    statistic = np.where(usable, count * (count + 2.0) * total, np.nan)
    return statistic, np.asarray(special.chdtrc(lags, statistic), dtype=np.float64)
