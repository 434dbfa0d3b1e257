"""Data Docs that can be opened anywhere: one styled page per suite, and an index, with no request to any network.

Here belongs HTML. The tables of a page are those of Great Expectations; its page around them is not used, since it
loads styles and scripts from five hosts, and links to pages that are not written. A content security policy in each
page forbids scripts and requests; whatever comes from data was escaped before (`tasks.checking.expectations`) or is
by the template.

The folder holds `index.html`, a page per suite, and the reports themselves as JSON, from which the index is made.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import jinja2
from great_expectations.core.run_identifier import RunIdentifier
from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
from great_expectations.render.view.view import DefaultJinjaSectionView
from markupsafe import Markup

from schemas.checks import CheckReport
from storage.files import write_atomic
from tasks.checking.expectations import SuiteOutcome

Part = Literal["market", "cube"]
_PARTS: dict[Part, str] = {"market": "What was read", "cube": "What was written"}
_SHOWN_ROWS = 500

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1c2530;background:#fff;max-width:70rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2rem}h5,h6{font-size:1rem;margin:1rem 0 .3rem}a{color:#0b5cad}
table{border-collapse:collapse;width:100%;margin:.4rem 0 1rem}th,td{border:1px solid #d5dbe1;padding:.3rem .55rem}
th,td{text-align:left;vertical-align:top;overflow-wrap:break-word}th{background:#f1f4f7}thead[hidden]{display:none}
.badge{background:#e6ebf0;border-radius:.25rem;padding:0 .3rem}.text-danger{color:#b3261e}.collapse{display:none}
.pass,.text-success{color:#1a7f37}.warn{color:#8a5a00}.block{color:#b3261e;font-weight:600}.quiet{color:#5b6773}
.fa-check-circle::before{content:"passed"}.fa-times::before{content:"failed"}i{font-style:normal}
a[data-toggle]{display:none}td.number{text-align:right}
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

_SUITE = """{% extends "page" %}{% block body %}
<p><a href="index.html">Data quality</a></p>
<h1>{{ title }}</h1>
<p>{{ passed }} of {{ outcomes | length }} expectations met, of a summary of the data.</p>
<ul>{% for o in outcomes %}<li><b>{{ o.check.name }}</b>: {{ o.check.expected }}; on failure {{ o.check.severity }}
{{ o.check.scope }}</li>{% endfor %}</ul>
{{ sections }}
{% endblock %}"""

_INDEX = """{% extends "page" %}
{% macro word(r) %}{% if r.passed %}<span class="pass">passed</span>{% else %}
<span class="{{ r.severity }}">{{ "blocked" if r.severity == "block" else "warned" }}</span>{% endif %}{% endmacro %}
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
        What Great Expectations said, suite by suite.
    """
    for old in _PARTS if part == "market" else (part,):
        for file in [folder / f"{old}.json", *folder.glob(f"{old}-*.html")]:
            file.unlink(missing_ok=True)
    environment = jinja2.Environment(
        loader=jinja2.DictLoader({"page": _PAGE, "suite": _SUITE, "index": _INDEX}), autoescape=True
    )
    environment.globals["style"] = Markup(_STYLE)  # noqa: S704  a constant
    write_atomic(folder / f"{part}.json", report.model_dump_json(indent=1))
    template = environment.get_template("suite")
    for suite in suites:
        passed = sum(not outcome.failing for outcome in suite.outcomes)
        page = template.render(
            title=f"{_PARTS[part]}: {suite.suite}", passed=passed, outcomes=suite.outcomes, sections=_sections(suite)
        )
        write_atomic(folder / f"{part}-{suite.suite}.html", page)
    page = environment.get_template("index").render(title="Data quality", parts=_parts(folder), shown=_SHOWN_ROWS)
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


def _sections(suite: SuiteOutcome) -> Markup:
    """Render the expectations of a suite as Great Expectations does, without its overview and its log of the run."""
    validation = copy.deepcopy(suite.validation)
    validation.meta["run_id"] = RunIdentifier(run_name=suite.suite)
    for result in validation.results:
        result.result.pop("unexpected_index_query", None)  # a snippet of pandas code that needs our table
    document = ValidationResultsPageRenderer(run_info_at_end=True).render(validation)
    view: Any = DefaultJinjaSectionView()
    parts = [
        view.render({"section": section.to_json_dict(), "section_loop": {"index": number}})
        for number, section in enumerate(document.sections[1:-1])
    ]
    return Markup("".join(parts))  # noqa: S704  labels were escaped before
