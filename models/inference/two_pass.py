"""The two passes behind premia of estimated betas: the betas of a sample, and covariances of mean slopes.

Here belong standard errors of premia that are time-series means, and what changes about them when the regressors of the
second pass were themselves estimated. The cross-sectional regressions belong in `fama_macbeth`, tests of given traded
factors in `pricing_tests`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from models.arrays import FloatArray
from models.inference.regression import newey_west_covariance, time_series_regression
from models.panel import Panel
from models.statistics.gram import GramStatistics, solve_gram
from schemas.errors import ModelError


def mean_covariance(slopes: FloatArray, lags: int, *, debiased: bool = False) -> FloatArray:
    """Newey-West covariance of time-series means, each over the dates that its series has.

    With d the deviations from the mean, zero where a slope is missing, and n the dates of each series: sum over lags of
    the weighted autocovariances of d / n. It is positive semidefinite, and that of
    `models.inference.regression.newey_west_covariance` where nothing is missing.

    Parameters
    ----------
    slopes : numpy.ndarray
        (date, k), NaN where missing; at least one finite in each column.
    lags : int
        Of the Bartlett kernel.
    debiased : bool
        Multiply by n / (n - 1).
    """
    known = np.isfinite(slopes)
    counts = known.sum(axis=0)
    deviations = np.where(known, slopes - np.nanmean(slopes, axis=0), 0.0)
    covariance = newey_west_covariance(deviations * (len(slopes) / counts), lags)
    if debiased:
        inflation = np.sqrt(counts / (counts - 1.0))
        covariance = covariance * inflation[:, None] * inflation
    return covariance


def shanken_covariance(slopes: FloatArray, factors: FloatArray, lags: int, *, debiased: bool = False) -> FloatArray:
    """Covariance of Fama-MacBeth premia whose regressors are estimated betas, after Shanken (1992).

    It applies to two-pass regressions: betas of constant value, estimated by time-series regression on the factors over
    the same dates, are the regressors of the second pass; specific returns are homoskedastic given the factors and not
    autocorrelated. For betas of a rolling window it is an approximation, and characteristics that are observed need
    none.

    V + c NW(slopes - f), with V = NW(slopes) the covariance of `mean_covariance` and c = lambda' Sigma_f^-1 lambda over
    the columns that are betas. What a slope has beyond the factor itself is the noise of specific returns, A Sigma A'
    with A = (X'X)^-1 X', which the errors of the betas multiply by 1 + c. With no lags, a balanced panel and betas of
    its whole sample this is (1 / T) [(1 + c) A Sigma A' + Sigma_f], theorem 1 of the paper. With lags Sigma_f is the
    long-run covariance of the factors; in c it is the contemporaneous one.

    Parameters
    ----------
    slopes : numpy.ndarray
        (date, k) second-pass slopes, NaN where missing.
    factors : numpy.ndarray
        (date, k) the observed factor behind each column, NaN in columns that are not estimated betas, such as the
        intercept.
    lags, debiased
        As in `mean_covariance`.

    Raises
    ------
    ModelError
        If the observed factors are collinear.
    """
    beta = np.isfinite(factors).all(axis=0)
    premia = np.nanmean(slopes, axis=0)[beta]
    deviations = factors[:, beta] - factors[:, beta].mean(axis=0)
    weighted, rank = solve_gram((deviations.T @ deviations)[None] / len(factors), premia[None, :, None])
    if rank[0] < beta.sum():
        raise ModelError("The observed factors behind estimated_betas are collinear; name each factor once.")
    noise = mean_covariance(slopes - np.where(beta, factors, 0.0), lags, debiased=debiased)
    covariance: FloatArray = (
        mean_covariance(slopes, lags, debiased=debiased) + float(premia @ weighted[0, :, 0]) * noise
    )
    return covariance


def full_sample_betas(panel: Panel, *, min_observations: int = 24) -> Panel:
    """Make a panel whose characteristics are betas on its own observed factors: the first pass of a two-pass test.

    Each stock's betas come from one regression over all dates of the panel, and are constant in time. They know the
    whole sample, so that the panel serves to test which factors are priced in it, and not to forecast.

    Parameters
    ----------
    panel : Panel
        With observed factors.
    min_observations : int
        Stocks with fewer returns are not covered.

    Returns
    -------
    Panel
        The same dates, tickers, returns, mask, factors and market weight; characteristics ``beta_<factor>``, float32.

    Raises
    ------
    ModelError
        If the panel has no observed factors.

    Examples
    --------
    >>> from models import full_sample_betas
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> full_sample_betas(panel).chars
    ['beta_market']
    """
    names = [str(name) for name in panel.factors["observed_factor"].values]
    found = time_series_regression(
        panel.returns.values, panel.factors.values, panel.mask.values, min_observations=min_observations
    )
    betas = np.broadcast_to(found.beta.astype(np.float32), (len(panel.dates), *found.beta.shape))
    return Panel.from_arrays(
        panel.returns.values,
        betas,
        mask=panel.mask.values,
        dates=panel.dates,
        tickers=panel.tickers,
        chars=[f"beta_{name}" for name in names],
        factors=panel.factors.values,
        observed_factors=names,
        market_weight=panel.market_weight.values,
    )


def factors_of(betas: Mapping[str, str], gram: GramStatistics, observed: xr.DataArray | None) -> FloatArray:
    """(date, regressor) observed factor of each regressor; NaN in columns that are not estimated betas."""
    if observed is None:
        raise ModelError("estimated_betas needs the observed factors behind them; build the panel with `factors`.")
    unknown = sorted(set(betas) - set(gram.chars)) or sorted(set(betas.values()) - {*observed.observed_factor.values})
    if unknown:
        raise ModelError(f"estimated_betas names {unknown}, which the panel does not have.")
    values = observed.sel(date=gram.dates).astype(np.float64)
    columns = np.full((len(gram.dates), len(gram.chars)), np.nan)
    for name, factor in betas.items():
        column = values.sel(observed_factor=factor).values
        missing = ~np.isfinite(column) & (gram.n > 0)
        if missing.any():
            raise ModelError(f"The observed factor {factor} is missing on {gram.dates[missing][0]:%Y-%m-%d}.")
        columns[:, gram.chars.index(name)] = column
    return columns
