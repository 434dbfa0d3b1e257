"""Summaries of a market dataset: one small table per question, whatever the size of the data.

Here belong counts and shares by date, ticker, variable, key and session. Rules of single rows belong in
`rows`; what a cube is about to hold in `cube`.

Each table is a pandas DataFrame whose columns are named as the checks of `schemas.checks` that look at
them. The first column says what a row is about. A column `<check>_of` names the worst offender of the row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from models.arrays import BoolArray, FloatArray, IntArray, under
from models.quality.arrays import labels, trailing_median
from models.quality.jumps import RULES
from models.quality.listings import Before, absences
from models.quality.rows import Flagged, RowFlags, rows_by_date
from models.quality.splits import ratio_in_words

ACTIVE_SESSIONS = 21
"""A ticker is active while it had a price or return within this many dates."""
CLUSTER_LEAST = 5
EVENTS = ("delisting_return", "split_ratio")
"""Variables that are known where something happened: that they are missing elsewhere says nothing."""
_PRICED = ("close", "returns")
_LACKING, _MISSING = "lacking ", "characteristics "
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
class Seen:
    """What was seen of each ticker, all of it (ticker,).

    Attributes
    ----------
    rows : ndarray
        How many prices or returns it has.
    last : ndarray
        Position of the last date that has one; -1 if none has.
    price, positive : ndarray
        Its last price, or last return where there are only these; and the last price above zero. NaN if there is none.
    paid : ndarray of bool
        Whether a delisting return says what holders got.
    away : ndarray
        Its longest absence (`models.quality.listings.absences`).
    """

    rows: IntArray
    last: IntArray
    price: FloatArray
    positive: FloatArray
    paid: BoolArray
    away: FloatArray

    @classmethod
    def none(cls, tickers: int) -> Seen:
        """Return what is seen of tickers before the first date."""
        count = np.zeros(tickers, dtype=np.int64)
        price, positive = np.full((2, tickers), np.nan)
        return cls(count, count - 1, price, positive, count > 0, np.zeros(tickers))

    def then(self, market: xr.Dataset, start: int = 0) -> Seen:
        """Return what is seen after the dates of a market, the first of which stands at a position among all."""
        observed = _observed(market)
        base = _base_name(market)
        paid, away, price, positive = self.paid, self.away, self.price, self.positive
        if base in market:
            values = market[base].values.astype(np.float64)
            away = np.maximum(away, absences(market, Before(self.last - start, self.price)).max(axis=0, initial=0.0))
            price, positive = _last(values, observed, price), _last(values, observed & (values > 0.0), positive)
        if "delisting_return" in market:
            paid = paid | np.isfinite(market["delisting_return"].values).any(axis=0)
        any_row = observed.any(axis=0)
        newest = len(observed) - 1 - observed[::-1].argmax(axis=0) + start if len(observed) else self.last
        last = np.where(any_row, newest, self.last)
        return Seen(self.rows + observed.sum(axis=0), last, price, positive, paid, away)

    def placed(self, places: IntArray, tickers: int) -> Seen:
        """Return the same among more tickers, of which these stand at given places."""
        out = Seen.none(tickers)
        for name in SEEN:
            getattr(out, name)[places] = getattr(self, name)
        return out

    def among(self, tickers: IntArray | slice) -> Seen:
        """Return the same of some tickers."""
        return Seen(*(getattr(self, name)[tickers] for name in SEEN))

    def beside(self, other: Seen) -> Seen:
        """Return what was seen of these tickers and of those that follow."""
        return Seen(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in SEEN))


SEEN = tuple(field.name for field in fields(Seen))


@dataclass(frozen=True)
class Tally:
    """What is counted of the tickers of a market, some at a time: tallies of blocks add up to that of the whole.

    Attributes
    ----------
    base : str
        What a row is known by: ``close`` or ``returns``.
    counts : dict of str to ndarray (date,)
        Tickers with a price or return (``observed``), ``active`` ones, and active ones without (``absent``); prices and
        returns in all (``priced``); splits that were ``adjusted``; observed rows that are ``lacking`` another field or
        one of the ``characteristics``, by its name.
    splits : ndarray (date,) of str, or None
        Adjusted splits in words; None if none are looked for.
    seen : Seen
        What was seen of each ticker.
    """

    base: str
    counts: dict[str, IntArray]
    splits: npt.NDArray[np.object_] | None
    seen: Seen

    @classmethod
    def of(cls, market: xr.Dataset) -> Tally:
        """Count some tickers of a market."""
        observed = _observed(market)
        active = active_tickers(observed)
        nothing = np.zeros(len(observed), dtype=np.int64)
        splits = _splits_in_words(market) if "split_ratio" in market else None
        counts = {
            "observed": observed.sum(axis=1),
            "active": active.sum(axis=1),
            "absent": (active & ~observed).sum(axis=1),
            "priced": sum((_known(market[name].values) for name in _PRICED if name in market), start=nothing),
            "adjusted": nothing if splits is None else _known(market["split_ratio"].values),
        }
        for name, values in _other_fields(market).items():
            counts[_LACKING + name] = (observed & ~np.isfinite(values)).sum(axis=1)
        if "characteristics" in market:
            values = market["characteristics"].transpose("date", "ticker", "char").values
            for number, name in enumerate(labels(market["char"])):
                counts[_MISSING + name] = (observed & ~np.isfinite(values[:, :, number])).sum(axis=1)
        return cls(_base_name(market), counts, splits, Seen.none(observed.shape[1]).then(market))

    def __add__(self, other: Tally) -> Tally:
        """Join with the tally of the tickers that follow."""
        texts = None
        if self.splits is not None and other.splits is not None:
            between = np.where((self.splits != "") & (other.splits != ""), ", ", "").astype(object)
            texts = self.splits + between + other.splits
        counts = {name: mine + other.counts[name] for name, mine in self.counts.items()}
        return Tally(self.base, counts, texts, self.seen.beside(other.seen))

    def until(self, at: int, end: Tally, start: int, seen: Seen) -> Tally:
        """Return this tally until a position, and from there on that of its end, whose first date stands at `start`."""
        counts = {
            name: np.concatenate([mine[:at], end.counts[name][at - start :]]) for name, mine in self.counts.items()
        }
        return replace(self, counts=counts, seen=seen)

    def by_date(self, dates: pd.DatetimeIndex, flagged: Mapping[str, Flagged] = MappingProxyType({})) -> pd.DataFrame:
        """One row per date, as `by_date` describes it."""
        observed = self.counts["observed"]
        usual = trailing_median(observed[:, None].astype(np.float64), ACTIVE_SESSIONS, 5)[:, 0]
        absent = _ratio(self.counts["absent"], self.counts["active"])
        table: dict[str, npt.NDArray[Any]] = {
            "null_rate": np.where(np.cumsum(observed) > 0, absent, np.nan),
            "count_ratio": _ratio(observed, usual),
        }
        lacking = self._of(_LACKING)
        if lacking:
            stacked = np.stack([_ratio(counts, observed) for counts in lacking.values()])
            worst = np.where(np.isnan(stacked), -1.0, stacked).argmax(axis=0)
            table["field_null_rate"] = stacked[worst, np.arange(len(worst))]
            table["field_null_rate_of"] = np.array(list(lacking))[worst]
        table |= {rule: rows_by_date([found], len(dates)) for rule, found in flagged.items()}
        jumps = [flagged[rule] for rule in RULES if rule in flagged]
        if jumps:
            rows = rows_by_date(jumps, len(dates))
            table["jump_cluster"] = np.where(rows >= CLUSTER_LEAST, _ratio(rows, observed), 0.0)
        if self.splits is not None:
            table |= {"adjusted_split": self.counts["adjusted"], "adjusted_split_of": self.splits}
        return pd.DataFrame({"date": _iso(dates)} | table)

    def by_variable(self) -> pd.DataFrame:
        """One row per variable and characteristic, as `by_variable` describes it."""
        total = {name: counts.sum() for name, counts in self.counts.items()}
        shares = {self.base: _ratio(total["absent"], total["active"])}
        shares |= {name: _ratio(total[_LACKING + name], total["observed"]) for name in self._of(_LACKING)}
        shares |= {_MISSING + name: _ratio(total[_MISSING + name], total["observed"]) for name in self._of(_MISSING)}
        rates = [float(share) for share in shares.values()]
        return pd.DataFrame({"variable": list(shares), "column_null_rate": rates})

    def by_ticker(self, tickers: xr.DataArray) -> pd.DataFrame:
        """One row per ticker, as `by_ticker` describes it."""
        seen, dates = self.seen, len(self.counts["observed"])
        ended = (seen.rows > 0) & (seen.last < dates - ACTIVE_SESSIONS) & ~seen.paid
        table = {
            "ticker": labels(tickers),
            "empty_ticker": seen.rows,
            "unexplained_end": ended.astype(int),
            "reused_ticker": seen.away,
        }
        return pd.DataFrame(table)

    def _of(self, prefix: str) -> dict[str, IntArray]:
        return under(prefix, self.counts)


def by_date(market: xr.Dataset, rows: RowFlags) -> pd.DataFrame:
    """One row per date: shares missing, tickers over their trailing median, and rows that each rule flags.

    The rule of row-scoped checks is counted under its own name. `null_rate` is the share of *active*
    tickers without a price or return. Over the first dates, all tickers seen among them count as active;
    before the very first price or return it is not known.
    """
    flagged = Flagged.of(market, rows, 0)
    return Tally.of(market).by_date(pd.DatetimeIndex(market["date"].values), flagged)


def by_ticker(market: xr.Dataset) -> pd.DataFrame:
    """One row per ticker: how many prices or returns it has (`empty_ticker`), its longest absence (`reused_ticker`).

    `unexplained_end` is 1 where the last price or return is older than the last `ACTIVE_SESSIONS` dates, and no
    delisting return says what holders got.
    """
    return Tally.of(market).by_ticker(market["ticker"])


def by_variable(market: xr.Dataset) -> pd.DataFrame:
    """One row per variable and characteristic: the share missing, of active rows (`column_null_rate`)."""
    return Tally.of(market).by_variable()


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


def _known(values: FloatArray) -> IntArray:
    count: IntArray = np.isfinite(values).sum(axis=1)
    return count


def _last(values: FloatArray, known: BoolArray, before: FloatArray) -> FloatArray:
    """Return the last known value of each ticker, or the one before."""
    if not len(values):
        return before
    place = len(values) - 1 - known[::-1].argmax(axis=0)
    return np.where(known.any(axis=0), values[place, np.arange(values.shape[1])], before)


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
