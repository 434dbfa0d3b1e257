"""The page of the explorer: which version is looked at, from which side, and what is said when it is gone.

Here belong widgets and the order of things. What is drawn is `reporting.explorer`, what tables hold are the rows of the
`console` modules, who may ask is `deploy.explore`. Names and reasons may be anybody's: they are shown as text.

A view reads what it shows when it is shown, from the version that `latest` named then, and keeps to that version.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import pandas as pd
import panel as pn

from deploy import console_book, console_versions
from deploy.console_difference import print_difference
from deploy.terminal import Terminal
from models.risk.book import BookRisk, VersionRisk
from reporting import explorer
from reporting.readings import PublishedVersion
from schemas.base import printable
from schemas.errors import FactorcubeError
from schemas.refs import VersionRef
from schemas.settings import Settings
from storage import published
from storage.layout import VERSIONS, Layout
from tasks.books import UPLOAD_BYTES, open_risk, weights_of_upload
from tasks.comparing import compare_versions
from tasks.promoting import find_version
from tasks.workspace import Workspace

_FONT = "font-family: system-ui, sans-serif; font-size: 14px;"
_TABLE = f"""
:host {{ overflow-x: auto; }}
table.panel-df {{ {_FONT} width: auto; min-width: 0; margin: 0; }}
table.panel-df th, table.panel-df td {{ padding: 3px 14px 3px 0; vertical-align: top; text-align: left; }}
"""
_NUMBERS = "table.panel-df :is(th, td):not(:first-child) { text-align: right; }"
_BESIDE = {"flex": "1 1 340px", "min-width": "0"}
_NONE = "none"
_HISTORY = 20


@dataclass(frozen=True)
class _Looked:
    """The version that is looked at, and where it lies."""

    settings: Settings
    layout: Layout
    ref: VersionRef

    def opened(self) -> VersionRisk:
        return open_risk(self.layout, self.ref)

    def version(self) -> PublishedVersion:
        dataset = published.open_version(self.layout, self.ref)
        return PublishedVersion(dataset, published.read_manifest(self.layout, self.ref))


def page(settings: Settings) -> pn.Column:
    """Return the page of one visit: what is published now, and whatever is chosen on it.

    The query of its URL may choose: ``?version=us_demo/ipca/latest&view=Portfolio``.
    """
    return pn.Column(
        _html("<h1 style='font-size: 22px; margin: 0'>factorcube</h1>"),
        _told(lambda: _chooser(settings)),
        sizing_mode="stretch_width",
        max_width=1280,
        styles={"margin": "0 auto", "padding": "0 8px"},
    )


def _chooser(settings: Settings) -> pn.Column:
    layout = Workspace.of(settings).layout
    refs = published.list_versions(layout)
    if not refs:
        where = layout.store.locate(VERSIONS)
        return pn.Column(_text(f"nothing is published under {where}; run `factorcube run CONFIG.yaml` first"))
    asked = {name: values[0].decode(errors="replace") for name, values in pn.state.session_args.items()}
    models = sorted({ref.qualified_model for ref in refs})
    wanted = asked.get("version", "").strip("/").rpartition("/")
    first = wanted[0] if wanted[0] in models else models[0]
    model = pn.widgets.Select(label="Model", options=models, value=first, width=240)
    version = pn.widgets.Select(label="Version", options=_names(refs, first), width=240)
    if wanted[0] == first and asked["version"] in version.options.values():
        version.value = asked["version"]
    view = pn.widgets.RadioButtonGroup(options=list(_VIEWS), color="primary", variant="outline")
    view.value = asked.get("view") if asked.get("view") in _VIEWS else view.value
    model.param.watch(lambda event: _offer(version, _names(refs, event.new)), "value")

    def shown(text: str, name: str) -> pn.viewable.Viewable:
        return _told(lambda: _VIEWS[name](_Looked(settings, layout, find_version(layout, text))))

    return pn.Column(
        pn.FlexBox(model, version),
        view,
        pn.panel(pn.bind(shown, version, view), loading_indicator=True, sizing_mode="stretch_width"),
        sizing_mode="stretch_width",
    )


def _names(refs: Sequence[VersionRef], model: str) -> dict[str, str]:
    """Return what may be chosen of a model: `latest` if there is a champion, then its versions, newest first."""
    of_model = [ref for ref in reversed(refs) if ref.qualified_model == model]
    latest = ["latest"] if any(ref.promoted for ref in of_model) else []
    return {name: f"{model}/{name}" for name in [*latest, *(ref.version for ref in of_model)]}


def _offer(version: pn.widgets.Select, names: dict[str, str]) -> None:
    version.param.update(options=names, value=next(iter(names.values())))


def _published(looked: _Looked) -> pn.Column:
    """Show everything that is published, of all universes and models, and the history of `latest` of this model."""
    listed = console_versions.versions_listed(looked.layout, published.list_versions(looked.layout))
    heads = ["version", "as of", "made by", "total R2 out of sample", "gate", "latest", "pinned"]
    rows = [console_versions.cells(line) for line in listed]
    damaged = [_text(line["error"], wrong=True) for line in listed if line["error"]]
    return _stack(_title("Published versions"), *damaged, _table(heads, rows), *_history(looked))


def _history(looked: _Looked) -> list[pn.viewable.Viewable]:
    past = published.promotions(looked.layout, looked.ref.universe, looked.ref.model)
    rows = [[one.version, f"{one.promoted_at:%Y-%m-%d %H:%M} UTC", one.by, one.reason] for one in reversed(past)]
    more = f", the last {_HISTORY} of {len(rows)}" if len(rows) > _HISTORY else ""
    title = _title(f"History of latest of {looked.ref.qualified_model}{more}")
    return [title, _table(["version", "promoted", "by", "why"], rows[:_HISTORY])] if rows else []


def _version(looked: _Looked) -> pn.Column:
    """Show what one version is made from, what the gate said, and its metrics."""
    manifest = published.read_manifest(looked.layout, looked.ref)
    facts = console_versions.facts(looked.layout, looked.ref, manifest)
    metrics = [[name, console_versions.number(value, ".4f")] for name, value in manifest.metrics.items()]
    criteria = console_versions.criteria(manifest)
    gate = [_title("Gate"), _table(["criterion", "value", "champion", "asked for", ""], criteria)] if criteria else []
    return _stack(
        _title(str(looked.ref)),
        _table(["", " "], [[name, str(value)] for name, value in facts.items()]),
        *gate,
        _title("Metrics"),
        _table(["metric", "value"], metrics, numbers=True),
    )


def _portfolio(looked: _Looked) -> pn.Column:
    """Show one portfolio of the version: its risk through time, and its parts as of a date."""
    version, opened = looked.version(), looked.opened()
    if not version.portfolios:
        return _stack(_text(f"{looked.ref} has no portfolios; upload a book under Book"))
    name = pn.widgets.Select(label="Portfolio", options=version.portfolios, width=240)
    span = version.dates[0].date(), version.dates[-1].date()
    day = pn.widgets.DatePicker(label="As of", start=span[0], end=span[1], value=span[1], width=150)
    against = pn.widgets.Select(label="Benchmark", options=[_NONE, *version.portfolios], width=240)

    def through_time(portfolio: str) -> pn.viewable.Viewable:
        drawn = {
            "Forecast and realised volatility": explorer.volatility,
            "Variance by factor": explorer.shares,
            "Exposures": explorer.exposures,
        }
        charts = ((title, draw(version, portfolio)) for title, draw in drawn.items())
        return _stack(
            *(item for title, chart in charts if chart is not None for item in (_title(title), _chart(chart)))
        )

    def as_of(portfolio: str, date: Any, benchmark: str) -> pn.viewable.Viewable:
        weights = opened.rows["weights"].sel(portfolio=portfolio, date=opened.as_of(date)).to_series()
        return _parts(opened.risk(weights, None if benchmark == _NONE else benchmark, date))

    return _stack(
        _title(str(looked.ref)),
        pn.FlexBox(name),
        _bound(through_time, name),
        pn.FlexBox(day, against),
        _bound(as_of, name, day, against),
    )


def _book(looked: _Looked) -> pn.Column:
    """Ask for a book, and show its risk by this version, as `factorcube risk` says it."""
    opened = looked.opened()
    file = pn.widgets.FileInput(accept=".csv", label="Holdings")
    against = pn.widgets.Select(label="Benchmark", options=[_NONE, *opened.benchmarks], width=240)
    which = pn.widgets.TextInput(label="Portfolio of the file, where it has several", width=300)

    def risk(content: bytes | None, benchmark: str, portfolio: str) -> pn.viewable.Viewable:
        if not content:
            return _stack()
        held = weights_of_upload(content, portfolio.strip() or None, opened, looked.settings)
        return _parts(opened.risk(held.weights, None if benchmark == _NONE else benchmark))

    return _stack(
        _title(f"A book by {looked.ref}"),
        _text(
            "A CSV file with ticker and weight or value, and maybe date and portfolio, of at most "
            f"{UPLOAD_BYTES // 2**20} MiB. What its weights lack to 1 is cash. It is not kept."
        ),
        file,
        pn.FlexBox(against, which),
        _bound(risk, file, against, which),
    )


def _compare(looked: _Looked) -> pn.Column:
    """Show what `factorcube diff` says of this version and another one."""
    others = [str(ref) for ref in published.list_versions(looked.layout) if str(ref) != str(looked.ref)]
    other = pn.widgets.Select(label="With", options=["", *others], width=360)

    def difference(text: str) -> pn.viewable.Viewable:
        if not text:
            return _stack()
        said = io.StringIO()
        found = compare_versions(looked.layout, looked.ref, find_version(looked.layout, text))
        print_difference(Terminal(file=said, width=120, no_color=True), found)
        return _html(f"<pre style='overflow-x: auto; font-size: 12.5px'>{escape(said.getvalue())}</pre>")

    return _stack(_title(f"{looked.ref} compared"), other, _bound(difference, other))


_VIEWS: dict[str, Callable[[_Looked], pn.Column]] = {
    "Published": _published,
    "Version": _version,
    "Portfolio": _portfolio,
    "Book": _book,
    "Compare": _compare,
}


def _parts(found: BookRisk) -> pn.Column:
    """Show the risk of a book: the numbers that `factorcube risk` prints, and a chart of the factors."""
    active = [] if found.active is None else [(f"active to {found.benchmark}, ", found.active)]
    tables = [
        pn.Column(
            _title(what + title), _table(heads, rows, numbers=True), styles={"flex": "1 1 340px", "min-width": "0"}
        )
        for what, one in [("", found), *active]
        for title, heads, rows in console_book.parts(one)
    ]
    return _stack(
        _title(f"Risk as of {found.date:%Y-%m-%d}, {len(found.weights)} tickers"),
        *(_text(note) for note in console_book.notes(found)),
        _table(["", "value"], console_book.whole(found), numbers=True),
        _title("What brings the volatility"),
        _chart(explorer.contributions(found)),
        pn.FlexBox(*tables, gap="0 40px", sizing_mode="stretch_width"),
    )


def _bound(view: Callable[..., pn.viewable.Viewable], *widgets: Any) -> Any:
    """Show a view of what widgets say, again whenever one of them changes."""
    answer = pn.bind(lambda *values: _told(lambda: view(*values)), *widgets)
    return pn.panel(answer, loading_indicator=True, sizing_mode="stretch_width")


def _told(view: Callable[[], pn.viewable.Viewable]) -> pn.viewable.Viewable:
    """Show a view, or in its place the sentence of an error that is foreseeable: a version that is gone."""
    try:
        return view()
    except FactorcubeError as error:
        return _text(str(error), wrong=True)


def _stack(*items: pn.viewable.Viewable) -> pn.Column:
    return pn.Column(*items, sizing_mode="stretch_width")


def _chart(drawn: Any) -> pn.pane.HoloViews:
    return pn.pane.HoloViews(drawn, linked_axes=False, sizing_mode="stretch_width")


def _title(text: str) -> pn.pane.HTML:
    return _html(
        f"<h2 style='font-size: 16px; margin: 10px 0 0; overflow-wrap: anywhere'>{escape(printable(text))}</h2>"
    )


def _text(text: str, *, wrong: bool = False) -> pn.pane.HTML:
    colour = "#b3261e" if wrong else "inherit"
    return _html(f"<p style='margin: 0; color: {colour}; overflow-wrap: anywhere'>{escape(printable(text))}</p>")


def _html(text: str) -> pn.pane.HTML:
    """Show HTML of our own; whatever comes from data in it is escaped already."""
    return pn.pane.HTML(f"<div style='{_FONT}'>{text}</div>", sizing_mode="stretch_width")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = False) -> pn.pane.DataFrame:
    """Show rows of text under heads; numbers are to the right."""
    frame = pd.DataFrame([[printable(cell) for cell in row] for row in rows], columns=list(heads))
    styles = [_TABLE, _NUMBERS] if numbers else [_TABLE]
    return pn.pane.DataFrame(frame, index=False, stylesheets=styles, sizing_mode="stretch_width")
