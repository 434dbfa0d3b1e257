"""Nonlinear principal components of the residuals of any model: parameters, fitting, and what is kept.

Here belongs the class that users meet. The curve is `estimation`'s, and whether the factors stay
`models.families.residuals`'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import xarray as xr
from annotated_types import Ge, Gt, Le, Lt

from models.arrays import Float64Array, FloatArray
from models.families.base import ModelState
from models.families.residual_network.leaving_out import leave_one_out
from models.families.residual_pca.estimation import Curve, principal_curve
from models.families.residuals import Fraction, FurtherFactors, Histories, ProvenFactors, Trial, parts_of
from models.panel import Panel
from models.statistics.gram import solve_gram
from models.statistics.rowwise import cross_sections
from schemas.base import Name
from schemas.errors import ConfigError, ModelError

_STOCKS_PER_POWER = 3


class ResidualPCA(ProvenFactors):
    """The factors of another model, and nonlinear principal components of its residuals.

    Every stock has one coordinate y_i, and its residual e = r - X f, over its root mean square s, is

        e_it / s_i = sum_k g_k(y_i) h_kt + u_it

    with polynomials g_k: stocks lie on a curve in the space of the factors h, which has more dimensions than the curve.
    It is the principal curve (Hastie and Stuetzle 1989, Principal curves, Journal of the American Statistical
    Association 84) of the histories of stocks, and so the bottleneck network of Kramer (1991, Nonlinear principal
    component analysis using autoassociative neural networks, AIChE Journal 37) with stocks as samples: y is its
    bottleneck, g its last hidden layer, and factor returns are the weights of its linear output. So loadings are known
    before the return, as a risk model needs them; with dates as samples, as is usual, factor returns are bent, and
    loadings wait for them. Curve and places are found in turns, each in closed form: no seed enters.

    Linear principal components learn a loading for each stock and factor, from its own history. Here a stock has the
    loadings of its place, which its neighbours tell too: that counts where many stocks have short histories. The curve
    starts along the largest linear component, which should order the stocks roughly; where several components are
    equally large it may stay there, and linear components, as of `Hybrid`, explain more.

    The loading of a stock is s_i g_k(y_i) / c with c the root mean square of all s; factor returns are c times the
    regression of e / s on g at each date. Places are learnt by ticker and fixed at the fit: a stock with too few
    residuals has loadings of zero until the next one, and the factors of the other model.

    On a curve of the first dates with residuals the last ones are tried: there each residual is explained by the
    factor returns of the other stocks alone, and a test of Diebold and Mariano compares the mean squares of each date
    with and without the factors. Above the level ``significance`` they are dropped: the model is the other model. If
    they stay the curve is made of all dates.

    Parameters
    ----------
    of : str
        Name of the model of the run whose residuals are explained.
    n_factors : int
        Number of further factors.
    degree : int
        Of the polynomials; there are at most ``degree + 1`` factors.
    min_observations : int
        Fewest residuals of a stock on the curve; two stocks with less than half of that in common count as uncorrelated
        at the start.
    test_fraction : float
        Share of the dates, the last ones, on which the further factors are tried.
    significance : float
        Level of the test by which they stay.
    adds : bool, optional
        Whether further factors are in the model, whatever the test says. Default: as it says at the first fit.

    Attributes
    ----------
    coordinate_ : xarray.DataArray or None
        (ticker,) place of each stock on the curve, in even steps from -1 to 1; None if the factors are not in the
        model.

    Examples
    --------
    >>> from models import PCA, ResidualPCA
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> base = PCA(n_factors=1).fit(panel)
    >>> model = ResidualPCA("pca", n_factors=2, adds=True).on(base).fit(panel)
    >>> model.factors_
    ['factor_1', 'residual_2', 'residual_3']
    """

    kind: ClassVar[str] = "residual_pca"
    STATISTICS: ClassVar[Mapping[str, str]] = {
        "coordinate": "place of the stock on the principal curve of residuals, in even steps from -1 to 1"
    }
    effort: ClassVar[int] = 3

    def __init__(
        self,
        of: Name,
        n_factors: Annotated[int, Ge(1), Le(21)] = 4,
        degree: Annotated[int, Ge(1), Le(20)] = 5,
        min_observations: Annotated[int, Ge(20)] = 60,
        test_fraction: Fraction = 0.25,
        significance: Annotated[float, Gt(0.0), Lt(1.0)] = 0.01,
        adds: bool | None = None,
    ) -> None:
        self.of = of
        self.n_factors = n_factors
        self.degree = degree
        self.min_observations = min_observations
        self.test_fraction = test_fraction
        self.significance = significance
        self.adds = adds

    def fit(self, panel: Panel, y: None = None) -> Self:  # noqa: ARG002  # scikit-learn passes y
        """Fit the curve to the residuals in ``panel.mask``, and try what it shows.

        Raises
        ------
        ConfigError
            If there are more factors than the curve has directions.
        ModelError
            If no fitted model was given, or dates or stocks are too few.
        """
        if self.n_factors > self.degree + 1:
            raise ConfigError(
                f"A curve of degree {self.degree} moves in {self.degree + 1} directions at most, and "
                f"n_factors={self.n_factors} are asked for: ask for fewer, or raise degree."
            )
        left = self._left(panel)
        learning, trying = parts_of(left, (self.test_fraction,))
        trial = Trial.of(self._laid(learning), trying)
        return self._decide(trial, self._laid(left), left)

    @property
    def coordinate_(self) -> xr.DataArray | None:
        """(ticker,) place of each stock on the curve; None if the factors are not in the model."""
        return self._further.of_stocks["coordinate"] if isinstance(self._further, _OnCurve) else None

    @classmethod
    def _part(cls) -> type[FurtherFactors]:
        return _OnCurve

    def _laid(self, left: Panel) -> _OnCurve:
        histories = Histories.of(left, self.min_observations)
        needed = _STOCKS_PER_POWER * (self.degree + 1)
        found = None
        if len(histories.tickers) >= needed:
            found = principal_curve(histories.values, self.degree, self.n_factors, self.min_observations / 2)
        if found is None:
            raise ModelError(
                f"A curve of degree {self.degree} needs {needed} stocks with min_observations={self.min_observations} "
                f"residuals, many on the same dates; the panel has {len(histories.tickers)}. Lower degree or "
                "min_observations, or give more dates."
            )
        return _OnCurve.of(histories.tickers, found, histories.scale)


class _OnCurve(FurtherFactors):
    """Factors of residuals on loadings that are functions of places on a curve."""

    of_stocks: xr.Dataset

    @classmethod
    def of(cls, tickers: list[str], found: Curve, scale: FloatArray) -> Self:
        """Take a curve of stocks, whose residuals have root mean squares (ticker,)."""
        arrays = {"coordinate": found.coordinate, "components": found.loadings, "scale": scale}
        return cls._from(arrays, tickers)

    @classmethod
    def _from(cls, arrays: dict[str, FloatArray], tickers: list[str]) -> Self:
        dims = {"coordinate": ("ticker",), "components": ("ticker", "component"), "scale": ("ticker",)}
        factors = cls()
        factors.of_stocks = xr.Dataset(
            {name: (own, arrays[name]) for name, own in dims.items()}, coords={"ticker": tickers}
        )
        factors._name()
        return factors

    def loadings(self, panel: Panel) -> xr.DataArray:
        """Return s g / c as (date, ticker, factor); NaN for stocks that are not on the curve."""
        there = self.of_stocks.reindex(ticker=panel.tickers)
        own = there["components"].values * there["scale"].values[:, None] / self._unit
        return self._over_tickers(panel, np.broadcast_to(own, (len(panel.dates), *own.shape)))

    def factor_returns(self, panel: Panel) -> xr.DataArray:
        """Return c times the regression of e / s on g: (date, factor), NaN where stocks are too few or alike."""
        parts = []
        for block in panel.blocks():
            gram, moment = cross_sections(*self._entering(block))
            solution, rank = solve_gram(gram, moment[..., None])
            parts.append(np.where((rank == self._n_factors)[:, None], self._unit * solution[..., 0], np.nan))
        return self._over_dates(panel, np.concatenate(parts))

    def losses(self, panel: Panel) -> Float64Array:
        """Mean squares of e / s without factors and with them; see the base class."""
        parts = []
        for block in panel.blocks():
            own, z, weights = self._entering(block)
            parts.append(leave_one_out(np.broadcast_to(own, (*z.shape, own.shape[1])), z, weights))
        return np.concatenate(parts)

    def state(self) -> ModelState:
        """Keep places, components, root mean squares and premia."""
        arrays = {str(name): array.values for name, array in self.of_stocks.data_vars.items()}
        return ModelState(arrays | {"premia": self._premia}, {"tickers": self.of_stocks["ticker"].values.tolist()})

    @classmethod
    def from_state(cls, params: dict[str, Any], state: ModelState) -> Self:  # noqa: ARG003  # it has no parameters
        """Rebuild the factors."""
        factors = cls._from(state.arrays, list(state.meta["tickers"]))
        factors.premia_ = state.arrays["premia"]
        return factors

    @property
    def _n_factors(self) -> int:
        return int(self.of_stocks.sizes["component"])

    @property
    def _unit(self) -> float:
        return float(np.sqrt(np.square(self.of_stocks["scale"].values).mean()))

    def _entering(self, block: Panel) -> tuple[Float64Array, Float64Array, Float64Array]:
        """Return g (ticker, factor), e / s (date, ticker), zero where not known, and weights, one where it is."""
        there = self.of_stocks.reindex(ticker=block.tickers)
        z = np.where(block.mask.values, block.returns.values, np.nan) / there["scale"].values
        known = np.isfinite(z)
        own: Float64Array = np.nan_to_num(there["components"].values)
        return own, np.where(known, z, 0.0), known.astype(np.float64)

    def _turn(self, rotation: FloatArray) -> None:
        turned = self.of_stocks["components"].values @ rotation
        self.of_stocks = self.of_stocks.assign(components=(("ticker", "component"), turned))
