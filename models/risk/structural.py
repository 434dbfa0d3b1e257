"""What a cross-section says of a stock's specific volatility: its exposures, and its peers in size.

Here belong the two stages that look across stocks. The recursion of one stock's variance is in `specific`.
"""

from __future__ import annotations

import numpy as np

from models.arrays import BoolArray, Float64Array, FloatArray, IntArray
from schemas.risk import GroupShrinkageSpec, StructuralSpec

_EXTREMES = (0.01, 0.99)
_STOCKS_PER_EXPOSURE = 3


def structural_volatility(volatility: Float64Array, exposures: FloatArray, trusted: BoolArray) -> Float64Array:
    """Predict specific volatility from exposures: a regression of its logarithm, taken back with smearing.

    log sigma = a + X b over trusted stocks; E[sigma | X] = E0 exp(a + X b), with E0 the mean of the exponentials of the
    regression's residuals (Duan 1983), as in Menchero, Orr and Wang (2011), USE4 Methodology Notes. Predictions stay
    within the first and last percentile of trusted stocks. It turns with the factors.

    Parameters
    ----------
    volatility : numpy.ndarray
        (ticker,) of each stock's own residuals, positive where trusted.
    exposures : numpy.ndarray
        (ticker, factor) loadings; NaN where a stock has none.
    trusted : numpy.ndarray
        (ticker,) enough history to learn from.

    Returns
    -------
    numpy.ndarray
        (ticker,) NaN where a stock has no exposures, and for all if fewer than three trusted stocks per exposure do.
    """
    known = np.isfinite(exposures).all(axis=1)
    learn = known & trusted
    predicted = np.full(len(volatility), np.nan)
    if learn.sum() < _STOCKS_PER_EXPOSURE * (exposures.shape[1] + 1):
        return predicted
    design = np.column_stack([np.ones(len(volatility)), exposures]).astype(np.float64)
    target = np.log(volatility[learn])
    slopes = np.linalg.lstsq(design[learn], target, rcond=None)[0]
    fitted = design[known] @ slopes
    smearing = np.exp(target - design[learn] @ slopes).mean()
    least, most = np.quantile(volatility[learn], _EXTREMES)
    predicted[known] = np.clip(smearing * np.exp(fitted), least, most)
    return predicted


def mixed(spec: StructuralSpec, own: Float64Array, structural: Float64Array, count: IntArray) -> Float64Array:
    """Weigh a stock's own volatility by its history: (1 - always) n / (n + half), and the structural one by the rest.

    Parameters
    ----------
    spec : StructuralSpec
    own, structural : numpy.ndarray
        (ticker,) volatilities.
    count : numpy.ndarray
        (ticker,) residuals behind the own one.
    """
    weight = (1.0 - spec.always) * count / np.maximum(count + spec.half, 1.0)
    volatility: Float64Array = weight * own + (1.0 - weight) * structural
    return volatility


def shrunk_in_groups(spec: GroupShrinkageSpec, variance: Float64Array, size: Float64Array) -> Float64Array:
    """Shrink volatilities towards the mean of their size group, the more the further off they are.

    sigma_SH = v m + (1 - v) sigma, v = q |sigma - m| / (d + q |sigma - m|), where m is the size-weighted mean of the
    group and d the standard deviation within it (USE4 Methodology Notes, Bayesian shrinkage).

    Parameters
    ----------
    variance : numpy.ndarray
        (ticker,) finite, of covered stocks.
    size : numpy.ndarray
        (ticker,) capitalisation or market weight; stocks of one size are in one group. Those without are shrunk with
        the smallest, and have no say in what the others are shrunk to.
    """
    volatility = np.sqrt(variance)
    weight = np.where(np.isfinite(size) & (size > 0.0), size, 0.0)
    if not weight.any():
        weight = np.ones(len(size))
    counted = weight > 0.0
    edges = np.quantile(weight[counted], np.arange(1, spec.groups) / spec.groups)
    group = np.searchsorted(edges, weight, side="left")
    total = np.bincount(group, weight, spec.groups)
    n = np.bincount(group, counted, spec.groups)
    mean = np.bincount(group, weight * volatility, spec.groups) / np.where(total > 0.0, total, 1.0)
    off = np.abs(volatility - mean[group])
    spread = np.sqrt(np.bincount(group, counted * np.square(off), spec.groups) / np.maximum(n, 1.0))[group]
    pull = spec.strength * off
    share = np.divide(pull, spread + pull, out=np.zeros_like(pull), where=pull > 0.0)
    return np.square(share * mean[group] + (1.0 - share) * volatility)
