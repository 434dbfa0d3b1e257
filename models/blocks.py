"""A dataset some tickers at a time, each over all dates: how a market is gone through that does not fit into memory.

Here belongs the cutting. What is done with a block, and how its results are joined, belongs to those who go through.
A block has the same number of cells whatever the dates, so that memory does not grow with a market. While one is looked
at, the next one is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
import xarray as xr

from models.arrays import IntArray

CELLS = 2**22
"""Most cells (date, ticker) of a block, unless that is less than `LEAST` tickers."""
LEAST = 64


def width_of(dates: int) -> int:
    """Return how many tickers a block has: a power of two, so that blocks meet the borders of chunks."""
    return max(LEAST, 1 << (max(CELLS // max(dates, 1), 1).bit_length() - 1))


def run_of(positions: IntArray) -> slice | IntArray:
    """Return ascending positions as a slice if they have no gap: what is lazy is read much faster by it."""
    if len(positions) and positions[-1] - positions[0] == len(positions) - 1:
        return slice(int(positions[0]), int(positions[-1]) + 1)
    return positions


@dataclass(frozen=True, eq=False)
class Blocks:
    """Tickers of a dataset, block by block; each pass reads and makes them anew, unless there is only one.

    Attributes
    ----------
    source : xarray.Dataset
        (date, ticker); may be lazy.
    make : callable, optional
        What a block becomes, with the same tickers; it stays as it is if left out.
    """

    source: xr.Dataset
    make: Callable[[xr.Dataset], xr.Dataset] | None = None

    @property
    def dates(self) -> pd.DatetimeIndex:
        """Dates of every block."""
        return pd.DatetimeIndex(self.head["date"].values)

    @property
    def tickers(self) -> xr.DataArray:
        """Tickers of all blocks, in their order."""
        return self.source["ticker"]

    @cached_property
    def head(self) -> xr.Dataset:
        """The first ticker alone: which variables a block has, and of which type."""
        return self._made(slice(0, 1))

    def then(self, make: Callable[[xr.Dataset], xr.Dataset]) -> Blocks:
        """Return the blocks that something is made of these."""
        return Blocks(self.source, lambda block: make(block if self.make is None else self.make(block)))

    def __iter__(self) -> Iterator[xr.Dataset]:
        width = width_of(self.source.sizes["date"])
        if self.source.sizes["ticker"] <= width:
            yield self._only
            return
        with ThreadPoolExecutor(1) as beside:
            ahead = beside.submit(self._made, slice(0, width))
            for start in range(width, self.source.sizes["ticker"] + width, width):
                block = ahead.result()
                if start < self.source.sizes["ticker"]:
                    ahead = beside.submit(self._made, slice(start, start + width))
                yield block

    @cached_property
    def _only(self) -> xr.Dataset:
        return self._made(slice(None))

    def _made(self, tickers: slice) -> xr.Dataset:
        block = self.source.isel(ticker=tickers).load()
        return block if self.make is None else self.make(block)
