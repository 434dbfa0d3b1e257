"""The SDF with linear attention as a factor model: parameters, fitting, and what a fitted one answers.

Here belongs the class that users meet. Its estimation has a module of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from annotated_types import Ge, Gt, Le, MinLen

from models.arrays import BoolArray, FloatArray
from models.families.base import ModelState
from models.families.sdf.attention.estimation import AttendedFeatures, Attention, CrossSection, learn_attention
from models.families.sdf.estimation import screened_products
from models.families.sdf.screened import DATES_PER_FOLD, ScreenedSDF
from models.families.sdf.spanned import Sample
from models.panel import Panel
from models.panel.assembly import CONSTANT
from models.statistics.features import Features, Waves
from models.statistics.rowwise import covered_values


class AttentionSDF(ScreenedSDF):
    """Stochastic discount factor in which the price of a characteristic depends on the cross-section, by attention.

    M[t] = 1 - w[t-1]'r[t] with w = phi(C) theta + (X W X' / N) X lambda, X = [1, C]. Source: Kelly, Kuznetsov, Malamud
    and Xu (2025), "Artificial intelligence asset pricing models", the linear transformer. Stocks look at each other
    through X W X' / N, so that w = phi(C) theta + X W S lambda with the second moments S = X'X / N of all covered
    stocks: means, dispersions and correlations of the characteristics say what each of them is worth now. W (x) lambda
    is estimated as one free tensor, together with theta, by ridge in closed form:
    `models.families.sdf.attention.estimation`.

    Two things differ from the paper. S is taken less its mean over the training dates, so that attention is only what
    varies with the cross-section. The plain part phi is a constant, the characteristics, their squares and pairwise
    products, of which each has a scale of its own, as in `RandomFeatureSDF`. How much attention counts beside it, and
    whether it enters at all, is what does best on consecutive blocks of the training dates, held out in turn.

    The first factor, ``sdf``, is the SDF's portfolio, with weights of mean square one. Those that follow are the
    portfolios of ``beside`` less their projection on it, sum_t f f_sdf / sum_t f_sdf^2 times f_sdf: were the SDF exact,
    their premia would be zero. Loadings are a ridge regression on phi(C) and on what attention gives the stock:
    `models.families.sdf.estimation.loadings_of`. Those of a stock depend on which others are covered.

    Parameters
    ----------
    beside : tuple of str
        Factors beside the SDF factor: the portfolio that a characteristic manages, or with ``constant`` the average
        return, whether or not the panel has this characteristic.
    strengths : tuple of float
        Prior variances of what attention adds to the weights that are tried, beside that of the plain weights and
        beside none.
    n_folds : int
        Blocks of consecutive dates on which choices are judged.
    min_stocks : int
        Fewest returns of a date that enters the fit and has factor returns.

    Attributes
    ----------
    relevance_ : xarray.DataArray
        (char,) how much a characteristic counts in the plain part, beside the one that counts most; 0 if it is
        constant.
    strength_ : float
        The one of ``strengths`` that did best; 0 if the plain part did better alone.
    validated_sharpe_ratio_ : float
        Of the SDF factor, per period, on the dates held out; choices are made by it, so that it is somewhat too high.

    Examples
    --------
    >>> from models import AttentionSDF
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> model = AttentionSDF(strengths=(0.0, 1.0)).fit(panel)
    >>> model.factor_returns(panel).dims
    ('date', 'factor')
    """

    kind: ClassVar[str] = "attention_sdf"
    STATISTICS: ClassVar[Mapping[str, str]] = {
        "strength": "prior variance of what attention adds to the weights, beside that of the others, 0 for none",
    }
    effort: ClassVar[int] = 20

    def __init__(
        self,
        beside: tuple[str, ...] = (CONSTANT,),
        strengths: Annotated[tuple[Annotated[float, Gt(0.0)], ...], MinLen(1)] = (0.1, 1.0, 10.0),
        n_folds: Annotated[int, Ge(2), Le(20)] = 3,
        min_stocks: Annotated[int, Ge(2)] = 10,
    ) -> None:
        self.beside = beside
        self.strengths = strengths
        self.n_folds = n_folds
        self.min_stocks = min_stocks

    strength_: float
    _features: AttendedFeatures
    _attention: Attention

    def fit(self, panel: Panel, y: None = None) -> Self:  # noqa: ARG002  # scikit-learn passes y
        """Fit to the returns in ``panel.mask``.

        Raises
        ------
        ModelError
            If no characteristic varies, ``beside`` names one that does not, dates are too few, or all managed
            portfolios are worth nothing.
        """
        sample = self._sample(panel, DATES_PER_FOLD * self.n_folds, "n_folds or min_stocks")
        prior = screened_products(sample.sections, sample.units, self.n_folds)
        section = CrossSection(sample.units, prior.products.linear)
        moments = section.moments_of(panel, sample.chars, self.min_stocks)
        centre = moments.mean(axis=0)
        found = learn_attention(prior, moments - centre, self.strengths)
        attention, size = Attention(section, centre, found.theta).scaled(sample.sections, moments)
        sections = [attention.beside(one, own) for one, own in zip(sample.sections, moments, strict=True)]
        added = [one.returns @ one.rows[:, -1] / len(one.rows) for one in sections]
        kept = prior.kept[-1]
        self._become(
            AttendedFeatures(Features(sample.units, prior.products.at(kept), Waves.none(len(sample.chars)))),
            np.column_stack([prior.managed[:, kept], added]),
            np.append(found.plain, size),
            Sample(sections, sample.units, sample.chars),
            self.n_folds,
        )
        self._attention = attention
        self._judge(panel.chars, prior.counts[-1], found.value)
        self.strength_ = found.strength
        return self

    def state(self) -> ModelState:
        """Keep the products, attention, the weights of the factors and the slopes of the loadings."""
        own = self._screened_state()
        arrays = {"attention_centre": self._attention.centre, "attention_theta": self._attention.theta}
        return ModelState(
            self._features.products.arrays() | arrays | own.arrays, own.meta | {"strength": self.strength_}
        )

    @classmethod
    def from_state(cls, params: dict[str, Any], state: ModelState) -> Self:
        """Rebuild a fitted model."""
        model = cls(**params)
        products = Features.from_arrays(state.arrays)
        model._restore(AttendedFeatures(products), state)
        section = CrossSection(products.units, products.products.linear)
        model._attention = Attention(section, state.arrays["attention_centre"], state.arrays["attention_theta"])
        model.strength_ = state.meta["strength"]
        return model

    def _known(self, panel: Panel) -> Iterator[tuple[FloatArray, BoolArray]]:
        for values, covered in super()._known(panel):
            added = covered_values(values, covered, self._attention, 1)
            yield np.concatenate([values, added], axis=2), covered
