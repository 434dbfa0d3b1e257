"""Hybrid: the factors of any model, and statistical factors of its residuals.

Here belongs how the two are put together. The factor analysis belongs in `models.families.factor_analysis`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

import numpy as np
import xarray as xr
from annotated_types import Ge, Gt, Le, MinLen

from models.arrays import Float64Array, FloatArray
from models.families.base import FactorModel, ModelState
from models.families.factor_analysis import FactorAnalysis
from models.families.registry import packed, unpacked
from models.panel import Panel
from schemas.base import Name

_ROWS = 256


class Hybrid(FactorModel):
    """The factors of another model, and statistical factors of its residuals: r[t] = X[t-1] f[t] + B[t-1] g[t] + u[t].

    X and f are the other model's. B and g are a `FactorAnalysis` of its residuals e[t] = r[t] - X[t-1] f[t] in the
    mask, so that what moves stocks together and has no name in the other model is no longer taken for specific risk.
    That is a hybrid model as in Miller (2006), Needles, haystacks, and hidden factors, Journal of Portfolio Management,
    with maximum-likelihood factors. Omega, of both sets together, and specific variances are estimated from factor
    returns and residuals, as those of other models are.

    A stock is covered where the other model covers it. One of which the factor analysis says nothing, as it has too few
    residuals, has loadings of zero on its factors, so that no stock is lost.

    The two sets of factors mean different things, so that a refit is never turned as a whole: its statistical
    factors are turned towards those of the refit before among themselves, and those of the other model as they would
    be by themselves, or not at all if they are given (`latent_blocks`).

    Parameters
    ----------
    of : str
        Name of the model of the run whose residuals are explained.
    n_factors : int
        Number of statistical factors. A small universe has fewer: a quarter of its stocks at the first fit.
    volatility_halflife : float
        Returns after which a squared residual counts half in the volatilities of residuals.
    halflives : tuple of float
        Dates after which one counts half in the correlations, of each exponential weighting that is blended.
    shares : tuple of float
        Share of each of them.
    """

    kind: ClassVar[str] = "hybrid"
    latent: ClassVar[bool] = True
    effort: ClassVar[int] = 3

    def __init__(
        self,
        of: Name,
        n_factors: Annotated[int, Ge(1), Le(200)] = 20,
        volatility_halflife: Annotated[float, Gt(1.0), Le(63.0)] = 42.0,
        halflives: Annotated[tuple[Annotated[float, Gt(1.0)], ...], MinLen(1)] = (60.0, 250.0, 1000.0),
        shares: Annotated[tuple[Annotated[float, Gt(0.0)], ...], MinLen(1)] = (0.25, 0.40, 0.35),
    ) -> None:
        self.of = of
        self.n_factors = n_factors
        self.volatility_halflife = volatility_halflife
        self.halflives = halflives
        self.shares = shares

    _statistical: FactorModel

    @property
    def bases(self) -> tuple[str, ...]:
        """The model whose residuals are explained."""
        return (self.of,)

    @property
    def row_memory(self) -> int:
        """The rows before a row whose residuals make its volatilities, and those that the first of them looks at."""
        return self._base.row_memory + FactorAnalysis().row_memory

    @property
    def latent_blocks(self) -> tuple[slice, ...]:
        """Those of the other model, and the statistical factors."""
        return (*self._base.latent_blocks, slice(len(self._base.factors_), len(self.factors_)))

    def fit(self, panel: Panel) -> Self:
        """Fit the statistical factors to the residuals in ``panel.mask`` of the model that `on` was given.

        Raises
        ------
        ModelError
            If no fitted model was given, or there are too few dates or stocks.
        ConfigError
            If there is not one share for each half-life.
        """
        parameters = self.get_params()
        del parameters["of"]
        self._adopt(self._base, FactorAnalysis(**parameters).fit(self._left(panel)))
        return self

    def loadings(self, panel: Panel) -> xr.DataArray:
        """Those of the other model beside those of its residuals, as (date, ticker, factor)."""
        self._check_fitted()
        named = _values(self._base.loadings(panel))
        missing = np.isnan(named).any(axis=2, keepdims=True)
        values = np.concatenate([named, np.nan_to_num(_values(self._statistical.loadings(self._left(panel))))], axis=2)
        coords = {"date": panel.dates, "ticker": panel.tickers, "factor": self.factors_}
        return xr.DataArray(np.where(missing, np.nan, values), coords, ("date", "ticker", "factor"), name="loadings")

    def factor_returns(self, panel: Panel) -> xr.DataArray:
        """Those of the other model beside those of its residuals, as (date, factor)."""
        self._check_fitted()
        of_residuals = self._statistical.factor_returns(self._left(panel))
        values = np.concatenate([_values(self._base.factor_returns(panel)), _values(of_residuals)], axis=1)
        coords = {"date": panel.dates, "factor": self.factors_}
        return xr.DataArray(values, coords, ("date", "factor"), name="factor_returns")

    def expected_returns(self, panel: Panel) -> xr.DataArray:
        """Return what the other model expects, and the premia of the statistical factors, as (date, ticker)."""
        self._check_fitted()
        of_residuals = self._statistical.expected_returns(self._left(panel)).fillna(0.0)
        return (self._base.expected_returns(panel) + of_residuals).rename("expected_returns")

    def fitted_returns(self, panel: Panel) -> xr.DataArray:
        """Return what the other model explains, and what the statistical factors do, as (date, ticker)."""
        self._check_fitted()
        of_residuals = self._statistical.fitted_returns(self._left(panel)).fillna(0.0)
        return (self._base.fitted_returns(panel) + of_residuals).rename("fitted_returns")

    @property
    def keeps_of_first(self) -> bool:
        """Whether later fits keep the number of statistical factors: a small universe may grow."""
        return True

    def refit(self, first: Self) -> Self:
        """Keep the number of statistical factors of the first fit."""
        later: Self = self.clone().set_params(n_factors=len(first._statistical.factors_))
        return later

    def state(self) -> ModelState:
        """Keep all of both models."""
        self._check_fitted()
        return packed([self._base, self._statistical])

    @classmethod
    def from_state(cls, params: dict[str, Any], state: ModelState) -> Self:
        """Rebuild both."""
        model, (base, statistical) = cls(**params), unpacked(state)
        model._adopt(base, statistical)
        return model

    def _turn(self, rotation: FloatArray) -> None:
        own = slice(len(self._base.factors_), len(self.factors_))
        named = slice(0, own.start)
        base = self._base.rotate(rotation[named, named]) if self._base.latent else self._base
        self._adopt(base, self._statistical.rotate(rotation[own, own]))

    def _adopt(self, base: FactorModel, statistical: FactorModel) -> None:
        """Become the fitted model of two; statistical factors are numbered on after those of the other model."""
        self.on(base)
        self._statistical = statistical
        n_named, n_factors = len(base.factors_), len(statistical.factors_)
        self.factors_ = [*base.factors_, *(f"residual_{n_named + k + 1}" for k in range(n_factors))]
        self.premia_ = np.concatenate([base.premia_, statistical.premia_])

    @property
    def _base(self) -> FactorModel:
        return self._on()[0]

    def _left(self, panel: Panel) -> Panel:
        """Return the residuals of the other model in the place of returns, without characteristics.

        They are made in blocks of rows, each with the rows before it that the model looks at.
        """
        base, n_dates = self._base, len(panel.dates)
        left = np.full((n_dates, len(panel.tickers)), np.nan)
        for first in range(0, n_dates, _ROWS):
            last, begin = min(first + _ROWS, n_dates), max(first - base.row_memory, 0)
            left[first:last] = _values(base.residuals(panel.rows(begin, last)))[first - begin :]
        inside = panel.mask.values & np.isfinite(left)
        bare = panel.data.isel(char=slice(0, 0))
        dims = ("date", "ticker")
        return Panel(bare.assign(returns=(dims, np.where(inside, left, np.nan)), mask=(dims, inside)))


def _values(array: xr.DataArray) -> Float64Array:
    """Return values in float64, along (date, ticker, factor) as far as there are these axes."""
    dims = [dim for dim in ("date", "ticker", "factor") if dim in array.dims]
    values: Float64Array = array.transpose(*dims).values.astype(np.float64)
    return values
