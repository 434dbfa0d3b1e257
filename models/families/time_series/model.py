"""Time-series regressions of stocks on observed factors, and what every such model shares.

Here belong models whose factor returns are given and whose loadings are regression slopes. The batched regression is in
`inference`, its rolling form in `betas`, joint tests in `pricing_tests`, premia from the cross-section in
`factor_premia`; the model of one market return in `market`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import xarray as xr
from annotated_types import Ge, MinLen

from models.arrays import BoolArray, FloatArray
from models.families.base import FactorModel, ModelState
from models.inference.betas import beta_paths
from models.inference.factor_premia import premia_of_dates, two_pass
from models.inference.pricing_tests import alpha_test_of, balanced_regression, grs_of
from models.inference.regression import (
    CovType,
    TimeSeriesRegression,
    newey_west_covariance,
    resolve_lags,
    time_series_regression,
)
from models.panel import Panel
from models.statistics.gram import collinear
from schemas.errors import ConfigError, ModelError
from schemas.statistics import NOT_MADE

_STOCKS = ("alpha", "beta", "alpha_stderr", "beta_stderr", "r_squared", "return_variance", "residual_variance", "n_obs")
_TESTS = ("grs", "grs_pvalue", "alpha_chi2", "alpha_chi2_pvalue", "n_tested")


class ObservedFactorModel(FactorModel):
    """r_i[t] = alpha_i + beta_i' f[t] + e_i[t] with observed f, each stock over its own history, in one batched solve.

    Attributes
    ----------
    alpha_, alpha_stderr_, r_squared_, return_variance_, residual_variance_, n_obs_ : xarray.DataArray
        (ticker). ``r_squared_`` is the systematic share of the variance; everything is per period.
        ``return_variance_`` has the divisor n - 1, ``residual_variance_`` n - k - 1.
    beta_, beta_stderr_ : xarray.DataArray
        (ticker, factor).
    premia_ : xarray.DataArray
        (factor,) premia per period.
    premia_stderr_ : numpy.ndarray
        (factor,) their standard errors.
    return_variance_systematic_, return_variance_specific_ : xarray.DataArray
        (ticker) ``return_variance_`` split by ``r_squared_``; the two add up to it.
    grs_, grs_pvalue_, alpha_chi2_, alpha_chi2_pvalue_, n_tested_ : xarray.DataArray
        Joint tests that all alphas are zero, over the ``n_tested_`` stocks with a return on every covered date: every
        date that has the factors and any stock in the mask. NaN where they cannot be had, with the reason in the
        attribute ``comment``.
    tests_comment_ : str
        That reason; empty if none is NaN.
    n_dropped_ : int
        Dates that premia from the cross-section leave out: too few stocks, or collinear betas.
    """

    STATISTICS: ClassVar[Mapping[str, str]] = {
        "alpha": "intercept of the regression, per period",
        "alpha_stderr": "standard error of alpha, per period",
        "beta_stderr": "standard error of the loadings",
        "r_squared": "systematic share of the variance (centred R2 of the regression)",
        "return_variance": "sample variance of the return, per period",
        "residual_variance": "variance of the residual",
        "n_obs": "number of returns behind the estimate",
        "return_variance_systematic": "part of return_variance that the factors explain",
        "return_variance_specific": "part of return_variance that they do not",
        "grs": "F statistic of Gibbons, Ross and Shanken that all alphas are zero",
        "grs_pvalue": "p-value of grs",
        "alpha_chi2": "asymptotic statistic that all alphas are zero, with the errors of the model",
        "alpha_chi2_pvalue": "p-value of alpha_chi2",
        "n_tested": "number of stocks in the joint tests of alpha: those with complete histories",
    }
    _per_stock: ClassVar[tuple[str, ...]] = _STOCKS
    window: int | None
    min_observations: int
    cov_type: CovType
    newey_west_lags: int | None

    alpha_: xr.DataArray
    beta_: xr.DataArray
    alpha_stderr_: xr.DataArray
    beta_stderr_: xr.DataArray
    r_squared_: xr.DataArray
    return_variance_: xr.DataArray
    residual_variance_: xr.DataArray
    n_obs_: xr.DataArray
    premia_stderr_: FloatArray
    grs_: xr.DataArray
    grs_pvalue_: xr.DataArray
    alpha_chi2_: xr.DataArray
    alpha_chi2_pvalue_: xr.DataArray
    n_tested_: xr.DataArray
    tests_comment_: str
    n_dropped_: int

    @abstractmethod
    def _names(self, panel: Panel) -> list[str]:
        """Names of the factors that a fit to the panel has."""

    @abstractmethod
    def _observed(self, panel: Panel, names: list[str]) -> FloatArray:
        """Return those factors as (date, factor) in float64, NaN where missing."""

    def fit(self, panel: Panel, y: None = None) -> Self:  # noqa: ARG002  # scikit-learn passes y
        """Fit to the panel's last ``window`` dates that have all factors; a return enters where ``panel.mask`` is true.

        Raises
        ------
        ModelError
            If the panel lacks a factor, no stock has enough returns, or premia cannot be had as asked for.
        ConfigError
            If no factor is named, one is named twice, or a parameter is unknown.
        """
        names = self._names(panel)
        observed = self._observed(panel, names)
        dated = np.flatnonzero(np.isfinite(observed).all(axis=1))
        if self.window is not None:
            dated = dated[-self.window :]
        returns, known = (_rows(array.values, dated) for array in (panel.returns, panel.mask))
        factors = observed[dated]
        result = time_series_regression(
            returns,
            factors,
            known,
            min_observations=self.min_observations,
            cov_type=self.cov_type,
            newey_west_lags=self.newey_west_lags,
        )
        if not np.isfinite(result.beta).any():
            raise ModelError(self._why_no_beta(panel, names, factors, known))
        premia, errors, n_dropped = self._estimated_premia(returns, factors, known, result)
        tests, comment = self._joint_tests(*_balanced(returns, factors, known, result))
        arrays = self._stock_arrays(result)
        arrays |= {"premia": premia, "premia_stderr": errors, "tests": np.array([tests[name] for name in _TESTS])}
        self._restore(arrays, {"tickers": panel.tickers, "factors": names, "comment": comment, "n_dropped": n_dropped})
        return self

    def _why_no_beta(self, panel: Panel, names: list[str], factors: FloatArray, known: BoolArray) -> str:
        """Say what keeps every stock from having a beta."""
        if not known.any():
            return (
                f"No date of the panel, {panel.dates[0]:%Y-%m-%d} to {panel.dates[-1]:%Y-%m-%d}, has both a return and "
                f"the factors {', '.join(names)}: factors and returns have no date in common. Give factors of the same "
                "dates."
            )
        covered = factors[known.any(axis=1)]
        deviations = covered - covered.mean(axis=0)
        involved = collinear(deviations.T @ deviations, names)
        if involved and len(covered) > len(names):
            return (
                f"The factors {', '.join(involved)} are collinear, or constant, on the {len(covered)} dates that have "
                "returns: leave one out."
            )
        return (
            f"No stock has min_observations={self.min_observations} returns that identify its beta; the longest "
            f"history has {int(known.sum(axis=0).max())} of {len(factors)} dates. Lower min_observations, or give more "
            "dates."
        )

    def _stock_arrays(self, result: TimeSeriesRegression) -> dict[str, Any]:
        """Return what the model keeps of every stock, by name."""
        return {name: getattr(result, name) for name in _STOCKS}

    def _estimated_premia(
        self,
        returns: FloatArray,  # noqa: ARG002  # premia from the cross-section need them, and what follows
        factors: FloatArray,
        known: BoolArray,  # noqa: ARG002
        result: TimeSeriesRegression,  # noqa: ARG002
    ) -> tuple[FloatArray, FloatArray, int]:
        """Premia, their errors and how many dates they leave out; here those of traded factors, their means."""
        lags = resolve_lags(self.cov_type, self.newey_west_lags, len(factors))
        covariance = newey_west_covariance(factors, lags)
        if self.cov_type != "HAC":
            covariance *= len(factors) / (len(factors) - 1)
        return factors.mean(axis=0), np.sqrt(np.diagonal(covariance)), 0

    def _joint_tests(self, returns: FloatArray, factors: FloatArray) -> tuple[dict[str, float], str]:
        """Joint tests of the stocks with complete histories, and why one of them is NaN."""
        tests = dict.fromkeys(_TESTS, np.nan) | {"n_tested": float(returns.shape[1])}
        if returns.shape[1] == 0:
            return tests, f"No stock has a return on each of the {len(factors)} dates with factors and stocks."
        robust: CovType = "HC0" if self.cov_type.startswith("HC") else self.cov_type
        try:
            regression = balanced_regression(returns, factors)
            grs = grs_of(regression)
            tests |= {"grs": grs.statistic, "grs_pvalue": grs.pvalue}
            chi2 = alpha_test_of(regression, robust, self.newey_west_lags)
            tests |= {"alpha_chi2": chi2.statistic, "alpha_chi2_pvalue": chi2.pvalue}
        except ModelError as error:
            return tests, str(error)
        return tests, ""

    def loadings(self, panel: Panel) -> xr.DataArray:
        """Betas as (date, ticker, factor), the same on every date; NaN for stocks without one."""
        self._check_fitted()
        beta = self.beta_.reindex(ticker=panel.tickers).values.reshape(len(panel.tickers), len(self.factors_))
        values = np.tile(beta, (len(panel.dates), 1, 1))
        coords = {"date": panel.dates, "ticker": panel.tickers, "factor": self.factors_}
        return xr.DataArray(values, coords, ("date", "ticker", "factor"), name="loadings")

    def factor_returns(self, panel: Panel) -> xr.DataArray:
        """Observed factor returns as (date, factor); NaN on dates without them."""
        self._check_fitted()
        coords = {"date": panel.dates, "factor": self.factors_}
        return xr.DataArray(self._observed(panel, self.factors_), coords, ("date", "factor"), name="factor_returns")

    def beta_path(self, panel: Panel) -> xr.Dataset:
        """Estimates as of every date of the panel, over its last ``window`` dates, or over all so far without a window.

        The values at t use returns up to and including t, and are those of a `fit` to the panel up to t, but that
        standard errors are the classical ones. As loadings of the return at t they may be used from the next date on.

        Returns
        -------
        xarray.Dataset
            ``beta`` and ``beta_stderr`` (date, ticker, factor), ``alpha``, ``alpha_stderr``, ``r_squared``,
            ``residual_variance`` and ``n_obs`` (date, ticker).
        """
        names = self._names(panel)
        path = beta_paths(
            panel.returns.values.astype(np.float64),
            self._observed(panel, names),
            panel.mask.values,
            window=self.window,
            min_observations=self.min_observations,
        )
        return path.assign_coords(date=panel.dates, ticker=panel.tickers, factor=names)

    @property
    def return_variance_systematic_(self) -> xr.DataArray:
        """(ticker) part of the variance of the return that the factors explain."""
        return self.return_variance_ * self.r_squared_

    @property
    def return_variance_specific_(self) -> xr.DataArray:
        """(ticker) part of the variance of the return that they do not."""
        return self.return_variance_ * (1.0 - self.r_squared_)

    def state(self) -> ModelState:
        """Estimates of every stock, premia and tests."""
        self._check_fitted()
        arrays = {name: getattr(self, f"{name}_").values for name in self._per_stock}
        arrays |= {"premia": self._premia, "premia_stderr": self.premia_stderr_}
        arrays["tests"] = np.array([float(getattr(self, f"{name}_")) for name in _TESTS])
        tickers = [str(name) for name in self.alpha_["ticker"].values]
        return ModelState(
            arrays,
            {
                "tickers": tickers,
                "factors": self.factors_,
                "comment": self.tests_comment_,
                "n_dropped": self.n_dropped_,
            },
        )

    @classmethod
    def from_state(cls, params: dict[str, Any], state: ModelState) -> Self:
        """Rebuild a fitted model."""
        model = cls(**params)
        model._restore(state.arrays, state.meta)
        return model

    def _restore(self, arrays: dict[str, Any], meta: dict[str, Any]) -> None:
        coords = {"ticker": meta["tickers"], "factor": meta["factors"]}
        for name in self._per_stock:
            dims = ("ticker", "factor")[: arrays[name].ndim]
            values = xr.DataArray(arrays[name], {dim: coords[dim] for dim in dims}, dims, name=name)
            setattr(self, f"{name}_", values)
        self.premia_, self.premia_stderr_ = arrays["premia"], arrays["premia_stderr"]
        for name, value in zip(_TESTS, arrays["tests"].tolist(), strict=True):
            comment = {"comment": f"{NOT_MADE}{meta['comment']}"} if np.isnan(value) else {}
            setattr(self, f"{name}_", xr.DataArray(value, name=name, attrs=comment))
        self.tests_comment_, self.n_dropped_ = meta["comment"], meta["n_dropped"]
        self.factors_ = list(meta["factors"])


class TimeSeriesModel(ObservedFactorModel):
    """Regression of every stock on observed factors, such as those of Fama and French (1993).

    ``cov_type`` also says which errors the premia and the joint test of alpha have: "nonrobust" for independent errors
    of one variance (of premia from the cross-section: Shanken's), "HC0" to "HC3" robust to heteroskedasticity (GMM),
    "HAC" also to autocorrelation. See `models.inference.regression.time_series_regression`, and
    `models.inference.factor_premia` for premia from the cross-section.

    Parameters
    ----------
    factors : tuple of str, optional
        Observed factors, in order. Default: all of the cube's.
    window : int, optional
        Periods of the regression: the last so many that have all factors. Default: all.
    min_observations : int
        Fewest returns in the window with which a stock is covered; others get no beta (NaN).
    cov_type : str
        Standard errors by the names of statsmodels, of betas, premia and the joint test of alpha; "HAC" is Newey-West.
    newey_west_lags : int, optional
        Lags of cov_type "HAC". Default: floor(4 (T/100)^(2/9)).
    premia : str
        "mean": the mean of each factor, the premium of a traded one. For factors that need not be traded: "ols", from
        the cross-section of all stocks with a beta, date by date; "gls", from that of mean returns of the stocks with
        complete histories.

    Examples
    --------
    >>> from models import TimeSeriesModel
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> model = TimeSeriesModel(factors=("market",), cov_type="HAC").fit(panel)
    >>> model.alpha_stderr_.dims
    ('ticker',)
    >>> round(float(model.beta_.mean()), 1)
    1.0
    """

    kind: ClassVar[str] = "time_series"

    def __init__(
        self,
        factors: Annotated[tuple[str, ...], MinLen(1)] | None = None,
        window: Annotated[int, Ge(24)] | None = None,
        min_observations: Annotated[int, Ge(3)] = 60,
        cov_type: CovType = "nonrobust",
        newey_west_lags: Annotated[int, Ge(0)] | None = None,
        premia: Literal["mean", "ols", "gls"] = "mean",
    ) -> None:
        self.factors = factors
        self.window = window
        self.min_observations = min_observations
        self.cov_type = cov_type
        self.newey_west_lags = newey_west_lags
        self.premia = premia

    def _names(self, panel: Panel) -> list[str]:
        given = [str(name) for name in panel.factors["observed_factor"].values]
        names = given if self.factors is None else list(self.factors)
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"A time-series model needs one factor or more, each once, not {names}.")
        return names

    def _observed(self, panel: Panel, names: list[str]) -> FloatArray:
        return panel.observed(names)

    def _estimated_premia(
        self, returns: FloatArray, factors: FloatArray, known: BoolArray, result: TimeSeriesRegression
    ) -> tuple[FloatArray, FloatArray, int]:
        robust: CovType = "HC0" if self.cov_type.startswith("HC") else self.cov_type
        if self.premia == "mean":
            return super()._estimated_premia(returns, factors, known, result)
        if self.premia == "ols":
            return premia_of_dates(
                returns.astype(np.float64),
                factors,
                known,
                result.beta,
                cov_type=robust,
                newey_west_lags=self.newey_west_lags,
            )
        passes = two_pass(
            *_balanced(returns, factors, known, result),
            weighting=self.premia,
            cov_type=robust,
            newey_west_lags=self.newey_west_lags,
        )
        return passes.premia, passes.premia_stderr, 0


def _rows(values: npt.NDArray[Any], dated: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    """Take some of the rows; all of them are not copied."""
    return values if len(dated) == len(values) else values[dated]


def _balanced(
    returns: FloatArray, factors: FloatArray, known: BoolArray, result: TimeSeriesRegression
) -> tuple[FloatArray, FloatArray]:
    """(date, asset) and (date, factor) of the dates with any stock, and of the stocks with a return on each of them.

    The lag of characteristics leaves the first date of a panel without a stock in the mask.
    """
    covered = known.any(axis=1)
    complete = np.isfinite(result.alpha) & (result.n_obs == covered.sum())
    return returns[np.ix_(covered, complete)].astype(np.float64), factors[covered]
