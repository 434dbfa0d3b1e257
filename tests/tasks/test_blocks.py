"""An ingest that goes through a market block by block gives the same bits as one that goes through it at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xarray as xr
from running import deliver
from small_market import make_market

from models import blocks
from schemas.refs import RawRef
from schemas.settings import Settings
from schemas.spec import RunSpec
from storage.cube import Cube
from tasks.ingesting import check_data, read_source, write_cube
from tasks.workspace import Workspace

CHANGES = {
    "calendar": "none",
    "characteristics": ["mom1m", "beta", "dolvol"],
    "portfolios": [
        {"kind": "equal_weight"},
        {"kind": "inverse_volatility"},
        {"kind": "value_weight", "value": "dollar_volume"},
        {"kind": "long_short", "name": "winners", "characteristic": "mom1m"},
    ],
}


def faulty_market(**span: object) -> pl.DataFrame:
    """Make a market with listings, a ticker that comes back as another company, a bad print and impossible bars."""
    market = make_market(**span).with_columns(pl.col("date").dt.replace_time_zone(None), pl.col("volume").cast(float))  # type: ignore[arg-type]
    number = pl.col("ticker").str.slice(1).cast(pl.Int32)
    age = pl.col("date").rank("dense").over("ticker")
    listed = age > (number * 7) % 90
    away = (number == 70) & age.is_between(200, 330)
    times = (
        pl.when((number == 70) & (age > 330)).then(9.0).when((number % 50 == 3) & (age == 250)).then(1.3).otherwise(1)
    )
    prices = [(pl.col(name) * times).alias(name) for name in ("open", "high", "low", "close")]
    wrong = pl.when((number % 40 == 5) & (age == 300)).then(1.0).otherwise(pl.col("high")).alias("high")
    return market.filter(listed & ~away).with_columns(*prices).with_columns(wrong)


def read(folder: Path, market: pl.DataFrame) -> tuple[RunSpec, RawRef, Settings]:
    spec, settings = deliver(folder, market, **CHANGES), Settings(root=folder / "out")
    return spec, read_source(spec, settings), settings


def written(folder: Path, market: pl.DataFrame) -> tuple[xr.Dataset, xr.Dataset, str]:
    """Ingest a market; return cube, record and quarantined rows."""
    spec, raw, settings = read(folder, market)
    ref = write_cube(spec, raw, check_data(spec, raw, settings), settings)
    cube = Cube.open(Workspace.of(settings).layout, "small")
    record = cube.open_record(ref.snapshot_id)
    assert record is not None
    (listed,) = (settings.root / "quarantine" / "small").glob("*.csv")
    return cube.open_dataset().load(), record.load(), listed.read_text()


def test_blocks_of_tickers_give_the_same_bits_as_a_market_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    market = faulty_market(stocks=130, start="2015-06-01")
    at_once = written(tmp_path / "once", market)
    monkeypatch.setattr(blocks, "CELLS", 1)
    in_blocks = written(tmp_path / "blocks", market)
    for one, other in zip(at_once[:2], in_blocks[:2], strict=True):
        xr.testing.assert_identical(one, other)
    assert at_once[2] == in_blocks[2]
    assert "impossible_bar" in at_once[2]
    assert np.isfinite(at_once[0]["characteristics"].sel(char="beta")).any()
