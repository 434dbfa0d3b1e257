"""The factor model of penalised regressions, in its two modes, with its penalty, selection and stability.

Here belong labels, factors, state and what is said to the user. The numbers come from `estimation`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr
from annotated_types import Ge, Gt, Le, MinLen
from sklearn.exceptions import ConvergenceWarning

from models.arrays import FloatArray
from models.families.base import ModelState
from models.families.linear import GramModel
from models.families.penalised.cross_validation import BlockedFolds, Rule
from models.families.penalised.estimation import Penalisation
from models.families.penalised.pooled import estimate_pooled, slopes_by_date
from models.families.penalised.tickers import estimate_tickers
from models.panel import Panel
from models.panel.assembly import CONSTANT
from models.statistics.gram import INTERCEPT, Design, GramStatistics, Weighting, gram_of, select_characteristics
from schemas.errors import ConfigError, ModelError

Mode = Literal["time_series", "cross_section"]
Penalty = Literal["ridge", "lasso", "elastic_net"]
_PROBLEM = {  # arrays of a fit, and their dimensions after that of the problems
    "coefficients": ("factor",),
    "selected": ("factor",),
    "selection_frequency_folds": ("factor",),
    "selection_frequency_bootstrap": ("factor",),
    "path": ("penalty", "factor"),
    "lambdas": ("penalty",),
    "cv_error": ("penalty",),
    "cv_error_stderr": ("penalty",),
    "chosen_lambda": (),
    "duality_gap": (),
    "alpha": (),
    "n_obs": (),
}
_TICKERS_ONLY = ("alpha", "n_obs")


class PenalisedModel(GramModel):
    """Ridge, lasso or elastic net, of returns on observed factors or on characteristics.

    ``mode="time_series"``: the returns of every ticker on the panel's observed factors, over its own history, each with
    a penalty of its own. Loadings are the penalised slopes, constant in time and zero where a factor is not selected;
    factor returns are the observed ones, premia their means. `expected_returns` leaves the intercept ``alpha_`` out.

    ``mode="cross_section"``: one pooled regression of all r[t] on Z[t-1]. Loadings are the selected characteristics
    and the intercept; premia are the pooled slopes, penalised. Factor returns are least squares of the returns at each
    date on what was selected, not penalised; a date where these are collinear, or stocks too few, is ridged instead
    (`slopes_by_date`) and counted in ``n_ridged_``. What is not selected stays among the factors with loadings,
    premium and factor return of zero, so that fits of other dates can be put together. If nothing is selected the
    model is that of the intercept alone, and a warning says so.

    With r and Z centred (so that the intercept is not penalised) and standardised, n the sum of weights, the slopes
    minimise |r - Z b|^2 / (2 n) + lambda l1_ratio |b|_1 + lambda (1 - l1_ratio) / 2 |b|^2, which is the objective of
    scikit-learn's ``ElasticNet`` with lambda for ``alpha``; its ``Ridge`` has alpha = n lambda. Everything is computed
    from sums of cross-products by date. The path is that of `lambda_grid`, the folds are `BlockedFolds`, and
    `choose_penalty` chooses.

    Parameters
    ----------
    mode : {"cross_section", "time_series"}
        Pooled regression on the characteristics, or each ticker's on the observed factors.
    penalty : {"elastic_net", "lasso", "ridge"}
        Form of the penalty: "lasso" has an l1_ratio of 1, "ridge" of 0.
    l1_ratio : float
        Share of the l1 part; penalty "elastic_net" only.
    n_lambdas : int
        Penalties on the path.
    lambda_ : float, optional
        The penalty, for all tickers alike. Default: chosen by cross-validation over the path.
    n_folds : int
        Blocks of dates of the cross-validation.
    purge : int
        Dates left out of training on either side of a tested block.
    embargo : int
        Further dates left out after a tested block.
    rule : {"one_se", "min"}
        Strongest penalty within one standard error of the least error, or that of the least error.
    standardise : bool
        Divide regressors and returns by their standard deviations, so that units have no say and penalties have none;
        slopes are always given in the units of the data. False penalises slopes as they are, as scikit-learn does.
        Returns in decimals then hardly feel the l2 part of an elastic net.
    weighting : {"equal", "cap", "sqrt_cap"}
        Weight of each stock's squared errors, by its share of the market; mode "cross_section" only.
    min_observations : int
        Fewest returns with which a stock is covered; mode "time_series" only.
    factors : tuple of str, optional
        Observed factors to use. Default: all of them. Mode "time_series" only.
    n_bootstraps : int
        Samples drawn by date that show how stable the selection is; 0 draws none.
    seed : int
        Seed of these draws.

    Attributes
    ----------
    coefficients_, selected_ : xarray.DataArray
        ([ticker,] factor) slopes in the units of the data, and which are not zero.
    alpha_, n_obs_ : xarray.DataArray or None
        (ticker) intercept per period and number of returns; "time_series" only.
    lambdas_, path_ : xarray.DataArray
        ([ticker,] penalty) penalties, and ([ticker,] penalty, factor) slopes at each, in the units of the data.
    cv_error_, cv_error_stderr_ : xarray.DataArray
        ([ticker,] penalty) mean squared error of the held-out blocks, in squared decimals, and its standard error.
    chosen_lambda_ : xarray.DataArray
        ([ticker]) the penalty in use.
    selection_frequency_folds_, selection_frequency_bootstrap_ : xarray.DataArray
        ([ticker,] factor) how often each factor is selected at that penalty.
    duality_gap_ : xarray.DataArray
        ([ticker]) largest gap along the path over half the variance of the returns: the certificate.
    n_unconverged_, n_ridged_ : int
        Solutions out of tolerance, and training dates that were ridged ("cross_section").

    Examples
    --------
    >>> from models import PenalisedModel
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> model = PenalisedModel(penalty="ridge", n_lambdas=10, n_bootstraps=0).fit(panel)
    >>> model.coefficients_.dims
    ('factor',)
    """

    kind: ClassVar[str] = "penalised"
    STATISTICS: ClassVar[Mapping[str, str]] = {
        "coefficients": "slope at the chosen penalty",
        "selected": "1 where the slope at the chosen penalty is not zero",
        "selection_frequency_folds": "share of the folds that select the factor",
        "selection_frequency_bootstrap": "share of the bootstrap samples that select the factor",
        "path": "slope along the path of penalties",
        "lambdas": "penalty along the path",
        "cv_error": "cross-validated mean squared error along the path",
        "cv_error_stderr": "standard error of the cross-validated error",
        "chosen_lambda": "penalty that was chosen",
        "duality_gap": "largest relative duality gap along the path: a bound on how far it is from the optimum",
        "alpha": "intercept of the regression, per period",
        "n_obs": "number of returns behind the estimate",
    }

    def __init__(
        self,
        mode: Mode = "cross_section",
        penalty: Penalty = "elastic_net",
        l1_ratio: Annotated[float, Gt(0.0), Le(1.0)] = 0.5,
        n_lambdas: Annotated[int, Ge(2), Le(1000)] = 100,
        lambda_: Annotated[float, Ge(0.0)] | None = None,
        n_folds: Annotated[int, Ge(2)] = 5,
        purge: Annotated[int, Ge(0)] = 1,
        embargo: Annotated[int, Ge(0)] = 0,
        rule: Rule = "one_se",
        standardise: bool = True,
        weighting: Weighting = "equal",
        min_observations: Annotated[int, Ge(3)] = 60,
        factors: Annotated[tuple[str, ...], MinLen(1)] | None = None,
        n_bootstraps: Annotated[int, Ge(0)] = 100,
        seed: Annotated[int, Ge(0)] = 0,
    ) -> None:
        self.mode = mode
        self.penalty = penalty
        self.l1_ratio = l1_ratio
        self.n_lambdas = n_lambdas
        self.lambda_ = lambda_
        self.n_folds = n_folds
        self.purge = purge
        self.embargo = embargo
        self.rule = rule
        self.standardise = standardise
        self.weighting = weighting
        self.min_observations = min_observations
        self.factors = factors
        self.n_bootstraps = n_bootstraps
        self.seed = seed

    coefficients_: xr.DataArray
    selected_: xr.DataArray
    alpha_: xr.DataArray | None
    n_obs_: xr.DataArray | None
    lambdas_: xr.DataArray
    path_: xr.DataArray
    cv_error_: xr.DataArray
    cv_error_stderr_: xr.DataArray
    chosen_lambda_: xr.DataArray
    selection_frequency_folds_: xr.DataArray
    selection_frequency_bootstrap_: xr.DataArray
    duality_gap_: xr.DataArray
    n_unconverged_: int
    n_ridged_: int

    def design(self, panel: Panel) -> Design | None:
        """All characteristics and a constant; None in the mode "time_series", which needs the rows."""
        if self.mode == "time_series":
            return None
        if not panel.chars:
            raise ModelError("PenalisedModel of the cross-section needs characteristics; this panel has none.")
        return Design(tuple(panel.chars), intercept=CONSTANT not in panel.chars, weighting=self.weighting)

    def fit(self, panel: Panel, y: None = None) -> Self:  # noqa: ARG002  # scikit-learn passes y
        """Fit to the rows of ``panel.mask``.

        Raises
        ------
        ModelError
            If the dates are too few for the folds, the panel lacks the characteristics or factors, or no ticker has
            enough returns.
        ConfigError
            If a parameter is unknown or out of bounds.

        Warns
        -----
        ConvergenceWarning
            If a solution did not reach its tolerance.
        UserWarning
            If nothing is selected.
        """
        if self.mode == "cross_section":
            return super().fit(panel)
        how = self._penalisation()
        names = self._observed(panel)
        estimated, n_obs, premia = estimate_tickers(panel, names, self.min_observations, how)
        covered = (n_obs >= self.min_observations) & (estimated.chosen >= 0)
        arrays = estimated.arrays(np.arange(1, len(names) + 1), covered)
        meta = {
            "tickers": panel.tickers,
            "factors": names,
            "n_ridged": 0,
            "n_unconverged": int(estimated.unconverged[covered].sum()),
        }
        self._restore({**arrays, "n_obs": n_obs, "premia": premia}, meta)
        self._report(arrays["selected"])
        return self

    def fit_gram(self, gram: GramStatistics, observed: xr.DataArray | None = None) -> Self:  # noqa: ARG002  # of the base
        """Fit the pooled regression; "cross_section" only.

        Raises
        ------
        ModelError
            As in `fit`, or in the mode "time_series".
        ConfigError
            As in `fit`.
        """
        how = self._penalisation()
        if self.mode == "time_series":
            raise ModelError("PenalisedModel of time series needs the returns of each ticker: call fit(panel).")
        first = gram.chars.index(_ones(gram.chars))
        estimated, columns = estimate_pooled(gram, first, how)
        arrays = estimated.arrays(columns, np.array([True]))
        _, ridged = slopes_by_date(gram, arrays["selected"][0], first)
        meta = {
            "tickers": None,
            "factors": [*gram.chars],
            "n_ridged": int(ridged.sum()),
            "n_unconverged": int(estimated.unconverged.sum()),
        }
        self._restore({**arrays, "premia": arrays["coefficients"][0]}, meta)
        self._report(np.delete(arrays["selected"], first, axis=1))
        return self

    def loadings(self, panel: Panel) -> xr.DataArray:
        """Betas, or selected characteristics, as (date, ticker, factor).

        Zero for what is not selected; NaN for tickers without enough returns, or where not covered.
        """
        self._check_fitted()
        if self.mode == "time_series":
            betas = self.coefficients_.reindex(ticker=panel.tickers).values
            values = np.tile(betas[None], (len(panel.dates), 1, 1))
        else:
            chars = [name for name in self.factors_ if name != INTERCEPT]
            values = select_characteristics(panel, chars).values
            if INTERCEPT in self.factors_:
                ones = np.where(panel.coverage.values, 1.0, np.nan).astype(values.dtype)
                values = np.concatenate([ones[..., None], values], axis=2)
            values = values * self.selected_.values.astype(values.dtype)
        coords = {"date": panel.dates, "ticker": panel.tickers, "factor": self.factors_}
        return xr.DataArray(values, coords, ("date", "ticker", "factor"), name="loadings")

    def factor_returns(self, panel: Panel) -> xr.DataArray:
        """Observed factor returns, or cross-sectional slopes, as (date, factor); NaN on dates without any."""
        self._check_fitted()
        if self.mode == "time_series":
            values = panel.observed(self.factors_)
        else:
            chars = tuple(name for name in self.factors_ if name != INTERCEPT)
            values = self.gram_factor_returns(
                gram_of(panel, Design(chars, intercept=INTERCEPT in self.factors_, weighting=self.weighting))
            )
        coords = {"date": panel.dates, "factor": self.factors_}
        return xr.DataArray(values, coords, ("date", "factor"), name="factor_returns")

    def gram_factor_returns(self, gram: GramStatistics) -> FloatArray:
        """Slopes on the selected characteristics as (date, factor), 0 for the others; NaN on dates without stocks."""
        self._check_fitted()
        if self.mode == "time_series":
            raise ModelError("PenalisedModel of time series has observed factors: call factor_returns(panel).")
        first = self.factors_.index(_ones(tuple(self.factors_)))
        return slopes_by_date(gram.select(self.factors_), self.selected_.values, first)[0]

    def gram_mapping(self) -> FloatArray:
        """(char, factor) diagonal matrix of 1 for what is selected."""
        self._check_fitted()
        return np.diag(self.selected_.values.astype(np.float64))

    def state(self) -> ModelState:
        """All estimates, and names."""
        self._check_fitted()
        arrays = {name: array.values for name, array in self.statistics().items() if name != "premia"}
        tickers = None
        if self.mode == "cross_section":
            arrays = {name: array[None] for name, array in arrays.items()}
        else:
            tickers = self.coefficients_["ticker"].values.tolist()
        meta = {
            "tickers": tickers,
            "factors": self.factors_,
            "n_ridged": self.n_ridged_,
            "n_unconverged": self.n_unconverged_,
        }
        return ModelState({**arrays, "premia": self._premia}, meta)

    @classmethod
    def from_state(cls, params: dict[str, Any], state: ModelState) -> Self:
        """Rebuild a fitted model."""
        model = cls(**params)
        model._restore(dict(state.arrays), state.meta)
        return model

    def _restore(self, arrays: dict[str, npt.NDArray[Any]], meta: dict[str, Any]) -> None:
        tickers, factors = meta["tickers"], [*meta["factors"]]
        for name, dims in _PROBLEM.items():
            if tickers is None and name in _TICKERS_ONLY:
                setattr(self, f"{name}_", None)
                continue
            coords: dict[str, Any] = {"factor": factors} if "factor" in dims else {}
            if tickers is None:
                labelled = xr.DataArray(arrays[name][0], coords, dims, name=name)
            else:
                labelled = xr.DataArray(arrays[name], coords | {"ticker": tickers}, ("ticker", *dims), name=name)
            setattr(self, f"{name}_", labelled)
        self.premia_ = arrays["premia"]
        self.factors_ = factors
        self.n_ridged_ = meta["n_ridged"]
        self.n_unconverged_ = meta["n_unconverged"]

    def _penalisation(self) -> Penalisation:
        """Check the parameters, and put them into the terms of the estimation."""
        for name, value, known in (("mode", self.mode, Mode), ("penalty", self.penalty, Penalty)):
            if value not in get_args(known):
                raise ConfigError(f"{name} '{value}' is none of {', '.join(get_args(known))}.")
        if not 0.0 < self.l1_ratio <= 1.0:
            raise ConfigError(f"l1_ratio={self.l1_ratio} must be above 0 and at most 1; for 0 take penalty='ridge'.")
        if self.lambda_ is not None and not (np.isfinite(self.lambda_) and self.lambda_ >= 0.0):
            raise ConfigError(f"lambda_={self.lambda_} must be a number that is not negative.")
        if self.n_lambdas < 2 or self.n_bootstraps < 0:
            raise ConfigError(
                f"n_lambdas={self.n_lambdas} must be at least 2, and n_bootstraps={self.n_bootstraps} not negative."
            )
        return Penalisation(
            l1_ratio={"ridge": 0.0, "lasso": 1.0, "elastic_net": self.l1_ratio}[self.penalty],
            n_lambdas=self.n_lambdas,
            fixed=self.lambda_,
            folds=BlockedFolds(self.n_folds, self.purge, self.embargo),
            rule=self.rule,
            standardise=self.standardise,
            n_bootstraps=self.n_bootstraps,
            seed=self.seed,
        )

    def _observed(self, panel: Panel) -> list[str]:
        return [*map(str, panel.factors["observed_factor"].values)] if self.factors is None else [*self.factors]

    def _report(self, selected: npt.NDArray[np.bool_]) -> None:
        """Warn of what a reader of the numbers must know."""
        if self.n_unconverged_:
            message = (
                f"{self.n_unconverged_} penalised solution(s) did not reach the tolerance; regressors may be collinear."
            )
            warnings.warn(message, ConvergenceWarning, stacklevel=3)
        if not selected.any():
            what = "the mean return of each date" if self.mode == "cross_section" else "the alpha of each ticker"
            message = (
                f"PenalisedModel selected none of its factors by rule='{self.rule}': what is left is the intercept, "
                f"{what}. Use rule='min' or a smaller lambda_ to keep more."
            )
            warnings.warn(message, UserWarning, stacklevel=3)


def _ones(names: tuple[str, ...]) -> str:
    """Name of the column of ones among the regressors."""
    for name in (INTERCEPT, CONSTANT):
        if name in names:
            return name
    raise ModelError(f"PenalisedModel needs a column of ones among {[*names]}: compute what `design` asks for.")
