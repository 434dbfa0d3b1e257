"""Interactive figures of one portfolio by one model: risk, its parts, exposures, contributors, losses.

Each function draws one figure from a `Standing` and puts beside it what it says as text and as a table of numbers.
Figures that need no interaction belong in `figures` and `figures_risk`.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from bokeh.models import ColumnDataSource, HoverTool, Range1d

from models.arrays import Float64Array
from models.evaluation.tails import tail
from models.risk.calibration import BUDGET
from reporting.canvas import GRID, INK, MUTED, shown, thin
from reporting.figures import MOST_FACTORS
from reporting.interactive import PALETTE, Live, Mark, blank, hover, over_dates, source, zero_line
from reporting.readings import OTHER, REALISED_WINDOW, SPECIFIC
from reporting.standing import Standing
from reporting.tables import MISSING, Cell, Table, heads, num, number
from reporting.tables_standing import contributors

LOSS_LEVEL = 0.99
_SHORT = 220
_ROWS = 12
_ALARM, _BAND = "#b3261e", "#c9d6e2"


@dataclass(frozen=True)
class Drawing:
    """What the figures of one standing share: ids, the axis of dates, and how many dates are drawn of it."""

    key: str
    standing: Standing
    kept: slice
    x_range: Range1d

    @classmethod
    def of(cls, key: str, standing: Standing, points: int) -> Drawing:
        """Share one axis from the first forecast to the last, at most so many dates of it."""
        first, last = standing.dates[0], standing.dates[-1]
        return cls(
            key, standing, thin(len(standing.dates), points), Range1d(start=first, end=last, bounds=(first, last))
        )

    @property
    def dates(self) -> pd.DatetimeIndex:
        """Dates that are drawn."""
        return self.standing.dates[self.kept]

    @property
    def span(self) -> str:
        """First and last of them as text."""
        return f"{self.standing.dates[0]:%Y-%m-%d} to {self.standing.dates[-1]:%Y-%m-%d}"

    def plot(self, name: str, label: str, height: int = 280) -> Any:
        """Return an empty figure over the shared axis."""
        return over_dates(f"{self.key}-{name}", self.x_range, label, height)

    def numbers(self, columns: dict[str, Float64Array], digits: int = 1, unit: str = "%") -> Table:
        """Return the last of each of some dates as a table, for whoever does not see the figure."""
        shown_dates = thin(len(self.standing.dates), _ROWS)
        rows = [
            (Cell(f"{date:%Y-%m-%d}", "date"), *[num(number(value, digits, unit)) for value in values])
            for date, *values in zip(
                self.standing.dates[shown_dates], *[column[shown_dates] for column in columns.values()], strict=True
            )
        ]
        return Table(heads("Date", *map(num, columns)), tuple(rows), "Some of the dates, with the last.")


def risk(drawing: Drawing) -> Live:
    """Draw forecast volatility a year, and realised volatility in the band in which true forecasts have it."""
    standing = drawing.standing
    forecast = standing.volatility * 100.0
    realised, low, high = (values * 100.0 for values in standing.realised())
    columns = {"forecast": forecast, "realised": realised, "low": low, "high": high}
    data = source(drawing.dates, {name: values[drawing.kept] for name, values in columns.items()})
    plot = drawing.plot("risk", "volatility, % a year")
    plot.y_range.start = 0.0
    known = standing.earned is not None and bool(np.isfinite(realised).any())
    legend = [Mark("forecast for the next period", PALETTE[0])]
    lines = [("forecast", "@forecast{0.0}%")]
    if known:
        window = REALISED_WINDOW[standing.periods_per_year]
        plot.varea("date", "low", "high", source=data, fill_color=_BAND, fill_alpha=0.6)
        plot.line("date", "realised", source=data, line_color=INK, line_width=1.6)
        lines += [("realised", "@realised{0.0}%"), ("band", "@low{0.0}% to @high{0.0}%")]
        legend += [Mark(f"realised, last {window} periods", INK), Mark("where right forecasts have it, 95%", _BAND)]
    hover(plot, plot.line("date", "forecast", source=data, line_color=PALETTE[0], line_width=1.6), lines)
    now, lowest, highest = forecast[-1], np.nanmin(forecast), np.nanmax(forecast)
    return Live(
        plot,
        "Forecast risk" + (" against realised risk" if known else ""),
        drawing.span,
        f"Forecast volatility is {number(now, 1, '%')} a year at the end, and was between {number(lowest, 1, '%')} and "
        f"{number(highest, 1, '%')}"
        + (f"; realised volatility is {number(realised[-1], 1, '%')} at the end." if known else "."),
        (
            "Realised volatility looks back over its window, and the band is made of the forecasts of the same window: "
            "a line that stays above the band is risk that was forecast too low, below it too high. One date in twenty "
            "lies outside by chance."
            if known
            else "Of the weights as they are, held at every date; what they would have earned is not known."
        ),
        drawing.numbers(columns if known else {"forecast": forecast}),
        tuple(legend),
    )


def parts(drawing: Drawing) -> Live:
    """Draw volatility a year stacked by factor, Euler contributions, the specific part last."""
    standing = drawing.standing
    names, contributions = _contributions(standing)
    drawn = contributions[:, drawing.kept]
    columns = {"total": drawn.sum(axis=0)}
    for place, (own, (low, high)) in enumerate(zip(drawn, _stacked(drawn), strict=True)):
        columns |= {f"own{place}": own, f"low{place}": low, f"high{place}": high}
    data = source(drawing.dates, columns)
    colours = _colours(names)
    plot = drawing.plot("parts", "volatility by factor, % a year")
    for place, colour in enumerate(colours):
        plot.varea("date", f"low{place}", f"high{place}", source=data, fill_color=colour)
    zero_line(plot)
    total = plot.line("date", "total", source=data, line_color=INK, line_width=1.0)
    hover(plot, total, [(shown(name), f"@own{place}{{0.0}}%") for place, name in enumerate(names)])
    largest = int(np.argmax(np.abs(contributions[:, -1])))
    return Live(
        plot,
        "Where the risk comes from",
        drawing.span,
        f"At the end {names[largest]} brings most, {number(contributions[largest, -1], 1, '%')} of "
        f"{number(contributions[:, -1].sum(), 1, '%')} a year; what is specific brings "
        f"{number(contributions[-1, -1], 1, '%')}.",
        "Contributions sum to the forecast volatility, the line. An area below zero is a factor that hedges. A large "
        "specific part means that the factors do not see what the portfolio bets on.",
        drawing.numbers(dict(zip(names, contributions, strict=True))),
        tuple(Mark(name, colour) for name, colour in zip(names, colours, strict=True)),
    )


def exposures(drawing: Drawing) -> Live:
    """Draw exposures to the factors that bring most risk."""
    standing = drawing.standing
    leading = [place for place in _leading(standing) if standing.rows["factor"].values[place] != BUDGET]
    values = standing.rows["exposure"].transpose("factor", "date").values[leading]
    names = [str(standing.rows["factor"].values[place]) for place in leading]
    data = source(drawing.dates, {f"x{place}": line[drawing.kept] for place, line in enumerate(values)})
    plot = drawing.plot("exposures", "exposure, 1", _SHORT)
    zero_line(plot)
    colours = _colours(names)
    for place, colour in enumerate(colours):
        last = plot.line("date", f"x{place}", source=data, line_color=colour, line_width=1.4)
    hover(plot, last, [(shown(name), f"@x{place}{{0.00}}") for place, name in enumerate(names)])
    listed = ", ".join(f"{name} {number(line[-1])}" for name, line in zip(names, values, strict=True))
    return Live(
        plot,
        "Exposures",
        drawing.span,
        f"Exposures at the end: {listed}.",
        "X'w: what the portfolio gains over the next period for a factor return of 1. A jump at a refit is "
        "re-estimation, drift between refits the portfolio or its stocks changing.",
        drawing.numbers(dict(zip(names, values, strict=True)), 2, ""),
        tuple(Mark(name, colour) for name, colour in zip(names, colours, strict=True)),
    )


def losses(drawing: Drawing) -> Live | None:
    """Draw the value at risk of each date, and the losses beyond it; None without a judged date."""
    standing = drawing.standing
    if not standing.judged:
        return None
    z, beyond = standing.surprises, tail(LOSS_LEVEL)
    at_risk = (
        -pd.Series(standing.volatility).shift(1).to_numpy() / math.sqrt(standing.periods_per_year) * beyond.quantile
    )
    returns = standing.returns.reindex(standing.dates).to_numpy()
    hits = np.flatnonzero(z < -beyond.quantile).tolist()
    plot = drawing.plot("losses", "return of a period, %", _SHORT)
    line = source(drawing.dates, {"at_risk": at_risk[drawing.kept] * 100.0})
    hit = source(standing.dates[hits], {"earned": returns[hits] * 100.0, "at_risk": at_risk[hits] * 100.0})
    plot.line("date", "at_risk", source=line, line_color=PALETTE[0], line_width=1.4)
    marks = plot.scatter("date", "earned", source=hit, size=7, fill_color=_ALARM, line_color="white")
    tool = HoverTool(
        tooltips=[("date", "@date{%F}"), ("return", "@earned{0.00}%"), ("value at risk", "@at_risk{0.00}%")],
        formatters={"@date": "datetime"},
        renderers=[marks],
    )
    plot.add_tools(tool)
    expected = (1.0 - LOSS_LEVEL) * standing.judged
    worst = [
        (Cell(f"{standing.dates[at]:%Y-%m-%d}", "date"), num(number(returns[at] * 100.0, 2, "%")),
         num(number(at_risk[at] * 100.0, 2, "%")))
        for at in sorted(hits, key=lambda at: z[at])[:_ROWS]
    ]  # fmt: skip
    return Live(
        plot,
        f"Losses beyond the value at risk of {LOSS_LEVEL:.0%}",
        drawing.span,
        f"{len(hits)} losses in {standing.judged:,} periods lie beyond the value at risk; {number(expected, 1)} are "
        "expected.",
        "Value at risk of normal returns with the volatility forecast for the period. Dots that come in clusters mean "
        "that forecasts follow too slowly.",
        Table(heads("Date", num("Return"), num("Value at risk")), tuple(worst), "The furthest beyond, first."),
        (Mark(f"value at risk, {LOSS_LEVEL:.0%}", PALETTE[0]), Mark("loss beyond it", _ALARM)),
    )


def drawdowns(drawing: Drawing) -> Live:
    """Draw the loss since the highest value before; each date drawn has the lowest since the one drawn before."""
    standing = drawing.standing
    whole = standing.drawdown().to_numpy() * 100.0
    edges = np.arange(len(whole))[drawing.kept]
    lowest = np.minimum.reduceat(whole, np.concatenate([[0], edges[:-1] + 1]))
    data = source(drawing.dates, {"loss": lowest})
    plot = drawing.plot("drawdowns", "loss since the highest value, %", _SHORT)
    plot.varea("date", "loss", 0.0, source=data, fill_color=_BAND)
    hover(plot, plot.line("date", "loss", source=data, line_color=PALETTE[0]), [("loss", "@loss{0.0}%")])
    deepest = int(np.argmin(whole))
    return Live(
        plot,
        "Drawdowns",
        drawing.span,
        f"The deepest drawdown is {number(whole[deepest], 1, '%')}, on {standing.dates[deepest]:%Y-%m-%d}; at the end "
        f"it is {number(whole[-1], 1, '%')}.",
        "Compounded excess returns since the first forecast."
        if standing.earned is not None
        else "What the factors alone would have brought the book as it stands now, compounded.",
        drawing.numbers({"drawdown": whole}),
    )


def contributions(drawing: Drawing) -> Live:
    """Draw what the largest contributors and diversifiers bring, as bars."""
    standing = drawing.standing
    year = math.sqrt(standing.periods_per_year) * 100.0
    rows = contributors(standing.now)
    names = [shown(str(name)) for name in rows.index]
    places = np.arange(len(rows), dtype=np.float64)[::-1]
    data = ColumnDataSource(
        {
            "place": places,
            "ticker": names,
            "brings": rows["contribution"].to_numpy() * year,
            "weight": rows["weight"].to_numpy() * 100.0,
            "share": rows["share"].to_numpy() * 100.0,
        }
    )
    plot = blank(
        name=f"{drawing.key}-tickers",
        height=max(160, 60 + 20 * len(rows)),
        x_axis_label="volatility from it, % a year",
        tools="",
        toolbar_location=None,
        y_range=Range1d(start=-0.7, end=len(rows) - 0.3),
    )
    plot.yaxis.ticker = places.tolist()
    plot.yaxis.major_label_overrides = dict(zip(places.astype(int).tolist(), names, strict=True))
    plot.ygrid.visible = False
    bars = plot.hbar("place", height=0.65, right="brings", source=data, fill_color=PALETTE[0], line_color=None)
    plot.vspan(x=[0.0], line_color=INK, line_width=0.8)
    lines = [("ticker", "@ticker"), ("weight", "@weight{0.00}%"), ("brings", "@brings{0.00}% a year")]
    plot.add_tools(HoverTool(tooltips=[*lines, ("share of risk", "@share{0.0}%")], renderers=[bars], mode="hline"))
    count = len(standing.now.by_ticker)
    cells = [
        (Cell(str(name), "key"), num(number(weight, 2, "%")), num(number(brings, 2, "%")), num(number(share, 1, "%")))
        for name, weight, brings, share in zip(
            rows.index, data.data["weight"], data.data["brings"], data.data["share"], strict=True
        )
    ]
    top = cells[0][0].text if cells else MISSING
    return Live(
        plot,
        "Largest contributors by ticker",
        f"as of {standing.now.date:%Y-%m-%d}",
        f"{top} brings most of the {count} tickers held, {cells[0][3].text if cells else MISSING} of the risk.",
        f"{len(rows)} of {count} tickers held: those that contribute most in size. One below zero lowers risk.",
        Table(heads("Ticker", num("Weight"), num("Volatility from it a year"), num("Share")), tuple(cells), ""),
    )


def _leading(standing: Standing) -> list[int]:
    """Positions of the factors that bring most risk on average, in their own order."""
    size = np.abs(standing.rows["portfolio_variance_factor"].transpose("factor", "date").values)
    share = np.nan_to_num(size / standing.rows["portfolio_variance"].values).mean(axis=1)
    return sorted(np.argsort(-share, kind="stable")[:MOST_FACTORS].tolist())


def _contributions(standing: Standing) -> tuple[list[str], Float64Array]:
    """Names of the parts, and their contributions to the volatility (part, date) in percent a year; specific last."""
    rows = standing.rows
    leading = _leading(standing)
    factor = rows["portfolio_variance_factor"].transpose("factor", "date").values
    rest = [place for place in range(len(factor)) if place not in leading]
    names = [str(rows["factor"].values[place]) for place in leading]
    variances = [factor[place] for place in leading]
    if rest:
        names.append(OTHER)
        variances.append(factor[rest].sum(axis=0))
    variances.append(rows["portfolio_variance_specific"].values)
    scale = standing.periods_per_year * 100.0
    return [*names, SPECIFIC], np.stack(variances) * scale / standing.volatility


def _stacked(parts: Float64Array) -> Float64Array:
    """Lower and upper edges (part, 2, date) of areas, those above zero and those below stacked apart."""
    known = np.nan_to_num(parts)
    up, down = np.clip(known, 0.0, None), np.clip(known, None, 0.0)
    edges = np.where(
        known[:, None] >= 0.0,
        np.stack([up.cumsum(axis=0) - up, up.cumsum(axis=0)], axis=1),
        np.stack([down.cumsum(axis=0), down.cumsum(axis=0) - down], axis=1),
    )
    return np.where(np.isnan(parts)[:, None], np.nan, edges)


def _colours(names: list[str]) -> list[str]:
    fixed = {OTHER: MUTED, SPECIFIC: GRID}
    return [fixed.get(name, colour) for name, colour in zip(names, itertools.cycle(PALETTE), strict=False)]
