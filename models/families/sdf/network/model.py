"""The SDF network as a factor model: parameters, fitting, and what a fitted one answers.

Here belongs the class that users meet. Networks, losses and training have modules of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen

from models.families.base import ModelState, Report
from models.families.sdf.estimation import second_moments
from models.families.sdf.network.data import TrainingData
from models.families.sdf.network.networks import Hidden, Member
from models.families.sdf.network.training import TrainingOptions, train
from models.families.sdf.pricing import sharpe_ratio
from models.families.sdf.spanned import FeatureSDF, Sample
from models.panel import Panel
from models.panel.assembly import CONSTANT
from schemas.errors import ModelError

_FEWEST_DATES = 24
_FOLDS = 3


class SDFNetwork(FeatureSDF):
    """Stochastic discount factor whose weights are a network of the characteristics, trained against an adversary.

    M[t] = 1 - w(C[t-1])'r[t]. Source: Chen, Pelger and Zhu (2024), "Deep learning in asset pricing", Management Science
    70. A feed-forward network w makes the pricing errors E[M r g(C)] of all stocks small, an adversary looks for the
    conditions g under which they are large, and w makes these small: `models.families.sdf.network.training`. The last
    dates are held out, and decide when to stop. Every seed trains one network; the SDF's weights are the average of
    theirs, each of mean square one over the stocks and dates of the panel. The macroeconomic states of the paper, for
    which a panel has no place, are left out.

    The first factor, ``sdf``, is the SDF's portfolio, with weights of mean square one. Those that follow are the
    portfolios of ``beside`` less their projection on it, sum_t f f_sdf / sum_t f_sdf^2 times f_sdf: were the SDF exact,
    their premia would be zero. They describe risk that has no price. Loadings E[f r | C] / E[f^2], for which the paper
    trains another network, are a ridge regression on the last hidden layers of the networks and the characteristics:
    `models.families.sdf.estimation.loadings_of`.

    Returns and characteristics are divided by their scale for training, so that no parameter has a unit.

    Parameters
    ----------
    beside : tuple of str
        Factors beside the SDF factor: the portfolio that a characteristic manages, or with ``constant`` the average
        return, whether or not the panel has this characteristic.
    hidden : tuple of int
        Widths of the hidden layers of the SDF network.
    n_moments : int
        Number of conditions g of the adversary.
    learning_rate : float
        Step of Adam, by which the networks are trained.
    max_epochs : int
        Most steps of the SDF network without conditions, and again with them.
    adversary_epochs : int
        Steps of the adversary.
    patience : int
        Steps without a lower loss on the dates held out after which training stops.
    validation_fraction : float
        Share of the dates of the panel, the last ones, on which training stops and from which it does not learn.
    min_stocks : int
        Fewest returns of a date that enters the fit and has factor returns.
    seeds : tuple of int
        One network of the ensemble per seed.

    Attributes
    ----------
    validated_sharpe_ratio_ : float
        Of the SDF factor, per period, on the dates held out; training stops by their pricing errors, so that it is
        somewhat too high.

    Examples
    --------
    >>> from models import SDFNetwork
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> model = SDFNetwork(hidden=(4,), n_moments=2, max_epochs=2, adversary_epochs=2, seeds=(0,)).fit(panel)
    >>> model.factor_returns(panel).dims
    ('date', 'factor')
    """

    kind: ClassVar[str] = "sdf_network"
    STATISTICS: ClassVar[Mapping[str, str]] = {
        "validated_sharpe_ratio": "Sharpe ratio of the SDF factor per period, on the last training dates, held out",
    }
    effort: ClassVar[int] = 100

    def __init__(
        self,
        beside: tuple[str, ...] = (CONSTANT,),
        hidden: Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1), MaxLen(4)] = (32,),
        n_moments: Annotated[int, Ge(1), Le(64)] = 8,
        learning_rate: Annotated[float, Gt(0.0)] = 0.01,
        max_epochs: Annotated[int, Ge(1)] = 200,
        adversary_epochs: Annotated[int, Ge(1)] = 20,
        patience: Annotated[int, Ge(1)] = 15,
        validation_fraction: Annotated[float, Gt(0.0), Lt(0.7)] = 0.2,
        min_stocks: Annotated[int, Ge(2)] = 10,
        seeds: Annotated[tuple[int, ...], MinLen(1)] = (0, 1, 2),
    ) -> None:
        self.beside = beside
        self.hidden = hidden
        self.n_moments = n_moments
        self.learning_rate = learning_rate
        self.max_epochs = max_epochs
        self.adversary_epochs = adversary_epochs
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.min_stocks = min_stocks
        self.seeds = seeds

    validated_sharpe_ratio_: float
    _features: Hidden

    def fit(self, panel: Panel, y: None = None) -> Self:  # noqa: ARG002  # scikit-learn passes y
        """Train every seed on the returns in ``panel.mask``, one after the other, and combine them.

        Raises
        ------
        ModelError
            If no characteristic varies, ``beside`` names one that does not, dates are too few, returns are all zero, a
            loss is not finite, or every network gives zero.
        """
        sample = self._sampled(panel)
        data = self._training_data(sample)
        return self._combine(sample, data, [train(data, self._options(), seed) for seed in self.seeds])

    def pieces(self) -> tuple[str, ...]:
        """Return the seeds: one network of the ensemble each."""
        return tuple(str(seed) for seed in self.seeds)

    def fit_piece(self, panel: Panel, piece: str, report: Report | None = None) -> ModelState:
        """Train the networks of one seed; see the base class. One line is reported for every epoch."""
        return train(self._training_data(self._sampled(panel)), self._options(), int(piece), report).state()

    def join(self, panel: Panel, pieces: Sequence[ModelState]) -> Self:
        """Combine the networks of all seeds; see the base class."""
        sample = self._sampled(panel)
        return self._combine(sample, self._training_data(sample), [Member.from_state(piece) for piece in pieces])

    def state(self) -> ModelState:
        """Keep the hidden layers, the weights of the factors and the slopes of the loadings."""
        self._check_fitted()
        arrays = self._features.arrays() | self._linear_arrays()
        return ModelState(arrays, {"chars": self.chars_, "validated_sharpe_ratio": self.validated_sharpe_ratio_})

    @classmethod
    def from_state(cls, params: dict[str, Any], state: ModelState) -> Self:
        """Rebuild a fitted model."""
        model = cls(**params)
        model._restore(Hidden.from_arrays(state.arrays), state)
        model.validated_sharpe_ratio_ = state.meta["validated_sharpe_ratio"]
        return model

    def _combine(self, sample: Sample, data: TrainingData, members: Sequence[Member]) -> Self:
        """Become the model of the average of the members' weights, each of mean square one."""
        features = Hidden.of(sample.units, members)
        thetas = features.thetas(members)
        squares = ((thetas @ second_moments(features, sample.sections)) * thetas).sum(axis=1)
        if not squares.min() > 0.0:
            lost = [seed for seed, square in zip(self.seeds, squares, strict=True) if not square > 0.0]
            raise ModelError(f"The networks of the seeds {lost} give zero: lower learning_rate, or take other seeds.")
        theta = (thetas / np.sqrt(squares)[:, None]).mean(axis=0)
        portfolios = features.portfolios(sample.sections)
        self._become(features, portfolios, theta, sample, _FOLDS)
        held = portfolios[-len(data.held.counts) :] @ self._theta
        self.validated_sharpe_ratio_ = sharpe_ratio(held[:, 0])
        return self

    def _sampled(self, panel: Panel) -> Sample:
        return self._sample(panel, _FEWEST_DATES, "min_stocks")

    def _training_data(self, sample: Sample) -> TrainingData:
        return TrainingData.of(sample.sections, sample.units, self.validation_fraction)

    def _options(self) -> TrainingOptions:
        return TrainingOptions(
            hidden=tuple(self.hidden),
            n_moments=self.n_moments,
            learning_rate=self.learning_rate,
            max_epochs=self.max_epochs,
            adversary_epochs=self.adversary_epochs,
            patience=self.patience,
        )
