"""How the command line prints any table: ids and names whole, whatever the width of the terminal.

Here belongs the one way in which a table is fitted to its room. What stands in it belongs in `console` and the others.

A column is whole unless it is text: a version that is cut or folded cannot be copied. Text wraps between words. Where
there is no room for all, columns that may be left out go first, in their order, and a line under the table names them.
Into a pipe everything is printed at its full width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from schemas.base import printable

_PADDING = 3
"""Characters that a column takes beside its content: a blank on each side, and a border."""
_COMFORTABLE = 24
"""Below this many characters text is not narrowed for the sake of a column that may be left out."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes
    ----------
    title : str
        Its head, which wraps between words.
    text : bool
        Whether its content wraps between words; it stays whole otherwise.
    drop : int
        When it is left out for want of room: 1 before 2; 0 for never.
    """

    title: str
    text: bool = False
    drop: int = 0


def print_table(
    console: Console,
    columns: Sequence[Column | str],
    rows: Iterable[Sequence[str]],
    title: str | None = None,
) -> None:
    """Print rows of plain text under columns; a string is the title of a column that is whole and stays."""
    kept = [Column(column) if isinstance(column, str) else column for column in columns]
    content = [[printable(cell) for cell in row] for row in rows]
    content = [row + [""] * (len(kept) - len(row)) for row in content]
    places = list(range(len(kept)))
    room = _room(console)
    left_out = []
    for column in sorted((one for one in kept if one.drop), key=lambda one: one.drop):
        if _fits(kept, content, places, room):
            break
        places.remove(kept.index(column))
        left_out.append(column.title)
    widths = _widths(kept, content, places, room)
    table = Table(title=title, title_justify="left")
    for place in places:
        table.add_column(Text(kept[place].title), width=widths[place], overflow="fold")
    for row in content:
        table.add_row(*(Text(row[place], no_wrap=not kept[place].text) for place in places))
    wide = max(console.width, sum(widths[place] + _PADDING for place in places) + 1)
    before, console.width = console.width, wide
    console.print(table, crop=False)
    console.width = before
    if left_out:
        line = f"no room for: {', '.join(left_out)}"
        console.print(line, style="dim", markup=False, highlight=False, soft_wrap=True)


def print_in_parts(
    console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None
) -> None:
    """Print a table of which no column may be left out: in as many tables as there is room for, under one another.

    Each begins with the first column.
    """
    kept, places = [Column(column) for column in columns], list(range(len(columns)))
    half = (len(columns) + 1) // 2
    if len(columns) <= 2 or _fits(kept, rows, places, _room(console)):
        print_table(console, columns, rows, title)
        return
    for part in ([0, *places[1:half]], [0, *places[half:]]):
        print_in_parts(console, [columns[at] for at in part], [[row[at] for at in part] for row in rows], title)


def _room(console: Console) -> int | None:
    return console.width if console.is_terminal else None


def _fits(columns: Sequence[Column], rows: Sequence[Sequence[str]], places: Sequence[int], room: int | None) -> bool:
    if room is None:
        return True
    needed = 1
    for place in places:
        least = _least(columns, rows, place)
        text = min(_natural(columns, rows, place), _COMFORTABLE) if columns[place].text else 0
        needed += max(least, text) + _PADDING
    return needed <= room


def _widths(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], places: Sequence[int], room: int | None
) -> dict[int, int]:
    """Give each column its width: all that it wants, else heads wrap first, then text; the widest before others."""
    widths = {place: _natural(columns, rows, place) for place in places}
    least = {place: _least(columns, rows, place) for place in places}
    excess = 0 if room is None else sum(widths.values()) + _PADDING * len(places) + 1 - room
    while excess > 0:
        widest = max(places, key=lambda place: (widths[place] > least[place], not columns[place].text, widths[place]))
        if widths[widest] <= least[widest]:
            break  # ids that are wider than the terminal stay whole all the same
        widths[widest] -= 1
        excess -= 1
    return widths


def _natural(columns: Sequence[Column], rows: Sequence[Sequence[str]], place: int) -> int:
    return max([cell_len(columns[place].title), *(cell_len(row[place]) for row in rows)])


def _least(columns: Sequence[Column], rows: Sequence[Sequence[str]], place: int) -> int:
    """Return the width below which a word of the head, or of the content, would be broken."""
    words = columns[place].title.split()
    words += [word for row in rows for word in (row[place].split() if columns[place].text else [row[place]])]
    return max([1, *map(cell_len, words)])
