"""Factor models whose loadings are given and whose factor returns are cross-sectional regressions.

Here belongs the regression of r[t] on known X[t-1], date by date, from Gram statistics alone. Latent loadings
belong in `pca` and `ipca`.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import xarray as xr

from models.assembly import CONSTANT
from models.base import FactorModel, FloatArray, ModelState
from models.gram import GramStatistics, gram_statistics, select_characteristics, solve_gram
from models.inference import automatic_lags, newey_west_covariance
from models.panel import Panel
from schemas.errors import ModelError


class FamaMacBeth(FactorModel):
    """Fama and MacBeth (1973): least squares of r[t] on the characteristics X[t-1] at each date, averaged.

    An ``intercept`` is added unless the panel has a characteristic ``constant``. A date is dropped (NaN
    slopes) if it has fewer than ``min_stocks`` stocks, or if its regressors are rank deficient: see
    `models.gram.solve_gram` for the rule.

    Parameters
    ----------
    newey_west_lags : int, optional
        Lags of the Bartlett kernel in the standard errors of the premia. Default: floor(4 (T / 100)^(2/9))
        with T the dates that were not dropped. The divisor is T, as in ``linearmodels`` with
        ``debiased=False`` and this bandwidth; slopes of the remaining dates are taken as neighbours, as
        there.
    min_stocks : int, optional
        Default: number of regressors plus one, so that a slope always has a residual beside it.

    Attributes
    ----------
    premia_, premia_stderr_, t_statistics_ : numpy.ndarray
        (factor,) mean slope per period, its Newey-West standard error, and their ratio.
    n_dates_, n_dropped_ : int
        Dates that entered, and dates with stocks that did not.
    """

    def __init__(self, newey_west_lags: int | None = None, min_stocks: int | None = None) -> None:
        self.newey_west_lags = newey_west_lags
        self.min_stocks = min_stocks

    chars_: tuple[str, ...]
    premia_stderr_: FloatArray
    n_dates_: int
    n_dropped_: int

    def fit(self, panel: Panel) -> Self:
        """Regress at each date, and average.

        Raises
        ------
        ModelError
            If the panel has no characteristics, or fewer than two dates can be regressed.
        """
        chars = tuple(panel.chars)
        if not chars:
            raise ModelError("FamaMacBeth needs characteristics; this panel has none.")
        gram = gram_statistics(panel, chars=chars, intercept=CONSTANT not in chars)
        slopes = self._slopes(gram)
        kept = np.isfinite(slopes).all(axis=1)
        if kept.sum() < 2:
            raise ModelError(
                f"Only {int(kept.sum())} of {len(gram.dates)} dates can be regressed on {len(gram.chars)} "
                f"regressors; the largest cross-section has {int(gram.n.max())} stocks. {_advice(gram)}"
            )
        slopes = slopes[kept]
        lags = automatic_lags(len(slopes)) if self.newey_west_lags is None else self.newey_west_lags
        self.premia_stderr_ = np.sqrt(np.diagonal(newey_west_covariance(slopes, lags)))
        self.premia_ = slopes.mean(axis=0)
        self.chars_ = chars
        self.factors_ = [*gram.chars]
        self.n_dates_ = len(slopes)
        self.n_dropped_ = int((gram.n > 0).sum()) - len(slopes)
        return self

    @property
    def t_statistics_(self) -> FloatArray:
        """(factor,) premia over their standard errors."""
        return self.premia_ / self.premia_stderr_

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
        """Cross-sectional slopes as (date, factor); NaN on dropped dates."""
        self._check_fitted()
        gram = gram_statistics(panel, chars=self.chars_, intercept=self._has_intercept)
        coords = {"date": panel.dates, "factor": self.factors_}
        return xr.DataArray(self._slopes(gram), coords, ("date", "factor"), name="factor_returns")

    def state(self) -> ModelState:
        """Premia with their standard errors, and names."""
        self._check_fitted()
        meta = {
            "chars": [*self.chars_],
            "factors": self.factors_,
            "n_dates": self.n_dates_,
            "n_dropped": self.n_dropped_,
        }
        return ModelState({"premia": self.premia_, "premia_stderr": self.premia_stderr_}, meta)

    @classmethod
    def from_state(cls, params: dict[str, Any], state: ModelState) -> Self:
        """Rebuild a fitted model."""
        model = cls(**params)
        model.premia_, model.premia_stderr_ = state.arrays["premia"], state.arrays["premia_stderr"]
        model.chars_, model.factors_ = tuple(state.meta["chars"]), [*state.meta["factors"]]
        model.n_dates_, model.n_dropped_ = state.meta["n_dates"], state.meta["n_dropped"]
        return model

    @property
    def _has_intercept(self) -> bool:
        return len(self.factors_) > len(self.chars_)

    def _slopes(self, gram: GramStatistics) -> FloatArray:
        """(date, factor) slopes; NaN on dates with too few stocks or collinear regressors."""
        n_regressors = len(gram.chars)
        solution, rank = solve_gram(gram.zz, gram.zr[..., None])
        enough = gram.n >= (n_regressors + 1 if self.min_stocks is None else self.min_stocks)
        return np.where((enough & (rank == n_regressors))[:, None], solution[..., 0], np.nan)


def _advice(gram: GramStatistics) -> str:
    """Say what to do: name the characteristics that no stock has on most dates, if that is the cause."""
    squares = np.diagonal(gram.zz, axis1=1, axis2=2)[gram.n > 0]
    empty = [name for name, share in zip(gram.chars, (squares == 0.0).mean(axis=0), strict=True) if share > 0.5]
    if empty:
        return f"No stock has {', '.join(empty)} on most of them: leave these out, or start the panel later."
    return "Use fewer or less collinear characteristics."
