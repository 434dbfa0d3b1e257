"""The market model: every stock regressed on one market return.

Here belongs the single-index model of Sharpe (1963). Regressions on several observed factors belong
elsewhere; the batched regression itself is in `inference`.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import pandas as pd
import xarray as xr

from models.base import FactorModel, FloatArray, ModelState
from models.inference import time_series_regression
from models.panel import Panel
from schemas.errors import ModelError

MARKET = "market"
_PER_TICKER = ("alpha", "beta", "alpha_stderr", "beta_stderr", "r_squared", "residual_variance", "n_obs")


class MarketModel(FactorModel):
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
    newey_west_lags : int, optional
        Standard errors robust to autocorrelation. Default: classical ones.

    Attributes
    ----------
    alpha_, beta_, alpha_stderr_, beta_stderr_, r_squared_, residual_variance_, n_obs_ : xarray.DataArray
        (ticker). r_squared_ is the systematic share of the variance; alpha, standard errors and variance are
        per period. `expected_returns` sets alpha to zero.
    """

    def __init__(
        self,
        market: str | None = None,
        window: int | None = None,
        min_observations: int = 60,
        newey_west_lags: int | None = None,
    ) -> None:
        self.market = market
        self.window = window
        self.min_observations = min_observations
        self.newey_west_lags = newey_west_lags

    alpha_: xr.DataArray
    beta_: xr.DataArray
    alpha_stderr_: xr.DataArray
    beta_stderr_: xr.DataArray
    r_squared_: xr.DataArray
    residual_variance_: xr.DataArray
    n_obs_: xr.DataArray

    def fit(self, panel: Panel) -> Self:
        """Fit to the panel's last ``window`` dates; a return enters where ``panel.mask`` is true.

        Raises
        ------
        ModelError
            If the panel lacks the market, or no stock has enough returns.
        """
        market = self._market_returns(panel)
        dated = np.flatnonzero(np.isfinite(market))
        if self.window is not None:
            dated = dated[-self.window :]
        returns, known = (array.values[dated] for array in (panel.returns, panel.mask))
        market = market[dated]
        result = time_series_regression(
            returns.astype(np.float64),
            market[:, None],
            known,
            min_observations=self.min_observations,
            newey_west_lags=self.newey_west_lags,
        )
        if not np.isfinite(result.beta).any():
            most = int(result.n_obs.max(initial=0))
            raise ModelError(
                f"No stock has min_observations={self.min_observations} returns; "
                f"the longest history has {most} of {len(dated)} dates. "
                "Lower min_observations, or give more dates."
            )
        arrays = {name: getattr(result, name) for name in _PER_TICKER}
        arrays |= {"beta": result.beta[:, 0], "beta_stderr": result.beta_stderr[:, 0]}
        self._restore(arrays, panel.tickers, np.array([market.mean()]))
        return self

    def loadings(self, panel: Panel) -> xr.DataArray:
        """Betas as (date, ticker, factor), the same on every date; NaN for stocks without one."""
        self._check_fitted()
        beta = self.beta_.reindex(ticker=panel.tickers).values
        values = np.tile(beta[None, :, None], (len(panel.dates), 1, 1))
        coords = {"date": panel.dates, "ticker": panel.tickers, "factor": self.factors_}
        return xr.DataArray(values, coords, ("date", "ticker", "factor"), name="loadings")

    def factor_returns(self, panel: Panel) -> xr.DataArray:
        """Market returns as (date, factor); NaN on dates without one."""
        self._check_fitted()
        coords = {"date": panel.dates, "factor": self.factors_}
        values = self._market_returns(panel)[:, None]
        return xr.DataArray(values, coords, ("date", "factor"), name="factor_returns")

    def state(self) -> ModelState:
        """Estimates of every stock, and the market's mean."""
        self._check_fitted()
        arrays = {name: getattr(self, f"{name}_").values for name in _PER_TICKER}
        return ModelState({**arrays, "premia": self.premia_}, {"tickers": self.beta_["ticker"].values.tolist()})

    @classmethod
    def from_state(cls, params: dict[str, Any], state: ModelState) -> Self:
        """Rebuild a fitted model."""
        model = cls(**params)
        model._restore(state.arrays, state.meta["tickers"], state.arrays["premia"])
        return model

    def _restore(self, arrays: dict[str, Any], tickers: list[str], premia: FloatArray) -> None:
        for name in _PER_TICKER:
            values = xr.DataArray(arrays[name], {"ticker": tickers}, ("ticker",), name=name)
            setattr(self, f"{name}_", values)
        self.premia_ = premia
        self.factors_ = [self.market or MARKET]

    def _market_returns(self, panel: Panel) -> FloatArray:
        """(date,) excess return of the market."""
        if self.market is None:
            returns = panel.returns.values.astype(np.float64)
            weight = panel.market_weight.values.astype(np.float64)
            held = np.isfinite(returns) & (weight > 0.0)
            gain = np.where(held, weight * returns, 0.0).sum(axis=1)
            total = np.where(held, weight, 0.0).sum(axis=1)
            return np.where(total > 0.0, gain / np.where(total > 0.0, total, 1.0), np.nan)
        names = pd.Index(panel.factors["observed_factor"].values)
        if self.market not in names:
            raise ModelError(f"The panel has no observed factor '{self.market}'; it has {list(names)}.")
        values: FloatArray = panel.factors.sel(observed_factor=self.market).values.astype(np.float64)
        return values
