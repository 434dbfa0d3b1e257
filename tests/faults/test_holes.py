"""Known holes, each shown: what is not promised, so that nobody relies on it. A test that fails here is good news."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pandas as pd
import psutil
import pytest
import xarray as xr
from small_market import SMALL, make_market, write_config
from storing import ONE, TWO, cube_data, manifest_of, version_data

from models import quality
from schemas.checks import CheckOverrides, declared
from schemas.errors import CorruptionError, FactorcubeError
from schemas.settings import Settings
from schemas.sources import FilesOrigin, LongPrices
from storage import published
from storage.cube import Cube
from storage.layout import Layout
from storage.sources import read_market


def test_a_lazy_reader_of_latest_mixes_versions_across_a_promotion(tmp_path: Path) -> None:
    """The link is followed at every chunk. Resolving it first, or loading at once, is the way out."""
    layout = Layout(tmp_path)
    for seed, end in enumerate((ONE, TWO)):
        dataset = version_data(end=end, seed=seed)
        published.publish(layout, dataset, manifest_of(dataset, tag=f"{seed:08x}"), {"gamma": dataset["omega"].values})
    published.promote(layout, "us", "ipca", f"{ONE}-00000000", reason="first")
    link = tmp_path / "published/us/ipca/latest"
    lazy, resolved = xr.open_zarr(link), xr.open_zarr(link.resolve())
    published.promote(layout, "us", "ipca", f"{TWO}-00000001", reason="second")
    mixed = lazy.load()
    assert mixed.attrs["as_of"] == ONE
    assert not mixed.equals(version_data(end=ONE, seed=0)), "the hole is closed: say so in docs/reliability.md"
    assert resolved.load().equals(version_data(end=ONE, seed=0))


def test_a_chunk_that_has_gone_reads_as_missing_values_with_plain_xarray(tmp_path: Path) -> None:
    """Plain Zarr takes an absent chunk for one that holds nothing; `factorcube verify` and our own reader tell."""
    layout, dataset = Layout(tmp_path), version_data(end=ONE)
    ref = published.publish(layout, dataset, manifest_of(dataset), {"gamma": dataset["omega"].values})
    folder = layout.home_folder("us", "ipca") / ref.version
    (folder / "omega/c.0.0.0").unlink()
    assert not xr.open_zarr(folder)["omega"].notnull().any(), "the hole is closed: say so in docs/reliability.md"
    (error,) = published.damages(layout, ref)
    assert "omega/c.0.0.0 is missing or cannot be read" in str(error)
    with pytest.raises(CorruptionError, match=r"omega/c\.0\.0\.0 is missing"):
        published.open_version(layout, ref)


def test_a_commit_that_a_power_cut_took_back_is_told_and_the_one_before_is_whole(tmp_path: Path) -> None:
    """Icechunk does not sync a local disk: after a power cut the files of the last commit may be there but empty."""
    layout, days = Layout(tmp_path), pd.bdate_range("2024-01-01", periods=10)
    cube = Cube.open_or_create(layout, "us")
    first = cube.upsert(cube_data(days[:5]), message="first", metadata={}).snapshot_id
    before = cube.open_dataset().load()
    kept = {path for path in (tmp_path / "cubes/us").rglob("*") if path.is_file()}
    cube.upsert(cube_data(days[5:], seed=1), message="second", metadata={})
    for path in (tmp_path / "cubes/us").rglob("*"):
        if path.is_file() and path not in kept and "refs" not in path.parts:
            path.write_bytes(b"")
    with pytest.raises(FactorcubeError):
        Cube.open(layout, "us").open_dataset().load()
    assert Cube.open(layout, "us").open_dataset(first).load().identical(before)


def test_a_jump_on_one_of_the_last_dates_is_judged_only_later() -> None:
    """A bad print is recognised when it is undone, so that the flags of the last five dates are provisional."""
    day, ticker = "2016-04-20", "S003"
    market = make_market(start="2015-09-01", end="2016-04-29").to_pandas().set_index(["date", "ticker"]).to_xarray()
    market["close"].loc[{"date": day, "ticker": ticker}] *= 1.15
    thresholds = {name: check.threshold for name, check in declared(CheckOverrides(), "daily").items()}
    bounds = {name: threshold for name, threshold in thresholds.items() if threshold is not None}
    judged = []
    for known in (market[["close"]].sel(date=slice(None, day)), market[["close"]]):
        flags = quality.flag_rows(known, bounds, "daily").flags
        place = known.indexes["date"].get_loc(day), known.indexes["ticker"].get_loc(ticker)
        judged.append([name for name, flagged in flags.items() if flagged[place]])
    assert judged == [[], ["reversed_jump"]]


def test_a_file_cut_within_its_last_number_reads_as_another_number(tmp_path: Path) -> None:
    """Nothing in the file says so; the checks see a jump. Write elsewhere and rename, or deliver Parquet or gzip."""
    path = tmp_path / "prices.csv"
    path.write_text("date,ticker,close\n2017-02-01,A,101.25\n2017-02-02,A,101.")
    source = LongPrices(origin=FilesOrigin(paths=(path,)))
    market = read_market(source, settings=Settings(), frequency="daily", calendar="XNYS")
    assert market["close"].values.ravel().tolist() == [101.25, 101.0]


@pytest.mark.slow
def test_a_killed_run_leaves_the_server_that_it_started_behind(tmp_path: Path) -> None:
    """Without PREFECT_API_URL a run starts a server of its own, which only an orderly end takes down."""
    make_market().write_parquet(tmp_path / "prices.parquet")
    write_config(tmp_path, {"models": SMALL["models"][:1]})
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    environment |= {"FACTORCUBE_ROOT": str(tmp_path / "out"), "PREFECT_HOME": str(tmp_path / "prefect")}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true"}
    with (tmp_path / "log").open("w") as log:
        command = [sys.executable, "-m", "deploy.cli", "run", "config.yaml"]
        run = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
    while not list((tmp_path / "out").glob("work/raw/[!.]*")) and run.poll() is None:
        time.sleep(0.05)
    assert run.poll() is None, (tmp_path / "log").read_text()[-2000:]
    servers = [one for one in psutil.Process(run.pid).children(recursive=True) if "uvicorn" in " ".join(one.cmdline())]
    said = servers[0].cmdline()
    calls = f"http://127.0.0.1:{said[said.index('--port') + 1]}/api/flow_runs/filter"
    assert httpx.post(calls, json={}, timeout=60).status_code == 401, "its password is known to this run alone"
    run.kill()
    run.wait(30)
    left = [one for one in servers if one.is_running()]
    for one in left:
        one.kill()
    assert left, "the hole is closed: say so in docs/reliability.md"
