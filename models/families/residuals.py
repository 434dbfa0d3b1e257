"""Models on the residuals of another model: its factors, and further ones found in what it leaves.

Here belong how the two sets are put together, and the test by which further factors stay or go. How they are found
belongs in the modules of the families: `models.families.hybrid`, `.residual_som`, `.residual_pca`, `.residual_network`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import xarray as xr
from annotated_types import Gt, Lt

from models.arrays import Float64Array, FloatArray, under
from models.families.base import FactorModel, ModelState
from models.families.registry import packed, unpacked
from models.inference.diebold_mariano import diebold_mariano
from models.panel import Panel
from models.panel.row_blocks import row_blocks
from schemas.errors import ModelError

Fraction = Annotated[float, Gt(0.0), Lt(0.9)]
_FURTHER = "further."
_ROWS = 256


class ModelOnResiduals(FactorModel):
    """The factors of another model, and further ones of its residuals: r[t] = X[t-1] f[t] + B[t-1] g[t] + u[t].

    X and f are the other model's. B and g are those of a model of its residuals e[t] = r[t] - X[t-1] f[t] in the mask.
    A stock is covered where the other model covers it; one of which the model of residuals says nothing has loadings of
    zero on its factors. Omega, of both sets together, and specific variances are estimated from factor returns and
    residuals. The two sets are turned from refit to refit each by itself (`latent_blocks`).
    """

    latent: ClassVar[bool] = True
    of: str
    _further: FactorModel
    _of_residuals: ClassVar[bool] = True
    """Whether the further loadings look at residuals before their date."""

    @property
    def bases(self) -> tuple[str, ...]:
        """The model whose residuals are explained."""
        return (self.of,)

    @property
    def row_memory(self) -> int:
        """That of the other model."""
        return self._base.row_memory

    @property
    def latent_blocks(self) -> tuple[slice, ...]:
        """Those of the other model, and the further factors."""
        further = slice(len(self._base.factors_), len(self.factors_))
        return (*self._base.latent_blocks, further) if self._further.factors_ else self._base.latent_blocks

    def loadings(self, panel: Panel) -> xr.DataArray:
        """Those of the other model beside those of its residuals, as (date, ticker, factor)."""
        self._check_fitted()
        named = _values(self._base.loadings(panel))
        missing = np.isnan(named).any(axis=2, keepdims=True)
        further = np.nan_to_num(_values(self._further.loadings(self._known(panel))))
        values = np.concatenate([named, further], axis=2)
        coords = {"date": panel.dates, "ticker": panel.tickers, "factor": self.factors_}
        return xr.DataArray(np.where(missing, np.nan, values), coords, ("date", "ticker", "factor"), name="loadings")

    def factor_returns(self, panel: Panel) -> xr.DataArray:
        """Those of the other model beside those of its residuals, as (date, factor)."""
        self._check_fitted()
        further = self._further.factor_returns(self._left(panel))
        values = np.concatenate([_values(self._base.factor_returns(panel)), _values(further)], axis=1)
        coords = {"date": panel.dates, "factor": self.factors_}
        return xr.DataArray(values, coords, ("date", "factor"), name="factor_returns")

    def expected_returns(self, panel: Panel) -> xr.DataArray:
        """Return what the other model expects, and the premia of the further factors, as (date, ticker)."""
        self._check_fitted()
        further = self._further.expected_returns(self._known(panel)).fillna(0.0)
        return (self._base.expected_returns(panel) + further).rename("expected_returns")

    def fitted_returns(self, panel: Panel) -> xr.DataArray:
        """Return what the other model explains, and what the further factors do, as (date, ticker)."""
        self._check_fitted()
        further = self._further.fitted_returns(self._left(panel)).fillna(0.0)
        return (self._base.fitted_returns(panel) + further).rename("fitted_returns")

    def _turn(self, rotation: FloatArray) -> None:
        further = slice(len(self._base.factors_), len(self.factors_))
        named = slice(0, further.start)
        base = self._base.rotate(rotation[named, named]) if self._base.latent else self._base
        self._adopt(base, self._further.rotate(rotation[further, further]))

    def _adopt(self, base: FactorModel, further: FactorModel) -> None:
        """Become the fitted model of two; further factors are numbered on after those of the other model."""
        self.on(base)
        self._further = further
        n_named, n_further = len(base.factors_), len(further.factors_)
        self.factors_ = [*base.factors_, *(f"residual_{n_named + k + 1}" for k in range(n_further))]
        self.premia_ = np.concatenate([base.premia_.values, further.premia_.values])

    @property
    def _base(self) -> FactorModel:
        return self._on()[0]

    def _known(self, panel: Panel) -> Panel:
        """Return what the further loadings look at."""
        return self._left(panel) if self._of_residuals else panel

    def _left(self, panel: Panel) -> Panel:
        """Return the residuals of the other model in the place of returns.

        They are made in blocks of rows, each with the rows before it that the model looks at.
        """
        base, n_dates = self._base, len(panel.dates)
        left = np.full((n_dates, len(panel.tickers)), np.nan)
        for block in row_blocks(panel, 0, n_dates, _ROWS, base.row_memory):
            left[block.first : block.last] = _values(base.residuals(block.panel))[block.own]
        inside = panel.mask.values & np.isfinite(left)
        dims = ("date", "ticker")
        return Panel(panel.data.assign(returns=(dims, np.where(inside, left, np.nan)), mask=(dims, inside)))


class FurtherFactors(FactorModel):
    """Factors of residuals.

    They take panels with residuals in the place of returns, stand in no config, and are kept by the model that they are
    part of.
    """

    latent: ClassVar[bool] = True

    def fit(self, panel: Panel, y: None = None) -> Self:  # noqa: ARG002  # scikit-learn passes y
        """Take the factors as they are, and their mean returns over the dates of a panel as premia.

        Raises
        ------
        ModelError
            If no date of the panel has factor returns.
        """
        returns = self.factor_returns(panel).values
        known = np.isfinite(returns).all(axis=1)
        if not known.any():
            raise ModelError(
                f"No date has residuals of enough stocks that differ for {self._n_factors} further factors: ask for "
                "fewer."
            )
        self.premia_ = returns[known].mean(axis=0)
        return self

    @abstractmethod
    def losses(self, panel: Panel) -> Float64Array:
        """Mean squares of residuals, and of what is left when each is explained by the factor returns of the others.

        Returns
        -------
        numpy.ndarray
            (date, 2), weighted means over the stocks in the mask: without factors and with them; NaN on dates without a
            stock.
        """

    @property
    @abstractmethod
    def _n_factors(self) -> int:
        """How many there are."""

    def _name(self) -> None:
        self.factors_ = [f"factor_{k + 1}" for k in range(self._n_factors)]

    def _over_tickers(self, panel: Panel, values: FloatArray) -> xr.DataArray:
        """Label loadings (date, ticker, factor)."""
        coords = {"date": panel.dates, "ticker": panel.tickers, "factor": self.factors_}
        return xr.DataArray(values, coords, ("date", "ticker", "factor"), name="loadings")

    def _over_dates(self, panel: Panel, values: FloatArray) -> xr.DataArray:
        """Label factor returns (date, factor)."""
        coords = {"date": panel.dates, "factor": self.factors_}
        return xr.DataArray(values, coords, ("date", "factor"), name="factor_returns")


class NoFactors(FurtherFactors):
    """No further factor: what a model of residuals comes to where there is nothing."""

    def fit(self, panel: Panel, y: None = None) -> Self:  # noqa: ARG002  # of the protocol
        """Have no factors."""
        self.premia_ = np.zeros(0)
        self._name()
        return self

    def loadings(self, panel: Panel) -> xr.DataArray:
        """(date, ticker, 0)."""
        return self._over_tickers(panel, np.zeros((len(panel.dates), len(panel.tickers), 0)))

    def factor_returns(self, panel: Panel) -> xr.DataArray:
        """(date, 0)."""
        return self._over_dates(panel, np.zeros((len(panel.dates), 0)))

    def losses(self, panel: Panel) -> Float64Array:
        """Twice the same."""
        returns = panel.estimation_returns().astype(np.float64)
        count = np.isfinite(returns).sum(axis=1)
        means = np.where(count > 0, np.nansum(np.square(returns), axis=1) / np.maximum(count, 1), np.nan)
        return np.column_stack([means, means])

    def state(self) -> ModelState:
        """Nothing."""
        return ModelState({})

    @classmethod
    def from_state(cls, params: dict[str, Any], state: ModelState) -> Self:  # noqa: ARG003  # it has none
        """Rebuild it out of nothing."""
        model = cls()
        model.premia_ = np.zeros(0)
        model._name()
        return model

    @property
    def _n_factors(self) -> int:
        return 0

    def _turn(self, rotation: FloatArray) -> None:
        """There is nothing to turn."""


@dataclass(frozen=True)
class Trial:
    """What further factors add on dates from which they did not learn.

    Attributes
    ----------
    statistic : float
        Of Diebold and Mariano, positive if residuals are smaller with the factors than without.
    p_value : float
        One-sided, of the hypothesis that they are not smaller.
    r2 : float
        Share of the squared residuals that the factors explain, each stock by the factor returns of the others.
    """

    statistic: float
    p_value: float
    r2: float

    @classmethod
    def none(cls) -> Self:
        """Return what is known where there were no factors to try."""
        return cls(float("nan"), float("nan"), float("nan"))

    @classmethod
    def of(cls, factors: FurtherFactors, left: Panel) -> Self:
        """Try factors on residuals; NaN where these are of fewer than two dates.

        Each residual is explained by the factor returns of the other stocks alone: its own return is some of a factor
        return, and would be explained by it where there is nothing.
        """
        losses = factors.losses(left)
        test = diebold_mariano(losses[:, 1], losses[:, 0])
        without, with_them = losses[np.isfinite(losses).all(axis=1)].sum(axis=0)
        r2 = float(1.0 - with_them / without) if without > 0.0 else float("nan")
        return cls(-test.statistic, 1.0 - test.p_worse, r2)


class ProvenFactors(ModelOnResiduals):
    """Further factors that stay only if they explain residuals of dates from which they did not learn.

    Where they do not, the model is the other one: its factors, loadings and covariance. The first fit decides, so that
    the axis of factors is one; later fits tell what the test says then.

    Attributes
    ----------
    adds_ : float
        1 if the further factors are in the model, 0 if not.
    adds_statistic_, adds_p_value_, adds_r2_ : float
        Of the `Trial`.
    """

    STATISTICS: ClassVar[Mapping[str, str]] = {
        "adds": "1 if the further factors are in the model, 0 if it is the model of whose residuals they are",
        "adds_statistic": "Diebold-Mariano statistic of squared residuals without and with the further factors, "
        "on dates held out; positive if they add",
        "adds_p_value": "one-sided p-value of no gain by the further factors, on dates held out",
        "adds_r2": "share of squared residuals that the further factors explain on dates held out, each stock by the "
        "factor returns of the others",
    }
    _of_residuals: ClassVar[bool] = False
    significance: float
    adds: bool | None
    adds_: float
    adds_statistic_: float
    adds_p_value_: float
    adds_r2_: float

    @property
    def keeps_of_first(self) -> bool:
        """Whether a test decides if the further factors are in the model, which stays."""
        return self.adds is None

    def refit(self, first: Self) -> Self:
        """Keep what the first fit decided."""
        later: Self = self.clone().set_params(adds=bool(first.adds_)) if self.keeps_of_first else self
        return later

    def own_omega(self) -> FloatArray | None:
        """Return that of the other model if nothing is added to it."""
        self._check_fitted()
        return None if self.adds_ else self._base.own_omega()

    def own_specific_variance(self, panel: Panel) -> FloatArray | None:
        """Return that of the other model if nothing is added to it."""
        self._check_fitted()
        return None if self.adds_ else self._base.own_specific_variance(panel)

    def state(self) -> ModelState:
        """Keep the other model, the outcome of the test and the further factors."""
        self._check_fitted()
        base, further = packed([self._base]), self._further.state()
        test = np.array([self.adds_, self.adds_statistic_, self.adds_p_value_, self.adds_r2_])
        arrays = base.arrays | {f"{_FURTHER}{name}": array for name, array in further.arrays.items()} | {"test": test}
        return ModelState(arrays, base.meta | {"further": further.meta})

    @classmethod
    def from_state(cls, params: dict[str, Any], state: ModelState) -> Self:
        """Rebuild both models."""
        model = cls(**params)
        (base,) = unpacked(state)
        model._tell(*map(float, state.arrays["test"]))
        kept = ModelState(under(_FURTHER, state.arrays), state.meta["further"])
        part = cls._part() if model.adds_ else NoFactors
        model._adopt(base, part.from_state({}, kept))
        return model

    @classmethod
    @abstractmethod
    def _part(cls) -> type[FurtherFactors]:
        """Class of the further factors."""

    def _decide(self, trial: Trial, further: FurtherFactors | None, left: Panel) -> Self:
        """Become the fitted model, with the further factors or without, and remember why.

        Parameters
        ----------
        trial : Trial
            What they add on dates held out.
        further : FurtherFactors, optional
            Not named yet. None if none were found.
        left : Panel
            Residuals of all dates.

        Raises
        ------
        ModelError
            If they are asked for whatever the test says, and there are none.
        """
        if self.adds and further is None:
            raise ModelError(
                f"{type(self).__name__} with adds=True found no further factors in the residuals of '{self.of}': ask "
                "for fewer, or leave adds out."
            )
        adds = trial.p_value <= self.significance if self.adds is None else self.adds
        part = further if adds and further is not None else NoFactors()
        self._tell(float(adds), trial.statistic, trial.p_value, trial.r2)
        self._adopt(self._base, part.fit(left))
        return self

    def _tell(self, adds: float, statistic: float, p_value: float, r2: float) -> None:
        self.adds_, self.adds_statistic_, self.adds_p_value_, self.adds_r2_ = adds, statistic, p_value, r2


def parts_of(left: Panel, fractions: tuple[float, ...]) -> list[Panel]:
    """Split a panel of returns, or of residuals, along time: before the last shares of the dates that have any, these.

    Parameters
    ----------
    left : Panel
    fractions : tuple of float
        Shares of the dates, in order of time; the first part of the split is what they leave.

    Raises
    ------
    ModelError
        If a part has no two dates.
    """
    known = np.flatnonzero(left.mask.values.any(axis=1))
    sizes = [int(np.floor(fraction * len(known))) for fraction in fractions]
    cuts = np.cumsum([len(known) - sum(sizes), *sizes])
    if min(cuts[0], *sizes) < 2:
        raise ModelError(
            f"{len(known)} dates with returns leave fewer than two to learn from or for one of the shares "
            f"{fractions} that are held out: lower these, or give a longer panel."
        )
    begins = [0, *known[cuts[:-1]]]
    return [
        Panel(left.data.isel(date=slice(begin, end)))
        for begin, end in zip(begins, [*begins[1:], len(left.dates)], strict=True)
    ]


@dataclass(frozen=True, eq=False)
class Histories:
    """Residuals of the stocks that have enough of them, each over its root mean square.

    Attributes
    ----------
    values : numpy.ndarray
        (date, ticker) float64, NaN outside the mask.
    scale : numpy.ndarray
        (ticker,) root mean squares.
    tickers : list of str
    """

    values: Float64Array
    scale: Float64Array
    tickers: list[str]

    @classmethod
    def of(cls, left: Panel, min_observations: int) -> Self:
        """Take the stocks of a panel of residuals with at least so many in the mask that are not all zero."""
        residuals = left.estimation_returns().astype(np.float64)
        known = np.isfinite(residuals)
        count = known.sum(axis=0)
        scale = np.sqrt(np.square(np.where(known, residuals, 0.0)).sum(axis=0) / np.maximum(count, 1))
        used = (count >= min_observations) & (scale > 0.0)
        tickers = [name for name, inside in zip(left.tickers, used, strict=True) if inside]
        return cls(residuals[:, used] / scale[used], scale[used], tickers)


def _values(array: xr.DataArray) -> Float64Array:
    """Return values in float64, along (date, ticker, factor) as far as there are these axes."""
    dims = [dim for dim in ("date", "ticker", "factor") if dim in array.dims]
    values: Float64Array = array.transpose(*dims).values.astype(np.float64)
    return values
