"""The main job end to end, on real files, a real Prefect API and real Dask worker processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
import pytest
import xarray as xr
import yaml
from dask_processes import scheduler
from ports import free_port
from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect.events.filters import EventFilter, EventOccurredFilter, EventResourceFilter
from small_market import SMALL, make_market, write_config

from flows.ingest import ingest
from flows.pipeline import pipeline
from models import FactorModel, ModelState, Panel
from models.families.registry import restore
from models.forecasting.calibrating import parted
from schemas.errors import CheckError, DataError, ExecutionError, FactorcubeError, ModelError, SourceError
from schemas.families import model_spec
from schemas.settings import load_settings
from storage import published, sources
from storage.configs import load_spec
from storage.cube import Cube
from tasks.cluster import open_cluster
from tasks.workspace import Workspace

SOME = [model for model in SMALL["models"] if model["kind"] in ("market", "autoencoder")]
"""The others are trained and published in `tests/tasks/test_training.py`."""

pytestmark = pytest.mark.usefixtures("prefect_api", "dask_scheduler")


def run(config: Path):
    return pipeline(load_spec(config), promote_first=True)


def root() -> Path:
    return load_settings().root


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    """All files but the locks, which say who holds them."""
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.stat().st_size)
        for p in folder.rglob("*")
        if p.is_file() and "locks" not in p.parts and p.suffix != ".lock"
    }


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, prefect_api: None):
    """One whole run that several tests look at."""
    folder = tmp_path_factory.mktemp("done")
    make_market().write_parquet(folder / "prices.parquet")
    config = write_config(folder, {"models": SOME})
    os.environ["FACTORCUBE_ROOT"] = str(folder / "out")
    try:
        yield config, run(config)
    finally:
        del os.environ["FACTORCUBE_ROOT"]


def test_every_model_is_published_and_read_without_factorcube(done) -> None:
    config, versions = done
    assert [v.model for v in versions] == ["market", "autoencoder"]
    assert all(v.changed and v.promoted for v in versions)
    script = (
        "import sys, warnings; warnings.simplefilter('error'); import xarray as xr\n"
        "ds = xr.open_zarr(sys.argv[1])\n"
        "assert 'storage' not in sys.modules\n"
        "assert all(v.attrs['units'] and v.attrs['long_name'] and v.attrs['comment'] for v in ds.data_vars.values())\n"
        "print(ds.sizes['date'], ds.sizes['factor'])\n"
    )
    for version in versions:
        path = config.parent / "out" / "published" / "small" / version.model / version.version
        found = subprocess.run(
            [sys.executable, "-c", script, str(path)], cwd="/", capture_output=True, text=True, check=False
        )
        assert found.returncode == 0, found.stderr
        assert found.stdout.split()[0] == "504", "every session of 2015 and 2016 has a row"


def materialised(config: Path) -> dict[str, tuple[set[str], dict[str, Any]]]:
    """Ask the server which assets were made since a config was written: of what, and what is said of each."""
    last = emit_event("asked", {"prefect.resource.id": f"factorcube://small/{uuid.uuid4()}"})
    since = datetime.fromtimestamp(config.stat().st_mtime, UTC)
    asked = EventFilter(
        occurred=EventOccurredFilter(since=since), resource=EventResourceFilter(id_prefix=["factorcube://small/"])
    )
    events: list[Any] = []
    end = time.monotonic() + 60.0
    with get_client(sync_client=True) as client:
        while all(one.id != last.id for one in events):
            assert time.monotonic() < end, "events arrive in the order of sending, and the last one did not"
            time.sleep(0.1)
            events = client.read_events(asked, limit=50).events
    made = [one for one in events if one.event == "prefect.asset.materialization.succeeded"]
    told = {one.resource.id: ({of.id for of in one.related if of.role == "asset"}, one.payload) for one in made}
    assert len(told) == len(made), "each was made once"
    return told


def test_cube_models_and_report_are_assets_made_from_one_another(done) -> None:
    """Before another run of this universe makes its own."""
    config, versions = done
    cube, report = "factorcube://small/cube", "factorcube://small/report"
    models = {f"factorcube://small/model/{ref.model}": ref for ref in versions}
    told = materialised(config)
    assert {key: made_from for key, (made_from, _) in told.items()} == {
        cube: set(),
        **{model: {cube} for model in models},
        report: set(models),
    }
    snapshot = told[cube][1]["snapshot"]
    for key, ref in models.items():
        facts = {"version": ref.version, "snapshot": snapshot, "made_by": "retrain", "gate": "passed"}
        assert told[key][1] == facts


def test_checks_and_metrics_are_tables_in_prefect(done) -> None:
    """Before another run of this universe writes its own."""
    from prefect.artifacts import Artifact

    checks = Artifact.get("checks-small")
    metrics = Artifact.get("metrics-small")
    assert "impossible_bar" in checks.data
    assert '"model": "market"' in metrics.data
    assert "total_r2_out_of_sample" in metrics.data


def test_portfolio_variance_can_be_recomputed_from_what_lies_beside_it(done) -> None:
    config, versions = done
    for version in versions:
        ds = xr.open_zarr(config.parent / "out/published/small" / version.model / version.version).load()
        last = ds.isel(date=-1)
        x = last.loadings.values.astype(np.float64)
        for portfolio in ds.portfolio.values:
            w = last.weights.sel(portfolio=portfolio).values.astype(np.float64)
            systematic = w @ x @ last.omega.values @ x.T @ w
            specific = w**2 @ last.specific_variance.values.astype(np.float64)
            stored = last.sel(portfolio=portfolio)
            np.testing.assert_allclose(stored.portfolio_variance, systematic + specific, rtol=1e-10)
            np.testing.assert_allclose(stored.portfolio_variance_factor.sum(), systematic, rtol=1e-10)


def test_r_equals_x_f_plus_e_with_the_labels_of_the_published_rows(done) -> None:
    """Total R2 recomputed by a reader from loadings of t-1, factor returns of t and returns of t."""
    config, versions = done
    returns = Cube.open(Workspace(config.parent / "out").layout, "small").open_dataset().returns.load().astype("f8")
    for version in versions:
        ds = xr.open_zarr(config.parent / "out/published/small" / version.model / version.version).load()
        explained = ((ds.loadings / ds.loading_scale).shift(date=1) * ds.factor_returns).sum("factor", skipna=False)
        error = returns - explained
        known = np.isfinite(error) & ds.out_of_sample
        r2 = 1.0 - float((error.where(known) ** 2).sum() / (returns.where(known) ** 2).sum())
        manifest = published.read_manifest(Workspace(config.parent / "out").layout, version)
        assert r2 == pytest.approx(manifest.metrics["total_r2_out_of_sample"], abs=2e-3), version.model
        assert np.isnan(ds.omega.sel(date=slice(None, "2016-06-29"))).all()
        assert np.isfinite(ds.omega.sel(date=slice("2016-06-30", None))).all()


def test_state_gives_the_same_loadings_again(done) -> None:
    config, versions = done
    space = Workspace(config.parent / "out")
    (panel_key,) = [path.name for path in space.layout.work("panels").iterdir() if not path.name.startswith(".")]
    panel = Panel(space.work.open_dataset("panels", panel_key)).load()
    for version in versions:
        manifest = published.read_manifest(space.layout, version)
        state = ModelState(parted(published.read_state(space.layout, version))[0], manifest.state_meta)
        model: FactorModel = restore(model_spec(manifest.params), state)
        ds = xr.open_zarr(config.parent / "out/published/small" / version.model / version.version)
        last = model.loadings(panel).transpose("date", "ticker", "factor").values[-1]
        stored = (ds.loadings / ds.loading_scale).isel(date=-1, factor=slice(last.shape[1])).values
        own = ~ds.imputed.isel(date=-1).values
        np.testing.assert_allclose(last[own], stored[own], rtol=2e-6, atol=1e-7)


def test_a_second_run_changes_nothing(done) -> None:
    config, first = done
    before, told = files_of(config.parent / "out"), materialised(config)
    second = run(config)
    assert [v.version for v in second] == [v.version for v in first]
    assert not any(v.changed for v in second)
    assert files_of(config.parent / "out") == before
    assert materialised(config) == told


@pytest.mark.slow
def test_a_run_of_which_one_model_fails_is_failed_and_says_which(done) -> None:
    config, first = done
    broken = config.with_name("broken.yaml")
    models = [{"kind": "pca", "name": "too_many", "n_factors": 40}, *SOME]
    broken.write_text(yaml.safe_dump({**SMALL, "models": models}))
    state = pipeline(load_spec(broken), return_state=True)
    assert state.is_failed()
    error = state.result(raise_on_failure=False)
    assert str(error).startswith(
        "1 of 3 models failed, the other 2 are published; run again to make what is missing: too_"
    )
    assert [(ref.version, ref.promoted) for ref in error.versions] == [(ref.version, True) for ref in first]
    assert len(list(config.parent.glob("out/reports/small/*.html"))) == 2, "theirs is there too"


@pytest.mark.slow
def test_numbers_do_not_depend_on_the_number_of_workers_nor_on_whose_cluster_it_is(
    done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same snapshot, fitted on two processes of a scheduler that was there before."""
    config, first = done
    shutil.copytree(config.parent / "out", tmp_path / "out", symlinks=True)
    for name in ("pieces", "fits", "realised", "rows", "risks", "states", "evaluations", "metrics"):
        shutil.rmtree(tmp_path / "out" / "work" / name)
    shutil.rmtree(tmp_path / "out" / "published")
    monkeypatch.setenv("FACTORCUBE_ROOT", str(tmp_path / "out"))
    with scheduler(tmp_path, workers=2) as address:
        monkeypatch.setenv("FACTORCUBE_DASK_SCHEDULER", address)
        second = run(config)
    assert [v.version for v in second] == [v.version for v in first]
    for version in first:
        one = xr.open_zarr(config.parent / "out/published/small" / version.model / version.version).load()
        two = xr.open_zarr(tmp_path / "out/published/small" / version.model / version.version).load()
        xr.testing.assert_identical(one, two)


