"""Hostile inputs of settings and sources: addresses in every notation, files given as URLs, absurd declared sizes."""

from __future__ import annotations

import gzip
import json
import resource
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from pydantic import SecretStr
from storing import publish_one

from schemas.addresses import check_address, is_loopback
from schemas.errors import ConfigError, CorruptionError, FactorcubeError, SourceError
from schemas.settings import Settings, load_settings
from schemas.sources import FilesOrigin, LongPrices, SqlOrigin, WidePrices
from schemas.spec import RunSpec
from storage import published
from storage.layout import Layout
from storage.sources import read_market

METADATA = [
    "https://169.254.169.254/latest/meta-data",
    "https://user:password@169.254.169.254:443/",
    "https://2852039166/",
    "https://0xA9FEA9FE/",
    "https://0251.0376.0251.0376/",
    "https://0xa9.254.0251.254/",
    "https://169.254.43518/",
    "https://169.254.169.254./",
    "https://%31%36%39.254.169.254/",
    "https://１６９。254.169.254/",
    "https://[::ffff:169.254.169.254]/",
    "https://[::ffff:a9fe:a9fe]/",
    "https://[::a9fe:a9fe]/",
    "https://[64:ff9b::a9fe:a9fe]/",
    "https://[2002:a9fe:a9fe::1]/",
    "https://[fe80::1]/",
    "https://[fe80::1%25eth0]/",
    "https://[fd00:ec2::254]/",
    "https://METADATA.google.internal./",
    "https://100.100.100.200/",
    "postgresql://me:word@fine.example.com,169.254.1.1:5432/db",
    "postgresql:///db?host=169.254.169.254:5432",
    "postgresql:///db?hostaddr=0xA9FEA9FE",
    "mssql+pyodbc:///?odbc_connect=DRIVER%3D%7Bx%7D%3BSERVER%3D169.254.169.254%2C1433",
]


@pytest.mark.parametrize("url", METADATA)
def test_link_local_and_metadata_addresses_are_refused_in_every_notation(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^NAME: names a link-local or metadata address") as raised:
        check_address(url, "NAME")
    assert "password" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://example.com/hook", "plain http"),
        ("HTTP://10.0.0.1/hook", "plain http"),
        ("https://127.1/", "unusual notation"),
        ("https://0x7f000001/", "unusual notation"),
        ("https://fine\\example.com/", "not a URL"),
        ("https://[::1/", "not a URL"),
        ("example.com", "not a URL"),
    ],
)
def test_other_addresses_that_mislead_are_refused(url: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        check_address(url, "NAME")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:5000/",
        "http://localhost:9000",
        "http://[::1]:80/",
        "https://hooks.example.com/services/T0/B0/secret",
        "https://10.0.0.1/",
        "sqlite:////srv/market.db",
        "postgresql+psycopg://me:p%40ss@db.example.com:5432/x?connect_timeout=10&sslmode=require",
    ],
)
def test_usual_addresses_are_taken(url: str) -> None:
    check_address(url, "NAME")


def test_only_what_is_literally_this_machine_is_loopback() -> None:
    assert all(map(is_loopback, ("localhost", "LOCALHOST", "127.0.0.1", "127.255.0.3", "::1", "[::1]")))
    assert not any(map(is_loopback, ("localhost.example.com", "0.0.0.0", "127.1", "2130706433", "::", "", "a")))  # noqa: S104


def test_settings_refuse_such_addresses_without_repeating_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORCUBE_ALERT_WEBHOOK", "https://169.254.169.254/token-hunter2")
    with pytest.raises(ConfigError, match="FACTORCUBE_ALERT_WEBHOOK: names a link-local") as raised:
        load_settings()
    assert "hunter2" not in str(raised.value)
    monkeypatch.delenv("FACTORCUBE_ALERT_WEBHOOK")
    hidden = "postgresql://me:hun#ter2@169.254.169.254/db"  # a URL parser stops at the '#', SQLAlchemy does not
    source = LongPrices(origin=SqlOrigin(query="SELECT 1"))
    with pytest.raises(ConfigError, match="FACTORCUBE_SQL_URL: names a link-local") as raised:
        _read(source, Settings(sql_url=SecretStr(hidden)))
    assert "ter2" not in str(raised.value)


