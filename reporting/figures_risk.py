"""Figures about risk: forecast against realised volatility, its decomposition, and specific risk.

Each function draws one figure within `canvas.drawing` and says in its docstring what it shows; its caption says to
the reader how to read it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from reporting.canvas import (
    GRID,
    INK,
    MUTED,
    PALETTE,
    PAPER,
    Chart,
    Key,
    Picture,
    date_axis,
    days,
    grid,
    keys,
    line,
    shown,
    thin,
    to_svg,
)
from reporting.figures import MOST_FACTORS, dated, whole_span
from reporting.published import (
    OTHER,
    REALISED_WINDOW,
    SPECIFIC,
    Floats,
    PublishedVersion,
    forecast_volatility,
    portfolios_of,
    realised_volatility,
    specific_volatility,
    variance_shares,
)

MOST_SPECIFIC = 15


def volatility(versions: Sequence[PublishedVersion]) -> Chart | None:
    """Draw each portfolio's forecast volatility by model against its trailing realised volatility, annualised."""
    portfolios = portfolios_of(versions)
    if not portfolios:
        return None
    periods = versions[0].periods_per_year
    window = REALISED_WINDOW[periods]
    figure, axes = grid(len(portfolios), 1, row_height=2.0)
    for ax, portfolio in zip(axes, portfolios, strict=True):
        holders = [
            (place, v, v.portfolios.index(portfolio)) for place, v in enumerate(versions) if portfolio in v.portfolios
        ]
        _, first, row = holders[0]
        line(ax, first.dates, realised_volatility(first)[row], 0, colour=INK, width=1.5)
        for place, version, row in holders:
            line(ax, version.dates, forecast_volatility(version)[row], place)
        ax.set_title(shown(portfolio, 60))
        ax.set_ylabel("volatility, % a year")
        ax.set_ylim(bottom=0.0)
    date_axis(axes, whole_span(versions), "as-of date")
    svg = to_svg(figure, "volatility", "Forecast and realised volatility of each portfolio, by model")
    forecasts = keys([f"forecast, {version.model}" for version in versions])
    legend = (Key(f"realised, trailing {window} dates", INK), *forecasts)
    return Chart(
        (Picture("Forecast and realised volatility", dated(*versions), svg, legend),),
        f"Annualised (× √{periods}). The forecast is for the period after the as-of date; it starts at the first "
        f"refit. Realised is the root mean square of the last {window} portfolio returns, as the first model holds the "
        "portfolio: it looks back where the forecast looks ahead, and so lags by construction. A forecast that stays "
        "below realised volatility understates risk.",
    )


def decomposition(versions: Sequence[PublishedVersion]) -> Chart | None:
    """Draw the shares of portfolio variance over time, a picture per model: factors stacked, then the specific part."""
    if not portfolios_of(versions):
        return None
    return Chart(
        tuple(_decomposition(v, f"parts{place}") for place, v in enumerate(versions) if v.portfolios),
        "Euler contributions of the factors and the specific part, as shares of the forecast variance; they sum to "
        "100% at every date, from the first refit on. An area below zero is a factor that hedges. Empty where a "
        "held stock is not covered. A large specific share means that the factors do not see what the portfolio bets "
        "on.",
    )


def _decomposition(version: PublishedVersion, key: str) -> Picture:
    parts, shares = variance_shares(version, MOST_FACTORS)
    colours = [_part_colour(part, position) for position, part in enumerate(parts)]
    first = int(np.argmax(np.isfinite(shares).any(axis=(0, 1))))
    kept = first + thin(len(version.dates) - first, 180)
    figure, axes = grid(len(version.portfolios), 3, row_height=1.9, sharey=True)
    for number, (ax, portfolio) in enumerate(zip(axes, version.portfolios, strict=True)):
        _stack(ax, version.dates[kept], shares[:, number, kept], colours)
        ax.set_title(shown(portfolio, 40))
        if number % 3 == 0:
            ax.set_ylabel("share of variance, %")
    date_axis(axes, version.dates[first:], "as-of date")
    svg = to_svg(figure, key, f"Portfolio variance by factor and specific, {version.model}")
    legend = tuple(Key(part, colour, "area") for part, colour in zip(parts, colours, strict=True))
    return Picture(version.model, dated(version), svg, legend)


def specific(versions: Sequence[PublishedVersion]) -> Chart | None:
    """Draw the stocks with the largest annualised specific volatility as of the last date, a mark per model."""
    found = {version.model: specific_volatility(version) for version in versions}
    known = {model: result for model, result in found.items() if result is not None}
    if not known:
        return None
    frame = pd.DataFrame({model: series for model, (series, _) in known.items()})
    colours = {model: PALETTE[place % len(PALETTE)] for place, model in enumerate(found)}
    order = frame.median(axis=1).sort_values(ascending=False, kind="stable").index[:MOST_SPECIFIC]
    largest, places = frame.loc[order], np.arange(len(order))
    figure, (ax,) = grid(1, 1, row_height=0.6 + 0.21 * len(order))
    ax.hlines(places, largest.min(axis=1), largest.max(axis=1), color=GRID, linewidth=2.5)
    for model in known:
        ax.axvline(float(frame[model].median()), color=colours[model], linewidth=0.8, linestyle="dashed")
        ax.plot(largest[model], places, "o", color=colours[model], markersize=6.5, markeredgecolor=PAPER)
    ax.set_yticks(places, [shown(str(ticker)) for ticker in order])
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.set_ylim(len(order) - 0.4, -0.6)
    ax.set_xlim(left=0.0)
    ax.grid(visible=True, axis="x")
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("specific volatility, % a year")
    stamps = sorted({f"{stamp:%Y-%m-%d}" for _, stamp in known.values()})
    marks = tuple(Key(model, colours[model], "dot") for model in known)
    svg = to_svg(figure, "specific", "Stocks with the largest specific volatility, by model")
    legend = (*marks, Key("median stock of the model, same colour", MUTED, "dashed"))
    return Chart(
        (Picture("Largest specific risks", f"as of {', '.join(stamps)}", svg, legend),),
        "Volatility of the return that the factors leave unexplained, annualised "
        f"(× √{versions[0].periods_per_year}): the {len(order)} stocks with the largest, ranked by the median over "
        "models. Marks far apart are stocks on which the models disagree.",
    )


def _part_colour(part: str, position: int) -> str:
    if part == SPECIFIC:
        return GRID
    return MUTED if part == OTHER else PALETTE[position % len(PALETTE)]


def _stack(ax: Axes, dates: pd.DatetimeIndex, shares: Floats, colours: Sequence[str]) -> None:
    """Stack positive parts (part, date) upwards and negative ones downwards from zero."""
    stamps = days(dates)
    known = np.isfinite(shares).all(axis=0)
    for sign in (1.0, -1.0):
        upper = np.cumsum(np.clip(sign * np.nan_to_num(shares), 0.0, None), axis=0) * sign
        lower = np.vstack([np.zeros(len(stamps)), upper[:-1]])
        for bottom, top, colour in zip(lower, upper, colours, strict=True):
            if (bottom != top).any():
                ax.fill_between(stamps, bottom, top, where=known, facecolor=colour, edgecolor="none")
    ax.axhline(0.0, color=INK, linewidth=0.6)
