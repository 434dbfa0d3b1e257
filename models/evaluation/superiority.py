"""Is one forecast better than another? Tests of losses on the same dates.

Here belong Diebold and Mariano's test of two series of losses and the model confidence set of many. Which losses is the
caller's choice: QLIKE of the same portfolios, minus the log-likelihood of cross-sections, or squared returns of each
model's own minimum-variance portfolio.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from models.arrays import BoolArray, Float64Array
from models.evaluation.resampling import stationary_bootstrap
from models.inference.regression import automatic_lags, newey_west_covariance
from schemas.errors import DataError


@dataclass(frozen=True)
class DieboldMariano:
    """Test of equal expected loss.

    Attributes
    ----------
    difference : float
        Mean of the first loss less the second; negative if the first forecast is better.
    statistic : float
        It over its standard error, with the small-sample correction; NaN if there are fewer than two dates.
    p_value : float
        Two-sided.
    p_worse : float
        One-sided, of the hypothesis that the first is not worse: small if it is significantly worse.
    n_dates : int
        Dates on which both losses are known.
    """

    difference: float
    statistic: float
    p_value: float
    p_worse: float
    n_dates: int


def diebold_mariano(
    one: Float64Array, other: Float64Array, *, horizon: int = 1, lags: int | None = None
) -> DieboldMariano:
    """Test whether two forecasts lose the same (Diebold and Mariano 1995).

    The variance of the mean difference is that of Newey and West; the statistic is multiplied by
    sqrt((T + 1 - 2h + h (h - 1) / T) / T) and compared with Student's t with T - 1 degrees of freedom (Harvey,
    Leybourne and Newbold 1997).

    Parameters
    ----------
    one, other : numpy.ndarray
        (date,) losses in order of time, lower is better. Dates on which one is not known are left out.
    horizon : int
        h, periods that a forecast looks ahead: losses of overlapping forecasts depend on each other over h - 1 lags.
    lags : int, optional
        By default `automatic_lags` of the dates, or h - 1 if that is more.

    Returns
    -------
    DieboldMariano
        With a statistic of 0 where the losses are the same, and infinite where they differ by a constant.

    Raises
    ------
    DataError
        If the two are not of one length.
    """
    if np.shape(one) != np.shape(other):
        raise DataError(f"Losses of {len(one)} and {len(other)} dates: both are needed on the same ones.")
    apart = np.asarray(one - other, dtype=np.float64)
    apart = apart[np.isfinite(apart)]
    n = len(apart)
    if n < 2:
        return DieboldMariano(float(apart.mean()) if n else math.nan, math.nan, math.nan, math.nan, n)
    used = max(automatic_lags(n), horizon - 1) if lags is None else lags
    mean = float(apart.mean())
    variance = float(newey_west_covariance(apart[:, None], min(used, n - 1))[0, 0])
    if variance <= np.finfo(np.float64).eps * mean**2:
        statistic = math.copysign(math.inf, mean) if mean else 0.0
    else:
        statistic = mean / math.sqrt(variance)
        statistic *= math.sqrt(max(n + 1.0 - 2.0 * horizon + horizon * (horizon - 1.0) / n, 0.0) / n)
    both, worse = 2.0 * float(stats.t.sf(abs(statistic), n - 1)), float(stats.t.sf(statistic, n - 1))
    return DieboldMariano(mean, statistic, both, worse, n)


@dataclass(frozen=True, eq=False)
class ConfidenceSet:
    """The models among which the best one is, with a given confidence.

    Attributes
    ----------
    p_values : numpy.ndarray
        (model,) of the model confidence set; the last one left has 1.
    included : numpy.ndarray
        (model,) whether the p-value is at least 1 - confidence.
    """

    p_values: Float64Array
    included: BoolArray


def model_confidence_set(
    losses: Float64Array,
    *,
    confidence: float = 0.9,
    mean_block: float = 21.0,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> ConfidenceSet:
    """Drop the worst model as long as equal losses of those left are rejected (Hansen, Lunde and Nason 2011).

    The statistic is T_max: of each model the mean loss less that of all that are left, over its bootstrap standard
    error, and of these the largest, which also says whom to drop. A model's p-value is the largest of the tests up to
    the one that drops it.

    Parameters
    ----------
    losses : numpy.ndarray
        (date, model), known all, in order of time; lower is better.
    confidence : float
        Probability that the set contains the best model.
    mean_block : float
        Dates in a block of the stationary bootstrap, on average.
    n_bootstrap, seed : int
        Draws, and the seed of their generator.

    Raises
    ------
    DataError
        If there is no model, fewer than two dates, or a loss that is not known.
    """
    n_dates, n_models = losses.shape
    if n_models < 1 or n_dates < 2 or not np.isfinite(losses).all():
        raise DataError(f"{n_dates} dates of {n_models} models: a set needs two dates or more, and every loss.")
    centred = losses - losses.mean(axis=1, keepdims=True)  # what all models lose alike cancels in any case
    means = centred.mean(axis=0)
    draws = stationary_bootstrap(n_dates, min(mean_block, n_dates), n_bootstrap, seed)
    resampled = np.stack([centred[draw].mean(axis=0) for draw in draws]) - means
    left, largest, p_values = np.arange(n_models), 0.0, np.ones(n_models)
    while len(left) > 1:
        apart = means[left] - means[left].mean()
        noise = resampled[:, left] - resampled[:, left].mean(axis=1, keepdims=True)
        error = np.sqrt(np.square(noise).mean(axis=0))
        usable = error > 1e-12 * np.abs(means).max()
        scale = np.where(usable, error, np.inf)
        ratio = apart / scale
        chance = float(np.mean((noise / scale).max(axis=1) >= ratio.max()))
        largest = max(largest, chance)
        worst = int(ratio.argmax())
        p_values[left[worst]] = largest
        left = np.delete(left, worst)
    return ConfidenceSet(p_values, np.asarray(p_values >= 1.0 - confidence, dtype=np.bool_))
