"""The made-up market of the benchmark of scale."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from benchmarks.scale import CHARS, Size, write_market


def test_a_market_is_a_third_full_and_its_last_day_lies_apart(tmp_path: Path) -> None:
    size = Size(520, 150)
    write_market(tmp_path, size)
    history, day = (pl.read_parquet(tmp_path / f"{name}.parquet") for name in ("history", "day"))
    assert 0.25 < (len(history) + len(day)) / (size.dates * size.tickers) < 0.42
    assert history["date"].n_unique() == size.dates - 1
    assert day["date"].n_unique() == 1
    assert day["date"].min() > history["date"].max()
    spans = history.group_by("ticker").agg(pl.col("date").min().alias("first"), pl.col("date").max().alias("last"))
    assert (spans["first"] > history["date"].min()).mean() > 0.3
    assert (spans["last"] < history["date"].max()).mean() > 0.3
    missing = history.select(pl.col("ret", *CHARS).is_null().mean() + pl.col("ret", *CHARS).is_nan().mean())
    assert missing["ret"][0] > 0.0
    again = tmp_path / "again"
    again.mkdir()
    write_market(again, size)
    assert pl.read_parquet(again / "history.parquet").equals(history)
