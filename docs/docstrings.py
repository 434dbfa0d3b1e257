"""Brackets in docstrings are shapes, ``([date,] ticker)``, and not links of Markdown.

Here belongs what a docstring needs to be shown as it was written.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

CODE = re.compile(r"(`+[^`]*`+|^\s*(?:>>>|\.\.\.).*$|^\w[\w, ]* : .*$)", re.MULTILINE)
"""Literals, examples, and the names and types of parameters."""


class Brackets(griffe.Extension):
    """Escape what would open a link, but in code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Escape the docstring of an object once it is read."""
        if obj.docstring is not None:
            parts = CODE.split(obj.docstring.value)
            parts[::2] = [part.replace("[", r"\[") for part in parts[::2]]
            obj.docstring.value = "".join(parts)
