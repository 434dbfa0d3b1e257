"""Instrumented principal components: latent factors whose loadings are linear in characteristics.

Here belongs Kelly, Pruitt and Su (2019) as a factor model: what is estimated, how it is normalised, and what a fitted
model says of a panel. The steps belong in `steps` and `rows`, their iteration in `iteration`, tests in `bootstrap`,
refits through time in `walk_forward`. Kernels and networks of characteristics belong elsewhere.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import xarray as xr
from annotated_types import Ge, Gt, Le
from sklearn.exceptions import ConvergenceWarning

from models.arrays import FloatArray, under
from models.families.base import ModelState
from models.families.ipca.bootstrap import BootstrapTest, characteristic_test, given_test
from models.families.ipca.checks import check_capacity, check_collinearity, check_given
from models.families.ipca.estimation import given_series, normalise, solve
from models.families.ipca.iteration import Steps
from models.families.ipca.rows import RowSteps, row_triangles
from models.families.ipca.steps import Moments, initial_coefficients
from models.families.linear import GramModel, gram_r2
from models.panel import Panel
from models.statistics.gram import INTERCEPT, Design, GramStatistics, gram_of, select_characteristics
from models.statistics.rowwise import covered_product
from schemas.errors import ModelError

_CERTIFICATE = (
    "converged", "n_iter", "last_change", "first_order_residual", "n_rejected", "n_dropped", "objectives",
)  # fmt: skip


class IPCA(GramModel):
    """Instrumented principal components (Kelly, Pruitt and Su 2019): loadings that are linear in characteristics.

    r[t] = Z[t-1] (Gamma_alpha + Gamma_beta f[t] + Gamma_delta g[t]) + e[t], by alternating least squares. Latent
    factors f, observed factors g if ``observed`` names some, and Gamma_alpha if there is an ``intercept``. Source:
    Kelly, Pruitt and Su (2019), eq. 6 (factors given Gamma) and 7 (Gamma given factors); observed factors and intercept
    enter as factors whose returns are given. Normalisation: Gamma_beta'Gamma_beta = I, F'F / T diagonal and descending,
    the mean of every latent factor positive, Gamma_alpha and Gamma_delta orthogonal to Gamma_beta.

    In the terms of r = X f + e the factors are the latent ones and then the observed ones, with loadings
    Z [Gamma_beta, Gamma_delta]: X Omega X' is the whole of systematic risk. Z Gamma_alpha is no risk: it is part of
    `expected_returns` and of `fitted_returns`, hence of both R2, and not of the loadings; `alpha` gives it alone.

    Where the iterations begin says `models.families.ipca.steps.initial_coefficients`; when they have settled,
    `models.families.ipca.iteration.step_size`, which depends neither on the units of returns nor on signs or order of
    the factors.

    Parameters
    ----------
    n_factors : int
        Number of latent factors K, at most the number of characteristics; 0 beside observed ones only.
    intercept : bool
        Estimate Gamma_alpha: expected return that no factor earns.
    observed : tuple of str
        Pre-specified factors, by name among the observed ones. Dates on which one is missing do not enter.
    mode : str
        "portfolio" works on Gram statistics alone. "panel" works on the rows, reduced to triangles by QR: the same
        estimate with twice the digits where characteristics are nearly collinear, at more time and memory.
    n_starts : int
        Starts of the iterations, all but the first random; the one that explains most is kept.
    memory : int
        Steps that Anderson acceleration looks back on; 0 iterates plainly.
    bootstrap : int
        Draws of the wild bootstrap with which a fit tests Gamma_alpha, each observed factor and each characteristic;
        0 for no tests.
    max_iter : int
        Limit of the iterations of each start.
    tol : float
        Turn of the space spanned by Gamma_beta in a plain step, as the sine of the largest angle, at which the estimate
        has settled; the rest must move by less in units of the systematic part.

    Attributes
    ----------
    gamma_ : xarray.DataArray
        (char, factor) [Gamma_beta, Gamma_delta].
    gamma_alpha_ : xarray.DataArray or None
        (char,) in units of returns; None without an intercept.
    converged_, n_iter_, last_change_ : bool, int, float
        The certificate: whether the last plain step was at most ``tol``, after how many iterations, and how large
        it was.
    first_order_residual_ : float
        Relative norm of the gradient at the estimate: `models.families.ipca.steps.Moments.first_order_residual`.
    n_rejected_ : int
        Extrapolations that were worse than the iterate before them, and were replaced by plain steps.
    objectives_ : list of float
        Share of the sum of squared returns that each start came to explain; their spread shows local optima.
    n_dropped_ : int
        Dates with stocks whose Gamma'Z'Z Gamma is singular, on which an observed factor is missing, or on which a
        characteristic is zero for everybody: they enter neither Gamma nor the premia.
    p_values_ : dict[str, numpy.ndarray]
        If ``bootstrap``: "characteristics" (char,), "alpha" (1,) with an intercept, "observed" (observed factor,).

    Examples
    --------
    >>> from models import IPCA
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> model = IPCA(n_factors=2).fit(panel)
    >>> dict(model.loadings(panel).sizes)
    {'date': 120, 'ticker': 24, 'factor': 2}
    >>> round(model.score(panel)["total_r2"], 2)
    0.8
    """

    kind: ClassVar[str] = "ipca"
    STATISTICS: ClassVar[Mapping[str, str]] = {
        "gamma": "weight of the characteristic in the loading on the factor",
        "gamma_alpha": "weight of the characteristic in the intercept, per period",
        "characteristic_p_value": "bootstrap p-value of no role of the characteristic in the loadings",
        "observed_p_value": "bootstrap p-value of no role of the observed factor",
        "alpha_p_value": "bootstrap p-value of no intercept",
    }
    latent: ClassVar[bool] = True

    def __init__(
        self,
        n_factors: Annotated[int, Ge(0), Le(50)] = 5,
        intercept: bool = False,
        observed: tuple[str, ...] = (),
        mode: Literal["portfolio", "panel"] = "portfolio",
        n_starts: Annotated[int, Ge(1)] = 1,
        memory: Annotated[int, Ge(0)] = 10,
        bootstrap: Annotated[int, Ge(0)] = 0,
        max_iter: Annotated[int, Ge(1)] = 1000,
        tol: Annotated[float, Gt(0.0)] = 1e-6,
    ) -> None:
        self.n_factors = n_factors
        self.intercept = intercept
        self.observed = observed
        self.mode = mode
        self.n_starts = n_starts
        self.memory = memory
        self.bootstrap = bootstrap
        self.max_iter = max_iter
        self.tol = tol

    gamma_: xr.DataArray
    _alpha: FloatArray
    converged_: bool
    n_iter_: int
    last_change_: float
    first_order_residual_: float
    n_rejected_: int
    objectives_: list[float]
    n_dropped_: int
    p_values_: dict[str, FloatArray]

    def design(self, panel: Panel) -> Design | None:
        """All characteristics, unweighted; None in panel mode, which needs the rows themselves."""
        return Design(tuple(panel.chars)) if self.mode == "portfolio" else None

    def fit(self, panel: Panel, y: None = None, *, warm_start: IPCA | None = None) -> Self:  # noqa: ARG002  # scikit-learn passes y
        """Fit to the rows of ``panel.mask``; parameters, errors and warnings as those of `fit_gram`."""
        gram = gram_of(panel, Design(tuple(panel.chars)))
        observed = panel.factors if "factors" in panel.data else None
        triangles = row_triangles(panel) if self.mode == "panel" else None
        return self._fit(gram, observed, warm_start, triangles)

    def fit_gram(
        self, gram: GramStatistics, observed: xr.DataArray | None = None, *, warm_start: IPCA | None = None
    ) -> Self:
        """Fit to all dates of the statistics.

        Parameters
        ----------
        gram : GramStatistics
            Of all characteristics, unweighted.
        observed : xarray.DataArray, optional
            (date, observed_factor), with the factors that ``self.observed`` names.
        warm_start : IPCA, optional
            A fitted model of the same characteristics to start from, such as that of an earlier date; what it lacks or
            has too much is filled or left out, so that it may have other numbers of factors.

        Raises
        ------
        ModelError
            If characteristics, stocks or returns do not carry so many factors, if characteristics or given series are
            collinear, if an observed factor is missing, or in panel mode.

        Warns
        -----
        ConvergenceWarning
            If the estimate still moves after ``max_iter`` iterations.
        """
        if self.mode == "panel":
            raise ModelError("IPCA(mode='panel') works on the rows; call fit(panel), or use mode='portfolio'.")
        return self._fit(gram, observed, warm_start, None)

    def moments(self, gram: GramStatistics, observed: xr.DataArray | None = None) -> Moments:
        """Pack statistics and given series for the steps of this model; ``observed`` as in `fit_gram`."""
        given = given_series(gram.dates, observed, self.observed, intercept=self.intercept)
        return Moments.of(gram, given, self.n_factors)

    def fit_moments(
        self, moments: Moments, chars: tuple[str, ...], warm_start: IPCA | None = None, steps: Steps | None = None
    ) -> Self:
        """Fit to packed moments: `fit_gram` after all checks, for callers who fit many windows of them."""
        solution, explained = solve(
            moments if steps is None else steps,
            self._first_start(moments, chars, warm_start),
            n_starts=self.n_starts,
            max_iter=self.max_iter,
            tol=self.tol,
            memory=self.memory,
        )
        total = float(moments.rr[moments.usable].sum())
        self.objectives_ = [value / total if total > 0.0 else float("nan") for value in explained]
        self.converged_, self.n_iter_, self.last_change_ = solution.converged, solution.n_iter, solution.last_change
        self.n_rejected_ = solution.n_rejected
        self.first_order_residual_ = moments.first_order_residual(solution.coefficients)
        if not solution.converged:
            warnings.warn(
                f"IPCA stopped at max_iter={self.max_iter}: Gamma still turned by {self.last_change_:.1e}, "
                f"more than tol={self.tol}. Raise max_iter, or lower n_factors.",
                ConvergenceWarning,
                stacklevel=4,
            )
        coefficients, means, self.n_dropped_ = normalise(moments, solution.coefficients)
        n_factors = self.n_factors + len(self.observed)
        alpha = coefficients[:, -1].copy() if self.intercept else np.zeros(len(chars))
        self.p_values_ = {}
        self._restore(np.ascontiguousarray(coefficients[:, :n_factors]), alpha, means[:n_factors], chars)
        return self

    def loadings(self, panel: Panel) -> xr.DataArray:
        """Z[t-1] [Gamma_beta, Gamma_delta] as (date, ticker, factor); NaN where not covered."""
        return self._instrumented(panel, self.gram_mapping()).rename("loadings")

    def alpha(self, panel: Panel) -> xr.DataArray:
        """Z[t-1] Gamma_alpha as (date, ticker): what is expected but no factor earns; zero without intercept."""
        self._check_fitted()
        columns = self._alpha[:, None]
        return self._instrumented(panel, columns).isel(factor=0, drop=True).rename("alpha")

    def factor_returns(self, panel: Panel) -> xr.DataArray:
        """Latent factors by cross-sectional regression beside the observed ones, as (date, factor).

        (Gamma_beta'Z'Z Gamma_beta)^-1 Gamma_beta'Z'(r - Z Gamma_alpha - Z Gamma_delta g). All are NaN on dates on which
        the matrix is singular or an observed factor is missing.
        """
        self._check_fitted()
        gram = gram_of(panel, Design(tuple(self._chars)))
        factors = self.gram_factor_returns(gram, panel.factors if self.observed else None)
        return xr.DataArray(
            factors, {"date": panel.dates, "factor": self.factors_}, ("date", "factor"), name="factor_returns"
        )

    def gram_factor_returns(self, gram: GramStatistics, observed: xr.DataArray | None = None) -> FloatArray:
        """Return `factor_returns` from statistics (date, factor); ``observed`` as in `fit_gram`."""
        self._check_fitted()
        gram = gram.select(self._chars)
        projection = self.moments(gram, observed).realise(gram.zz, self._coefficients())
        factors: FloatArray = np.where(projection.kept[:, None], projection.regressors, np.nan)
        return factors[:, : len(self.factors_)]

    def gram_mapping(self) -> FloatArray:
        """[Gamma_beta, Gamma_delta] as (char, factor)."""
        self._check_fitted()
        mapping: FloatArray = self.gamma_.values
        return mapping

    def score_gram(
        self, gram: GramStatistics, observed: xr.DataArray | None = None, over: GramStatistics | None = None
    ) -> dict[str, float]:
        """Total and predictive R2 as `score`, the alpha part included, from statistics alone."""
        over = (gram if over is None else over).select(self._chars)
        realised, alpha = self.gram_factor_returns(gram, observed), self._alpha
        expected = alpha + self.gram_mapping() @ self._premia
        return {
            "total_r2": gram_r2(over, realised @ self.gram_mapping().T + alpha),
            "predictive_r2": gram_r2(over, np.broadcast_to(expected, over.zr.shape)),
        }

    def expected_returns(self, panel: Panel) -> xr.DataArray:
        """Z[t-1] (Gamma_alpha + [Gamma_beta, Gamma_delta] premia) as (date, ticker)."""
        return (super().expected_returns(panel) + self.alpha(panel)).rename("expected_returns")

    def fitted_returns(self, panel: Panel) -> xr.DataArray:
        """Z[t-1] (Gamma_alpha + Gamma_beta f[t] + Gamma_delta g[t]) as (date, ticker)."""
        return (super().fitted_returns(panel) + self.alpha(panel)).rename("fitted_returns")

    def rotate(self, rotation: FloatArray) -> Self:
        """Return the same model with its latent factors rotated.

        Parameters
        ----------
        rotation : numpy.ndarray
            (factor, factor) orthogonal; the identity on observed factors.

        Raises
        ------
        ConfigError
            If the matrix is not orthogonal.
        ModelError
            If it would mix observed factors with others.
        """
        self._check_fitted()
        matrix = np.asarray(rotation)
        k = self.n_factors
        if self.observed and matrix.shape == (len(self.factors_),) * 2:
            fixed = np.eye(len(self.factors_))[:, k:]
            if not (np.array_equal(matrix[:, k:], fixed) and np.array_equal(matrix[k:], fixed.T)):
                raise ModelError(
                    f"The observed factors {[*self.observed]} cannot be rotated; turn the latent ones alone."
                )
        return super().rotate(rotation)

    def _turn(self, rotation: FloatArray) -> None:
        self.gamma_ = self.gamma_.copy(data=self.gamma_.values @ rotation)

    def hypothesis_tests(
        self,
        gram: GramStatistics,
        observed: xr.DataArray | None = None,
        *,
        n_draws: int = 1000,
        seed: int = 0,
        tol: float = 1e-4,
    ) -> dict[str, BootstrapTest]:
        """Wild bootstrap of Kelly, Pruitt and Su (2019) on the statistics of the fit.

        Parameters
        ----------
        gram, observed
            What the model was fitted to.
        n_draws, seed : int
            Samples per hypothesis, and what they are drawn from.
        tol : float
            Of the estimations on samples, which are warm started.

        Returns
        -------
        dict
            "characteristics": one test per characteristic, that its row of Gamma_beta is zero. "alpha": that
            Gamma_alpha is zero. "observed": one per observed factor, that its column of Gamma_delta is zero. Those that
            apply.
        """
        self._check_fitted()
        moments = self.moments(gram.select(self._chars), observed).complete()
        coefficients, options = self._coefficients(), (n_draws, seed, self.max_iter, tol)
        found = {}
        if self.n_factors:
            found["characteristics"] = characteristic_test(moments, coefficients, *options)
        if moments.given.shape[1]:
            given = given_test(moments, coefficients, *options)
            cut = len(self.observed)
            if cut:
                found["observed"] = given.select(slice(0, cut))
            if self.intercept:
                found["alpha"] = given.select(slice(cut, None))
        return found

    @property
    def gamma_alpha_(self) -> xr.DataArray | None:
        """(char,) Gamma_alpha; None without an intercept."""
        return xr.DataArray(self._alpha, {"char": self._chars}, ("char",)) if self.intercept else None

    @property
    def characteristic_p_value_(self) -> xr.DataArray | None:
        """(char,) p-values of the bootstrap that a row of Gamma_beta is zero."""
        return self._p_value("characteristics", "char", self._chars)

    @property
    def observed_p_value_(self) -> xr.DataArray | None:
        """(observed_factor,) p-values of the bootstrap that a column of Gamma_delta is zero."""
        return self._p_value("observed", "observed_factor", [*self.observed])

    @property
    def alpha_p_value_(self) -> float | None:
        """P-value of the bootstrap that Gamma_alpha is zero."""
        return float(self.p_values_["alpha"][0]) if "alpha" in self.p_values_ else None

    def _p_value(self, test: str, dim: str, labels: list[str]) -> xr.DataArray | None:
        return xr.DataArray(self.p_values_[test], {dim: labels}, (dim,)) if test in self.p_values_ else None

    def state(self) -> ModelState:
        """Gamma, premia, p-values, and the certificate of convergence."""
        self._check_fitted()
        arrays = {"gamma": self.gamma_.values, "gamma_alpha": self._alpha, "premia": self._premia}
        arrays |= {f"p_value_{name}": values for name, values in self.p_values_.items()}
        meta = {name: getattr(self, f"{name}_") for name in _CERTIFICATE}
        return ModelState(arrays, {"chars": self._chars, **meta})

    @classmethod
    def from_state(cls, params: dict[str, Any], state: ModelState) -> Self:
        """Rebuild a fitted model."""
        model = cls(**params)
        for name in _CERTIFICATE:
            setattr(model, f"{name}_", state.meta[name])
        arrays = state.arrays
        model.p_values_ = under("p_value_", arrays)
        model._restore(arrays["gamma"], arrays["gamma_alpha"], arrays["premia"], tuple(state.meta["chars"]))
        return model

    def _fit(
        self,
        gram: GramStatistics,
        observed: xr.DataArray | None,
        warm_start: IPCA | None,
        triangles: FloatArray | None,
    ) -> Self:
        moments = self.moments(gram, observed).complete()
        check_capacity(gram, self.n_factors, len(self.observed))
        check_collinearity(gram)
        if moments.given.shape[1]:
            check_given(moments.given[moments.usable], (*self.observed, *[INTERCEPT] * self.intercept))
        self.fit_moments(
            moments, gram.chars, warm_start, moments if triangles is None else RowSteps(moments, triangles)
        )
        if self.bootstrap:
            tests = self.hypothesis_tests(gram, observed, n_draws=self.bootstrap)
            self.p_values_ = {name: test.p_value for name, test in tests.items()}
        return self

    def _first_start(self, moments: Moments, chars: tuple[str, ...], warm_start: IPCA | None) -> FloatArray:
        """Gamma of the earlier model, without what is too much, filled up with what it lacks."""
        if warm_start is None:
            return initial_coefficients(moments)
        known_chars = tuple(str(name) for name in warm_start.gamma_["char"].values)
        if known_chars != chars:
            raise ModelError(f"A warm start must have the same characteristics: {known_chars} are not {chars}.")
        earlier = warm_start.gamma_.values[:, : warm_start.n_factors][:, : self.n_factors]
        given = np.zeros((moments.n_chars, moments.given.shape[1]))
        for column, name in enumerate(self.observed):
            if name in warm_start.observed:
                given[:, column] = warm_start.gamma_.sel(factor=name).values
        if self.intercept:
            given[:, -1] = warm_start._alpha  # noqa: SLF001  # of the same class
        known = np.concatenate([earlier, given], axis=1)
        return initial_coefficients(moments, known) if earlier.shape[1] < self.n_factors else known

    @property
    def _chars(self) -> list[str]:
        return [str(name) for name in self.gamma_["char"].values]

    def _coefficients(self) -> FloatArray:
        """(char, K + M) [Gamma_beta, Gamma_delta, Gamma_alpha], the last if there is an intercept."""
        alpha = self._alpha[:, None]
        return np.concatenate([self.gamma_.values, alpha], axis=1) if self.intercept else self.gamma_.values

    def _restore(self, gamma: FloatArray, alpha: FloatArray, premia: FloatArray, chars: tuple[str, ...]) -> None:
        self.factors_ = [*(f"factor_{k + 1}" for k in range(self.n_factors)), *self.observed]
        self.gamma_ = xr.DataArray(gamma, {"char": [*chars], "factor": self.factors_}, ("char", "factor"), name="gamma")
        self._alpha = alpha
        self.premia_ = premia

    def _instrumented(self, panel: Panel, columns: FloatArray) -> xr.DataArray:
        """Z times the columns as (date, ticker, factor), in float64, block by block."""
        self._check_fitted()
        blocks = [
            covered_product(select_characteristics(block, self._chars).values, block.coverage.values, columns)
            for block in panel.blocks()
        ]
        names = self.factors_ if columns.shape[1] == len(self.factors_) else [*range(columns.shape[1])]
        coords = {"date": panel.dates, "ticker": panel.tickers, "factor": names}
        return xr.DataArray(np.concatenate(blocks), coords, ("date", "ticker", "factor"))
