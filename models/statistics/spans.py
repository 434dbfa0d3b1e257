"""Statistics of consecutive dates, and the spans that they are cut into to be kept and joined.

Here belong which spans cover some dates, how shorter ones make a longer one, and what joining them means. What a span
is named by, and where it lies, belongs to whoever keeps it.

The dates of a panel, by position from its first, are cut into blocks of 64, and what is left at the end into spans of
32, 16, ... 1 dates, so that a date that is appended adds a span and leaves those before it as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import xarray as xr

from models.arrays import IntArray
from models.panel import Panel
from models.statistics.gram import Design, GramStatistics, gram_of, read_blocks

BLOCK_DATES = 64


@dataclass(frozen=True, eq=False)
class DatedGram:
    """Statistics of consecutive dates, and what a fit must know beside them.

    Attributes
    ----------
    gram : GramStatistics
    named : numpy.ndarray
        (date,) number of industries of the panel that have been named from the first date of the span up to this one.
    observed : xarray.DataArray or None
        (date, observed_factor) observed factor returns, if the panel has them.
    """

    gram: GramStatistics
    named: IntArray
    observed: xr.DataArray | None

    def last(self, n_dates: int) -> DatedGram:
        """Return the last dates; all of them if there are fewer."""
        rows = slice(max(0, len(self.named) - n_dates), None)
        gram = self.gram.sel(start=self.gram.dates[rows][0])
        return DatedGram(gram, self.named[rows], None if self.observed is None else self.observed[rows])

    def until(self, position: int, last: pd.Timestamp, design: Design) -> DatedGram:
        """Return the dates up to one, given by position and label, with the industries that were named by then."""
        named = self.named[: position + 1]
        gram = self.gram.sel(end=last)
        industries = len(gram.chars) - len(design.chars) - design.intercept
        later = range(int(named[-1]) + design.intercept, industries + design.intercept)
        if later:
            gram = gram.select([label for place, label in enumerate(gram.chars) if place not in later])
        return DatedGram(gram, named, None if self.observed is None else self.observed[: position + 1])


def designs_of(design: Design | None) -> list[Design]:
    """Return the designs of the statistics that a model is fitted to, and scored on; none if it needs the rows.

    The second one has equal weights, as R2 over the estimation universe has; it may be the first.
    """
    if design is None:
        return []
    return [design] if design.weighting == "equal" else [design, replace(design, weighting="equal", caps=False)]


def spans(n_dates: int) -> Iterator[tuple[int, int]]:
    """Cut positions 0 to n_dates into blocks, and the rest into spans of falling powers of two, all aligned."""
    start, size = 0, BLOCK_DATES
    while start < n_dates:
        while start + size > n_dates:
            size //= 2
        yield start, start + size
        start += size


def halves(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Yield an aligned span, its halves, theirs, and so on: the spans that `pieces` asks for."""
    yield start, stop
    if stop - start > 1:
        middle = (start + stop) // 2
        yield from halves(start, middle)
        yield from halves(middle, stop)


def pieces(start: int, stop: int, known: Callable[[int, int], bool]) -> Iterator[tuple[int, int, bool]]:
    """Cut a span into the largest aligned spans that are known, and whatever lies between them."""
    begin = start
    for first, last in _largest_known(start, stop, known):
        if begin < first:
            yield begin, first, False
        yield first, last, True
        begin = last
    if begin < stop:
        yield begin, stop, False


def _largest_known(start: int, stop: int, known: Callable[[int, int], bool]) -> Iterator[tuple[int, int]]:
    if known(start, stop):
        yield start, stop
    elif stop - start > 1:
        middle = (start + stop) // 2
        yield from _largest_known(start, middle, known)
        yield from _largest_known(middle, stop, known)


def dated_gram(rows: xr.Dataset, design: Design) -> DatedGram:
    """Compute the statistics of some dates of a panel's data, reading only these."""
    named = np.zeros(rows.sizes["date"], dtype=np.int64)
    if design.industries and "industry" in rows:
        codes = rows["industry"].load()
        named = np.maximum.accumulate(codes.max("ticker").values.astype(np.int64) + 1)
        rows = rows.assign(industry=codes).isel(industry_name=slice(0, int(named[-1])))
    observed = rows["factors"].load() if "factors" in rows else None
    parts = [gram_of(block, design) for block in read_blocks(Panel(rows))]
    return DatedGram(GramStatistics.concat(parts), named, observed)


def joined(parts: Sequence[DatedGram]) -> DatedGram:
    """Join spans along the date; an industry has zeros before it was named."""
    if len(parts) == 1:
        return parts[0]
    labels = max((part.gram.chars for part in parts), key=len)
    gram = GramStatistics.concat([_spread(part.gram, labels) for part in parts])
    named = np.maximum.accumulate(np.concatenate([part.named for part in parts]))
    observed = [part.observed for part in parts if part.observed is not None]
    return DatedGram(gram, named, xr.concat(observed, "date") if observed else None)


def _spread(gram: GramStatistics, labels: tuple[str, ...]) -> GramStatistics:
    """Give statistics the rows and columns of more regressors, which are zero."""
    if gram.chars == labels:
        return gram
    place = np.array([labels.index(label) for label in gram.chars])
    zz, zr = np.zeros((len(gram.n), len(labels), len(labels))), np.zeros((len(gram.n), len(labels)))
    zz[:, place[:, None], place] = gram.zz
    zr[:, place] = gram.zr
    caps = None
    if gram.caps is not None:
        caps = np.zeros((len(gram.n), gram.caps.shape[1] + len(labels) - len(gram.chars)))
        caps[:, : gram.caps.shape[1]] = gram.caps  # industries are named in order, and only they can be more
    return replace(gram, zz=zz, zr=zr, chars=labels, caps=caps)
