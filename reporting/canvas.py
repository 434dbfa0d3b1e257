"""What all figures share: palette, sizes, axes of dates, and turning a matplotlib Figure into inline SVG.

Nothing here knows what is drawn. Legends are not drawn at all: a picture carries them as data, and the template
writes them above it, where they cover no line.
"""

from __future__ import annotations

import io
import math
import re
import threading
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from markupsafe import Markup
from matplotlib import dates as mdates
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

WIDE, HALF = 11.29, 5.48
"""Widths of pictures in inches: of the page, and of half of it. One point is 4/3 CSS pixels at full size."""

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a8a8a")
"""Okabe and Ito's colours without black and yellow, and a grey: told apart by colour-blind readers."""

INK, MUTED, GRID, SHADE, PAPER = "#101011", "#707172", "#d0d1d2", "#e8e9ea", "#fdfdfe"
_THEMED = {INK: "ink", MUTED: "muted", GRID: "grid", SHADE: "shade", PAPER: "paper"}

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "factorcube",
    "text.parse_math": False,
    "path.simplify_threshold": 0.25,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.facecolor": "none",
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlepad": 5.0,
    "axes.labelsize": 8.5,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.5,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
}

Dash = Literal["solid", "dashed", "dotted"]

_LOCK = threading.Lock()
_NUMBER = re.compile(r"-?\d+\.\d+")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


@dataclass(frozen=True)
class Key:
    """One entry of a legend."""

    label: str
    colour: str
    look: Literal["solid", "dashed", "dotted", "area", "dot"] = "solid"


