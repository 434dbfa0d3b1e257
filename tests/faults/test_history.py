"""Restated and late data: what was published and committed before stays as it is, and can be made again (P4, P7)."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest
from injection import content_of
from running import Inline, ingested
from small_market import SMALL, make_market, write_config

from schemas.refs import SnapshotRef, VersionRef
from schemas.settings import load_settings
from schemas.spec import RunSpec
from storage import published
from storage.configs import load_spec
from storage.cube import Cube
from storage.files import sha256_file
from tasks.training import train
from tasks.workspace import Workspace

MARKET = make_market()
DERIVED = ("pieces", "fits", "realised", "rows", "risks", "states", "evaluations", "metrics", "panels")


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunSpec:
    """Make the spec of two models on a market whose file tests replace."""
    monkeypatch.setenv("FACTORCUBE_ROOT", str(tmp_path / "out"))
    return load_spec(write_config(tmp_path, {"models": SMALL["models"][1:3]}))


def deliver(tmp_path: Path, spec: RunSpec, rows: pl.DataFrame) -> SnapshotRef:
    rows.write_parquet(tmp_path / "prices.parquet")
    return ingested(spec, load_settings())


def trained(spec: RunSpec, snapshot: SnapshotRef) -> list[VersionRef]:
    return train(spec, spec.models, snapshot, None, Inline(), load_settings(), promote_first=True)


def bytes_of(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_file(path) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_restated_and_late_data_leave_old_versions_and_snapshots_as_they_were(tmp_path: Path, spec: RunSpec) -> None:
    root = load_settings().root
    first = deliver(tmp_path, spec, MARKET.filter(pl.col("date") < pl.datetime(2016, 11, 1)))
    old = trained(spec, first)
    folders = [root / "published/small" / ref.model / ref.version for ref in old]
    before = [bytes_of(folder) for folder in folders]
    cube = Cube.open(Workspace(root).layout, "small")
    snapshot = content_of(cube.open_dataset(first.snapshot_id))

    restated = (pl.col("ticker") == "S003") & (pl.col("date") < pl.datetime(2016, 3, 1))
    close = pl.when(restated).then(pl.col("close") * 0.97).otherwise(pl.col("close")).alias("close")
    bounds = pl.max_horizontal("high", "close"), pl.min_horizontal("low", "close")
    second = deliver(tmp_path, spec, MARKET.with_columns(close).with_columns(bounds))
    new = trained(spec, second)

    assert second.snapshot_id != first.snapshot_id
    assert {ref.version for ref in new}.isdisjoint(ref.version for ref in old)
    assert content_of(cube.open_dataset(second.snapshot_id)) != snapshot
    assert [bytes_of(folder) for folder in folders] == before
    assert content_of(cube.open_dataset(first.snapshot_id)) == snapshot
    for ref in old:
        published.verify(Workspace(root).layout, ref)


@pytest.mark.slow
def test_an_old_version_can_be_made_again_from_its_snapshot(tmp_path: Path, spec: RunSpec) -> None:
    settings = load_settings()
    layout = Workspace(settings.root).layout
    first = deliver(tmp_path, spec, MARKET.filter(pl.col("date") < pl.datetime(2016, 11, 1)))
    old = {ref.model: (ref.version, content_of(published.open_version(layout, ref))) for ref in trained(spec, first)}
    deliver(tmp_path, spec, MARKET)
    shutil.rmtree(settings.root / "published")
    for kind in DERIVED:
        shutil.rmtree(settings.root / "work" / kind, ignore_errors=True)
    again = trained(spec, first)
    assert {ref.model: (ref.version, content_of(published.open_version(layout, ref))) for ref in again} == old
