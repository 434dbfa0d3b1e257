"""Rows of a panel a block at a time, each with the rows before it that a model looks at.

Here belongs the cutting. What is asked of the rows is for the caller to say.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from models.panel.panel import Panel

_BLOCK_ROWS = 1024
_BLOCK_LOADINGS = 2**23
"""Most loadings of a block: a universe of many stocks and factors is asked in shorter ones."""


class Rows(Protocol):
    """Whatever gives rows of a panel by position: a `Panel`, or a reader that makes them when they are asked for."""

    @property
    def tickers(self) -> list[str]:
        """Names of the stocks of every row, in order."""
        ...

    def rows(self, start: int, stop: int) -> Panel:
        """Return consecutive rows, in memory and in one layout."""
        ...


class RowBlock(NamedTuple):
    """Consecutive rows, in memory.

    Attributes
    ----------
    panel : Panel
        They, and the rows before them, as far as there are any.
    before : int
        How many rows those are.
    first, last : int
        Positions of the first row of the block itself in the whole, and of the one after its last.
    """

    panel: Panel
    before: int
    first: int
    last: int

    @property
    def own(self) -> slice:
        """Where the rows of the block itself are in its panel."""
        return slice(self.before, None)


def row_blocks(panel: Rows, start: int, stop: int, size: int, memory: int) -> Iterator[RowBlock]:
    """Cut the rows from ``start`` to ``stop`` (exclusive) into blocks.

    Parameters
    ----------
    panel : Rows
    start, stop : int
        Positions.
    size : int
        Rows of a block.
    memory : int
        How many rows before a row are looked at with it (`FactorModel.row_memory`).
    """
    for first in range(start, stop, size):
        last, begin = min(first + size, stop), max(first - memory, 0)
        yield RowBlock(panel.rows(begin, last), first - begin, first, last)


def rows_at_once(n_tickers: int, n_factors: int) -> int:
    """Return how many rows a fitted model is asked about at a time: fewer of many stocks and factors."""
    return max(1, min(_BLOCK_ROWS, _BLOCK_LOADINGS // max(1, n_tickers * n_factors)))
