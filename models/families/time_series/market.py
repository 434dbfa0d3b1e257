"""The market model: every stock regressed on one market return.

Here belongs the single-index model of Sharpe (1963), the statistical side of the CAPM. Regressions on several observed
factors, and all that this model shares with them, belong in `time_series`; the shrinkage of betas in `betas`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import xarray as xr

from models.arrays import FloatArray
from models.families.time_series.model import ObservedFactorModel
from models.inference.betas import Shrinkage, shrink_blume, shrink_vasicek
from models.inference.regression import CovType, TimeSeriesRegression
from models.panel import Panel
from schemas.errors import ConfigError

MARKET = "market"


class MarketModel(ObservedFactorModel):
    """r_i[t] = alpha_i + beta_i m[t] + e_i[t], each stock over its own history, all in one batched solve.

    Parameters
    ----------
    market : str, optional
        Name of an observed factor of the panel. Default: the universe's own return, weighted by
        ``market_weight`` and renormalised over the stocks with a return.
    window : int, optional
        Fit on the last so many dates that have a market return. Default: all.
    min_observations : int
        Stocks with fewer returns in the window get no beta (NaN).
    cov_type : str
        Standard errors by the names of statsmodels, "nonrobust", "HC0" to "HC3" or "HAC" (Newey-West): see
        `models.inference.regression.time_series_regression`.
    newey_west_lags : int, optional
        Lags of "HAC". Default: `models.inference.regression.automatic_lags`.
    shrinkage : str, optional
        "vasicek" or "blume": see `models.inference.betas`. Default: betas of least squares.

    Attributes
    ----------
    beta_ : xarray.DataArray
        (ticker) the betas that `loadings` and `expected_returns` use, shrunk if asked for.
    beta_ols_, beta_stderr_ : xarray.DataArray
        (ticker) least-squares betas with their standard errors. ``alpha_``, ``r_squared_`` and the variances are of
        that regression too. `expected_returns` sets alpha to zero.
    """

    _per_stock: ClassVar[tuple[str, ...]] = (*ObservedFactorModel._per_stock, "beta_ols")  # noqa: SLF001  # its parent
    beta_ols_: xr.DataArray

    def __init__(
        self,
        market: str | None = None,
        window: int | None = None,
        min_observations: int = 60,
        cov_type: CovType = "nonrobust",
        newey_west_lags: int | None = None,
        shrinkage: Shrinkage | None = None,
    ) -> None:
        self.market = market
        self.window = window
        self.min_observations = min_observations
        self.cov_type = cov_type
        self.newey_west_lags = newey_west_lags
        self.shrinkage = shrinkage

    def beta_path(self, panel: Panel) -> xr.Dataset:
        """Estimates as of every date, as in `ObservedFactorModel.beta_path`, without the dimension ``factor``.

        ``beta`` is shrunk across the stocks of the same date if asked for, and ``beta_ols`` is not.
        """
        path = super().beta_path(panel).isel(factor=0, drop=True)
        shrunk = self._shrunk(path["beta"].values, np.square(path["beta_stderr"].values))
        return path.assign(beta=(("date", "ticker"), shrunk), beta_ols=path["beta"])

    def _stock_arrays(self, result: TimeSeriesRegression) -> dict[str, Any]:
        beta = result.beta[:, 0]
        shrunk = self._shrunk(beta, result.classical_variance[:, 1])
        betas = {"beta": shrunk, "beta_stderr": result.beta_stderr[:, 0], "beta_ols": beta}
        return super()._stock_arrays(result) | betas

    def _shrunk(self, beta: FloatArray, sampling_variance: FloatArray) -> FloatArray:
        """Shrink (..., ticker) betas as the model says."""
        if self.shrinkage is None:
            return beta
        if self.shrinkage == "vasicek":
            return shrink_vasicek(beta, sampling_variance)
        if self.shrinkage == "blume":
            return shrink_blume(beta)
        raise ConfigError(f"shrinkage='{self.shrinkage}' is not known; it is None, 'vasicek' or 'blume'.")

    def _names(self, panel: Panel) -> list[str]:  # noqa: ARG002  # its own name, whatever the panel has
        return [self.market or MARKET]

    def _observed(self, panel: Panel, names: list[str]) -> FloatArray:
        if self.market is not None:
            return panel.observed(names)
        returns = panel.returns.values.astype(np.float64)
        weight = panel.market_weight.values.astype(np.float64)
        held = np.isfinite(returns) & (weight > 0.0)
        gain = np.where(held, weight * returns, 0.0).sum(axis=1)
        total = np.where(held, weight, 0.0).sum(axis=1)
        return np.where(total > 0.0, gain / np.where(total > 0.0, total, 1.0), np.nan)[:, None]