@pytest.mark.parametrize("path", ["https://example.com/a.csv", "s3://bucket/a.parquet", "file:///etc/a.csv", "ftp:/x"])
def test_files_are_not_fetched_from_urls(path: str) -> None:
    data = {"shape": "wide_prices", "origin": {"kind": "files", "paths": [path]}}
    with pytest.raises(ConfigError, match="is read from disk, not from a URL"):
        RunSpec.parse({"universe": "x", "data": data, "models": [{"kind": "market"}]}, origin="config")


def _read(source: LongPrices | WidePrices, settings: Settings) -> None:
    read_market(source, settings=settings, frequency="daily", calendar="none")


def _memory_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _refused(path: Path, max_cells: int = 10**9) -> str:
    before = _memory_bytes()
    with pytest.raises(SourceError, match="FACTORCUBE_MAX_CELLS") as raised:
        _read(WidePrices(origin=FilesOrigin(paths=(path,))), Settings(max_cells=max_cells))
    assert _memory_bytes() - before < 2**28
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_an_arrow_file_that_declares_billions_of_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "absurd.arrow"
    empty = pa.Array.from_buffers(pa.null(), 2**31 - 1, [None])
    batch = pa.record_batch({"date": empty, "A": empty})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)
    assert path.stat().st_size < 1000
    assert "absurd.arrow: declares 4.3e+09 cells" in _refused(path)


def test_a_parquet_file_that_unpacks_to_a_thousand_times_its_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    rows = 4_000_000
    pl.DataFrame({"date": pl.repeat("2020-01-02", rows, eager=True), "A": np.zeros(rows)}).write_parquet(path)
    assert path.stat().st_size < 10**5
    assert "bomb.parquet" in _refused(path, rows)


@pytest.mark.parametrize("name", ["bomb.csv.gz", "bomb.csv"])
def test_a_packed_text_that_unpacks_to_a_thousand_times_its_size_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    zeros = gzip.compress(b"0" * 2**25, compresslevel=9)  # packed pieces one after the other are one file
    path.write_bytes(gzip.compress(b"date,A\n") + zeros * 32)
    assert path.stat().st_size < 2**21
    assert name in _refused(path, 10**6)


def test_many_short_lines_are_counted(tmp_path: Path) -> None:
    (tmp_path / "lines.csv").write_bytes(b"date,A\n" + b",\n" * 10_000)
    _refused(tmp_path / "lines.csv", 10_000)


@pytest.mark.parametrize("separator", [b",", b";", b"\t"])
def test_cells_of_two_bytes_are_counted(tmp_path: Path, separator: bytes) -> None:
    """A gzip of 12 MB held 1.3 billion of them, and each takes tens of bytes once it is read."""
    row = b"0" + (separator + b"1") * 999 + b"\n"
    (tmp_path / "bomb.csv.gz").write_bytes(gzip.compress(row * 1_001, compresslevel=9))
    assert "bomb.csv.gz: declares 1e+06 cells" in _refused(tmp_path / "bomb.csv.gz", 10**6)
    assert Settings().max_cells == 10**9, "what 12 MB of gzip can hold is refused unless somebody asks for it"


def test_text_packed_in_a_way_that_cannot_be_bounded_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd.csv"
    path.write_bytes(zlib.compress(b"date,A\n2020-01-02,1\n"))
    with pytest.raises(SourceError, match=r"odd\.csv: is packed in a way that is not read"):
        _read(WidePrices(origin=FilesOrigin(paths=(path,))), Settings())
    path.write_bytes(gzip.compress(bytes(10**6))[:500])
    with pytest.raises(SourceError, match=r"odd\.csv: cannot be read: .* is it complete\?"):
        _read(WidePrices(origin=FilesOrigin(paths=(path,))), Settings(max_cells=1000))


