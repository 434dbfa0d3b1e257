"""The SDF of random features as a factor model: parameters, fitting, and what a fitted one answers.

Here belongs the class that users meet. Features and estimation have modules of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from annotated_types import Ge, Gt, Le, MinLen

from models.families.base import ModelState
from models.families.sdf.estimation import learn
from models.families.sdf.screened import DATES_PER_FOLD, ScreenedSDF
from models.panel import Panel
from models.panel.assembly import CONSTANT
from models.statistics.features import Features


class RandomFeatureSDF(ScreenedSDF):
    """Stochastic discount factor whose weights are a ridge regression on random features of the characteristics.

    M[t] = 1 - w(C[t-1])'r[t] with w = theta'phi(C) and theta = (E[FF'] + z)^-1 E[F], where F[t] = sum_i phi(C_i[t-1])
    r_i[t] / N are the portfolios that the features manage (Didisheim, Ke, Kelly and Malamud 2024, "Complexity in factor
    pricing models"; Kozak, Nagel and Santosh 2020, "Shrinking the cross-section"). Features are a constant, the
    characteristics, their squares and pairwise products, and random Fourier features. A first ridge on the products
    finds how much each characteristic counts; random features look at each in this measure, so that irrelevant
    characteristics do not drown them. Ridges, the bandwidth, and whether random features enter at all are those that do
    best on consecutive blocks of the training dates, held out in turn.

    The first factor, ``sdf``, is the SDF's portfolio, with weights of mean square one. Those that follow are the
    portfolios of ``beside`` less their projection on it, sum_t f f_sdf / sum_t f_sdf^2 times f_sdf: were the SDF exact,
    their premia would be zero. They describe risk that has no price. Loadings are functions of the same features:
    `models.families.sdf.estimation.loadings_of`.

    What neither a characteristic, a square nor a product shows, such as a product of three, the first ridge cannot
    find; then random features look at all characteristics alike.

    Parameters
    ----------
    beside : tuple of str
        Factors beside the SDF factor: the portfolio that a characteristic manages, or with ``constant`` the average
        return, whether or not the panel has this characteristic.
    n_waves : int
        Number of random Fourier features; 0 for products alone.
    bandwidths : tuple of float
        Frequencies that are tried, as standard deviations of the projections of the most relevant characteristic, per
        standard deviation of it.
    n_folds : int
        Blocks of consecutive dates on which choices are judged.
    min_stocks : int
        Fewest returns of a date that enters the fit and has factor returns.
    seed : int
        Of the random features.

    Attributes
    ----------
    relevance_ : xarray.DataArray
        (char,) how much a characteristic counts, beside the one that counts most; 0 if it is constant.
    bandwidth_ : float
        The frequency that did best; 0 if products did better alone.
    validated_sharpe_ratio_ : float
        Of the SDF factor, per period, on the dates held out; choices are made by it, so that it is somewhat too high.

    Examples
    --------
    >>> from models import RandomFeatureSDF
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> model = RandomFeatureSDF(n_waves=8, bandwidths=(1.0,)).fit(panel)
    >>> model.factor_returns(panel).dims
    ('date', 'factor')
    """

    kind: ClassVar[str] = "random_feature_sdf"
    STATISTICS: ClassVar[Mapping[str, str]] = {
        "bandwidth": "frequency of the random features, 0 for none",
    }
    effort: ClassVar[int] = 20

    def __init__(
        self,
        beside: tuple[str, ...] = (CONSTANT,),
        n_waves: Annotated[int, Ge(0), Le(5000)] = 200,
        bandwidths: Annotated[tuple[Annotated[float, Gt(0.0)], ...], MinLen(1)] = (0.5, 1.0, 2.0),
        n_folds: Annotated[int, Ge(2), Le(20)] = 3,
        min_stocks: Annotated[int, Ge(2)] = 10,
        seed: Annotated[int, Ge(0)] = 0,
    ) -> None:
        self.beside = beside
        self.n_waves = n_waves
        self.bandwidths = bandwidths
        self.n_folds = n_folds
        self.min_stocks = min_stocks
        self.seed = seed

    bandwidth_: float
    _features: Features

    def fit(self, panel: Panel, y: None = None) -> Self:  # noqa: ARG002  # scikit-learn passes y
        """Fit to the returns in ``panel.mask``.

        Raises
        ------
        ModelError
            If no characteristic varies, ``beside`` names one that does not, dates are too few, or all managed
            portfolios are worth nothing.
        """
        sample = self._sample(panel, DATES_PER_FOLD * self.n_folds, "n_folds or min_stocks")
        found = learn(
            sample.sections,
            sample.units,
            n_waves=self.n_waves,
            bandwidths=self.bandwidths,
            n_folds=self.n_folds,
            seed=self.seed,
        )
        self._become(found.features, found.portfolios, found.theta, sample, self.n_folds)
        self._judge(panel.chars, found.relevance, found.value)
        self.bandwidth_ = found.bandwidth
        return self

    def state(self) -> ModelState:
        """Keep the features, the weights of the factors and the slopes of the loadings."""
        own = self._screened_state()
        return ModelState(self._features.arrays() | own.arrays, own.meta | {"bandwidth": self.bandwidth_})

    @classmethod
    def from_state(cls, params: dict[str, Any], state: ModelState) -> Self:
        """Rebuild a fitted model."""
        model = cls(**params)
        model._restore(Features.from_arrays(state.arrays), state)
        model.bandwidth_ = state.meta["bandwidth"]
        return model
