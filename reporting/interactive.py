"""What all interactive figures share: their style, one document of figures as JSON, and the scripts of the page.

Here belong BokehJS, the script that draws what is chosen, and the policy that lets these two run and nothing else. What
is drawn belongs in `figures_standing`. Names from data never enter a script: figures are data, read by `JSON.parse`.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from bokeh.core.json_encoder import serialize_json
from bokeh.document import Document
from bokeh.models import ColumnDataSource, DatetimeTickFormatter, HoverTool, InlineStyleSheet, Range1d
from bokeh.plotting import figure
from bokeh.resources import Resources
from markupsafe import Markup

from models.arrays import Float64Array
from reporting.canvas import GRID, INK, MUTED
from reporting.tables import Table

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's colours, as in the pictures."""

_SCRIPT = Path(__file__).parent / "page.js"
_FONT = "system-ui, sans-serif"
_DATE = "@date{%F}"


@dataclass(frozen=True)
class Mark:
    """One entry of a legend, which is written beside the figure as text."""

    name: str
    colour: str


@dataclass(frozen=True)
class Live:
    """One interactive figure: how it is drawn, its legend, what a screen reader says of it, and its numbers."""

    plot: Any
    title: str
    dated: str
    alt: str
    caption: str
    numbers: Table
    legend: tuple[Mark, ...] = ()

    @property
    def place(self) -> str:
        """Id of the element in which it is drawn."""
        return str(self.plot.name)


@cache
def scripts() -> tuple[Markup, ...]:
    """BokehJS without its widgets, and the script of the page: the only ones that it runs."""
    bokeh = "\n".join(Resources(mode="inline", components=["bokeh"], log_level="warn").js_raw)
    texts = bokeh, _SCRIPT.read_text(encoding="utf-8")
    return tuple(Markup(text) for text in texts)  # noqa: S704 - Bokeh's files and our own


def policy(allowed: tuple[str, ...]) -> str:
    """Content-Security-Policy of a page: some scripts by their hashes, inline styles, and nothing loaded."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in allowed]
    run = " ".join(f"'sha256-{found}'" for found in hashes) or "'none'"
    return f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {run}"


def over_dates(key: str, x_range: Range1d, label: str, height: int) -> Any:
    """Return an empty figure over dates, as wide as its place; figures that share a range zoom together.

    Parameters
    ----------
    key : str
        Unique in the page.
    x_range : bokeh.models.Range1d
        Of the dates.
    label : str
        Of the values.
    height : int
        In CSS pixels.
    """
    drawn = blank(
        name=key,
        height=height,
        x_axis_type="datetime",
        x_range=x_range,
        y_axis_label=label,
        tools="xbox_zoom,xpan,reset",
        active_drag=None,
        toolbar_location="above",
    )
    drawn.xaxis.formatter = DatetimeTickFormatter(months="%Y-%m", years="%Y", days="%m-%d")
    drawn.xaxis.ticker.desired_num_ticks = 5  # what fits a telephone
    return drawn


def blank(**options: Any) -> Any:
    """Return an empty figure in the looks of the pictures; the dark theme is the style sheet's, which inverts both."""
    drawn: Any = figure(sizing_mode="stretch_width", **options)
    drawn.toolbar.logo = None
    drawn.toolbar.stylesheets = [InlineStyleSheet(css="@media print { :host { display: none; } }")]
    for part in ("background_fill_color", "border_fill_color", "outline_line_color"):
        setattr(drawn, part, None)
    drawn.grid.grid_line_color = GRID
    drawn.axis.axis_label_text_font = drawn.axis.major_label_text_font = _FONT
    drawn.axis.axis_label_text_font_size = drawn.axis.major_label_text_font_size = "12px"
    drawn.axis.axis_label_text_font_style = "normal"
    drawn.axis.axis_label_text_color = drawn.axis.major_label_text_color = MUTED
    drawn.axis.axis_line_color = drawn.axis.major_tick_line_color = MUTED
    drawn.axis.minor_tick_line_color = None
    drawn.min_border_left = 0
    return drawn


def source(dates: pd.DatetimeIndex, columns: dict[str, Float64Array]) -> ColumnDataSource:
    """Return series by date for figures to share; float32 is finer than any screen."""
    small = {name: values.astype(np.float32) for name, values in columns.items()}
    return ColumnDataSource({"date": dates.to_numpy().astype("datetime64[ms]"), **small})


def hover(drawn: Any, renderer: Any, lines: list[tuple[str, str]]) -> None:
    """Say the date and some values when a pointer stands anywhere above it; names are text, values are columns."""
    tool = HoverTool(
        tooltips=[("date", _DATE), *lines], formatters={"@date": "datetime"}, mode="vline", renderers=[renderer]
    )
    drawn.add_tools(tool)


def zero_line(drawn: Any) -> None:
    """Draw a line at zero."""
    drawn.hspan(y=[0.0], line_color=INK, line_width=0.8)


def document(figures: tuple[Live, ...]) -> Markup:
    """Write figures as one document of JSON for a data block of the page: equal figures give equal text.

    Raises
    ------
    ValueError
        If a figure is in a document already.
    """
    made = Document()
    with made.models.freeze():
        for each in figures:
            made.add_root(each.plot)
    plain = json.loads(serialize_json(made.to_json(deferred=False)))
    names = {each.plot.id: each.place for each in figures}
    ids: dict[str, str] = {}
    roots = {_renamed(key, ids): place for key, place in names.items()}
    text = json.dumps({"document": _numbered(plain, ids), "roots": roots}, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))  # noqa: S704 - within a data block only "<" could end it


def _renamed(key: str, ids: dict[str, str]) -> str:
    return ids.setdefault(key, f"m{len(ids)}")


def _numbered(value: Any, ids: dict[str, str]) -> Any:
    """Replace ids, which count all objects ever made, by the order of objects in the document."""
    if isinstance(value, dict):
        return {
            name: _renamed(each, ids) if name == "id" and isinstance(each, str) else _numbered(each, ids)
            for name, each in value.items()
        }
    return [_numbered(each, ids) for each in value] if isinstance(value, list) else value
