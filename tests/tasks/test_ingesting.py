"""Steps of an ingest: what is repaired or blocked on the way into a cube, and what is listed beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
from running import ingested
from small_market import SMALL, make_market, write_config

from schemas.checks import CheckReport
from schemas.settings import Settings
from storage.configs import load_spec
from storage.cube import Cube
from storage.work import Kind
from tasks.understanding import understand
from tasks.workspace import Workspace

LAST = pd.Timestamp("2016-06-01")
FRIDAY, SATURDAY, MONDAY = (pd.Timestamp(f"2016-03-{day}") for day in (11, 12, 14))


def unadjusted(market: pl.DataFrame) -> pl.DataFrame:
    """Leave a split of S003 on a Monday unadjusted, add a stray Saturday of two stocks, and delist S005 at a loss."""
    paid = pl.when((pl.col("ticker") == "S005") & (pl.col("date") == LAST)).then(-0.4).alias("dlret")
    market = market.with_columns(paid).filter((pl.col("ticker") != "S005") | (pl.col("date") <= LAST))
    after = (pl.col("ticker") == "S003") & (pl.col("date") >= MONDAY)
    prices = [
        pl.when(after).then(pl.col(name) / 1.5).otherwise(name).alias(name) for name in ("open", "high", "low", "close")
    ]
    volume = pl.when(after).then(pl.col("volume") * 1.5).otherwise(pl.col("volume")).alias("volume")
    split = market.with_columns(*prices, volume)
    stray = split.filter((pl.col("date") == FRIDAY) & pl.col("ticker").is_in(["S000", "S001"]))
    return pl.concat([split, stray.with_columns(pl.lit(SATURDAY).cast(split["date"].dtype).alias("date"))]).sort("date")


def test_a_split_is_adjusted_and_listed_and_a_stray_date_costs_no_returns(tmp_path: Path) -> None:
    market = make_market(stocks=12, start="2015-10-01", end="2016-06-30")
    market = market.with_columns(pl.col("date").dt.replace_time_zone(None))
    data = SMALL["data"] | {"adjust": "splits", "delisting_return": "dlret"}
    changes = {"calendar": "none", "data": data, "models": SMALL["models"][:1]}
    spec = load_spec(write_config(tmp_path, changes))
    unadjusted(market).write_parquet(tmp_path / "prices.parquet")
    settings = Settings(root=tmp_path / "out")
    ref = ingested(spec, settings)
    space = Workspace.of(settings)
    cube = Cube.open(space.layout, "small").open_dataset()

    closes = market.to_pandas().pivot_table(index="date", columns="ticker", values="close")
    assert SATURDAY not in cube.indexes["date"]
    returns = closes.pct_change()
    returns.loc[LAST, "S005"] = 0.6 * (1.0 + returns.loc[LAST, "S005"]) - 1.0
    returns.loc[LAST + pd.Timedelta(days=1) :, "S005"] = np.nan
    np.testing.assert_allclose(cube["returns"], returns.astype(np.float32), rtol=1e-4, atol=1e-6)
    assert bool(cube["estimation"].sel(date=MONDAY).all()), "of the whole cross-section, the split stock included"

    (file,) = (settings.root / "quarantine" / "small").glob("*-splits.csv")
    (row,) = pd.read_csv(file).to_dict("records")
    assert (row["date"], row["ticker"], row["ratio"]) == ("2016-03-14", "S003", 1.5)
    assert abs(row["move"] + np.log(1.5)) < 0.1
    report = CheckReport.model_validate(space.work.get_json(Kind.CHECKS, ref.checks_key))
    told = {result.check: result.observed for result in report.failed}
    assert "2016-03-14, S003 3:2" in told["adjusted_split"]
    before = {result.check: result.observed for result in understand(spec, settings).report.failed}
    assert before == {name: told[name] for name in before}, "what `factorcube check` says is what an ingest does"
    assert "adjusted_split" in before
    assert not {"split_like_jump", "unconfirmed_jump", "lost_return", "vanished_returns", "unexplained_end"} & set(told)