@dataclass(frozen=True)
class Picture:
    """One drawing with its legend, and what it is of."""

    title: str
    dated: str
    svg: Markup
    legend: tuple[Key, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Chart:
    """One figure of the report: a picture, or one per model, and a caption that says how to read them."""

    pictures: tuple[Picture, ...]
    caption: str
    columns: Literal[1, 2] = 1


@contextmanager
def drawing() -> Iterator[None]:
    """Draw in the report's style, whatever the caller's.

    One thread at a time: matplotlib's settings are global.
    """
    with _LOCK, mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def css_colour(colour: str) -> str:
    """Return a colour as CSS; neutral ones follow the page's theme."""
    return f"var(--{_THEMED[colour]})" if colour in _THEMED else colour


def look(position: int) -> tuple[str, Dash]:
    """Colour and dash of the n-th line; the first seven differ in colour."""
    dashes: tuple[Dash, ...] = ("solid", "dashed", "dotted")
    return PALETTE[position % len(PALETTE)], dashes[position // len(PALETTE) % len(dashes)]


def keys(labels: Sequence[str]) -> tuple[Key, ...]:
    """Legend of lines in the order of the palette."""
    return tuple(Key(label, *look(position)) for position, label in enumerate(labels))


def grid(
    panels: int, columns: int, *, width: float = WIDE, row_height: float = 1.9, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """Return a figure of panels that share their dates, filled by rows; the cells left over stay empty."""
    columns = min(columns, panels)
    rows = -(-panels // columns)
    figure = Figure(figsize=(width, rows * row_height + 0.35), layout=ConstrainedLayoutEngine(h_pad=0.06, w_pad=0.06))
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=sharey).ravel().tolist()
    for spare in axes[panels:]:
        spare.remove()
    for position, ax in enumerate(axes[:panels]):
        ax.tick_params(labelbottom=position + columns >= panels)
    return figure, axes[:panels]


def shown(text: str, most: int = 24) -> str:
    """Text fit for a picture: control characters replaced, long names cut."""
    clean = "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c).startswith("C") else c for c in text)
    return clean if len(clean) <= most else clean[: most - 1] + "…"


def line(
    ax: Axes,
    dates: pd.DatetimeIndex,
    values: npt.NDArray[np.float64],
    position: int,
    *,
    points: int = 700,
    colour: str | None = None,
    width: float = 1.2,
    dash: Dash | None = None,
) -> None:
    """Draw a series over dates in the n-th look of the palette, about `points` of it at most, with the last."""
    kept = thin(len(dates), points)
    own, own_dash = look(position)
    style: dict[str, Any] = {"color": colour or own, "linestyle": dash or own_dash, "linewidth": width}
    ax.plot(days(dates[kept]), values[kept], **style)


def days(dates: pd.DatetimeIndex | pd.Timestamp) -> Any:
    """Dates as matplotlib counts them: days since 1970."""
    return mdates.date2num(dates)  # type: ignore[no-untyped-call]  # matplotlib.dates is not typed


def thin(length: int, points: int) -> npt.NDArray[np.int64]:
    """Evenly spaced positions, counted from the last, at most about `points` of them."""
    stride = max(1, -(-length // points))
    return np.arange(length - 1, -1, -stride, dtype=np.int64)[::-1]


def date_axis(axes: Sequence[Axes], dates: pd.DatetimeIndex, label: str = "date") -> None:
    """Put sparse date ticks on panels that share their dates, and the label under those that show them."""
    first, last = days(dates[[0, -1]])
    margin = max(0.01 * (last - first), 1.0)
    for ax in axes:
        locator, formatter = _ticks(last - first, _width(ax))
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(formatter)
        ax.set_xlim(first - margin, last + margin)
        if ax.xaxis.get_tick_params()["labelbottom"]:
            ax.set_xlabel(label)


def _width(ax: Axes) -> float:
    """Inches that a panel has for its ticks."""
    place = ax.get_subplotspec()
    columns = 1 if place is None else place.get_gridspec().ncols
    return float(ax.figure.get_figwidth()) / columns  # type: ignore[union-attr]  # a figure, and no subfigure of one


def _ticks(length: float, width: float) -> tuple[mdates.DateLocator, mdates.DateFormatter]:
    """Locator and formatter for a span of days over so many inches: full dates, months, or years alone."""
    if length > 1000:
        years = next(step for step in (1, 2, 5, 10, 20, 50, 100) if length / 365 / step <= 1.8 * width)
        return mdates.YearLocator(years), mdates.DateFormatter("%Y")  # type: ignore[no-untyped-call]  # not typed
    if length > 100:
        months = next(step for step in (1, 2, 3, 6, 12) if length / 30 / step <= width or step == 12)
        locator = mdates.MonthLocator(range(1, 13, months))  # type: ignore[no-untyped-call]  # not typed
        return locator, mdates.DateFormatter("%Y-%m")  # type: ignore[no-untyped-call]  # not typed
    step = max(1, math.ceil(length / (0.8 * width)))
    return mdates.DayLocator(interval=step), mdates.DateFormatter("%Y-%m-%d")  # type: ignore[no-untyped-call]  # not typed


def shade(ax: Axes, spans: Sequence[tuple[pd.Timestamp, pd.Timestamp]]) -> None:
    """Shade stretches of dates behind everything else."""
    for first, last in spans:
        ax.axvspan(days(first), days(last), facecolor=SHADE, edgecolor="none", zorder=0)


def to_svg(figure: Figure, key: str, alt: str) -> Markup:
    """Write a figure as SVG to be put inline in a page.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        Drawn within :func:`drawing`.
    key : str
        Prefix of the ids, unique in the page.
    alt : str
        What a screen reader says.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    root = ET.fromstring(buffer.getvalue())  # noqa: S314 - written by matplotlib on the line above
    parents = {child: parent for parent in root.iter() for child in parent}
    for element in list(root.iter()):
        element.tag = element.tag.rpartition("}")[2]
        if element.tag in ("metadata", "style"):
            parents[element].remove(element)
        else:
            _tidy(element, key)
    _drop_unused_ids(root)
    width, height = (root.attrib.pop(name) for name in ("width", "height"))
    style = f"--w: {float(width.removesuffix('pt')) * 4 / 3:.0f}px"
    root.attrib.update({"role": "img", "aria-label": alt, "style": style})
    root.attrib.setdefault("viewBox", f"0 0 {width.removesuffix('pt')} {height.removesuffix('pt')}")
    return Markup(ET.tostring(root, encoding="unicode"))  # noqa: S704 - ElementTree has escaped every text


def _tidy(element: ET.Element, key: str) -> None:
    """Make ids unique in the page, round coordinates, leave fonts and neutral colours to the style sheet."""
    element.tail = None
    if element.tag != "text":
        element.text = None
    for name, value in list(element.attrib.items()):
        del element.attrib[name]
        plain, text = name.rpartition("}")[2], value
        if plain == "id":
            text = f"{key}-{value}"
        elif plain == "href":
            text = f"#{key}-{value.removeprefix('#')}"
        elif plain == "style":
            text = _themed(value)
        elif plain in ("d", "x", "y", "points", "transform"):
            digits = 1 if len(value) > 500 else 2
            text = _rounded(value, digits)
        if _REFERENCE.search(text):
            text = _REFERENCE.sub(rf"url(#{key}-\1)", text)
        element.set(plain, text)


def _rounded(text: str, digits: int) -> str:
    return " ".join(_NUMBER.sub(lambda match: f"{float(match[0]):.{digits}f}", text).split())


def _themed(style: str) -> str:
    kept = [item.strip() for item in style.split(";") if item.strip() and not item.strip().startswith("font-family")]
    text = "; ".join(kept)
    for colour, name in _THEMED.items():
        text = text.replace(colour, f"var(--{name})")
    return text


def _drop_unused_ids(root: ET.Element) -> None:
    used = {
        found
        for element in root.iter()
        for value in element.attrib.values()
        for found in [*_REFERENCE.findall(value), value.removeprefix("#")]
        if value.startswith("#") or "url(#" in value
    }
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)