def test_a_table_whose_every_row_is_another_ticker_is_refused_before_it_is_made_dense(tmp_path: Path) -> None:
    days = pl.date_range(pl.date(2000, 1, 1), pl.date(2020, 1, 1), eager=True)[:5000]
    tickers = [f"T{number}" for number in range(5000)]
    pl.DataFrame({"date": days, "ticker": tickers, "close": 1.0}).write_parquet(tmp_path / "wide.parquet")
    source = LongPrices(origin=FilesOrigin(paths=(tmp_path / "wide.parquet",)))
    with pytest.raises(SourceError, match=r"5000 dates x 5000 tickers: declares 2\.5e\+07 cells"):
        _read(source, Settings(max_cells=10**7))


def test_many_small_files_are_refused_together(tmp_path: Path) -> None:
    for number in range(4):
        pl.DataFrame({"date": [f"2020-01-0{number + 2}"] * 100, "A": 1.0}).write_parquet(tmp_path / f"{number}.parquet")
    with pytest.raises(SourceError, match="FACTORCUBE_MAX_CELLS"):
        _read(WidePrices(origin=FilesOrigin(paths=(tmp_path,))), Settings(max_cells=700))


def test_a_query_without_end_is_stopped(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'market.db'}"
    sqlite3.connect(tmp_path / "market.db").close()
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x, x AS y FROM n"
    with pytest.raises(FactorcubeError, match=r"query sql-.*FACTORCUBE_MAX_CELLS"):
        _read(LongPrices(origin=SqlOrigin(query=endless)), Settings(sql_url=SecretStr(url), max_cells=10**5))


WRITES = [
    "WITH x AS (SELECT 1) DELETE FROM bars",
    "WITH x AS (SELECT 1) INSERT INTO bars VALUES ('2020-01-06', 'A', 0)",
    "WITH x AS (SELECT 1) UPDATE bars SET close = 0 RETURNING date, ticker, close",
    "WITH x AS (SELECT 1) REPLACE INTO bars VALUES ('2020-01-02', 'A', 0)",
    "SELECT 1; DELETE FROM bars",
]


@pytest.mark.parametrize("query", WRITES)
def test_a_query_that_writes_is_refused_and_the_data_stay(query: str, tmp_path: Path) -> None:
    file = tmp_path / "market.db"
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE bars (date TEXT, ticker TEXT, close REAL)")
        database.execute("INSERT INTO bars VALUES ('2020-01-02', 'A', 10.0)")
        database.commit()
    before = file.read_bytes()
    with pytest.raises(FactorcubeError, match=r"readonly database|one statement") as told:
        _read(LongPrices(origin=SqlOrigin(query=query)), Settings(sql_url=SecretStr(f"sqlite:///{file}")))
    assert "\n" not in str(told.value)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["market.db"]


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    url = SecretStr(f"sqlite:///{tmp_path / 'typo.db'}")
    with pytest.raises(SourceError, match="there is no such SQLite file"):
        _read(LongPrices(origin=SqlOrigin(query="SELECT 1")), Settings(sql_url=url))
    assert not list(tmp_path.iterdir())


def test_a_version_whose_metadata_declare_an_absurd_shape_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    publish_one(tmp_path)
    layout = Layout(tmp_path)
    (ref,) = published.list_versions(layout)
    path = layout.home_folder(ref.universe, ref.model) / ref.version / "zarr.json"
    metadata = json.loads(path.read_text())
    for array in metadata["consolidated_metadata"]["metadata"].values():
        if array["node_type"] == "array":
            array["shape"] = [10**12] * len(array["shape"])
    path.write_text(json.dumps(metadata))
    before = _memory_bytes()
    with pytest.raises(CorruptionError, match=r"zarr\.json"):
        published.open_version(layout, ref)
    assert _memory_bytes() - before < 2**28
