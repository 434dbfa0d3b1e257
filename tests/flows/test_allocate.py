"""Weights from a version: published once, never changed, and fed back as a portfolio of the cube."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import xarray as xr
from running import Inline, ingested
from small_market import make_market, write_config
from typer.testing import CliRunner

from deploy.cli import app
from flows.allocate import allocate
from flows.ingest import ingest
from flows.retrain import retrain
from flows.update import update
from models.allocation import Constraints, minimum_variance
from models.risk.portfolio import RiskModel
from schemas.allocation import AllocationSpec
from schemas.errors import ConfigError, ConflictError, CorruptionError, PublishError
from schemas.refs import SnapshotRef, VersionRef
from schemas.settings import Settings
from schemas.spec import AllocatedWeights, RunSpec
from storage import published
from storage.allocations import list_allocations, locate_allocation, read_allocation
from storage.configs import load_spec
from storage.cube import Cube
from tasks.allocating import allocate_declared, allocate_weights, with_allocations
from tasks.correcting import rename_ticker
from tasks.delivering import State
from tasks.events import ALLOCATION_FAILED
from tasks.training import train
from tasks.workspace import Workspace

KNOWN, LATER = date(2016, 11, 30), date(2016, 12, 15)
SPEC = AllocationSpec(name="lowvol", cap=0.1)
PAIR = {"kind": "fixed", "name": "pair", "weights": {"S000": 0.5, "S001": 0.5}}
TICKERS = [f"S{n:03d}" for n in range(24)]
BACK = {"kind": "allocation", "name": "lowvol"}


def delivered(
    folder: Path, until: date, portfolios: Sequence[dict[str, Any]], allocations: Sequence[dict[str, Any]] = ()
) -> RunSpec:
    folder.mkdir(exist_ok=True)
    make_market().filter(pl.col("date") <= until).write_parquet(folder / "prices.parquet")
    sectors = {"ticker": TICKERS, "sector": ["bank", "oil", "tech"] * 8}
    pl.DataFrame(sectors).write_csv(folder / "sectors.csv")
    industries = {"origin": {"kind": "files", "paths": ["sectors.csv"]}, "industry": "sector"}
    changes = {"portfolios": [*portfolios], "models": [{"kind": "market"}], "industries": industries}
    return load_spec(write_config(folder, {**changes, "allocations": [*allocations]}))


def trained(spec: RunSpec, snapshot: SnapshotRef, settings: Settings) -> VersionRef:
    (ref,) = train(spec, spec.models, snapshot, None, Inline(), settings, promote_first=True)
    return ref


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, VersionRef]:
    """Make an installation with one champion as of KNOWN."""
    folder = tmp_path_factory.mktemp("installed")
    settings = Settings(root=folder / "out")
    spec = delivered(folder, KNOWN, [PAIR])
    return settings, trained(spec, ingested(spec, settings), settings)


@pytest.fixture
def settings(installed: tuple[Settings, VersionRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Copy the installation."""
    shutil.copytree(installed[0].root, tmp_path / "out", symlinks=True)
    monkeypatch.setenv("FACTORCUBE_ROOT", str(tmp_path / "out"))
    return Settings(root=tmp_path / "out")


def held_on(settings: Settings, day: date) -> xr.DataArray:
    return cube_of(settings)["weights"].sel(portfolio="lowvol", date=f"{day}")


def cube_of(settings: Settings) -> xr.Dataset:
    return Cube.open(Workspace.of(settings).layout, "small").open_dataset().load()


