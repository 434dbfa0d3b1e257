"""What all figures share: their style, panels over dates, a legend above them, and a matplotlib Figure as inline SVG.

Nothing here knows what is drawn. The dark theme is the style sheet's, which inverts the pictures.
"""

from __future__ import annotations

import io
import re
import textwrap
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import pandas as pd
from cycler import cycler
from markupsafe import Markup
from matplotlib import dates as mdates
from matplotlib import style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from models.arrays import Float64Array

WIDE, HALF = 11.29, 5.48
"""Widths of pictures in inches: of the page, and of half of it. One point is 4/3 CSS pixels at full size."""

INK, MUTED, GRID, SHADE, PAPER = "#17191c", "#5d6470", "#dcdfe3", "#f0f2f5", "#ffffff"
"""The page's neutral colours."""

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a8a8a")
"""Okabe and Ito's colours without black and yellow, and a grey: told apart by colour-blind readers."""

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "path.simplify_threshold": 0.25,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "figure.labelsize": 8.5,
    "figure.constrained_layout.h_pad": 0.05,
    "figure.constrained_layout.w_pad": 0.06,
    "font.size": 9.0,
    "font.sans-serif": ["DejaVu Sans"],
    "axes.facecolor": "none",
    "axes.prop_cycle": cycler(linestyle=["solid", "dashed", "dotted"]) * cycler(color=PALETTE),
    "axes.titlesize": 9.0,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlepad": 5.0,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 8.5,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "legend.borderpad": 0.0,
    "legend.borderaxespad": 0.0,
    "legend.handlelength": 1.5,
    "legend.handletextpad": 0.6,
    "legend.columnspacing": 1.6,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
}

_LOCK = threading.Lock()
_GROUP = re.compile(r'<g id="[^"]*">')
_PATH = re.compile(r'<path (?:id="\w+" )?d="[^"]*"')
_DIGITS = re.compile(r"(\.\d)\d+")


@dataclass(frozen=True)
class Picture:
    """One drawing: what it is of, its SVG, and what a screen reader says of it."""

    title: str
    dated: str
    svg: Markup
    alt: str
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
    with _LOCK, style.context(_STYLE, after_reset=True):
        yield


def over_dates(
    panels: int,
    dates: pd.DatetimeIndex,
    labels: tuple[str, str],
    *,
    columns: int = 1,
    width: float = WIDE,
    height: float = 2.0,
    sharey: bool = False,
) -> tuple[Figure, list[Axes]]:
    """Return a figure of panels that share an axis of dates, filled by rows; the cells left over stay empty.

    Parameters
    ----------
    panels : int
        At least 1.
    dates : pandas.DatetimeIndex
        The axis reaches from the first of them to the last.
    labels : (str, str)
        Of the dates, and of the values.
    columns : int
        Panels side by side.
    width, height : float
        Of the figure, and of one row of panels; in inches.
    sharey : bool
        Whether the panels share their values' axis too.
    """
    columns = min(columns, panels)
    rows = -(-panels // columns)
    figure = Figure(figsize=(width, rows * height + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=sharey).ravel().tolist()
    for spare in axes[panels:]:
        spare.remove()
    most = max(4, int(1.8 * width / columns))
    locator = mdates.AutoDateLocator(minticks=3, maxticks=most)  # type: ignore[no-untyped-call]  # matplotlib.dates is not typed
    locator.intervald[mdates.MONTHLY] = [1, 2, 3, 4, 6, 12]  # a narrow panel of three years finds none without 12
    axes[0].xaxis.set_major_locator(locator)
    axes[0].xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes[0].set_xlim(dates[0] - pd.Timedelta(days=1), dates[-1] + pd.Timedelta(days=1))
    for lowest in axes[panels - columns : panels]:
        lowest.tick_params(labelbottom=True)
        lowest.xaxis.get_offset_text().set_visible(True)
    figure.supxlabel(labels[0], color=MUTED)
    figure.supylabel(labels[1], color=MUTED)
    return figure, axes[:panels]


def curves(ax: Axes, dates: pd.DatetimeIndex, values: Float64Array, *, points: int = 700, **looks: Any) -> list[Line2D]:
    """Draw one series over dates, or several (series, date), at most about `points` dates of them, with the last."""
    kept = thin(len(dates), points)
    return ax.plot(dates[kept], values[..., kept].T, **looks)


def thin(length: int, points: int) -> slice:
    """Evenly spaced positions, counted from the last, at most `points` of them."""
    stride = max(1, -(-length // points))
    return slice((length - 1) % stride, None, stride)


def shown(text: str, most: int = 24) -> str:
    """Text fit for a picture: control characters replaced, long names cut."""
    clean = "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c).startswith("C") else c for c in text)
    return clean if len(clean) <= most else clean[: most - 1] + "…"


def legend(figure: Figure, entries: Sequence[tuple[Artist, str]]) -> None:
    """Write a legend above the panels, in as many columns as fit, long labels on lines of their own.

    The figure grows by its height.
    """
    handles = [handle for handle, _ in entries]
    across = int(7.5 * figure.get_figwidth())
    labels = [textwrap.fill(shown(label, 4 * across), across) for _, label in entries]
    for columns in range(len(entries), 0, -1):
        written = figure.legend(handles, labels, loc="outside upper left", ncols=columns)
        extent = written.get_window_extent()
        if columns == 1 or extent.width <= 0.98 * figure.bbox.width:
            break
        written.remove()
    figure.set_figheight(figure.get_figheight() + extent.height / figure.dpi)


def to_svg(figure: Figure, key: str) -> Markup:
    """Write a figure, drawn within `drawing`, as SVG to be put inline in a page.

    Its ids begin with hashes salted by `key`, which is unique in the page; groups, which nothing refers to, lose
    theirs. A tenth of a point is fine enough for a path.
    """
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": key}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    text = _GROUP.sub("<g>", text[text.index("<svg") :])
    text = _PATH.sub(lambda path: _DIGITS.sub(r"\1", path[0]), text)
    return Markup(text)  # noqa: S704 - matplotlib has escaped every text
