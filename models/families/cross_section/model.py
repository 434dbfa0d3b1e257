"""The cross-sectional factor model: parameters, fit and what follows from it.

Here belongs what is learnt from the regressions of all dates. How they come about belongs in `estimation`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from annotated_types import Ge, Gt
from sklearn.exceptions import ConvergenceWarning

from models.arrays import FloatArray
from models.families.base import ModelState
from models.families.cross_section import rows
from models.families.cross_section.diagnostics import averages, dataset, exposure_stability, premia_errors, t_statistics
from models.families.cross_section.estimation import FEWEST_DATES, Recipe, Regressed
from models.families.cross_section.portfolios import pure_portfolios
from models.families.linear import GramModel
from models.inference.regression import automatic_lags
from models.panel import Panel
from models.panel.assembly import CONSTANT
from models.risk.specific import SpecificRisk
from models.statistics.gram import INTERCEPT, Design, GramStatistics, industry_name, select_characteristics
from schemas.errors import ConfigError, ModelError

MARKET = "market"
_COUNTS = ("n_dates_", "n_dropped_", "n_missing_", "n_unfinished_")
_CHOICES = {
    "weighting": ("sqrt_cap", "inverse_specific_variance", "cap", "equal"),
    "constraint": ("cap", "regression"),
    "missing_industries": ("nan", "market"),
}


class CrossSectionalModel(GramModel):
    """Market, industries and styles X[t-1] by weighted least squares of r[t] at each date, in Barra's manner.

    r[i, t] = m[t] + f[ind(i), t] + sum_k z[i, k] s[k, t] + e[i, t], with the industry and the styles known before t,
    subject to sum_j c[j, t] f[j, t] = 0 where c[j] is the capitalisation of industry j in the estimation universe. So
    the market factor is the return of a portfolio that holds industries in proportion to their capitalisation, and an
    industry's return is over the market. Source: Menchero, Orr and Wang (2011), The Barra US Equity Model (USE4),
    Methodology Notes.

    A panel without industries gives market and styles alone: ``industries_`` is then empty. A characteristic
    ``constant`` is left out, since the market takes its place. A stock of unknown industry, or of one that no stock of
    the training sample had, is not covered: its loadings are NaN; `diagnostics` counts them. Stocks outside the
    estimation universe have loadings and specific returns wherever they have characteristics and an industry.

    Parameters
    ----------
    weighting : {"sqrt_cap", "inverse_specific_variance", "cap", "equal"}
        Regression weights. "inverse_specific_variance": one over the exponentially weighted variance of the residuals
        of a first pass with "sqrt_cap", from residuals known before the date; dates that are too early for any have the
        weights of the first pass.
    constraint : {"cap", "regression"}
        Industries' returns sum to zero, weighted by capitalisation or by the weights of the regression.
    orthogonalise : tuple of (str, tuple of str)
        Styles to replace by the residual of a regression, at every date, on an intercept and other styles, with the
        weights of the regression (of its first pass): pairs of a style and those others, such as nonlinear_size and
        [size]. The residual is not scaled again.
    huber : float, optional
        Threshold of Huber's robust regression; 1.345, which is usual, has 95 % efficiency under normal residuals.
        Default: least squares.
    max_iter : int
        Most steps of Huber's iteration.
    tol : float
        Largest move of a residual, in units of its scale, at which Huber's iteration of a date has converged.
    halflife : float
        Of the specific variance in the weights: dates after which a residual counts half.
    refresh : int
        Dates after which the specific variances in the weights are renewed.
    min_observations : int
        Residuals that a stock needs for a specific variance of its own in the weights; others have the median.
    missing_industries : {"nan", "market"}
        Return of an industry without a stock in the estimation universe of a date: unknown, or 0, which is to say
        that of the market.
    newey_west_lags : int, optional
        Lags of the standard errors of the premia. Default: floor(4 (T/100)^(2/9)).
    min_stocks : int, optional
        Dates with fewer stocks are dropped. Default: one more than the regressors of the date.

    Attributes
    ----------
    factors_ : list[str]
        ``market``, ``industry:<name>`` of each industry that the training sample has, and the styles.
    industries_, styles_ : tuple of str
        Names of both.
    premia_ : xarray.DataArray
        (factor,) mean factor return over the dates that have it.
    premia_stderr_ : numpy.ndarray
        (factor,) its Newey-West standard error.
    n_dates_, n_dropped_, n_missing_, n_unfinished_ : int
        Dates that entered; dates with stocks that did not, because they were too few or the styles collinear; pairs
        of a date and an industry without a stock; dates on which Huber's iteration did not converge.
    mean_abs_t_, share_significant_, mean_vif_ : numpy.ndarray
        (factor,) over the training dates: mean of abs(t), share of dates with abs(t) > 2, and mean variance inflation
        factor (NaN but for styles).
    mean_r_squared_ : numpy.ndarray
        Mean over the training dates, a scalar.

    Examples
    --------
    >>> from models import CrossSectionalModel
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> model = CrossSectionalModel(weighting="equal").fit(panel)
    >>> model.factors_
    ['market', 'industry:banks', 'industry:mines', 'size', 'value']
    >>> round(model.score(panel)["total_r2"], 2)
    0.82
    """

    kind: ClassVar[str] = "cross_section"
    STATISTICS: ClassVar[Mapping[str, str]] = {
        "mean_abs_t": "mean absolute t-statistic of the factor return",
        "share_significant": "share of dates on which the absolute t-statistic is above 2",
        "mean_vif": "mean variance inflation factor",
        "mean_r_squared": "mean R2 of the cross-sections",
    }

    def __init__(
        self,
        weighting: Literal["sqrt_cap", "inverse_specific_variance", "cap", "equal"] = "sqrt_cap",
        constraint: Literal["cap", "regression"] = "cap",
        orthogonalise: tuple[tuple[str, tuple[str, ...]], ...] = (),
        huber: Annotated[float, Gt(0.0)] | None = None,
        max_iter: Annotated[int, Ge(1)] = 50,
        tol: Annotated[float, Gt(0.0)] = 1e-6,
        halflife: Annotated[float, Gt(1.0)] = 63.0,
        refresh: Annotated[int, Ge(1)] = 21,
        min_observations: Annotated[int, Ge(2)] = 20,
        missing_industries: Literal["nan", "market"] = "nan",
        newey_west_lags: Annotated[int, Ge(0)] | None = None,
        min_stocks: Annotated[int, Ge(2)] | None = None,
    ) -> None:
        self.weighting = weighting
        self.constraint = constraint
        self.orthogonalise = orthogonalise
        self.huber = huber
        self.max_iter = max_iter
        self.tol = tol
        self.halflife = halflife
        self.refresh = refresh
        self.min_observations = min_observations
        self.missing_industries = missing_industries
        self.newey_west_lags = newey_west_lags
        self.min_stocks = min_stocks

    industries_: tuple[str, ...]
    styles_: tuple[str, ...]
    premia_stderr_: FloatArray
    n_dates_: int
    n_dropped_: int
    n_missing_: int
    n_unfinished_: int
    mean_abs_t_: FloatArray
    share_significant_: FloatArray
    mean_vif_: FloatArray
    mean_r_squared_: FloatArray
    specific_weights_: rows.SpecificWeights | None

    def design(self, panel: Panel) -> Design | None:
        """Name the statistics from which alone a fit follows; None if it needs the rows.

        Rows are needed by Huber's regression, inverse specific variances and orthogonal styles.
        """
        if self._needs_rows:
            return None
        return self._recipe(_styles(panel), None, industries=bool(panel.industries)).design

    def fit(self, panel: Panel, y: None = None) -> Self:  # noqa: ARG002  # scikit-learn passes y
        """Regress at each date, and average.

        Raises
        ------
        ModelError
            If `orthogonalise` names a characteristic that the panel lacks, or fewer than two dates can be regressed.
        ConfigError
            If a parameter is unknown or out of bounds.
        """
        self._check_parameters()
        rows.check_orthogonalise(self.orthogonalise, panel.chars)
        styles, industries = _styles(panel), bool(panel.industries)
        specific = None
        if self.weighting == "inverse_specific_variance":
            specific = self._learn_specific_weights(panel)
        regressed = self._recipe(styles, specific, industries=industries).regress(panel)
        return self._learn(regressed, styles, specific)

    def fit_gram(self, gram: GramStatistics, observed: xr.DataArray | None = None) -> Self:  # noqa: ARG002
        """Fit from the statistics of the design that `design` gives.

        Raises
        ------
        ModelError
            If these parameters need the rows of a panel, the statistics have no intercept, or fewer than two dates
            can be regressed.
        ConfigError
            As in `fit`.
        """
        self._check_parameters()
        found = len(gram.industries)
        if self._needs_rows:
            raise ModelError("CrossSectionalModel needs the rows of the panel with these parameters; call fit(panel).")
        styles = gram.chars[1 + found :]
        return self._learn(self._recipe(styles, None, industries=found > 0).solve(gram), styles, None)

    def gram_factor_returns(self, gram: GramStatistics) -> FloatArray:
        """Realised factor returns (date, factor) from the statistics of the design that `design` gives."""
        self._check_fitted()
        return self._aligned(self._own_recipe().solve(gram, known=self.industries_))

    def score_gram(
        self, gram: GramStatistics, observed: xr.DataArray | None = None, over: GramStatistics | None = None
    ) -> dict[str, float]:
        """Total and predictive R2 as `score`, from statistics alone, which may have industries that the model lacks."""
        self._check_fitted()
        own = (INTERCEPT, *map(industry_name, self.industries_), *self.styles_)
        return super().score_gram(gram, observed, (gram if over is None else over).select(own))

    def loadings(self, panel: Panel) -> xr.DataArray:
        """Give [1, industry, styles] as (date, ticker, factor) float32; NaN where a stock is not covered.

        Raises
        ------
        ModelError
            If the panel lacks a style, or industries where the model has them.
        """
        self._check_fitted()
        covered, codes = self._covered(panel)
        first = 1 + len(self.industries_)
        values = np.empty((*covered.shape, len(self.factors_)), dtype=np.float32)
        values[..., 0] = 1.0
        values[..., 1:first] = codes[..., None] == np.arange(len(self.industries_))
        values[..., first:] = self._styles_of(panel)
        values[~covered] = np.nan
        coords = {"date": panel.dates, "ticker": panel.tickers, "factor": self.factors_}
        return xr.DataArray(values, coords, ("date", "ticker", "factor"), name="loadings")

    def factor_returns(self, panel: Panel) -> xr.DataArray:
        """Factor returns as (date, factor); NaN on dropped dates, and of industries without a stock."""
        self._check_fitted()
        values = self._aligned(self._own_recipe().regress(panel, self.industries_))
        coords = {"date": panel.dates, "factor": self.factors_}
        return xr.DataArray(values, coords, ("date", "factor"), name="factor_returns")

    def fitted_returns(self, panel: Panel) -> xr.DataArray:
        """Return X[t-1] f[t] as (date, ticker); an industry whose return is unknown is so for its own stocks alone."""
        return self.explained_returns(panel, self.factor_returns(panel).values).rename("fitted_returns")

    def expected_returns(self, panel: Panel) -> xr.DataArray:
        """Return X[t-1] times the premia of the training sample, as (date, ticker)."""
        self._check_fitted()
        premia = np.broadcast_to(self._premia, (len(panel.dates), len(self._premia)))
        return self.explained_returns(panel, premia).rename("expected_returns")

    def explained_returns(self, panel: Panel, factor_returns: FloatArray) -> xr.DataArray:
        """Return X[t-1] times given factor returns (date, factor), as (date, ticker).

        Each stock is multiplied with its own industry alone: an unknown return of another one does not reach it.
        """
        self._check_fitted()
        recipe, first, parts, row = self._own_recipe(), 1 + len(self.industries_), [], 0
        for block in panel.blocks():
            returns = factor_returns[row : row + len(block.dates)]
            covered, codes = self._covered(block)
            own = np.broadcast_to(returns[:, :1], covered.shape)
            if self.industries_:
                own = rows.by_code(returns[:, 0], returns[:, 1:first], codes)
            parts.append(rows.systematic(recipe.prepared(block), self.styles_, own, returns[:, first:]))
            parts[-1][~covered] = np.nan
            row += len(block.dates)
        coords = {"date": panel.dates, "ticker": panel.tickers}
        return xr.DataArray(np.concatenate(parts), coords, ("date", "ticker"))

    def pure_portfolios(self, panel: Panel, factors: list[str] | None = None) -> xr.DataArray:
        """Weights (date, factor, ticker) of the portfolios whose returns are the factor returns.

        Each has exposure 1 to its own factor and 0 to all others, in the sense of the constraint: its exposures p
        satisfy p'f = f[k] for every f that satisfies the constraint. The market portfolio thus holds industries in
        proportion to their capitalisation. 0 outside the estimation universe, NaN where the factor return is.

        Parameters
        ----------
        panel : Panel
        factors : list of str, optional
            Which factors. Default: all; memory is 8 bytes for each weight.

        Raises
        ------
        ModelError
            If one of the factors is not the model's.
        """
        self._check_fitted()
        names = self.factors_ if factors is None else factors
        unknown = sorted(set(names) - set(self.factors_))
        if unknown:
            raise ModelError(f"The model has no factors {unknown}; it has {self.factors_}.")
        wanted, recipe = [self.factors_.index(name) for name in names], self._own_recipe()
        parts = []
        for block in panel.blocks():
            regressed = recipe.regress(block, self.industries_)
            weights = pure_portfolios(
                recipe.weighted(block), regressed.sections, self.styles_, regressed.places(self.industries_), wanted
            )
            if self.missing_industries == "market":
                weights[np.isnan(weights) & regressed.sections.kept[:, None, None]] = 0.0
            parts.append(weights)
        coords = {"date": panel.dates, "factor": names, "ticker": panel.tickers}
        return xr.DataArray(np.concatenate(parts), coords, ("date", "factor", "ticker"), name="pure_portfolios")

    def diagnostics(self, panel: Panel, lag: int = 1) -> xr.Dataset:
        """Judge the regressions date by date.

        Parameters
        ----------
        panel : Panel
        lag : int
            Dates between the two exposures whose correlation is the stability of a style.

        Returns
        -------
        xarray.Dataset
            ``factor_returns``, ``standard_error`` and ``t_statistic`` (date, factor); ``vif`` and ``stability`` (date,
            style); ``r_squared``, ``n_stocks``, ``n_missing_industries`` and ``n_unclassified`` (date). R2 is that of
            the weighted regression with its mean taken out. ``stability`` is the correlation of exposures with those
            ``lag`` dates before, by the weights of the first pass. ``n_unclassified`` counts stocks with a return in
            the estimation universe that have no industry of the model.

        Raises
        ------
        ConfigError
            If the lag is below 1.
        """
        self._check_fitted()
        if lag < 1:
            raise ConfigError(f"lag={lag} must be at least 1.")
        recipe = self._own_recipe()
        regressed = recipe.regress(panel, self.industries_)
        covered, _ = self._covered(panel)
        weights = rows.regression_weights(panel, recipe.weighting, industries=recipe.industries)
        stability = exposure_stability(self._styles_of(panel), np.where(covered, weights, 0.0), lag)
        returns, errors = self._aligned(regressed), regressed.standard_errors(self.industries_)
        missing = np.isnan(errors[:, 1 : 1 + len(self.industries_)]).sum(axis=1) * regressed.sections.kept
        return dataset(
            {"factor_returns": returns, "standard_error": errors, "t_statistic": t_statistics(returns, errors)},
            {"vif": regressed.base.vif, "stability": stability},
            {
                "r_squared": regressed.r_squared,
                "n_stocks": regressed.n_stocks,
                "n_missing_industries": missing,
                "n_unclassified": (panel.mask.values & ~covered).sum(axis=1),
            },
            {"date": panel.dates, "factor": self.factors_, "style": [*self.styles_]},
        )

    def state(self) -> ModelState:
        """Premia, means over dates, the specific variances of the weights, and names."""
        self._check_fitted()
        counts = {name: getattr(self, name) for name in _COUNTS}
        meta: dict[str, Any] = {"styles": [*self.styles_], "industries": [*self.industries_], **counts}
        arrays = {"premia": self._premia, "premia_stderr": self.premia_stderr_}
        arrays |= {name: np.asarray(getattr(self, f"{name}_")) for name in CrossSectionalModel.STATISTICS}
        if self.specific_weights_ is not None:
            meta["tickers"] = [*self.specific_weights_.tickers]
            meta["as_of"] = [date.isoformat() for date in self.specific_weights_.as_of]
            arrays["specific_variance"] = self.specific_weights_.variance
        return ModelState(arrays, meta)

    @classmethod
    def from_state(cls, params: dict[str, Any], state: ModelState) -> Self:
        """Rebuild a fitted model."""
        model, meta, arrays = cls(**params), state.meta, state.arrays
        model._name(tuple(meta["industries"]), tuple(meta["styles"]))
        model.premia_, model.premia_stderr_ = arrays["premia"], arrays["premia_stderr"]
        variance = arrays.get("specific_variance")
        for name in CrossSectionalModel.STATISTICS:
            setattr(model, f"{name}_", arrays[name])
        for name in _COUNTS:
            setattr(model, name, meta[name])
        model.specific_weights_ = None
        if variance is not None:
            as_of = pd.DatetimeIndex(meta["as_of"])
            model.specific_weights_ = rows.SpecificWeights(as_of, tuple(meta["tickers"]), variance)
        return model

    def _check_parameters(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name}={getattr(self, name)!r} is none of {', '.join(choices)}.")
        if self.huber is not None and self.huber <= 0.0:
            raise ConfigError(f"huber={self.huber} must be positive; 1.345 is usual.")
        if self.max_iter < 1 or self.refresh < 1:
            raise ConfigError("max_iter and refresh must be at least 1.")

    @property
    def _needs_rows(self) -> bool:
        """Whether Gram statistics of one design are not enough."""
        return self.weighting == "inverse_specific_variance" or self.huber is not None or bool(self.orthogonalise)

    def _recipe(self, styles: tuple[str, ...], specific: rows.SpecificWeights | None, *, industries: bool) -> Recipe:
        return Recipe(
            styles=styles,
            industries=industries,
            weighting="sqrt_cap" if self.weighting == "inverse_specific_variance" else self.weighting,
            specific=specific,
            orthogonalise=self.orthogonalise,
            by_cap=self.constraint == "cap",
            huber=self.huber,
            max_iter=self.max_iter,
            tol=self.tol,
            min_stocks=self.min_stocks,
        )

    def _own_recipe(self) -> Recipe:
        return self._recipe(self.styles_, self.specific_weights_, industries=bool(self.industries_))

    def _learn_specific_weights(self, panel: Panel) -> rows.SpecificWeights:
        """Variances of the residuals of a first pass, every ``refresh`` dates and at the end."""
        first = self.clone().set_params(weighting="sqrt_cap", missing_industries="market").fit(panel)
        residuals = first.residuals(panel).where(panel.usable)
        last = len(panel.dates) - 1
        as_of = panel.dates[sorted({*range(self.refresh - 1, last, self.refresh), last})]
        risk = SpecificRisk(halflife=self.halflife, min_observations=self.min_observations)
        return rows.SpecificWeights(as_of, tuple(panel.tickers), risk.path(residuals, as_of).values)

    def _learn(self, regressed: Regressed, styles: tuple[str, ...], specific: rows.SpecificWeights | None) -> Self:
        kept = regressed.sections.kept
        if kept.sum() < FEWEST_DATES:
            raise ModelError(
                f"Only {int(kept.sum())} of {len(kept)} dates can be regressed on market, {len(regressed.industries)} "
                f"industries and {len(styles)} styles; the largest cross-section has {int(regressed.n_stocks.max())} "
                f"stocks. {_advice(regressed.collinear)}"
            )
        seen: npt.NDArray[np.bool_] = np.logical_or.reduce(regressed.sections.present[kept], axis=0)
        self._name(
            tuple(regressed.industries[place] for place in np.flatnonzero(seen[: len(regressed.industries)])), styles
        )
        self.specific_weights_ = specific
        returns, errors = self._aligned(regressed)[kept], regressed.standard_errors(self.industries_)[kept]
        self.n_dates_ = len(returns)
        self.n_dropped_ = int((regressed.n_stocks > 0).sum()) - len(returns)
        self.n_missing_ = int(np.isnan(errors[:, 1 : 1 + len(self.industries_)]).sum())
        self.n_unfinished_ = regressed.n_unfinished
        self.premia_ = np.nanmean(returns, axis=0)
        self.premia_stderr_ = premia_errors(returns, self._lags)
        means = averages(t_statistics(returns, errors), regressed.base.vif[kept], regressed.r_squared[kept])
        for name, values in means.items():
            setattr(self, f"{name}_", values)
        self._warn()
        return self

    def _warn(self) -> None:
        if self.n_unfinished_:
            warnings.warn(
                f"Huber's iteration did not converge on {self.n_unfinished_} dates after {self.max_iter} steps; raise "
                "max_iter or tol.",
                ConvergenceWarning,
                stacklevel=4,
            )
        if self.n_missing_ and self.missing_industries == "nan":
            warnings.warn(
                f"{self.n_missing_} times an industry has no stock on a date, so that its return is NaN there and it "
                "carries alone in Omega; use coarser industries, or missing_industries='market'.",
                UserWarning,
                stacklevel=4,
            )

    def _name(self, industries: tuple[str, ...], styles: tuple[str, ...]) -> None:
        self.industries_, self.styles_ = industries, styles
        self.factors_ = [MARKET, *map(industry_name, industries), *styles]

    def _lags(self, n_dates: int) -> int:
        return automatic_lags(n_dates) if self.newey_west_lags is None else min(self.newey_west_lags, n_dates - 1)

    def _aligned(self, regressed: Regressed) -> FloatArray:
        """(date, factor) factor returns."""
        returns = regressed.factor_returns(self.industries_)
        if self.missing_industries == "market":
            returns[np.isnan(returns) & regressed.sections.kept[:, None]] = 0.0
        return returns

    def _covered(self, panel: Panel) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
        """(date, ticker) whether a stock has loadings, and its industry's position in `industries_` (or -1)."""
        covered = panel.coverage.values
        if not self.industries_:
            return covered, np.zeros(covered.shape, dtype=np.int64)
        at = {name: place for place, name in enumerate(self.industries_)}
        lookup = np.array([*(at.get(name, -1) for name in panel.industries), -1])  # a code of -1 takes the last
        codes = lookup[panel.industry.values]
        return covered & (codes >= 0), codes

    def _styles_of(self, panel: Panel) -> FloatArray:
        """(date, ticker, style) exposures, float32."""
        recipe = self._own_recipe()
        parts = [select_characteristics(recipe.prepared(block), self.styles_).values for block in panel.blocks()]
        return np.concatenate(parts)


def _styles(panel: Panel) -> tuple[str, ...]:
    """All characteristics but the constant, whose place the market takes."""
    return tuple(name for name in panel.chars if name != CONSTANT)


def _advice(involved: tuple[str, ...]) -> str:
    """Say what to leave out where too few dates can be regressed."""
    if involved:
        return f"{', '.join(involved)} are collinear on all of them: leave one out."
    return "Use fewer or less collinear styles, or coarser industries."
