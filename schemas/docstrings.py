"""What a numpydoc docstring of a class says of its parameters, as text for one line of a form or an editor.

Here belongs reading docstrings. What is done with a description belongs where it is shown.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

_SECTION = re.compile(r"(?:^|\n)(\w[\w ]*)\n-{3,}\n")


def summary(cls: type[Any]) -> str:
    """Return the first paragraph of a class's docstring, on one line."""
    return _plain(inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0])


def parameter_descriptions(cls: type[Any]) -> dict[str, str]:
    """Return the description of every parameter that the class, or a parent of it, lists under ``Parameters``.

    Each is one paragraph without markup. Names that share an entry (``start, stop : int``) share its text.
    """
    found: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        found |= dict(_entries(_section(inspect.cleandoc(one.__doc__ or ""), "Parameters")))
    return found


def _section(text: str, title: str) -> str:
    """Return the lines under a heading, up to the next one; empty if there is no such heading."""
    parts = _SECTION.split(text)
    return dict(zip(parts[1::2], parts[2::2], strict=True)).get(title, "")


def _entries(section: str) -> Iterator[tuple[str, str]]:
    for entry in re.split(r"\n(?=\S)", section.strip("\n")) if section else ():
        head, _, body = entry.partition("\n")
        for name in head.partition(" :")[0].split(","):
            yield name.strip(), _plain(body)


def _plain(text: str) -> str:
    """Put a text on one line, without the quotes of code."""
    return " ".join(text.replace("`", "").split())
