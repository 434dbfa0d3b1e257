"""Figures about data and factors: coverage, factor returns, Omega, loadings, R2.

Each function draws one figure within `canvas.drawing` and says in its docstring what it shows; its caption says to
the reader how to read it. Figures about portfolio and specific risk belong in `figures_risk`.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from reporting.canvas import (
    HALF,
    INK,
    MUTED,
    PAPER,
    SHADE,
    Chart,
    Key,
    Picture,
    date_axis,
    days,
    grid,
    keys,
    line,
    shade,
    shown,
    to_svg,
)
from reporting.published import (
    Floats,
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
    groups: dict[bytes, tuple[list[str], pd.DatetimeIndex, Floats, Floats]] = {}
    for version in versions:
        counts, guessed = covered(version), imputed(version)
        alike = version.dates.asi8.tobytes() + counts.tobytes() + guessed.tobytes()
        groups.setdefault(alike, ([], version.dates, counts, guessed))[0].append(version.model)
    figure, (ax,) = grid(1, 1, row_height=2.3)
    for position, (_, dates, counts, guessed) in enumerate(groups.values()):
        line(ax, dates, counts, position, points=1200)
        if guessed.any():
            line(ax, dates, counts - guessed, position, points=1200, width=0.9, dash="dashed")
    total = max(version.dataset.sizes["ticker"] for version in versions)
    ax.axhline(total, color=INK, linewidth=0.8, linestyle="dotted")
    ax.set_ylim(0, total * 1.08)
    ax.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    ax.set_ylabel("covered stocks, number")
    date_axis([ax], whole_span(versions), "as-of date")
    legend = [*keys([", ".join(models) for models, *_ in groups.values()])]
    if any(guessed.any() for *_, guessed in groups.values()):
        legend.append(Key("without imputed loadings, same colour", MUTED, "dashed"))
    legend.append(Key(f"all {total} stocks of the universe", INK, "dotted"))
    svg = to_svg(figure, "coverage", "Number of covered stocks over time, by model")
    return Chart(
        (Picture("Covered stocks", dated(*versions), svg, tuple(legend)),),
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
    figure, (ax,) = grid(1, 1, width=HALF, row_height=2.3)
    ax.axhline(0.0, color=INK, linewidth=0.6)
    for position, factor in enumerate(leading):
        line(ax, version.dates, running[factor], position, points=500)
    shade(ax, in_sample_spans(version))
    ax.set_ylabel("cumulative return, %")
    date_axis([ax], version.dates)
    svg = to_svg(figure, key, f"Cumulative factor returns of {version.model}")
    legend = (*keys([version.factors[factor] for factor in leading]), *_in_sample(version))
    return Picture(version.model, dated(version), svg, legend, _left_out(version, leading))


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
    figure, (ax,) = grid(1, 1, width=HALF, row_height=3.1)
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
    bar = figure.colorbar(picture, ax=ax, shrink=0.8, aspect=25, ticks=[-1, -0.5, 0, 0.5, 1])
    if bar.solids is not None:
        bar.solids.set(rasterized=False, edgecolor="face")
    bar.set_label("correlation, 1", fontsize=8.5)
    bar.outline.set_visible(False)
    svg = to_svg(figure, key, f"Factor correlations and volatilities of {version.model}")
    return Picture(version.model, f"as of {version.dates[position]:%Y-%m-%d}", svg)


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
    chosen = version.dataset["loadings"].isel(factor=leading).sel(ticker=list(tickers))
    values = chosen.transpose("factor", "ticker", "date").values.astype(np.float64)
    figure, axes = grid(len(leading), 3, row_height=1.75)
    for number, (ax, factor) in enumerate(zip(axes, leading, strict=True)):
        ax.axhline(0.0, color=INK, linewidth=0.6)
        for position in range(len(tickers)):
            line(ax, version.dates, values[number, position], position, points=250, width=1.0)
        shade(ax, in_sample_spans(version))
        ax.set_title(shown(version.factors[factor], 40))
        if number % 3 == 0:
            ax.set_ylabel("loading, 1")
    date_axis(axes, version.dates, "as-of date")
    svg = to_svg(figure, key, f"Loadings of named stocks over time, {version.model}")
    legend = (*keys(tickers), *_in_sample(version))
    return Picture(version.model, dated(version), svg, legend, _left_out(version, leading))


def r_squared(versions: Sequence[PublishedVersion]) -> Chart:
    """Draw the trailing-year mean of each date's total and predictive R2, by model, and where out of sample starts."""
    periods = versions[0].periods_per_year
    starts = sorted({start for v in versions if (start := out_of_sample_start(v)) is not None})
    figure, axes = grid(2, 1, row_height=2.1)
    drawn = False
    for ax, name, title in zip(axes, ("total_r2", "predictive_r2"), ("Total R2", "Predictive R2"), strict=True):
        ax.axhline(0.0, color=INK, linewidth=0.6)
        for position, version in enumerate(versions):
            values = trailing_mean(version.dataset[name].values.astype(np.float64), periods)
            line(ax, version.dates, values * 100.0, position)
            drawn = drawn or bool(np.isfinite(values).any())
        for start in starts:
            ax.axvline(days(start), color=INK, linewidth=1.0, linestyle="dotted")
        ax.set_title(title)
        ax.set_ylabel("R2, %")
    date_axis(axes, whole_span(versions))
    svg = to_svg(figure, "r2", "Trailing-year total and predictive R2 by model")
    mark = (Key("out of sample from here", INK, "dotted"),) if starts else ()
    legend = (*keys([version.model for version in versions]), *mark)
    note = "" if drawn else "Nothing to draw: the dates do not reach half a year."
    return Chart(
        (Picture("R2 by model and date", dated(*versions), svg, legend, note),),
        f"Mean over the trailing year ({periods} dates, at least half of them known) of each date's uncentred R2 over "
        "stocks; the pooled totals are in the summary. Total R2 uses the factor returns of the date, predictive R2 "
        "only what was expected before it. A lasting fall after the dotted line is overfitting.",
    )


def _in_sample(version: PublishedVersion) -> tuple[Key, ...]:
    return (Key("in sample", SHADE, "area"),) if in_sample_spans(version) else ()


def _left_out(version: PublishedVersion, leading: Sequence[int]) -> str:
    count = len(version.factors) - len(leading)
    return f"The {len(leading)} factors that move returns most; {count} others are not drawn." if count else ""
