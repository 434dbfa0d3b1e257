"""Figures about data and factors: coverage, factor returns, Omega, loadings, R2.

Each function draws one figure within `canvas.drawing` and says in its docstring what it shows; its caption says to
the reader how to read it. Figures about portfolio and specific risk belong in `figures_risk`.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from models.arrays import Float64Array
from models.evaluation.attributed import loadings_of_returns
from models.risk.calibration import BUDGET
from reporting.canvas import (
    HALF,
    INK,
    MUTED,
    PAPER,
    SHADE,
    Chart,
    Picture,
    curves,
    legend,
    over_dates,
    shown,
    to_svg,
)
from reporting.readings import (
    PublishedVersion,
    covered,
    factor_risk,
    imputed,
    in_sample_spans,
    last_forecast,
    leading_factors,
    out_of_sample_start,
    trailing_mean,
)

MOST_FACTORS = 6
"""Factors drawn per model; a note under the picture says how many are not."""

_ANNOTATED = 6
_LABELLED = 25


def dated(*versions: PublishedVersion) -> str:
    """Span over versions and their as-of dates, as text."""
    first, last = whole_span(versions)
    as_of = sorted({str(version.manifest.as_of) for version in versions})
    return f"{first:%Y-%m-%d} to {last:%Y-%m-%d}, as of {', '.join(as_of)}"


def whole_span(versions: Sequence[PublishedVersion]) -> pd.DatetimeIndex:
    """First and last date over all versions."""
    return pd.DatetimeIndex([min(v.dates[0] for v in versions), max(v.dates[-1] for v in versions)])


def coverage(versions: Sequence[PublishedVersion]) -> Chart:
    """Draw the number of covered stocks (with loadings on every factor) at each date, by model.

    Models that cover the same stocks at every date share one line, so that none hides another. Where loadings are
    imputed a dashed line leaves those stocks out.
    """
    groups: dict[bytes, tuple[list[str], pd.DatetimeIndex, Float64Array, Float64Array]] = {}
    for version in versions:
        counts, guessed = covered(version), imputed(version)
        alike = version.dates.asi8.tobytes() + counts.tobytes() + guessed.tobytes()
        groups.setdefault(alike, ([], version.dates, counts, guessed))[0].append(version.model)
    total = max(version.dataset.sizes["ticker"] for version in versions)
    labels = "as-of date", "covered stocks, number"
    figure, (ax,) = over_dates(1, whole_span(versions), labels, height=2.3)
    entries: list[tuple[Artist, str]] = []
    for models, dates, counts, guessed in groups.values():
        (line,) = curves(ax, dates, counts, points=1200)
        entries.append((line, ", ".join(models)))
        if guessed.any():
            looks = {"color": line.get_color(), "linestyle": "dashed", "linewidth": 0.9}
            curves(ax, dates, counts - guessed, points=1200, **looks)
    if any(guessed.any() for *_, guessed in groups.values()):
        dashed = Line2D([], [], color=MUTED, linestyle="dashed", linewidth=0.9)
        entries.append((dashed, "without imputed loadings, same colour"))
    all_stocks = ax.axhline(total, color=INK, linewidth=0.8, linestyle="dotted")
    legend(figure, [*entries, (all_stocks, f"all {total} stocks of the universe")])
    ax.set_ylim(0, total * 1.08)
    ax.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    alt = "Number of covered stocks over time, by model"
    return Chart(
        (Picture("Covered stocks", dated(*versions), to_svg(figure, "coverage"), alt),),
        "A stock is covered at a date if the model gives it loadings there. Loadings are imputed (the mean of the "
        "cross-section) where a traded stock's own history or characteristics do not suffice yet. A fall means missing "
        "data, and portfolios whose risk cannot be told. Models with equal coverage share a line.",
    )


def factor_returns(versions: Sequence[PublishedVersion]) -> Chart:
    """Draw the running sum of each factor's returns, a picture per model, with the in-sample dates shaded."""
    pictures = tuple(_factor_returns(version, f"returns{n}") for n, version in enumerate(versions))
    return Chart(
        pictures,
        "Running sum of simple factor returns from the first date, in percent, neither compounded nor annualised. The "
        "slope is the premium being earned: compare it inside and outside the shaded part. The scale of a latent "
        "factor is the model's convention, so compare shapes across models, not heights.",
        columns=2,
    )


