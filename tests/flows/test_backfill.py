"""Backfills for real: on a small market, with a Prefect API, Dask workers, kills and races."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from small_market import make_market, write_config

from deploy import cli
from flows.backfill import backfill
from schemas.backfill import BackfillPlan, BackfillRequest, BackfillSummary
from schemas.errors import BackfillError, ConfigError, ModelError
from schemas.settings import load_settings
from storage import published
from storage.configs import load_spec
from storage.layout import Layout
from tasks.backfilling import engine
from tasks.backfilling.survey import plan_backfill

pytestmark = pytest.mark.usefixtures("prefect_api", "dask_scheduler")
COMMAND = str(Path(sys.executable).with_name("factorcube"))
SPAN = {"start": "2016-09-01", "end": "2016-12-31"}
CHANGES = {
    "models": [{"kind": "market", "min_observations": 20}, {"kind": "pca", "n_factors": 1}],
    "characteristics": ["mom1m", "retvol"],
    "walk_forward": {"first": "2016-10-31", "every": "month"},
}
RETRAINED = ("2016-10", "2016-11", "2016-12")
VERSIONS = 2 * (3 + 2)
"""Of each model: three retrains, and the two stretches between them."""


@pytest.fixture
def config(small: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make four months of a market, of which the last three can be retrained, and two models."""
    make_market(stocks=12, start="2016-09-01").write_parquet(small.parent / "prices.parquet")
    monkeypatch.setenv("FACTORCUBE_WORKERS", "1")
    return write_config(small.parent, CHANGES)


def run(config: Path, **asked) -> BackfillSummary:
    return backfill(load_spec(config), BackfillRequest(**{**SPAN, **asked}))


def plan(config: Path, **asked) -> BackfillPlan:
    return plan_backfill(load_spec(config), BackfillRequest(**{**SPAN, **asked}), load_settings())[0]


def left(config: Path, **asked) -> list[str]:
    return [str(item.partition) for item in plan(config, **asked).included]


def states(config: Path, step: str, model: str, **asked) -> dict[str, str]:
    found = plan(config, what=step, models=[model], **asked).partitions
    return {item.partition.period: item.state for item in found}


def versions() -> set[str]:
    refs = published.list_versions(Layout(load_settings().root), "small")
    return {f"{ref.model}/{ref.version}" for ref in refs}


def restate(config: Path, day: str) -> None:
    """Correct one price of one stock."""
    path = config.parent / "prices.parquet"
    chosen = (pl.col("date") == pl.lit(day).str.to_datetime()) & (pl.col("ticker") == "S003")
    bars = {name: pl.when(chosen).then(pl.col(name) * 1.004).otherwise(pl.col(name)) for name in ("close", "high")}
    pl.read_parquet(path).with_columns(**bars).write_parquet(path)


@pytest.mark.slow
def test_everything_is_made_once_and_a_restated_day_makes_exactly_what_rests_on_it_stale(config: Path) -> None:
    summary = run(config)
    assert summary.complete
    assert not summary.of("found", "blocked", "stopped", "failed")
    retrained = [outcome for outcome in summary.outcomes if outcome.partition.step == "retrain"]
    assert [outcome.partition.period for outcome in retrained] == [month for month in RETRAINED for _ in range(2)]
    assert left(config) == []
    assert set(states(config, "update", "pca").values()) == {"missing", "done"}
    before, made = versions(), len(versions())
    assert made == VERSIONS
    assert run(config).outcomes == ()
    assert versions() == before

    restate(config, "2016-11-15")
    found = plan(config, what="ingest")
    assert {item.changed for item in found.partitions} == {("data",)}
    assert run(config, what="ingest", select="stale").complete
    retrains = states(config, "retrain", "pca")
    assert [retrains[month] for month in RETRAINED] == ["done", "stale", "stale"]
    updates = states(config, "update", "market", start="2016-11-01")
    stale = [day for day, state in updates.items() if state == "stale"]
    assert stale[0] == "2016-11-15"
    assert {day for day in updates if day > "2016-11-15" and day not in ("2016-11-30", "2016-12-30")} < set(stale)
    assert set(left(config, select="stale", what="retrain")) == {
        f"retrain {model} {month}" for model in ("market", "pca") for month in ("2016-11", "2016-12")
    }
    assert run(config, select="stale").complete
    assert left(config, select="stale") == []
    assert before < versions(), "old as-of numbers stay as they were"
    for ref in published.list_versions(Layout(load_settings().root), "small"):
        published.verify(Layout(load_settings().root), ref)


