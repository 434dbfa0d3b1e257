"""Risk-premium principal components: latent factors that fit the time series and the cross-section of returns.

Here belong the weight of the means and the measures by which Lettau and Pelger judge factors. What RP-PCA shares with
PCA belongs in `model`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import xarray as xr
from annotated_types import Ge, Gt, Le

from models.arrays import FloatArray
from models.families.base import ModelState
from models.families.pca.factor_number import FactorNumber
from models.families.pca.model import PCA, Missing, Scale
from models.inference.regression import time_series_regression
from models.panel import Panel
from schemas.errors import ConfigError


class RPPCA(PCA):
    """Risk-premium principal components (Lettau and Pelger 2020): PCA on second moments in which means weigh more.

    r[t] = X f[t] + e[t] with X the leading eigenvectors of R'R / T + gamma m m', m the mean returns. They minimise the
    unexplained variation plus (1 + gamma) times the mean squared pricing error, 1/(nT) sum_t |r[t] - m - X (f[t] -
    f_bar)|^2 + (1 + gamma)/n |m - X f_bar|^2: factors with a high Sharpe ratio are found though their variance be
    small. ``gamma`` = -1 is PCA on the covariance, 0 on the uncentred second moments. Gaps, scale, rules, normalisation
    and factor returns are those of `PCA`: what is expected of a missing return does not depend on gamma, which weighs
    the means of the panel so completed. A rule judges the eigenvalues of this matrix. Under the scale "correlation"
    the returns, means included, are divided by their standard deviations first.

    Source: Lettau and Pelger (2020), "Factors That Fit the Time Series and Cross-Section of Stock Returns", Review of
    Financial Studies 33, eq. 5-6; asymptotics in "Estimating Latent Asset-Pricing Factors", Journal of Econometrics
    218.

    Parameters that are not named here are those of `PCA`.

    Parameters
    ----------
    gamma : float
        Weight of the means, at least -1, which is PCA. The paper uses 10 for monthly returns of portfolios sorted on
        characteristics.

    Attributes
    ----------
    betas_ : xarray.DataArray
        (ticker, factor) slopes of the time-series regressions, with intercept, of returns on the factors in training;
        pricing errors are taken with them. NaN for stocks with fewer than ``min_observations`` returns.
    rms_alpha_, unexplained_share_ : float
        In training, as `evaluate` gives them.

    Examples
    --------
    >>> from models import RPPCA
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> model = RPPCA(n_factors=2, gamma=5.0).fit(panel)
    >>> model.factors_
    ['factor_1', 'factor_2']
    >>> round(model.score(panel)["total_r2"], 2)
    0.8
    """

    kind: ClassVar[str] = "rp_pca"
    STATISTICS: ClassVar[Mapping[str, str]] = {
        "rms_alpha": "root mean square pricing error in training, per period",
        "unexplained_share": "mean share of the variance of a stock that the factors leave in training",
    }

    def __init__(
        self,
        n_factors: FactorNumber = 5,
        gamma: Annotated[float, Ge(-1.0)] = 10.0,
        max_factors: Annotated[int, Ge(1), Le(50)] = 8,
        scale: Scale = "covariance",
        missing: Missing = "em",
        min_observed: Annotated[float, Gt(0.0), Le(1.0)] = 0.5,
        min_observations: Annotated[int, Ge(3)] = 60,
        max_iter: Annotated[int, Ge(1)] = 500,
        tol: Annotated[float, Gt(0.0)] = 1e-7,
        window: Annotated[int, Ge(24)] | None = None,
    ) -> None:
        super().__init__(n_factors, max_factors, scale, missing, min_observed, min_observations, max_iter, tol, window)
        self.gamma = gamma

    betas_: xr.DataArray
    rms_alpha_: float
    unexplained_share_: float

    @property
    def _gamma(self) -> float:
        return self.gamma

    def fit(self, panel: Panel, y: None = None) -> Self:  # noqa: ARG002  # scikit-learn passes y
        """Fit to the returns in ``panel.mask``.

        Raises
        ------
        ModelError
            As `PCA.fit`.
        ConfigError
            As `PCA.fit`, and if gamma is below -1.
        """
        if not self.gamma >= -1.0:
            raise ConfigError(f"gamma={self.gamma} must be at least -1, where means have no weight.")
        super().fit(panel)
        panel = self._train(panel)
        known = panel.mask.values
        shortest = max(self.min_observations, len(self.factors_) + 2)
        returns, factors = panel.returns.values.astype(np.float64), self.factor_returns(panel).values
        slopes = time_series_regression(returns, factors, known, min_observations=shortest).beta
        self.betas_ = self.loadings_.copy(data=slopes).rename("betas")
        judged = self.evaluate(panel)
        self.rms_alpha_, self.unexplained_share_ = judged["rms_alpha"], judged["unexplained_share"]
        return self

    def pricing_errors(self, panel: Panel) -> xr.DataArray:
        """Mean over the panel's dates of r[t] - beta f[t], as (ticker,), in decimals per period.

        The slopes are those of the training sample, the factor returns those of the panel: on the training panel
        these are the intercepts (alphas) of the time-series regressions; on later dates they are out of sample. NaN
        for stocks without slopes or returns.
        """
        errors = self._errors(panel)
        return xr.DataArray(_mean(errors), {"ticker": panel.tickers}, ("ticker",), name="pricing_errors")

    def evaluate(self, panel: Panel) -> dict[str, float]:
        """Judge the factors on a panel, in sample or out of sample, as Lettau and Pelger (2020, section 2.1).

        Returns
        -------
        dict
            ``sharpe_ratio``: see `sharpe_ratio`. ``maximal_sharpe_ratio``: the largest that the factor returns of this
            panel allow, in hindsight. ``rms_alpha``: root mean square of `pricing_errors`. ``unexplained_share``: mean
            over stocks of Var(r - beta f) / Var(r), over the same dates.
        """
        errors = self._errors(panel)
        returns = np.where(np.isfinite(errors), panel.returns.values.astype(np.float64), np.nan)
        share = _mean(np.square(errors - _mean(errors))) / _mean(np.square(returns - _mean(returns)))
        alpha = _mean(errors)
        return {
            "sharpe_ratio": self.sharpe_ratio(panel),
            "maximal_sharpe_ratio": maximal_sharpe_ratio(self.factor_returns(panel)),
            "rms_alpha": float(np.sqrt(_mean(np.square(alpha)))),
            "unexplained_share": float(_mean(share)),
        }

    def _errors(self, panel: Panel) -> FloatArray:
        """(date, ticker) r[t] - beta f[t]; NaN where any of them is."""
        self._check_fitted()
        fitted = self.factor_returns(panel).values @ self.betas_.reindex(ticker=panel.tickers).values.T
        errors: FloatArray = np.where(panel.mask.values, panel.returns.values.astype(np.float64) - fitted, np.nan)
        return errors

    def _turn(self, rotation: FloatArray) -> None:
        super()._turn(rotation)
        self.betas_ = self.betas_.copy(data=self.betas_.values @ rotation)

    def state(self) -> ModelState:
        """Keep what PCA keeps, the slopes and the measures of the training sample."""
        kept = super().state()
        measures = {"rms_alpha": self.rms_alpha_, "unexplained_share": self.unexplained_share_}
        return ModelState(kept.arrays | {"betas": self.betas_.values}, kept.meta | measures)

    @classmethod
    def from_state(cls, params: dict[str, Any], state: ModelState) -> Self:
        """Rebuild a fitted model."""
        model = super().from_state(params, state)
        model.betas_ = model.loadings_.copy(data=state.arrays["betas"]).rename("betas")
        model.rms_alpha_, model.unexplained_share_ = state.meta["rms_alpha"], state.meta["unexplained_share"]
        return model


def maximal_sharpe_ratio(factor_returns: xr.DataArray) -> float:
    """Largest Sharpe ratio per period of a portfolio of the factors, sqrt(mean' Cov^-1 mean), over their finite dates.

    Parameters
    ----------
    factor_returns : xarray.DataArray
        (date, factor), decimals per period. NaN is the answer if the dates are not more than the factors.
    """
    values = factor_returns.transpose("date", "factor").values.astype(np.float64)
    values = values[np.isfinite(values).all(axis=1)]
    if len(values) <= values.shape[1]:
        return float("nan")
    mean, covariance = values.mean(axis=0), np.atleast_2d(np.cov(values, rowvar=False))
    return float(np.sqrt(mean @ np.linalg.solve(covariance, mean)))


def _mean(values: FloatArray) -> FloatArray:
    """Mean along the first axis of what is not NaN; NaN where nothing is left."""
    known = np.isfinite(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0)
    mean: FloatArray = np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)
    return mean
