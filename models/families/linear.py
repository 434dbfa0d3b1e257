"""Models that need nothing of a panel but its Gram statistics.

Here belongs what they share: how they are fitted, and their scores, from the statistics alone. The statistics
themselves belong in `gram`, the maths of one model in that model's module.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Self

import numpy as np
import xarray as xr

from models.arrays import FloatArray
from models.families.base import FactorModel, contributing
from models.panel import Panel
from models.statistics.gram import Design, GramStatistics, gram_of
from schemas.errors import ModelError


class GramModel(FactorModel):
    """A factor model that is learnt from Z'WZ, Z'Wr and r'Wr of each date.

    ``fit(panel)`` and ``fit_gram`` of the statistics of the same panel give the same bits, so that whoever keeps the
    statistics need not open the panel again.
    """

    @abstractmethod
    def design(self, panel: Panel) -> Design | None:
        """Say which statistics of a panel a fit needs; None if this parameterisation needs the rows themselves.

        Only names of the panel are looked at, never its values.
        """

    @abstractmethod
    def fit_gram(self, gram: GramStatistics, observed: xr.DataArray | None = None) -> Self:
        """Fit to all dates of the statistics, and return the model itself.

        Parameters
        ----------
        gram : GramStatistics
            Of the design that `design` gives.
        observed : xarray.DataArray, optional
            (date, observed_factor) observed factor returns at the same dates, in decimals per period; None if the
            panel has none.
        """

    @abstractmethod
    def gram_factor_returns(self, gram: GramStatistics) -> FloatArray:
        """Realised factor returns of a fitted model as (date, factor); NaN where they cannot be had."""

    def gram_mapping(self) -> FloatArray:
        """(char, factor) matrix that takes the regressors to the loadings, X = Z mapping; here Z itself."""
        self._check_fitted()
        return np.eye(len(self.factors_))

    def fit(self, panel: Panel, y: None = None) -> Self:  # noqa: ARG002  # scikit-learn passes y
        """Fit to all dates of the panel.

        Raises
        ------
        ModelError
            If the panel lacks what the model needs, or the model needs the rows themselves and does not say how.
        """
        design = self.design(panel)
        if design is None:
            raise ModelError(f"{type(self).__name__} needs the rows of the panel with these parameters.")
        return self.fit_gram(gram_of(panel, design), observed=panel.factors if "factors" in panel.data else None)

    def score_gram(
        self,
        gram: GramStatistics,
        observed: xr.DataArray | None = None,  # noqa: ARG002
        over: GramStatistics | None = None,
    ) -> dict[str, float]:
        """Uncentred total and predictive R2, as `score`, for models whose loadings are Z times `gram_mapping`.

        Parameters
        ----------
        gram, observed
            As in `fit_gram`; realised factor returns follow from them.
        over : GramStatistics, optional
            Of the same dates and regressors, by whose weights the squares of returns are summed: equal ones for the R2
            over the estimation universe. Default: ``gram``.
        """
        over = gram if over is None else over
        mapping = self.gram_mapping()
        realised = contributing(self.gram_factor_returns(gram))
        return {
            "total_r2": gram_r2(over, realised @ mapping.T),
            "predictive_r2": gram_r2(over, np.broadcast_to(mapping @ self._premia, over.zr.shape)),
        }


def gram_r2(gram: GramStatistics, slopes: FloatArray) -> float:
    """Uncentred R2 of the returns explained by Z b[t], from the statistics alone; NaN if no date has any.

    1 - sum_t (r - Z b)'W(r - Z b) / sum_t r'Wr, with the numerator as r'Wr - 2 b'Z'Wr + b'Z'WZ b, over dates with
    finite slopes.

    Parameters
    ----------
    gram : GramStatistics
    slopes : numpy.ndarray
        (date, char) slopes b[t].
    """
    known = np.asarray(np.isfinite(slopes).all(axis=1))
    slopes = np.where(known[:, None], slopes, 0.0)
    explained = 2.0 * (slopes * gram.zr).sum(axis=1) - ((gram.zz @ slopes[..., None])[..., 0] * slopes).sum(axis=1)
    total = float(gram.rr[known].sum())
    return float(explained.sum()) / total if total > 0.0 else float("nan")
