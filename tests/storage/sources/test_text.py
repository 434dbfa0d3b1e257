"""CSV as programs write it: rows that are not whole, encodings, separators, codes, headers; read, or refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from schemas.errors import ConfigError, DataError, SourceError
from schemas.settings import Settings
from schemas.sources import FactorSource, FilesOrigin, IndustrySource, LongPrices, WidePrices
from storage.sources import read_factors, read_industries, read_market, text

DAYS = pd.bdate_range("2017-02-01", "2017-03-07").drop(pd.Timestamp("2017-02-20"))
WIDE = "date,A,B,C\n2017-02-01,1,2,3\n2017-02-02,1.1,2.1,3.1\n2017-02-03,1.2,2.2,3.2\n"


def wide(path: Path, content: str | bytes, *, reading=None, frequency="daily", **source) -> pd.DataFrame:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    spec = WidePrices(origin=FilesOrigin(paths=(path,), **(reading or {})), **source)
    return read_market(spec, settings=Settings(), frequency=frequency, calendar="none")["close"].to_pandas()


def long(*paths: Path, reading=None, frequency="daily", **source) -> pd.DataFrame:
    spec = LongPrices(origin=FilesOrigin(paths=paths, **(reading or {})), **source)
    return read_market(spec, settings=Settings(), frequency=frequency, calendar="none")["close"].to_pandas()


# --- tables that are a part of a file ---------------------------------------------------------------------------------

PART = "Made in 2017, for all\n\n" + WIDE + "\nYearly\nyear,A,B\n2016,1,2\n"


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_a_table_is_the_part_of_a_file_that_is_said(tmp_path, name):
    def packed(content):
        return gzip.compress(content.encode()) if name.endswith("gz") else content.encode()

    part = {"header_line": 3, "until": "blank_line"}
    read = wide(tmp_path / name, packed(PART.replace("\n", "\r\n")), reading=part)
    pd.testing.assert_frame_equal(read, wide(tmp_path / "whole.csv", WIDE))
    with pytest.raises(SourceError, match=r"line 5 has 3 of 4 columns"):
        wide(tmp_path / name, packed(PART.replace("1.1,2.1,3.1", "1.1,2.1")), reading=part)
    with pytest.raises(SourceError, match=r"line 9 has 3 of 4 columns|line 8 has 1 of 4 columns"):
        wide(tmp_path / name, packed(PART), reading={"header_line": 3})
    with pytest.raises(SourceError, match=r"line 2 holds no names of columns; correct `header_line`"):
        wide(tmp_path / name, packed(PART), reading={"header_line": 2})
    with pytest.raises(SourceError, match=r"set `header_line` and `until` if the table is not all of it"):
        wide(tmp_path / name, packed(PART.replace(", for all", "")))


# --- rows that are not whole ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("row", "written", "told"),
    [
        ("2017-02-02,1.1,2.1,3.1", "2017-02-02,1.1,2.1", "line 3 has 3 of 4 columns"),
        ("2017-02-02,1.1,2.1,3.1", '"2017-02-02",1.1,"2,1"', "line 3 has 3 of 4 columns"),
        ("2017-02-02,1.1,2.1,3.1", "2017-02-02,1,1,2,1,3,1", "line 3 has 7 cells for 4 columns"),
        ("2017-02-03,1.2,2.2,3.2", "2017-02-03,1.2", "its last row has 2 of 4 columns"),
    ],
)
def test_a_row_that_is_not_whole_is_refused_wherever_it_is(tmp_path, name, line_end, row, written, told):
    content = WIDE.replace(row, written).replace("\n", line_end).encode()
    with pytest.raises(SourceError, match=rf"{name}: .*{told}"):
        wide(tmp_path / name, gzip.compress(content) if name.endswith("gz") else content)


@pytest.mark.parametrize("piece", [7, 64, 2**20])
def test_where_the_pieces_of_a_file_end_does_not_matter(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(text, "_PIECE", piece)
    header = ",".join(["date", *(f'"S{number}, Inc"' for number in range(20))])
    rows = [f"{day:%Y-%m-%d}," + ",".join(f'"{number}.5"' for number in range(20)) for day in DAYS]
    read = wide(tmp_path / "a.csv", "\n".join([header, *rows]))
    np.testing.assert_array_equal(read, [[int(name[1:-5]) + 0.5 for name in read.columns]] * len(DAYS))
    rows[9] = rows[9].rsplit(",", 1)[0]
    with pytest.raises(SourceError, match="line 11 has 20 of 21 columns"):
        wide(tmp_path / "a.csv", "\n".join([header, *rows]))


def test_a_row_of_thousands_of_tickers_is_whole(tmp_path):
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {"date": DAYS[:3].strftime("%Y-%m-%d").tolist()} | {f"T{n}": rng.random(3) for n in range(3600)}
    )
    content = frame.write_csv()
    assert len(content.splitlines()[-1]) > 2**15
    assert wide(tmp_path / "a.csv", content).shape == (3, 3600)


# --- encodings, separators, line ends ---------------------------------------------------------------------------------


def test_text_is_read_in_the_encoding_that_it_says_or_that_is_said(tmp_path):
    content = WIDE.replace("A,B", "Ä,Ö")
    expected = wide(tmp_path / "plain.csv", content)
    assert list(expected.columns) == ["C", "Ä", "Ö"]
    for encoded in ("utf-8-sig", "utf-16", "utf-16-le"):
        said = {"encoding": "utf-16"} if encoded == "utf-16-le" else {}
        pd.testing.assert_frame_equal(wide(tmp_path / "a.csv", content.encode(encoded), reading=said), expected)
    packed = gzip.compress(content.encode("latin-1"))
    pd.testing.assert_frame_equal(wide(tmp_path / "a.csv.gz", packed, reading={"encoding": "latin-1"}), expected)
    with pytest.raises(SourceError, match=r"a\.csv: line 1 is not UTF-8 text; set `encoding`"):
        wide(tmp_path / "a.csv", content.encode("latin-1"))
    late = "date,ticker,close\n2017-02-01,A,1\n2017-02-01,Ö,1\n".encode("latin-1")
    (tmp_path / "long.csv").write_bytes(late)
    with pytest.raises(SourceError, match=r"long\.csv: line 3 is not UTF-8 text"):
        long(tmp_path / "long.csv")
    with pytest.raises(SourceError, match="UTF-16 without its mark"):
        wide(tmp_path / "a.csv", content.encode("utf-16-le"))
    with pytest.raises(SourceError, match=r"a\.csv: its text is not big5"):
        wide(tmp_path / "a.csv", content.encode("latin-1"), reading={"encoding": "big5"})


def test_semicolons_and_decimal_commas_are_read_when_said(tmp_path):
    content = WIDE.replace(",", ";").replace(".", ",")
    told = r"separated by commas: set `separator: ';'` in the origin; and `decimal: ','` beside the origin"
    with pytest.raises(SourceError, match=told):
        wide(tmp_path / "a.csv", content)
    with pytest.raises(SourceError, match=r"'A' holds text .*'1,1' on 2017-02-02; set `decimal: ','`"):
        wide(tmp_path / "a.csv", content, reading={"separator": ";"})
    read = wide(tmp_path / "a.csv", content, reading={"separator": ";"}, decimal=",")
    np.testing.assert_array_equal(read, wide(tmp_path / "b.csv", WIDE))
    with pytest.raises(SourceError, match=r"'A' holds text where a number is expected: '1\.001,5'"):
        wide(tmp_path / "a.csv", content.replace("1,1", "1.001,5"), reading={"separator": ";"}, decimal=",")


def test_old_line_ends_are_named(tmp_path):
    with pytest.raises(SourceError, match=r"a\.csv: its lines end as on old Macs"):
        wide(tmp_path / "a.csv", WIDE.replace("\n", "\r"))


# --- dates and codes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    [
        ["2017-03-10 00:00:00-05:00", "2017-03-13 00:00:00-04:00"],  # the clocks change between them
        ["2017-03-10T00:00:00Z", "2017-03-13T00:00:00Z"],
        ["2017-03-10 00:00:00.000 +0900", "2017-03-13 00:00:00.000 +0900"],
        ["2017-03-10 00:00 UTC", "2017-03-13 00:00 UTC"],
    ],
)
def test_a_date_with_an_offset_is_the_day_that_it_shows(tmp_path, written):
    read = wide(tmp_path / "a.csv", "date,A\n" + "".join(f"{day},1\n" for day in written))
    assert list(read.index.strftime("%Y-%m-%d")) == ["2017-03-10", "2017-03-13"]


@pytest.mark.parametrize(
    ("frequency", "written", "read"),
    [
        ("daily", "2017123", None),  # the 23rd of January, or the third of December
        ("daily", "201712", None),
        ("daily", "2017-1-3", "2017-01-03"),
        ("monthly", "2017-1", "2017-01-31"),
        ("monthly", "201702", "2017-02-28"),
        ("monthly", "20171", None),
        ("monthly", "2017123", None),
    ],
)
def test_a_date_that_could_be_two_days_is_none(tmp_path, frequency, written, read):
    content = f"date,A\n{written},1\n"
    if read is None:
        with pytest.raises(DataError, match=f"'{written}', which is not a date"):
            wide(tmp_path / "a.csv", content, frequency=frequency)
    else:
        assert wide(tmp_path / "a.csv", content, frequency=frequency).index[0] == pd.Timestamp(read)


def test_dates_are_read_in_the_form_that_is_said_and_in_no_other(tmp_path):
    content = "date,A\n01.02.17,1\n02.02.17,2\n03.02.17,3\n"
    with pytest.raises(DataError, match=r"'01\.02\.17', which is not a date; .* `date_format`"):
        wide(tmp_path / "a.csv", content)
    read = wide(tmp_path / "a.csv", content, date_format="%d.%m.%y")
    assert list(read.index.strftime("%Y-%m-%d")) == ["2017-02-01", "2017-02-02", "2017-02-03"]
    with pytest.raises(DataError, match=r"'13\.02\.17', which is not a date of the form %m\.%d\.%y"):
        wide(tmp_path / "a.csv", content + "13.02.17,1\n", date_format="%m.%d.%y")
    months = wide(tmp_path / "a.csv", "date,A\n01/2017,1\n02/2017,1\n", date_format="%m/%Y", frequency="monthly")
    assert list(months.index.strftime("%Y-%m-%d")) == ["2017-01-31", "2017-02-28"]
    timed = wide(tmp_path / "a.csv", "date,A\n02/01/2017 00:00,1\n", date_format="%m/%d/%Y %H:%M")
    assert timed.index[0] == pd.Timestamp("2017-02-01")
    with pytest.raises(DataError, match="'02/01/2017 16:00', which is not a date"):
        wide(tmp_path / "a.csv", "date,A\n02/01/2017 16:00,1\n", date_format="%m/%d/%Y %H:%M")
    with pytest.raises(ConfigError, match=r"'date_format': needs a year and a month"):
        WidePrices.parse({"origin": {"kind": "files", "paths": ["a"]}, "date_format": "dd.mm.yyyy"}, origin="config")


def test_codes_for_missing_are_missing_when_said(tmp_path):
    content = "date,A,B\n2017-02-01,-66.0,C\n2017-02-02,-66,1\n2017-02-03,3,-999.25\n"
    with pytest.raises(SourceError, match=r"'B' .*'C' on 2017-02-01; .*list it under `missing_values`"):
        wide(tmp_path / "a.csv", content)
    codes = (-66.0, -999.25, "C")
    read = wide(tmp_path / "a.csv", content, missing_values=codes)
    np.testing.assert_array_equal(read, [[np.nan, np.nan], [np.nan, 1.0], [3.0, np.nan]])
    frame = pl.DataFrame({"date": DAYS[:2], "ticker": "A", "close": np.array([-99.99, 1.0], dtype=np.float32)})
    frame.write_parquet(tmp_path / "a.parquet")
    np.testing.assert_array_equal(long(tmp_path / "a.parquet", missing_values=(-99.99,)), [[np.nan], [1.0]])
    with pytest.raises(ConfigError, match="missing_values"):
        WidePrices.parse({"origin": {"kind": "files", "paths": ["a"]}, "missing_values": [False]}, origin="config")


def test_factors_and_industries_are_written_in_the_same_ways(tmp_path):
    (tmp_path / "f.csv").write_text("date;MKT\n01.02.2017;0,5\n02.02.2017;-99,99\n03.02.2017;-0,5\n")
    (tmp_path / "i.csv").write_text("date;ticker;industry\n01.02.2017; A ;Öl\n02.02.2017;A;?\n", encoding="cp1252")
    factors = FactorSource(
        origin=FilesOrigin(paths=(tmp_path / "f.csv",), separator=";"),
        columns=("MKT",), units="percent", decimal=",", date_format="%d.%m.%Y", missing_values=(-99.99,),
    )  # fmt: skip
    here = {"settings": Settings(), "frequency": "daily"}
    read = read_factors([factors], dates=DAYS[:3], calendar="none", **here)["factors"][:, 0]
    np.testing.assert_array_equal(read, [0.005, np.nan, -0.005])
    industries = IndustrySource(
        origin=FilesOrigin(paths=(tmp_path / "i.csv",), separator=";", encoding="cp1252"),
        date="date", industry="industry", date_format="%d.%m.%Y", missing_values=("?",),
    )  # fmt: skip
    (tmp_path / "p.csv").write_text("date,ticker,close\n" + "".join(f"{day:%Y-%m-%d},A,1\n" for day in DAYS[:3]))
    market = read_market(LongPrices(origin=FilesOrigin(paths=(tmp_path / "p.csv",))), calendar="none", **here)
    held = read_industries(industries, market=market, **here)
    assert held["industry_name"].values.tolist() == ["Öl"]
    assert held["industry"].values[:, 0].tolist() == [0, -1, -1]


# --- tickers and columns ----------------------------------------------------------------------------------------------


def test_blanks_around_a_name_are_no_part_of_it(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("date, ticker,close \n2017-02-01,AAA,10\n2017-02-02,AAA ,11\n2017-02-03,\u00a0AAA,12\n")
    read = long(path)
    assert list(read.columns) == ["AAA"]
    assert read["AAA"].tolist() == [10, 11, 12]
    path.write_text("date,ticker,close\n2017-02-01,AAA,10\n2017-02-01,AAA ,11\n")
    with pytest.raises(DataError, match=r"1 duplicated rows .*2017-02-01, ticker AAA\)"):
        long(path)
    assert list(wide(path, WIDE.replace(",A,", ", A ,")).columns) == ["A", "B", "C"]
    with pytest.raises(SourceError, match="the column 'A' is there twice"):
        wide(path, WIDE.replace(",B", ",A "))


@pytest.mark.parametrize("name", ["Unnamed: 0", "__index_level_0__", "index", "level_0", ""])
def test_an_index_that_pandas_wrote_is_no_stock(tmp_path, name):
    path = tmp_path / "a.parquet"
    frame = pd.DataFrame({name: [5.0, 3.0], "date": DAYS[:2], "A": [1.0, 2.0]})
    frame.to_parquet(path, index=False)
    source = {"origin": FilesOrigin(paths=(path,))}
    with pytest.raises(SourceError, match=r"a\.parquet: the column .* is an index and no stock; .*`tickers`"):
        read_market(WidePrices(**source), settings=Settings(), frequency="daily", calendar="none")
    read = read_market(WidePrices(**source, tickers=("A",)), settings=Settings(), frequency="daily", calendar="none")
    assert read["ticker"].values.tolist() == ["A"]


def test_a_column_that_holds_a_part_of_the_date_or_counts_the_rows_is_no_stock(tmp_path):
    prices = pd.DataFrame({"date": DAYS, "A": 100.0 + np.arange(len(DAYS)) ** 2})
    columns = {"year": DAYS.year, "M": DAYS.month, "day": DAYS.day, "N": np.arange(len(DAYS))}
    told = {"year": "'year' holds the year", "M": "'M' holds the month", "day": "holds the day", "N": "'N' counts the"}
    for name, values in columns.items():
        with pytest.raises(SourceError, match=rf"a\.csv: the column .*{told[name]}.*no stock"):
            wide(tmp_path / "a.csv", prices.assign(**{name: values}).to_csv(index=False))
    stale = prices.assign(year=12.5, DAY=17.25, M=2017.0)  # tickers that are called so, a price that did not change
    assert wide(tmp_path / "a.csv", stale.to_csv(index=False)).shape == (len(DAYS), 4)


def test_one_file_per_ticker(tmp_path):
    for name in ("AAA", "BRK.B"):
        rows = pl.DataFrame({"date": DAYS[:3].strftime("%Y-%m-%d").tolist(), "close": [1.0, 2.0, len(name)]})
        rows.write_csv(tmp_path / f"{name}.CSV")
    with pytest.raises(SourceError, match=r"AAA\.CSV: no column 'ticker' \(.*set `file_name_as` in the origin"):
        long(tmp_path)
    read = long(tmp_path, reading={"file_name_as": "ticker"})
    assert read.to_dict("list") == {"AAA": [1, 2, 3], "BRK.B": [1, 2, 5]}
    with pytest.raises(SourceError, match="has the column already that `file_name_as` would add"):
        long(tmp_path, reading={"file_name_as": "close"})


def test_a_download_of_yfinance_is_a_long_table(tmp_path):
    rng = np.random.default_rng(0)
    fields = pd.MultiIndex.from_product([["Close", "Volume"], ["AAPL", "MSFT"]], names=["Price", "Ticker"])
    frame = pd.DataFrame(rng.random((3, 4)), index=DAYS[:3].rename("Date"), columns=fields).round(3)
    frame.iloc[0, 1] = np.nan
    names = {"date": "Date", "ticker": "Ticker", "close": "Close"}
    by_ticker = frame.swaplevel(axis=1).sort_index(axis=1)
    unnamed = frame.set_axis(fields.set_names([None, None]), axis=1)
    for number, table in enumerate((frame, by_ticker, unnamed, frame.drop(columns=[("Volume", "AAPL")]))):
        path = tmp_path / f"{number}.csv"
        table.to_csv(path)
        np.testing.assert_array_equal(long(path, **names), frame["Close"])
    assert "Date" in path.read_text().splitlines()[2]
    spec = LongPrices(origin=FilesOrigin(paths=(tmp_path / "3.csv",)), volume="Volume", **names)
    volume = read_market(spec, settings=Settings(), frequency="daily", calendar="none")["volume"].to_pandas()
    np.testing.assert_array_equal(volume["MSFT"], frame["Volume", "MSFT"])
    assert volume["AAPL"].isna().all()
    with pytest.raises(SourceError, match=r"'Ticker' holds text .*set a `shape` of long rows"):
        wide(tmp_path / "0.csv", (tmp_path / "0.csv").read_text(), date="Date")
    path.write_text("x,A,B\ny,C,D\nDate,,\n2017-02-01,1,2\n")
    with pytest.raises(SourceError, match="header has two rows, and neither is called Ticker"):
        long(path, **names)
