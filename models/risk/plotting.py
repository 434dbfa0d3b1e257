"""Pictures of a risk model, for a notebook: where the volatility of a portfolio comes from.

Here belongs what is drawn of a risk model as of a date. Pictures of what is published belong in `reporting`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.risk.contributions import volatility_by_factor, volatility_by_ticker
from schemas.errors import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from models.risk.portfolio import RiskModel, Weights

_MOST_TICKERS = 15


class RiskPlot:
    """Draws a risk model as of one date with matplotlib; every method returns the axes, and draws on those given.

    Parameters
    ----------
    model : RiskModel
        Without dates.
    """

    def __init__(self, model: RiskModel) -> None:
        self._model = model

    def by_factor(self, weights: Weights, ax: Axes | None = None) -> Axes:
        """Bars of what each factor, and what is specific, adds to the volatility per period; they sum to it."""
        found = volatility_by_factor(self._one_date(), weights)
        names = [*map(str, found["factor"].values), "specific"]
        return _bars(names, np.append(found["contribution"].values, found["specific"].values), ax)

    def by_ticker(self, weights: Weights, ax: Axes | None = None) -> Axes:
        """Bars of what each ticker adds to the volatility per period, those that add or take the most."""
        part = volatility_by_ticker(self._one_date(), weights)["contribution"].to_series()
        part = part.loc[part.abs().sort_values(ascending=False).index[:_MOST_TICKERS]]
        return _bars([*map(str, part.index)], part.to_numpy(), ax)

    def _one_date(self) -> RiskModel:
        if any("date" in part.dims for part in (self._model.loadings, self._model.omega)):
            raise DataError("a picture shows one date: give the rows of one, such as version.isel(date=-1)")
        return self._model


def _bars(names: list[str], values: np.ndarray, ax: Axes | None) -> Axes:
    import matplotlib.pyplot as plt

    axes: Axes = ax or plt.subplots(layout="constrained")[1]
    axes.barh(names, values)
    axes.invert_yaxis()
    axes.axvline(0.0, color="black", linewidth=0.6)
    axes.set_xlabel("volatility per period")
    return axes
