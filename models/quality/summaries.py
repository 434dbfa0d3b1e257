"""Summaries of a market dataset: one small table per question, whatever the size of the data.

Here belong counts and shares by date, ticker, variable, key and session. Rules of single rows belong in
`rows`; what a cube is about to hold in `cube`.

Each table is a pandas DataFrame whose columns are named as the checks of `schemas.checks` that look at
them. The first column says what a row is about. A column `<check>_of` names the worst offender of the row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from models.arrays import BoolArray, FloatArray, IntArray
from models.quality.arrays import labels, trailing_median
from models.quality.listings import absences
from models.quality.rows import RowFlags
from models.quality.splits import ratio_in_words

ACTIVE_SESSIONS = 21
"""A ticker is active while it had a price or return within this many dates."""
CLUSTER_LEAST = 5
EVENTS = ("delisting_return", "split_ratio")
"""Variables that are known where something happened: that they are missing elsewhere says nothing."""
_KINDS = {"f": "float", "M": "datetime", "U": "str", "T": "str", "i": "int", "u": "int", "b": "bool"}


def structure(market: xr.Dataset) -> pd.DataFrame:
    """One row per variable and per axis: `item` and its `layout`, such as ``float(date, ticker)``.

    One ticker of a market tells it of all.
    """
    axes = {name: market.coords.get(name) for name in ("date", "ticker")}
    found = axes | dict(market.data_vars) | {str(k): v for k, v in market.coords.items() if k not in axes}
    rows = [(str(name), "missing" if array is None else _layout(array)) for name, array in found.items()]
    return pd.DataFrame(rows, columns=["item", "layout"])


def keys(dates: pd.DatetimeIndex, names: xr.DataArray) -> pd.DataFrame:
    """One row per date and ticker: `duplicate_key` is the label, to be unique; the others are 0 or 1."""
    tickers = pd.Index(labels(names))
    parts = [
        _key_rows("date", dates.strftime("%Y-%m-%d"), dates, (dates != dates.normalize()) | dates.isna()),
        _key_rows("ticker", tickers, tickers, (tickers != tickers.str.strip()) | (tickers == "")),
    ]
    return pd.concat(parts, ignore_index=True)


def sessions_table(
    dates: pd.DatetimeIndex, sessions: pd.DatetimeIndex | None, frequency: Literal["daily", "monthly"]
) -> pd.DataFrame:
    """One row per date or session between the first and the last date.

    With sessions given, 0 or 1 whether the date is not one (`unknown_session`) and whether the session has no data
    (`missing_session`); every month is a session of monthly data, once. Without, days since the date before
    (`calendar_gap`).
    """
    if sessions is None:
        gaps = dates.to_series().diff().dt.days.to_numpy(dtype=np.float64)
        return pd.DataFrame({"date": _iso(dates), "calendar_gap": gaps})
    if frequency == "monthly":
        months = dates.to_period("M")
        missing = pd.period_range(months[0], months[-1], freq="M").difference(months).to_timestamp("M").normalize()
        unknown = months.duplicated()
    else:
        missing = sessions[(sessions >= dates[0]) & (sessions <= dates[-1])].difference(dates)
        unknown = ~dates.isin(sessions)
    table = pd.concat(
        [
            pd.DataFrame({"date": _iso(dates), "unknown_session": unknown.astype(int), "missing_session": 0}),
            pd.DataFrame({"date": _iso(missing), "unknown_session": 0, "missing_session": 1}),
        ]
    )
    return table.sort_values("date", kind="stable", ignore_index=True)


@dataclass(frozen=True)
class Tally:
    """What is counted of the tickers of a market, some at a time: tallies of blocks add up to that of the whole.

    Attributes
    ----------
    base : str
        What a row is known by: ``close`` or ``returns``.
    observed, active, absent : ndarray (date,)
        Tickers with a price or return, active ones, and active ones without.
    lacking : dict of str to ndarray (date,)
        By another field: observed rows without it.
    characteristics : dict of str to int
        By characteristic: observed rows without it.
    flags : dict of str to ndarray (date,)
        By rule: rows that it flags.
    jumps : ndarray (date,) or None
        Rows that any of the rules of jumps flags.
    splits : ndarray (date,) of str, or None
        Adjusted splits in words; None if none are looked for.
    adjusted : ndarray (date,)
        How many those are.
    tickers : DataFrame
        As `by_ticker` gives it.
    """

    base: str
    observed: IntArray
    active: IntArray
    absent: IntArray
    lacking: dict[str, IntArray]
    characteristics: dict[str, int]
    flags: dict[str, IntArray]
    jumps: IntArray | None
    splits: npt.NDArray[np.object_] | None
    adjusted: IntArray
    tickers: pd.DataFrame

    @classmethod
    def of(cls, market: xr.Dataset, rows: RowFlags) -> Tally:
        """Count some tickers of a market, and what the rules flag of them."""
        observed = _observed(market)
        active = active_tickers(observed)
        lacking = {name: observed & ~np.isfinite(values) for name, values in _other_fields(market).items()}
        missing = {}
        if "characteristics" in market:
            values = market["characteristics"].transpose("date", "ticker", "char").values
            for number, name in enumerate(labels(market["char"])):
                missing[str(name)] = int((observed & ~np.isfinite(values[:, :, number])).sum())
        jumps = rows.any_jump
        splits = _splits_in_words(market) if "split_ratio" in market else None
        return cls(
            base=_base_name(market),
            observed=observed.sum(axis=1),
            active=active.sum(axis=1),
            absent=(active & ~observed).sum(axis=1),
            lacking={name: without.sum(axis=1) for name, without in lacking.items()},
            characteristics=missing,
            flags={name: flagged.sum(axis=1) for name, flagged in rows.flags.items()},
            jumps=None if jumps is None else jumps.sum(axis=1),
            splits=splits,
            adjusted=np.isfinite(market["split_ratio"].values).sum(axis=1) if splits is not None else np.zeros(0, int),
            tickers=by_ticker(market),
        )

    def __add__(self, other: Tally) -> Tally:
        """Join with the tally of the tickers that follow."""
        texts = None
        if self.splits is not None and other.splits is not None:
            between = np.where((self.splits != "") & (other.splits != ""), ", ", "").astype(object)
            texts = self.splits + between + other.splits
        return Tally(
            base=self.base,
            observed=self.observed + other.observed,
            active=self.active + other.active,
            absent=self.absent + other.absent,
            lacking={name: counts + other.lacking[name] for name, counts in self.lacking.items()},
            characteristics={name: count + other.characteristics[name] for name, count in self.characteristics.items()},
            flags={name: counts + other.flags[name] for name, counts in self.flags.items()},
            jumps=None if self.jumps is None or other.jumps is None else self.jumps + other.jumps,
            splits=texts,
            adjusted=self.adjusted + other.adjusted,
            tickers=pd.concat([self.tickers, other.tickers], ignore_index=True),
        )

    def by_date(self, dates: pd.DatetimeIndex) -> pd.DataFrame:
        """One row per date, as `by_date` describes it."""
        usual = trailing_median(self.observed[:, None].astype(np.float64), ACTIVE_SESSIONS, 5)[:, 0]
        table: dict[str, npt.NDArray[Any]] = {
            "null_rate": np.where(np.cumsum(self.observed) > 0, _ratio(self.absent, self.active), np.nan),
            "count_ratio": _ratio(self.observed, usual),
        }
        if self.lacking:
            stacked = np.stack([_ratio(counts, self.observed) for counts in self.lacking.values()])
            worst = np.where(np.isnan(stacked), -1.0, stacked).argmax(axis=0)
            table["field_null_rate"] = stacked[worst, np.arange(len(worst))]
            table["field_null_rate_of"] = np.array(list(self.lacking))[worst]
        table |= self.flags
        if self.jumps is not None:
            clustered = _ratio(self.jumps, self.observed)
            table["jump_cluster"] = np.where(self.jumps >= CLUSTER_LEAST, clustered, 0.0)
        if self.splits is not None:
            table |= {"adjusted_split": self.adjusted, "adjusted_split_of": self.splits}
        return pd.DataFrame({"date": _iso(dates)} | table)

    def by_variable(self) -> pd.DataFrame:
        """One row per variable and characteristic, as `by_variable` describes it."""
        known = self.observed.sum()
        shares = {self.base: _ratio(self.absent.sum(), self.active.sum())}
        shares |= {name: _ratio(counts.sum(), known) for name, counts in self.lacking.items()}
        shares |= {f"characteristics {name}": _ratio(np.asarray(n), known) for name, n in self.characteristics.items()}
        rates = [float(share) for share in shares.values()]
        return pd.DataFrame({"variable": list(shares), "column_null_rate": rates})


def by_date(market: xr.Dataset, rows: RowFlags) -> pd.DataFrame:
    """One row per date: shares missing, tickers over their trailing median, and rows that each rule flags.

    The rule of row-scoped checks is counted under its own name. `null_rate` is the share of *active*
    tickers without a price or return. Over the first dates, all tickers seen among them count as active;
    before the very first price or return it is not known.
    """
    return Tally.of(market, rows).by_date(pd.DatetimeIndex(market["date"].values))


def by_ticker(market: xr.Dataset) -> pd.DataFrame:
    """One row per ticker: how many prices or returns it has (`empty_ticker`), its longest absence (`reused_ticker`).

    `unexplained_end` is 1 where the last price or return is older than the last `ACTIVE_SESSIONS` dates, and no
    delisting return says what holders got.
    """
    observed = _observed(market)
    counts = observed.sum(axis=0)
    ended = (counts > 0) & ~observed[-ACTIVE_SESSIONS:].any(axis=0)
    if "delisting_return" in market:
        ended &= ~np.isfinite(market["delisting_return"].values).any(axis=0)
    names = labels(market["ticker"])
    table = {"ticker": names, "empty_ticker": counts, "unexplained_end": ended.astype(int)}
    if _base_name(market) in market:
        table["reused_ticker"] = absences(market).max(axis=0, initial=0.0)
    return pd.DataFrame(table)


def by_variable(market: xr.Dataset) -> pd.DataFrame:
    """One row per variable and characteristic: the share missing, of active rows (`column_null_rate`)."""
    return Tally.of(market, RowFlags({}, {})).by_variable()


def active_tickers(observed: BoolArray) -> BoolArray:
    """Where a ticker was observed on the date or on the `ACTIVE_SESSIONS` dates before, (date, ticker)."""
    seen = np.cumsum(observed, axis=0, dtype=np.int32)
    active = seen > 0
    active[ACTIVE_SESSIONS + 1 :] = seen[ACTIVE_SESSIONS + 1 :] > seen[: -ACTIVE_SESSIONS - 1]
    active[:ACTIVE_SESSIONS] = seen[:ACTIVE_SESSIONS][-1] > 0
    return active


def _base_name(market: xr.Dataset) -> str:
    return "returns" if "returns" in market else "close"


def _observed(market: xr.Dataset) -> BoolArray:
    name = _base_name(market)
    if name not in market:
        return np.zeros((market.sizes["date"], market.sizes["ticker"]), dtype=np.bool_)
    observed: BoolArray = np.isfinite(market[name].values)
    return observed


def _other_fields(market: xr.Dataset) -> dict[str, FloatArray]:
    base = _base_name(market)
    fields = {str(name): array for name, array in market.data_vars.items() if name not in {base, *EVENTS}}
    return {name: array.values for name, array in fields.items() if array.dims == ("date", "ticker")}


def _splits_in_words(market: xr.Dataset) -> npt.NDArray[np.object_]:
    ratios, names = market["split_ratio"].values, labels(market["ticker"])
    words = np.full(len(ratios), "", dtype=object)
    for row in np.flatnonzero(np.isfinite(ratios).any(axis=1)):
        columns = np.flatnonzero(np.isfinite(ratios[row]))
        words[row] = ", ".join(f"{names[at]} {ratio_in_words(ratios[row, at])}" for at in columns)
    return words


def _ratio(part: np.ndarray, whole: np.ndarray) -> FloatArray:
    whole = whole.astype(np.float64)
    ratio: FloatArray = np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0.0)
    return ratio


def _iso(dates: pd.DatetimeIndex) -> np.ndarray:
    return dates.strftime("%Y-%m-%d").to_numpy(dtype=object)


def _layout(array: xr.DataArray) -> str:
    kind = _KINDS.get(array.dtype.kind, str(array.dtype))
    if array.dtype == object and all(isinstance(item, str) for item in array.values.ravel()):
        kind = "str"
    return f"{kind}({', '.join(map(str, array.dims))})"


def _key_rows(axis: str, names: pd.Index, values: pd.Index, bad: np.ndarray) -> pd.DataFrame:
    descends = np.zeros(len(values), dtype=np.bool_)
    descends[1:] = values[1:] < values[:-1]
    return pd.DataFrame(
        {
            "key": [f"{axis} {name}" for name in names],
            "duplicate_key": [f"{axis} {value}" for value in values],
            "unsorted_key": descends.astype(int),
            "bad_key": np.asarray(bad).astype(int),
        }
    )
