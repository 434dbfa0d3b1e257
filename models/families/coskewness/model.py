"""Principal components, and factors of their residuals that variance does not show but skewness does.

Here belongs what makes such factors part of a factor model: residuals, loadings, factor returns and state. How third
moments are searched and tested belongs in `estimation`, what is PCA's in `models.families.pca`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from annotated_types import Ge, Gt, Le, Lt
from scipy.linalg import block_diag

from models.arrays import Float64Array, FloatArray
from models.families.base import ModelState
from models.families.coskewness.estimation import Skewed, skewed_factors
from models.families.pca.completion import positive
from models.families.pca.factor_number import FactorNumber
from models.families.pca.model import PCA, Missing, Scale
from models.families.pca.scores import Expected, factor_scores
from models.panel import Panel
from schemas.errors import ModelError

_LEAST_DATES = 40
_LEAST_STOCKS = 3  # that are left when those of the components are taken off: a triple
_NOTHING_LEFT = 1e-16  # share of the variance, below which residuals are rounding


class CoskewnessPCA(PCA):
    """Principal components, then factors beyond variance: those of the residuals' third moments.

    A factor too weak for the variance, beside noise that neighbours share, may still be seen in the co-skewness
    mean(e_i e_j e_k) of three different stocks, to which neither noise without skewness nor what is skewed in one
    stock alone adds anything. After the components the direction is found in which triples are most skewed, then the
    loadings on it, from third moments again (`models.families.coskewness.estimation`).

    Where there is no skewness it does not look: a direction found in one half of the dates must be skewed in the other,
    at the level ``significance``. Without any the model is `PCA` of as many components, and says so: its p-value is
    ``coskewness_p_value``. Factors are looked for until one is refused.

    Gaps, scale, rules, window, normalisation (X'X / n = I over the scale, of all factors) and factor returns are those
    of `PCA`; a missing residual counts as zero, its expectation. A skewed factor is signed so that its skewness is
    positive in training. Factors are latent all together: a later refit is turned towards the one before as a whole,
    which leaves X f as it is, and `skewness_` says which coordinates are skewed once they are turned.

    Sources: Lu, Huang and Boudt, "Estimation of factors using higher-order multi-cumulants in weak factor models"
    (Journal of Business & Economic Statistics), for factors from the product of the co-skewness matrix and its
    transpose; Jondeau, Jurczenko and Rockinger, "Moment Component Analysis" (same journal, 36), for
    components of co-skewness across stocks. Triples, whitening and the test are choices of this family.

    Parameters that are not named here are those of `PCA`.

    Parameters
    ----------
    n_factors : int or str
        Number of principal components from 1 to 50, or the rule that chooses it at the first fit.
    n_skewed : int, optional
        Number of skewed factors, whatever the test says. Default: those that pass it at the first fit.
    max_skewed : int
        Largest number of skewed factors that are looked for.
    significance : float
        Level of the test of each skewed factor.

    Attributes
    ----------
    skewness_ : numpy.ndarray
        (factor,) of the factor returns in training.
    coskewness_p_value_ : float
        Of the first skewed factor that was looked for, under returns without co-skewness; NaN if none was looked for.
    n_skewed_ : float
        Skewed factors in the model.
    second_, third_ : numpy.ndarray
        (factor, factor) and (factor, factor, factor) central moments of the factor returns in training.

    Examples
    --------
    >>> from models import CoskewnessPCA
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> model = CoskewnessPCA(n_factors=1, n_skewed=0).fit(panel)
    >>> model.factors_
    ['factor_1']
    >>> round(model.score(panel)["total_r2"], 2)
    0.78
    """

    kind: ClassVar[str] = "coskewness_pca"
    STATISTICS: ClassVar[Mapping[str, str]] = {
        "skewness": "skewness of the factor returns in training",
        "coskewness_p_value": "p-value of no co-skewness among residuals, out of sample",
        "n_skewed": "number of factors that third moments gave",
    }

    def __init__(
        self,
        n_factors: FactorNumber = "bai_ng",
        n_skewed: Annotated[int, Ge(0), Le(10)] | None = None,
        max_skewed: Annotated[int, Ge(0), Le(10)] = 3,
        significance: Annotated[float, Gt(0.0), Lt(1.0)] = 0.01,
        max_factors: Annotated[int, Ge(1), Le(50)] = 8,
        scale: Scale = "covariance",
        missing: Missing = "em",
        min_observed: Annotated[float, Gt(0.0), Le(1.0)] = 0.5,
        min_observations: Annotated[int, Ge(3)] = 60,
        max_iter: Annotated[int, Ge(1)] = 500,
        tol: Annotated[float, Gt(0.0)] = 1e-7,
        window: Annotated[int, Ge(24)] | None = None,
    ) -> None:
        super().__init__(n_factors, max_factors, scale, missing, min_observed, min_observations, max_iter, tol, window)
        self.n_skewed = n_skewed
        self.max_skewed = max_skewed
        self.significance = significance

    coskewness_p_value_: float
    n_skewed_: float
    second_: Float64Array
    third_: Float64Array

    def fit(self, panel: Panel, y: None = None) -> Self:  # noqa: ARG002  # scikit-learn passes y
        """Fit to the returns in ``panel.mask``, on the last ``window`` dates that have any.

        Raises
        ------
        ModelError
            As `PCA.fit`, and if dates or stocks do not carry ``n_skewed`` factors beside the components.
        ConfigError
            As `PCA.fit`.
        """
        super().fit(panel)
        factors = self.factor_returns(self._train(panel)).values
        factors = factors[np.isfinite(factors).all(axis=1)]
        factors = factors - factors.mean(axis=0)
        self.second_ = factors.T @ factors / len(factors)
        self.third_ = np.einsum("ta,tb,tc->abc", factors, factors, factors, optimize=True) / len(factors)
        return self

    @property
    def skewness_(self) -> Float64Array:
        """(factor,) of the factor returns in training, or of those that they were turned into."""
        own: Float64Array = np.einsum("aaa->a", self.third_)
        return own / np.diagonal(self.second_) ** 1.5

    @property
    def keeps_of_first(self) -> bool:
        """Whether a rule or a test chooses the number of factors, which stays."""
        return super().keeps_of_first or self.n_skewed is None

    def refit(self, first: Self) -> Self:
        """Keep the numbers of components and of skewed factors of the first fit."""
        if not self.keeps_of_first:
            return self
        n_skewed = int(first.n_skewed_)
        later: Self = self.clone().set_params(n_factors=len(first.factors_) - n_skewed, n_skewed=n_skewed)
        return later

    def state(self) -> ModelState:
        """Keep what PCA keeps, the outcome of the test and moments of the factors."""
        kept = super().state()
        moments = {"second": self.second_, "third": self.third_}
        test = np.array([self.coskewness_p_value_, self.n_skewed_])
        return ModelState(kept.arrays | moments | {"test": test}, kept.meta)

    @classmethod
    def from_state(cls, params: dict[str, Any], state: ModelState) -> Self:
        """Rebuild a fitted model."""
        model = super().from_state(params, state)
        model.second_, model.third_ = state.arrays["second"], state.arrays["third"]
        model.coskewness_p_value_, model.n_skewed_ = map(float, state.arrays["test"])
        return model

    def _with_further(self, returns: FloatArray, divisors: FloatArray, vectors: FloatArray) -> FloatArray:
        """Add the skewed factors to the components."""
        used = self.estimation_
        residuals = self._residuals(returns, divisors, vectors)
        found = self._searched(residuals, vectors.shape[1])
        self.coskewness_p_value_ = float(found.p_values[0]) if len(found.p_values) else float("nan")
        n_skewed = found.loadings.shape[1]
        self.n_skewed_ = float(n_skewed)
        if n_skewed == 0:
            return vectors
        added = np.linalg.qr(np.column_stack([vectors, found.loadings]))[0][:, -n_skewed:]
        factors = residuals @ added
        added = added * np.where((factors**3).mean(axis=0) < 0.0, -1.0, 1.0)
        along = residuals.T @ (residuals @ added) / len(residuals)
        covariance = added.T @ along
        explained = 2.0 * (added * along).sum(axis=1) - (added @ covariance * added).sum(axis=1)
        squared = np.square(divisors[used])
        specific, unit = self.expected_.specific.copy(), float((divisors / self.scale_)[used][0])
        specific[used] = positive(specific[used] / squared - explained, np.square(residuals).mean(axis=0)) * squared
        scaled = covariance * (unit**2 / len(vectors))
        self.expected_ = Expected(self.expected_.mean, specific, block_diag(self.expected_.covariance, scaled))
        self._explained = block_diag(self._explained, covariance)
        return np.column_stack([vectors, added])

    def _residuals(self, returns: FloatArray, divisors: FloatArray, vectors: FloatArray) -> Float64Array:
        """(date, ticker) of the stocks that entered, over their divisors, about zero and zero where missing."""
        used = self.estimation_
        entered, scale = returns[:, used].astype(np.float64), self.scale_[used]
        loadings = vectors * np.sqrt(len(vectors)) * scale[:, None]
        mean, specific = self.expected_.mean[used], self.expected_.specific[used]
        factors = factor_scores(entered, loadings, scale, Expected(mean, specific, self.expected_.covariance))
        left = ((entered - factors @ loadings.T) / divisors[used])[np.isfinite(factors).all(axis=1)]
        known = np.isfinite(left)
        left = np.where(known, left, 0.0)
        centred: Float64Array = np.where(known, left - left.sum(axis=0) / np.maximum(known.sum(axis=0), 1), 0.0)
        return centred

    def _searched(self, residuals: Float64Array, n_components: int) -> Skewed:
        n_dates, n_stocks = residuals.shape
        room = n_stocks - n_components - _LEAST_STOCKS + 1 if n_dates >= _LEAST_DATES else 0
        if np.square(residuals).mean() < _NOTHING_LEFT * self.spectrum_.total / n_stocks:
            room = 0
        if self.n_skewed is not None and self.n_skewed > room:
            raise ModelError(
                f"n_skewed={self.n_skewed} beside {n_components} components needs {_LEAST_DATES} dates and "
                f"{n_components + self.n_skewed + _LEAST_STOCKS - 1} stocks with returns of their own; the panel has "
                f"{n_dates} and {n_stocks}. Lower n_skewed or n_factors, or give more dates."
            )
        if self.n_skewed is not None:
            return skewed_factors(residuals, self.n_skewed, None)
        return skewed_factors(residuals, min(self.max_skewed, max(room, 0)), self.significance)

    def _turn(self, rotation: FloatArray) -> None:
        super()._turn(rotation)
        self.second_ = rotation.T @ self.second_ @ rotation
        self.third_ = np.einsum("abc,ai,bj,ck->ijk", self.third_, rotation, rotation, rotation, optimize=True)
