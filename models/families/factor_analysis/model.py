"""Factor analysis: the factors that make the returns most likely, once every stock's volatility is set to one.

Here belong the model, its standardisation of returns and its state. The estimation belongs in `estimation`; what out of
sample shows about such a model is `models.risk.calibration`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import xarray as xr
from annotated_types import Ge, Gt, Le, MinLen

from models.arrays import BoolArray, Float64Array, FloatArray
from models.families.base import FactorModel, ModelState
from models.families.factor_analysis.estimation import (
    blended_weights,
    factor_analysis,
    posterior,
    slopes_of_others,
)
from models.panel import Panel
from models.panel.row_blocks import row_blocks
from models.statistics.gram import solve_gram
from models.statistics.rowwise import moments_by_pattern
from schemas.errors import ConfigError, ModelError

_MEMORY = 512
"""Rows before a row of which its volatilities are made; a power of two."""
_STOCKS = 64
"""Stocks that are standardised at a time."""
_LEAST_KNOWN = 5
_STOCKS_PER_FACTOR = 4


class FactorAnalysis(FactorModel):
    """Maximum-likelihood factors of standardised returns: r[t] = s[t-1] (B f[t] / c + u[t]), with Var(u) = psi.

    The volatilities s are EWMA of squared returns known before the date; loadings are X = s B / c, with c the root mean
    square return of the sample, so that factor returns have the units of returns. Returns over volatility
    are cut at ``clip``, weighed by a blend of half-lives (correlations move more slowly than volatilities), and
    decomposed by two principal-axis steps (`models.families.factor_analysis.estimation`). The model states its own
    Omega, c^2 I, and its own specific variance, s^2 psi. Factor returns are those of the cross-sectional
    regression with weights 1 / (s^2 psi).

    Stocks with at least ``min_observed`` of the weight of the dates make the factors. Others with ``min_observations``
    returns get the slopes that their returns suggest, drawn to those of the cross-section.

    Parameters
    ----------
    n_factors : int
        Number of factors K. A small universe has fewer: a quarter of its stocks at the first fit.
    volatility_halflife : float
        Returns after which a squared return counts half in s.
    clip : float
        Largest absolute standardised return.
    halflives : tuple of float
        Dates after which one counts half in the correlations, of each exponential weighting that is blended.
    shares : tuple of float
        Share of each of them.
    floor : float
        Least specific share of a stock's variance: without one, twins and dual listings promise a riskless bet.
    min_observed : float
        Share of the weight of the dates on which a stock needs a return to make the factors.
    min_observations : int
        Fewest returns with which any other stock gets loadings.

    Attributes
    ----------
    loadings_ : xarray.DataArray
        (ticker, factor) B; NaN for stocks with too few returns.
    specific_ : numpy.ndarray
        (ticker,) psi.
    unit_ : float
        c, in decimals per period.
    eigenvalues_ : numpy.ndarray
        (factor,) of the whitened correlations; those of other latent coordinates once the model is turned.

    Examples
    --------
    >>> from models import FactorAnalysis
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> model = FactorAnalysis(n_factors=2).fit(panel)
    >>> model.own_omega().shape
    (2, 2)
    """

    kind: ClassVar[str] = "factor_analysis"
    STATISTICS: ClassVar[Mapping[str, str]] = {
        "eigenvalues": "eigenvalue of the whitened correlations along the factor"
    }
    latent: ClassVar[bool] = True
    effort: ClassVar[int] = 3

    def __init__(
        self,
        n_factors: Annotated[int, Ge(1), Le(200)] = 60,
        volatility_halflife: Annotated[float, Gt(1.0), Le(63.0)] = 42.0,
        clip: Annotated[float, Gt(1.0)] = 5.0,
        halflives: Annotated[tuple[Annotated[float, Gt(1.0)], ...], MinLen(1)] = (60.0, 250.0, 1000.0),
        shares: Annotated[tuple[Annotated[float, Gt(0.0)], ...], MinLen(1)] = (0.25, 0.40, 0.35),
        floor: Annotated[float, Gt(0.0), Le(1.0)] = 0.1,
        min_observed: Annotated[float, Gt(0.0), Le(1.0)] = 0.5,
        min_observations: Annotated[int, Ge(20)] = 60,
    ) -> None:
        self.n_factors = n_factors
        self.volatility_halflife = volatility_halflife
        self.clip = clip
        self.halflives = halflives
        self.shares = shares
        self.floor = floor
        self.min_observed = min_observed
        self.min_observations = min_observations

    loadings_: xr.DataArray
    specific_: Float64Array
    unit_: float
    _along: Float64Array

    @property
    def row_memory(self) -> int:
        """How many rows before a row its volatilities look at."""
        return _MEMORY

    def fit(self, panel: Panel, y: None = None) -> Self:  # noqa: ARG002  # scikit-learn passes y
        """Fit to the returns in ``panel.mask``.

        Raises
        ------
        ModelError
            If there are too few dates or stocks.
        ConfigError
            If there is not one share for each half-life.
        """
        if len(self.halflives) != len(self.shares):
            raise ConfigError(f"{len(self.halflives)} halflives and {len(self.shares)} shares: give one of each.")
        returns = panel.estimation_returns()
        returns = returns[np.isfinite(returns).any(axis=1)]
        weights = blended_weights(len(returns), self.halflives, self.shares)
        seen, counts = np.zeros(returns.shape[1]), np.zeros(returns.shape[1], dtype=np.int64)
        for part in _parts(returns.shape[1]):
            known = np.isfinite(self._standardised(returns[:, part]))
            seen[part], counts[part] = weights @ known, known.sum(axis=0)
        used = seen >= self.min_observed
        n_factors = min(self.n_factors, int(used.sum()) // _STOCKS_PER_FACTOR)
        if not 1 <= n_factors < len(returns):
            raise ModelError(
                f"Factor analysis needs {_STOCKS_PER_FACTOR} stocks a factor and more dates than factors; the panel "
                f"has {len(returns)} dates, and {int(used.sum())} stocks observed on {self.min_observed:.0%} of their "
                "weight. Lower min_observed, or give more dates."
            )
        makers = np.flatnonzero(used)
        z = np.concatenate([self._standardised(returns[:, makers[part]]) for part in _parts(len(makers))], axis=1)
        found = factor_analysis(z, weights, n_factors, self.floor)
        scores = posterior(found, z, np.isfinite(z))
        loadings, specific = np.full((len(used), n_factors), np.nan), np.full(len(used), np.nan)
        loadings[used], specific[used] = found.loadings, found.specific
        others = np.flatnonzero(~used & (counts >= self.min_observations))
        for part in _parts(len(others)):
            some = others[part]
            loadings[some], total = slopes_of_others(self._standardised(returns[:, some]), scores, found)
            left = total - np.square(loadings[some]).sum(axis=1)
            specific[some] = np.clip(left, self.floor * total, total)
        self.unit_ = float(np.sqrt(np.nanmean(np.square(returns[:, used], dtype=np.float64))))
        self.specific_, self._along = specific, np.diag(found.eigenvalues)
        self._name(loadings, panel.tickers)
        factors = self._asked(panel)
        self.premia_ = factors[np.isfinite(factors).all(axis=1)].mean(axis=0)
        return self

    def loadings(self, panel: Panel) -> xr.DataArray:
        """Give s[t-1] B / c as (date, ticker, factor); NaN for stocks without B, or without enough returns before."""
        self._check_fitted()
        volatility = self._volatility(panel.estimation_returns())
        values = (volatility / self.unit_)[:, :, None] * self._aligned(panel)[0]
        coords = {"date": panel.dates, "ticker": panel.tickers, "factor": self.factors_}
        return xr.DataArray(values, coords, ("date", "ticker", "factor"), name="loadings")

    def factor_returns(self, panel: Panel) -> xr.DataArray:
        """Regress returns on loadings at each date: (date, factor), NaN where stocks are too few or alike."""
        self._check_fitted()
        returns = panel.estimation_returns()
        loadings, specific = self._aligned(panel)
        has = np.isfinite(specific) & np.isfinite(returns).any(axis=0)
        returns = returns[:, has].astype(np.float64)
        z = returns / self._volatility(returns)
        known = np.isfinite(z)
        gram, moment, pattern = moments_by_pattern(loadings[has], z, known, 1.0 / specific[has])
        inverse, rank = solve_gram(gram, np.broadcast_to(np.eye(len(self.factors_)), gram.shape))
        factors = self.unit_ * (inverse[pattern] * moment[:, np.newaxis]).sum(axis=2)
        factors[rank[pattern] < factors.shape[1]] = np.nan
        coords = {"date": panel.dates, "factor": self.factors_}
        return xr.DataArray(factors, coords, ("date", "factor"), name="factor_returns")

    def own_omega(self) -> Float64Array:
        """Var(f) = c^2 I."""
        self._check_fitted()
        return self.unit_**2 * np.eye(len(self.factors_))

    def own_specific_variance(self, panel: Panel) -> Float64Array:
        """Give s[t-1]^2 psi as (date, ticker), in the timing of the loadings."""
        return np.square(self._volatility(panel.estimation_returns())) * self._aligned(panel)[1]

    @property
    def eigenvalues_(self) -> FloatArray:
        """(factor,) eigenvalues of the whitened correlations, or the variation along factors that were turned."""
        return np.diagonal(self._along)

    @property
    def keeps_of_first(self) -> bool:
        """Whether later fits keep the number of factors: a small universe may grow."""
        return True

    def refit(self, first: Self) -> Self:
        """Keep the number of factors of the first fit."""
        later: Self = self.clone().set_params(n_factors=len(first.factors_))
        return later

    def _turn(self, rotation: FloatArray) -> None:
        self.loadings_ = self.loadings_.copy(data=self.loadings_.values @ rotation)
        self._along = rotation.T @ self._along @ rotation

    def state(self) -> ModelState:
        """Keep B and psi by ticker, and premia."""
        self._check_fitted()
        arrays = {
            "loadings": self.loadings_.values,
            "specific": self.specific_,
            "premia": self._premia,
            "along": self._along,
        }
        return ModelState(arrays, {"tickers": self.loadings_["ticker"].values.tolist(), "unit": self.unit_})

    @classmethod
    def from_state(cls, params: dict[str, Any], state: ModelState) -> Self:
        """Rebuild a fitted model."""
        model = cls(**params)
        model.specific_, model.premia_ = state.arrays["specific"], state.arrays["premia"]
        model._along, model.unit_ = state.arrays["along"], state.meta["unit"]
        model._name(state.arrays["loadings"], state.meta["tickers"])
        return model

    def _asked(self, panel: Panel) -> Float64Array:
        """Return the factor returns (date, factor) of a panel, of which some rows are in memory at a time."""
        blocks = row_blocks(panel, 0, len(panel.dates), _MEMORY, _MEMORY)
        return np.concatenate([self.factor_returns(block.panel).values[block.own] for block in blocks])

    def _standardised(self, returns: FloatArray) -> Float64Array:
        """Divide returns (date, ticker) by the volatility before them, and cut them."""
        values = returns.astype(np.float64)
        return np.clip(values / self._volatility(values), -self.clip, self.clip)

    def _name(self, loadings: FloatArray, tickers: list[str]) -> None:
        self.factors_ = [f"factor_{k + 1}" for k in range(loadings.shape[1])]
        coords = {"ticker": tickers, "factor": self.factors_}
        self.loadings_ = xr.DataArray(loadings, coords, ("ticker", "factor"), name="loadings")

    def _aligned(self, panel: Panel) -> tuple[Float64Array, Float64Array]:
        """Return B (ticker, factor) and psi (ticker,) on the tickers of a panel."""
        specific = xr.DataArray(self.specific_, {"ticker": self.loadings_["ticker"].values}, ("ticker",))
        loadings: Float64Array = self.loadings_.reindex(ticker=panel.tickers).values
        return loadings, specific.reindex(ticker=panel.tickers).values

    def _volatility(self, returns: FloatArray) -> Float64Array:
        """Return s[t-1] (date, ticker) from the rows before each; NaN with fewer than five returns among them."""
        volatility = np.full(returns.shape, np.nan)
        there = np.flatnonzero(np.isfinite(returns).any(axis=0))
        for part in _parts(len(there)):
            volatility[:, there[part]] = self._volatility_of(returns[:, there[part]].astype(np.float64))
        return volatility

    def _volatility_of(self, returns: Float64Array) -> Float64Array:
        known = np.isfinite(returns)
        total, mass, count = np.where(known, np.square(returns), 0.0), known.astype(np.float64), known.astype(np.int16)
        decay, span = 0.5 ** (1.0 / self.volatility_halflife), 1
        while span < _MEMORY:  # sums over 2, 4, 8 .. rows, so that a row has its bits in any panel
            total[span:] += decay**span * total[:-span]
            mass[span:] += decay**span * mass[:-span]
            count[span:] += count[:-span].copy()
            span *= 2
        total, mass, count = _after(total), _after(mass), _after(count)
        enough: BoolArray = (count >= _LEAST_KNOWN) & (total > 0.0)
        return np.sqrt(np.where(enough, total / np.where(mass > 0.0, mass, 1.0), np.nan))


def _parts(n_stocks: int) -> list[slice]:
    """Cut an axis of stocks into blocks that fit into a processor's cache."""
    return [slice(start, start + _STOCKS) for start in range(0, n_stocks, _STOCKS)]


def _after(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Move rows down by one; what comes in is zero."""
    return np.concatenate([np.zeros_like(values[:1]), values[:-1]])
