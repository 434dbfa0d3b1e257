"""Figures that compare models: bias, bias by rank of eigenportfolios, specific risk, and the frontier.

Each function draws one figure within `canvas.drawing` and says in its docstring what it shows; its caption says to
the reader how to read it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from models.evaluation.calibration import bias_interval, kurtosis
from models.evaluation.ranks import RANKS
from reporting.canvas import (
    GRID,
    HALF,
    INK,
    MUTED,
    PAPER,
    SHADE,
    WIDE,
    Chart,
    Picture,
    curves,
    legend,
    over_dates,
    shown,
    to_svg,
)
from reporting.figures import dated, whole_span
from reporting.readings import (
    Frontier,
    PublishedVersion,
    bias_by_rank,
    frontier,
    out_of_sample_start,
    portfolios_of,
    specific_volatility,
    surprises,
    trailing_bias,
)

MOST_SPECIFIC = 15


def bias(versions: Sequence[PublishedVersion]) -> Chart | None:
    """Draw each portfolio's bias statistic of the trailing year, by model, in the band of true forecasts."""
    portfolios, periods = portfolios_of(versions), versions[0].periods_per_year
    found = [[trailing_bias(version, portfolio) for version in versions] for portfolio in portfolios]
    if not any(np.isfinite(values).any() for of_models in found for values in of_models):
        return None
    start = min(start for version in versions if (start := out_of_sample_start(version)) is not None)
    dates = pd.DatetimeIndex([start, whole_span(versions)[-1]])
    figure, axes = over_dates(len(portfolios), dates, ("date", "bias statistic, 1"), height=1.8)
    for ax, portfolio, of_models in zip(axes, portfolios, found, strict=True):
        tails = kurtosis(np.concatenate([surprises(version, portfolio) for version in versions]))
        wide = ax.axhspan(*bias_interval(periods, kurtosis=tails if tails > 1.0 else 3.0), facecolor=SHADE, zorder=0)
        for edge in bias_interval(periods):
            normal = ax.axhline(edge, color=MUTED, linewidth=0.7, linestyle="dotted")
        ax.axhline(1.0, color=INK, linewidth=0.6)
        lines = [line for v, values in zip(versions, of_models, strict=True) for line in curves(ax, v.dates, values)]
        ax.set_title(shown(portfolio, 60))
    bands = [(wide, "95% of true forecasts, tails as met"), (normal, "95%, normal returns")]
    legend(figure, [*zip(lines, [version.model for version in versions], strict=True), *bands])
    alt = "Trailing bias statistic of each portfolio, by model, with its bands"
    return Chart(
        (Picture("Bias through time", dated(*versions), to_svg(figure, "bias"), alt),),
        f"Standard deviation of the last {periods} returns over their forecast volatilities, out of sample, with at "
        "least half of them known. Above the band risk was understated, below it overstated; the shaded band allows "
        "for the tails that these returns have, the dotted one for normal returns. One year in twenty lies outside "
        "by chance, and a line stays there for a year, for its windows overlap.",
    )


def ranks(versions: Sequence[PublishedVersion]) -> Chart | None:
    """Draw each model's bias statistic by rank of its own eigenportfolios, with 95% intervals, models side by side."""
    read = [(version.model, bias_by_rank(version)) for version in versions]
    found = {model: biases for model, biases in read if biases is not None and len(biases)}
    if not found:
        return None
    shares = [biases.index for biases in found.values()]
    buckets = [rank for rank in RANKS if any(rank in index for index in shares)]
    figure = Figure(figsize=(WIDE, 2.6), layout="constrained")
    ax = figure.subplots()
    ax.axhline(1.0, color=INK, linewidth=0.6)
    step = 0.6 / len(found)
    entries: list[tuple[Artist, str]] = []
    for number, (model, biases) in enumerate(found.items()):
        places = np.array([buckets.index(rank) for rank in biases.index]) + (number - (len(found) - 1) / 2.0) * step
        ax.vlines(places, biases["low"], biases["high"], color=f"C{number}", linewidth=1.5)
        marks = ax.plot(places, biases["bias"], "o", color=f"C{number}", markersize=5.0, markeredgecolor=PAPER)
        entries.append((marks[0], model))
    legend(figure, entries)
    ax.set_xticks(range(len(buckets)), buckets)
    ax.set_xlabel("rank of the eigenportfolio, 1 has the largest variance")
    ax.set_ylabel("bias statistic, 1")
    alt = "Bias statistic by rank of eigenportfolios, by model, with 95% intervals"
    return Chart(
        (Picture("Bias by rank", dated(*versions), to_svg(figure, "ranks"), alt),),
        "Eigenportfolios of X Omega X' + D as of the date before, each model's own, over the next date, out of sample; "
        "lines are 95% intervals (Newey-West). An optimiser leans on the last ranks: a line above 1 there means that "
        "it is offered risk that is not as low as it looks. Ranks that a model does not tell apart stand for random "
        "directions of their span.",
    )


