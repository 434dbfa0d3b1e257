"""What a published version says of its last fit beside the contract: the inference that each model offers.

Here belong the names of statistics and their meaning. Which of them a model has, and over which axes, is the
model's to say (`FactorModel.statistics`): a standard error may be one of each factor, or of each stock and factor.
"""

from __future__ import annotations

import xarray as xr

from schemas.contracts import VERSION, Variable

STATISTIC_DIMS = ("ticker", "penalty", "char", "observed_factor", "factor")
"""Axes that a statistic may have, in the order in which they are stored."""

# fmt: off
STATISTICS: dict[str, str] = {
    # Regressions over time, one of each stock.
    "alpha": "intercept of the regression, per period",
    "alpha_stderr": "standard error of alpha, per period",
    "beta_stderr": "standard error of the loadings",
    "r_squared": "systematic share of the variance (centred R2 of the regression)",
    "residual_variance": "variance of the residual",
    "n_obs": "number of returns behind the estimate",
    "beta_ols": "least-squares beta, before any shrinkage",
    "return_variance": "sample variance of the return, per period",
    "return_variance_systematic": "part of return_variance that the factors explain",
    "return_variance_specific": "part of return_variance that they do not",
    "grs": "F statistic of Gibbons, Ross and Shanken that all alphas are zero",
    "grs_pvalue": "p-value of grs",
    "alpha_chi2": "asymptotic statistic that all alphas are zero, with the errors of the model",
    "alpha_chi2_pvalue": "p-value of alpha_chi2",
    "n_tested": "number of stocks in the joint tests of alpha: those with complete histories",
    # Premia.
    "premia_stderr": "standard error of the premia, per period",
    "shanken_stderr": "standard error of the premia with Shanken's correction for estimated betas, per period",
    "t_statistics": "premia over their standard errors",
    "n_slopes": "number of dates behind the premium",
    # Cross-sectional regressions, means over the training dates.
    "mean_abs_t": "mean absolute t-statistic of the factor return",
    "share_significant": "share of dates on which the absolute t-statistic is above 2",
    "mean_vif": "mean variance inflation factor",
    "mean_r_squared": "mean R2 of the cross-sections",
    # Principal components.
    "eigenvalues": "eigenvalue of the decomposed matrix along the factor",
    "explained_share": "share of the trace of the decomposed matrix",
    "sharpe_ratio": "largest Sharpe ratio of the factors in training, per period",
    "n_factors_bai_ng": "number of factors according to Bai and Ng",
    "n_factors_onatski": "number of factors according to Onatski",
    "n_factors_ahn_horenstein": "number of factors according to Ahn and Horenstein",
    "clipped_share": "share of the trace that negative eigenvalues had",
    "rms_alpha": "root mean square pricing error in training, per period",
    "unexplained_share": "mean share of the variance of a stock that the factors leave in training",
    # IPCA.
    "gamma": "weight of the characteristic in the loading on the factor",
    "gamma_alpha": "weight of the characteristic in the intercept, per period",
    "alpha_p_value": "bootstrap p-value of no intercept",
    "characteristic_p_value": "bootstrap p-value of no role of the characteristic in the loadings",
    "observed_p_value": "bootstrap p-value of no role of the observed factor",
    # Penalised regressions.
    "coefficients": "slope at the chosen penalty",
    "selected": "1 where the slope at the chosen penalty is not zero",
    "selection_frequency_folds": "share of the folds that select the factor",
    "selection_frequency_bootstrap": "share of the bootstrap samples that select the factor",
    "path": "slope along the path of penalties",
    "lambdas": "penalty along the path",
    "cv_error": "cross-validated mean squared error along the path",
    "cv_error_stderr": "standard error of the cross-validated error",
    "chosen_lambda": "penalty that was chosen",
    "duality_gap": "largest relative duality gap along the path: a bound on how far it is from the optimum",
}
"""Meaning of every statistic, by name; returns are decimals."""
# fmt: on


def version_contract(dataset: xr.Dataset) -> dict[str, Variable]:
    """Return the contract of a published version: `VERSION`, and the statistics that it has, over the axes they have.

    Parameters
    ----------
    dataset : xarray.Dataset
        A version. Variables that are no statistic, or have other axes than `STATISTIC_DIMS`, stay out of the contract
        unless `VERSION` names them.
    """
    contract = dict(VERSION)
    for name, array in dataset.data_vars.items():
        if name in STATISTICS and set(array.dims) <= set(STATISTIC_DIMS):
            dims = tuple(dim for dim in STATISTIC_DIMS if dim in array.dims)
            contract[str(name)] = Variable(
                dims=dims,
                dtype="float64",
                units="1",
                long_name=STATISTICS[str(name)],
                comment="Of the last fit. NaN: not known, or the stock is not covered.",
                required=False,
            )
    return contract
