"""Regressed principal components: parameters, fitting, and what is kept.

Here belongs the class that users meet. The functions belong in `models.statistics.features`, what a fitted model
answers in `models.families.functions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from annotated_types import Ge, Le

from models.arrays import Float64Array
from models.families.base import ModelState
from models.families.functions import ModelOfFunctions
from models.panel import Panel
from models.statistics.features import Polynomials, Units, gram_of_features, sections_of
from models.statistics.gram import solve_gram
from schemas.errors import ModelError

_RELEVANT = 1e-10


class RegressedPCA(ModelOfFunctions):
    """Principal components of the slopes of cross-sectional regressions on functions of characteristics.

    r[t] = phi(C[t-1]) Gamma f[t] + e[t], with a sieve phi of additive functions: a constant and Legendre polynomials of
    each characteristic. The returns of each date are regressed on phi, and Gamma are the largest principal components
    of the slopes over the dates: two closed-form steps, without iteration and without a start (Chen, Roussanov and Wang
    2023, Semiparametric conditional factor models: estimation and inference, sections 2 and 3, with pricing errors of
    zero). The functions are made orthonormal over the sample first, in which the noise of slopes is alike.

    IPCA minimises the residuals of all rows and weighs dates by their factor returns; here each date counts as its
    slopes are large, and all K functions of each date must be told apart: it needs more stocks a date, and suits wide
    cross-sections with many dates.

    Factor returns are cross-sectional regressions on the loadings. Normalisation: E[X'X / n] = I over the sample,
    F'F / T diagonal and descending, the mean of every factor positive.

    Parameters
    ----------
    n_factors : int
        Number of latent factors K.
    degree : int
        Of the polynomials of each characteristic; 1 for linear loadings.
    min_stocks : int
        Fewest returns of a date that enters the fit and has factor returns. A date whose functions are collinear does
        not enter the fit.

    Attributes
    ----------
    explained_ : float
        Share of the sum of squared slopes that the factors explain, noise included.
    n_dates_ : float
        Dates that entered the fit.

    Examples
    --------
    >>> from models import RegressedPCA
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> model = RegressedPCA(n_factors=2, degree=1).fit(panel)
    >>> model.loadings(panel).dims
    ('date', 'ticker', 'factor')
    """

    kind: ClassVar[str] = "regressed_pca"
    STATISTICS: ClassVar[Mapping[str, str]] = {
        "explained": "share of the squared slopes on functions of characteristics that the factors explain",
        "n_dates": "number of dates that entered the fit",
    }
    effort: ClassVar[int] = 3

    def __init__(
        self,
        n_factors: Annotated[int, Ge(1), Le(50)] = 5,
        degree: Annotated[int, Ge(1), Le(8)] = 2,
        min_stocks: Annotated[int, Ge(2)] = 10,
    ) -> None:
        self.n_factors = n_factors
        self.degree = degree
        self.min_stocks = min_stocks

    explained_: float
    n_dates_: float
    _features: Polynomials

    def fit(self, panel: Panel, y: None = None) -> Self:  # noqa: ARG002  # scikit-learn passes y
        """Fit to the returns in ``panel.mask``.

        Raises
        ------
        ModelError
            If no characteristic varies, the functions are fewer than the factors, or dates on which they can be told
            apart are.
        """
        sections = sections_of(panel, panel.chars, self.min_stocks)
        varying = Units.of(sections).varying if sections else np.zeros(0, dtype=np.int64)
        if not len(varying):
            raise ModelError(
                f"RegressedPCA needs dates with min_stocks={self.min_stocks} returns and a characteristic that varies; "
                f"the panel has {len(sections)} such dates, and {panel.chars}."
            )
        sections = [section.of(varying) for section in sections]
        features = Polynomials.of(sections, self.degree)
        if self.n_factors > features.size:
            raise ModelError(
                f"n_factors={self.n_factors}, but {len(varying)} characteristics to the degree {self.degree} and a "
                f"constant are {features.size} functions; lower n_factors, or raise degree."
            )
        inside = panel.mask.values.sum(axis=1) >= self.min_stocks
        gram = gram_of_features(features, sections, panel.dates[inside])
        slopes, rank = solve_gram(gram.zz, gram.zr[..., None])
        known = rank == features.size
        if known.sum() <= self.n_factors:
            raise ModelError(
                f"On {int(known.sum())} of {len(sections)} dates {features.size} functions of characteristics can be "
                f"told apart, too few for {self.n_factors} factors: lower degree, or give more stocks a date or fewer "
                "characteristics."
            )
        root = np.linalg.cholesky((gram.zz / gram.n[:, None, None])[known].mean(axis=0))
        whitened = slopes[known, :, 0] @ root
        values, vectors = np.linalg.eigh(whitened.T @ whitened / len(whitened))
        leading = vectors[:, ::-1][:, : self.n_factors]
        if not values[-self.n_factors] > _RELEVANT * values[-1]:
            raise ModelError(f"The returns do not carry n_factors={self.n_factors} factors: lower it.")
        self.explained_ = float(values[-self.n_factors :].sum() / values.sum())
        self.n_dates_ = float(known.sum())
        self._become(features, np.linalg.solve(root.T, leading), [panel.chars[place] for place in varying])
        premia = np.nanmean(self.factor_returns(panel).values, axis=0)
        sign = np.where(premia < 0.0, -1.0, 1.0)
        self._gamma = self._gamma * sign
        self.premia_ = premia * sign
        return self

    def state(self) -> ModelState:
        """Keep the ends of the polynomials, Gamma and premia."""
        self._check_fitted()
        ends = {"low": self._features.low, "high": self._features.high}
        meta = {"chars": self.chars_, "explained": self.explained_, "n_dates": self.n_dates_}
        return ModelState(ends | {"gamma": self._gamma, "premia": self._premia}, meta)

    @classmethod
    def from_state(cls, params: dict[str, Any], state: ModelState) -> Self:
        """Rebuild a fitted model."""
        model = cls(**params)
        features = Polynomials(state.arrays["low"], state.arrays["high"], model.degree)
        model._become(features, state.arrays["gamma"], list(state.meta["chars"]))
        model.premia_ = state.arrays["premia"]
        model.explained_, model.n_dates_ = state.meta["explained"], state.meta["n_dates"]
        return model

    def _become(self, features: Polynomials, gamma: Float64Array, chars: list[str]) -> None:
        self._features, self._gamma, self.chars_ = features, gamma, chars
        self.factors_ = [f"factor_{k + 1}" for k in range(self.n_factors)]
