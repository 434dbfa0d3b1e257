"""Models whose loadings are linear in functions of the characteristics of the date: what a fitted one answers.

Here belong loadings and factor returns. Which functions there are, and how the coefficients are estimated, belongs in
the module of each family.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import xarray as xr

from models.arrays import Float64Array, FloatArray
from models.families.base import FactorModel
from models.panel import Panel
from models.statistics.features import FeatureMap, of_characteristics
from models.statistics.gram import solve_gram
from models.statistics.rowwise import cross_sections


class ModelOfFunctions(FactorModel):
    """r[t] = phi(C[t-1]) Gamma f[t] + e[t], with functions phi of the characteristics.

    Attributes
    ----------
    chars_ : list of str
        Characteristics that vary, of which loadings are functions.
    """

    latent: ClassVar[bool] = True
    min_stocks: int
    chars_: list[str]
    _features: FeatureMap
    _gamma: Float64Array

    def loadings(self, panel: Panel) -> xr.DataArray:
        """Return phi(C[t-1]) Gamma as (date, ticker, factor); NaN where a stock is not covered.

        Raises
        ------
        ModelError
            If the panel lacks a characteristic that the model was fitted to.
        """
        self._check_fitted()
        values = of_characteristics(
            panel, self.chars_, lambda rows: self._features(rows) @ self._gamma, len(self.factors_)
        )
        coords = {"date": panel.dates, "ticker": panel.tickers, "factor": self.factors_}
        return xr.DataArray(values, coords, ("date", "ticker", "factor"), name="loadings")

    def factor_returns(self, panel: Panel) -> xr.DataArray:
        """Return the cross-sectional regressions (X'X)^-1 X'r on the loadings, as (date, factor).

        NaN on dates with fewer than ``min_stocks`` returns, and where X'X is singular.
        """
        loadings = self.loadings(panel).values
        parts: list[FloatArray] = []
        first = 0
        for block in panel.blocks():
            mask, returns = block.mask.values, block.returns.values
            gram, moment = cross_sections(loadings[first : first + len(mask)], returns, mask.astype(np.float64))
            found, rank = solve_gram(gram, moment[..., None])
            enough = (rank == len(self.factors_)) & (mask.sum(axis=1) >= self.min_stocks)
            parts.append(np.where(enough[:, None], found[..., 0], np.nan))
            first += len(mask)
        coords = {"date": panel.dates, "factor": self.factors_}
        return xr.DataArray(np.concatenate(parts), coords, ("date", "factor"), name="factor_returns")

    def _turn(self, rotation: FloatArray) -> None:
        self._gamma = self._gamma @ rotation
