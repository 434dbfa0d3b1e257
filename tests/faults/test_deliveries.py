"""What arrives is late, doubled, cut short, renamed or half there: it is refused whole or kept out, never guessed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from injection import content_of
from running import ingested
from small_market import SMALL, make_market, write_config

from schemas.errors import CheckError, DataError, FactorcubeError, SourceError
from schemas.settings import load_settings
from storage import sources
from storage.configs import load_spec
from storage.cube import Cube
from tasks.workspace import Workspace

LAST = pl.datetime(2016, 3, 31)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder that takes deliveries as `drop/*.csv`, with a first one up to March 2016 ingested already."""
    folder = tmp_path_factory.mktemp("first")
    (folder / "drop").mkdir()
    data = {**SMALL["data"], "origin": {"kind": "files", "paths": ["drop/*.csv"]}}
    write_config(folder, {"data": data, "portfolios": SMALL["portfolios"][:1]})
    deliver(folder, "2016-03.csv", MARKET.filter(pl.col("date") <= LAST))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACTORCUBE_ROOT", str(folder / "out"))
        load(folder)
    return folder


@pytest.fixture
def folder(first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy it."""
    monkeypatch.setenv("FACTORCUBE_ROOT", str(tmp_path / "out"))
    return Path(shutil.copytree(first, tmp_path, dirs_exist_ok=True))


MARKET = make_market(start="2015-09-01", end="2016-04-29")
APRIL = MARKET.filter(pl.col("date") > LAST)


def deliver(folder: Path, name: str, rows: pl.DataFrame) -> Path:
    path = folder / "drop" / name
    rows.with_columns(pl.col("date").dt.strftime("%Y-%m-%d")).write_csv(path)
    return path


def load(folder: Path):
    return ingested(load_spec(folder / "config.yaml"), load_settings())


def cube() -> Cube:
    return Cube.open(Workspace(load_settings().root).layout, "small")


def days() -> list[str]:
    return list(cube().open_dataset().indexes["date"].strftime("%Y-%m-%d"))


def twice_the_file(folder: Path) -> None:
    shutil.copy(folder / "drop/2016-03.csv", folder / "drop/2016-03 (1).csv")


def twice_other_bytes(folder: Path) -> None:
    deliver(folder, "again.csv", MARKET.filter(pl.col("date") <= LAST).sort("ticker", "date"))


def twice_contradicting(folder: Path) -> None:
    deliver(folder, "revised.csv", MARKET.filter(pl.col("date") == LAST).with_columns(pl.col("close") * 1.01))


def renamed_in_one(folder: Path) -> None:
    deliver(folder, "2016-04.csv", APRIL.rename({"close": "px_last"}))


def renamed_everywhere(folder: Path) -> None:
    deliver(folder, "2016-03.csv", MARKET.rename({"close": "Close"}))


def no_bytes(folder: Path) -> None:
    (folder / "drop/2016-04.csv").write_bytes(b"")


def no_files(folder: Path) -> None:
    (folder / "drop/2016-03.csv").unlink()


def other_delimiter(folder: Path) -> None:
    path = deliver(folder, "2016-04.csv", APRIL)
    path.write_text(path.read_text().replace(",", ";"))


def cut_in_a_row(folder: Path) -> None:
    path = deliver(folder, "2016-04.csv", APRIL)
    path.write_bytes(path.read_bytes()[: path.read_bytes().rindex(b",S023,") + 3])


def cut_in_compression(folder: Path) -> None:
    import gzip

    path = deliver(folder, "2016-04.csv", APRIL)
    whole = gzip.compress(path.read_bytes())
    path.unlink()
    (folder / "drop/2016-04.csv.gz").write_bytes(whole[: len(whole) // 2])
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("drop/*.csv", "drop/*.csv*"))


def all_other_tickers(folder: Path) -> None:
    deliver(folder, "2016-03.csv", MARKET.with_columns(pl.col("ticker") + ".N"))


def hardly_any_tickers(folder: Path) -> None:
    deliver(folder, "2016-03.csv", MARKET.filter(pl.col("ticker") < "S008"))


REFUSED: dict[str, tuple[Callable[[Path], None], type[FactorcubeError], str]] = {
    "yesterday's file twice": (twice_the_file, SourceError, r"2016-03 \(1\)\.csv.*same bytes|same bytes.*\(1\)"),
    "yesterday's rows twice": (twice_other_bytes, DataError, "duplicated rows.*2015-09-01, ticker S000"),
    "a contradicting second delivery": (twice_contradicting, DataError, "duplicated rows.*2016-03-31"),
    "columns renamed in one file": (renamed_in_one, SourceError, "2016-04.csv.*lacks 'close'.*has 'px_last' more"),
    "columns renamed in all": (renamed_everywhere, SourceError, "no column 'close'.*did you mean 'Close'"),
    "a file of no bytes": (no_bytes, SourceError, "2016-04.csv.*cannot be read.*empty"),
    "no file at all": (no_files, SourceError, "no file matches"),
    "another delimiter": (other_delimiter, SourceError, "2016-04.csv"),
    "a file cut within a row": (cut_in_a_row, SourceError, "2016-04.csv.*last row has 2 of 7"),
    "an archive cut short": (cut_in_compression, SourceError, "2016-04.csv.gz.*cannot be read"),
    "other tickers": (all_other_tickers, CheckError, "known_tickers"),
    "a third of the tickers": (hardly_any_tickers, CheckError, "known_tickers"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_delivery_is_one_line_and_the_cube_stays(case: str, folder: Path) -> None:
    before = cube().head()
    spoil, kind, message = REFUSED[case]
    spoil(folder)
    with pytest.raises(kind, match=message) as told:
        load(folder)
    assert "\n" not in str(told.value)
    assert cube().head() == before
    assert len(cube().history()) == 1


def test_a_delivery_that_holds_nothing_new_changes_nothing(folder: Path) -> None:
    before = cube().head()
    (folder / "drop/2016-04.csv").write_text((folder / "drop/2016-03.csv").read_text().splitlines()[0] + "\n")
    assert not load(folder).changed
    assert cube().head() == before


def test_half_the_tickers_missing_on_the_last_day_keep_that_day_out(folder: Path) -> None:
    day = pl.datetime(2016, 4, 29)
    deliver(folder, "2016-04.csv", APRIL.filter((pl.col("date") < day) | (pl.col("ticker") < "S011")))
    load(folder)
    assert days()[-1] == "2016-04-28"
    assert "2016-04-29" in "".join(path.read_text() for path in (load_settings().root / "quarantine").rglob("*.csv"))
    deliver(folder, "2016-04.csv", APRIL)
    load(folder)
    assert days()[-1] == "2016-04-29", "the day lands once it is whole"
    assert np.isfinite(cube().open_dataset()["returns"][-1]).all()


def test_a_day_without_a_single_number_is_kept_out(folder: Path) -> None:
    day = pl.datetime(2016, 4, 15)
    numbers = [pl.when(pl.col("date") != day).then(pl.col(name)).alias(name) for name in APRIL.columns[2:]]
    deliver(folder, "2016-04.csv", APRIL.with_columns(numbers))
    load(folder)
    assert "2016-04-15" not in days()
    assert {"2016-04-14", "2016-04-18"} <= set(days())


def test_a_file_that_grows_while_it_is_read_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = deliver(folder, "2016-04.csv", APRIL.head(240))
    before, read = cube().head(), sources.read_market

    def read_meanwhile(*arguments, **named):
        market = read(*arguments, **named)
        deliver(folder, path.name, APRIL)
        return market

    monkeypatch.setattr(sources, "read_market", read_meanwhile)
    with pytest.raises(SourceError, match="changed while it was being read; run again"):
        load(folder)
    assert cube().head() == before
    monkeypatch.setattr(sources, "read_market", read)
    load(folder)
    assert days()[-1] == "2016-04-29"


def test_an_older_file_delivered_again_takes_no_later_day_away(folder: Path) -> None:
    deliver(folder, "2016-04.csv", APRIL)
    load(folder)
    whole = cube().open_dataset()
    (folder / "drop/2016-04.csv").unlink()
    load(folder)
    after = cube().open_dataset()
    assert days()[-1] == "2016-04-29"
    assert content_of(after[["returns", "characteristics"]]) == content_of(whole[["returns", "characteristics"]])
