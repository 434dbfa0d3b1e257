"""The daily update: the same bits one by one or all at once, beside the retrain's, and never a change of the past."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import date, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xarray as xr
from running import Inline, deliver, ingested, listing_market
from small_market import SMALL

from flows.update import update
from models.arrays import NamedArrays
from models.evaluation.gate import believe
from schemas.errors import ConflictError, PublishError
from schemas.refs import VersionRef
from schemas.settings import Settings
from storage import published
from tasks import updating
from tasks.training import train
from tasks.updating import update_version
from tasks.workspace import Workspace

KNOWN = date(2016, 11, 30)
UNTIL = date(2016, 12, 5)
DAYS = [date(2016, 12, 1), date(2016, 12, 2), UNTIL]
QUICK = ("market", "ipca")
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("fama_macbeth", "pca", "autoencoder")]
MODELS = [*QUICK, *SLOW]
BENCHMARKED = [SMALL["portfolios"][0], SMALL["portfolios"][1] | {"benchmark": "equal_weight"}]


class Champions:
    """An installation whose champions are as of a date, and whose cube knows four weeks more."""

    def __init__(self, folder: Path, slow: bool) -> None:
        market = listing_market()
        self.settings = Settings(root=folder / "out")
        spec = deliver(folder, market, KNOWN, portfolios=BENCHMARKED)
        chosen = [model for model in spec.models if (model.name in QUICK) != slow]
        refs = train(spec, chosen, ingested(spec, self.settings), None, Inline(), self.settings, promote_first=True)
        self.parents = {ref.model: ref for ref in refs}
        self.spec = deliver(folder, market, portfolios=BENCHMARKED)
        self.snapshot = ingested(self.spec, self.settings)

    def update(self, settings: Settings, model: str, until: date | None = UNTIL, **options: object) -> VersionRef:
        ref: VersionRef = update_version("small", model, self.snapshot, until, settings, **options)
        return ref


@pytest.fixture(scope="module")
def installations(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], Champions]:
    return cache(lambda slow: Champions(tmp_path_factory.mktemp("champions"), slow))


@pytest.fixture
def champions(request: pytest.FixtureRequest, installations: Callable[[bool], Champions]) -> Champions:
    """Those of the models that are quick to make, unless the test is about another one."""
    callspec = getattr(request.node, "callspec", None)
    return installations(callspec is not None and callspec.params["model"] not in QUICK)


@pytest.fixture
def settings(champions: Champions, tmp_path: Path) -> Settings:
    """Copy the installation."""
    return copied(champions.settings, tmp_path / "out")


def copied(settings: Settings, root: Path) -> Settings:
    shutil.copytree(settings.root, root, symlinks=True)
    return Settings(root=root)


def opened(settings: Settings, ref: VersionRef) -> xr.Dataset:
    return published.open_version(Workspace.of(settings).layout, ref).load().drop_attrs()


def champion(settings: Settings, model: str = "market") -> str:
    ref = published.latest(Workspace.of(settings).layout, "small", model)
    assert ref is not None
    return ref.version


@pytest.mark.parametrize("model", [QUICK[0], pytest.param(QUICK[1], marks=pytest.mark.slow), *SLOW])
def test_one_by_one_is_all_at_once_and_the_past_stays(
    model: str, champions: Champions, settings: Settings, tmp_path: Path
) -> None:
    """S003 is listed on the second day: a new ticker gets a column, in either way the same one."""
    other = copied(champions.settings, tmp_path / "other")
    at_once = champions.update(settings, model)
    for day in DAYS:
        last = champions.update(other, model, day)
        assert last.promoted
    one, many, old = opened(settings, at_once), opened(other, last), opened(settings, champions.parents[model])
    xr.testing.assert_identical(one, many)
    assert list(one["ticker"].values) == [*old["ticker"].values, "S003"]
    assert list(one.indexes["date"][-3:].date) == DAYS
    for name, before in old.data_vars.items():
        rows = one[name].sel(date=slice(f"{KNOWN}")) if "date" in before.dims else one[name]
        after = rows.sel(ticker=old["ticker"]) if "ticker" in before.dims else rows
        assert after.dtype == before.dtype
        xr.testing.assert_identical(after, before)
    manifests = [
        published.read_manifest(Workspace.of(where).layout, ref) for where, ref in ((settings, at_once), (other, last))
    ]
    assert manifests[0].metrics == manifests[1].metrics
    assert [manifest.made_by for manifest in manifests] == ["update", "update"]
    assert manifests[0].parent == champions.parents[model].version


@pytest.mark.parametrize("model", MODELS[1:])
def test_new_rows_are_those_of_a_retrain_with_the_same_last_fit(
    model: str, champions: Champions, settings: Settings, tmp_path: Path
) -> None:
    """Bit for bit: both make rows by the same functions, the retrain in blocks and the update a few at a time."""
    updated = opened(settings, champions.update(settings, model))
    spec = champions.spec
    chosen = [one for one in spec.models if one.name == model]
    (ref,) = train(spec, chosen, champions.snapshot, UNTIL, Inline(), copied(champions.settings, tmp_path / "fitted"))
    fitted = opened(Settings(root=tmp_path / "fitted"), ref)
    assert set(fitted["ticker"].values) == set(updated["ticker"].values)
    assert {"portfolio_beta", "tracking_error", "variance_ratio_by_rank"} <= set(fitted)
    for name, array in fitted.sel(date=DAYS).data_vars.items():
        if "date" in array.dims:
            other = updated[name].sel({dim: array[dim] for dim in array.dims})
            np.testing.assert_array_equal(other.values, array.values, err_msg=str(name))


def test_an_update_that_runs_twice_changes_nothing(champions: Champions, settings: Settings) -> None:
    parent = champions.parents["market"]
    first = champions.update(settings, "market")
    assert (first.changed, first.promoted) == (True, True)
    again = champions.update(settings, "market")
    assert (again.version, again.changed, again.promoted) == (first.version, False, True)
    from_parent = champions.update(settings, "market", parent=parent)
    assert (from_parent.version, from_parent.changed) == (first.version, False)
    layout = Workspace.of(settings).layout
    assert [one.version for one in published.promotions(layout, "small", "market")] == [parent.version, first.version]


@pytest.mark.slow
def test_a_parent_that_is_not_the_champion_is_continued_but_not_promoted(
    champions: Champions, settings: Settings
) -> None:
    parent = champions.parents["market"]
    first = champions.update(settings, "market", DAYS[0])
    other = champions.update(settings, "market", UNTIL, parent=parent)
    assert other.changed
    assert not other.promoted
    assert champion(settings) == first.version


@pytest.mark.slow
def test_a_champion_that_changes_meanwhile_is_told_and_the_rerun_continues_it(
    champions: Champions, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Workspace.of(settings).layout
    parent = champions.parents["market"]
    faster = champions.update(settings, "market", DAYS[0])
    published.promote(layout, "small", "market", parent.version, reason="the starting point")
    continued = updating.continued

    def overtaken(*arguments: object) -> tuple[xr.Dataset, NamedArrays]:
        published.promote(layout, "small", "market", faster.version, reason="somebody was faster")
        found: tuple[xr.Dataset, NamedArrays] = continued(*arguments)
        return found

    monkeypatch.setattr(updating, "continued", overtaken)
    with pytest.raises(ConflictError, match="somebody was faster"):
        champions.update(settings, "market")
    assert champion(settings) == faster.version
    monkeypatch.undo()
    again = champions.update(settings, "market")
    assert again.promoted
    assert published.read_manifest(layout, again).parent == faster.version


def test_a_restated_past_does_not_change_what_was_said(
    champions: Champions, settings: Settings, tmp_path: Path
) -> None:
    restated = listing_market().with_columns(
        pl.when(pl.col("date").is_between(date(2016, 3, 1), date(2016, 3, 4)) & (pl.col("ticker") == "S001"))
        .then(pl.col("close") * 1.01)
        .otherwise(pl.col("close"))
        .alias("close")
    )
    wider = restated.with_columns(high=pl.max_horizontal("high", "close"), low=pl.min_horizontal("low", "close"))
    parent = champions.parents["ipca"]
    before = opened(settings, parent)
    plain = champions.update(settings, "ipca", parent=parent)
    spec = deliver(tmp_path, wider)
    snapshot = ingested(spec, settings)
    assert snapshot.changed
    ref = update_version("small", "ipca", snapshot, UNTIL, settings, parent=parent)
    assert ref.version != plain.version
    after = opened(settings, ref)
    past = after.sel(date=slice(f"{KNOWN}"), ticker=before["ticker"])
    xr.testing.assert_identical(past, before)
    assert not after["omega"].isel(date=-1).equals(opened(settings, plain)["omega"].isel(date=-1))
    published.verify(Workspace.of(settings).layout, parent)


def test_new_rows_that_cannot_be_believed_are_not_promoted(champions: Champions, settings: Settings) -> None:
    parent = champions.parents["market"]
    manifest = published.read_manifest(Workspace.of(settings).layout, parent)
    old = opened(settings, parent)
    new = old.isel(date=[-1]).assign_coords(date=old.indexes["date"][-1:] + timedelta(days=1))
    dated = [name for name, array in old.data_vars.items() if "date" in array.dims]
    good = xr.concat([old[dated], new[dated]], "date")
    assert believe(manifest, good, old.sizes["date"]).passed
    blind, bare = good.copy(deep=True), good.copy(deep=True)
    blind["portfolio_variance"][{"date": -1, "portfolio": 0}] = np.nan
    bare["loadings"][{"date": -1, "ticker": slice(0, 15)}] = np.nan
    for bad, reason in ((blind, "portfolios with a forecast 0.500"), (bare, "covered stocks 10")):
        decision = believe(manifest, bad, old.sizes["date"])
        assert not decision.passed
        assert decision.reasons[0].startswith(reason)


def test_the_flow_continues_every_champion_and_names_those_without(
    champions: Champions,
    settings: Settings,
    prefect_api: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("FACTORCUBE_ROOT", str(settings.root))
    extra = champions.spec.models[0].model_copy(update={"name": "newcomer"})
    quick = [model for model in champions.spec.models if model.name in QUICK]
    spec = champions.spec.model_copy(update={"models": (*quick, extra)})
    refs = update(spec, until=DAYS[0])
    assert [(ref.model, ref.promoted) for ref in refs] == [("market", True), ("ipca", True)]
    assert "small/newcomer has no champion" in caplog.text
    with pytest.raises(PublishError, match="newcomer has no champion"):
        update_version("small", "newcomer", champions.snapshot, None, settings)
