"""What the numbers as of a date were made from: a chained hash of the rows of a cube, and who was there by then.

Here belong content digests. They name inputs by what stands in them and not by the snapshot that holds them, so that
a snapshot which only appended dates leaves every earlier fit and version valid, while a restated date makes exactly
the fits from that date on stale.

The digest of a date covers every row from the start of the panel up to it, of everything that a panel, a portfolio
or an evaluation reads. Of each row only the tickers that have anything there are hashed, by name and in the order of
the axis: a ticker that is added later was not there, and does not change what is before it. Industries are hashed by
code, and a code by its name on the first date that has it, so that names added later do not count either; refuted
returns only on dates that have some, so that a cube from before there was such a flag keeps its names. Reading a
cube, and keeping what is found, belongs in `tasks.digests`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from models.arrays import BoolArray, IntArray
from schemas.errors import DataError
from schemas.refs import Key

_BLOCK_DATES = 64


@dataclass(frozen=True, eq=False)
class DataDigests:
    """The dates of a span with their digests, and its tickers with the dates on which they first appear.

    Attributes
    ----------
    key : str
        Where the work store keeps this.
    dates : pandas.DatetimeIndex
        Dates of the span.
    digests : tuple of str
        Of each date: the hash of all rows up to it.
    tickers : numpy.ndarray
        All tickers of the snapshot, in the order of its axis.
    first_seen : numpy.ndarray
        Of each ticker: the position of the first date on which it has anything; the number of dates if none.
    """

    key: Key
    dates: pd.DatetimeIndex
    digests: tuple[str, ...]
    tickers: npt.NDArray[np.str_]
    first_seen: IntArray

    def position(self, day: date | pd.Timestamp | None) -> int:
        """Position of the last date that is not after a day; of the last one if no day is given.

        Raises
        ------
        DataError
            If the day is before all dates.
        """
        if day is None:
            return len(self.dates) - 1
        position = int(self.dates.searchsorted(pd.Timestamp(day), side="right")) - 1
        if position < 0:
            raise DataError(
                f"there are no data as of {pd.Timestamp(day):%Y-%m-%d}: the first date is {self.dates[0]:%Y-%m-%d}"
            )
        return position

    def as_of(self, day: date | pd.Timestamp | None) -> date:
        """Return the last date that is not after a day."""
        found: date = self.dates[self.position(day)].date()
        return found

    def digest(self, day: date | pd.Timestamp | None) -> str:
        """Return the hash of everything up to a day."""
        return self.digests[self.position(day)]

    def axis(self, position: int) -> slice | IntArray:
        """Where those that have appeared by a date stand among all that ever do; a slice if that is all of them."""
        ever = self.first_seen[self.first_seen < len(self.dates)]
        return slice(None) if (ever <= position).all() else np.flatnonzero(ever <= position)

    def seen(self, position: int) -> IntArray:
        """Positions on the ticker axis of those that have appeared by a date."""
        return np.flatnonzero(self.first_seen <= position)


@dataclass(frozen=True, eq=False)
class Chain:
    """The digests of consecutive rows, and what the next one goes on from.

    Attributes
    ----------
    start : str
        Hash of what they are rows of; none is behind it.
    digests : tuple of str
        Of each date: the hash of all rows up to it.
    first_seen : numpy.ndarray
        (ticker,) position of the first date on which it has anything; the number of dates, or more, if none.
    named : tuple of int
        Of each date: industries whose names the hashes up to it hold.
    """

    start: str
    digests: tuple[str, ...]
    first_seen: IntArray
    named: tuple[int, ...]


def digest_chain(
    cube: xr.Dataset, characteristics: list[str], portfolios: list[str], known: Chain | None = None
) -> Chain:
    """Hash the rows of a cube one after the other, block by block.

    Parameters
    ----------
    cube : xarray.Dataset
        Span of a cube, possibly opened lazily (`schemas.contracts.CUBE`).
    characteristics, portfolios : list of str
        Which of them count.
    known : Chain, optional
        Of the first rows, over the same tickers: they are not read. Left aside if it is of other things.
    """
    names = cube["ticker"].values.astype(np.str_)
    observed = [str(name) for name in cube["observed_factor"].values] if "factors" in cube else []
    industries = [str(name) for name in cube["industry_name"].values] if "industry" in cube else []
    header = [characteristics, portfolios, observed, "risk_free" in cube, *(["industry"] if industries else [])]
    start = hashlib.blake2b(json.dumps(header).encode(), digest_size=32).hexdigest()
    if known is None or known.start != start:
        known = Chain(start, (), np.full(len(names), cube.sizes["date"], dtype=np.int64), ())
    digests, named_by = [*known.digests], [*known.named]
    seen = known.first_seen < len(digests)
    first_seen = np.where(seen, known.first_seen, cube.sizes["date"])
    link, named = bytes.fromhex(digests[-1] if digests else start), named_by[-1] if named_by else 0
    for row in _rows(cube.isel(date=slice(len(digests), None)), characteristics, portfolios):
        entry = hashlib.blake2b(link, digest_size=32)
        entry.update(row.day.encode())
        new = row.present & ~seen
        if new.any():
            seen |= new
            first_seen[new] = len(digests)
            entry.update("\0".join(names[seen]).encode())
        last = -1 if row.industry is None else int(row.industry[row.present].max(initial=-1))
        if last >= named:
            entry.update(json.dumps(industries[named : last + 1]).encode())
            named = last + 1
        entry.update(np.packbits(row.present[seen]).tobytes())
        if row.refuted is not None and row.refuted.any():
            entry.update(b"refuted" + np.packbits(row.refuted[row.present]).tobytes())
        for values in row.common:
            entry.update(values.tobytes())
        for values in row.by_ticker:
            entry.update(values[row.present].tobytes())
        link = entry.digest()
        digests.append(link.hex())
        named_by.append(named)
    return Chain(start, tuple(digests), first_seen, tuple(named_by))


@dataclass(frozen=True, eq=False)
class _Row:
    """One date: who has anything, what stands for all, and what stands for each ticker (first axis)."""

    day: str
    present: BoolArray
    common: list[npt.NDArray[Any]]
    by_ticker: list[npt.NDArray[Any]]
    industry: npt.NDArray[np.int16] | None
    refuted: BoolArray | None


def _rows(cube: xr.Dataset, characteristics: list[str], portfolios: list[str]) -> Iterator[_Row]:
    used = cube.sel(portfolio=portfolios)
    if "characteristics" in used:
        used = used.sel(char=characteristics)
    for start in range(0, used.sizes["date"], _BLOCK_DATES):
        block = used.isel(date=slice(start, start + _BLOCK_DATES)).load()
        returns, estimation = (block[name].transpose("date", "ticker").values for name in ("returns", "estimation"))
        weights = block["weights"].transpose("date", "ticker", "portfolio").values
        defined = ~np.isnan(weights).all(axis=1)
        present = np.isfinite(returns) | estimation | (~np.isnan(weights) & (weights != 0.0)).any(axis=2)
        common = [defined, *(block[name].values for name in ("risk_free", "factors") if name in block)]
        by_ticker = [returns, estimation, weights]
        if "characteristics" in block:
            values = block["characteristics"].transpose("date", "ticker", "char").values
            present |= np.isfinite(values).any(axis=2)
            by_ticker.append(values)
        refuted = block["refuted"].transpose("date", "ticker").values if "refuted" in block else None
        industry = block["industry"].transpose("date", "ticker").values if "industry" in block else None
        if industry is not None:
            by_ticker.append(industry)
        for row, day in enumerate(block.indexes["date"]):
            yield _Row(
                day=f"{day:%Y-%m-%d}",
                present=present[row],
                common=[array[row] for array in common],
                by_ticker=[array[row] for array in by_ticker],
                industry=None if industry is None else industry[row],
                refuted=None if refuted is None else refuted[row],
            )
