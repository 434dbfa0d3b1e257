"""Factors with nonlinear loadings in the residuals of any model: parameters, fitting, and what is kept.

Here belongs the class that users meet. Training, and what becomes of several networks, is
`models.families.profiled`'s, and whether the factors stay `models.families.residuals`'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import xarray as xr
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen

from models.arrays import Float64Array, FloatArray
from models.families.autoencoder.ensemble import LoadingsNetworks
from models.families.autoencoder.networks import EpochReport, Layers
from models.families.autoencoder.training import DescentOptions
from models.families.base import ModelState, Report
from models.families.profiled import ProfiledFactors, ProfiledRows, learn
from models.families.residual_network.leaving_out import leave_one_out
from models.families.residuals import Fraction, FurtherFactors, ProvenFactors, Trial, parts_of
from models.panel import Panel
from schemas.base import Name
from schemas.errors import ModelError


class ResidualNetwork(ProvenFactors):
    """The factors of another model, and factors of its residuals with loadings that a network makes of characteristics.

    e[t] = g(C[t-1]) f[t] + u[t], where e are the residuals of the other model in the mask and g is a feed-forward
    network (ReLU, batch normalisation). The loss is the variance of u with f[t] = (G'G)^-1 G'e[t], the best factor
    returns given the loadings: variable projection (Golub and Pereyra 1973, The differentiation of pseudo-inverses and
    nonlinear least squares problems whose variables separate, SIAM Journal on Numerical Analysis 10). So loadings are
    all that is learnt, by Adam on minibatches of whole dates. In conditional autoencoders (Gu, Kelly and Xiu 2021) f is
    linear in given portfolios; here it needs none. Every seed trains one network; of their average the nearest model of
    K factors is taken, with loadings of E[X'X / n] = I and uncorrelated factors.

    Dates with residuals are split along time: the first are learnt from, on the next ones training stops, on the last
    ones the factors are tried. There each residual is explained by the factor returns of the other stocks alone, so
    that nothing is explained where there is nothing, and a test of Diebold and Mariano compares the mean squares of
    each date with and without the factors. Above the level ``significance`` they are dropped: the model is the other
    model.

    Loadings are a function of characteristics, so that a new stock has them from its first covered date.

    Parameters
    ----------
    of : str
        Name of the model of the run whose residuals are explained.
    n_factors : int
        Number of further factors.
    hidden : tuple of int
        Widths of the hidden layers of the network.
    learning_rate : float
        Step of Adam, by which the networks are trained.
    max_epochs : int
        Most passes over the dates; the weights of the pass with the lowest loss on the dates for stopping count.
    patience : int
        Passes without a lower loss after which training stops.
    validation_fraction : float
        Share of the dates on which training stops and from which it does not learn.
    test_fraction : float
        Share of the dates, the last ones, on which the further factors are tried.
    significance : float
        Level of the test by which they stay.
    adds : bool, optional
        Whether further factors are in the model, whatever the test says. Default: as it says at the first fit.
    seeds : tuple of int
        One network of the ensemble per seed.

    Attributes
    ----------
    history_ : list of EpochReport
        The training of every seed.

    Examples
    --------
    >>> from models import PCA, ResidualNetwork
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> base = PCA(n_factors=1).fit(panel)
    >>> model = ResidualNetwork("pca", n_factors=1, hidden=(4,), max_epochs=2)
    >>> model.on(base).fit(panel).factors_[0]
    'factor_1'
    """

    kind: ClassVar[str] = "residual_network"
    effort: ClassVar[int] = 100

    def __init__(
        self,
        of: Name,
        n_factors: Annotated[int, Ge(1), Le(20)] = 2,
        hidden: Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1), MaxLen(3)] = (32,),
        learning_rate: Annotated[float, Gt(0.0)] = 1e-2,
        max_epochs: Annotated[int, Ge(1)] = 100,
        patience: Annotated[int, Ge(1)] = 10,
        validation_fraction: Fraction = 0.2,
        test_fraction: Fraction = 0.2,
        significance: Annotated[float, Gt(0.0), Lt(1.0)] = 0.01,
        adds: bool | None = None,
        seeds: Annotated[tuple[int, ...], MinLen(1)] = (0, 1, 2),
    ) -> None:
        self.of = of
        self.n_factors = n_factors
        self.hidden = hidden
        self.learning_rate = learning_rate
        self.max_epochs = max_epochs
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.test_fraction = test_fraction
        self.significance = significance
        self.adds = adds
        self.seeds = seeds

    history_: list[EpochReport]

    def fit(self, panel: Panel, y: None = None) -> Self:  # noqa: ARG002  # scikit-learn passes y
        """Train every seed on the residuals in ``panel.mask``, one after the other, and try what they found.

        Raises
        ------
        ModelError
            If no fitted model was given, the panel has too few dates or no characteristics, the loss is not finite, or
            factors that are asked for whatever the test says have no returns.
        """
        left = self._left(panel)
        rows = self._rows(left)
        return self._combine(left, [self._learnt(rows, seed) for seed in self.seeds])

    def pieces(self) -> tuple[str, ...]:
        """Return the seeds: one network of the ensemble each."""
        return tuple(str(seed) for seed in self.seeds)

    def fit_piece(self, panel: Panel, piece: str, report: Report | None = None) -> ModelState:
        """Train the network of one seed; see the base class. One line is reported for every epoch."""
        return self._learnt(self._rows(self._left(panel)), int(piece), report).state()

    def join(self, panel: Panel, pieces: Sequence[ModelState]) -> Self:
        """Combine the networks of all seeds; see the base class."""
        return self._combine(self._left(panel), [Layers.from_state(piece) for piece in pieces])

    def state(self) -> ModelState:
        """Keep the other model, the outcome of the test, the networks and their history."""
        kept = super().state()
        return ModelState(kept.arrays, kept.meta | {"history": [asdict(report) for report in self.history_]})

    @classmethod
    def from_state(cls, params: dict[str, Any], state: ModelState) -> Self:
        """Rebuild both models."""
        model = super().from_state(params, state)
        model.history_ = [EpochReport(**report) for report in state.meta["history"]]
        return model

    @classmethod
    def _part(cls) -> type[FurtherFactors]:
        return _NetworkFactors

    def _parts(self, left: Panel) -> list[Panel]:
        return parts_of(left, (self.validation_fraction, self.test_fraction))

    def _rows(self, left: Panel) -> ProfiledRows:
        if not left.chars:
            raise ModelError("A network of residuals needs characteristics, and the panel has none: add some.")
        learning, stopping, _ = self._parts(left)
        return ProfiledRows.of(learning, stopping)

    def _learnt(self, rows: ProfiledRows, seed: int, report: Report | None = None) -> Layers:
        options = DescentOptions(
            learning_rate=self.learning_rate, l1=0.0, max_epochs=self.max_epochs, patience=self.patience
        )
        told = None if report is None else lambda epoch: report(str(epoch))
        return learn(rows, self.n_factors, tuple(self.hidden), options, seed, told)

    def _combine(self, left: Panel, members: Sequence[Layers]) -> Self:
        """Become the fitted model of these networks, if what they found adds to the other model."""
        *learning, trying = self._parts(left)
        before = Panel(left.data.sel(date=slice(None, learning[-1].dates[-1])))
        profiled = ProfiledFactors.nearest(members, before)
        found = None if profiled is None else _NetworkFactors.of(profiled)
        self.history_ = [report for member in members for report in member.history]
        return self._decide(Trial.none() if found is None else Trial.of(found, trying), found, left)


class _NetworkFactors(FurtherFactors):
    """Factors of residuals on loadings that networks make of characteristics."""

    _profiled: ProfiledFactors

    @classmethod
    def of(cls, profiled: ProfiledFactors) -> Self:
        """Take trained networks."""
        factors = cls()
        factors._profiled = profiled
        factors._name()
        return factors

    def loadings(self, panel: Panel) -> xr.DataArray:
        """Return g(C[t-1]) as (date, ticker, factor) float32; NaN where not covered."""
        return self._over_tickers(panel, self._profiled.loadings(panel))

    def factor_returns(self, panel: Panel) -> xr.DataArray:
        """Regress residuals on loadings at each date: (date, factor), NaN where stocks are too few or alike."""
        return self._over_dates(panel, self._profiled.factor_returns(panel))

    def losses(self, panel: Panel) -> Float64Array:
        """Mean squares without factors and with them; see the base class."""
        return np.concatenate([leave_one_out(*self._profiled.entering(block)) for block in panel.blocks()])

    def state(self) -> ModelState:
        """Keep the networks and premia."""
        arrays = self._profiled.networks.arrays() | {"premia": self._premia}
        return ModelState(arrays, {"chars": self._profiled.chars})

    @classmethod
    def from_state(cls, params: dict[str, Any], state: ModelState) -> Self:  # noqa: ARG003  # it has no parameters
        """Rebuild the factors."""
        networks = LoadingsNetworks.from_arrays(state.arrays)
        factors = cls.of(ProfiledFactors(networks, list(state.meta["chars"])))
        factors.premia_ = state.arrays["premia"]
        return factors

    @property
    def _n_factors(self) -> int:
        return self._profiled.n_factors

    def _turn(self, rotation: FloatArray) -> None:
        self._profiled = self._profiled.rotated(rotation)
