"""505 stocks with volume and the Fama-French files, from raw bars to published versions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xarray as xr
import yaml

from flows.pipeline import pipeline
from schemas.settings import load_settings
from storage.configs import load_spec
from storage.cube import Cube
from tasks.workspace import Workspace

pytestmark = [pytest.mark.shared_data, pytest.mark.usefixtures("prefect_api")]
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "sp500_5yr.yaml"


def config(folder: Path, source: Path, changes: dict[str, object]) -> Path:
    (folder / "data").symlink_to(source)
    path = folder / "sp500.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(EXAMPLE.read_text()), **changes}))
    return path


def check_published(root: Path, models: list[str], factors: dict[str, int]) -> None:
    """See every model published to the end, with so many factors of its own beside the one of its estimation error."""
    for model in models:
        ds = xr.open_zarr(root / "published" / "sp500_5yr" / model / "latest").load()
        assert ds.sizes["ticker"] == 505
        assert ds.sizes["factor"] == factors[model] + 1
        assert ds.factor.values[-1] == "budget"
        assert ds.attrs["as_of"] == "2018-02-07"
        outside = ds.sel(date=ds.out_of_sample)
        assert np.isfinite(outside.portfolio_variance.isel(date=slice(1, None))).all(), model
        assert float(outside.total_r2.mean()) > 0.05, model


def test_the_whole_way_with_linear_models(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORCUBE_ROOT", str(tmp_path / "out"))
    models = [{"kind": "market", "name": "capm", "market": "Mkt-RF", "window": 252}, {"kind": "ipca"}]
    changes = {"models": models, "walk_forward": {"first": "2017-01-31", "every": "year"}}
    versions = pipeline(load_spec(config(tmp_path, shared_data, changes)), promote_first=True)
    assert all(version.promoted for version in versions)
    check_published(tmp_path / "out", [v.model for v in versions], {"capm": 1, "ipca": 5})
    cube = Cube.open(Workspace(load_settings().root).layout, "sp500_5yr").open_dataset()
    assert cube.sizes["date"] == 1259
    bars = pl.read_parquet(shared_data / "sp500_5yr_daily.parquet").filter(pl.col("ticker") == "AAPL").sort("date")
    close = bars["close"].to_numpy().astype(float)
    stored = cube.returns.sel(ticker="AAPL").values[1:]
    np.testing.assert_allclose(stored, close[1:] / close[:-1] - 1.0, atol=2e-7)


@pytest.mark.slow
def test_the_whole_example_with_the_autoencoder(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTORCUBE_ROOT", str(tmp_path / "out"))
    versions = pipeline(load_spec(config(tmp_path, shared_data, {})), promote_first=True)
    names = [version.model for version in versions]
    check_published(tmp_path / "out", names, {"market": 1, "fama_macbeth": 13, "pca": 5, "ipca": 5, "autoencoder": 5})
