"""The pages of a run and of a book: one self-contained HTML file each, which opens without a network.

`render_report` and `render_book` are all there is to call. Numbers come from published versions and their
manifests; nothing is fitted or stored here.
"""

from reporting.readings import PublishedVersion
from reporting.render import render_book, render_report

__all__ = ["PublishedVersion", "render_book", "render_report"]
