"""What a risk model is made of, apart from what it forecasts: collinear, stable, explaining loadings.

Here belong diagnostics of loadings and of one cross-section. Whether variances were right is judged in `calibration`.
"""

from __future__ import annotations

import math

import numpy as np

from models.arrays import Float64Array
from models.evaluation.covariances import Covariance

_COLLINEAR = 1e-10
"""Eigenvalue of a correlation matrix below which columns are taken for the same."""


def variance_inflation(loadings: Float64Array) -> Float64Array:
    """Variance inflation factor 1 / (1 - R2) of each factor on the others and a constant, (K,).

    The diagonal of the inverse correlation matrix. Above 5 or so two factors compete for the same return; infinite if
    one is a combination of others, NaN for one that is the same for all stocks, such as a market.

    Parameters
    ----------
    loadings : numpy.ndarray
        (n, K), finite.
    """
    deviation = loadings - loadings.mean(axis=0)
    size = np.sqrt(np.square(deviation).sum(axis=0))
    varying = size > 1e-10 * np.maximum(
        np.abs(loadings).max(axis=0, initial=0.0) * math.sqrt(max(len(loadings), 1)), 1e-300
    )
    found = np.full(loadings.shape[1], np.nan)
    if varying.any():
        unit = deviation[:, varying] / size[varying]
        values, vectors = np.linalg.eigh(unit.T @ unit)
        shares = np.square(vectors)
        real = values > _COLLINEAR
        inflation = shares[:, real] @ (1.0 / values[real])
        found[varying] = np.where(shares[:, ~real].sum(axis=1) > _COLLINEAR, np.inf, inflation)
    return found


def factor_stability(before: Float64Array, after: Float64Array) -> Float64Array:
    """Cross-sectional correlation (K,) of each factor's loadings on two dates (n, K) of the same stocks.

    The factor stability coefficient of Menchero, Orr and Wang (2011), there weighted: below .8 a factor turns over too
    fast to be traded on. NaN where the loadings are the same for all stocks. It means nothing for latent factors, which
    may rotate: for those see `subspace_overlap`.
    """
    one, other = (part - part.mean(axis=0) for part in (before, after))
    scale = np.sqrt(np.square(one).sum(axis=0) * np.square(other).sum(axis=0))
    correlation: Float64Array = (one * other).sum(axis=0) / np.where(scale > 0.0, scale, np.nan)
    return correlation


def subspace_overlap(before: Float64Array, after: Float64Array) -> float:
    """Mean squared cosine of the principal angles between the spans of two loadings (n, K), whatever their rotation.

    1 if one contains the other, K / n for random ones.
    """
    bases = []
    for part in (before, after):
        left, singular, _ = np.linalg.svd(part, full_matrices=False)
        bases.append(left[:, singular > 1e-10 * singular.max(initial=0.0)])
    fewer = min(base.shape[1] for base in bases)
    return float(np.square(bases[0].T @ bases[1]).sum() / fewer) if fewer else math.nan


def explanatory_power(covariance: Covariance, returns: Float64Array) -> Float64Array:
    """Uncentred R2 (date,) of returns (date, n) on a factor form's loadings, each stock weighted by its 1 / D.

    By chance alone it is K / n. NaN on a date without returns; for a dense covariance it is 1 and says nothing.
    """
    whitened = returns / covariance.scale
    total = np.square(whitened).sum(axis=1)
    explained = np.square(whitened @ covariance.eigen()[1]).sum(axis=1)
    share: Float64Array = explained / np.where(total > 0.0, total, np.nan)
    return share


def dispersion(returns: Float64Array) -> Float64Array:
    """Cross-sectional sample variance (date,) of returns (date, n), NaN left out; NaN with fewer than two."""
    known = np.isfinite(returns)
    count = known.sum(axis=1, keepdims=True).astype(np.float64)
    filled = np.where(known, returns, 0.0)
    deviation = np.where(known, filled - filled.sum(axis=1, keepdims=True) / np.maximum(count, 1.0), 0.0)
    spread: Float64Array = np.square(deviation).sum(axis=1) / np.where(count > 1.0, count - 1.0, np.nan)[:, 0]
    return spread


def expected_dispersion(covariance: Covariance) -> float:
    """Return what the cross-sectional variance of returns of mean 0 is on average, (tr S - 1'S1 / n) / (n - 1)."""
    n = covariance.n_stocks
    common = float(covariance.variance(np.ones((1, n)))[0]) / n
    return (float(covariance.diagonal.sum()) - common) / (n - 1)
