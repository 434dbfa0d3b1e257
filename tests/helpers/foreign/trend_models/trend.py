"""A factor of slow characteristics in the residuals of another model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import xarray as xr
from annotated_types import Ge, Le

from models import FactorModel, ModelState, Panel
from models.arrays import Float64Array
from models.families.base import Report
from models.families.registry import packed, unpacked
from models.statistics.rowwise import cross_sections

_ROWS = 6


class ResidualTrend(FactorModel):
    """The factors of another model, and one more: the slope of its residuals on a mean of a characteristic over rows.

    Parameters
    ----------
    of : str
        Model of the run whose residuals are explained.
    characteristic : str
        Characteristic whose mean over this row and the five before is the loading.
    ridge : float
        Added to the sum of squared loadings, as a share of it.

    Attributes
    ----------
    trend_scale_ : float
        Root mean square of the loading in training.
    """

    kind: ClassVar[str] = "residual_trend"
    STATISTICS: ClassVar[Mapping[str, str]] = {"trend_scale": "root mean square of the trend loading in training"}
    trend_scale_: float

    def __init__(
        self,
        of: str,
        characteristic: str,
        ridge: Annotated[float, Ge(0.0), Le(1.0)] = 0.0,
    ) -> None:
        self.of = of
        self.characteristic = characteristic
        self.ridge = ridge

    @property
    def row_memory(self) -> int:
        """Five rows: a loading is a mean over six."""
        return _ROWS - 1

    @property
    def bases(self) -> tuple[str, ...]:
        """The model whose residuals are explained."""
        return (self.of,)

    @property
    def _base(self) -> FactorModel:
        return self._on()[0]

    def pieces(self) -> tuple[str, ...]:
        """Two halves of the training dates."""
        return ("early", "late")

    def fit_piece(self, panel: Panel, piece: str, report: Report | None = None) -> ModelState:
        """Sum the squares of the loadings of one half, and its factor returns."""
        half = len(panel.dates) // 2
        rows = slice(0, half) if piece == "early" else slice(half, None)
        trend = self._trend(panel)[rows]
        if report is not None:
            report(f"{len(trend)} dates")
        slopes = self._slopes(panel)[rows]
        sums = np.array([np.nansum(np.square(trend)), np.isfinite(trend).sum(), np.nansum(slopes)])
        return ModelState({"sums": sums, "n_dates": np.array(np.isfinite(slopes).sum())}, {"piece": piece})

    def join(self, panel: Panel, pieces: Sequence[ModelState]) -> Self:  # noqa: ARG002  # of the protocol
        """Add up the halves."""
        squares, count, slopes = np.sum([piece.arrays["sums"] for piece in pieces], axis=0)
        n_dates = int(np.sum([piece.arrays["n_dates"] for piece in pieces]))
        self.trend_scale_ = float(np.sqrt(squares / count))
        self.factors_ = [*self._base.factors_, "trend"]
        self.premia_ = np.append(self._base.premia_, slopes / max(n_dates, 1))
        return self

    def fit(self, panel: Panel, y: None = None) -> Self:  # noqa: ARG002  # scikit-learn passes y
        """Do both halves, one after the other."""
        return self.join(panel, [self.fit_piece(panel, piece) for piece in self.pieces()])

    def loadings(self, panel: Panel) -> xr.DataArray:
        """Those of the other model, and the trend of the characteristic."""
        self._check_fitted()
        before = self._base.loadings(panel).transpose("date", "ticker", "factor").values.astype(np.float64)
        values = np.concatenate([before, self._trend(panel)[..., None]], axis=2)
        values[np.isnan(values).any(axis=2)] = np.nan
        coords = {"date": panel.dates, "ticker": panel.tickers, "factor": self.factors_}
        return xr.DataArray(values, coords, ("date", "ticker", "factor"), name="loadings")

    def factor_returns(self, panel: Panel) -> xr.DataArray:
        """Those of the other model, and the slope of its residuals."""
        self._check_fitted()
        before = self._base.factor_returns(panel).transpose("date", "factor").values
        values = np.concatenate([before, self._slopes(panel)[:, None]], axis=1)
        coords = {"date": panel.dates, "factor": self.factors_}
        return xr.DataArray(values, coords, ("date", "factor"), name="factor_returns")

    def state(self) -> ModelState:
        """Keep all of the other model beside its own."""
        self._check_fitted()
        below = packed(self._on())
        own = {"premia": self.premia_.values, "trend_scale": np.array(self.trend_scale_)}
        return ModelState(below.arrays | own, below.meta)

    @classmethod
    def from_state(cls, params: dict[str, Any], state: ModelState) -> Self:
        """Rebuild both."""
        model = cls(**params).on(*unpacked(state))
        model.factors_ = [*model._base.factors_, "trend"]
        model.premia_, model.trend_scale_ = state.arrays["premia"], float(state.arrays["trend_scale"])
        return model

    def _trend(self, panel: Panel) -> Float64Array:
        """(date, ticker) mean of the characteristic over this row and the five before; NaN until there are so many."""
        values = panel.characteristics.sel(char=self.characteristic).values.astype(np.float64)
        trend = np.full(values.shape, np.nan)
        if len(values) >= _ROWS:
            total = np.zeros((len(values) - _ROWS + 1, values.shape[1]))
            for back in range(_ROWS):
                total = total + values[back : len(values) - _ROWS + 1 + back]
            trend[_ROWS - 1 :] = total / _ROWS
        return trend

    def _slopes(self, panel: Panel) -> Float64Array:
        trend = self._trend(panel)
        left = self._base.residuals(panel).transpose("date", "ticker").values.astype(np.float64)
        weights = (panel.mask.values & np.isfinite(trend) & np.isfinite(left)).astype(np.float64)
        squares, products = cross_sections(np.nan_to_num(trend)[..., None], np.nan_to_num(left), weights)
        held = squares[:, 0, 0] * (1.0 + self.ridge)
        return np.where(held > 0.0, products[:, 0] / np.where(held > 0.0, held, 1.0), np.nan)
