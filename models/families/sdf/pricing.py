"""What every model of the stochastic discount factor shares: its factor, loadings on it, and how they are judged.

Here belong the SDF factor as a portfolio whose weights are a function of characteristics, and the scores SR, EV and
XS-R2. How weights and loadings are learnt belongs in the module of each model.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator

import numpy as np
import xarray as xr

from models.arrays import BoolArray, Float64Array, FloatArray
from models.families.base import FactorModel
from models.panel import Panel
from models.statistics.gram import select_characteristics
from models.statistics.rowwise import covered_values

SDF = "sdf"
"""Name of the first factor."""


class SDFModel(FactorModel):
    """A stochastic discount factor M[t] = 1 - w(C[t-1])'r[t], as the factor model r[t] = X[t-1] f[t] + e[t].

    The first factor is f[t] = sum_i w(C_i[t-1]) r_i[t] / N[t], the tangency portfolio in the units of returns; others
    may follow, portfolios whose weights are functions of characteristics as well. Loadings are functions of
    characteristics too. Source: Chen, Pelger and Zhu (2024), "Deep learning in asset pricing", Management Science 70,
    eq. 1 to 4.

    Attributes
    ----------
    chars_ : list of str
        The characteristics of which weights and loadings are functions, in the order in which these take them.
    """

    chars_: list[str]
    min_stocks: int

    @abstractmethod
    def _weights(self, rows: FloatArray) -> Float64Array:
        """Return the weights (stock, factor) of all factors, given the characteristics (stock, char) of one date."""

    @abstractmethod
    def _exposures(self, rows: FloatArray) -> Float64Array:
        """Return the loadings (stock, factor), given the characteristics (stock, char) of one date."""

    def weights(self, panel: Panel) -> xr.DataArray:
        """Return w(C[t-1]) of each factor as (date, ticker, factor), known before t; NaN where not covered.

        A factor is sum_i w_i r_i / N over the N stocks of the estimation universe that have a return.
        """
        return self._of_rows(panel, self._weights).rename("weights")

    def loadings(self, panel: Panel) -> xr.DataArray:
        """Return X[t-1] as (date, ticker, factor); NaN where a stock is not covered.

        Raises
        ------
        ModelError
            If the panel lacks a characteristic that the model was fitted to.
        """
        return self._of_rows(panel, self._exposures).rename("loadings")

    def factor_returns(self, panel: Panel) -> xr.DataArray:
        """Return f[t] as (date, factor), the SDF factor first; NaN on dates with fewer than ``min_stocks`` returns."""
        weights = self.weights(panel).values
        parts: list[Float64Array] = []
        for block in panel.blocks():
            mask, returns = block.mask.values, block.returns.values.astype(np.float64)
            for date in range(len(mask)):
                held: BoolArray = mask[date]
                own = weights[len(parts)][held]
                enough = int(held.sum()) >= self.min_stocks
                parts.append(own.T @ returns[date, held] / held.sum() if enough else np.full(own.shape[1], np.nan))
        coords = {"date": panel.dates, "factor": self.factors_}
        return xr.DataArray(np.array(parts), coords, ("date", "factor"), name="factor_returns")

    def score(self, panel: Panel) -> dict[str, float]:
        """Total and predictive R2, and the three measures of Chen, Pelger and Zhu (2024), section 3.4.

        ``sharpe_ratio`` (per period) is that of the SDF factor, ``explained_variation`` and ``cross_sectional_r2`` are
        those of the residuals r - X f.
        """
        returns, residuals = panel.returns.values, self.residuals(panel).values
        return super().score(panel) | {
            "sharpe_ratio": sharpe_ratio(self.factor_returns(panel).values[:, 0]),
            "explained_variation": explained_variation(returns, residuals, panel.mask.values),
            "cross_sectional_r2": cross_sectional_r2(returns, residuals, panel.mask.values),
        }

    def _known(self, panel: Panel) -> Iterator[tuple[FloatArray, BoolArray]]:
        """Yield what weights and loadings are functions of (date, ticker, input), and coverage, block by block."""
        for block in panel.blocks():
            yield select_characteristics(block, self.chars_).values, block.coverage.values

    def _of_rows(self, panel: Panel, function: Callable[[FloatArray], Float64Array]) -> xr.DataArray:
        """Apply a function of one cross-section, date by date, to the stocks that are covered."""
        self._check_fitted()
        width = len(self.factors_)
        blocks = [covered_values(values, covered, function, width) for values, covered in self._known(panel)]
        coords = {"date": panel.dates, "ticker": panel.tickers, "factor": self.factors_}
        return xr.DataArray(np.concatenate(blocks), coords, ("date", "ticker", "factor"))


def sharpe_ratio(factor: FloatArray) -> float:
    """Mean over standard deviation of the known returns (date,) of a factor, per period; NaN if they do not vary."""
    known = factor[np.isfinite(factor)].astype(np.float64)
    deviation = float(known.std()) if len(known) > 1 else 0.0
    return float(known.mean()) / deviation if deviation > 0.0 else float("nan")


def explained_variation(returns: FloatArray, residuals: FloatArray, mask: BoolArray) -> float:
    """EV = 1 - mean_t(mean_i e^2) / mean_t(mean_i r^2): each date counts alike (Chen, Pelger and Zhu 2024, 3.4).

    Parameters
    ----------
    returns, residuals : numpy.ndarray
        (date, ticker) of equal units.
    mask : numpy.ndarray
        (date, ticker) what counts, where the residual is known.
    """
    known = mask & np.isfinite(residuals)
    count = known.sum(axis=1)
    dates = count > 0
    left, total = (
        float((_squares(values, known).sum(axis=1)[dates] / count[dates]).sum()) for values in (residuals, returns)
    )
    return 1.0 - left / total if total > 0.0 else float("nan")


def cross_sectional_r2(returns: FloatArray, residuals: FloatArray, mask: BoolArray) -> float:
    """XS-R2 = 1 - sum_i T_i mean_t(e_i)^2 / sum_i T_i mean_t(r_i)^2 (Chen, Pelger and Zhu 2024, 3.4).

    Stock i counts by the number T_i of its dates. Parameters are those of `explained_variation`.
    """
    known = mask & np.isfinite(residuals)
    count = known.sum(axis=0)
    stocks = count > 0
    left, total = (
        float((np.square(np.where(known, values, 0.0).sum(axis=0, dtype=np.float64)[stocks]) / count[stocks]).sum())
        for values in (residuals, returns)
    )
    return 1.0 - left / total if total > 0.0 else float("nan")


def _squares(values: FloatArray, known: BoolArray) -> Float64Array:
    return np.square(np.where(known, values, 0.0).astype(np.float64))
