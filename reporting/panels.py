"""The first part of the page: a panel for each portfolio and model, and the choice among them.

Here belongs what a panel holds and in which order. Numbers, figures and tables belong in the modules of `standing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from reporting import figures_standing, tables_standing
from reporting.figures_standing import Drawing
from reporting.interactive import Live, document
from reporting.readings import PublishedVersion, portfolios_of
from reporting.standing import Standing, standings
from reporting.tables import Table
from reporting.verdict import verdict

MOST_PANELS = 24
"""Panels of a page, where nobody has named its portfolios: each takes some 50 kB and most of a second."""
_MOST_POINTS, _LEAST_POINTS, _ALL_POINTS = 400, 60, 5000
"""Dates drawn of one series: fewer where panels are many, so that a page stays small."""


@dataclass(frozen=True)
class Panel:
    """What the page says of one portfolio by one model; figures and tables in the order in which they are read."""

    portfolio: str
    model: str
    verdict: str
    notes: tuple[str, ...]
    risk: Live
    now: Table
    sources: tuple[Live, ...]
    exposures: Table
    tickers: Live
    diversifiers: Table
    earned: Table | None
    past: tuple[tuple[Live, Table | None], ...]
    stress: Table | None
    data: Markup


@dataclass(frozen=True)
class Choice:
    """The panels of a page, by portfolio and model; None where a model has no forecast of a portfolio.

    Attributes
    ----------
    portfolios, models : tuple of str
        Names, in their order.
    panels : dict of (int, int) to Panel or None
        By the places of portfolio and model.
    first : (int, int)
        Which one is shown first.
    left_out : int
        Portfolios that are in the versions and not in the choice.
    """

    portfolios: tuple[str, ...]
    models: tuple[str, ...]
    panels: dict[tuple[int, int], Panel | None]
    first: tuple[int, int]
    left_out: int


def choice_of(versions: Sequence[PublishedVersion], named: Sequence[str] = ()) -> Choice | None:
    """Make the panels of some portfolios by all models; None if there is no forecast of any.

    The one shown first is of the first portfolio, by the first model that the gate let pass.

    Parameters
    ----------
    versions : sequence of PublishedVersion
        One per model.
    named : sequence of str
        The portfolios; the first ones if empty, at least one and no more than make `MOST_PANELS`.
    """
    declared = portfolios_of(versions)
    portfolios = [name for name in declared if name in named] or declared[: max(1, MOST_PANELS // len(versions))]
    found = {version.model: standings(version, portfolios) for version in versions}
    if not any(found.values()):
        return None
    models = [version.model for version in versions]
    count = sum(map(len, found.values()))
    points = max(_LEAST_POINTS, min(_MOST_POINTS, _ALL_POINTS // count))
    panels: dict[tuple[int, int], Panel | None] = {}
    for row, name in enumerate(portfolios):
        for column, model in enumerate(models):
            known = found[model].get(name)
            panels[row, column] = None if known is None else panel_of(f"p{row}-{column}", known, points)
    passed = {version.model for version in versions if version.manifest.gate.passed}
    first = min(
        (place for place, panel in panels.items() if panel is not None),
        key=lambda place: (models[place[1]] not in passed, place),
    )
    return Choice(tuple(portfolios), tuple(models), panels, first, len(declared) - len(portfolios))


def panel_of(key: str, standing: Standing, points: int = _MOST_POINTS) -> Panel:
    """Make the panel of one portfolio by one model, with ids that begin with a key, which is unique in the page."""
    drawing = Drawing.of(key, standing, points)
    risk = figures_standing.risk(drawing)
    sources = figures_standing.parts(drawing), figures_standing.exposures(drawing)
    tickers = figures_standing.contributions(drawing)
    losses = figures_standing.losses(drawing)
    past = [(figures_standing.drawdowns(drawing), tables_standing.drawdowns(standing))]
    if losses is not None:
        past.append((losses, tables_standing.exceedances(standing)))
    note = tables_standing.uncovered(standing)
    return Panel(
        portfolio=standing.portfolio,
        model=standing.model,
        verdict=verdict(standing),
        notes=(note,) if note else (),
        risk=risk,
        now=tables_standing.now(standing),
        sources=sources,
        exposures=tables_standing.exposures(standing),
        tickers=tickers,
        diversifiers=tables_standing.diversifiers(standing),
        earned=tables_standing.earned(standing),
        past=tuple(past),
        stress=tables_standing.stress(standing),
        data=document((risk, *sources, tickers, *[live for live, _ in past])),
    )
