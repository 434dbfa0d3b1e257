"""The mean of several models that state their own covariance.

Here belongs how they are averaged. How a model comes to its Omega and specific variance belongs in that model's module.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import xarray as xr
from annotated_types import MinLen

from models.arrays import Float64Array, FloatArray
from models.families.base import FactorModel, ModelState
from models.families.registry import packed, unpacked
from models.panel import Panel
from schemas.base import Name
from schemas.errors import ConfigError, ModelError


class MeanOfModels(FactorModel):
    """The mean of the covariances of m models: sum_i (X_i Omega_i X_i' + D_i) / m, as one factor model.

    Each model errs in its own way, so that the mean of several errs less (Bates and Granger 1969, The combination of
    forecasts, Operational Research Quarterly 20). In factor form: loadings X_i / sqrt(m) side by side, Omega block
    diagonal, and the mean of the specific variances. Factor returns are f_i / sqrt(m), so that X f is the mean of what
    the models explain; Omega is the models' own, and not the covariance of these factor returns.

    Only models that state their own Omega and specific variance can be averaged (`FactorModel.own_omega`), such as
    factor analyses with different parameters, or another mean. A stock is covered where all of them cover it, and a
    date has factor returns where all have them. The factors of one model are turned from refit to refit among
    themselves, and never with those of another (`latent_blocks`): a factor stays that of its model, by whose name it
    is called.

    Parameters
    ----------
    of : tuple of str
        Names of two or more models of the run, each named once.

    Examples
    --------
    >>> from models import FactorAnalysis, MeanOfModels
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> members = [FactorAnalysis(n_factors=k).fit(panel) for k in (1, 2)]
    >>> model = MeanOfModels(("one", "two")).on(*members).fit(panel)
    >>> model.own_omega().shape
    (3, 3)
    """

    kind: ClassVar[str] = "mean_of_models"
    latent: ClassVar[bool] = True

    def __init__(self, of: Annotated[tuple[Name, ...], MinLen(2)]) -> None:
        self.of = of

    @property
    def bases(self) -> tuple[str, ...]:
        """The models whose mean it is."""
        return tuple(self.of)

    def on(self, *fitted: FactorModel) -> Self:
        """Return this model, to be fitted on the models whose mean it is.

        Raises
        ------
        ModelError
            If there are more or fewer than `of` names, or one states no Omega and specific variance of its own.
        ConfigError
            If `of` names fewer than two, or one twice.
        """
        if len(self.of) < 2 or len(set(self.of)) < len(self.of):
            raise ConfigError(f"A mean of models needs two or more, each named once, not {[*self.of]}.")
        super().on(*fitted)
        for name, model in zip(self.of, fitted, strict=True):
            if model.own_omega() is None:
                raise ModelError(
                    f"'{name}' ({type(model).__name__}) states no Omega and specific variance of its own, so that it "
                    "cannot be averaged: name models that do, such as FactorAnalysis."
                )
        return self

    @property
    def row_memory(self) -> int:
        """That of the model which looks back furthest."""
        return max(model.row_memory for model in self._on())

    @property
    def latent_blocks(self) -> tuple[slice, ...]:
        """Those of each model."""
        return tuple(
            slice(place.start + block.start, place.start + block.stop)
            for place, model in zip(self._places(), self._on(), strict=True)
            for block in model.latent_blocks
        )

    def fit(self, panel: Panel, y: None = None) -> Self:  # noqa: ARG002  # of the protocol
        """Take the models that `on` was given as they are: a mean has nothing to learn."""
        return self._adopt()

    def loadings(self, panel: Panel) -> xr.DataArray:
        """Those of all models, each over sqrt(m), as (date, ticker, factor); NaN where one does not cover a stock."""
        self._check_fitted()
        values = self._shares([model.loadings(panel).transpose("date", "ticker", "factor") for model in self._on()])
        coords = {"date": panel.dates, "ticker": panel.tickers, "factor": self.factors_}
        return xr.DataArray(values, coords, ("date", "ticker", "factor"), name="loadings")

    def factor_returns(self, panel: Panel) -> xr.DataArray:
        """Those of all models, each over sqrt(m), as (date, factor); NaN where one model has none."""
        self._check_fitted()
        values = self._shares([model.factor_returns(panel).transpose("date", "factor") for model in self._on()])
        coords = {"date": panel.dates, "factor": self.factors_}
        return xr.DataArray(values, coords, ("date", "factor"), name="factor_returns")

    def own_omega(self) -> Float64Array:
        """Omega of every model along the diagonal, (factor, factor)."""
        self._check_fitted()
        omega = np.zeros((len(self.factors_), len(self.factors_)))
        for at, model in zip(self._places(), self._on(), strict=True):
            omega[at, at] = np.asarray(model.own_omega(), dtype=np.float64)
        return omega

    def own_specific_variance(self, panel: Panel) -> Float64Array:
        """Give the mean of the specific variances as (date, ticker); NaN where one model does not know it."""
        self._check_fitted()
        each = [np.asarray(model.own_specific_variance(panel), dtype=np.float64) for model in self._on()]
        mean: Float64Array = np.mean(each, axis=0)
        return mean

    def state(self) -> ModelState:
        """Keep all of every model."""
        self._check_fitted()
        return packed(self._on())

    @classmethod
    def from_state(cls, params: dict[str, Any], state: ModelState) -> Self:
        """Rebuild every model."""
        return cls(**params).on(*unpacked(state))._adopt()  # noqa: SLF001  # of the same class

    def _turn(self, rotation: FloatArray) -> None:
        pairs = zip(self._places(), self._on(), strict=True)
        self._bases = tuple(model.rotate(rotation[at, at]) if model.latent else model for at, model in pairs)
        self._adopt()

    def _adopt(self) -> Self:
        """Name the factors and give their premia, from the models."""
        models = self._on()
        named = zip(self.of, models, strict=True)
        self.factors_ = [f"{name}:{factor}" for name, model in named for factor in model.factors_]
        self.premia_ = self._share * np.concatenate([model.premia_.values for model in models])
        return self

    def _shares(self, each: Sequence[xr.DataArray]) -> Float64Array:
        """Put arrays (..., factor) of the models side by side, each over sqrt(m); NaN where one of them has none."""
        values: Float64Array = self._share * np.concatenate([one.values.astype(np.float64) for one in each], axis=-1)
        values[np.isnan(values).any(axis=-1)] = np.nan
        return values

    @property
    def _share(self) -> float:
        return float(1.0 / np.sqrt(len(self.of)))

    def _places(self) -> list[slice]:
        """Return which of the factors are those of each model."""
        ends = np.cumsum([0, *(len(model.factors_) for model in self._on())]).tolist()
        return [slice(begin, end) for begin, end in pairwise(ends)]
