"""Putting a page together: panels, figures, tables and the headline, of a run or of one book.

Here belong the order of things and the sentences of the summary. What a figure or a table holds belongs in its module.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from models.risk.book import BookRisk
from reporting import figures, figures_explaining, figures_risk, tables, tables_risk, tables_statistics
from reporting.canvas import Chart, drawing
from reporting.interactive import policy, scripts
from reporting.panels import choice_of, panel_of
from reporting.readings import PublishedVersion, check_comparable, covered, default_tickers
from reporting.standing import standing_of_book
from schemas.checks import CheckReport

_HERE = Path(__file__).parent
_FALLBACK_TICKERS = 6


def render_report(
    versions: Sequence[PublishedVersion],
    checks: CheckReport | None,
    *,
    title: str,
    tickers: Sequence[str] = (),
    portfolios: Sequence[str] = (),
) -> str:
    """Write the report of a run as one HTML page.

    The page loads nothing: style, pictures and scripts are inline, its policy lets these scripts run and no other, and
    whatever comes from data is escaped or stays data. Equal inputs give equal bytes.

    Parameters
    ----------
    versions : sequence of PublishedVersion
        One per model, in the order of the report; of one universe and frequency. A Dataset may be opened lazily.
    checks : CheckReport, optional
        Outcome of the data checks of the ingest.
    title : str
        Heading of the page.
    tickers : sequence of str
        Stocks whose loadings are drawn; the largest holdings of the first portfolio if left out. Those that the
        universe does not have are named in the report.
    portfolios : sequence of str
        Those whose risk can be looked at; the first ones if left out, as many as `panels.MOST_PANELS` allows.

    Returns
    -------
    str
        The page, UTF-8.

    Raises
    ------
    DataError
        If there are no versions, or they differ in universe or frequency.
    """
    check_comparable(versions)
    known = {str(ticker) for ticker in versions[0].dataset["ticker"].values}
    named = [ticker for ticker in dict.fromkeys(tickers) if ticker in known]
    choice = choice_of(versions, portfolios)
    return _page(
        "report.html.j2",
        title,
        live=choice is not None,
        choice=choice,
        tiles=_tiles(versions, checks),
        findings=_findings(versions, checks),
        summary=tables.summary(versions),
        gates=tables.gates(versions),
        criteria=tables.criteria(versions),
        checks=checks,
        check_table=tables.checks(checks) if checks else None,
        flagged=tables.flagged(checks) if checks and checks.flagged_rows else None,
        charts=_charts(versions, named or default_tickers(versions[0], _FALLBACK_TICKERS)),
        unknown_tickers=[ticker for ticker in tickers if ticker not in known],
        tickers_given=bool(named),
        factors=tables_risk.factors(versions),
        inference=[(version.model, found) for version in versions if (found := tables_statistics.statistics(version))],
        bias=tables_risk.bias(versions),
        suspects=tables_risk.suspects(versions),
        portfolio_risk=tables_risk.portfolio_risk(versions),
        active_risk=tables_risk.active_risk(versions),
        runs=_runs(versions),
        versions=[(version, tables.parameters(version)) for version in versions],
        periods=versions[0].periods_per_year,
    )


def render_book(version: PublishedVersion, found: BookRisk, name: str) -> str:
    """Write the risk of a book as one HTML page, which is the first part of a report.

    Parameters
    ----------
    version : PublishedVersion
        By which the risk is. A Dataset may be opened lazily.
    found : BookRisk
        From `VersionRisk.risk` of the same version; what is active is shown where it has a benchmark.
    name : str
        Of the book.

    Returns
    -------
    str
        The page, UTF-8.
    """
    record = " ".join(_bias_sentences([version]))
    it = panel_of("book", standing_of_book(version, found, name))
    return _page("book.html.j2", f"Risk of {name}", live=True, version=version, it=it, record=record)


def _page(template: str, title: str, *, live: bool, **parts: Any) -> str:
    """Fill a template in the frame that all pages share; scripts are in it only where something is interactive."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    run = scripts() if live else ()
    style = Markup((_HERE / "style.css").read_text(encoding="utf-8"))  # noqa: S704 - our own file
    return environment.get_template(template).render(title=title, style=style, scripts=run, policy=policy(run), **parts)


