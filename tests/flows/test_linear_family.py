"""Every linear model on its way through the flows: fitted, published, continued, and unchanged by a second run."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xarray as xr
from running import ingested
from small_market import make_market, write_config

from flows.pipeline import pipeline
from reporting import PublishedVersion, render_report
from schemas.contracts import VERSION
from schemas.families import kinds
from schemas.refs import VersionRef
from schemas.settings import Settings
from schemas.spec import RunSpec
from storage import published
from storage.configs import load_spec
from tasks.updating import update_version
from tasks.workspace import Workspace

pytestmark = pytest.mark.usefixtures("prefect_api")

KNOWN, UNTIL = date(2016, 11, 30), date(2016, 12, 5)
FACTORS = ["MKT", "SMB"]
FAMILY = [
    {"kind": "market", "market": "MKT"},
    {"kind": "time_series"},
    {"kind": "penalised", "n_bootstraps": 5, "n_lambdas": 20},
    {"kind": "penalised", "name": "sparse_betas", "mode": "time_series", "n_bootstraps": 5, "n_lambdas": 20},
    {"kind": "fama_macbeth"},
    {"kind": "cross_section"},
    {"kind": "cross_section", "name": "robust", "weighting": "inverse_specific_variance", "huber": 1.345},
    {"kind": "pca", "n_factors": 2},
    {"kind": "rp_pca", "n_factors": 2},
    {"kind": "ipca", "n_factors": 2},
    {"kind": "ipca", "name": "ipca_alpha", "n_factors": 1, "intercept": True, "observed": ["MKT"], "bootstrap": 5},
]
NAMES = [str(model.get("name", model["kind"])) for model in FAMILY]


def deliver(folder: Path, until: date) -> Path:
    """Write bars, factors and sectors up to a date, and the config; the last stock changes its sector in June."""
    bars = make_market().filter(pl.col("date") <= until)
    bars.write_parquet(folder / "prices.parquet")
    days = make_market()["date"].unique().sort()
    draw = np.random.default_rng(1)
    factors = pl.DataFrame({"date": days, **{name: draw.normal(2e-4, 0.01, len(days)) for name in FACTORS}})
    factors = factors.with_columns(
        MKT=make_market().sort("date", "ticker")["close"].reshape((len(days), -1)).arr.mean()
    )
    factors = factors.with_columns(MKT=(pl.col("MKT") / pl.col("MKT").shift() - 1.0).fill_null(0.0))
    factors.filter(pl.col("date") <= until).write_parquet(folder / "factors.parquet")
    sectors = [("2015-01-02", f"S{n:03d}", ["bank", "oil", "tech"][n % 3]) for n in range(24)]
    pl.DataFrame(
        [*sectors, ("2016-06-01", "S023", "bank")], schema=["from", "ticker", "sector"], orient="row"
    ).write_csv(folder / "sectors.csv")
    return write_config(
        folder,
        {
            "factors": [
                {
                    "origin": {"kind": "files", "paths": ["factors.parquet"]},
                    "columns": FACTORS,
                    "units": "decimal",
                }
            ],
            "industries": {
                "origin": {"kind": "files", "paths": ["sectors.csv"]},
                "industry": "sector",
                "date": "from",
            },
            "portfolios": [
                {"kind": "equal_weight"},
                {"kind": "value_weight", "value": "dollar_volume", "window": 21},
            ],
            "panel": {
                "market_portfolio": "value_weight",
                "start": "2015-07-20",
            },  # all characteristics are known from then
            "models": FAMILY,
        },
    )


class Family:
    """An installation with a champion of every linear model, made by the flow on worker processes."""

    def __init__(self, folder: Path) -> None:
        self.config = deliver(folder, KNOWN)
        self.settings = Settings(root=folder / "out")
        self.versions: list[VersionRef] = self.run()

    def run(self) -> list[VersionRef]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FACTORCUBE_ROOT", str(self.settings.root))
            return pipeline(self.spec, promote_first=True)

    @property
    def spec(self) -> RunSpec:
        return load_spec(self.config)

    def opened(self, ref: VersionRef, settings: Settings | None = None) -> xr.Dataset:
        return published.open_version(Workspace.of(settings or self.settings).layout, ref).load()


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory, prefect_api: None) -> Family:
    return Family(tmp_path_factory.mktemp("family"))


@pytest.fixture
def ref(family: Family, request: pytest.FixtureRequest) -> VersionRef:
    return next(version for version in family.versions if version.model == request.param)


pytestmark = pytest.mark.slow  # eleven models, eight refits each; `test_pipeline` has the way of one of each kind
every_model = pytest.mark.parametrize("ref", NAMES, indirect=True)


def test_the_family_is_whole_and_a_second_run_changes_nothing(family: Family) -> None:
    assert {str(model["kind"]) for model in FAMILY} == set(kinds()) - {
        "attention_sdf", "autoencoder", "coskewness_pca", "factor_analysis", "hybrid", "kernel_ipca", "mean_of_models",
        "random_feature_sdf", "regressed_pca", "residual_network", "residual_pca", "residual_som", "risk_network",
        "sdf_network",
    }  # fmt: skip
    assert [version.model for version in family.versions] == NAMES
    assert all(version.changed and version.promoted for version in family.versions)
    files = {path: path.stat().st_mtime_ns for path in (family.settings.root / "published").rglob("*.json")}
    again = family.run()
    assert [version.version for version in again] == [version.version for version in family.versions]
    assert not any(version.changed for version in again)
    assert {path: path.stat().st_mtime_ns for path in (family.settings.root / "published").rglob("*.json")} == files


@every_model
def test_loadings_risk_and_portfolio_variance_are_there_and_agree(family: Family, ref: VersionRef) -> None:
    ds = family.opened(ref)
    outside = ds.sel(date=ds["out_of_sample"])
    assert np.isfinite(outside["loadings"]).all()
    assert np.isfinite(outside["omega"]).all()
    assert (outside["specific_variance"] > 0.0).all()
    assert (np.isfinite(outside["factor_returns"]).mean("date") > 0.9).all()
    last = outside.isel(date=-1).astype(np.float64)
    x, omega, specific = last["loadings"].values, last["omega"].values, last["specific_variance"].values
    assert np.linalg.eigvalsh(omega).min() > -1e-12
    for portfolio in ds["portfolio"].values:
        w = last["weights"].sel(portfolio=portfolio).values
        stored = last.sel(portfolio=portfolio)
        np.testing.assert_allclose(stored["portfolio_variance_systematic"], w @ x @ omega @ x.T @ w, rtol=1e-10)
        np.testing.assert_allclose(stored["portfolio_variance_specific"], w**2 @ specific, rtol=1e-10)
        np.testing.assert_allclose(
            stored["portfolio_variance"],
            stored["portfolio_variance_systematic"] + stored["portfolio_variance_specific"],
            rtol=1e-10,
        )
    assert 0.5 < float(ds.attrs["periods_per_year"] * last["portfolio_variance"][0]) ** 0.5 / 0.16 < 2.0


@every_model
def test_the_inference_of_the_last_fit_is_published_with_its_meaning(family: Family, ref: VersionRef) -> None:
    ds = family.opened(ref)
    beside = [name for name in ds.data_vars if name not in VERSION and name != "premia_stderr"]
    assert all(ds[name].attrs["long_name"] and ds[name].attrs["units"] for name in beside)
    assert np.isfinite(ds["premia"]).all()
    assert beside, "every linear model says more than its premia"
    page = render_report(
        [PublishedVersion(ds, published.read_manifest(Workspace.of(family.settings).layout, ref))], None, title="one"
    )
    assert all(name in page for name in beside)


def test_industries_are_factors_of_the_cross_sectional_model(family: Family) -> None:
    ref = next(version for version in family.versions if version.model == "cross_section")
    ds = family.opened(ref)
    industries = [name for name in ds["factor"].values if str(name).startswith("industry:")]
    assert industries == ["industry:bank", "industry:oil", "industry:tech"]
    exposure = ds["loadings"].sel(ticker="S023", factor=industries)
    assert exposure.sel(date="2016-05-31").values.tolist() == [0.0, 0.0, 1.0]
    assert exposure.sel(date="2016-06-01").values.tolist() == [1.0, 0.0, 0.0], "known from the close of its date on"


@every_model
def test_an_update_continues_a_fit_day_by_day_as_all_at_once(
    family: Family, ref: VersionRef, later: Settings, tmp_path: Path
) -> None:
    other = Settings(root=tmp_path / "other")
    shutil.copytree(later.root, other.root, symlinks=True)
    spec = family.spec
    snapshot = ingested(spec, later)
    once = update_version(spec.universe, ref.model, snapshot, UNTIL, later)
    for day in (date(2016, 12, 1), date(2016, 12, 2), UNTIL):
        daily = update_version(spec.universe, ref.model, snapshot, day, other)
    assert once.promoted
    one, old = family.opened(once, later), family.opened(ref)
    xr.testing.assert_identical(one.drop_attrs(), family.opened(daily, other).drop_attrs())
    assert list(one.indexes["date"][-3:].date) == [date(2016, 12, 1), date(2016, 12, 2), UNTIL]
    xr.testing.assert_equal(one.sel(date=slice(f"{KNOWN}")), old)
    new = one.isel(date=slice(-3, None))
    for name in ("loadings", "omega", "specific_variance", "portfolio_variance", "factor_returns"):
        assert np.isfinite(new[name]).all(), name


@pytest.fixture(scope="module")
def later(family: Family) -> Settings:
    """Return the installation after its cube has got three sessions more."""
    deliver(family.config.parent, UNTIL)
    ingested(family.spec, family.settings)
    return family.settings
