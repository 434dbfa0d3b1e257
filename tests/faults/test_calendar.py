"""Edges of clocks and calendars: a day never shifts, is never doubled, and never appears where there was none."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from schemas.errors import DataError, SourceError
from schemas.settings import Settings
from schemas.sources import FilesOrigin, WideReturns
from storage.sources import frames, read_market, sessions

HERE = Settings()


def read(path: Path, dates: object, *, frequency: str = "daily", calendar: str = "XNYS") -> pd.DatetimeIndex:
    """Write returns at dates as they are given, read them, and return the dates that they got."""
    frame = pd.DataFrame({"date": dates, "A": np.linspace(-0.01, 0.01, len(dates)), "B": 0.001})
    frame.to_parquet(path / "returns.parquet")
    source = WideReturns(origin=FilesOrigin(paths=(path / "returns.parquet",)))
    market = read_market(source, settings=HERE, frequency=frequency, calendar=calendar)
    return pd.DatetimeIndex(market.indexes["date"])


SPRING = sessions("XNYS", pd.Timestamp("2016-03-07"), pd.Timestamp("2016-03-18"))  # the clock jumps on the 13th
AUTUMN = sessions("XNYS", pd.Timestamp("2016-10-31"), pd.Timestamp("2016-11-11"))  # and back on 6 November
HALF_DAY = sessions("XNYS", pd.Timestamp("2016-11-21"), pd.Timestamp("2016-12-02"))  # 25 November closes at 13:00


@pytest.mark.parametrize("days", [SPRING, AUTUMN, HALF_DAY], ids=["spring", "autumn", "half day"])
@pytest.mark.parametrize("zone", [None, "America/New_York", "UTC", "Asia/Tokyo"])
def test_midnight_in_any_zone_is_the_day_it_shows(tmp_path: Path, days: pd.DatetimeIndex, zone: str | None) -> None:
    given = days if zone is None else days.tz_localize(zone)
    assert read(tmp_path, given).equals(days)


@pytest.mark.parametrize("days", [SPRING, AUTUMN], ids=["spring", "autumn"])
def test_midnight_converted_to_another_zone_is_refused_and_never_another_day(
    tmp_path: Path, days: pd.DatetimeIndex
) -> None:
    for converted in (
        days.tz_localize("America/New_York").tz_convert("UTC"),
        days.tz_localize("UTC").tz_convert("America/New_York"),
        days.tz_localize("America/New_York").tz_convert("UTC").tz_localize(None),
    ):
        with pytest.raises(DataError, match="without time of day"):
            read(tmp_path, converted)


def test_the_close_of_a_half_day_is_a_time_of_day_and_refused(tmp_path: Path) -> None:
    closes = HALF_DAY + pd.to_timedelta(np.where(HALF_DAY == "2016-11-25", 13, 16), unit="h")
    with pytest.raises(DataError, match="without time of day"):
        read(tmp_path, closes)


def test_a_session_on_the_day_the_clock_changes_is_one_session(tmp_path: Path) -> None:
    """Tel Aviv traded on Sundays: on 30 October 2016 its clock went back an hour."""
    days = pd.bdate_range("2016-10-23", "2016-11-03", freq="C", weekmask="Sun Mon Tue Wed Thu").as_unit("ns")
    assert pd.Timestamp("2016-10-30") in days
    for given in (days, days.tz_localize("Asia/Jerusalem")):
        assert read(tmp_path, given, calendar="none").equals(days)


@pytest.mark.parametrize("holiday", ["2016-07-04", "2016-11-24", "2016-03-25", "2012-10-29"])
def test_a_row_on_a_holiday_is_refused_by_name(tmp_path: Path, holiday: str) -> None:
    around = pd.Timestamp(holiday)
    days = sessions("XNYS", around - pd.Timedelta(days=9), around + pd.Timedelta(days=9))
    with pytest.raises(DataError, match=f"not sessions of XNYS, the first is {holiday}"):
        read(tmp_path, days.union([around]))


def test_the_29th_of_february_is_a_session_of_a_leap_year_and_no_date_of_another(tmp_path: Path) -> None:
    days = sessions("XNYS", pd.Timestamp("2016-02-24"), pd.Timestamp("2016-03-03"))
    assert pd.Timestamp("2016-02-29") in read(tmp_path, days)
    with pytest.raises(DataError, match="'2015-02-29', which is not a date"):
        read(tmp_path, ["2015-02-26", "2015-02-27", "2015-02-29"])
    leap = pd.to_datetime(["2016-01-31", "2016-02-29", "2016-03-31"])
    assert read(tmp_path, ["2016-01", "2016-02", "2016-03"], frequency="monthly").equals(leap)


def test_months_that_end_on_a_weekend_have_one_label_however_they_are_written(tmp_path: Path) -> None:
    ends = pd.to_datetime(["2016-04-30", "2016-05-31", "2016-06-30", "2016-07-31"])  # a Saturday, a Sunday
    business = pd.to_datetime(["2016-04-29", "2016-05-31", "2016-06-30", "2016-07-29"])
    for given in (ends, business, ends.tz_localize("America/New_York")):
        assert read(tmp_path, given, frequency="monthly").equals(ends)
    with pytest.raises((DataError, SourceError), match="2016-04"):
        read(tmp_path, [*business[:1], *ends], frequency="monthly")


def test_a_clock_that_was_set_back_refuses_what_lies_ahead_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows seem to come from the future then: nothing is read, rather than something dated wrongly."""

    class Yesteryear(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            del tz
            return datetime(2016, 3, 9, 23, 30, tzinfo=UTC)

    monkeypatch.setattr(frames, "datetime", Yesteryear)
    assert read(tmp_path, SPRING[:4])[-1] == pd.Timestamp("2016-03-10"), "it may be tomorrow already in the east"
    with pytest.raises(DataError, match=r"impossible date \(date 2016-03-11\)"):
        read(tmp_path, SPRING[:5])
