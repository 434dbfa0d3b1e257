"""A version as long tables: every number is there, missing ones are null, and nothing is written by halves."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest
import xarray as xr
from storing import STATE, manifest_of, version_data

from schemas.errors import CorruptionError, ExecutionError, PublishError
from storage import exports, published
from storage.exports import export
from storage.layout import Layout


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, dataset = tmp_path_factory.mktemp("store"), version_data(periods=40)
    published.publish(Layout(root), dataset, manifest_of(dataset), STATE)
    return root


@pytest.fixture
def version(store: Path) -> xr.Dataset:
    return published.open_version(Layout(store), published.list_versions(Layout(store))[0])


def tables(out: Path, form: str) -> dict[str, pl.DataFrame]:
    if form != "duckdb":
        read = pl.read_parquet if form == "parquet" else pl.read_csv
        options = {} if form == "parquet" else {"try_parse_dates": True, "infer_schema_length": None}
        return {file.stem: read(file, **options) for file in out.iterdir()}
    with duckdb.connect(str(out), read_only=True) as connection:
        names = [name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        return {name: pl.DataFrame(connection.sql(f'FROM "{name}"').to_arrow_table()) for name in names}


def assert_is(dataset: xr.Dataset, found: dict[str, pl.DataFrame]) -> None:
    """Hold every number of every table against the version, and every missing one too."""
    told = {row["variable"]: row for row in found["variables"].iter_rows(named=True)}
    assert set(told) == set(dataset.data_vars)
    for name, array in dataset.data_vars.items():
        rows, axes = found[told[name]["table"]], list(map(str, array.dims))
        assert told[name]["long_name"] == array.attrs["long_name"]
        if not axes:
            assert rows[name][0] == pytest.approx(array.item())
            continue
        known = array.to_series().reset_index(name="value").dropna()
        at = pl.from_pandas(known).with_columns(pl.col(axis).cast(rows.schema[axis]) for axis in axes)
        joined = at.join(rows, on=axes, how="left")
        written = (
            joined[name].cast(float).to_numpy().astype(array.dtype)
        )  # CSV has the digits of a float32, and no more
        np.testing.assert_array_equal(written, joined["value"].to_numpy())
        assert rows[name].drop_nulls().len() == at.height
        assert not rows.schema[name].is_float() or not rows[name].is_nan().any()


@pytest.mark.parametrize("form", ["parquet", "csv", "duckdb"])
def test_every_number_is_in_the_table_of_its_axes(version, tmp_path, monkeypatch, form):
    monkeypatch.setattr(exports, "_ROWS", 50)  # so that every table with dates comes in several blocks
    names = export(version, tmp_path / "out", form)
    found = tables(tmp_path / "out", form)
    assert set(names) == set(found)
    assert {"loadings", "factor_returns", "omega", "stocks", "weights", "portfolios", "dates", "version"} <= set(found)
    assert found["loadings"].columns == ["date", "ticker", "factor", "loadings"]
    assert found["omega"].columns == ["date", "factor", "factor_", "omega"]
    assert ("as_of", "2024-06-28") in found["version"].rows()
    assert_is(version, found)


def test_only_an_earlier_export_is_replaced_and_only_if_told_to(version, tmp_path):
    out = tmp_path / "out"
    export(version, out, "csv")
    with pytest.raises(PublishError, match=r"out: is there already; choose another --out, or replace it with --force"):
        export(version, out, "csv")
    export(version.isel(date=slice(-1, None)), out, "csv", replace=True)
    assert tables(out, "csv")["dates"].height == 1
    (out / "notes.txt").write_text("mine")
    for form in ("csv", "duckdb"):
        with pytest.raises(PublishError, match=rf"is no earlier export as {form}, and stays as it is"):
            export(version, out, form, replace=True)
    assert (out / "notes.txt").read_text() == "mine"
    export(version, tmp_path / "version.db", "duckdb")
    export(version, tmp_path / "version.db", "duckdb", replace=True)


@pytest.mark.parametrize("form", ["parquet", "duckdb"])
def test_what_fails_in_the_middle_leaves_what_was_there(version, store, tmp_path, monkeypatch, form):
    out = tmp_path / "out" / "export"
    export(version.isel(date=slice(-1, None)), out, form)
    (chunk, *_) = store.rglob("weights/c.*")
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:-3] + b"xyz")
    with pytest.raises(CorruptionError, match="weights"):
        export(version, out, form, replace=True)
    chunk.write_bytes(whole)

    def full(*_: object) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exports, "place", full)
    with pytest.raises(ExecutionError, match="No space left on device; nothing has changed"):
        export(version, out, form, replace=True)
    assert tables(out, form)["dates"].height == 1
    assert list(out.parent.iterdir()) == [out]


def test_the_queries_of_the_page_on_reading_run(version, tmp_path, monkeypatch):
    page = Path(__file__).parents[2] / "docs/reading.md"
    export(version, tmp_path / "export", "parquet")
    monkeypatch.chdir(tmp_path)
    queries = "".join(re.findall(r"^```sql\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)).split(";")
    found = [pl.DataFrame(duckdb.sql(query).to_arrow_table()) for query in queries if query.strip()]
    assert len(found) == 3
    date = version.indexes["date"][-1]
    rows, held = version.sel(date=date), version["weights"].sel(date=date, portfolio="market")
    exposures = (rows["loadings"] * held).sum("ticker")
    by_hand = float(exposures @ rows["omega"] @ exposures.rename(factor="factor_"))
    assert found[-1]["systematic_variance"][0] == pytest.approx(by_hand, rel=1e-6)
