"""Fama-MacBeth: premia as the time-series mean of cross-sectional slopes, and their standard errors.

Here belong the regression of r[t] on known X[t-1], date by date, from Gram statistics alone, and what is done with
dates that do not identify it. Errors of premia whose regressors are themselves estimated betas belong in `two_pass`;
industries, robust regression and pure-factor portfolios in `cross_section`; portfolios sorted on characteristics in
`sorts`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr
from annotated_types import Ge, Gt

from models.arrays import BoolArray, FloatArray
from models.families.base import ModelState
from models.families.linear import GramModel
from models.inference.regression import automatic_lags
from models.inference.two_pass import factors_of, mean_covariance, shanken_covariance
from models.panel import Panel
from models.panel.assembly import CONSTANT
from models.statistics.gram import (
    INTERCEPT,
    Design,
    GramStatistics,
    Weighting,
    collinear,
    gram_of,
    select_characteristics,
    solve_gram,
)
from schemas.errors import ConfigError, ModelError

Deficient = Literal["drop", "ridge", "drop_column"]


class FamaMacBeth(GramModel):
    """Fama and MacBeth (1973): regressions of r[t] on the characteristics X[t-1] at each date, and their averages.

    Estimated betas are those of `models.inference.two_pass.full_sample_betas`. An ``intercept`` is added unless the
    panel has a characteristic ``constant``. A date is dropped (NaN slopes) if it has fewer than ``min_stocks`` stocks.
    What becomes of a date whose regressors are rank deficient, by the rule of `models.statistics.gram.solve_gram`, is
    said by ``deficient``.

    Parameters
    ----------
    newey_west_lags : int, optional
        Lags of the Bartlett kernel in the standard errors of the premia. Default: floor(4 (T/100)^(2/9)) with T the
        dates that were not dropped. Slopes of the remaining dates are taken as neighbours.
    min_stocks : int, optional
        Fewest stocks of a date; a date with fewer is dropped. Default: its regressors plus one, so that a slope always
        has a residual beside it.
    weighting : {"equal", "cap", "sqrt_cap"}
        Weight of a stock in a cross-section: the same for all, its market weight, or the square root of that.
    deficient : {"drop_column", "drop", "ridge"}
        What becomes of a rank-deficient date. "drop_column": a characteristic that nobody has on a date (zero for every
        stock of the estimation universe, which is what a transform leaves of a missing one) has no slope on that date,
        NaN, and the other slopes are estimated without it; a date that is deficient for another reason is dropped.
        "drop": every deficient date is dropped. "ridge": as "drop_column", but collinear dates get ridge slopes instead
        of none.
    ridge : float
        Added to the unit diagonal of the scaled Gram matrix of a collinear date; deficient "ridge" only.
    debiased : bool
        Divide the squares of n slopes by n - 1 instead of n, as linearmodels does if asked to.
    estimated_betas : mapping of str to str, optional
        Characteristics that are betas estimated in a first pass, each with its observed factor: the premia then also
        get errors of Shanken (1992). Characteristics that are not named are taken as known without error.

    Attributes
    ----------
    premia_ : xarray.DataArray
        (factor,) mean slope per period over the dates that have it.
    premia_stderr_, t_statistics_ : numpy.ndarray
        (factor,) its Newey-West standard error, and the ratio of it to that, or to the Shanken error if there is one.
    premia_covariance_ : numpy.ndarray
        (factor, factor) Newey-West covariance of the premia, positive semidefinite.
    shanken_stderr_ : numpy.ndarray or None
        (factor,) see `models.inference.two_pass.shanken_covariance`; None without ``estimated_betas``.
    n_slopes_ : numpy.ndarray
        (factor,) dates over which each premium is averaged.
    n_dates_, n_dropped_ : int
        Dates that entered, and dates with stocks that did not.
    n_partial_, n_ridged_ : int
        Of the dates that entered, those that lack the slope of a characteristic, and those with ridge slopes.

    Notes
    -----
    On complete dates slopes, premia and errors are those of ``linearmodels.FamaMacBeth`` (with this bandwidth). They
    differ in three points: ``linearmodels`` drops every deficient date and has no other way; it picks its default
    bandwidth from the data, where this one depends on T alone; and it accepts a date with as many stocks as regressors.

    The error of a premium that some dates lack is that of a mean over its own dates: deviations count as zero
    elsewhere.

    Examples
    --------
    >>> from models import FamaMacBeth
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> model = FamaMacBeth().fit(panel)
    >>> model.factors_
    ['size', 'value', 'constant']
    >>> model.n_dates_
    119
    """

    kind: ClassVar[str] = "fama_macbeth"
    STATISTICS: ClassVar[Mapping[str, str]] = {
        "t_statistics": "premia over their standard errors",
        "n_slopes": "number of dates behind the premium",
        "shanken_stderr": "standard error of the premia with Shanken's correction for estimated betas, per period",
    }

    def __init__(
        self,
        newey_west_lags: Annotated[int, Ge(0)] | None = None,
        min_stocks: Annotated[int, Ge(1)] | None = None,
        weighting: Weighting = "equal",
        deficient: Deficient = "drop_column",
        ridge: Annotated[float, Gt(0.0)] = 1e-4,
        debiased: bool = False,
        estimated_betas: Mapping[str, str] | None = None,
    ) -> None:
        self.newey_west_lags = newey_west_lags
        self.min_stocks = min_stocks
        self.weighting = weighting
        self.deficient = deficient
        self.ridge = ridge
        self.debiased = debiased
        self.estimated_betas = estimated_betas

    chars_: tuple[str, ...]
    premia_stderr_: FloatArray
    premia_covariance_: FloatArray
    shanken_stderr_: FloatArray | None
    n_slopes_: npt.NDArray[np.int64]
    n_dates_: int
    n_dropped_: int
    n_partial_: int
    n_ridged_: int

    def design(self, panel: Panel) -> Design:
        """All characteristics, an intercept unless there is a ``constant``, and the weighting.

        Raises
        ------
        ModelError
            If the panel has no characteristics.
        """
        if not panel.chars:
            raise ModelError("FamaMacBeth needs characteristics; this panel has none.")
        return self._design(tuple(panel.chars), intercept=CONSTANT not in panel.chars)

    def fit_gram(self, gram: GramStatistics, observed: xr.DataArray | None = None) -> Self:
        """Regress at each date, and average.

        Raises
        ------
        ModelError
            If fewer than two dates can be regressed or have the slope of a characteristic, or ``estimated_betas``
            names what is not there.
        ConfigError
            If a parameter is unknown or out of bounds.
        """
        self._check_parameters()
        found = self._regress(gram)
        kept = np.isfinite(found.slopes).any(axis=1)
        slopes = found.slopes[kept]
        counts = np.isfinite(slopes).sum(axis=0)
        if min(kept.sum(), counts.min()) < 2:
            raise ModelError(_too_few(gram, int(kept.sum()), counts))
        lags = automatic_lags(len(slopes)) if self.newey_west_lags is None else self.newey_west_lags
        self.premia_ = np.nanmean(slopes, axis=0)
        self.premia_covariance_ = mean_covariance(slopes, lags, debiased=self.debiased)
        self.premia_stderr_ = np.sqrt(np.diagonal(self.premia_covariance_))
        self.shanken_stderr_ = None
        if self.estimated_betas:
            factors = factors_of(self.estimated_betas, gram, observed)[kept]
            covariance = shanken_covariance(slopes, factors, lags, debiased=self.debiased)
            self.shanken_stderr_ = np.sqrt(np.diagonal(covariance))
        self.factors_ = [*gram.chars]
        self.chars_ = gram.chars[1:] if gram.chars[0] == INTERCEPT else gram.chars
        self.n_slopes_ = counts
        self.n_dates_ = len(slopes)
        self.n_dropped_ = int((gram.n > 0).sum()) - len(slopes)
        self.n_partial_, self.n_ridged_ = int((found.lost.any(axis=1) & kept).sum()), int(found.ridged.sum())
        self._tell()
        return self

    @property
    def t_statistics_(self) -> FloatArray:
        """(factor,) premia over their standard errors: Shanken's where there are estimated betas."""
        return self._premia / (self.premia_stderr_ if self.shanken_stderr_ is None else self.shanken_stderr_)

    def loadings(self, panel: Panel) -> xr.DataArray:
        """Give the characteristics themselves, float32, as (date, ticker, factor); NaN where not covered."""
        self._check_fitted()
        values = select_characteristics(panel, self.chars_).values
        if self._has_intercept:
            ones = np.where(panel.coverage.values, 1.0, np.nan).astype(values.dtype)
            values = np.concatenate([ones[..., None], values], axis=2)
        coords = {"date": panel.dates, "ticker": panel.tickers, "factor": self.factors_}
        return xr.DataArray(values, coords, ("date", "ticker", "factor"), name="loadings")

    def factor_returns(self, panel: Panel) -> xr.DataArray:
        """Cross-sectional slopes as (date, factor); NaN on dropped dates, and where nobody has the characteristic."""
        self._check_fitted()
        gram = gram_of(panel, self._design(self.chars_, intercept=self._has_intercept))
        coords = {"date": panel.dates, "factor": self.factors_}
        return xr.DataArray(self.gram_factor_returns(gram), coords, ("date", "factor"), name="factor_returns")

    def gram_factor_returns(self, gram: GramStatistics) -> FloatArray:
        """Slopes as (date, factor), as `factor_returns` gives them."""
        self._check_fitted()
        return self._regress(gram).slopes

    def state(self) -> ModelState:
        """Premia with their errors, names and counts."""
        self._check_fitted()
        arrays = {"premia": self._premia, "premia_covariance": self.premia_covariance_, "n_slopes": self.n_slopes_}
        if self.shanken_stderr_ is not None:
            arrays["shanken_stderr"] = self.shanken_stderr_
        counts = {name: getattr(self, f"{name}_") for name in _COUNTS}
        return ModelState(arrays, {"chars": [*self.chars_], "factors": self.factors_, **counts})

    @classmethod
    def from_state(cls, params: dict[str, Any], state: ModelState) -> Self:
        """Rebuild a fitted model."""
        model = cls(**params)
        model.premia_, model.premia_covariance_ = state.arrays["premia"], state.arrays["premia_covariance"]
        model.premia_stderr_ = np.sqrt(np.diagonal(model.premia_covariance_))
        model.shanken_stderr_ = state.arrays.get("shanken_stderr")
        model.n_slopes_ = state.arrays["n_slopes"]
        model.chars_, model.factors_ = tuple(state.meta["chars"]), [*state.meta["factors"]]
        for name in _COUNTS:
            setattr(model, f"{name}_", state.meta[name])
        return model

    @property
    def _has_intercept(self) -> bool:
        return len(self.factors_) > len(self.chars_)

    def _design(self, chars: tuple[str, ...], *, intercept: bool) -> Design:
        return Design(chars, intercept=intercept, weighting=self.weighting)

    def _check_parameters(self) -> None:
        for name, choices in (("deficient", Deficient), ("weighting", Weighting)):
            if getattr(self, name) not in get_args(choices):
                raise ConfigError(f"{name}='{getattr(self, name)}' is unknown; choose one of {get_args(choices)}.")
        if self.deficient == "ridge" and not self.ridge > 0.0:
            raise ConfigError(f"ridge={self.ridge} must be positive.")

    def _regress(self, gram: GramStatistics) -> _Slopes:
        """Regress all dates at once; a column that is lost has a unit diagonal in its place, and so no say."""
        zz, size = gram.zz, len(gram.chars)
        lost = np.diagonal(zz, axis1=1, axis2=2) <= 0.0
        if self.deficient == "drop":
            lost = np.zeros_like(lost)
        elif lost.any():
            zz = zz + lost[:, :, None] * np.eye(size)
        solution, rank = solve_gram(zz, gram.zr[..., None])
        least = size - lost.sum(axis=1) + 1 if self.min_stocks is None else self.min_stocks
        enough, full = gram.n >= np.maximum(least, 1), rank == size
        ridged = enough & ~full if self.deficient == "ridge" else np.zeros_like(full)
        if ridged.any():
            diagonal = np.diagonal(zz[ridged], axis1=1, axis2=2)
            penalised = zz[ridged] + self.ridge * diagonal[:, :, None] * np.eye(size)
            solution[ridged], _ = solve_gram(penalised, gram.zr[ridged, :, None])
        known = (enough & (full | ridged))[:, None] & ~lost
        return _Slopes(np.where(known, solution[..., 0], np.nan), lost, ridged)

    def _tell(self) -> None:
        """Warn of dates that entered otherwise than by least squares on all characteristics."""
        told = []
        if self.n_partial_:
            short = [name for name, n in zip(self.factors_, self.n_slopes_, strict=True) if n < self.n_dates_]
            told.append(
                f"{self.n_partial_} lack the slope of a characteristic that nobody has ({', '.join(short[:5])})"
            )
        if self.n_ridged_:
            told.append(f"{self.n_ridged_} are collinear and have ridge slopes")
        if told:
            warnings.warn(f"Of {self.n_dates_} dates of FamaMacBeth {'; '.join(told)}.", stacklevel=3)