def _factor_returns(version: PublishedVersion, key: str) -> Picture:
    leading = leading_factors(version, MOST_FACTORS)
    values = version.dataset["factor_returns"].transpose("factor", "date").values
    running = np.where(np.isnan(values), np.nan, np.nancumsum(values, axis=1) * 100.0)
    labels = "date", "cumulative return, %"
    figure, (ax,) = over_dates(1, version.dates, labels, width=HALF, height=2.3)
    ax.axhline(0.0, color=INK, linewidth=0.6)
    lines = curves(ax, version.dates, running[leading], points=500)
    names = [version.factors[factor] for factor in leading]
    legend(figure, [*zip(lines, names, strict=True), *_in_sample([ax], version)])
    alt = f"Cumulative factor returns of {version.model}"
    return Picture(version.model, dated(version), to_svg(figure, key), alt, _left_out(version, leading))


def omega(versions: Sequence[PublishedVersion]) -> Chart | None:
    """Draw Omega as of its last date, a picture per model: correlations as a heat map, annualised volatilities.

    Models with one factor have no correlations, and models without a forecast no Omega; they are left out.
    """
    pictures = []
    for number, version in enumerate(versions):
        position = last_forecast(version)
        if position is not None and len(version.factors) > 1:
            pictures.append(_omega(version, position, f"omega{number}"))
    if not pictures:
        return None
    return Chart(
        tuple(pictures),
        "Cells off the diagonal: correlation of two factors, from Omega as of its last date; blue is negative, red "
        "positive. On the diagonal, or beside the names where factors are many: annualised volatility "
        f"(× √{versions[0].periods_per_year}). Strong colours mean that factors hedge or double each other. Models "
        "with one factor are not drawn.",
        columns=2,
    )


