"""SDFs that begin with a ridge on products of characteristics: what it says of them, and how well choices did.

Here belongs what such models tell beside their factors. What they put beside the products belongs in the module of
each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import xarray as xr

from models.arrays import Float64Array, FloatArray
from models.families.base import ModelState
from models.families.sdf.spanned import FeatureSDF
from models.statistics.features import FeatureMap

DATES_PER_FOLD = 8
"""Fewest for each block of dates that is held out."""


class ScreenedSDF(FeatureSDF):
    """A `FeatureSDF` with the relevance of each characteristic, and the Sharpe ratio on dates held out."""

    STATISTICS: ClassVar[Mapping[str, str]] = {
        "relevance": "how much the characteristic counts in the stochastic discount factor, beside the first",
        "validated_sharpe_ratio": "Sharpe ratio of the SDF factor per period, on training dates held out in turn",
    }
    relevance_: xr.DataArray
    validated_sharpe_ratio_: float

    def _judge(self, among: list[str], relevance: Float64Array, value: float) -> None:
        """Take the relevance of the characteristics that vary, among all, and `squared_sharpe` on dates held out."""
        counts = dict(zip(self.chars_, relevance, strict=True))
        self._count(among, np.array([counts.get(name, 0.0) for name in among]))
        self.validated_sharpe_ratio_ = _sharpe_ratio(value)

    def _screened_state(self) -> ModelState:
        """Return all but the features, and what a class has of its own."""
        self._check_fitted()
        meta = {
            "chars": self.chars_,
            "all_chars": self.relevance_["char"].values.tolist(),
            "validated_sharpe_ratio": self.validated_sharpe_ratio_,
        }
        return ModelState(self._linear_arrays() | {"relevance": self.relevance_.values}, meta)

    def _restore(self, features: FeatureMap, state: ModelState) -> None:
        super()._restore(features, state)
        self._count(list(state.meta["all_chars"]), state.arrays["relevance"])
        self.validated_sharpe_ratio_ = state.meta["validated_sharpe_ratio"]

    def _count(self, among: list[str], relevance: FloatArray) -> None:
        self.relevance_ = xr.DataArray(relevance, {"char": among}, ("char",), name="relevance")


def _sharpe_ratio(value: float) -> float:
    """S of S^2 / (1 + S^2), with its sign."""
    return float(np.sign(value) * np.sqrt(abs(value) / max(1.0 - abs(value), np.finfo(np.float64).eps)))
