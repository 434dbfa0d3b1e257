"""All that checks look at of a market, gone through some tickers at a time; and how it goes on with new dates.

Here belongs what is kept of a market so that, when dates are added to its end, the dates before need not be looked at
again. What is counted belongs in `summaries`, which rows are flagged in `rows`; what follows from it belongs in
`tasks.checking`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from models.arrays import BoolArray, FloatArray, NamedArrays, under
from models.blocks import Blocks, run_of
from models.quality import jumps
from models.quality.arrays import SectionMedians, labels
from models.quality.rows import Flagged, RowFlags, flag_rows, sections_of
from models.quality.summaries import ACTIVE_SESSIONS, SEEN, Seen, Tally

Frequency = Literal["daily", "monthly"]


class Followed(NamedTuple):
    """Where the dates of a market stand that ends another one.

    Attributes
    ----------
    start : int
        Position of its first date among all.
    known : int
        How many dates were known before.
    """

    start: int
    known: int

    @property
    def open(self) -> int:
        """Position of the first date of which anything may be said that was not known before."""
        return max(self.start, self.known - jumps.LOOKAHEAD)


@dataclass(frozen=True)
class Survey:
    """What checks look at of a market.

    Attributes
    ----------
    tally : Tally
        What is counted.
    flagged : dict of str to Flagged
        By rule: the rows that it flags.
    sizes : ndarray (date,)
        Median absolute return, of returns that came as such; NaN of none.
    tickers : ndarray (ticker,)
        Names.
    """

    tally: Tally
    flagged: dict[str, Flagged]
    sizes: FloatArray
    tickers: npt.NDArray[np.str_]

    @classmethod
    def of(
        cls,
        blocks: Blocks,
        thresholds: Mapping[str, float],
        frequency: Frequency,
        kept: BoolArray | None = None,
        before: FloatArray | None = None,
    ) -> Survey:
        """Go through a market.

        Parameters
        ----------
        blocks : Blocks
            As `models.quality.flag_rows` takes a market.
        thresholds, frequency
            As there.
        kept : ndarray (date,), optional
            Rows are flagged as if the other dates were not there. Default: all.
        before : ndarray (ticker,), optional
            As there, of all tickers.
        """
        dates = blocks.dates
        kept = np.ones(len(dates), dtype=np.bool_) if kept is None else kept
        places = run_of(np.flatnonzero(kept))
        looked_at = blocks if kept.all() else blocks.then(lambda block: block.isel(date=places))
        sections = sections_of(looked_at) if frequency == "daily" and kept.any() else None
        sizes, first = SectionMedians(len(dates)), 0
        tallies, flagged = [], []
        for block in blocks:
            rows, stop = RowFlags({}, {}), first + block.sizes["ticker"]
            if kept.any():
                own = None if before is None else before[first:stop]
                rows = flag_rows(block.isel(date=places), thresholds, frequency, sections, own).spread(kept)
            tallies.append(Tally.of(block))
            flagged.append(Flagged.of(block, rows, first))
            if "returns" in block:
                sizes.add(np.abs(block["returns"].values))
            first = stop
        joined = {rule: Flagged.joined([part[rule] for part in flagged]) for rule in flagged[0]}
        return cls(reduce(add, tallies), joined, sizes.medians()[:, 0], labels(blocks.tickers))

    def followed_by(self, end: Blocks, thresholds: Mapping[str, float], frequency: Frequency, at: Followed) -> Survey:
        """Return the survey of a market with more dates, given its end: as `of` gives it of all dates, bit for bit.

        Parameters
        ----------
        end : Blocks
            New dates, and of those before at least `looked_back`.
        thresholds, frequency
            As this survey was made with.
        at : Followed
            Where the dates of `end` stand.
        """
        tickers = labels(end.tickers)
        places = pd.Index(tickers).get_indexer(pd.Index(self.tickers))
        before = self.tally.seen.placed(places, len(tickers))
        found = Survey.of(end, thresholds, frequency, before=before.positive)
        seen = reduce(Seen.beside, self._seen_after(end, before, at))
        flagged = {}
        for rule, rows in found.flagged.items():
            cut = at.open if rule == "reversed_jump" else at.known
            old = self.flagged[rule].among(0, cut).moved(0, places)
            new = rows.moved(at.start, np.arange(len(tickers))).among(cut)
            flagged[rule] = Flagged.joined([old, new])
        sizes = np.concatenate([self.sizes[: at.open], found.sizes[at.open - at.start :]])
        return Survey(self.tally.until(at.open, found.tally, at.start, seen), flagged, sizes, tickers)

    def among(self, tickers: npt.NDArray[np.str_]) -> Survey | None:
        """Return the survey of these tickers alone, if no other has a price or return; None if some are not known."""
        chosen = pd.Index(self.tickers).get_indexer(pd.Index(tickers))
        if (chosen < 0).any() or self.tally.seen.rows[chosen].sum() < self.tally.seen.rows.sum():
            return None
        place = np.zeros(len(self.tickers), dtype=np.int64)
        place[chosen] = np.arange(len(chosen))
        flagged = {rule: found.moved(0, place) for rule, found in self.flagged.items()}
        tally = replace(self.tally, seen=self.tally.seen.among(chosen))
        return replace(self, tally=tally, flagged=flagged, tickers=tickers)

    def _seen_after(self, end: Blocks, before: Seen, at: Followed) -> list[Seen]:
        first, seen = 0, []
        for block in end:
            stop = first + block.sizes["ticker"]
            own = before.among(slice(first, stop))
            seen.append(own.then(block.isel(date=slice(at.known - at.start, None)), at.known))
            first = stop
        return seen

    def arrays(self) -> tuple[NamedArrays, dict[str, Any]]:
        """Return the survey as it is stored, and what arrays do not say; of a market whose splits are not adjusted."""
        arrays: NamedArrays = {f"tally/{name}": counts for name, counts in self.tally.counts.items()}
        arrays |= {f"seen/{name}": getattr(self.tally.seen, name) for name in SEEN} | {"sizes": self.sizes}
        for rule, found in self.flagged.items():
            arrays |= {f"{rule}/{name}": getattr(found, name) for name in ("date", "ticker", "blamed")}
            arrays |= {f"{rule}/value {name}": values for name, values in found.values.items()}
        fields = {rule: found.fields for rule, found in self.flagged.items()}
        values = {rule: [*found.values] for rule, found in self.flagged.items()}
        counts = [*self.tally.counts]
        said = {"base": self.tally.base, "counts": counts, "fields": fields, "values": values}
        return arrays, said | {"tickers": self.tickers.tolist()}

    @classmethod
    def from_arrays(cls, arrays: NamedArrays, said: Mapping[str, Any]) -> Survey:
        """Make a survey of what `arrays` gave."""
        seen = Seen(**under("seen/", arrays))
        tally = Tally(said["base"], {name: arrays[f"tally/{name}"] for name in said["counts"]}, None, seen)
        flagged = {}
        for rule, fields in said["fields"].items():
            own = under(f"{rule}/", arrays)
            values = {name: own[f"value {name}"] for name in said["values"][rule]}
            flagged[rule] = Flagged(own["date"], own["ticker"], list(fields), own["blamed"], values)
        return cls(tally, flagged, arrays["sizes"], np.array(said["tickers"], dtype=np.str_))


def looked_back(thresholds: Mapping[str, float]) -> int:
    """Return how many dates before the first one that was not known a survey of a market's end must have."""
    excursion = jumps.LOOKAHEAD + jumps.WINDOW + 2  # its first move, and products of each with the one before
    return jumps.LOOKAHEAD + max(excursion, ACTIVE_SESSIONS + 1, round(thresholds["stale_price"]) + 1)
