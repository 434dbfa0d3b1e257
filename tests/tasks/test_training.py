"""Training as of any date: nothing after it has a say, only what is new is fitted, and nothing is made twice."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from running import Inline, deliver, ingested, listing_market
from small_market import SMALL
from typer.testing import CliRunner

from deploy.cli import app
from models.forecasting.joining import check_axis
from schemas.errors import ConflictError, CorruptionError, CubeError, DataError, ModelError, ModelsError
from schemas.families import model_spec
from schemas.refs import SnapshotRef, VersionRef
from schemas.risk import RiskSpec
from schemas.settings import Settings
from schemas.spec import GateSpec, ReportSpec, RunSpec
from storage import published
from tasks import offering, rebuilding
from tasks.assembling import evaluate_risk
from tasks.digests import input_digests
from tasks.ingesting import head_snapshot
from tasks.naming import DECISIVE, planned_version
from tasks.publishing import publish_version
from tasks.training import train, train_each
from tasks.updating import update_version
from tasks.workspace import Workspace

KNOWN = date(2016, 11, 30)
OTHERS = [model for model in SMALL["models"] if model["kind"] in ("fama_macbeth", "pca")]
MODELS = [model for model in SMALL["models"] if model not in OTHERS]
"""One of each way: given factors, latent ones, and one of pieces; the others are slow."""


class Trained:
    """Two installations: one knew the market up to a date and then got the rest, the other got all of it at once."""

    def __init__(self, folder: Path, models: list[dict[str, Any]]) -> None:
        market = listing_market()
        self.spec = deliver(folder, market, KNOWN, models=models)
        self.early, self.whole = Settings(root=folder / "early"), Settings(root=folder / "whole")
        self.short = ingested(self.spec, self.early)
        self.first = train(self.spec, self.spec.models, self.short, None, Inline(), self.early)
        deliver(folder, market, models=models)
        self.long = ingested(self.spec, self.early)
        self.all_at_once = ingested(self.spec, self.whole)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("trained"), MODELS)


@pytest.fixture
def early(trained: Trained, tmp_path: Path) -> Settings:
    """Copy the installation that got the rest later."""
    shutil.copytree(trained.early.root, tmp_path / "out", symlinks=True)
    return Settings(root=tmp_path / "out")


def opened(settings: Settings, ref: VersionRef) -> xr.Dataset:
    return published.open_version(Workspace.of(settings).layout, ref).load()


def entries(settings: Settings, kind: str) -> set[str]:
    folder = settings.root / "work" / kind
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def files(settings: Settings) -> dict[str, int]:
    folder = settings.root / "published"
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_longer_snapshot_gives_the_same_bits_as_of_a_date(trained: Trained, caplog: pytest.LogCaptureFixture) -> None:
    """No look-ahead: not even a stock that is listed later changes a rounding."""
    assert_the_same_as_of_a_date(trained)
    left_out = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert len([line for line in left_out if line.startswith("ipca: up to ")]) == 1, "once for all refits"


@pytest.mark.slow
def test_so_do_the_other_models(tmp_path: Path) -> None:
    assert_the_same_as_of_a_date(Trained(tmp_path, OTHERS))


def assert_the_same_as_of_a_date(trained: Trained) -> None:
    later = train(trained.spec, trained.spec.models, trained.all_at_once, KNOWN, Inline(), trained.whole)
    assert [ref.version for ref in later] == [ref.version for ref in trained.first]
    for one, other in zip(trained.first, later, strict=True):
        before, after = opened(trained.early, one), opened(trained.whole, other)
        assert "S003" not in before["ticker"]
        facts = {"snapshot_id": None, "code_version": None}
        xr.testing.assert_identical(before.assign_attrs(facts), after.assign_attrs(facts))
        manifests = [
            published.read_manifest(Workspace.of(settings).layout, ref)
            for settings, ref in ((trained.early, one), (trained.whole, other))
        ]
        assert manifests[0].metrics == manifests[1].metrics
        assert manifests[0].input_digest == manifests[1].input_digest
        assert manifests[0].checksums["state.safetensors"] == manifests[1].checksums["state.safetensors"]


@pytest.mark.parametrize(
    "which",
    [
        pytest.param(slice(-1, None), id="last"),
        pytest.param(slice(0, None, 2), id="first and last", marks=pytest.mark.slow),
    ],
)
def test_a_snapshot_that_appended_dates_costs_one_fit_per_model(
    which: slice, trained: Trained, early: Settings, tmp_path: Path
) -> None:
    """And it gives the bits that fitting everything again gives."""
    models = trained.spec.models[which]
    known = {kind: entries(early, kind) for kind in ("fits", "pieces")}
    versions = train(trained.spec, models, trained.long, None, Inline(), early)
    assert len(entries(early, "fits") - known["fits"]) == len(models)
    assert len(entries(early, "pieces") - known["pieces"]) == len(models[-1].seeds)
    shutil.copytree(trained.early.root / "cubes", tmp_path / "again" / "cubes")
    again = Settings(root=tmp_path / "again")
    for one, other in zip(versions, train(trained.spec, models, trained.long, None, Inline(), again), strict=True):
        assert one.version == other.version
        xr.testing.assert_identical(opened(early, one), opened(again, other))


def test_running_again_changes_nothing_without_work_and_under_another_file_name(
    trained: Trained, early: Settings, tmp_path: Path
) -> None:
    before = files(early)
    shutil.rmtree(early.root / "work")
    deliver(tmp_path, listing_market(), KNOWN, models=MODELS)
    (tmp_path / "prices.parquet").rename(tmp_path / "renamed.parquet")
    origin = trained.spec.data.origin.model_copy(update={"paths": (tmp_path / "renamed.parquet",)})
    spec = trained.spec.model_copy(update={"data": trained.spec.data.model_copy(update={"origin": origin})})
    snapshot = ingested(spec, early)
    assert not snapshot.changed
    again = train(spec, spec.models, snapshot, KNOWN, Inline(), early)
    assert [ref.version for ref in again] == [ref.version for ref in trained.first]
    assert not any(ref.changed for ref in again)
    assert not (early.root / "work" / "fits").exists()
    assert files(early) == before


def promoted(settings: Settings) -> list[str]:
    layout = Workspace.of(settings).layout
    return [one.version for one in published.promotions(layout, "small", "market")]


def train_market(trained: Trained, settings: Settings, snapshot: SnapshotRef, **options: object) -> VersionRef:
    spec: RunSpec = trained.spec
    (ref,) = train(spec, spec.models[:1], snapshot, None, Inline(), settings, **options)
    return ref


def test_the_first_promotion_is_explicit_and_the_next_passes_the_gate(trained: Trained, early: Settings) -> None:
    assert not any(ref.promoted for ref in trained.first)
    waiting = train_market(trained, early, trained.short)
    assert not waiting.promoted
    first = train_market(trained, early, trained.short, promote_first=True)
    assert first.promoted
    second = train_market(trained, early, trained.long)
    assert second.promoted
    gate = published.read_manifest(Workspace.of(early).layout, second).gate
    assert gate.champion == first.version
    assert promoted(early) == [first.version, second.version]


@pytest.mark.slow
def test_a_version_that_was_rolled_back_is_not_offered_again(trained: Trained, early: Settings) -> None:
    first = train_market(trained, early, trained.short, promote_first=True)
    second = train_market(trained, early, trained.long)
    layout = Workspace.of(early).layout
    published.promote(layout, "small", "market", first.version, reason="bad day")
    again = train_market(trained, early, trained.long)
    assert not again.promoted
    assert promoted(early) == [first.version, second.version, first.version]


def test_a_version_that_the_gate_refuses_is_published_and_never_latest(trained: Trained, early: Settings) -> None:
    """Neither as the first version of its model, nor beside a champion."""
    gate = trained.spec.gate.model_copy(update={"min_total_r2": 0.99})
    strict = trained.spec.model_copy(update={"gate": gate})
    layout, market = Workspace.of(early).layout, trained.spec.models[:1]
    (alone,) = train(strict, market, trained.short, None, Inline(), early, promote_first=True)
    first = train_market(trained, early, trained.short, promote_first=True)
    (beside,) = train(strict, market, trained.long, None, Inline(), early, promote_first=True)
    assert first.promoted
    for ref, champion in ((alone, None), (beside, first.version)):
        assert (ref.changed, ref.promoted) == (True, False)
        decision = published.read_manifest(layout, ref).gate
        assert (decision.passed, decision.champion) == (False, champion)
        assert "out-of-sample total R2" in decision.reasons[0]
    assert promoted(early) == [first.version]


def test_a_version_that_is_damaged_after_it_was_published_is_not_promoted(trained: Trained, early: Settings) -> None:
    """A run that finds it there refuses it as well as one that has just published it."""
    layout, ref = Workspace.of(early).layout, trained.first[0]
    chunk = layout.home_folder("small", "market") / ref.version / "loadings/c.0.0.0"
    sound = chunk.read_bytes()
    chunk.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    with pytest.raises(CorruptionError, match=r"loadings/c\.0\.0\.0 does not match its checksum"):
        train_market(trained, early, trained.short, promote_first=True)
    assert promoted(early) == []
    chunk.write_bytes(sound)
    assert train_market(trained, early, trained.short, promote_first=True).promoted


@pytest.mark.slow
def test_a_version_is_made_again_bit_for_bit_and_what_differs_is_said(
    trained: Trained, early: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a retrain and of an update, from the manifest alone, in a folder that is gone afterwards."""
    monkeypatch.setenv("FACTORCUBE_ROOT", str(early.root))
    monkeypatch.setattr("tasks.cluster.open_cluster", lambda *_: nullcontext(Inline()))
    first = trained.first[0]
    updated = update_version("small", "market", trained.long, None, early, parent=first)
    before = files(early)
    shutil.rmtree(early.root / "work")
    for ref in (first, updated):
        done = CliRunner().invoke(app, ["rebuild", str(ref)])
        assert done.output == f"{ref} was made again: the same, bit for bit\n"
    assert not (early.root / "work").exists()
    assert list((early.root / "rebuilds").iterdir()) == []
    assert files(early) == before

    rows = rebuilding.published_rows

    def doubled(*given: Any) -> xr.Dataset:
        made = rows(*given)
        return made.assign(omega=2.0 * made["omega"])

    monkeypatch.setattr(rebuilding, "published_rows", doubled)
    monkeypatch.setattr(rebuilding, "code_of", lambda *_: "other")
    done = CliRunner().invoke(app, ["rebuild", str(first), "--json"])
    found = rebuilding.Rebuilt.model_validate_json(done.stdout)
    assert done.exit_code == 1
    assert [one.name for one in found.difference.arrays if not one.identical] == ["omega"]
    assert [one.relative for one in found.difference.arrays if one.name == "omega"] == [1.0]
    assert found.other_code == "code_version"
    said = CliRunner().invoke(app, ["rebuild", str(first)]).output
    assert "not the same (A was published, B was made now)" in said
    assert said.endswith("; this installation is not the one that made it: code_version\n")
    monkeypatch.setattr("storage.cube_upkeep.living", lambda _: [])
    with pytest.raises(CubeError, match=rf"{first} cannot be made again: .* no longer holds snapshot \w+, which"):
        rebuilding.rebuild_version(first, Inline(), early)


