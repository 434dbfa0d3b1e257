"""Exchange calendars and the labels of periods: which dates are sessions, and which comes next.

Here belongs everything that knows about weekends, holidays and month ends. Parsing dates out of files belongs
in `storage.sources.frames`.

Labels: a daily row is labelled by its session at midnight, without time zone. A monthly row is labelled by
the calendar end of its month, whether the file says the first of the month (Fama-French), the last business
day or the last day: so files that label months differently still join.
"""

from __future__ import annotations

import difflib
from datetime import date, datetime
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from schemas.base import first_of
from schemas.errors import ConfigError, DataError
from schemas.spec import Frequency

NO_CALENDAR = "none"
"""The calendar that takes the dates of the files as they come."""

_SAME_SESSIONS = {
    "XNSE": "XBOM", "NSE": "XBOM", "XSHE": "XSHG", "SZSE": "XSHG", "XKOS": "XKRX", "KRX": "XKRX", "ROCO": "XTAI",
    "XJPX": "XTKS", "TSE": "XTKS", "XBSP": "BVMF", "B3": "BVMF", "XATH": "ASEX", "XMCE": "XMAD", "MTAA": "XMIL",
    "XVIE": "XWBO", "XVTX": "XSWX", "MISX": "XMOS", "XCNQ": "XTSE", "IEXG": "XNYS",
}  # fmt: skip
"""Exchanges without a calendar of their own, and what is open when they are."""

_SHOWN = 5
_WIDEST_GAP = {"daily": 4, "monthly": 45}  # median calendar days between periods


def sessions(calendar: str, start: pd.Timestamp | date, end: pd.Timestamp | date) -> pd.DatetimeIndex:
    """Return the sessions of an exchange between two dates, both included.

    Parameters
    ----------
    calendar : str
        ISO 10383 code such as ``XNYS``; with ``none`` every weekday counts as a session.
    start, end : Timestamp or date
        First and last date.

    Returns
    -------
    pandas.DatetimeIndex
        datetime64[ns] at midnight, without time zone.

    Raises
    ------
    ConfigError
        If there is no such calendar, or it does not reach that far.
    """
    first, last = pd.Timestamp(start).normalize(), pd.Timestamp(end).normalize()
    known = _sessions(calendar, first.year, last.year)
    if calendar != NO_CALENDAR:
        exchange = _exchange(calendar, first.year, last.year)
        earliest, latest = _recorded(exchange)
        if first < earliest or last > latest:
            raise _too_far(calendar, first, last, exchange)
    return known[(known >= first) & (known <= last)]


def next_session(calendar: str, frequency: Frequency, after: pd.Timestamp | date) -> pd.Timestamp:
    """Return the label of the period that follows a date.

    Parameters
    ----------
    calendar : str
        ISO 10383 code; with ``none`` the next weekday counts as the next session.
    frequency : {"daily", "monthly"}
        Daily: the first session after the date. Monthly: the end of the month after the date's month.
    after : Timestamp or date
        Label of a period.

    Raises
    ------
    ConfigError
        If there is no such calendar, or it does not reach that far.
    """
    day = pd.Timestamp(after).normalize()
    if frequency == "monthly":
        return day + pd.offsets.MonthEnd(0) + pd.offsets.MonthEnd(1)
    tomorrow = day + pd.Timedelta(days=1)
    known = _sessions(calendar, tomorrow.year, (day + pd.Timedelta(days=31)).year)
    following = known[(known >= tomorrow) & (known <= day + pd.Timedelta(days=31))]
    if following.empty:
        sessions(calendar, tomorrow, day + pd.Timedelta(days=31))  # says so if they are not recorded
        raise ConfigError(f"calendar {calendar} has no session within a month after {day:%Y-%m-%d}")
    return pd.Timestamp(following[0])


def why_closed(calendar: str, moment: datetime) -> str | None:
    """Say why no session of an exchange has ended by a moment on that day, in the exchange's own time zone.

    A half day ends when it ends: the exchange's own closing time of that day counts.

    Parameters
    ----------
    calendar : str
        ISO 10383 code; an exchange called ``none`` is never closed.
    moment : datetime
        A moment, with its time zone.

    Returns
    -------
    str or None
        The reason in words; None if a session has ended.

    Raises
    ------
    DataError
        If the moment has no time zone: it would be another day elsewhere.
    """
    if moment.tzinfo is None:
        raise DataError(f"{moment.isoformat()}: a moment needs a time zone to be compared with a session; add one")
    if calendar == NO_CALENDAR:
        return None
    day = pd.Timestamp(moment).tz_convert(_made(calendar).tz)
    label = day.tz_localize(None).normalize()
    if sessions(calendar, label, label).empty:
        return f"{calendar} had no session on {day:%A %Y-%m-%d}"
    close = _exchange(calendar, day.year, day.year).session_close(label).tz_convert(day.tz)
    return None if day >= close else f"{calendar} closes at {close:%H:%M %Z on %Y-%m-%d}, after {day:%H:%M %Z}"


