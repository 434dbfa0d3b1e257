"""Data Docs that can be opened anywhere: one styled page per suite, and an index, with no request to any network.

Here belongs HTML, and what a failure does in words. The pages of Great Expectations are not used: they say "values must
be less than or equal to 0.0" where the check has a sentence of its own, load styles and scripts from five hosts, and
link to pages that are not written. A content security policy in each page forbids scripts and requests; whatever comes
from data is escaped by the template.

The folder holds `index.html`, a page per suite, and the reports themselves as JSON, from which the index is made.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import jinja2
from markupsafe import Markup

from schemas.checks import TELLING, CheckReport, CheckResult, Scope, Severity
from storage.files import write_atomic
from tasks.checking.expectations import SuiteOutcome

Part = Literal["market", "cube"]
_PARTS: dict[Part, str] = {"market": "What was read", "cube": "What was written"}
_SHOWN_ROWS = 500
_LANDS = "a warning, and the data land as they are"
_CONSEQUENCES: dict[tuple[Severity, Scope], str] = {
    ("block", "row"): "what fails is quarantined: the row, or what of it is wrong, becomes missing",
    ("block", "date"): "the date is blocked: none of its rows land",
    ("block", "ingest"): "the whole ingest is blocked: nothing lands",
    ("warn", "row"): "a warning: the row stays, and its return and prices move no number",
    ("warn", "date"): _LANDS,
    ("warn", "ingest"): _LANDS,
}

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1c2530;background:#fff;max-width:70rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2rem}a{color:#0b5cad}dl{display:grid;grid-template-columns:7rem 1fr}
dt{color:#5b6773}dd{margin:0;overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%;margin:.4rem 0 1rem}th,td{border:1px solid #d5dbe1;padding:.3rem .55rem}
th,td{text-align:left;vertical-align:top;overflow-wrap:break-word}th{background:#f1f4f7}
.pass{color:#1a7f37}.warn{color:#8a5a00}.block{color:#b3261e;font-weight:600}.quiet{color:#5b6773}
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>{{ style }}</style>
</head>
<body>
{% block body %}{% endblock %}
<p class="quiet">Validated with Great Expectations.</p>
</body>
</html>
"""

_WORD = """{% macro word(r) %}{% if r.passed %}<span class="pass">passed</span>{% else %}
<span class="{{ r.severity }}">{{ "blocked" if r.severity == "block" else "warned" }}</span>{% endif %}{% endmacro %}"""

_SUITE = """{% extends "page" %}{% from "word" import word %}{% block body %}
<p><a href="index.html">Data quality</a></p>
<h1>{{ title }}</h1>
<p>{{ results | selectattr("passed") | list | length }} of {{ results | length }} checks passed.</p>
{% for r in results %}
<h2>{{ r.check }}: {{ word(r) }}</h2>
<dl><dt>Expected</dt><dd>{{ r.expected }}</dd><dt>Observed</dt><dd>{{ r.observed }}</dd>
<dt>On failure</dt><dd>{{ consequence(r) }}</dd></dl>
{% if not r.passed %}{% set label, rows = failing[r.check] %}
<table><thead><tr><th>{{ label }}</th><th>{{ "rows" if r.scope == "row" else "value" }}</th></tr></thead>
<tbody>{% for name, value in rows[:shown] %}<tr><td>{{ name }}</td><td>{{ value }}</td></tr>{% endfor %}</tbody></table>
{% if rows | length > shown %}<p class="quiet">The first {{ shown }} of {{ rows | length }}.</p>{% endif %}
{% endif %}{% endfor %}
{% endblock %}"""

