"""The records of partitions and the making of batches: torn files, kills, races; with an engine that only counts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from schemas.backfill import Inputs, Partition, PartitionRecord, PlannedPartition
from schemas.errors import ConfigError, CorruptionError, FactorcubeError
from storage.layout import Layout
from storage.partitions import PartitionStore
from tasks.backfilling.deciding.batches import Batch
from tasks.backfilling.engine import Product
from tasks.backfilling.running import Job

NOW = datetime(2026, 1, 5, tzinfo=UTC)
NOW_INPUTS = Inputs(data="d", code="c", config="k")
ROOT = Path(__file__).resolve().parents[3]


def record(**changes) -> PartitionRecord:
    return PartitionRecord(**{"status": "done", "attempts": 1, "lock": "x", "started_at": NOW, **changes})


def months(*periods: str, step: str = "ingest", model: str = "") -> Batch:
    return Batch(
        tuple(
            PlannedPartition(
                partition=Partition(step=step, universe="small", model=model, period=period),
                state="missing", included=True, why="never made", inputs=NOW_INPUTS,
            )
            for period in periods
        )
    )  # fmt: skip


class Counting:
    """Makes nothing, but counts what it is asked for in a file, and can break or kill at some periods."""

    def __init__(self, log: Path, *, breaks: str = "", kills: str = "", seconds: float = 0.0) -> None:
        self.log, self.breaks, self.kills, self.seconds = log, breaks, kills, seconds

    def make(self, batch: Batch, snapshot: object) -> dict[Partition, Product]:
        del snapshot
        periods = [item.partition.period for item in batch.planned]
        time.sleep(self.seconds)
        if self.kills in periods:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.breaks in periods:
            raise FactorcubeError(f"{self.breaks} is broken")
        with self.log.open("a") as log:
            log.write("".join(f"{period}\n" for period in periods))
        return {item.partition: Product("made", dates=1) for item in batch.planned}


def job(folder: Path, batch: Batch, planned_at: datetime | None = None, **how) -> Job:
    return Job(batch, None, planned_at or datetime.now(UTC), Counting(folder / "log", **how), store(folder))


def store(folder: Path) -> PartitionStore:
    return PartitionStore(Layout(folder), "small")


def elsewhere(folder: Path, code: str) -> subprocess.Popen[str]:
    """Run code in a process of its own, with the helpers of this file at hand."""
    head = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests/helpers')!r}]\nfrom pathlib import Path\n"
    head += f"from tests.tasks.backfilling.test_running import *\nfolder = Path({str(folder)!r})\n"
    return subprocess.Popen([sys.executable, "-c", head + code], text=True, stdout=subprocess.PIPE)


def test_records_are_kept_by_period_and_others_stay(tmp_path: Path) -> None:
    kept = store(tmp_path)
    assert kept.read("update", "pca") == {}
    kept.write("update", "pca", {"2016-07-01": record(inputs=NOW_INPUTS, seconds=0.5)})
    kept.write("update", "pca", {"2016-07-05": record(status="failed", error="<b>")})
    kept.write("update", "market", {"2016-07-05": record()})
    assert list(kept.read("update", "pca")) == ["2016-07-01", "2016-07-05"]
    assert kept.read("update", "pca")["2016-07-01"] == record(inputs=NOW_INPUTS, seconds=0.5)
    assert (tmp_path / "partitions" / "small").is_dir(), "not among the intermediate results, which may be deleted"


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b.replace(b"done", b"gone"), lambda _: b"", bytes.lower]
)
def test_a_damaged_document_is_named(tmp_path: Path, damage) -> None:
    store(tmp_path).write("retrain", "pca", {"2016-07": record(lock="x", error="Up")})
    (path,) = (tmp_path / "partitions").rglob("pca.json")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CorruptionError, match=r"pca\.json.*restore it, or remove it"):
        store(tmp_path).read("retrain", "pca")


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "", "a" * 200])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    if name:
        with pytest.raises(ConfigError):
            store(tmp_path).read("retrain", name)
    with pytest.raises(ConfigError):
        store(tmp_path).held(name)


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    def write(writer: int) -> None:
        for day in range(1, 11):
            store(tmp_path).write("update", "pca", {f"20{writer:02d}-01-{day:02d}": record()})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert len(store(tmp_path).read("update", "pca")) == 40


def test_a_batch_is_recorded_with_what_it_was_made_from(tmp_path: Path) -> None:
    result = job(tmp_path, months("2016-01", "2016-02")).run()
    assert [outcome.result for outcome in result.outcomes] == ["done", "done"]
    found = store(tmp_path).read("ingest")["2016-02"]
    assert (found.status, found.version, found.inputs, found.attempts, found.dates) == (
        "done",
        "made",
        NOW_INPUTS,
        1,
        1,
    )
    assert found.seconds is not None
    assert not store(tmp_path).held("ingest")


def test_a_failure_is_narrowed_down_and_keeps_what_was_there(tmp_path: Path) -> None:
    store(tmp_path).write("ingest", "", {"2016-03": record(version="old", inputs=NOW_INPUTS)})
    periods = [f"2016-{month:02d}" for month in range(1, 9)]
    result = job(tmp_path, months(*periods), breaks="2016-03").run()
    failed = [outcome for outcome in result.outcomes if outcome.result == "failed"]
    assert [(outcome.partition.period, outcome.why) for outcome in failed] == [("2016-03", "2016-03 is broken")]
    assert sorted((tmp_path / "log").read_text().split()) == [period for period in periods if period != "2016-03"]
    found = store(tmp_path).read("ingest")["2016-03"]
    assert (found.status, found.error, found.attempts, found.version) == ("failed", "2016-03 is broken", 2, "old")


@pytest.mark.slow
def test_a_killed_batch_is_not_running_any_more(tmp_path: Path) -> None:
    with elsewhere(tmp_path, 'job(folder, months("2016-01"), kills="2016-01").run()') as process:
        assert process.wait(60) == -signal.SIGKILL
    found = store(tmp_path).read("ingest")["2016-01"]
    assert found.status == "running"
    assert not store(tmp_path).held(found.lock)
    job(tmp_path, months("2016-01")).run()
    assert store(tmp_path).read("ingest")["2016-01"].attempts == 2


@pytest.mark.slow
def test_a_batch_that_is_being_made_is_seen_from_another_process_and_found_done_after_it(tmp_path: Path) -> None:
    planned_at = datetime.now(UTC)
    code = 'print("go", flush=True); job(folder, months("2016-01", "2016-02"), seconds=2.0).run()'
    with elsewhere(tmp_path, code) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "go\n"
        while not store(tmp_path).read("ingest"):
            time.sleep(0.05)
        assert store(tmp_path).held("ingest")
        result = job(tmp_path, months("2016-01", "2016-02", "2016-03"), planned_at=planned_at).run()
        assert process.wait(60) == 0
    assert [outcome.result for outcome in result.outcomes] == ["found", "found", "done"]
    assert sorted((tmp_path / "log").read_text().split()) == ["2016-01", "2016-02", "2016-03"]


def test_what_was_done_before_the_plan_or_from_other_inputs_is_made_again(tmp_path: Path) -> None:
    earlier = datetime.now(UTC)
    done = record(inputs=NOW_INPUTS, finished_at=earlier)
    other = record(inputs=Inputs(data="other", code="c", config="k"), finished_at=earlier + timedelta(hours=1))
    store(tmp_path).write("ingest", "", {"2016-01": done, "2016-02": other})
    result = job(tmp_path, months("2016-01", "2016-02"), planned_at=earlier + timedelta(minutes=1)).run()
    assert [outcome.result for outcome in result.outcomes] == ["done", "done"]


def test_records_that_cannot_be_read_fail_the_batch_and_say_so(tmp_path: Path) -> None:
    store(tmp_path).write("ingest", "", {"2016-01": record()})
    (path,) = (tmp_path / "partitions").rglob(".universe.json")
    path.write_text("{}")
    (outcome,) = job(tmp_path, months("2016-01")).run().outcomes
    assert outcome.result == "failed"
    assert ".universe.json" in outcome.why
    assert not (tmp_path / "log").exists()
