"""The market model: every stock regressed on one market return.

Here belongs the single-index model of Sharpe (1963), the statistical side of the CAPM. Regressions on several observed
factors, and all that this model shares with them, belong in `time_series`; the shrinkage of betas in `betas`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
import xarray as xr
from annotated_types import Ge

from models.arrays import FloatArray
from models.families.time_series.model import ObservedFactorModel
from models.inference.betas import Shrinkage, shrink_blume, shrink_vasicek
from models.inference.regression import CovType, TimeSeriesRegression
from models.panel import Panel
from schemas.errors import ConfigError

MARKET = "market"


class MarketModel(ObservedFactorModel):
    """Market model / CAPM: r_i[t] = alpha_i + beta_i m[t] + e_i[t], each stock over its own history.

    All stocks are regressed in one batched solve. What the parameters say is done by
    `models.inference.regression.time_series_regression` (standard errors) and `models.inference.betas` (shrinkage).

    Parameters
    ----------
    market : str, optional
        Observed factor that is the market. Default: the universe's own return, by market weight over the stocks of the
        estimation universe.
    window : int, optional
        Periods of the regression: the last so many that have a market return. Default: all.
    min_observations : int
        Fewest returns in the window with which a stock is covered; others get no beta (NaN).
    cov_type : str
        Standard errors by the names of statsmodels; "HAC" is Newey-West.
    newey_west_lags : int, optional
        Lags of cov_type "HAC". Default: floor(4 (T/100)^(2/9)).
    shrinkage : str, optional
        Shrink betas towards their cross-section ("vasicek") or by Blume's regression ("blume"). Default: betas of least
        squares.

    Attributes
    ----------
    beta_ : xarray.DataArray
        (ticker) the betas that `loadings` and `expected_returns` use, shrunk if asked for.
    beta_ols_, beta_stderr_ : xarray.DataArray
        (ticker) least-squares betas with their standard errors. ``alpha_``, ``r_squared_`` and the variances are of
        that regression too. `expected_returns` sets alpha to zero.

    Examples
    --------
    >>> from models import MarketModel
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> model = MarketModel().fit(panel)
    >>> model.beta_.dims
    ('ticker',)
    >>> round(float(model.beta_.mean()), 1)
    1.0
    """

    kind: ClassVar[str] = "market"
    STATISTICS: ClassVar[Mapping[str, str]] = {"beta_ols": "least-squares beta, before any shrinkage"}
    _per_stock: ClassVar[tuple[str, ...]] = (*ObservedFactorModel._per_stock, "beta_ols")  # noqa: SLF001  # its parent
    beta_ols_: xr.DataArray

    def __init__(
        self,
        market: str | None = None,
        window: Annotated[int, Ge(24)] | None = None,
        min_observations: Annotated[int, Ge(3)] = 60,
        cov_type: CovType = "nonrobust",
        newey_west_lags: Annotated[int, Ge(0)] | None = None,
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
        return np.concatenate([_universe_return(span) for span in panel.spans()])[:, None]


def _universe_return(panel: Panel) -> FloatArray:
    """(date,) returns of the estimation universe by market weight; NaN where nobody has both."""
    returns = panel.returns.values.astype(np.float64)
    weight = panel.market_weight.values.astype(np.float64)
    held = panel.mask.values & (weight > 0.0)
    # One after the other: stocks outside the estimation universe in between do not change the rounding.
    gain = np.cumsum(np.where(held, weight * returns, 0.0), axis=1)[:, -1]
    total = np.cumsum(np.where(held, weight, 0.0), axis=1)[:, -1]
    known: FloatArray = np.where(total > 0.0, gain / np.where(total > 0.0, total, 1.0), np.nan)
    return known