def _omega(version: PublishedVersion, position: int, key: str) -> Picture:
    volatility, correlation = factor_risk(version, position)
    count = len(version.factors)
    annotated = count <= _ANNOTATED
    figure = Figure(figsize=(HALF, 3.4), layout="constrained")
    ax = figure.subplots()
    cells = np.ma.masked_where(np.eye(count, dtype=bool) | np.isnan(correlation), correlation)
    colours = mpl.colormaps["RdBu_r"].resampled(41)
    picture = ax.pcolormesh(
        cells, cmap=colours, vmin=-1.0, vmax=1.0, edgecolors=PAPER, linewidth=int(count <= _LABELLED)
    )
    names = [shown(name, 14) for name in version.factors]
    if annotated:
        for row, column in np.ndindex(count, count):
            _annotate(ax, row, column, float(correlation[row, column]), float(volatility[row]))
    else:
        names = [f"{name}  {level:.1f}%" for name, level in zip(names, volatility, strict=True)]
    ticks = np.arange(0, count, -(-count // _LABELLED))
    short = [shown(version.factors[tick], 14) for tick in ticks]
    ax.set_xticks(ticks + 0.5, short, rotation=90 if max(map(len, short)) * len(short) > 36 else 0)
    ax.set_yticks(ticks + 0.5, [names[tick] for tick in ticks])
    ax.invert_yaxis()
    ax.set(aspect="equal", facecolor=SHADE)
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    bar = figure.colorbar(picture, ax=ax, shrink=0.8, aspect=25, ticks=[-1, -0.5, 0, 0.5, 1], label="correlation, 1")
    if bar.solids is not None:
        bar.solids.set_edgecolor("face")
    bar.outline.set_visible(False)
    alt = f"Factor correlations and volatilities of {version.model}"
    return Picture(version.model, f"as of {version.dates[position]:%Y-%m-%d}", to_svg(figure, key), alt)


def _annotate(ax: Axes, row: int, column: int, correlation: float, volatility: float) -> None:
    """Write the volatility into a cell on the diagonal, the correlation into any other."""
    text, colour = f"{correlation:.2f}".replace("-", "−"), "#222222"
    if row == column:
        text, colour = f"{volatility:.1f}%", INK
    elif np.isnan(correlation):
        text, colour = "–", INK
    elif abs(correlation) > 0.6:
        colour = "#ffffff"
    ax.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=8.5, color=colour)


def loadings(versions: Sequence[PublishedVersion], tickers: Sequence[str]) -> Chart:
    """Draw the loadings of named stocks over time: a picture per model, a panel per factor, in-sample dates shaded."""
    return Chart(
        tuple(_loadings(version, tickers, f"loadings{n}") for n, version in enumerate(versions)),
        "Return of the stock over the next period for a factor return of 1, as known at the close of the date. Jumps "
        "at a refit are re-estimation; drift between refits is the stock's characteristics changing; a gap is a date "
        "without coverage. Each panel has its own scale.",
    )


def _loadings(version: PublishedVersion, tickers: Sequence[str], key: str) -> Picture:
    leading = leading_factors(version, MOST_FACTORS)
    chosen = loadings_of_returns(version.dataset.sel(ticker=list(tickers))).isel(factor=leading)
    values = chosen.transpose("factor", "ticker", "date").values.astype(np.float64)
    labels = "as-of date", "loading, 1"
    figure, axes = over_dates(len(leading), version.dates, labels, columns=3, height=1.75)
    for ax, factor, loading in zip(axes, leading, values, strict=True):
        ax.axhline(0.0, color=INK, linewidth=0.6)
        lines = curves(ax, version.dates, loading, points=250, linewidth=1.0)
        ax.set_title(shown(version.factors[factor], 40))
    legend(figure, [*zip(lines, tickers, strict=True), *_in_sample(axes, version)])
    alt = f"Loadings of named stocks over time, {version.model}"
    return Picture(version.model, dated(version), to_svg(figure, key), alt, _left_out(version, leading))


def r_squared(versions: Sequence[PublishedVersion]) -> Chart:
    """Draw the trailing-year mean of each date's total and predictive R2, by model, and where out of sample starts."""
    periods = versions[0].periods_per_year
    starts = sorted({start for v in versions if (start := out_of_sample_start(v)) is not None})
    figure, axes = over_dates(2, whole_span(versions), ("date", "R2, %"), height=2.1)
    drawn = False
    for ax, name, title in zip(axes, ("total_r2", "predictive_r2"), ("Total R2", "Predictive R2"), strict=True):
        ax.axhline(0.0, color=INK, linewidth=0.6)
        entries: list[tuple[Artist, str]] = []
        for version in versions:
            values = trailing_mean(version.dataset[name].values.astype(np.float64), periods)
            entries += [(line, version.model) for line in curves(ax, version.dates, values * 100.0)]
            drawn = drawn or bool(np.isfinite(values).any())
        marks = [
            ax.axvline(start, color=INK, linewidth=1.0, linestyle="dotted")  # type: ignore[arg-type]  # a date is right
            for start in starts
        ]
        entries += [(mark, "out of sample from here") for mark in marks[:1]]
        ax.set_title(title)
    legend(figure, entries)
    alt = "Trailing-year total and predictive R2 by model"
    note = "" if drawn else "Nothing to draw: the dates do not reach half a year."
    return Chart(
        (Picture("R2 by model and date", dated(*versions), to_svg(figure, "r2"), alt, note),),
        f"Mean over the trailing year ({periods} dates, at least half of them known) of each date's uncentred R2 over "
        "stocks; the pooled totals are in the summary. Total R2 uses the factor returns of the date, predictive R2 "
        "only what was expected before it. A lasting fall after the dotted line is overfitting.",
    )


def _in_sample(axes: Sequence[Axes], version: PublishedVersion) -> list[tuple[Artist, str]]:
    """Shade the dates in sample behind everything else; the entry that a legend needs, if there are any."""
    spans = in_sample_spans(version)
    patches = [
        ax.axvspan(*span, facecolor=SHADE, edgecolor="none", zorder=0)  # type: ignore[arg-type]  # dates are right
        for ax in axes
        for span in spans
    ]
    return [(patch, "in sample") for patch in patches[:1]]


def _left_out(version: PublishedVersion, leading: Sequence[int]) -> str:
    moving = sum(name != BUDGET for name in version.factors)
    return f"The {len(leading)} of {moving} factors that move returns most." if len(leading) < moving else ""
