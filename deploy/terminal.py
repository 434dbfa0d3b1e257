"""The terminal as commands print to it: what they are given is shown, never obeyed.

A reason, a name in a manifest or a message may come from somebody else, and hold what moves the cursor, hides text or
turns its direction. Here belongs that this does nothing. What is printed belongs in the `console` modules.
"""

from __future__ import annotations

from collections.abc import Iterable

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from typing_extensions import override

from schemas.base import printable


def say(text: str, *, to_stderr: bool = False) -> None:
    """Print a line that holds names which may be anybody's."""
    typer.echo(printable(text), err=to_stderr)


class Terminal(Console):
    """A console that writes control characters out as escapes, but for its own colours."""

    @override
    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)
