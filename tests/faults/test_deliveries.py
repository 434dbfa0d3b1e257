"""What arrives is late, doubled, cut short, renamed or half there: it is refused whole or kept out, never guessed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import xarray as xr
from injection import content_of
from running import ingested
from small_market import SMALL, make_market, write_config

from schemas.errors import CheckError, ConfigError, DataError, FactorcubeError, SourceError
from schemas.refs import SnapshotRef
from schemas.settings import Settings, load_settings
from schemas.spec import RunSpec
from storage import sources
from storage.configs import load_spec
from storage.cube import Cube
from tasks.correcting import remove_portfolio, rename_ticker, withdraw_ticker
from tasks.digests import input_digests
from tasks.ingesting import head_snapshot
from tasks.snapshots import ingests_of, sources_of
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


def drop_config(folder: Path, portfolio: dict[str, Any] = SMALL["portfolios"][0], **changes: Any) -> RunSpec:
    (folder / "drop").mkdir(exist_ok=True)
    data = {**SMALL["data"], "origin": {"kind": "files", "paths": ["drop/*.csv"]}}
    return load_spec(write_config(folder, {"data": data, "portfolios": [portfolio], **changes}))


def load_other(folder: Path, portfolio: dict[str, Any], **changes: Any) -> SnapshotRef:
    return ingested(drop_config(folder, portfolio, **changes), load_settings())


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


def two_tickers_fewer(folder: Path) -> None:
    deliver(folder, "2016-03.csv", MARKET.filter(pl.col("ticker") < "S022"))


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
    "two of 24 tickers less": (two_tickers_fewer, CheckError, "withdrawn_share: 0.08333"),
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_day_without_a_single_number_is_kept_out(folder: Path) -> None:
    day = pl.datetime(2016, 4, 15)
    numbers = [pl.when(pl.col("date") != day).then(pl.col(name)).alias(name) for name in APRIL.columns[2:]]
    deliver(folder, "2016-04.csv", APRIL.with_columns(numbers))
    load(folder)
    assert "2016-04-15" not in days()
    assert {"2016-04-14", "2016-04-18"} <= set(days())


def test_a_file_that_grows_while_it_is_read_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = deliver(folder, "2016-04.csv", APRIL.head(240))
    before, read = cube().head(), sources.open_market

    def read_meanwhile(*arguments, **named):
        market = read(*arguments, **named)
        deliver(folder, path.name, APRIL)
        return market

    monkeypatch.setattr(sources, "open_market", read_meanwhile)
    with pytest.raises(SourceError, match="changed while it was being read; run again"):
        load(folder)
    assert cube().head() == before
    monkeypatch.setattr(sources, "open_market", read)
    load(folder)
    assert days()[-1] == "2016-04-29"


@pytest.mark.slow
def test_an_older_file_delivered_again_takes_no_later_day_away(folder: Path) -> None:
    deliver(folder, "2016-04.csv", APRIL)
    load(folder)
    whole = cube().open_dataset()
    (folder / "drop/2016-04.csv").unlink()
    load(folder)
    after = cube().open_dataset()
    assert days()[-1] == "2016-04-29"
    assert content_of(after[["returns", "characteristics"]]) == content_of(whole[["returns", "characteristics"]])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[date, str], xr.Dataset]:
    """Digests and cube of one full delivery into a fresh root, in which S023 is called S023.N."""
    folder = tmp_path_factory.mktemp("whole")
    spec = drop_config(folder)
    deliver(folder, "all.csv", RENAMED)
    settings = Settings(root=folder / "out")
    space = Workspace.of(settings)
    snapshot = ingested(spec, settings)
    return input_digests(space, spec, snapshot), Cube.open(space.layout, "small").open_dataset().load()


RENAMED = MARKET.with_columns(pl.col("ticker").replace("S023", "S023.N"))


@pytest.mark.slow
def test_a_renamed_ticker_is_there_once_whoever_renames_it(
    folder: Path, whole: tuple[dict[date, str], xr.Dataset]
) -> None:
    deliver(folder, "2016-03.csv", RENAMED)
    spec, settings = load_spec(folder / "config.yaml"), load_settings()
    by_vendor = load(folder)
    head = cube().head()
    assert head is not None
    assert head.metadata["withdrawn"]["tickers"] == ["S023"]
    assert head.metadata["withdrawn"]["rows"] == len(MARKET.filter(pl.col("date") <= LAST)) // 24
    merged = cube().open_dataset().load()
    assert "S023" in merged["ticker"], "the axis keeps it, without a number"
    assert not merged["returns"].sel(ticker="S023").notnull().any()
    sums = merged["weights"].astype(np.float64).sum("ticker").values
    np.testing.assert_allclose(sums[:, 1:], 1.0, atol=1e-6)
    space = Workspace.of(settings)
    assert input_digests(space, spec, by_vendor) == whole[0]

    deliver(folder, "2016-03.csv", MARKET)
    load(folder)
    by_hand = rename_ticker("small", "S023", "S023.N", None, None, "the exchange said so", settings)
    assert input_digests(space, spec, by_hand) == whole[0]
    assert cube().history()[0].message == "rename S023 to S023.N: the exchange said so"
    assert [one.kind for one in ingests_of(space, by_hand)] == ["full", "correction"]
    left = withdraw_ticker("small", "S023.N", None, date(2016, 1, 29), "not a stock yet", settings)
    held = cube().open_dataset(left.snapshot_id)["returns"].sel(ticker="S023.N")
    assert not held.sel(date=slice(None, "2016-02-01")).notnull().any()
    assert held.sel(date=slice("2016-02-02", None)).notnull().all()
    with pytest.raises(ConfigError, match="another portfolio 'equal_weight'"):
        load_other(folder, {"kind": "long_short", "name": "equal_weight", "characteristic": "mom1m"})


@pytest.mark.slow
def test_increments_and_a_window_that_begins_later_lose_nothing(
    folder: Path, whole: tuple[dict[date, str], xr.Dataset]
) -> None:
    (folder / "drop/2016-03.csv").unlink()
    deliver(folder, "window.csv", RENAMED.filter(pl.col("date") >= pl.datetime(2016, 4, 1)))
    load_other(folder, SMALL["portfolios"][0], delivery="increment")
    spec, space = load_spec(folder / "config.yaml"), Workspace.of(load_settings())
    rename_ticker("small", "S023", "S023.N", None, date(2016, 3, 31), "as the vendor does now", load_settings())
    renamed = head_snapshot("small", load_settings())
    assert input_digests(space, spec, renamed) == whole[0]
    names = [file.name for file in sources_of(ingests_of(space, renamed))]
    assert names == ["2016-03.csv", "window.csv"]
    deliver(folder, "window.csv", RENAMED.filter(pl.col("date") >= pl.datetime(2016, 2, 1)))
    load_other(folder, SMALL["portfolios"][0])
    assert input_digests(space, spec, head_snapshot("small", load_settings())) == whole[0]


@pytest.mark.slow
def test_what_one_config_publishes_another_one_does_not_change(folder: Path) -> None:
    mine = {"kind": "fixed", "name": "pair", "weights": {"S000": 0.5, "S001": 0.5}}
    load_other(folder, mine)
    spec = load_spec(folder / "config.yaml")
    deliver(folder, "2016-04.csv", APRIL)
    last = load_other(folder, SMALL["portfolios"][0])
    held = cube().open_dataset().load()["weights"]
    assert list(held["portfolio"].values) == ["equal_weight", "pair"]
    np.testing.assert_allclose(held.sel(portfolio="pair", ticker=["S000", "S001"])[1:], 0.5)
    theirs = spec.portfolios[0].model_copy(update={"weights": {"S002": 1.0}})
    other = spec.model_copy(update={"portfolios": (theirs,)})
    with pytest.raises(ConfigError, match=r"another portfolio 'pair': fixed .*factorcube portfolio remove"):
        input_digests(Workspace.of(load_settings()), other, last)
    with pytest.raises(ConfigError, match="another portfolio 'pair'"):
        ingested(other, load_settings())
    remove_portfolio("small", "pair", "the mandate ended", load_settings())
    assert ingested(other, load_settings()).changed