_INDEX = """{% extends "page" %}{% from "word" import word %}
{% block body %}
<h1>{{ title }}</h1>
{% for part in parts %}
<h2>{{ part.title }}</h2>
<p>{{ part.passed }} of {{ part.report.results | length }} checks passed.
{% if part.report.blocked_ingest %}<span class="block">The whole ingest is blocked.</span>{% endif %}
{% if part.report.blocked_dates %}<span class="block">Blocked dates:
{{ part.report.blocked_dates[:20] | join(", ") }}{{ ", ..." if part.report.blocked_dates | length > 20 }}.</span>
{% endif %}</p>
<table><thead><tr><th>Check</th><th>Suite</th><th>Outcome</th><th>On failure</th><th>Observed</th><th>Expected</th></tr>
</thead><tbody>{% for r in part.report.results %}
<tr><td>{{ r.check }}</td><td><a href="{{ part.name }}-{{ r.suite }}.html">{{ r.suite }}</a></td><td>{{ word(r) }}</td>
<td>{{ r.severity }} {{ r.scope }}</td><td>{{ r.observed }}</td><td>{{ r.expected }}</td></tr>{% endfor %}
</tbody></table>
{% if part.report.flagged_rows %}
<h2>Flagged rows</h2>
<p>{{ part.report.flagged_count }} flags; {{ [part.report.flagged_rows | length, shown] | min }} are shown.</p>
<table><thead><tr><th>Date</th><th>Ticker</th><th>Check</th><th>Severity</th><th>Values</th></tr></thead>
<tbody>{% for row in part.report.flagged_rows[:shown] %}
<tr><td>{{ row.date }}</td><td>{{ row.ticker }}</td><td>{{ row.check }}</td>
<td class="{{ row.severity }}">{{ row.severity }}</td><td>{{ row.detail }}</td></tr>{% endfor %}
</tbody></table>
{% endif %}
{% endfor %}
{% endblock %}"""


def write_data_docs(folder: Path, part: Part, report: CheckReport, suites: Iterable[SuiteOutcome]) -> None:
    """Write the pages of one report into a folder, and the index over all reports there.

    Parameters
    ----------
    folder : Path
        Made if it is not there. The part `market` begins anew: what an earlier ingest left there goes away.
    part : {"market", "cube"}
        Which of the two reports of an ingest this is.
    report : CheckReport
        The report.
    suites : iterable of SuiteOutcome
        What Great Expectations found to fail, suite by suite.
    """
    for old in _PARTS if part == "market" else (part,):
        for file in [folder / f"{old}.json", *folder.glob(f"{old}-*.html")]:
            file.unlink(missing_ok=True)
    environment = jinja2.Environment(
        loader=jinja2.DictLoader({"page": _PAGE, "word": _WORD, "suite": _SUITE, "index": _INDEX}), autoescape=True
    )
    environment.globals |= {
        "style": Markup(_STYLE),  # noqa: S704  a constant
        "shown": _SHOWN_ROWS,
        "consequence": _consequence,
    }
    write_atomic(folder / f"{part}.json", report.model_dump_json(indent=1))
    failing = {
        outcome.check.name: (suite.label, list(zip(outcome.failing, outcome.values, strict=True)))
        for suite in suites
        for outcome in suite.outcomes
    }
    for name in {result.suite for result in report.results}:
        page = environment.get_template("suite").render(
            title=f"{_PARTS[part]}: {name}",
            results=[result for result in report.results if result.suite == name],
            failing=failing,
        )
        write_atomic(folder / f"{part}-{name}.html", page)
    page = environment.get_template("index").render(title="Data quality", parts=_parts(folder))
    write_atomic(folder / "index.html", page)


def _parts(folder: Path) -> list[dict[str, Any]]:
    found = []
    for name, title in _PARTS.items():
        file = folder / f"{name}.json"
        with suppress(FileNotFoundError):  # another ingest of this universe may begin its pages anew meanwhile
            report = CheckReport.model_validate_json(file.read_text(encoding="utf-8"))
            passed = sum(result.passed for result in report.results)
            found.append({"name": name, "title": title, "report": report, "passed": passed})
    return found


def _consequence(result: CheckResult) -> str:
    """Say what a failure of a check does."""
    if result.severity == "warn" and result.check in TELLING:
        return _LANDS
    return _CONSEQUENCES[result.severity, result.scope]