_COUNTS = ("n_dates", "n_dropped", "n_partial", "n_ridged")


class _Slopes(NamedTuple):
    """(date, factor) slopes; (date, factor) which columns a date has lost; (date,) which dates are ridged."""

    slopes: FloatArray
    lost: BoolArray
    ridged: BoolArray


def _too_few(gram: GramStatistics, n_dates: int, counts: npt.NDArray[np.int64]) -> str:
    """Say what to do: name the characteristics that no stock has on most dates, if that is the cause."""
    squares = np.diagonal(gram.zz, axis1=1, axis2=2)[gram.n > 0]
    empty = [name for name, share in zip(gram.chars, (squares == 0.0).mean(axis=0), strict=True) if share > 0.5]
    advice = "Use fewer or less collinear characteristics."
    if empty:
        advice = f"No stock has {', '.join(empty)} on most of them: leave these out, or start the panel later."
    elif involved := collinear(gram.zz.sum(axis=0), gram.chars):
        advice = f"{', '.join(involved)} are collinear on all of them: leave one out."
    usable = min(n_dates, int(counts.min()))
    return (
        f"Only {usable} of {len(gram.dates)} dates can be regressed on {len(gram.chars)} "
        f"regressors; the largest cross-section has {int(gram.n.max())} stocks. {advice}"
    )
