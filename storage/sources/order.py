"""Whether rows come in order, and once: the keys (date, ticker) of a table.

Dates must ascend within each part of an origin: over the rows of a wide table, and over the rows of each
ticker of a long one, so that a long file may be ordered by date or by ticker. A file that is out of order has
often been mangled on the way; it is refused rather than sorted.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from schemas.errors import DataError, SourceError

Codes = npt.NDArray[np.int64]


def check_order(name: str, dates: pl.Series, tickers: pl.Series | None) -> None:
    """Refuse dates that descend; equal ones are refused by `check_unique` when all parts are together.

    Raises
    ------
    SourceError
        Naming the first date that is out of order, and its ticker.
    """
    days = dates.to_physical().to_numpy().astype(np.int64)
    if tickers is None:
        rows = np.arange(len(days))
    else:
        codes = tickers.cast(pl.Enum(tickers.unique())).to_physical().to_numpy()
        rows = np.argsort(codes, kind="stable")
        days = days[rows] + codes[rows].astype(np.int64) * (1 << 32)
    late = np.flatnonzero(np.diff(days) < 0)
    if late.size == 0:
        return
    first = int(rows[late + 1].min())
    owner = "" if tickers is None else f" of ticker {tickers[first]}"
    raise SourceError(
        f"{name}: the dates{owner} are not in order: {dates[first]} comes after a later one; sort the rows by date"
    )


def check_unique(what: str, dates: pl.Series, tickers: pl.Series | None, keys: Codes, size: int, monthly: bool) -> None:
    """Refuse a key that is there twice.

    Parameters
    ----------
    what : str
        What is being read, for the message.
    dates, tickers : polars.Series
        The key columns, for the message.
    keys : numpy.ndarray
        One integer in [0, size) per row; equal for rows of the same key.
    size : int
        Number of possible keys.
    monthly : bool
        Whether dates are labels of months, for the message.

    Raises
    ------
    DataError
        Naming the first key that comes again, and how many rows do.
    """
    seen = np.zeros(size, dtype=bool)
    seen[keys] = True
    repeated = len(keys) - int(np.count_nonzero(seen))
    if repeated == 0:
        return
    _, firsts = np.unique(keys, return_index=True)
    again = np.ones(len(keys), dtype=bool)
    again[firsts] = False
    row = int(np.flatnonzero(again)[0])
    owner = "" if tickers is None else f", ticker {tickers[row]}"
    key = "date" if tickers is None else "(date, ticker)"
    advice = "; a monthly universe takes one row per month" if monthly else "; remove all but one of each"
    raise DataError(f"{what}: {repeated} duplicated rows of the same {key}, the first is ({dates[row]}{owner}){advice}")