def normalise_dates(dates: pd.DatetimeIndex, frequency: Frequency) -> pd.DatetimeIndex:
    """Return the labels of the periods that dates fall in: midnight of the day, or of its month's end."""
    days = dates.normalize()
    return (days + pd.offsets.MonthEnd(0) if frequency == "monthly" else days).as_unit("ns")


def check_frequency(dates: pd.DatetimeIndex, frequency: Frequency, what: str) -> None:
    """Refuse dates that are spaced too widely for their frequency, such as monthly rows in a daily universe.

    Raises
    ------
    DataError
        If the median gap is over 4 days (daily) or 45 days (monthly).
    """
    if len(dates) < 3:
        return
    gap = float(np.median(np.diff(dates.to_numpy()) / np.timedelta64(1, "D")))
    if gap > _WIDEST_GAP[frequency]:
        raise DataError(
            f"{what}: its dates are {gap:.0f} days apart (median), which is not {frequency}; set `frequency` to fit"
        )


def check_sessions(dates: pd.DatetimeIndex, calendar: str, what: str) -> None:
    """Refuse daily dates that are not sessions of the exchange; missing sessions are left to the checks.

    Raises
    ------
    DataError
        If a date is not a session; the message counts them and names the first few.
    ConfigError
        If there is no such calendar, or it does not reach that far.
    """
    if calendar == NO_CALENDAR or dates.empty:
        return
    strange = dates.difference(sessions(calendar, dates[0], dates[-1]))
    if len(strange):
        shown = first_of([f"{day:%Y-%m-%d} ({day:%A})" for day in strange], _SHOWN)
        raise DataError(
            f"{what}: {len(strange)} of {len(dates)} dates are not sessions of {calendar}, the first is "
            f"{shown}; correct the dates, or set `calendar`"
        )


@lru_cache(maxsize=16)
def _sessions(calendar: str, first_year: int, last_year: int) -> pd.DatetimeIndex:
    if calendar == NO_CALENDAR:
        return pd.bdate_range(pd.Timestamp(first_year, 1, 1), pd.Timestamp(last_year, 12, 31)).as_unit("ns")
    found: pd.DatetimeIndex = _exchange(calendar, first_year, last_year).sessions
    return found.as_unit("ns")


@lru_cache(maxsize=16)
def _exchange(calendar: str, first_year: int, last_year: int) -> Any:
    """Return the calendar over whole years, as far as they are recorded."""
    import exchange_calendars as xc

    _check_name(calendar, xc.get_calendar_names())
    start, end = pd.Timestamp(first_year, 1, 1), pd.Timestamp(last_year, 12, 31)
    try:
        return xc.get_calendar(calendar, start=start, end=end)
    except (ValueError, TypeError, LookupError, NotImplementedError, xc.errors.CalendarError):
        earliest, latest = _recorded(_made(calendar))
    if end < earliest or start > latest:
        raise _too_far(calendar, start, end, _made(calendar))
    return _made(calendar, start=max(start, earliest), end=min(end, latest))


def _recorded(exchange: Any) -> tuple[pd.Timestamp, pd.Timestamp]:
    """Return the first and the last date that can be asked of a calendar: some end with the year."""
    return exchange.bound_min() or pd.Timestamp.min, exchange.bound_max() or pd.Timestamp.max


def _made(calendar: str, **span: pd.Timestamp) -> Any:
    import exchange_calendars as xc

    try:
        return xc.get_calendar(calendar, **span)
    except (ValueError, TypeError, LookupError, NotImplementedError, xc.errors.CalendarError) as error:
        reason = f"{type(error).__name__}: {error}".split("\n", 1)[0][:100]
        raise ConfigError(
            f"'calendar': {calendar} cannot be made by exchange_calendars {version('exchange_calendars')} with pandas "
            f"{version('pandas')} ({reason}); use other versions of them, or set `calendar: none`"
        ) from None


def _too_far(calendar: str, start: pd.Timestamp, end: pd.Timestamp, exchange: Any) -> ConfigError:
    first, last = (f"{day:%Y-%m-%d}" if day else "any date" for day in (exchange.bound_min(), exchange.bound_max()))
    return ConfigError(
        f"'calendar': {calendar} does not reach from {start:%Y-%m-%d} to {end:%Y-%m-%d}: what exchange_calendars "
        f"{version('exchange_calendars')} records is {first} to {last}; install a newer one, or set `calendar: none`"
    )


def _check_name(calendar: str, names: list[str]) -> None:
    if calendar in names:
        return
    meant = _SAME_SESSIONS.get(calendar.upper())
    close = difflib.get_close_matches(calendar.upper(), names, n=1, cutoff=0.8)
    if meant is not None:
        hint = f"{meant} has the sessions of its country"
    elif close:
        hint = f"did you mean '{close[0]}'?"
    else:
        hint = "known are the names of exchange_calendars, such as XNYS, XLON, XETR, XTKS"
    raise ConfigError(f"'calendar': there is no exchange calendar '{calendar}' ({hint}), or 'none'")
