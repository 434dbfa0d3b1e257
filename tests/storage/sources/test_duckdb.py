"""A query of DuckDB: it reads what it is given, nothing else, and its fingerprint knows all of it."""

from __future__ import annotations

from pathlib import Path

import duckdb
import polars as pl
import pytest
from pydantic import ValidationError

from schemas.errors import ConfigError, SourceError
from schemas.settings import Settings
from schemas.sources import DuckdbOrigin, FilesOrigin, LongPrices
from storage.sources import open_origin


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("date;x\n2020-01-31;1,5\n")
    Path("b.csv").write_text("date;x\n2020-02-29;C\n")
    return tmp_path


def opened(
    query: str, database: str | None = None, *, max_cells: int = 100, paths: tuple[str, ...] = ("a.csv", "b.csv")
):
    files = FilesOrigin(paths=tuple(map(Path, paths)), separator=";")
    spec = DuckdbOrigin(query=query, tables={"given": files}, database=database and Path(database))
    return open_origin(spec, Settings(max_cells=max_cells))


def rows(origin) -> list[tuple]:
    (frame,) = origin.read().values()
    return frame.collect().rows()


def test_cells_of_text_files_come_as_they_are_written_and_rows_in_the_order_that_is_asked_for():
    assert rows(opened("SELECT x, date FROM given ORDER BY date DESC")) == [("C", "2020-02-29"), ("1,5", "2020-01-31")]
    assert rows(opened("FROM given SELECT replace(x, ',', '.')::DOUBLE * 2 AS y WHERE x <> 'C'")) == [(3.0,)]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_csv('a.csv')",
        "SELECT * FROM 'a.csv'",
        "SELECT content FROM read_text('/etc/hostname')",
        "SELECT * FROM glob('*')",
        "SELECT * FROM read_csv('http://127.0.0.1:1/a.csv')",
    ],
)
def test_no_file_and_no_address_is_read_that_was_not_given(query):
    with pytest.raises(SourceError, match=r"^query duckdb-\w{12}: DuckDB refused it: [^\n]+$"):
        opened(query).read()


@pytest.mark.parametrize(
    "query",
    [
        "COPY given TO 'c.csv'",
        "ATTACH 'c.db'",
        "CREATE TABLE c AS FROM given",
        "INSTALL httpfs",
        "SET threads = 8",
        "SELECT 1; SELECT 2",
        "DROP TABLE kept",
    ],
)
def test_only_one_select_is_run(here, query):
    with duckdb.connect("mine.db") as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS seven")
    before = sorted(here.iterdir())
    with pytest.raises(ConfigError, match="must be one SELECT, not"):
        opened(query, "mine.db").read()
    assert sorted(here.iterdir()) == before
    assert rows(opened("SELECT seven, count(*) FROM kept, given GROUP BY seven", "mine.db")) == [(7, 2)]


def test_the_fingerprint_knows_the_query_the_files_and_the_database():
    with duckdb.connect("mine.db") as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS seven")
    query = "SELECT * FROM given"
    first = opened(query, "mine.db").fingerprint()
    assert [file.name for file in first][1:] == ["given/a.csv", "given/b.csv", "mine.db"]
    assert first[0].name.startswith("duckdb-")
    assert opened(query, "mine.db").fingerprint() == first
    assert opened(f"{query} ", "mine.db").fingerprint()[0] != first[0]
    Path("a.csv").write_text("date;x\n2020-01-31;1,6\n")
    with duckdb.connect("mine.db") as connection:
        connection.execute("INSERT INTO kept SELECT 8")
    changed = opened(query, "mine.db").fingerprint()
    assert [one != other for one, other in zip(first, changed, strict=True)] == [False, True, False, True]


def test_what_cannot_be_read_is_said_in_a_line(here):
    with pytest.raises(SourceError, match=r"none\.db: there is no such DuckDB file, and none is made"):
        opened("SELECT 1", "none.db")
    Path("text.db").write_text("no database at all" * 99)
    with pytest.raises(SourceError, match="DuckDB refused it: "):
        opened("SELECT 1", "text.db").read()
    with pytest.raises(SourceError, match="Catalog Error: Table with name gaven does not exist"):
        opened("SELECT * FROM gaven").read()
    with pytest.raises(SourceError, match=r"declares 1e\+02 cells, more than the 1e\+02"):
        opened("SELECT * FROM range(101)").read()
    Path("b.csv").write_text("date;y\n2020-02-29;C\n")
    with pytest.raises(SourceError, match=r"b\.csv: its columns are not those of .*a\.csv"):
        opened("SELECT * FROM given").read()
    with pytest.raises(ValidationError):
        DuckdbOrigin(query="SELECT 1", tables={'a"b': FilesOrigin(paths=(Path("a.csv"),))})


def test_where_files_lie_decides_nothing_and_how_they_are_written_does(here):
    def source(folder: str, separator: str) -> LongPrices:
        files = FilesOrigin.model_validate({"paths": ["a.csv"], "separator": separator})
        origin = DuckdbOrigin(query="SELECT 1", tables={"given": files}, database=Path("mine.db"))
        return LongPrices(origin=origin).resolved(Path(folder))

    moved = source("/elsewhere", ";")
    assert moved.origin.tables["given"].paths == (Path("/elsewhere/a.csv"),)
    assert moved.origin.database == Path("/elsewhere/mine.db")
    assert moved.reading() == source("/here", ";").reading()
    assert moved.reading() != source("/elsewhere", ",").reading()


def test_parquet_keeps_its_types(here):
    pl.DataFrame({"date": ["2020-01-31"] * 3, "x": [1, 2, 3], "y": [0, 0, 0]}).write_parquet("c.parquet")
    assert rows(opened("SELECT sum(x)::BIGINT FROM given WHERE x > 1", paths=("c.parquet",))) == [(5,)]