def _charts(versions: Sequence[PublishedVersion], tickers: Sequence[str]) -> dict[str, Chart | None]:
    """Draw all figures, by name."""
    with drawing():
        return {
            "coverage": figures.coverage(versions),
            "factor_returns": figures.factor_returns(versions),
            "omega": figures.omega(versions),
            "loadings": figures.loadings(versions, tickers),
            "importance": figures_explaining.importance(versions),
            "responses": figures_explaining.responses(versions),
            "beside_linear": figures_explaining.beside_linear(versions),
            "r2": figures.r_squared(versions),
            "bias": figures_risk.bias(versions),
            "ranks": figures_risk.ranks(versions),
            "specific": figures_risk.specific(versions),
            "frontiers": figures_risk.frontiers(versions),
        }


def _tiles(versions: Sequence[PublishedVersion], checks: CheckReport | None) -> list[tuple[str, str, str]]:
    """Facts of the run: a word, a figure, and a remark."""
    first, dates = versions[0], figures.whole_span(versions)
    counts = sorted({int(covered(version)[-1]) for version in versions})
    passed = sum(version.manifest.gate.passed for version in versions)
    as_of = " / ".join(sorted({str(version.manifest.as_of) for version in versions}))
    frequency = f"{first.dataset.attrs['frequency']}, {first.periods_per_year} periods a year"
    tiles = [
        ("Universe", first.manifest.universe, frequency),
        ("As of", as_of, "last date whose data were used"),
        ("Span", f"{dates[0]:%Y-%m-%d}", f"to {dates[-1]:%Y-%m-%d}, {len(first.dates):,} dates"),
        (
            "Stocks",
            str(first.dataset.sizes["ticker"]),
            f"{' to '.join(map(str, counts[:: len(counts) - 1 or 1]))} covered",
        ),
        ("Gate", f"{passed} of {len(versions)}", "models passed"),
    ]
    if checks is not None:
        failed = sum(not result.passed for result in checks.results)
        tiles.append(("Data", f"{failed} of {len(checks.results)}", "checks failed"))
    return tiles


def _findings(versions: Sequence[PublishedVersion], checks: CheckReport | None) -> list[str]:
    """Say in sentences what a reader should know first."""
    found = []
    for version in versions:
        if not version.manifest.gate.passed:
            reasons = "; ".join(version.manifest.gate.reasons) or "no reason given"
            found.append(f"{version.model} was held back by the gate: {reasons}.")
    scores = {v.model: v.manifest.metrics.get("total_r2_out_of_sample") for v in versions}
    ranked = sorted(((score, model) for model, score in scores.items() if score is not None), reverse=True)
    if len(ranked) > 1:
        (best, winner), (next_best, second) = ranked[:2]
        found.append(
            f"Highest total R2 out of sample: {winner} with {tables.percent(best, 2)}, before {second} with "
            f"{tables.percent(next_best, 2)}."
        )
    found.extend(_bias_sentences(versions))
    if checks is not None:
        found.append(_checks_sentence(checks))
    return found


def _bias_sentences(versions: Sequence[PublishedVersion]) -> list[str]:
    known = [item for item in tables_risk.biases(versions) if item.verdict != tables.MISSING]
    if not known:
        return []
    outside = [item for item in known if item.verdict != tables_risk.WITHIN]
    sentences = [f"{len(outside)} of {len(known)} bias statistics lie outside their 95% band."]
    for verdict in (tables_risk.UNDERSTATED, tables_risk.OVERSTATED):
        by_model: dict[str, list[str]] = {}
        for item in outside:
            if item.verdict == verdict:
                by_model.setdefault(item.version.model, []).append(item.portfolio)
        listed = "; ".join(f"{model} ({', '.join(portfolios)})" for model, portfolios in by_model.items())
        if listed:
            sentences.append(f"{verdict.capitalize()} by {listed}.")
    return [" ".join(sentences)]


def _checks_sentence(checks: CheckReport) -> str:
    failed = [result for result in checks.results if not result.passed]
    if not failed:
        return f"All {len(checks.results)} data checks passed."
    blocking = sum(result.severity == "block" for result in failed)
    return (
        f"{len(failed)} of {len(checks.results)} data checks failed, {blocking} of them blocking; "
        f"{tables.flagged_count(checks):,} rows flagged, {len(checks.blocked_dates):,} dates held back."
    )


def _runs(versions: Sequence[PublishedVersion]) -> list[tuple[str, PublishedVersion, str]]:
    """Versions that share snapshot, code, config and packages, by their models: each thing is said once."""
    groups: dict[str, list[PublishedVersion]] = {}
    for version in versions:
        manifest = version.manifest
        alike = repr(
            (
                manifest.snapshot_id,
                manifest.code_version,
                manifest.config_digest,
                manifest.sources,
                manifest.packages,
            )
        )
        groups.setdefault(alike, []).append(version)
    return [
        (", ".join(version.model for version in group), group[0], tables.config_yaml(group[0]))
        for group in groups.values()
    ]
