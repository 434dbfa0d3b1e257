"""A portfolio of kind holdings: read at an ingest, part of the recipe from then on, wherever its file lies."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import xarray as xr
from running import ingested
from small_market import make_market, write_config

from schemas.errors import ConfigError, DataError
from schemas.settings import Settings
from schemas.spec import Recipe, RunSpec
from storage.configs import load_spec
from storage.cube import Cube
from tasks.correcting import rename_ticker
from tasks.publishing import _portable
from tasks.snapshots import open_span
from tasks.workspace import Workspace

FIRST = "date,ticker,shares,fund\n2016-11-28,S000,100,a\n2016-11-28,S001,300,a\n2016-11-28,S002,7,b\n"
LATER = "2016-12-12,S000,500,a\n"


def spec_of(folder: Path, holdings: str, **changes: Any) -> RunSpec:
    folder.mkdir(exist_ok=True)
    make_market(start="2016-07-01").filter(pl.col("date") <= date(2016, 12, 15)).write_parquet(
        folder / "prices.parquet"
    )
    (folder / "fund.csv").write_text(holdings)
    source = {"origin": {"kind": "files", "paths": ["fund.csv"]}, "shares": "shares", "portfolio": "fund", "book": "a"}
    book = {"kind": "holdings", "name": "fund", "source": source, **changes}
    return load_spec(write_config(folder, {"portfolios": [{"kind": "equal_weight"}, book]}))


def test_holdings_are_part_of_the_recipe_wherever_their_file_lies(tmp_path: Path) -> None:
    settings = Settings(root=tmp_path / "out")
    spec = spec_of(tmp_path / "one", FIRST)
    snapshot = ingested(spec, settings)
    cube = Cube.open(Workspace.of(settings).layout, "small")
    held = cube.open_dataset().load()["weights"].sel(portfolio="fund")
    close = make_market(start="2016-07-01").pivot(on="ticker", index="date", values="close").to_pandas()
    value = close.set_index("date")[["S000", "S001"]].loc["2016-11-28":"2016-12-15"] * [100, 300]
    assert held.sel(date=slice(None, "2016-11-25")).isnull().all()
    found = held.sel(date=slice("2016-11-28", None), ticker=["S000", "S001"])
    np.testing.assert_allclose(found, value.div(value.sum(axis=1), axis=0), rtol=1e-5)
    assert str(tmp_path) not in str(cube.facts(snapshot.snapshot_id)["recipe"])
    assert str(tmp_path) not in str(_portable(spec))
    assert open_span(Workspace.of(settings), spec, snapshot).sizes["portfolio"] == 2, "a retrain reads no holdings"

    moved = spec_of(tmp_path / "two", FIRST)
    assert not ingested(moved, settings).changed, "the same holdings in another folder are the same ones"
    beside = spec_of(tmp_path / "two", FIRST, benchmark="equal_weight")
    assert not ingested(beside, settings).changed, "a benchmark is of the config, and no part of what is held"
    assert open_span(Workspace.of(settings), beside, snapshot).sizes["portfolio"] == 2
    more = ingested(spec_of(tmp_path / "two", FIRST + LATER), settings)
    assert more.changed
    after = cube.open_dataset().load()["weights"].sel(portfolio="fund")
    np.testing.assert_array_equal(after.sel(date="2016-12-12", ticker="S000"), 1.0)
    early = {"date": slice(None, "2016-12-09")}
    xr.testing.assert_identical(after.sel(early).drop_attrs(), held.sel(early).drop_attrs())
    with pytest.raises(ConfigError, match="the cube has another portfolio 'fund': holdings as of 2016-11-28"):
        ingested(spec_of(tmp_path / "two", FIRST.replace("300", "200")), settings)
    rename_ticker("small", "S000", "NEW", None, None, "renamed", settings)
    head = cube.head()
    assert head is not None
    recipe = Recipe.model_validate(head.metadata["recipe"])
    assert {"NEW", "S001"} == set(recipe.portfolios[1].rebalances[0].weights)


def test_a_ticker_that_the_universe_does_not_have_is_told_or_refused(tmp_path: Path) -> None:
    settings = Settings(root=tmp_path / "out")
    weights = {"shares": None, "weight": "shares"}
    source = {"origin": {"kind": "files", "paths": ["fund.csv"]}, "date": "date", **weights}
    rows = "date,ticker,shares\n2016-11-28,S000,0.97\n2016-11-28,GONE,0.03\n"
    with pytest.raises(DataError, match=r"3.0% of its gross weight .*\(GONE\), more than max_uncovered 1.0%"):
        ingested(spec_of(tmp_path / "one", rows, source=source, max_uncovered=0.01), settings)
    snapshot = ingested(spec_of(tmp_path / "one", rows, source=source), settings)
    facts = Cube.open(Workspace.of(settings).layout, "small").facts(snapshot.snapshot_id)
    assert facts["uncovered"] == {"fund": {"GONE": pytest.approx(0.03)}}


def test_a_source_of_holdings_needs_dates(tmp_path: Path) -> None:
    source = {"origin": {"kind": "files", "paths": ["fund.csv"]}, "weight": "shares", "date": None}
    with pytest.raises(ConfigError, match="holdings of a config need a column of dates"):
        spec_of(tmp_path / "one", FIRST, source=source)
    with pytest.raises(ConfigError, match="holdings need a `source`"):
        spec_of(tmp_path / "one", FIRST, source=None)
    spec = spec_of(tmp_path / "one", FIRST).model_dump(mode="json")
    with pytest.raises(ConfigError, match=r"portfolio 'fund': shares are priced at closes .* leave data\.adjust out"):
        RunSpec.parse({**spec, "data": {**spec["data"], "adjust": "splits"}}, origin="config")
