"""Charts of the explorer: series of one published version, and the parts of one risk, as interactive pictures.

Here belongs what is drawn of a dataset that may be lazy: a chart reads the rows that it shows and no others. Which
version is shown, widgets and the server belong in `deploy`; pictures for the report, which has no script, in `figures`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from hvplot import hvPlot

from models.risk.book import BookRisk
from reporting.canvas import PALETTE, shown
from reporting.readings import (
    OTHER,
    REALISED_WINDOW,
    SPECIFIC,
    PublishedVersion,
    forecast_volatility,
    realised_volatility,
)

MOST_FACTORS = 5
"""Factors that are drawn by themselves; more lines cannot be told apart."""
MOST_BARS = 15
_HEIGHT = 300
_BAR = 26
_LOOKS: dict[str, Any] = {
    "toolbar": "above",
    "active_tools": ["box_zoom"],  # not the wheel, which scrolls the page
    "backend_opts": {"plot.toolbar.logo": None, "plot.toolbar.autohide": True},
}


def volatility(version: PublishedVersion, portfolio: str) -> Any:
    """Draw the forecast volatility of a portfolio against what was realised, both in percent a year.

    Parameters
    ----------
    version : PublishedVersion
        Its dataset may be lazy.
    portfolio : str
        One of its portfolios.

    Returns
    -------
    holoviews.Overlay
        Realised is the root mean square of the last dates, and so lags.
    """
    window = REALISED_WINDOW[version.periods_per_year]
    series = {
        "forecast": forecast_volatility(version, portfolio),
        f"realised, trailing {window} dates": realised_volatility(version, portfolio),
    }
    return _lines(pd.DataFrame(series, index=version.dates), "volatility, % a year", lowest=0.0)


def shares(version: PublishedVersion, portfolio: str) -> Any:
    """Draw the shares of the variance of a portfolio through time, in percent: leading factors, others, specific.

    A factor that hedges is below zero. The factors that lead are those of the largest mean share, whatever its sign.

    Parameters
    ----------
    version : PublishedVersion
        Its dataset may be lazy.
    portfolio : str
        One of its portfolios.

    Returns
    -------
    holoviews.Overlay
    """
    rows = version.dataset.sel(portfolio=portfolio)
    total = rows["portfolio_variance"]
    total = total.where(total > 0.0)
    factors = _by_factor(version, "portfolio_variance_factor", portfolio).div(total.to_series(), axis=0) * 100.0
    leading, others = _leading(factors)
    drawn = factors[leading]
    if others:
        drawn = drawn.assign(**{OTHER: factors[others].sum(axis=1, min_count=len(others))})
    specific = (rows["portfolio_variance_specific"] / total).to_series() * 100.0
    return _lines(drawn.assign(**{SPECIFIC: specific}), "share of variance, %")


def exposures(version: PublishedVersion, portfolio: str) -> Any | None:
    """Draw the largest exposures X'w of a portfolio to factors through time; None if the version has none.

    Parameters
    ----------
    version : PublishedVersion
        Its dataset may be lazy.
    portfolio : str
        One of its portfolios.

    Returns
    -------
    holoviews.Overlay or None
    """
    if "portfolio_exposure" not in version.dataset:
        return None
    factors = _by_factor(version, "portfolio_exposure", portfolio)
    return _lines(factors[_leading(factors)[0]], "exposure, 1")


def contributions(found: BookRisk) -> Any:
    """Draw what factors, and the specific part, bring to the volatility of a book, in percent a year.

    Parameters
    ----------
    found : BookRisk
        As `RiskModel.open(...).risk(...)` gives it.

    Returns
    -------
    holoviews.Bars
        The largest ones by size, the largest first; with the rest of the factors they sum to the volatility.
    """
    parts = found.by_factor["contribution"].copy()
    parts.loc[SPECIFIC] = found.specific
    parts.index = parts.index.map(lambda name: shown(str(name)))
    order = parts.abs().sort_values(ascending=False, kind="stable").index[:MOST_BARS]
    bars = (parts[order][::-1] * math.sqrt(found.periods_per_year) * 100.0).rename("volatility from it, % a year")
    drawn = hvPlot(bars.rename_axis("factor").reset_index()).barh(
        x="factor", y=bars.name, color=PALETTE[0], xlabel="", responsive=True, height=90 + _BAR * len(bars), grid=True
    )
    return drawn.opts(**_LOOKS, line_alpha=0.0)


def _lines(frame: pd.DataFrame, label: str, lowest: float | None = None) -> Any:
    """Draw columns over dates; where nothing is known yet, the axis begins later."""
    known = frame.notna().any(axis=1).to_numpy()
    drawn = frame.iloc[int(np.argmax(known)) :]
    drawn = drawn.set_axis([shown(str(name), 40) for name in drawn], axis=1).rename_axis("date")
    lines = hvPlot(drawn).line(
        x="date", xlabel="", ylabel=label, ylim=(lowest, None), color=list(PALETTE), responsive=True, height=_HEIGHT,
        grid=True, legend="bottom", group_label="series", value_label="value",
    )  # fmt: skip
    return lines.opts(**_LOOKS, legend_cols=3, legend_opts={"title": "", "border_line_alpha": 0.0})


def _by_factor(version: PublishedVersion, name: str, portfolio: str) -> pd.DataFrame:
    rows = version.dataset[name].sel(portfolio=portfolio).transpose("date", "factor")
    return pd.DataFrame(rows.values, index=version.dates, columns=version.factors)


def _leading(factors: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Return the names of the factors that matter most, in their own order, and those of the others."""
    largest = factors.abs().mean().sort_values(ascending=False, kind="stable").index[:MOST_FACTORS]
    names = [str(name) for name in factors]
    return [name for name in names if name in largest], [name for name in names if name not in largest]
