"""Joint tests that all alphas are zero: the exact F test and its asymptotic, robust relatives.

Here belong tests of given assets on given, traded factors: excess returns, whose premia are their means. Premia of
factors that are not traded, and the tests of their pricing errors, belong in `factor_premia`; one regression per stock
in `inference`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import linalg, stats

from models.arrays import FloatArray
from models.inference.regression import CovType, long_run_covariance, resolve_lags
from schemas.errors import ConfigError, ModelError

_RANK_TOLERANCE = 1e-12  # share of an asset's residual variance that those before it leave, and that counts as none
_NO_RESIDUAL = 1e-20  # squared residuals beside squared returns that are nothing but rounding


@dataclass(frozen=True)
class JointTest:
    """A test statistic with its distribution under the null hypothesis that all alphas are zero.

    Attributes
    ----------
    statistic, pvalue : float
        The statistic, and the probability of a larger one under the null hypothesis.
    df : tuple of int
        Degrees of freedom: two of the F distribution, one of chi squared.
    """

    statistic: float
    pvalue: float
    df: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class BalancedRegression:
    """Least squares of N assets on a constant and K factors over the same T dates.

    Attributes
    ----------
    returns, factors : numpy.ndarray
        (date, asset) and (date, factor), float64.
    alpha, beta : numpy.ndarray
        (asset,) and (asset, factor).
    residuals : numpy.ndarray
        (date, asset).
    scores : numpy.ndarray
        (date, 1 + factor) rows (X'X / T)^-1 x_t: the influence of a residual at t on T times alpha and beta.
    """

    returns: FloatArray
    factors: FloatArray
    alpha: FloatArray
    beta: FloatArray
    residuals: FloatArray
    scores: FloatArray


def balanced_regression(returns: npt.ArrayLike, factors: npt.ArrayLike) -> BalancedRegression:
    """Regress assets with complete histories on the factors.

    Parameters
    ----------
    returns : array_like
        (date, asset) excess returns, without a gap.
    factors : array_like
        (date, factor) factor returns, without a gap.

    Raises
    ------
    ModelError
        If shapes disagree, a value is missing, factors are collinear, or dates are too few for the regression.
    """
    response = np.asarray(returns, dtype=np.float64)
    regressors = np.asarray(factors, dtype=np.float64)
    if response.ndim != 2 or regressors.ndim != 2 or len(response) != len(regressors):
        raise ModelError(
            f"A joint test needs returns (date, asset) and factors (date, factor) of the same dates, "
            f"not shapes {response.shape} and {regressors.shape}."
        )
    for name, array in (("returns", response), ("factors", regressors)):
        if not np.isfinite(array).all():
            row, column = np.argwhere(~np.isfinite(array))[0]
            raise ModelError(
                f"A joint test needs complete histories, but {name} lack a value at position ({row}, {column}); "
                "leave out that asset or that date."
            )
    n_dates, size = len(response), regressors.shape[1] + 1
    if n_dates <= size:
        raise ModelError(f"{size - 1} factors need more than {size} dates, not {n_dates}.")
    design = np.column_stack([np.ones(n_dates), regressors])
    scale = np.sqrt(np.square(design).sum(axis=0))
    scale[scale == 0.0] = 1.0
    orthogonal, triangle = np.linalg.qr(design / scale)
    diagonal = np.abs(np.diagonal(triangle))
    if diagonal.min() <= np.sqrt(_RANK_TOLERANCE) * diagonal.max():
        raise ModelError("The factors are collinear, or one of them is constant; leave one out.")
    coefficients = linalg.solve_triangular(triangle, orthogonal.T @ response) / scale[:, None]
    scores = n_dates * linalg.solve_triangular(triangle, orthogonal.T).T / scale
    residuals = response - design @ coefficients
    return BalancedRegression(response, regressors, coefficients[0], coefficients[1:].T, residuals, scores)


def grs_test(returns: npt.ArrayLike, factors: npt.ArrayLike) -> JointTest:
    """Test of Gibbons, Ross and Shanken (1989): exact for independent normal errors, whatever the sample size.

    W = (T - N - K) / N  x  alpha' S^-1 alpha / (1 + m' O^-1 m)  ~  F(N, T - N - K)

    with S and O the covariances of residuals and of factors and m the factor means, all with divisor T. Source: eq. 6
    of the paper, which writes S with the divisor T - K - 1.

    Parameters
    ----------
    returns : array_like
        (date, asset) excess returns of N assets, without a gap.
    factors : array_like
        (date, factor) excess returns of K traded factors.

    Raises
    ------
    ModelError
        If there are not more than N + K dates, a value is missing, or residuals are linearly dependent (as when the
        factors are portfolios of the assets).
    """
    return grs_of(balanced_regression(returns, factors))


def grs_of(regression: BalancedRegression) -> JointTest:
    """Return the `grs_test` of a regression at hand."""
    n_dates, n_assets = regression.residuals.shape
    freedom = n_dates - n_assets - regression.factors.shape[1]
    if freedom < 1:
        raise ModelError(
            f"The GRS test needs more dates than assets and factors together: {n_dates} dates do not suffice for "
            f"{n_assets} assets and {n_dates - n_assets - freedom} factors. Test fewer assets (portfolios), "
            "or more dates."
        )
    covariance = regression.residuals.T @ regression.residuals / n_dates
    distance = _distance(regression, covariance)
    # The corner of (X'X / T)^-1 is 1 + m' O^-1 m, and the mean of the scores of alpha squared.
    corner = float(np.mean(np.square(regression.scores[:, 0])))
    statistic = freedom / n_assets * distance / corner
    return JointTest(statistic, float(stats.f.sf(statistic, n_assets, freedom)), (n_assets, freedom))


def alpha_test(
    returns: npt.ArrayLike,
    factors: npt.ArrayLike,
    *,
    cov_type: CovType = "HC0",
    newey_west_lags: int | None = None,
    debiased: bool = True,
) -> JointTest:
    """Asymptotic joint test alpha' V^-1 alpha ~ chi2(N), V the covariance of alpha over all assets at once.

    With a_t = q_t e_t, q_t the first entry of (X'X / T)^-1 x_t: V = (1 + m' O^-1 m) S / T for "nonrobust", sum a_t a_t'
    / T^2 for "HC0", and its Bartlett-weighted long-run form for "HAC". Over-rejects when N is not small beside T.
    "HC0" and "HAC" are the J-statistic of ``linearmodels``' ``TradedFactorModel``, "robust" and "kernel".

    Parameters
    ----------
    returns, factors : array_like
        (date, asset) and (date, factor), without a gap.
    cov_type : str
        "nonrobust", "HC0" (HC1 to HC3 differ for one asset only, and are refused) or "HAC".
    newey_west_lags : int, optional
        Lags of "HAC". Default: `models.inference.regression.automatic_lags`.
    debiased : bool
        Multiply V by T / (T - K - 1).

    Raises
    ------
    ModelError
        If V is singular, as it is with as many assets as dates, or the inputs are unusable.
    ConfigError
        If the ``cov_type`` is unknown or has no joint form over assets.
    """
    return alpha_test_of(balanced_regression(returns, factors), cov_type, newey_west_lags, debiased=debiased)


def alpha_test_of(
    regression: BalancedRegression, cov_type: CovType, newey_west_lags: int | None = None, *, debiased: bool = True
) -> JointTest:
    """Return the `alpha_test` of a regression at hand."""
    n_dates, n_assets = regression.residuals.shape
    lags = resolve_lags(cov_type, newey_west_lags, n_dates)
    if cov_type in ("HC1", "HC2", "HC3"):
        raise ConfigError(f"cov_type='{cov_type}' has no joint form over assets; use 'HC0' with debiased=True.")
    freedom = n_dates - regression.scores.shape[1]
    if n_assets > freedom:
        raise ModelError(
            f"The covariance of {n_assets} alphas is singular with {n_dates} dates; test fewer assets (portfolios), "
            "or more dates."
        )
    if cov_type == "nonrobust":
        corner = float(np.mean(np.square(regression.scores[:, 0])))
        covariance = corner * (regression.residuals.T @ regression.residuals) / n_dates**2
    else:
        covariance = long_run_covariance(regression.scores[:, :1] * regression.residuals, lags) / n_dates
    if debiased:
        covariance *= n_dates / freedom
    statistic = _distance(regression, covariance)
    return JointTest(statistic, float(stats.chi2.sf(statistic, n_assets)), (n_assets,))


def _distance(regression: BalancedRegression, covariance: FloatArray) -> float:
    """Squared distance alpha' C^-1 alpha, from the root of the correlation matrix, which does not know units."""
    variance = np.square(regression.residuals).sum(axis=0)
    spanned = np.flatnonzero(variance <= _NO_RESIDUAL * np.square(regression.returns).sum(axis=0))
    if len(spanned):
        raise ModelError(
            f"The factors span the asset at position {spanned[0]}, as when it is one of them, so that it has no alpha "
            "to test; leave it out."
        )
    scale = np.sqrt(np.diagonal(covariance))
    factor, failed = linalg.lapack.dpotrf(covariance / np.outer(scale, scale), lower=1)
    if failed or np.square(np.diagonal(factor)).min() <= _RANK_TOLERANCE:
        raise ModelError(
            "The residuals are linearly dependent, as when the factors are portfolios of the assets, "
            "or two assets are the same; leave one out."
        )
    root = linalg.solve_triangular(factor, regression.alpha / scale, lower=True)
    return float(root @ root)