def test_the_flow_publishes_weights_that_anybody_can_check_and_feeds_them_back(
    installed: tuple[Settings, VersionRef], settings: Settings, prefect_api: None, tmp_path: Path
) -> None:
    version, layout = installed[1], Workspace.of(settings).layout
    ref = allocate("small/market/latest", SPEC)
    assert (ref.universe, ref.name, ref.as_of, ref.changed) == ("small", "lowvol", KNOWN, True)
    again = allocate(str(version), SPEC)
    assert (again.as_of, again.changed) == (KNOWN, False)
    said = CliRunner().invoke(
        app, ["allocate", str(version), "--name", "lowvol", "--cap", "0.1"], catch_exceptions=False
    )
    assert f"{ref} was published already" in said.output
    dataset, manifest = read_allocation(layout, ref)
    opened = xr.open_zarr(locate_allocation(layout, ref)).load()
    np.testing.assert_array_equal(opened["weights"], dataset["weights"])
    rows = published.open_version(layout, version).isel(date=-1, drop=True).load()
    model = RiskModel(rows["loadings"], rows["omega"], rows["specific_variance"])
    np.testing.assert_array_equal(dataset["weights"], minimum_variance(model, Constraints(cap=0.1)))
    assert manifest.version == str(version)
    np.testing.assert_allclose(manifest.variance, model.variance(dataset["weights"]), rtol=1e-12)
    np.testing.assert_allclose(dataset["risk_contribution"].sum(), manifest.variance, rtol=1e-12)

    refused = CliRunner().invoke(app, ["allocate", str(version), "--name", "oily", "--group", "oils::0.2"])
    assert isinstance(refused.exception, ConfigError)
    assert "no group 'oils' to limit; did you mean 'oil'?" in str(refused.exception)
    limited = ["--group", "oil::0.2", "--exposure", "market::0.9"]
    CliRunner().invoke(app, ["allocate", str(version), "--name", "oily", *limited], catch_exceptions=False)
    oily = read_allocation(layout, list_allocations(layout, "small", "oily")[0])[0]
    assert float(oily["weights"].sel(ticker=TICKERS[1::3]).sum()) <= 0.2 + 1e-5
    assert float(oily["exposures"].sel(factor="market")) <= 0.9 + 1e-5

    before = cube_of(settings)
    spec = delivered(tmp_path / "more", LATER, [PAIR, BACK])
    snapshot = ingest(spec)
    assert snapshot.changed
    cube = cube_of(settings)
    held = cube["weights"].sel(portfolio="lowvol")
    assert held.sel(date=slice(None, f"{KNOWN}")).isnull().values.all()
    expected = dataset["weights"].sel(ticker=cube["ticker"]).values.astype(np.float32)
    after = held.sel(date=slice("2016-12-01", None))
    np.testing.assert_allclose(after, np.tile(expected, (after.sizes["date"], 1)), rtol=1e-6)
    old = cube.sel(date=before["date"], portfolio=["pair"])
    xr.testing.assert_identical(old["weights"].drop_attrs(), before["weights"].drop_attrs())
    assert not ingest(spec).changed
    published_again = published.open_version(layout, trained(spec, snapshot, settings))
    risk = published_again["portfolio_variance"].sel(portfolio="lowvol")
    assert np.isfinite(risk.sel(date=slice("2016-12-01", None))).all()
    assert np.isnan(risk.sel(date=slice(None, f"{KNOWN}"))).all()


