"""The protocol that every factor model follows, and what all of them share.

Here belong the abstract model, its state, and the scores that are the same for all. Maths of one model belongs in that
model's module.
"""

from __future__ import annotations

import copy
import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, TypeVar, cast

import numpy as np
import numpy.typing as npt
import xarray as xr
from sklearn.base import BaseEstimator, clone

from models.arrays import FloatArray
from models.families.plotting import ModelPlot
from models.families.rotation import check_rotation
from models.families.summary import Summary, premia_table
from models.panel import Panel
from models.panel.row_blocks import row_blocks, rows_at_once
from schemas.errors import ConfigError, ModelError, NotFittedError
from schemas.statistics import STATISTIC_DIMS, declared

Report = Callable[[str], None]
"""Takes a line that says how far a fit has come."""


@dataclass(frozen=True)
class ModelState:
    """What a fitted model must remember to give the same loadings for ever: plain arrays and plain JSON.

    Attributes
    ----------
    arrays : dict[str, numpy.ndarray]
        Numeric arrays (no object dtype), stored as safetensors.
    meta : dict[str, Any]
        JSON-serialisable facts: names of tickers, characteristics and factors, dates as ISO strings.

    Examples
    --------
    >>> from models import IPCA
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> model = IPCA(n_factors=2).fit(panel)
    >>> again = IPCA.from_state(model.get_params(), model.state())
    >>> again.loadings(panel).identical(model.loadings(panel))
    True
    """

    arrays: dict[str, npt.NDArray[Any]]
    meta: dict[str, Any] = field(default_factory=dict)


Method = TypeVar("Method", bound=Callable[..., Any])


