"""Premia of given factors from the cross-section of mean returns, with errors that know betas are estimates.

Here belongs the two-pass regression for factors that need not be traded, of assets with complete histories and of
stocks with any, and the test of its pricing errors. Tests of traded factors belong in `pricing_tests`, cross-sections
with characteristics beside betas in `fama_macbeth`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import linalg, stats

from models.arrays import FloatArray
from models.inference.first_pass import FirstPass, GappedPass, first_pass
from models.inference.pricing_tests import JointTest
from models.inference.regression import CovType, bartlett_weights, long_run_covariance, resolve_lags, weighted_products
from models.statistics.gram import RANK_TOLERANCE, solve_gram
from schemas.errors import ConfigError, ModelError


@dataclass(frozen=True, eq=False)
class TwoPass:
    """Premia and pricing errors of a two-pass regression.

    Attributes
    ----------
    premia, premia_stderr : numpy.ndarray
        (k,) premia per period with their standard errors; the zero-beta rate comes first if it was asked for.
    premia_covariance : numpy.ndarray
        (k, k).
    alpha, alpha_stderr : numpy.ndarray
        (asset,) pricing errors, mean return minus betas times premia, with their standard errors.
    regressors : numpy.ndarray
        (asset, k) betas, after a column of ones if the zero-beta rate was asked for.
    orthogonal_to : numpy.ndarray
        (asset, k) W X, to which pricing errors are orthogonal by construction.
    sdf_loadings, sdf_loadings_stderr : numpy.ndarray
        (factor,) b of the stochastic discount factor m = 1 - b'(f - E[f]), prices of covariance risk: b = O^-1 lambda,
        so that E[r] = Cov(r, f) b. A factor helps to price the assets beside the others if its b is not zero, whether
        or not its premium is (Cochrane 2005, section 13.4).
    sdf_loadings_covariance : numpy.ndarray
        (factor, factor).
    alpha_influence : numpy.ndarray
        (date, asset) what each date adds to T times the pricing errors; their long-run covariance over T is that of
        alpha.
    lags : int
        Lags of that long-run covariance.
    debias : float
        Factor of the covariance for lost degrees of freedom.

    Examples
    --------
    >>> from models import two_pass
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> found = two_pass(panel.returns.values[1:], panel.factors.values[1:], zero_beta=True)
    >>> found.premia.shape, found.alpha.shape
    ((2,), (24,))
    """

    premia: FloatArray
    premia_stderr: FloatArray
    premia_covariance: FloatArray
    alpha: FloatArray
    alpha_stderr: FloatArray
    regressors: FloatArray
    orthogonal_to: FloatArray
    sdf_loadings: FloatArray
    sdf_loadings_stderr: FloatArray
    sdf_loadings_covariance: FloatArray
    alpha_influence: FloatArray
    lags: int
    debias: float

    def pricing_test(self) -> JointTest:
        """J-statistic alpha' Q (Q'VQ)^-1 Q' alpha ~ chi2(N - k), Q a basis of the space orthogonal to W X.

        Raises
        ------
        ModelError
            If N is not larger than k, or dates are too few for the covariance V of N - k pricing errors.
        """
        n_assets, size = self.regressors.shape
        freedom = n_assets - size
        if freedom < 1:
            raise ModelError(f"{n_assets} assets leave no pricing error to test beside {size} premia; add assets.")
        if freedom >= len(self.alpha_influence):
            raise ModelError(
                f"The covariance of {freedom} pricing errors is singular with {len(self.alpha_influence)} dates; "
                "test fewer assets (portfolios), or more dates."
            )
        basis = np.linalg.qr(self.orthogonal_to, mode="complete")[0][:, size:]
        influence = self.alpha_influence @ basis
        covariance = self.debias * long_run_covariance(influence, self.lags) / len(influence)
        values, vectors = np.linalg.eigh(covariance)
        if values[0] <= RANK_TOLERANCE * values[-1]:
            raise ModelError("The pricing errors are linearly dependent; leave out the asset that repeats others.")
        statistic = float(np.sum(np.square(vectors.T @ (basis.T @ self.alpha)) / values))
        return JointTest(statistic, float(stats.chi2.sf(statistic, freedom)), (freedom,))


def two_pass(
    returns: npt.ArrayLike,
    factors: npt.ArrayLike,
    *,
    weighting: Literal["ols", "gls"] = "ols",
    zero_beta: bool = False,
    cov_type: CovType = "HC0",
    newey_west_lags: int | None = None,
    debiased: bool = True,
) -> TwoPass:
    """Regress mean returns on betas, lambda = (X'WX)^-1 X'W mean(r), with errors for estimated betas.

    "nonrobust" is Shanken (1992): Var(lambda) = [(1 + c) A S A' + O] / T with A = (X'WX)^-1 X'W, S and O the
    covariances of residuals and factors, c = lambda' O^-1 lambda. "HC0" and "HAC" are the errors of the exactly
    identified GMM system of both passes (Cochrane 2005, section 12.2), as in ``linearmodels``' ``LinearFactorModel``
    with "robust" and "kernel"; they are computed from the influence of each date, without a matrix over assets and
    factors. They hold where the model misses the means too, as those of Kan, Robotti and Shanken (2013) do, but that
    "gls" takes W as given.

    The errors of the SDF loadings b = O^-1 lambda are those of the same system with the covariance of the factors in
    it, from psi_b = O^-1 [psi_lambda - (d d' - O) b], d = f[t] - mean(f). "nonrobust", for normal factors, is
    Var(b) = {(1 + c) O^-1 [A S A' + O] O^-1 + b b'} / T.

    An asset with gaps has the beta of its own dates, and the mean return alpha_i + beta_i' mean(f) that its regression
    gives over all dates (Stambaugh 1997): what the factors returned on the dates that it lacks does not count as its
    own. Each date's influence counts for it T over the number of its dates, about; T is that of all dates.

    Parameters
    ----------
    returns : array_like
        (date, asset) excess returns, NaN where missing; each asset has more than K + 1 returns.
    factors : array_like
        (date, factor) factors, traded or not, without a gap.
    weighting : str
        "ols": W = I. "gls": W = S^-1, taken as given in the errors.
    zero_beta : bool
        Estimate the return of an asset without exposure too; it comes first.
    cov_type : str
        "nonrobust" (Shanken), "HC0" (GMM, no autocorrelation) or "HAC" (GMM, Bartlett kernel).
    newey_west_lags : int, optional
        Lags of "HAC". Default: `models.inference.regression.automatic_lags`.
    debiased : bool
        Degrees of freedom T - K - 1 instead of T (T - 1 for O).

    Raises
    ------
    ModelError
        If betas are collinear or fewer assets than premia, "gls" has a gap or not more dates than assets and factors,
        or the inputs are unusable.
    ConfigError
        If the ``cov_type`` or the weighting is unknown, or the ``cov_type`` has no form for two passes.

    Examples
    --------
    >>> from models import two_pass
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> found = two_pass(panel.returns.values[1:], panel.factors.values[1:])
    >>> found.premia.shape
    (1,)
    """
    regression = first_pass(returns, factors)
    n_dates, n_factors = regression.factors.shape
    lags = resolve_lags(cov_type, newey_west_lags, n_dates)
    if cov_type in ("HC1", "HC2", "HC3"):
        raise ConfigError(f"cov_type='{cov_type}' has no form for two passes; use 'HC0' with debiased=True.")
    design = np.column_stack([np.ones((len(regression.beta), int(zero_beta))), regression.beta])
    _check_rank(design)
    mean = regression.returns.mean(axis=0)
    both = _weighted(np.column_stack([design, mean]), regression, weighting)
    weighted = both[:, :-1]
    gram = weighted.T @ design
    premia = np.linalg.solve(gram, weighted.T @ mean)
    alpha, weighted_alpha = mean - design @ premia, both[:, -1] - weighted @ premia
    degrees = n_dates / (n_dates - n_factors - 1) if debiased else 1.0
    deviations = regression.factors - regression.factors.mean(axis=0)
    spread = deviations.T @ deviations / (n_dates - int(debiased))
    loadings = np.linalg.solve(spread, premia[-n_factors:])
    if cov_type == "nonrobust":
        project = np.linalg.solve(gram, weighted.T)
        covariance, influence = _shanken(regression, design, project, premia, degrees, debiased=debiased)
        of_factors = spread * float(premia[-n_factors:] @ loadings) / n_dates  # (1 + c) O, of which one is there
        inverse = np.linalg.inv(spread)
        of_loadings = inverse @ (covariance[-n_factors:, -n_factors:] + of_factors) @ inverse
        of_loadings += np.outer(loadings, loadings) / n_dates
    else:
        step, influence = _gmm(regression, design, weighted, premia, weighted_alpha)
        influence -= alpha
        covariance = degrees * long_run_covariance(step, lags) / n_dates
        moved = step[:, -n_factors:] - deviations * (deviations @ loadings)[:, None]
        moved -= moved.mean(axis=0)
        of_loadings = degrees * long_run_covariance(np.linalg.solve(spread, moved.T).T, lags) / n_dates
    own = np.square(influence).sum(axis=0)
    for lag, weight in enumerate(bartlett_weights(lags), start=1):
        own += 2.0 * weight * (influence[lag:] * influence[:-lag]).sum(axis=0)
    return TwoPass(
        premia=premia,
        premia_stderr=np.sqrt(np.diagonal(covariance)),
        premia_covariance=covariance,
        alpha=alpha,
        alpha_stderr=np.sqrt(degrees * own) / n_dates,
        regressors=design,
        orthogonal_to=weighted,
        sdf_loadings=loadings,
        sdf_loadings_stderr=np.sqrt(np.diagonal(of_loadings)),
        sdf_loadings_covariance=of_loadings,
        alpha_influence=influence,
        lags=lags,
        debias=degrees,
    )


def _weighted(columns: FloatArray, regression: FirstPass, weighting: str) -> FloatArray:
    """(asset, m) W times the columns."""
    if weighting == "ols":
        return columns
    if weighting != "gls":
        raise ConfigError(f"weighting='{weighting}' is not known; it is 'ols' or 'gls'.")
    if isinstance(regression, GappedPass):
        raise ModelError("GLS needs complete histories; use 'ols', or leave out assets or dates with gaps.")
    n_dates, n_assets = regression.residuals.shape
    if n_assets >= n_dates - regression.factors.shape[1]:
        raise ModelError(
            f"GLS needs more dates than assets and factors together: {n_dates} dates do not suffice for {n_assets} "
            "assets. Use 'ols', fewer assets (portfolios), or more dates."
        )
    try:
        factor = linalg.cho_factor(regression.residuals.T @ regression.residuals / n_dates)
    except linalg.LinAlgError as error:
        raise ModelError("GLS needs residuals that are not linearly dependent; leave out an asset.") from error
    weighted: FloatArray = linalg.cho_solve(factor, columns)
    return weighted


def _check_rank(design: FloatArray) -> None:
    n_assets, size = design.shape
    scale = np.sqrt(np.square(design).sum(axis=0))
    if n_assets < size or not (scale > 0.0).all():
        raise ModelError(f"{n_assets} assets do not identify {size} premia; add assets, or leave out a factor.")
    singular = np.linalg.svd(design / scale, compute_uv=False)
    if singular[-1] <= np.sqrt(RANK_TOLERANCE) * singular[0]:
        raise ModelError("The betas are collinear over the assets, so that premia are not identified; drop a factor.")


def _shanken(
    regression: FirstPass,
    design: FloatArray,
    project: FloatArray,
    premia: FloatArray,
    degrees: float,
    *,
    debiased: bool,
) -> tuple[FloatArray, FloatArray]:
    """Covariance of the premia, and the influence of each date on alpha, for independent errors of one variance."""
    n_dates, n_factors = regression.factors.shape
    deviations = regression.factors - regression.factors.mean(axis=0)
    spread = deviations.T @ deviations / (n_dates - int(debiased))
    priced = premia[-n_factors:]
    enlarged = 1.0 + float(priced @ np.linalg.solve(spread, priced))
    noise = regression.residuals @ project.T
    covariance = enlarged * degrees * (noise.T @ noise) / n_dates
    covariance[-n_factors:, -n_factors:] += spread
    influence = np.sqrt(enlarged) * (regression.residuals - noise @ design.T)
    return covariance / n_dates, influence


def _gmm(
    regression: FirstPass,
    design: FloatArray,
    weighted: FloatArray,
    premia: FloatArray,
    weighted_alpha: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """(date, k) influence of each date on the premia and (date, asset) on alpha, of the system of both passes.

    The system is E[x_t e_it] = 0 for each asset, X'W E[r_t - X lambda] = 0 and E[r_t - X lambda - alpha] = 0. It is
    block triangular, so that with q_t the slopes' part of the scores, p_t = r_t - X lambda and e_t the residuals

        psi_t = (X'WX)^-1 [X'W p_t - (lambda'q_t) X'W e_t + (0, q_t)' (alpha'W e_t)]
        a_t = p_t - (lambda'q_t) e_t - X psi_t, from which alpha is still to be taken.
    """
    n_factors = regression.factors.shape[1]
    pricing = regression.returns - design @ premia
    pricing -= regression.along(premia[-n_factors:])
    moment = pricing @ weighted
    moment[:, -n_factors:] += regression.summed(weighted_alpha)
    step = np.linalg.solve(weighted.T @ design, moment.T).T
    return step, pricing - step @ design.T


def premia_of_dates(
    returns: FloatArray,
    factors: FloatArray,
    known: npt.NDArray[np.bool_],
    beta: FloatArray,
    *,
    cov_type: CovType,
    newey_west_lags: int | None = None,
) -> tuple[FloatArray, FloatArray, int]:
    """Premia by OLS of every date's returns on the betas of the stocks at hand, averaged over dates; any histories.

    With lambda_t = (B_t'B_t)^-1 B_t' r_t over the stocks known at t, premia are the mean of lambda_t. Errors are those
    of `two_pass`, which this equals on complete histories: Shanken's from A_t e_t = lambda_t - f_t less its mean
    ("nonrobust"), or from the influence of each date on both passes,

        psi_t = lambda_t - lambda - T sum_i M_i S_i x_t e_it,
        M_i = (1 / T) sum_s (B_s'B_s)^-1 [beta_i lambda_s' - (r_is - beta_i'lambda_s) I], over the dates s of stock i,

    with S_i the slopes' rows of (X_i'X_i)^-1, each stock over its own history. Degrees of freedom are T - K - 1.

    Parameters
    ----------
    returns, factors, known : numpy.ndarray
        (date, ticker), (date, factor) and (date, ticker), factors without a gap.
    beta : numpy.ndarray
        (ticker, factor), NaN where unknown, and these stocks do not enter.

    Returns
    -------
    premia, premia_stderr : numpy.ndarray
        (factor,).
    n_dropped : int
        Dates without enough stocks, or whose betas are collinear; their lambda_t is left out.

    Raises
    ------
    ModelError
        If no more dates are left than factors and one.
    """
    has_beta = np.isfinite(beta).all(axis=1)
    beta, known, returns = beta[has_beta], known[:, has_beta], returns[:, has_beta]
    weight, response = known.astype(np.float64), np.where(known, returns, 0.0)
    n_factors = beta.shape[1]
    outer = (beta[:, :, None] * beta[:, None, :]).reshape(len(beta), -1)
    gram = (weight @ outer).reshape(-1, n_factors, n_factors)
    identity = np.broadcast_to(np.eye(n_factors), gram.shape)
    solution, rank = solve_gram(gram, np.concatenate([(response @ beta)[..., None], identity], axis=2))
    kept = rank == n_factors
    n_dates = int(kept.sum())
    if n_dates <= n_factors + 1:
        raise ModelError(f"Premia need more than {n_factors + 1} dates with {n_factors} stocks or more, not {n_dates}.")
    slopes, inverse = solution[kept, :, 0], solution[kept, :, 1:]
    weight, response, factors = weight[kept], response[kept], factors[kept]
    premia = slopes.mean(axis=0)
    degrees = n_dates / (n_dates - n_factors - 1)
    if cov_type == "nonrobust":
        deviations = factors - factors.mean(axis=0)
        spread = deviations.T @ deviations / (n_dates - 1)
        noise = slopes - premia - deviations
        enlarged = 1.0 + float(premia @ np.linalg.solve(spread, premia))
        covariance = (enlarged * degrees * (noise.T @ noise) / n_dates + spread) / n_dates
    else:
        through_beta = _influence_of_betas(response, factors, weight, beta, slopes, inverse)
        lags = resolve_lags(cov_type, newey_west_lags, n_dates)
        covariance = degrees * long_run_covariance(slopes - premia - through_beta, lags) / n_dates
    return premia, np.sqrt(np.diagonal(covariance)), int((~kept).sum())


def _influence_of_betas(
    response: FloatArray,
    factors: FloatArray,
    weight: FloatArray,
    beta: FloatArray,
    slopes: FloatArray,
    inverse: FloatArray,
) -> FloatArray:
    """(date, factor) T sum_i M_i S_i x_t e_it of `premia_of_dates`; response and weight are zero where unknown."""
    n_dates, size = factors.shape
    design = np.column_stack([np.ones(n_dates), factors])
    gram = weighted_products(weight, design, design)
    moment = np.concatenate([(response.T @ design)[..., None], np.broadcast_to(np.eye(size + 1), gram.shape)], axis=2)
    solution, _ = solve_gram(gram, moment)
    residuals = (response - design @ solution[..., 0].T) * weight
    pricing = (response - slopes @ beta.T) * weight
    cubes = (inverse[:, :, :, None] * slopes[:, None, None, :]).reshape(n_dates, -1)
    priced = np.einsum("iklm,il->ikm", (weight.T @ cubes).reshape(-1, size, size, size), beta)
    priced -= (pricing.T @ inverse.reshape(n_dates, -1)).reshape(-1, size, size)
    per_stock = (priced @ solution[:, 1:, 1:]).reshape(len(beta), -1)
    along = (residuals @ per_stock).reshape(n_dates, size, size + 1)
    influence: FloatArray = np.einsum("tkm,tm->tk", along, design)
    return influence
