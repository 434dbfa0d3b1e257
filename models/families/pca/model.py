"""Principal components of returns: latent factors with loadings that are constant in time.

Here belongs what is estimated from returns alone. Loadings that move with characteristics belong in `ipca`; the
eigenvectors themselves in `matrices`, the treatment of gaps in `filling` and `scores`, criteria for the number of
factors in `factor_number`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

import numpy as np
import xarray as xr
from annotated_types import Ge, Gt, Le

from models.arrays import BoolArray, FloatArray
from models.families.base import FactorModel, ModelState
from models.families.pca.estimation import Recipe, estimate
from models.families.pca.factor_number import RULES, FactorNumber, FactorRule, Spectrum, choose_factors
from models.families.pca.scores import Expected, factor_scores
from models.inference.regression import time_series_regression
from models.panel import Panel
from schemas.errors import ConfigError, ModelError

Scale = Literal["covariance", "correlation"]
Missing = Literal["em", "pairwise"]


class PCA(FactorModel):
    """Principal components of returns: r[t] = X f[t] + e[t] with X leading eigenvectors of their second moments.

    Stocks observed on at least ``min_observed`` of the dates enter the estimation; the others get the slopes of a
    time-series regression on the factors. Gaps are treated in one of two ways:

    - ``missing="em"``: the decomposed moments are those expected of the complete panel, given the returns at hand and
      a distribution with K factors and a specific variance of each stock, which is found with them (expectation
      maximisation, Little and Rubin 2019, chapter 11; see `models.families.pca.filling`). Each missing return has its
      conditional mean, and the moments its conditional variance. Without gaps this is plain PCA.
    - ``missing="pairwise"``: each covariance is estimated from the dates that both stocks share; negative eigenvalues
      of the matrix are set to zero (see `models.families.pca.matrices.pairwise_components`).

    With fewer dates than stocks the (date, date) matrix is decomposed instead of the (ticker, ticker) one (asymptotic
    principal components, Connor and Korajczyk 1986). Sums run over blocks, so that beyond the panel and that matrix
    memory stays at tens of megabytes; to fill gaps takes two float64 copies of the returns, and no such matrix.

    A rule for the number of factors (`models.families.pca.factor_number`) judges, where there are gaps to fill, the
    panel filled with the fewest k factors of which IC_p2 finds no more than k in the panel so filled.

    Normalisation: with s the ``scale_``, the loadings over s satisfy X'X / n = I over the n estimation stocks;
    factors are ordered by eigenvalue; the loadings of a factor over s sum to a positive number. The factor return at
    any date is the cross-sectional regression of r[t] on X, weighted by 1 / s^2: for a complete panel the principal
    component score over sqrt(n), with the mean left in. Where a stock of the estimation lacks its return, the one
    expected given the others takes its place (`models.families.pca.scores`).

    Parameters
    ----------
    n_factors : int or str
        Number of factors K from 1 to 50, or the rule that chooses it at the first fit: "bai_ng" (IC_p2), "onatski" (ED)
        or "ahn_horenstein" (GR).
    max_factors : int
        Largest number that a rule considers.
    scale : str
        The decomposed matrix: "covariance", or "correlation", each stock's returns over their standard deviation.
    missing : str
        Fill gaps by the factors ("em"), or estimate each covariance from the dates of the pair ("pairwise").
    min_observed : float
        Share of dates that a stock needs to enter the estimation.
    min_observations : int
        Fewest returns with which any other stock gets loadings.
    max_iter : int
        Limit of the rounds that fill gaps; a fit that needs more fails.
    tol : float
        Relative change of the covariance and the means over a round at which gaps have settled.
    window : int, optional
        Periods of the estimation: the last so many that have returns. Default: all. What it does to daily stocks is
        measured in `docs/results.md`.

    Attributes
    ----------
    loadings_ : xarray.DataArray
        (ticker, factor); NaN for stocks with too few returns.
    scale_ : numpy.ndarray
        (ticker,) ones for the covariance; for the correlation the standard deviations over their root mean square.
    estimation_ : numpy.ndarray
        (ticker,) which stocks entered the estimation.
    spectrum_ : Spectrum
        Eigenvalues of the decomposed matrix, from which `models.families.pca.factor_number` computes any criterion.
    eigenvalues_, explained_share_ : numpy.ndarray
        (factor,) of the decomposed matrix along each factor, in squared returns per period (or in units of
        correlation), and over its trace.
    sharpe_ratio_ : float
        The largest of the factors in training, per period.
    n_factors_bai_ng_, n_factors_onatski_, n_factors_ahn_horenstein_ : float
        What each rule says; NaN if the panel is too small for ``max_factors``.
    clipped_share_ : float
        Sum of negative eigenvalues set to zero, over that of the positive ones; 0 unless ``missing="pairwise"``.
    tangency_ : numpy.ndarray
        (factor,) weights on the factors with the largest Sharpe ratio in training, Cov(f)^-1 mean(f).
    expected_ : Expected
        What is expected of missing returns at a date.
    n_iter_ : int
        Rounds after which the gaps settled; 0 without gaps to fill.

    Examples
    --------
    >>> from models import PCA
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> model = PCA(n_factors=2).fit(panel)
    >>> model.loadings_.dims
    ('ticker', 'factor')
    >>> round(model.score(panel)["total_r2"], 2)
    0.8
    """

    kind: ClassVar[str] = "pca"
    STATISTICS: ClassVar[Mapping[str, str]] = {
        "eigenvalues": "eigenvalue of the decomposed matrix along the factor",
        "explained_share": "share of the trace of the decomposed matrix",
        "sharpe_ratio": "largest Sharpe ratio of the factors in training, per period",
        "n_factors_bai_ng": "number of factors according to Bai and Ng",
        "n_factors_onatski": "number of factors according to Onatski",
        "n_factors_ahn_horenstein": "number of factors according to Ahn and Horenstein",
        "clipped_share": "share of the trace that negative eigenvalues had",
    }
    latent: ClassVar[bool] = True

    def __init__(
        self,
        n_factors: FactorNumber = 5,
        max_factors: Annotated[int, Ge(1), Le(50)] = 8,
        scale: Scale = "covariance",
        missing: Missing = "em",
        min_observed: Annotated[float, Gt(0.0), Le(1.0)] = 0.5,
        min_observations: Annotated[int, Ge(3)] = 60,
        max_iter: Annotated[int, Ge(1)] = 500,
        tol: Annotated[float, Gt(0.0)] = 1e-7,
        window: Annotated[int, Ge(24)] | None = None,
    ) -> None:
        self.n_factors = n_factors
        self.max_factors = max_factors
        self.scale = scale
        self.missing = missing
        self.min_observed = min_observed
        self.min_observations = min_observations
        self.max_iter = max_iter
        self.tol = tol
        self.window = window

    loadings_: xr.DataArray
    scale_: FloatArray
    estimation_: BoolArray
    spectrum_: Spectrum
    clipped_share_: float
    tangency_: FloatArray
    expected_: Expected
    n_iter_: int
    _explained: FloatArray

    def fit(self, panel: Panel, y: None = None) -> Self:  # noqa: ARG002  # scikit-learn passes y
        """Fit to the returns in ``panel.mask``, on the last ``window`` dates that have any.

        Raises
        ------
        ModelError
            If dates, stocks or the rank of their returns do not carry so many factors, or a rule finds none; if gaps
            have not settled after ``max_iter`` rounds (em), two stocks share no dates (pairwise) or the returns of a
            stock are constant (correlation).
        ConfigError
            If a parameter is unknown.
        """
        self._check_parameters()
        panel = self._train(panel)
        returns = panel.estimation_returns()
        dated = np.isfinite(returns).any(axis=1)
        returns = returns if dated.all() else returns[dated]
        n_obs = np.isfinite(returns).sum(axis=0)
        self.estimation_ = n_obs >= max(1.0, self.min_observed * len(returns))
        self._check_capacity(len(returns), int(self.estimation_.sum()))
        divisors, self.scale_ = self._scales(returns, panel.tickers)
        tickers = [name for name, used in zip(panel.tickers, self.estimation_, strict=True) if used]
        recipe = Recipe(self.n_factors, self.max_factors, self.missing, self._gamma, self.max_iter, self.tol)
        found = estimate(returns[:, self.estimation_], divisors[self.estimation_], tickers, recipe)
        self.n_iter_ = found.n_iter
        vectors, self.spectrum_, self.clipped_share_ = (
            found.components.vectors,
            found.components.spectrum,
            found.components.clipped,
        )
        self._explained = np.diag(self.spectrum_.eigenvalues[: vectors.shape[1]])
        unit = float((divisors / self.scale_)[self.estimation_][0])
        self.expected_ = Expected.of(found, self._gamma, divisors, self.estimation_, unit)
        vectors = self._with_further(returns, divisors, vectors)
        loadings = self._all_loadings(returns, vectors)
        factors = factor_scores(returns, loadings, self.scale_, self.expected_)
        factors = factors[np.isfinite(factors).all(axis=1)]
        self.premia_ = factors.mean(axis=0)
        self.tangency_ = np.linalg.solve(np.atleast_2d(np.cov(factors, rowvar=False)), self._premia)
        self._name_loadings(loadings, panel.tickers)
        return self

    def loadings(self, panel: Panel) -> xr.DataArray:
        """Give loadings as (date, ticker, factor), the same on every date; NaN for stocks without them."""
        self._check_fitted()
        values = self.loadings_.reindex(ticker=panel.tickers).values
        coords = {"date": panel.dates, "ticker": panel.tickers, "factor": self.factors_}
        repeated = np.tile(values, (len(panel.dates), 1, 1))
        return xr.DataArray(repeated, coords, ("date", "ticker", "factor"), name="loadings")

    def factor_returns(self, panel: Panel) -> xr.DataArray:
        """Regress returns on loadings at each date: (date, factor), NaN where stocks are too few or alike.

        Source of the missing returns of stocks that entered the estimation: `models.families.pca.scores`.
        """
        self._check_fitted()
        returns = xr.DataArray(panel.estimation_returns(), {"ticker": panel.tickers}, ("date", "ticker"))
        known = returns.reindex(ticker=self.loadings_["ticker"].values).values
        factors = factor_scores(known, self.loadings_.values, self.scale_, self.expected_)
        return xr.DataArray(
            factors, {"date": panel.dates, "factor": self.factors_}, ("date", "factor"), name="factor_returns"
        )

    def sharpe_ratio(self, panel: Panel) -> float:
        """Sharpe ratio per period of the training sample's tangency portfolio of the factors, on the panel's dates.

        On the training panel it is the largest that the factors allow, sqrt(mean' Cov^-1 mean); on later dates it is
        out of sample. NaN with fewer than two dates.
        """
        factors = self.factor_returns(panel).values
        portfolio = factors[np.isfinite(factors).all(axis=1)] @ self.tangency_
        return float(portfolio.mean() / portfolio.std(ddof=1)) if len(portfolio) > 1 else float("nan")

    @property
    def eigenvalues_(self) -> FloatArray:
        """(factor,) eigenvalues of the decomposed matrix, or the variation along factors that were turned."""
        return np.diagonal(self._explained)

    @property
    def explained_share_(self) -> FloatArray:
        """(factor,) share of the trace of the decomposed matrix."""
        share: FloatArray = self.eigenvalues_ / self.spectrum_.total
        return share

    @property
    def sharpe_ratio_(self) -> float:
        """Largest Sharpe ratio of the factors in training, per period."""
        return float(np.sqrt(max(0.0, float(self._premia @ self.tangency_))))

    @property
    def n_factors_bai_ng_(self) -> float:
        """Number of factors by IC_p2 of Bai and Ng."""
        return self._number_or_nan("bai_ng")

    @property
    def n_factors_onatski_(self) -> float:
        """Number of factors by ED of Onatski."""
        return self._number_or_nan("onatski")

    @property
    def n_factors_ahn_horenstein_(self) -> float:
        """Number of factors by GR of Ahn and Horenstein."""
        return self._number_or_nan("ahn_horenstein")

    @property
    def keeps_of_first(self) -> bool:
        """Whether a rule chooses the number of factors, which stays."""
        return isinstance(self.n_factors, str)

    def refit(self, first: Self) -> Self:
        """Keep the number of factors that a rule chose at the first fit."""
        if isinstance(self.n_factors, int):
            return self
        later: Self = self.clone().set_params(n_factors=len(first.factors_))
        return later

    def _turn(self, rotation: FloatArray) -> None:
        self.loadings_ = self.loadings_.copy(data=self.loadings_.values @ rotation)
        self.tangency_ = self.tangency_ @ rotation
        self.expected_ = self.expected_.turned(rotation)
        self._explained = rotation.T @ self._explained @ rotation

    def state(self) -> ModelState:
        """Keep loadings and scale by ticker, premia and the spectrum."""
        self._check_fitted()
        arrays = {
            "loadings": self.loadings_.values,
            "premia": self._premia,
            "tangency": self.tangency_,
            "scale": self.scale_,
            "estimation": self.estimation_,
            "explained": self._explained,
            "expected_mean": self.expected_.mean,
            "expected_specific": self.expected_.specific,
            "expected_covariance": self.expected_.covariance,
            "eigenvalues": self.spectrum_.eigenvalues,
        }
        meta = {
            "tickers": self.loadings_["ticker"].values.tolist(),
            "trace": self.spectrum_.total,
            "n_dates": self.spectrum_.n_dates,
            "n_stocks": self.spectrum_.n_stocks,
            "clipped": self.clipped_share_,
            "n_iter": self.n_iter_,
        }
        return ModelState(arrays, meta)

    @classmethod
    def from_state(cls, params: dict[str, Any], state: ModelState) -> Self:
        """Rebuild a fitted model."""
        model = cls(**params)
        arrays, meta = state.arrays, state.meta
        model.n_iter_, model.clipped_share_ = meta["n_iter"], meta["clipped"]
        model.expected_ = Expected(*(arrays[f"expected_{name}"] for name in ("mean", "specific", "covariance")))
        model.premia_, model.tangency_, model.scale_ = arrays["premia"], arrays["tangency"], arrays["scale"]
        model.estimation_, model._explained = arrays["estimation"], arrays["explained"]
        model.spectrum_ = Spectrum(arrays["eigenvalues"], meta["trace"], meta["n_dates"], meta["n_stocks"])
        model._name_loadings(arrays["loadings"], meta["tickers"])
        return model

    @property
    def _gamma(self) -> float:
        """Weight of the means in the decomposed matrix: -1 leaves them out."""
        return -1.0

    def _with_further(self, returns: FloatArray, divisors: FloatArray, vectors: FloatArray) -> FloatArray:  # noqa: ARG002
        """Add orthonormal vectors (ticker, factor) of the stocks that entered, and what is expected along them.

        Returns are (date, ticker) of all stocks, the divisors theirs; principal components alone add none.
        """
        return vectors

    def _train(self, panel: Panel) -> Panel:
        """Return the dates from the first of the window on."""
        if self.window is None:
            return panel
        dated = np.flatnonzero(panel.mask.values.any(axis=1))[-self.window :]
        return panel.sel(start=panel.dates[dated[0]]) if len(dated) else panel

    def _number_or_nan(self, rule: FactorRule) -> float:
        try:
            return float(choose_factors(self.spectrum_, rule, self.max_factors))
        except ModelError:
            return float("nan")

    def _scales(self, returns: FloatArray, tickers: list[str]) -> tuple[FloatArray, FloatArray]:
        """Divisors of returns before the decomposition, and the same without units."""
        if self.scale == "covariance":
            return np.ones(len(tickers)), np.ones(len(tickers))
        deviations = np.full(len(tickers), np.nan)
        several = np.isfinite(returns).sum(axis=0) > 1
        deviations[several] = np.nanstd(returns[:, several], axis=0, dtype=np.float64)
        constant = np.flatnonzero(self.estimation_ & ~(deviations > 0.0))
        if len(constant):
            raise ModelError(
                f"The returns of {tickers[constant[0]]} are constant and have no correlation; leave it out."
            )
        return deviations, deviations / np.sqrt(np.square(deviations[self.estimation_]).mean())

    def _all_loadings(self, returns: FloatArray, vectors: FloatArray) -> FloatArray:
        """(ticker, factor) loadings: eigenvectors of the estimation stocks, time-series slopes of the others."""
        used = self.estimation_
        loadings = np.full((len(used), vectors.shape[1]), np.nan)
        loadings[used] = vectors * np.sqrt(len(vectors)) * self.scale_[used, None]
        factors = factor_scores(returns, loadings, self.scale_, self.expected_)
        others = returns[:, ~used]
        shortest = max(self.min_observations, vectors.shape[1] + 2)
        slopes = time_series_regression(others, factors, np.isfinite(others), min_observations=shortest)
        loadings[~used] = slopes.beta
        return loadings

    def _name_loadings(self, loadings: FloatArray, tickers: list[str]) -> None:
        self.factors_ = [f"factor_{k + 1}" for k in range(loadings.shape[1])]
        coords = {"ticker": tickers, "factor": self.factors_}
        self.loadings_ = xr.DataArray(loadings, coords, ("ticker", "factor"), name="loadings")

    def _check_parameters(self) -> None:
        for name, value, known in (("scale", self.scale, Scale), ("missing", self.missing, Missing)):
            if value not in get_args(known):
                raise ConfigError(f"{name}='{value}' must be one of {', '.join(get_args(known))}.")
        if isinstance(self.n_factors, str) and self.n_factors not in RULES:
            raise ConfigError(f"n_factors='{self.n_factors}' must be a number or one of {', '.join(RULES)}.")

    def _check_capacity(self, n_dates: int, n_stocks: int) -> None:
        most = max(0, min(n_dates - 1, n_stocks))
        name, value = (
            ("n_factors", self.n_factors) if isinstance(self.n_factors, int) else ("max_factors", self.max_factors)
        )
        if not 1 <= value <= most:
            raise ModelError(
                f"{name}={value} must be from 1 to {most}: the panel has {n_dates} dates with "
                f"returns, and {n_stocks} stocks observed on at least {self.min_observed:.0%} of them. "
                f"Lower {name} or min_observed, or give more dates."
            )
