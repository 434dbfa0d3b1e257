"""`factorcube check`: what a config and its sources are understood to say, without a server, and without a trace."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from small_market import SMALL, make_market, write_config
from typer.testing import CliRunner

from deploy.cli import app
from schemas.errors import CheckError, FactorcubeError

FACTORS = [
    {"origin": {"kind": "files", "paths": ["ff.csv"]}, "columns": ["Mkt"], "risk_free": "RF", "units": "percent"}
]
INDUSTRIES = {"origin": {"kind": "files", "paths": ["sectors.csv"]}, "industry": "sector"}
PROGRAM = """
import sys
from deploy.cli import app
app(["check", "config.yaml"], standalone_mode=False)
heavy = {"prefect", "distributed", "zarr", "icechunk"} & set(sys.modules)
sys.exit(f"check has imported {heavy}" if heavy else 0)
"""


def make(folder: Path, market: pl.DataFrame | None = None, **changes: Any) -> None:
    market = make_market() if market is None else market
    market.write_parquet(folder / "prices.parquet")
    days = market["date"].unique().sort().cast(pl.Date)
    pl.DataFrame({"date": days, "Mkt": [0.5, -0.25] * (len(days) // 2), "RF": 0.004}).write_csv(folder / "ff.csv")
    pl.DataFrame({"ticker": ["S000", "S001"], "sector": ["Banks", "Oil"]}).write_csv(folder / "sectors.csv")
    write_config(folder, changes)


def test_it_shows_what_it_understood_without_prefect_and_writes_nothing(tmp_path: Path) -> None:
    make(tmp_path, factors=FACTORS, industries=INDUSTRIES)
    before = sorted(tmp_path.rglob("*"))
    shown = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "FACTORCUBE_ROOT": str(tmp_path / "out")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    for said in (
        "small: daily, sessions of XNYS, USD",
        "prices.parquet as long_prices: 504 dates, 2015-01-02 to 2016-12-30",
        "24: S000, S001, S002, S003, ..., S020, S021, S022, S023",
        "│ 2015-01-02 │ S000   │",
        "ff.csv in percent, here in decimals",
        "│ RF (risk-free) │ 100.0% │ 4e-05",
        "sectors.csv: 2: Banks, Oil",
        "22 ticker(s) without one at the end: S002",
        "market, fama_macbeth, pca, ipca, autoencoder",
        "3 time(s), as of 2016-06-30 to 2016-12-30",
    ):
        assert said in shown.stdout, (said, shown.stdout)
    assert sorted(tmp_path.rglob("*")) == before


def test_it_refuses_what_a_run_would_refuse_and_says_what_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTORCUBE_ROOT", str(tmp_path / "out"))
    monkeypatch.chdir(tmp_path)
    impossible = pl.when(pl.int_range(pl.len()) == 1000).then(1.0).otherwise(pl.col("high")).alias("high")
    market = make_market().with_columns(impossible)
    make(tmp_path, market)
    shown = CliRunner().invoke(app, ["check", "config.yaml"], catch_exceptions=False)
    assert shown.exit_code == 0
    assert "│ block    │ impossible_bar │ 1" in shown.stdout
    make(tmp_path, market, checks={"overrides": {"quarantined_share": {"threshold": 0.0}}})
    refused = CliRunner().invoke(app, ["check", "config.yaml"])
    assert isinstance(refused.exception, CheckError)
    assert str(refused.exception).startswith(
        "an ingest of this would be blocked, and nothing be written: quarantined_s"
    )
    make(tmp_path, walk_forward={"first": "2015-01-05"})
    early = CliRunner().invoke(app, ["check", "config.yaml"])
    assert isinstance(early.exception, FactorcubeError)
    assert "walk_forward.first is 2015-01-05" in str(early.exception)
    make(tmp_path, data={**SMALL["data"], "close": "Close"})
    assert "did you mean 'close'" in str(CliRunner().invoke(app, ["check", "config.yaml"]).exception)
    assert not (tmp_path / "out").exists()
