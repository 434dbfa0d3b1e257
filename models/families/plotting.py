"""Pictures of a fitted model, for a notebook: premia, factor returns, loadings.

Here belongs what is drawn of one model. Pictures of what is published belong in `reporting`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from models.panel import Panel
from schemas.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from models.families.base import FactorModel

_MOST_TICKERS = 8
_ERRORS = 1.96
"""Standard errors on either side of a premium: 95 % of a normal."""


class ModelPlot:
    """Draws a fitted model with matplotlib; every method returns the axes, and draws on those given.

    Parameters
    ----------
    model : FactorModel
        Fitted.
    """

    def __init__(self, model: FactorModel) -> None:
        self._model = model

    def premia(self, ax: Axes | None = None) -> Axes:
        """Bars of the premia per period, with 95 % intervals where the model has errors."""
        ax = ax or _axes()
        table = self._model.summary().premia
        errors = _ERRORS * table["stderr"].to_numpy() if "stderr" in table else None
        ax.bar(np.arange(len(table)), table["estimate"].to_numpy(), yerr=errors, tick_label=[*table.index], capsize=3)
        ax.axhline(0.0, color="black", linewidth=0.6)
        ax.set_ylabel("premium per period")
        return ax

    def factor_returns(self, panel: Panel, ax: Axes | None = None) -> Axes:
        """Lines of the summed factor returns over the dates of a panel; a missing one counts as none."""
        ax = ax or _axes()
        summed = self._model.factor_returns(panel).fillna(0.0).cumsum("date").transpose("date", "factor")
        ax.plot(panel.dates, summed.values, label=[*map(str, summed["factor"].values)])
        ax.set_ylabel("sum of factor returns")
        ax.legend()
        return ax

    def loadings(
        self, panel: Panel, factor: str | None = None, tickers: Sequence[str] | None = None, ax: Axes | None = None
    ) -> Axes:
        """Lines of the loadings of some tickers on a factor.

        Parameters
        ----------
        panel : Panel
            Whose dates are drawn.
        factor : str, optional
            The first one if left out.
        tickers : sequence of str, optional
            The first few of the panel if left out.

        Raises
        ------
        ConfigError
            If the model has no such factor, or the panel no such ticker.
        """
        ax = ax or _axes()
        shown = [*(panel.tickers[:_MOST_TICKERS] if tickers is None else tickers)]
        name = self._model.factors_[0] if factor is None else factor
        _require([name], self._model.factors_, "the model", "factor")
        _require(shown, panel.tickers, "the panel", "ticker")
        values = self._model.loadings(panel).sel(factor=name, ticker=shown).transpose("date", "ticker")
        ax.plot(panel.dates, values.values, label=shown)
        ax.set_ylabel(f"loading on {name}")
        ax.legend()
        return ax


def _axes() -> Axes:
    import matplotlib.pyplot as plt

    axes: Axes = plt.subplots(layout="constrained")[1]
    return axes


def _require(wanted: Sequence[str], known: Sequence[str], whose: str, what: str) -> None:
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ConfigError(f"{whose} has no {what} {', '.join(map(repr, unknown))}; it has {', '.join(known[:20])}")