def specific(versions: Sequence[PublishedVersion]) -> Chart | None:
    """Draw the stocks with the largest annualised specific volatility as of the last date, a mark per model."""
    found = {version.model: specific_volatility(version) for version in versions}
    known = {model: result for model, result in found.items() if result is not None}
    if not known:
        return None
    frame = pd.DataFrame({model: series for model, (series, _) in known.items()})
    colours = {model: f"C{place}" for place, model in enumerate(found)}
    order = frame.median(axis=1).sort_values(ascending=False, kind="stable").index[:MOST_SPECIFIC]
    largest, places = frame.loc[order], np.arange(len(order))
    figure = Figure(figsize=(WIDE, 0.9 + 0.21 * len(order)), layout="constrained")
    ax = figure.subplots()
    ax.hlines(places, largest.min(axis=1), largest.max(axis=1), color=GRID, linewidth=2.5)
    entries: list[tuple[Artist, str]] = []
    for model in known:
        ax.axvline(float(frame[model].median()), color=colours[model], linewidth=0.8, linestyle="dashed")
        marks = ax.plot(largest[model], places, "o", color=colours[model], markersize=6.5, markeredgecolor=PAPER)
        entries.append((marks[0], model))
    dashed = Line2D([], [], color=MUTED, linewidth=0.8, linestyle="dashed")
    legend(figure, [*entries, (dashed, "median stock of the model, same colour")])
    ax.set_yticks(places, [shown(str(ticker)) for ticker in order])
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.set_ylim(len(order) - 0.4, -0.6)
    ax.set_xlim(left=0.0)
    ax.grid(visible=True, axis="x")
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("specific volatility, % a year")
    stamps = sorted({f"{stamp:%Y-%m-%d}" for _, stamp in known.values()})
    alt = "Stocks with the largest specific volatility, by model"
    dated_as = f"as of {', '.join(stamps)}"
    return Chart(
        (Picture("Largest specific risks", dated_as, to_svg(figure, "specific"), alt),),
        "Volatility of the return that the factors leave unexplained, annualised "
        f"(× √{versions[0].periods_per_year}): the {len(order)} stocks with the largest, ranked by the median over "
        "models. Marks far apart are stocks on which the models disagree.",
    )


def frontiers(versions: Sequence[PublishedVersion]) -> Chart | None:
    """Draw the long-only efficient frontier as of the last date, a picture per model, with portfolios as points."""
    names = list(dict.fromkeys(name for v in versions for name in (*v.portfolios, *v.allocations)))
    colours = {name: f"C{place}" for place, name in enumerate(names, start=1)}
    found = [(version, frontier(version), f"frontier{place}") for place, version in enumerate(versions)]
    pictures = tuple(_frontier(version, drawn, key, colours) for version, drawn, key in found if drawn is not None)
    if not pictures:
        return None
    return Chart(
        pictures,
        "The most that long-only weights can be expected to earn at a volatility, by X Omega X' + D and the model's "
        "expected returns with alpha set to 0 as of the last date, over cash; both a year (volatility × "
        f"√{versions[0].periods_per_year}). Circles are declared portfolios, diamonds weights allocated by this model. "
        "What lies far to the right of the curve carries risk that its factors are not paid for; expected returns are "
        "means of a training sample, and far less certain than the risk.",
        columns=2,
    )


def _frontier(version: PublishedVersion, drawn: Frontier, key: str, colours: Mapping[str, str]) -> Picture:
    figure = Figure(figsize=(HALF, 3.0), layout="constrained")
    ax = figure.subplots()
    (curve,) = ax.plot(drawn.volatility, drawn.expected, color=INK, linewidth=1.5)
    entries: list[tuple[Artist, str]] = [(curve, "efficient frontier")]
    for marker, places in (("o", drawn.portfolios), ("D", drawn.allocations)):
        for name, place in places.items():
            (mark,) = ax.plot(*place, marker, color=colours[name], markersize=7.0, markeredgecolor=PAPER)
            entries.append((mark, name))
    legend(figure, entries)
    ax.set_xlim(left=0.0)
    ax.set_xlabel("volatility, % a year")
    ax.set_ylabel("expected return, % a year")
    alt = f"Efficient frontier by {version.model}, with portfolios as points"
    return Picture(version.model, f"as of {version.dates[-1]:%Y-%m-%d}", to_svg(figure, key), alt)
