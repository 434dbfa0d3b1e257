"""What a published version says of its last fit beside the contract: the inference that each model offers.

Here belong the names of statistics with their units and meaning. Which of them a model has, and over which axes, is the
model's to say (`FactorModel.statistics`): a standard error may be one of each factor, or of each stock and factor.
"""

from __future__ import annotations

import xarray as xr

from schemas.contracts import VERSION, Variable

STATISTIC_DIMS = ("ticker", "penalty", "char", "observed_factor", "factor")
"""Axes that a statistic may have, in the order in which they are stored."""

# fmt: off
_PER_PERIOD, _OTHER = "decimal per period", "1"
STATISTICS: dict[str, tuple[str, str]] = {
    # Regressions over time, one of each stock.
    "alpha": (_PER_PERIOD, "intercept of the regression"),
    "alpha_stderr": (_PER_PERIOD, "standard error of alpha"),
    "beta_stderr": (_OTHER, "standard error of the loadings"),
    "r_squared": (_OTHER, "systematic share of the variance (centred R2 of the regression)"),
    "residual_variance": ("1", "variance of the residual"),
    "n_obs": (_OTHER, "number of returns behind the estimate"),
    "beta_ols": (_OTHER, "least-squares beta, before any shrinkage"),
    "return_variance": (_OTHER, "sample variance of the return, per period"),
    "return_variance_systematic": (_OTHER, "part of return_variance that the factors explain"),
    "return_variance_specific": (_OTHER, "part of return_variance that they do not"),
    "grs": (_OTHER, "F statistic of Gibbons, Ross and Shanken that all alphas are zero"),
    "grs_pvalue": (_OTHER, "p-value of grs"),
    "alpha_chi2": (_OTHER, "asymptotic statistic that all alphas are zero, with the errors of the model"),
    "alpha_chi2_pvalue": (_OTHER, "p-value of alpha_chi2"),
    "n_tested": (_OTHER, "number of stocks in the joint tests of alpha: those with complete histories"),
    # Premia.
    "premia_stderr": (_PER_PERIOD, "standard error of the premia"),
    "shanken_stderr": (_PER_PERIOD, "standard error of the premia with Shanken's correction for estimated betas"),
    "t_statistics": (_OTHER, "premia over their standard errors"),
    "n_slopes": (_OTHER, "number of dates behind the premium"),
    # Cross-sectional regressions, means over the training dates.
    "mean_abs_t": (_OTHER, "mean absolute t-statistic of the factor return"),
    "share_significant": (_OTHER, "share of dates on which the absolute t-statistic is above 2"),
    "mean_vif": (_OTHER, "mean variance inflation factor"),
    "mean_r_squared": (_OTHER, "mean R2 of the cross-sections"),
    # Principal components.
    "eigenvalues": (_OTHER, "eigenvalue of the decomposed matrix along the factor"),
    "explained_share": (_OTHER, "share of the trace of the decomposed matrix"),
    "sharpe_ratio": (_OTHER, "largest Sharpe ratio of the factors in training, per period"),
    "n_factors_bai_ng": (_OTHER, "number of factors according to Bai and Ng"),
    "n_factors_onatski": (_OTHER, "number of factors according to Onatski"),
    "n_factors_ahn_horenstein": (_OTHER, "number of factors according to Ahn and Horenstein"),
    "clipped_share": (_OTHER, "share of the trace that negative eigenvalues had"),
    "rms_alpha": (_PER_PERIOD, "root mean square pricing error in training"),
    # IPCA.
    "gamma": (_OTHER, "weight of the characteristic in the loading on the factor"),
    "gamma_alpha": (_PER_PERIOD, "weight of the characteristic in the intercept"),
    "alpha_p_value": (_OTHER, "bootstrap p-value of no intercept"),
    "characteristic_p_value": (_OTHER, "bootstrap p-value of no role of the characteristic in the loadings"),
    "observed_p_value": (_OTHER, "bootstrap p-value of no role of the observed factor"),
    # Penalised regressions.
    "coefficients": (_OTHER, "slope at the chosen penalty"),
    "selected": (_OTHER, "1 where the slope at the chosen penalty is not zero"),
    "selection_frequency_folds": (_OTHER, "share of the folds that select the factor"),
    "selection_frequency_bootstrap": (_OTHER, "share of the bootstrap samples that select the factor"),
    "path": (_OTHER, "slope along the path of penalties"),
    "lambdas": (_OTHER, "penalty along the path"),
    "cv_error": (_OTHER, "cross-validated mean squared error along the path"),
    "cv_error_stderr": (_OTHER, "standard error of the cross-validated error"),
    "chosen_lambda": (_OTHER, "penalty that was chosen"),
    "duality_gap": (_OTHER, "relative duality gap at the solution: a bound on how far it is from the optimum"),
}
"""Units and meaning of every statistic, by name."""
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
            units, meaning = STATISTICS[str(name)]
            dims = tuple(dim for dim in STATISTIC_DIMS if dim in array.dims)
            contract[str(name)] = Variable(
                dims=dims,
                dtype="float64",
                units=units,
                long_name=meaning,
                comment="Of the last fit. NaN: not known, or the stock is not covered.",
                required=False,
            )
    return contract