@pytest.mark.slow
def test_a_champion_that_changed_meanwhile_is_a_conflict_and_the_rerun_decides_anew(
    trained: Trained, early: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Workspace.of(early).layout
    first = train_market(trained, early, trained.short, promote_first=True)
    (other,) = train(trained.spec, trained.spec.models[:1], trained.long, date(2016, 12, 15), Inline(), early)
    published.promote(layout, "small", "market", first.version, reason="by hand")
    promote = offering.promote

    def overtaken(*arguments: object, **options: object) -> VersionRef:
        published.promote(layout, "small", "market", other.version, reason="somebody was faster")
        ref: VersionRef = promote(*arguments, **options)
        return ref

    monkeypatch.setattr(offering, "promote", overtaken)
    with pytest.raises(ConflictError, match="somebody was faster"):
        train_market(trained, early, trained.long)
    assert promoted(early)[-1] == other.version
    monkeypatch.undo()
    again = train_market(trained, early, trained.long)
    assert (again.promoted, again.changed) == (True, False)
    assert promoted(early)[-1] == again.version


@pytest.mark.slow
def test_an_ingest_of_a_span_commits_that_span_as_the_whole_source_gives_it(trained: Trained, tmp_path: Path) -> None:
    market = listing_market()
    spec = deliver(tmp_path, market)
    settings = Settings(root=tmp_path / "out")
    months = [(date(2015, 1, 1), date(2016, 6, 30)), (date(2016, 7, 1), KNOWN), (date(2016, 12, 1), None)]
    refs = [ingested(spec, settings, *span) for span in months]
    assert all(ref.changed for ref in refs)
    assert len({ref.ingest_key for ref in refs}) == len(refs)
    space = Workspace.of(settings)
    assert input_digests(space, spec, refs[-1]) == input_digests(
        Workspace.of(trained.whole), trained.spec, trained.all_at_once
    )
    assert not ingested(spec, settings, *months[1]).changed
    head = head_snapshot("small", settings)
    assert head.snapshot_id == refs[-1].snapshot_id
    assert list(input_digests(space, spec, refs[0])) == [
        day for day in input_digests(space, spec, head) if day <= date(2016, 6, 30)
    ]


def test_a_date_before_the_data_is_refused(trained: Trained) -> None:
    space = Workspace.of(trained.early)
    with pytest.raises(DataError, match=r"2010-01-01.*2015-01-02"):
        planned_version(space, trained.spec, trained.spec.models[0], trained.long, date(2010, 1, 1))


def test_whatever_decides_the_numbers_of_a_version_is_in_its_name(trained: Trained) -> None:
    space, spec = Workspace.of(trained.early), trained.spec
    in_the_data = {"currency", "data", "delivery", "factors", "industries", "characteristics", "checks"}
    assert set(RunSpec.model_fields) == DECISIVE | in_the_data | {"universe", "models", "report", "allocations"}
    changes = {"risk": RiskSpec(preset="barra_use4s"), "gate": GateSpec(min_total_r2=0.1), "report": ReportSpec()}
    names = [
        planned_version(space, spec.model_copy(update=change), spec.models[0], trained.long, None).version
        for change in ({}, *({name: value} for name, value in changes.items()))
    ]
    assert len(set(names[:3])) == 3
    assert names[3] == names[0]


def test_a_factor_that_comes_after_the_first_refit_is_refused_by_name() -> None:
    fits = [("2015-12-31", 2), ("2016-12-30", 3)]
    with pytest.raises(ModelError, match=r"as of 2015-12-31 has 2 factors and the last one 3 \(market, industry:bank"):
        check_axis("barra", fits, ["market", "industry:bank", "industry:oil"])


@pytest.mark.slow
def test_the_number_of_factors_is_that_which_the_rule_chose_at_the_first_refit(
    trained: Trained, early: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    growing = iter(range(2, 100))
    monkeypatch.setattr("models.families.pca.estimation.choose_factors", lambda *_: next(growing))
    model = model_spec({"kind": "pca", "n_factors": "bai_ng", "min_observed": 0.4})
    spec = trained.spec.model_copy(update={"models": (model,)})
    (version,) = train(spec, spec.models, trained.long, None, Inline(), early)
    refits = len(entries(early, "fits")) - len(entries(trained.early, "fits"))
    assert refits > 1
    assert opened(early, version).sizes["factor"] == 2 + 1, "and the one of estimation error"


def test_a_model_that_fails_takes_no_other_along_and_the_rerun_makes_what_is_missing(
    trained: Trained, early: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is refused by its data, one dies of a bug as it is evaluated, one as it is published: one is there."""
    shutil.rmtree(early.root / "published")
    broken = model_spec({"kind": "pca", "name": "too_many", "n_factors": 40})
    spec = trained.spec.model_copy(update={"models": (broken, *trained.spec.models)})

    def failing(function: Callable[..., Any], model: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if any(getattr(one, "model", None) == model for one in arguments):
                raise ZeroDivisionError("a bug")
            return function(*arguments)

        return call

    monkeypatch.setattr("tasks.assembling.evaluate_risk", failing(evaluate_risk, "autoencoder"))
    monkeypatch.setattr("tasks.training.publish_version", failing(publish_version, "ipca"))
    outcomes = train_each(spec, spec.models, trained.short, None, Inline(), early, promote_first=True)
    assert [(ref.model, ref.changed, ref.promoted) for ref in outcomes.versions] == [("market", True, True)]
    with pytest.raises(ModelsError, match=r"^3 of 4 models failed, the other one is published; run again") as told:
        outcomes.conclude()
    assert [ref.model for ref in told.value.versions] == ["market"]
    assert told.value.failures["too_many"].startswith("n_factors")
    assert {told.value.failures[name] for name in ("autoencoder", "ipca")} == {"ZeroDivisionError: a bug"}
    assert pickle.loads(pickle.dumps(told.value)).failures == told.value.failures  # noqa: S301  # our own bytes
    monkeypatch.undo()
    again = train(trained.spec, trained.spec.models, trained.short, None, Inline(), early)
    assert [(ref.model, ref.changed) for ref in again if ref.changed] == [("ipca", True), ("autoencoder", True)]
    assert [ref.version for ref in again] == [ref.version for ref in trained.first]
