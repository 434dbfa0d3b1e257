"""Principal components of returns: latent factors with loadings that are constant in time.

Here belongs what is estimated from returns alone. Loadings that move with characteristics belong in `ipca`.
"""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import scipy.linalg
import xarray as xr
from sklearn.exceptions import ConvergenceWarning

from models.base import FactorModel, FloatArray, ModelState
from models.gram import RANK_TOLERANCE, solve_gram
from models.inference import time_series_regression
from models.panel import Panel
from schemas.errors import ModelError

BoolArray = npt.NDArray[np.bool_]


class PCA(FactorModel):
    """r[t] = X f[t] + e[t] with X the leading eigenvectors of the centred covariance of returns.

    Stocks observed on at least ``min_observed`` of the dates enter the estimation. Their gaps are filled by
    expectation maximisation (Stock and Watson 2002, appendix A): missing returns are replaced by mean plus
    x_i' f[t] and components are taken again until the fill settles; without gaps this is plain PCA. The other
    stocks get the slopes of a time-series regression on the factors. The smaller of the (date, date) and
    (ticker, ticker) matrices is decomposed.

    Normalisation: X'X / n = I over the n estimation stocks, factors ordered by variance, the loadings of a
    factor sum to a positive number. The factor return at any date is the cross-sectional regression of r[t]
    on X over the stocks at hand: for a complete panel X'r[t] / n, which is the principal component score over
    sqrt(n), with the mean left in.

    Parameters
    ----------
    n_factors : int
        K.
    min_observed : float
        Share of dates, above 0 and up to 1, that a stock needs to enter the estimation.
    min_observations : int
        Dates that any other stock needs to get loadings.
    max_iter, tol : int, float
        Limit of the fill, and the relative change of the filled returns at which it has settled.

    Attributes
    ----------
    loadings_ : xarray.DataArray
        (ticker, factor); NaN for stocks with too few returns.
    estimation_ : numpy.ndarray
        (ticker,) which stocks entered the estimation.
    converged_, n_iter_ : bool, int
        Whether the fill settled within the limit, and after how many rounds (0 without gaps).
    """

    latent: ClassVar[bool] = True

    def __init__(
        self,
        n_factors: int = 5,
        min_observed: float = 0.5,
        min_observations: int = 60,
        max_iter: int = 500,
        tol: float = 1e-6,
    ) -> None:
        self.n_factors = n_factors
        self.min_observed = min_observed
        self.min_observations = min_observations
        self.max_iter = max_iter
        self.tol = tol

    loadings_: xr.DataArray
    estimation_: BoolArray
    converged_: bool
    n_iter_: int

    def fit(self, panel: Panel) -> Self:
        """Fit to the returns in ``panel.mask``.

        Raises
        ------
        ModelError
            If dates, stocks or the rank of their returns do not carry so many factors.

        Warns
        -----
        ConvergenceWarning
            If the fill has not settled after ``max_iter`` rounds.
        """
        known = panel.mask.values
        dated = known.any(axis=1)
        known = known[dated]
        returns = np.where(known, panel.returns.values[dated].astype(np.float64), 0.0)
        estimation = known.sum(axis=0) >= max(1.0, self.min_observed * len(known))
        self._check_capacity(len(known), int(estimation.sum()))
        values = self._estimate(returns[:, estimation], known[:, estimation])

        loadings = np.full((known.shape[1], self.n_factors), np.nan)
        loadings[estimation] = values
        factors = _cross_sectional_factors(returns, known, loadings)
        others = time_series_regression(
            returns[:, ~estimation],
            factors,
            known[:, ~estimation],
            min_observations=max(self.min_observations, self.n_factors + 2),
        )
        loadings[~estimation] = others.beta
        premia = np.nanmean(_cross_sectional_factors(returns, known, loadings), axis=0)
        self._restore(loadings, premia, estimation, panel.tickers)
        return self

    def loadings(self, panel: Panel) -> xr.DataArray:
        """Give loadings as (date, ticker, factor), the same on every date; NaN for stocks without them."""
        self._check_fitted()
        values = self.loadings_.reindex(ticker=panel.tickers).values
        coords = {"date": panel.dates, "ticker": panel.tickers, "factor": self.factors_}
        repeated = np.tile(values, (len(panel.dates), 1, 1))
        return xr.DataArray(repeated, coords, ("date", "ticker", "factor"), name="loadings")

    def factor_returns(self, panel: Panel) -> xr.DataArray:
        """Regress returns on loadings at each date: (date, factor), NaN where stocks are too few or alike."""
        self._check_fitted()
        known = panel.mask.values
        returns = np.where(known, panel.returns.values.astype(np.float64), 0.0)
        loadings = self.loadings_.reindex(ticker=panel.tickers).values
        coords = {"date": panel.dates, "factor": self.factors_}
        factors = _cross_sectional_factors(returns, known, loadings)
        return xr.DataArray(factors, coords, ("date", "factor"), name="factor_returns")

    def _turn(self, rotation: FloatArray) -> None:
        self.loadings_ = self.loadings_.copy(data=self.loadings_.values @ rotation)

    def state(self) -> ModelState:
        """Keep the loadings by ticker, and premia."""
        self._check_fitted()
        arrays = {"loadings": self.loadings_.values, "premia": self.premia_, "estimation": self.estimation_}
        meta = {
            "tickers": self.loadings_["ticker"].values.tolist(),
            "converged": self.converged_,
            "n_iter": self.n_iter_,
        }
        return ModelState(arrays, meta)

    @classmethod
    def from_state(cls, params: dict[str, Any], state: ModelState) -> Self:
        """Rebuild a fitted model."""
        model = cls(**params)
        arrays, meta = state.arrays, state.meta
        model.converged_, model.n_iter_ = meta["converged"], meta["n_iter"]
        model._restore(arrays["loadings"], arrays["premia"], arrays["estimation"], meta["tickers"])
        return model

    def _restore(self, loadings: FloatArray, premia: FloatArray, estimation: BoolArray, tickers: list[str]) -> None:
        self.factors_ = [f"factor_{k + 1}" for k in range(self.n_factors)]
        coords = {"ticker": tickers, "factor": self.factors_}
        self.loadings_ = xr.DataArray(loadings, coords, ("ticker", "factor"), name="loadings")
        self.premia_, self.estimation_ = premia, estimation

    def _check_capacity(self, n_dates: int, n_stocks: int) -> None:
        most = max(0, min(n_dates - 1, n_stocks))
        if not 1 <= self.n_factors <= most:
            raise ModelError(
                f"n_factors={self.n_factors} must be from 1 to {most}: the panel has {n_dates} dates with "
                f"returns, and {n_stocks} stocks observed on at least {self.min_observed:.0%} of them. "
                "Lower n_factors or min_observed, or give more dates."
            )

    def _estimate(self, returns: FloatArray, known: BoolArray) -> FloatArray:
        """(ticker, factor) loadings of the estimation stocks, their gaps filled round by round."""
        mean = returns.sum(axis=0) / known.sum(axis=0)
        filled = np.where(known, returns, mean)
        loadings = _principal_loadings(filled - filled.mean(axis=0), self.n_factors)
        self.converged_, self.n_iter_ = bool(known.all()), 0
        while not self.converged_ and self.n_iter_ < self.max_iter:
            mean = filled.mean(axis=0)
            scores = (filled - mean) @ loadings / len(loadings)
            update = np.where(known, returns, mean + scores @ loadings.T)
            change = np.linalg.norm(update - filled) / np.linalg.norm(update)
            filled = update
            loadings = _principal_loadings(filled - filled.mean(axis=0), self.n_factors)
            self.n_iter_ += 1
            self.converged_ = bool(change <= self.tol)
        if not self.converged_:
            warnings.warn(
                f"PCA filled gaps for max_iter={self.max_iter} rounds without settling to tol={self.tol}: "
                "raise max_iter or min_observed, or lower n_factors.",
                ConvergenceWarning,
                stacklevel=3,
            )
        return loadings