@pytest.mark.slow
def test_a_failure_takes_nothing_else_along_and_can_be_repaired(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train = engine.train

    def breaks(spec, models, snapshot, as_of, *rest, **more):
        if any(model.name == "pca" for model in models) and f"{as_of:%Y-%m}" == "2016-10":
            raise ModelError("pca: singular <in> October")
        return train(spec, models, snapshot, as_of, *rest, **more)

    monkeypatch.setattr(engine, "train", breaks)
    arguments = [str(config), "--start", SPAN["start"], "--end", SPAN["end"]]
    monkeypatch.setattr(sys, "argv", ["factorcube", "backfill", "run", *arguments])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        cli.obey()
    assert ended.value.code == 1
    shown = capsys.readouterr()
    assert "retrain pca 2016-10: pca: singular <in> October" in " ".join(shown.err.split())
    assert "blocked" in shown.out
    assert states(config, "retrain", "pca")["2016-10"] == "failed"
    assert states(config, "retrain", "pca")["2016-11"] == "done"
    assert states(config, "retrain", "market")["2016-10"] == "done"
    november = states(config, "update", "pca", start="2016-11-01", end="2016-11-29")
    assert set(november.values()) == {"missing"}
    assert {item.why for item in plan(config, what="update", models=["pca"]).partitions if item.blocked} == {
        "retrain pca 2016-10 failed"
    }
    monkeypatch.undo()
    monkeypatch.setenv("FACTORCUBE_ROOT", str(config.parent / "out"))
    monkeypatch.setenv("FACTORCUBE_WORKERS", "1")
    assert left(config, select="failed") == ["retrain pca 2016-10"]
    assert run(config, select="failed").complete
    assert run(config).complete
    assert left(config) == []


def test_after_enough_failures_nothing_more_is_started(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(config, what="ingest")

    def breaks(*_: object, **__: object) -> None:
        raise ModelError("always")

    monkeypatch.setattr(engine, "train", breaks)
    with pytest.raises(BackfillError, match="2 of 6 partitions of small failed, 4 were not reached") as caught:
        run(config, what="retrain", max_failures=1, direction="backward")
    summary = caught.value.summary
    assert summary is not None
    assert {one.partition.period for one in summary.of("failed")} == {"2016-12"}
    assert {one.partition.period for one in summary.of("stopped")} == {"2016-10", "2016-11"}
    assert set(states(config, "retrain", "pca").values()) == {"missing", "failed"}


@pytest.mark.slow
def test_a_retrain_of_the_past_never_takes_the_place_of_the_champion(config: Path) -> None:
    run(config, what="ingest")
    run(config, what="retrain", start="2016-12-01", models=["market"])
    (latest,) = published.list_versions(Layout(load_settings().root), "small", "market")
    published.promote(Layout(load_settings().root), "small", "market", latest.version, reason="first")
    run(config, what="retrain", models=["market"], direction="backward")
    champion = published.latest(Layout(load_settings().root), "small", "market")
    assert champion is not None
    assert champion.version == latest.version


def test_the_plan_is_a_dry_run_and_prefect_shows_what_was_made(config: Path) -> None:
    from prefect.artifacts import Artifact

    shown = command(config, "plan", "--json")
    assert shown.returncode == 0, shown.stderr
    found = json.loads(shown.stdout)
    assert {item["state"] for item in found["partitions"]} == {"missing"}
    assert not (config.parent / "out").exists()
    summary = run(config, what="ingest")
    table = Artifact.get("backfill-small")
    assert '"partitions": 4' in table.data
    assert summary.batches == 1
    with pytest.raises(ConfigError, match=r"small has no model 'ipca'"):
        plan(config, models=["ipca"])
    bad = command(config, "run", "--models", "pcaa")
    assert bad.returncode == 1
    assert "did you mean 'pca'?" in bad.stderr
    assert "Traceback" not in bad.stderr


def test_the_form_of_prefect_knows_every_field_and_its_meaning() -> None:
    from prefect.utilities.callables import parameter_schema

    schema = parameter_schema(backfill).model_dump()
    fields = schema["definitions"]["BackfillRequest"]["properties"]
    assert set(fields) == set(BackfillRequest.model_fields)
    assert all(field["description"] for field in fields.values())
    request = {"start": "2016-01-01", "end": "2016-02-01", "what": "update"}
    assert backfill.validate_parameters({"spec": load_demo(), "request": request})["request"].what == "update"


def load_demo() -> dict[str, object]:
    path = Path(__file__).resolve().parents[2] / "examples" / "demo.yaml"
    return load_spec(path).model_dump(mode="json")


def command(config: Path, verb: str, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "backfill", verb, str(config), "--start", SPAN["start"], "--end", SPAN["end"], *more],
        env={**os.environ, "FACTORCUBE_ROOT": str(config.parent / "out"), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


BACKFILL = """
import os, signal, sys
from pathlib import Path
from flows.backfill import backfill
from schemas.backfill import BackfillRequest
from storage.configs import load_spec
from storage import partitions
{patch}
spec = load_spec(Path(sys.argv[1]))
backfill(spec, BackfillRequest(start="2016-09-01", end="2016-12-31", concurrency={concurrency}))
"""
KILL = """
write, calls = partitions.PartitionStore.write, []
def die(self, step, model, records):
    calls.append(step)
    if len(calls) == {nth}: os.kill(os.getpid(), signal.SIGKILL)
    write(self, step, model, records)
partitions.PartitionStore.write = die
"""


def in_process(config: Path, api: str, patch: str = "", concurrency: int = 1) -> subprocess.Popen[bytes]:
    log = (config.parent / f"backfill-{len(list(config.parent.glob('*.log')))}.log").open("wb")
    return subprocess.Popen(
        [sys.executable, "-c", BACKFILL.format(patch=patch, concurrency=concurrency), str(config)],
        env={**os.environ, "PREFECT_API_URL": api},
        stdout=log,
        stderr=log,
    )


def logs(config: Path) -> str:
    return "\n".join(path.read_text()[-3000:] for path in sorted(config.parent.glob("*.log")))


@pytest.mark.slow
def test_a_backfill_killed_at_any_record_goes_on_where_it_was(config: Path, prefect_api: str) -> None:
    """Before the first record, with an ingest made but not recorded, within retrains, before and within updates."""
    for nth in (1, 2, 4, 9, 3, 2):
        killed = in_process(config, prefect_api, KILL.format(nth=nth))
        assert killed.wait(300) == -signal.SIGKILL, logs(config)
    assert run(config).complete
    assert left(config) == []
    assert set(states(config, "retrain", "pca").values()) == {"missing", "done"}
    assert len({name.rpartition("-")[0] for name in versions()}) == len(versions()) == VERSIONS, "no date twice"


@pytest.mark.slow
def test_two_backfills_at_once_make_one_set_of_versions(config: Path, prefect_api: str) -> None:
    racing = [in_process(config, prefect_api, concurrency=2) for _ in range(2)]
    assert [process.wait(500) for process in racing] == [0, 0], logs(config)
    assert len({name.rpartition("-")[0] for name in versions()}) == len(versions()) == VERSIONS, "no date twice"
    assert left(config) == []
    for ref in published.list_versions(Layout(load_settings().root), "small"):
        published.verify(Layout(load_settings().root), ref)


@pytest.mark.slow
def test_the_records_outlive_the_intermediate_results(config: Path) -> None:
    run(config)
    before = versions()
    shutil.rmtree(load_settings().root / "work")
    assert left(config) == []
    assert run(config, select="all", what="retrain", start="2016-12-01").complete
    assert versions() == before


@pytest.mark.slow
@pytest.mark.shared_data
def test_the_505_stocks_are_backfilled_in_batches_and_prefect_takes_little_of_the_time(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTORCUBE_ROOT", str(tmp_path / "out"))
    (tmp_path / "data").symlink_to(shared_data)
    example = Path(__file__).resolve().parents[2] / "examples" / "sp500_backfill.yaml"
    config = Path(shutil.copy(example, tmp_path))
    span = {"start": "2013-02-01", "end": "2013-07-31", "models": ["market", "pca"]}
    summary = run(config, **span)
    retrained = [one.partition.period for one in summary.of("done") if one.partition.step == "retrain"]
    assert retrained == [month for month in ("2013-04", "2013-05", "2013-06", "2013-07") for _ in range(2)]
    assert summary.batches == 1 + 4 + 2 * 3
    assert summary.bookkeeping < 0.1
    assert run(config, **span).outcomes == ()
