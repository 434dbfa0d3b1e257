"""The report of a run: one self-contained HTML file that opens without a network.

`render_report` is all there is to call. Numbers come from published versions and their manifests; nothing is fitted
or stored here.
"""

from reporting.readings import PublishedVersion
from reporting.render import render_report

__all__ = ["PublishedVersion", "render_report"]
