"""Models on the residuals of another model: its factors, and further ones found in what it leaves.

Here belong how the two sets are put together, factor returns by regression on given loadings, and the test by which
further factors stay or go. How they are found belongs in the modules of the families: `models.families.hybrid`,
`.residual_som`, `.residual_network`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import xarray as xr
from annotated_types import Gt, Lt

from models.arrays import BoolArray, Float64Array, FloatArray, under
from models.families.base import FactorModel, ModelState
from models.families.registry import packed, unpacked
from models.inference.diebold_mariano import diebold_mariano
from models.panel import Panel
from models.statistics.gram import solve_gram
from models.statistics.rowwise import cross_sections
from schemas.errors import ModelError

Fraction = Annotated[float, Gt(0.0), Lt(0.9)]
_FURTHER = "further."
_DECIDES_ITSELF = 1e-8  # 1 - leverage below which a stock decides the factor return by itself
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
        self.premia_ = np.concatenate([base.premia_, further.premia_])

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
        for first in range(0, n_dates, _ROWS):
            last, begin = min(first + _ROWS, n_dates), max(first - base.row_memory, 0)
            left[first:last] = _values(base.residuals(panel.rows(begin, last)))[first - begin :]
        inside = panel.mask.values & np.isfinite(left)
        dims = ("date", "ticker")
        return Panel(panel.data.assign(returns=(dims, np.where(inside, left, np.nan)), mask=(dims, inside)))


class RegressedFactors(FactorModel):
    """Factors of residuals whose returns are date-by-date regressions on loadings that are known before.

    It takes panels with residuals in the place of returns, stands in no config and is kept by the model that it is part
    of. A class says what loadings are, and with which weights stocks enter.
    """

    latent: ClassVar[bool] = True

    def fit(self, panel: Panel) -> Self:
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

    def factor_returns(self, panel: Panel) -> xr.DataArray:
        """Regress residuals on loadings at each date: (date, factor), NaN where stocks are too few or alike."""
        self._check_fitted()
        parts = []
        for block in panel.blocks():
            loadings, returns, weights = self.entering(block)
            gram, moment = cross_sections(loadings, returns, weights)
            solution, rank = solve_gram(gram, moment[..., None])
            parts.append(np.where((rank == self._n_factors)[:, None], solution[..., 0], np.nan))
        coords = {"date": panel.dates, "factor": self.factors_}
        return xr.DataArray(np.concatenate(parts), coords, ("date", "factor"), name="factor_returns")

    def entering(self, panel: Panel) -> tuple[FloatArray, Float64Array, Float64Array]:
        """Return loadings (date, ticker, factor), residuals and weights (date, ticker), zero where not in the mask."""
        loadings = self.loadings(panel).values
        inside: BoolArray = panel.mask.values & np.isfinite(loadings).all(axis=2)
        returns = np.where(inside, panel.returns.values, 0.0).astype(np.float64)
        return loadings, returns, np.where(inside, self._weights(panel), 0.0)

    @property
    @abstractmethod
    def _n_factors(self) -> int:
        """How many there are."""

    def _name(self) -> None:
        self.factors_ = [f"factor_{k + 1}" for k in range(self._n_factors)]

    def _weights(self, panel: Panel) -> Float64Array:
        """Weights of the regression, that broadcast to (date, ticker)."""
        return np.ones(len(panel.tickers))


class NoFactors(RegressedFactors):
    """No further factor: what a model of residuals comes to where there is nothing."""

    @property
    def _n_factors(self) -> int:
        return 0

    def fit(self, panel: Panel) -> Self:  # noqa: ARG002  # of the protocol
        """Have no factors."""
        self.factors_, self.premia_ = [], np.zeros(0)
        return self

    def loadings(self, panel: Panel) -> xr.DataArray:
        """(date, ticker, 0)."""
        coords = {"date": panel.dates, "ticker": panel.tickers, "factor": self.factors_}
        values = np.zeros((len(panel.dates), len(panel.tickers), 0))
        return xr.DataArray(values, coords, ("date", "ticker", "factor"), name="loadings")

    def factor_returns(self, panel: Panel) -> xr.DataArray:
        """(date, 0)."""
        coords = {"date": panel.dates, "factor": self.factors_}
        return xr.DataArray(np.zeros((len(panel.dates), 0)), coords, ("date", "factor"), name="factor_returns")

    def state(self) -> ModelState:
        """Nothing."""
        return ModelState({})

    @classmethod
    def from_state(cls, params: dict[str, Any], state: ModelState) -> Self:  # noqa: ARG003  # of the protocol
        """Rebuild it out of nothing."""
        model = cls(**params)
        model.factors_, model.premia_ = [], np.zeros(0)
        return model

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
    def of(cls, factors: RegressedFactors, left: Panel) -> Self:
        """Try factors on residuals; NaN where these are of fewer than two dates.

        Losses are the mean squares of a date. That of the factors is of leave-one-out residuals: a regression explains
        some of any return, and by the other stocks alone it explains nothing where there is nothing.
        """
        losses = np.concatenate([leave_one_out(*factors.entering(block)) for block in left.blocks()])
        test = diebold_mariano(losses[:, 1], losses[:, 0])
        without, with_them = losses[np.isfinite(losses).all(axis=1)].sum(axis=0)
        r2 = float(1.0 - with_them / without) if without > 0.0 else float("nan")
        return cls(-test.statistic, 1.0 - test.p_worse, r2)


def leave_one_out(loadings: FloatArray, returns: Float64Array, weights: Float64Array) -> Float64Array:
    """Mean squares of returns, and of what is left when each is explained by the factor returns of all others.

    With leverages h_i = w_i x_i'(X'WX)^-1 x_i the residual without the stock itself is (e_i - x_i'f) / (1 - h_i), so
    that nothing is fitted again (Allen 1974, The relationship between variable selection and data augmentation). A
    stock without which a factor has no return is left unexplained.

    Parameters
    ----------
    loadings : numpy.ndarray
        (date, ticker, factor)
    returns, weights : numpy.ndarray
        (date, ticker); loadings and returns are finite where the weight is positive.

    Returns
    -------
    numpy.ndarray
        (date, 2), weighted means over stocks: without factors and with them; NaN on dates without a stock.
    """
    gram, moment = cross_sections(loadings, returns, weights)
    inverse, _ = solve_gram(gram, np.broadcast_to(np.eye(gram.shape[1]), gram.shape))
    losses = np.full((len(returns), 2), np.nan)
    for date in np.flatnonzero((weights > 0.0).any(axis=1)):
        inside = weights[date] > 0.0
        rows, own, weight = loadings[date, inside].astype(np.float64), returns[date, inside], weights[date, inside]
        towards = rows @ inverse[date]
        slack = 1.0 - weight * (towards * rows).sum(axis=1)
        known = slack > _DECIDES_ITSELF
        left = np.where(known, (own - towards @ moment[date]) / np.where(known, slack, 1.0), own)
        losses[date] = weight @ np.square(own) / weight.sum(), weight @ np.square(left) / weight.sum()
    return losses


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
    def _part(cls) -> type[RegressedFactors]:
        """Class of the further factors."""

    def _decide(self, trial: Trial, further: RegressedFactors | None, left: Panel) -> Self:
        """Become the fitted model, with the further factors or without, and remember why.

        Parameters
        ----------
        trial : Trial
            What they add on dates held out.
        further : RegressedFactors, optional
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
    """Split a panel of residuals along time: what is before the last shares of the dates that have any, and these.

    Parameters
    ----------
    left : Panel
        With residuals in the place of returns.
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
            f"{len(known)} dates with residuals leave fewer than two to learn from or for one of the shares "
            f"{fractions} that are held out: give a longer panel."
        )
    begins = [0, *known[cuts[:-1]]]
    return [
        Panel(left.data.isel(date=slice(begin, end)))
        for begin, end in zip(begins, [*begins[1:], len(left.dates)], strict=True)
    ]


def _values(array: xr.DataArray) -> Float64Array:
    """Return values in float64, along (date, ticker, factor) as far as there are these axes."""
    dims = [dim for dim in ("date", "ticker", "factor") if dim in array.dims]
    values: Float64Array = array.transpose(*dims).values.astype(np.float64)
    return values
