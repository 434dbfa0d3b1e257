"""A family of another package runs the whole way without a line changed here: the proof of `docs/families.md`."""

from __future__ import annotations

import os
import shutil
from datetime import date
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xarray as xr
from small_market import make_market, write_config

from flows.backfill import backfill
from flows.ingest import ingest
from flows.pipeline import pipeline
from flows.update import update
from schemas import families
from schemas.backfill import BackfillRequest
from schemas.errors import ConfigError
from schemas.settings import load_settings
from schemas.spec import RunSpec
from storage import published
from storage.configs import load_spec
from storage.layout import Layout

PACKAGE = Path(__file__).resolve().parents[1] / "helpers" / "foreign" / "trend_models"
CHANGES = {
    "models": [
        {"kind": "residual_trend", "name": "trend", "of": "components", "characteristic": "mom1m"},
        {"kind": "pca", "name": "components", "n_factors": 2, "min_observations": 20},
    ],
    "characteristics": ["mom1m", "retvol"],
    "walk_forward": {"first": "2016-09-30", "every": "quarter"},
}
KNOWN = date(2016, 12, 20)

pytestmark = pytest.mark.usefixtures("prefect_api", "installed")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the package as pip would: on the path of this process and of its workers, with an entry point."""
    site = tmp_path / "site"
    shutil.copytree(PACKAGE, site / "trend_models")
    info = site / "trend_models-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: trend-models\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[factorcube.models]\nresidual_trend = trend_models:ResidualTrend\n")
    for name in ("family", "spec_class", "_points", "_adapter", "_of_kind"):
        monkeypatch.setattr(families, name, cache(getattr(families, name).__wrapped__))
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("FACTORCUBE_WORKERS", "1")


def opened(model: str) -> xr.Dataset:
    folder = load_settings().root / "published" / "small" / model / "latest"
    return xr.open_zarr(folder.resolve()).load()


def run(small: Path, market: pl.DataFrame) -> tuple[RunSpec, xr.Dataset]:
    """Look at a run on what is known by a date; return its spec and what it published of the foreign family."""
    market.filter(market["date"].dt.date() <= KNOWN).write_parquet(small.parent / "prices.parquet")
    spec = load_spec(write_config(small.parent, CHANGES))
    refs = pipeline(spec, promote_first=True)
    assert [(ref.model, ref.promoted) for ref in refs] == [("trend", True), ("components", True)]
    trend, components = opened("trend"), opened("components")
    assert trend["factor"].values.tolist() == ["factor_1", "factor_2", "trend", "budget"]
    outside = trend.sel(date=trend["out_of_sample"])
    assert np.isfinite(outside["portfolio_variance"]).all()
    assert trend["trend_scale"].attrs["long_name"] == "root mean square of the trend loading in training"
    late = components.sel(date=slice("2016-10-03", None))
    both = [(each["loadings"] / each["loading_scale"]).sel(date=late["date"])[..., :2] for each in (trend, components)]
    np.testing.assert_allclose(*both, atol=1e-6)
    (page,) = (load_settings().root / "reports" / "small").glob("*.html")
    assert "trend_scale" in page.read_text()
    return spec, trend


def test_it_is_fitted_and_reported(small: Path) -> None:
    run(small, make_market(stocks=12, start="2016-03-01"))


@pytest.mark.slow
def test_its_update_makes_the_rows_of_a_backfill(small: Path) -> None:
    market = make_market(stocks=12, start="2016-03-01")
    spec, trend = run(small, market)
    market.write_parquet(small.parent / "prices.parquet")
    ingest(spec)
    (after,) = update(spec, models=["trend"])
    assert after.promoted
    longer = opened("trend")
    assert longer.indexes["date"][-1] == market["date"].max()
    xr.testing.assert_equal(longer.sel(date=trend["date"])["loadings"], trend["loadings"])
    asked = BackfillRequest(start="2016-10-01", end="2016-12-31", what="retrain", models=("trend",))
    assert backfill(spec, asked).complete
    (retrained,) = (
        ref
        for ref in published.list_versions(Layout(load_settings().root), "small", "trend")
        if ref.version.startswith("2016-12-30") and ref.version != after.version
    )
    whole = published.open_version(Layout(load_settings().root), retrained).load()
    days = longer.indexes["date"][trend.sizes["date"] : -1]  # the last date is one of a refit
    assert len(days) > 3
    for name in ("loadings", "factor_returns", "omega", "specific_variance", "portfolio_variance"):
        np.testing.assert_array_equal(longer[name].sel(date=days), whole[name].sel(date=days), err_msg=name)


def test_a_model_needs_the_one_whose_residuals_it_explains(small: Path) -> None:
    alone, circle = CHANGES["models"][:1], [{**CHANGES["models"][0], "of": "trend"}]
    for models, told in ((alone, "is fitted on 'components', which is not"), (circle, "each fitted on the other")):
        with pytest.raises(ConfigError, match=told):
            load_spec(write_config(small.parent, {**CHANGES, "models": models}))
