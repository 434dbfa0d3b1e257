"""Hybrid: the factors of any model, and statistical factors of its residuals.

Here belongs what is a hybrid's own. How the two are put together belongs in `models.families.residuals`, the factor
analysis in `models.families.factor_analysis`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from annotated_types import Ge, Gt, Le, MinLen

from models.families.base import ModelState
from models.families.factor_analysis import FactorAnalysis
from models.families.registry import packed, unpacked
from models.families.residuals import ModelOnResiduals
from models.panel import Panel
from schemas.base import Name


class Hybrid(ModelOnResiduals):
    """The factors of another model, and statistical factors of its residuals: r[t] = X[t-1] f[t] + B[t-1] g[t] + u[t].

    X and f are the other model's. B and g are a `FactorAnalysis` of its residuals e[t] = r[t] - X[t-1] f[t] in the
    mask, so that what moves stocks together and has no name in the other model is no longer taken for specific risk.
    That is a hybrid model as in Miller (2006), Needles, haystacks, and hidden factors, Journal of Portfolio Management,
    with maximum-likelihood factors. Omega, of both sets together, and specific variances are estimated from factor
    returns and residuals, as those of other models are.

    A stock is covered where the other model covers it. One of which the factor analysis says nothing, as it has too few
    residuals, has loadings of zero on its factors, so that no stock is lost.

    The two sets of factors mean different things, so that a refit is never turned as a whole: its statistical
    factors are turned towards those of the refit before among themselves, and those of the other model as they would
    be by themselves, or not at all if they are given (`latent_blocks`).

    Parameters
    ----------
    of : str
        Name of the model of the run whose residuals are explained.
    n_factors : int
        Number of statistical factors. A small universe has fewer: a quarter of its stocks at the first fit.
    volatility_halflife : float
        Returns after which a squared residual counts half in the volatilities of residuals.
    halflives : tuple of float
        Dates after which one counts half in the correlations, of each exponential weighting that is blended.
    shares : tuple of float
        Share of each of them.

    Examples
    --------
    >>> from models import PCA, Hybrid
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> base = PCA(n_factors=1).fit(panel)
    >>> model = Hybrid("pca", n_factors=1).on(base).fit(panel)
    >>> len(model.factors_)
    2
    """

    kind: ClassVar[str] = "hybrid"
    effort: ClassVar[int] = 3

    def __init__(
        self,
        of: Name,
        n_factors: Annotated[int, Ge(1), Le(200)] = 20,
        volatility_halflife: Annotated[float, Gt(1.0), Le(63.0)] = 42.0,
        halflives: Annotated[tuple[Annotated[float, Gt(1.0)], ...], MinLen(1)] = (60.0, 250.0, 1000.0),
        shares: Annotated[tuple[Annotated[float, Gt(0.0)], ...], MinLen(1)] = (0.25, 0.40, 0.35),
    ) -> None:
        self.of = of
        self.n_factors = n_factors
        self.volatility_halflife = volatility_halflife
        self.halflives = halflives
        self.shares = shares

    @property
    def row_memory(self) -> int:
        """The rows before a row whose residuals make its volatilities, and those that the first of them looks at."""
        return self._base.row_memory + FactorAnalysis().row_memory

    def fit(self, panel: Panel, y: None = None) -> Self:  # noqa: ARG002  # scikit-learn passes y
        """Fit the statistical factors to the residuals in ``panel.mask`` of the model that `on` was given.

        Raises
        ------
        ModelError
            If no fitted model was given, or there are too few dates or stocks.
        ConfigError
            If there is not one share for each half-life.
        """
        parameters = self.get_params()
        del parameters["of"]
        self._adopt(self._base, FactorAnalysis(**parameters).fit(self._left(panel)))
        return self

    @property
    def keeps_of_first(self) -> bool:
        """Whether later fits keep the number of statistical factors: a small universe may grow."""
        return True

    def refit(self, first: Self) -> Self:
        """Keep the number of statistical factors of the first fit."""
        later: Self = self.clone().set_params(n_factors=len(first._further.factors_))
        return later

    def state(self) -> ModelState:
        """Keep all of both models."""
        self._check_fitted()
        return packed([self._base, self._further])

    @classmethod
    def from_state(cls, params: dict[str, Any], state: ModelState) -> Self:
        """Rebuild both."""
        model, (base, statistical) = cls(**params), unpacked(state)
        model._adopt(base, statistical)
        return model

    def _left(self, panel: Panel) -> Panel:
        """Return the residuals without characteristics, which a factor analysis does not look at."""
        return Panel(super()._left(panel).data.isel(char=slice(0, 0)))