def _principal_loadings(centred: FloatArray, n_factors: int) -> FloatArray:
    """(ticker, factor) eigenvectors of centred'centred with X'X / n = I, by way of the smaller side."""
    n_dates, n_stocks = centred.shape
    wide = n_stocks > n_dates
    side = centred @ centred.T if wide else centred.T @ centred
    last = len(side) - 1
    values, vectors = scipy.linalg.eigh(side, subset_by_index=(last - n_factors + 1, last))
    values, vectors = values[::-1], vectors[:, ::-1]
    rank = int((values > RANK_TOLERANCE * values[0]).sum())
    if rank < n_factors:
        raise ModelError(f"n_factors={n_factors} exceeds the rank of the returns, {rank}; lower n_factors.")
    if wide:
        vectors = centred.T @ (vectors / np.sqrt(values))
    sign = np.where(vectors.sum(axis=0) < 0.0, -1.0, 1.0)
    loadings: FloatArray = vectors * sign * np.sqrt(n_stocks)
    return loadings


def _cross_sectional_factors(returns: FloatArray, known: BoolArray, loadings: FloatArray) -> FloatArray:
    """(date, factor) least squares of r[t] on X over the stocks with both; NaN where X'X is deficient.

    Source of the rule: `models.gram.solve_gram`. ``returns`` is zero where unknown.
    """
    has = np.isfinite(loadings).all(axis=1)
    loadings = loadings[has]
    n_stocks, n_factors = loadings.shape
    outer = (loadings[:, :, None] * loadings[:, None, :]).reshape(n_stocks, n_factors**2)
    gram = (known[:, has].astype(np.float64) @ outer).reshape(-1, n_factors, n_factors)
    factors, rank = solve_gram(gram, (returns[:, has] @ loadings)[..., None])
    return np.where((rank == n_factors)[:, None], factors[..., 0], np.nan)