def takes_a_panel(method: Method) -> Method:
    """Let a method of a model refuse what is no panel, with a `ConfigError`, before it looks at it."""

    @functools.wraps(method)
    def checked(self: FactorModel, panel: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(panel, Panel):
            given = f"{type(panel).__module__.partition('.')[0]}.{type(panel).__name__}"
            raise ConfigError(
                f"{type(self).__name__}.{method.__name__} takes a models.Panel, not a {given}; build one with "
                "Panel.from_long(frame), from_wide(returns, characteristics), from_xarray(dataset) or from_arrays(...)."
            )
        return method(self, panel, *args, **kwargs)

    return cast("Method", checked)


class FactorModel(BaseEstimator, ABC):  # type: ignore[misc]  # scikit-learn ships no types
    """A factor model r[t] = X[t-1] f[t] + e[t] in scikit-learn's manner.

    Constructor arguments are stored untouched (``get_params``/``set_params``/``clone`` work); everything learnt in
    `fit` ends with an underscore. A panel's date t labels the return r[t] beside what was known *before* t,
    so that ``loadings(panel)`` at t is X[t-1]: no value at or after t enters it.

    A row of a panel decides its own loadings, factor and expected returns, together with the `row_memory` rows before
    it: a row by itself gives the bits that it has in a longer panel, or in one with more stocks that are not covered.
    So rows can be made in blocks, or one a day, and are the same.

    Attributes
    ----------
    kind : str
        What a config calls the family, and its entry point in the group ``factorcube.models`` (class attribute).
    STATISTICS : mapping of str to str
        Name and meaning of every statistic that the class adds to those of its parents (class attribute). The one
        called ``x`` is the attribute ``x_`` of a fitted model, which may be None: see `statistics`.
    factors_ : list[str]
        Names of the factors, in order.
    premia_ : xarray.DataArray
        (factor,) mean factor return per period over the training dates; the price of risk in `expected_returns`. A
        family sets it to an array in the order of the factors.
    latent : bool
        Whether factors are identified only up to a rotation (class attribute): see `latent_blocks`.
    effort : int
        How long a fit lasts, beside other families: the longest are begun first (class attribute).

    Examples
    --------
    >>> from models import IPCA, FactorModel
    >>> isinstance(IPCA(), FactorModel)
    True
    >>> IPCA(n_factors=2).get_params()["n_factors"]
    2
    """

    kind: ClassVar[str]
    STATISTICS: ClassVar[Mapping[str, str]] = {
        "premia": "mean factor return per period over the last training sample",
        "premia_stderr": "standard error of the premia, per period",
    }
    latent: ClassVar[bool] = False
    effort: ClassVar[int] = 1
    factors_: list[str]
    _premia: FloatArray
    _bases: tuple[FactorModel, ...] = ()

    @property
    def premia_(self) -> xr.DataArray:
        """(factor,) mean factor return per period over the training dates."""
        self._check_fitted()
        return xr.DataArray(self._premia, {"factor": [*self.factors_]}, ("factor",), name="premia")

    @premia_.setter
    def premia_(self, values: FloatArray) -> None:
        self._premia = np.asarray(values)

    @property
    def row_memory(self) -> int:
        """How many rows before a row its loadings, factor and expected returns look at."""
        return 0

    @property
    def latent_blocks(self) -> tuple[slice, ...]:
        """Factors of a fitted model that are turned among themselves from refit to refit; none if they are given."""
        return (slice(0, len(self.factors_)),) if self.latent else ()

    @property
    def bases(self) -> tuple[str, ...]:
        """Names of the models of the run that this one is fitted on, in the order in which `on` takes them."""
        return ()

    def on(self, *fitted: FactorModel) -> Self:
        """Return this model, to be fitted on other fitted ones; what it keeps of them goes into its state.

        Parameters
        ----------
        *fitted : FactorModel
            The models that `bases` names, in that order, fitted to the dates that this one is fitted to.

        Raises
        ------
        ModelError
            If there are more or fewer than it names.
        """
        if len(fitted) != len(self.bases):
            raise ModelError(
                f"{type(self).__name__} is fitted on {len(self.bases)} model(s), not on {len(fitted)}: give on() one "
                "fitted model for each that it names, in that order."
            )
        self._bases = fitted
        return self

    def _on(self) -> tuple[FactorModel, ...]:
        """Return the fitted models that `on` was given."""
        if len(self._bases) != len(self.bases):
            needed = " and ".join(self.bases)
            raise NotFittedError(f"{type(self).__name__} is fitted on {needed}: hand them, fitted, to on() first.")
        return self._bases

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let every method of a panel that the class defines say in a sentence what it takes, whatever it is given."""
        super().__init_subclass__(**kwargs)
        for name, method in [*vars(cls).items()]:
            if inspect.isfunction(method) and [*inspect.signature(method).parameters][1:2] == ["panel"]:
                setattr(cls, name, takes_a_panel(method))

    @abstractmethod
    def fit(self, panel: Panel, y: None = None) -> Self:
        """Fit to all dates of the panel, and return the model itself; ``y`` is ignored, and there for scikit-learn."""

    def pieces(self) -> tuple[str, ...]:
        """Names of the parts that a fit may be split into, such as seeds or starts; none if it is one piece.

        ``fit(panel)`` is ``join(panel, [fit_piece(panel, piece) for piece in pieces()])``, bit for bit.
        """
        return ()

    def fit_piece(self, panel: Panel, piece: str, report: Report | None = None) -> ModelState:  # noqa: ARG002
        """Do one part of a fit, and change nothing in the model; parts may be done side by side, in any process.

        Parameters
        ----------
        panel : Panel
            What the whole is fitted to.
        piece : str
            One of `pieces`.
        report : callable, optional
            Told in a line how it goes.
        """
        raise ModelError(f"{type(self).__name__} has no piece '{piece}': it is fitted at once.")

    def join(self, panel: Panel, pieces: Sequence[ModelState]) -> Self:  # noqa: ARG002
        """Become the fitted model of its parts, given in the order of `pieces`."""
        raise ModelError(f"{type(self).__name__} has no pieces to join: it is fitted at once.")

    @property
    def keeps_of_first(self) -> bool:
        """Whether later fits keep something of the first (see `refit`), and so wait for it."""
        return False

    def refit(self, first: Self) -> Self:  # noqa: ARG002
        """Return the unfitted model of a later date, with what it keeps of the first fit.

        The axis of factors of a version is one: what a rule chose at the first fit, such as their number, stays.
        """
        return self

    @abstractmethod
    def loadings(self, panel: Panel) -> xr.DataArray:
        """Return loadings X[t-1] as (date, ticker, factor); NaN where a stock is not covered."""

    @abstractmethod
    def factor_returns(self, panel: Panel) -> xr.DataArray:
        """Realised factor returns f[t] as (date, factor), in decimals per period; NaN where they cannot be had."""

    def own_omega(self) -> FloatArray | None:
        """Return Omega (factor, factor) if the model states one of its own; else it is estimated."""
        return None

    def own_specific_variance(self, panel: Panel) -> FloatArray | None:  # noqa: ARG002
        """Return the specific variance (date, ticker) of a model with an Omega of its own, timed as its loadings."""
        return None

    @abstractmethod
    def state(self) -> ModelState:
        """Everything that `from_state` needs."""

    @classmethod
    @abstractmethod
    def from_state(cls, params: dict[str, Any], state: ModelState) -> Self:
        """Rebuild a fitted model from its constructor parameters and its state, with identical loadings."""

    def rotate(self, rotation: FloatArray) -> Self:
        """Return the same fitted model in rotated coordinates: loadings X R and factor returns R' f.

        Parameters
        ----------
        rotation : numpy.ndarray
            (factor, factor) orthogonal matrix R.

        Raises
        ------
        ModelError
            If the factors of the model are given, so that a rotation would only relabel them wrongly.
        ConfigError
            If the matrix is not orthogonal, or mixes factors of several `latent_blocks`.
        """
        self._check_fitted()
        if not self.latent:
            raise ModelError(f"{type(self).__name__} has given factors; they cannot be rotated.")
        matrix = check_rotation(rotation, len(self.factors_), self.latent_blocks)
        rotated = copy.copy(self)
        rotated.premia_ = self._premia @ matrix
        rotated._turn(matrix)  # noqa: SLF001  # of the same class
        return rotated

    def _turn(self, rotation: FloatArray) -> None:
        """Turn what `loadings` and `factor_returns` are computed from; latent models only."""
        raise NotImplementedError

    def clone(self) -> Self:
        """Return an unfitted copy with the same parameters."""
        copy: Self = clone(self)
        return copy

    @takes_a_panel
    def expected_returns(self, panel: Panel) -> xr.DataArray:
        """Return expected excess returns, X[t-1] times the premia of the training sample, as (date, ticker)."""
        self._check_fitted()
        return (self.loadings(panel) * self.premia_).sum("factor", skipna=False).rename("expected_returns")

    @takes_a_panel
    def fitted_returns(self, panel: Panel) -> xr.DataArray:
        """Return the systematic part X[t-1] f[t] as (date, ticker), with f as `contributing` gives it."""
        realised = self.factor_returns(panel)
        systematic = self.loadings(panel) * realised.copy(data=contributing(realised.values))
        return systematic.sum("factor", skipna=False).rename("fitted_returns")

    @takes_a_panel
    def residuals(self, panel: Panel) -> xr.DataArray:
        """Specific returns e[t] = r[t] - X[t-1] f[t] as (date, ticker), wherever r and X are known."""
        return (panel.returns - self.fitted_returns(panel)).rename("residuals")

    @takes_a_panel
    def score(self, panel: Panel) -> dict[str, float]:
        """Uncentred total and predictive R2 over the estimation universe, as in Kelly, Pruitt and Su (2019).

        A long panel is looked at block by block.
        """
        self._check_fitted()
        size = rows_at_once(len(panel.tickers), len(self.factors_))
        squares = [
            [
                _squares(block.panel, explain(block.panel), block.own)
                for explain in (self.fitted_returns, self.expected_returns)
            ]
            for block in row_blocks(panel, 0, len(panel.dates), size, self.row_memory)
        ]
        total, predictive = (_r2(*each) for each in np.sum(squares, axis=0))
        return {"total_r2": total, "predictive_r2": predictive}

    def summary(self, panel: Panel | None = None) -> Summary:
        """Return the premia with their errors, and facts about the fit; shown in a notebook as a table.

        Parameters
        ----------
        panel : Panel, optional
            Of which dates, stocks and both R2 are told beside: the one of the fit, or a later one.
        """
        found = self.statistics()
        facts = {"factors": str(len(self.factors_))}
        if "r_squared" in found:
            facts["mean R2 of regressions"] = f"{float(found['r_squared'].mean()):.4f}"
        if panel is not None:
            facts |= panel.facts() | {name: f"{value:.4f}" for name, value in self.score(panel).items()}
        return Summary(str(self), facts, premia_table(found, self.factors_))

    @property
    def plot(self) -> ModelPlot:
        """Pictures of the fitted model: ``plot.premia()``, ``plot.factor_returns(panel)``, ``plot.loadings(panel)``."""
        self._check_fitted()
        return ModelPlot(self)

    def statistics(self) -> dict[str, xr.DataArray]:
        """Return the inference that the model offers: of every name in `STATISTICS` the attribute with an underscore.

        One that is absent or None is not offered. A number, and an array of one number per factor, get their labels
        here; other arrays bring theirs, along ``ticker``, ``penalty``, ``char``, ``observed_factor`` or ``factor``.
        The meaning is the attribute ``long_name`` of each array. No family has a way of its own to offer more, so that
        what is published is what is declared.

        Raises
        ------
        ModelError
            If an attribute is an array without labels, or with others.
        """
        self._check_fitted()
        found = {}
        for name, meaning in declared(type(self)).items():
            value = getattr(self, f"{name}_", None)
            if value is not None:
                found[name] = self._labelled(name, value).assign_attrs(long_name=meaning)
        return found

    def _labelled(self, name: str, value: Any) -> xr.DataArray:
        if isinstance(value, xr.DataArray):
            array = value
        else:
            dims = ("factor",) if np.shape(value) == (len(self.factors_),) else ()
            if np.ndim(value) != len(dims):
                raise ModelError(f"{type(self).__name__}: the statistic '{name}' has no labels for {np.shape(value)}.")
            array = xr.DataArray(np.asarray(value), {dim: [*self.factors_] for dim in dims}, dims)
        if not set(array.dims) <= set(STATISTIC_DIMS):
            raise ModelError(
                f"{type(self).__name__}: the statistic '{name}' has axes {array.dims}, of {STATISTIC_DIMS}."
            )
        return array.rename(name)

    def _check_fitted(self) -> None:
        if not hasattr(self, "factors_"):
            raise NotFittedError(f"{type(self).__name__} is not fitted yet; call fit(panel) first.")


def contributing(factor_returns: FloatArray) -> FloatArray:
    """Factor returns (date, factor) as they enter X f: an unknown one contributes nothing beside others that are known.

    On a date on which nobody in the estimation universe has a characteristic, or is in an industry, the return of that
    factor is unknown (NaN) and the others are not. A date without any stays NaN.
    """
    known = np.isfinite(factor_returns)
    return np.where(known.any(axis=-1, keepdims=True), np.where(known, factor_returns, 0.0), np.nan)


def uncentred_r2(panel: Panel, explained: xr.DataArray) -> float:
    """1 - sum (r - explained)^2 / sum r^2 over the estimation universe where both are known; NaN if that is empty."""
    return _r2(*_squares(panel, explained, slice(None)))


def _squares(panel: Panel, explained: xr.DataArray, rows: slice) -> tuple[float, float]:
    """Sum the squares of what is not explained and of the returns, over the same cells of some rows."""
    returns = panel.returns.values[rows].astype(np.float64)
    error = returns - explained.transpose("date", "ticker").values[rows]
    known = panel.mask.values[rows] & np.isfinite(error)
    return float(np.square(error[known]).sum()), float(np.square(returns[known]).sum())


def _r2(unexplained: float, total: float) -> float:
    return float(1.0 - unexplained / total) if total > 0.0 else float("nan")