@pytest.mark.slow
def test_every_run_makes_the_weights_that_its_config_declares_and_one_that_fails_takes_nothing_along(
    installed: tuple[Settings, VersionRef],
    settings: Settings,
    prefect_api: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layout = Workspace.of(settings).layout
    impossible = {"model": "market", "name": "impossible", "groups": [{"name": "oil", "lower": 1.5}]}
    few = {"name": "few", "tickers": ["S000", "S004"], "upper": 0.01}
    limits = {"cap": 0.1, "groups": [{"name": "oil", "lower": 0.4}, few], "max_turnover": 0.5}
    declared = [impossible, {"model": "market", "name": "lowvol", **limits}]
    spec = delivered(tmp_path / "more", KNOWN, [PAIR], declared)
    told: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr("tasks.events._emit", lambda event, *rest: told.append((event, rest[2])))
    made: list[tuple[str, list[str], Any]] = []
    monkeypatch.setattr(
        "tasks.assets._materialise",
        lambda asset, made_from, facts: made.append((asset.key, [one.key for one in made_from], facts)),
    )
    assert [(ref.version, ref.changed) for ref in retrain(spec)] == [(installed[1].version, False)]
    ((event, failure),) = told
    assert (event, failure["allocation"]) == (ALLOCATION_FAILED, "impossible")
    (weights,) = (one for one in made if "/allocation/" in one[0])
    facts = {"as_of": f"{KNOWN}", "version": str(installed[1])}
    assert weights == ("factorcube://small/allocation/lowvol", ["factorcube://small/model/market"], facts)
    assert "the weight of the group 'oil' shall be at least 1.5" in failure["reason"]
    (ref,) = list_allocations(layout, "small", "lowvol")
    weights, manifest = read_allocation(layout, ref)
    assert manifest.spec == spec.allocations[1].spec
    assert float(weights["weights"].sel(ticker=TICKERS[1::3]).sum()) == pytest.approx(0.4, abs=1e-5)
    assert float(weights["weights"].sel(ticker=few["tickers"]).sum()) <= 0.01 + 1e-5
    files = {path: path.stat().st_mtime_ns for path in (settings.root / "allocations").rglob("*")}
    retrain(spec)
    assert {path: path.stat().st_mtime_ns for path in (settings.root / "allocations").rglob("*")} == files
    assert list_allocations(layout, "small", "impossible") == []

    later = delivered(tmp_path / "later", date(2016, 12, 2), [PAIR], declared[1:])
    update(later, ingested(later, settings))
    assert [ref.as_of for ref in list_allocations(layout, "small", "lowvol")] == [KNOWN, date(2016, 12, 2)]
    tight = later.model_copy(update={"allocations": (later.allocations[0].model_copy(update={"cap": 0.2}),)})
    told.clear()
    update(tight)
    assert "weights of a date never change" in told[-1][1]["reason"]
    (waits,) = later.allocations
    elsewhere = later.model_copy(update={"allocations": (waits.model_copy(update={"model": "ipca", "name": "w"}),)})
    assert allocate_declared(elsewhere, ["ipca"], settings) == []


@pytest.mark.slow
def test_later_weights_turn_over_no_more_than_they_may_and_extend_the_portfolio(
    installed: tuple[Settings, VersionRef], settings: Settings, tmp_path: Path
) -> None:
    layout, limited = Workspace.of(settings).layout, SPEC.model_copy(update={"max_turnover": 0.01})
    first = allocate_weights(str(installed[1]), limited, settings)
    more = delivered(tmp_path / "more", date(2016, 12, 9), [PAIR, BACK])
    version = trained(more, ingested(more, settings), settings)
    second = allocate_weights(str(version), limited, settings)
    assert list_allocations(layout, "small", "lowvol") == [
        ref.model_copy(update={"changed": False}) for ref in (first, second)
    ]
    (one, _), (other, manifest) = (read_allocation(layout, ref) for ref in (first, second))
    moved = float(abs(other["weights"] - one["weights"]).sum())
    assert 0.0 < moved <= 0.01 + 1e-5
    assert manifest.previous == KNOWN
    np.testing.assert_allclose(manifest.turnover, moved, rtol=1e-12)
    most = delivered(tmp_path / "most", LATER, [PAIR, BACK])
    ingested(most, settings)
    held = cube_of(settings)["weights"].sel(portfolio="lowvol")
    for day, weights in (("2016-12-09", one["weights"]), ("2016-12-12", other["weights"])):
        np.testing.assert_allclose(held.sel(date=day), weights.sel(ticker=held["ticker"]), atol=1e-7)


def test_weights_of_a_date_never_change_and_damage_is_told(
    installed: tuple[Settings, VersionRef], settings: Settings
) -> None:
    version, layout = str(installed[1]), Workspace.of(settings).layout
    ref = allocate_weights(version, SPEC, settings)
    with pytest.raises(ConflictError, match="another spec; weights of a date never change"):
        allocate_weights(version, SPEC.model_copy(update={"cap": 0.2}), settings)
    with pytest.raises(PublishError, match="no published version"):
        allocate_weights("small/ipca/latest", SPEC, settings)
    chunk = next(Path(locate_allocation(layout, ref), "weights").glob("c.*"))
    content = bytearray(chunk.read_bytes())
    content[-1] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(CorruptionError, match="does not match its checksum"):
        read_allocation(layout, ref)


def test_a_config_cannot_name_what_is_not_published_and_history_cannot_be_rewritten(
    installed: tuple[Settings, VersionRef], settings: Settings, tmp_path: Path
) -> None:
    spec = delivered(tmp_path / "more", LATER, [PAIR, BACK])
    with pytest.raises(ConfigError, match="`factorcube allocate` before"):
        with_allocations(spec, settings)
    allocate_weights(str(installed[1]), SPEC, settings)
    ingested(spec, settings)
    rewritten = AllocatedWeights.model_validate(
        {"name": "lowvol", "rebalances": [{"as_of": f"{KNOWN}", "weights": {"S000": 1.0}}]}
    )
    other = spec.model_copy(update={"portfolios": (spec.portfolios[0], rewritten)})
    with pytest.raises(ConfigError, match="the cube has another portfolio 'lowvol'"):
        ingested(other, settings)
    largest = str(held_on(settings, LATER).idxmax("ticker").values)
    before = held_on(settings, LATER).max()
    rename_ticker("small", largest, "NEW", None, None, "renamed", settings)
    np.testing.assert_array_equal(held_on(settings, LATER).sel(ticker="NEW"), before)
    state = State.of(Cube.open(Workspace.of(settings).layout, "small"))
    known = with_allocations(spec, settings).recipe.beside(state.recipe)
    assert "NEW" in known.portfolios[1].rebalances[0].weights, "a config goes on with what the cube has renamed"