@pytest.mark.slow
def test_workers_with_other_code_are_refused(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "old"
    here = Path(__file__).resolve().parents[2]
    for package in ("schemas", "storage", "models", "reporting", "tasks", "flows"):
        shutil.copytree(here / package, old / package, ignore=shutil.ignore_patterns("__pycache__"))
    (old / "models" / "arrays.py").write_text((old / "models" / "arrays.py").read_text() + "\n# an older release\n")
    with scheduler(tmp_path, workers=1, path=old) as address:
        monkeypatch.setenv("FACTORCUBE_DASK_SCHEDULER", address)
        with pytest.raises(ExecutionError, match="another version of the code"):
            run(small)
    assert not list((root() / "published").rglob("manifest.json"))


def test_the_local_cluster_listens_on_loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FACTORCUBE_DASK_SCHEDULER")
    before = set(listening())
    with open_cluster(load_settings(), print) as cluster:
        assert cluster.client.nthreads()
        opened = set(listening()) - before
    assert opened
    assert {address for address, _ in opened} <= {"127.0.0.1", "::1"}


def listening() -> list[tuple[str, int]]:
    """Addresses and ports at which this process and those that it started wait for others."""
    us = psutil.Process()
    return [
        (connection.laddr.ip, connection.laddr.port)
        for process in (us, *us.children(recursive=True))
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]


@pytest.mark.slow
def test_work_that_always_kills_its_worker_is_given_up_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FACTORCUBE_DASK_SCHEDULER")
    monkeypatch.setenv("FACTORCUBE_WORKERS", "1")
    with open_cluster(load_settings(), print) as cluster:
        futures = {
            "deadly": [cluster.submit(os._exit, 1, key="deadly")],
            "needy": [cluster.submit(divmod, 9, 2, key="needy")],
            "well": [cluster.submit(divmod, 7, 2, key=f"well-{place}") for place in range(8)],
        }
        found, failures = cluster.gather_each(futures, str, needs={"needy": ["well", "deadly"]})
    assert found == {"well": [(3, 1)] * 8}, "what waited on the worker that died is not blamed"
    assert str(failures["deadly"]).startswith("worker after worker died while running deadly-")
    assert str(failures["needy"]) == "it is fitted on 'deadly', which failed"


def test_no_scheduler_is_one_clear_message(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORCUBE_DASK_SCHEDULER", f"tcp://127.0.0.1:{free_port()}")
    monkeypatch.setattr("tasks.cluster._CONNECT_SECONDS", 1)
    with pytest.raises(ExecutionError, match="FACTORCUBE_DASK_SCHEDULER"):
        run(small)


def with_text(frame: pl.DataFrame) -> pl.DataFrame:
    close = pl.col("close").cast(pl.String)
    return frame.with_columns(pl.when(pl.int_range(pl.len()) == 7).then(pl.lit("n/a?")).otherwise(close).alias("close"))


def as_it_is(frame: pl.DataFrame) -> pl.DataFrame:
    return frame


BAD = {
    "missing column": (lambda f: f.drop("close"), {}, "close"),
    "text in numbers": (with_text, {}, r"close.*n/a"),
    "duplicated key": (lambda f: pl.concat([f, f.head(1)]), {}, "S000"),
    "impossible date": (lambda f: f.with_columns(pl.col("date").dt.offset_by("2000y")), {}, "date"),
    "more factors than characteristics": (as_it_is, {"models": [{"kind": "ipca", "n_factors": 30}]}, "n_factors"),
    "more factors than stocks": (as_it_is, {"models": [{"kind": "pca", "n_factors": 40}]}, "n_factors"),
    "no history before the first refit": (as_it_is, {"walk_forward": {"first": "2015-01-05"}}, "walk_forward.first"),
    "unknown market factor": (as_it_is, {"models": [{"kind": "market", "market": "Mkt"}]}, "factor"),
    "unknown characteristic": (as_it_is, {"characteristics": ["mom12"]}, "mom12"),
}


LONG = (
    "more factors than characteristics",
    "more factors than stocks",
    "unknown market factor",
    "unknown characteristic",
)
"""Found out behind an ingest; one of their kind is enough in each change."""


@pytest.mark.parametrize("case", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in BAD])
def test_bad_input_is_one_clear_message_and_publishes_nothing(case: str, small: Path) -> None:
    change, config, message = BAD[case]
    change(make_market()).write_parquet(small.parent / "prices.parquet")
    with pytest.raises(FactorcubeError, match=message) as caught:
        run(write_config(small.parent, config))
    assert "\n" not in str(caught.value)
    assert not list((root() / "published").rglob("manifest.json"))
    if not isinstance(caught.value, ModelError):
        assert not list((root() / "cubes").glob("small/refs/**/*.json")) or not Cube.open(
            Workspace(root()).layout, "small"
        ).open_dataset().sizes.get("date")


def test_factors_without_common_dates_are_refused(small: Path) -> None:
    dates = pl.DataFrame({"date": ["1999-01-04", "1999-01-05", "1999-01-06"], "Mkt": [0.01, -0.02, 0.005]})
    dates.write_csv(small.parent / "factors.csv")
    factors = [{"origin": {"kind": "files", "paths": ["factors.csv"]}, "columns": ["Mkt"], "units": "decimal"}]
    with pytest.raises(DataError, match=r"1999.*2015|2015.*1999"):
        run(write_config(small.parent, {"factors": factors}))


def test_a_source_that_changes_while_it_is_read_is_refused(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = sources.open_market

    def read_and_replace(*args, **kwargs):
        market = read(*args, **kwargs)
        make_market(seed=1).write_parquet(small.parent / "prices.parquet")
        return market

    monkeypatch.setattr(sources, "open_market", read_and_replace)
    with pytest.raises(SourceError, match="changed while it was being read"):
        ingest(load_spec(small))
    assert not (root() / "cubes").exists()


def test_new_dates_and_tickers_extend_the_cube_and_old_snapshots_stay(small: Path) -> None:
    whole = make_market(stocks=26)
    early = whole.filter((pl.col("date") < pl.datetime(2016, 7, 1)) & ~pl.col("ticker").is_in(["S003", "S025"]))
    early.write_parquet(small.parent / "prices.parquet")
    first = ingest(load_spec(small))
    cube = Cube.open(Workspace(root()).layout, "small")
    before = cube.open_dataset(first.snapshot_id).load()
    whole.write_parquet(small.parent / "prices.parquet")
    second = ingest(load_spec(small))
    after = cube.open_dataset(second.snapshot_id).load()
    assert second.changed
    assert list(after.ticker.values) == [*before.ticker.values, "S003", "S025"]
    assert after.sizes["date"] > before.sizes["date"]
    xr.testing.assert_identical(cube.open_dataset(first.snapshot_id).load(), before)
    again = ingest(load_spec(small))
    assert not again.changed
    assert again.snapshot_id == second.snapshot_id


def test_a_ticker_axis_that_changed_is_refused_and_nothing_is_written(small: Path) -> None:
    """The same stocks under other names would land beside the old ones, as a universe of twice the size."""
    first = ingest(load_spec(small))
    renamed = make_market().with_columns((pl.col("ticker") + ".N").alias("ticker"))
    renamed.write_parquet(small.parent / "prices.parquet")
    with pytest.raises(CheckError, match=r"known_tickers.*nothing|nothing.*known_tickers"):
        ingest(load_spec(small).model_copy(update={"portfolios": load_spec(small).portfolios[:1]}))
    assert Cube.open(Workspace(root()).layout, "small").head().id == first.snapshot_id


def test_a_blocked_date_is_quarantined_and_the_rest_lands(small: Path) -> None:
    day = pl.datetime(2016, 3, 15)
    halved = make_market().filter((pl.col("date") != day) | pl.col("ticker").is_in(["S000", "S001", "S002"]))
    halved.write_parquet(small.parent / "prices.parquet")
    ingest(load_spec(small))
    cube = Cube.open(Workspace(root()).layout, "small").open_dataset()
    dates = cube.indexes["date"].strftime("%Y-%m-%d")
    assert "2016-03-15" not in dates
    assert "2016-03-14" in dates
    assert "2016-03-16" in dates
    (kept,) = (root() / "quarantine" / "small").glob("*.csv")
    assert kept.read_text().count("2016-03-15") >= 3


KILL = """
import os, signal, sys
from pathlib import Path
{patch}
from flows.pipeline import pipeline
from storage.configs import load_spec
pipeline(load_spec(Path(sys.argv[1])))
"""
IN_INGEST = """
import icechunk
def die(*args, **kwargs): os.kill(os.getpid(), signal.SIGKILL)
icechunk.Session.commit = die
"""
IN_PUBLISH = """
from storage import files
place = files.place
def die(folder, target):
    if "published" in str(target): os.kill(os.getpid(), signal.SIGKILL)
    return place(folder, target)
import storage.stores.local, storage.work
storage.stores.local.place = die
"""


IN_PROMOTE = """
from storage.stores.local import LocalStore
def die(*args): os.kill(os.getpid(), signal.SIGKILL)
LocalStore.swap = die
"""


@pytest.mark.slow
@pytest.mark.parametrize("patch", [IN_INGEST, IN_PUBLISH, IN_PROMOTE], ids=["ingest", "publish", "promote"])
def test_kill_in_the_middle_leaves_the_old_state_whole_and_the_rerun_completes(
    patch: str, small: Path, prefect_api: str
) -> None:
    config = write_config(small.parent, {"models": SMALL["models"][:1]})
    make_market(end="2016-10-31").write_parquet(small.parent / "prices.parquet")
    (old,) = run(config)
    latest = root() / "published/small/market/latest"
    before = xr.open_zarr(latest).load()
    make_market().write_parquet(small.parent / "prices.parquet")
    log = small.parent / "killed.log"
    with log.open("w") as output:
        killed = subprocess.run(
            [sys.executable, "-c", KILL.format(patch=patch), str(config)],
            env={**os.environ, "PREFECT_API_URL": prefect_api},
            stdout=output,
            stderr=output,
            check=False,
        )
    assert killed.returncode == -9, log.read_text()[-2000:]
    xr.testing.assert_identical(xr.open_zarr(latest).load(), before)
    published.verify(Workspace(root()).layout, old)
    (new,) = run(config)
    assert new.promoted
    assert new.version != old.version
    assert xr.open_zarr(latest).attrs["as_of"] == "2016-12-30"
    hidden = [path.name for path in (root() / "published/small/market").iterdir() if path.name.startswith(".")]
    assert all(name.endswith(".lock") for name in hidden), "nothing half-made is left"
