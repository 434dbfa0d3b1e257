"""What prefect.yaml declares: it loads, its parameters fit the flows, its schedules hold around holidays and DST."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from prefect import Flow
from prefect.cli.deploy._schedules import _schedule_config_to_deployment_schedule
from prefect.flows import load_flow_from_entrypoint
from prefect.server.schemas.schedules import CronSchedule
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import validate
from small_market import SMALL

from deploy.api import prefect_server
from deploy.deployments import PREFECT_FILE, QUEUES, declared
from schemas.errors import ConfigError, DataError, HeldError
from schemas.settings import load_settings
from schemas.spec import RunSpec
from storage.configs import config_names, load_config
from storage.sources.calendars import why_closed
from tasks.runs import ends_early, hold_models
from tasks.steps import worth_retrying

CHECKOUT = PREFECT_FILE.parents[1]
DEPLOYMENTS: dict[str, dict[str, Any]] = {one["name"]: one for one in declared()["deployments"]}
NEW_YORK = ZoneInfo("America/New_York")


@pytest.fixture(autouse=True)
def _configs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORCUBE_CONFIGS", str(CHECKOUT / "examples"))
    monkeypatch.chdir(CHECKOUT)


def flow_of(name: str) -> Flow[..., Any]:
    return load_flow_from_entrypoint(DEPLOYMENTS[name]["entrypoint"])


def schema_of(name: str) -> dict[str, Any]:
    return parameter_schema(flow_of(name)).model_dump()


def test_every_flow_file_but_the_pipeline_is_deployed() -> None:
    files = {path.stem for path in (CHECKOUT / "flows").glob("*.py")} - {"__init__", "pipeline"}
    assert files == set(DEPLOYMENTS) == {"ingest", "update", "retrain", "backfill", "allocate", "maintain"}


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_entry_points_load_as_file_and_as_module(name: str) -> None:
    entrypoint = DEPLOYMENTS[name]["entrypoint"]
    path, function = entrypoint.split(":")
    module = f"{Path(path).with_suffix('').as_posix().replace('/', '.')}.{function}"
    by_file, by_module = load_flow_from_entrypoint(entrypoint), load_flow_from_entrypoint(module)
    assert by_file.name == by_module.name == name
    assert parameter_schema(by_file) == parameter_schema(by_module)


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_declared_parameters_are_those_of_the_flow(name: str) -> None:
    """With Prefect's own validation, as the server does it when a run is created, and then as the run does it."""
    deployment, schema = DEPLOYMENTS[name], schema_of(name)
    needed = {"request": {"start": "2020-01-01", "end": "2020-12-31"}} if name == "backfill" else {}
    for schedule in [{}, *deployment.get("schedules", [])]:
        parameters = {**deployment.get("parameters", {}), **schedule.get("parameters", {}), **needed}
        assert set(parameters) <= set(schema["properties"])
        assert validate(parameters, schema, raise_on_error=True) == []
        validated = flow_of(name).validate_parameters(parameters)
        assert isinstance(validated.get("spec"), RunSpec) or name in {"allocate", "maintain"}


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_every_parameter_has_a_description_and_a_widget(name: str) -> None:
    schema = schema_of(name)
    for parameter, shown in schema["properties"].items():
        definition = schema["definitions"].get(shown.get("$ref", "").rpartition("/")[2], {})
        assert shown.get("description") or definition.get("description"), parameter
        assert "anyOf" not in shown, f"{parameter} is shown as a choice of types"
        for field, inner in definition.get("properties", {}).items():
            assert inner.get("description") or field in {"universe", "snapshot_id"}, f"{parameter}.{field}"
    if "spec" in schema["properties"]:
        assert "demo" in schema["properties"]["spec"]["enum"], "a config is chosen from those that are there"


def test_dates_are_shown_as_dates() -> None:
    assert schema_of("retrain")["properties"]["as_of"]["format"] == "date"
    assert schema_of("ingest")["properties"]["start"]["format"] == "date"


def test_queues_and_limits() -> None:
    assert {one["work_pool"]["work_queue_name"] for one in DEPLOYMENTS.values()} == set(QUEUES)
    lowest = max(QUEUES, key=lambda name: QUEUES[name][0])
    assert lowest == "backfill"
    assert DEPLOYMENTS["backfill"]["work_pool"]["work_queue_name"] == lowest
    for name, deployment in DEPLOYMENTS.items():
        assert deployment["tags"] == ["factorcube", name], "alerts and heartbeats find runs by their tags"
        assert deployment["description"].strip()
        assert deployment["concurrency_limit"]["limit"] >= 1


def test_serve_may_name_another_config_and_promote_first_versions() -> None:
    plain, other = declared(), declared("french", promote_first=True)
    assert {one["parameters"].get("spec") for one in other["deployments"]} == {"french", None}
    assert [one["parameters"].get("promote_first") for one in other["deployments"]].count(True) == 1
    assert declared() == plain == {**yaml.safe_load(PREFECT_FILE.read_text()), "deployments": plain["deployments"]}


def _runs(name: str, start: datetime, count: int) -> list[datetime]:
    (schedule,) = DEPLOYMENTS[name]["schedules"]
    built = _schedule_config_to_deployment_schedule(schedule)["schedule"]
    dates = asyncio.run(CronSchedule(**built.model_dump()).get_dates(n=count, start=start))
    return [date.astimezone(NEW_YORK) for date in dates]


@pytest.mark.parametrize("change", ["2026-03-06", "2026-10-30"])
def test_the_ingest_runs_after_the_close_on_both_sides_of_daylight_saving(change: str) -> None:
    start = datetime.fromisoformat(change).replace(tzinfo=NEW_YORK)
    runs = _runs("ingest", start, 6)
    assert [(run.hour, run.minute) for run in runs] == [(18, 30), (21, 30)] * 3
    assert len({run.utcoffset() for run in runs}) == 2, "the clocks change in between"
    assert all(run.weekday() < 5 for run in runs)
    assert all(why_closed("XNYS", run) is None for run in runs)


def test_the_retrain_runs_once_a_month() -> None:
    runs = _runs("retrain", datetime(2026, 1, 1, tzinfo=NEW_YORK), 12)
    assert [(run.month, run.day, run.hour) for run in runs] == [(month, 3, 6) for month in range(1, 13)]


SESSIONS = {
    "an ordinary day": ("2026-11-20 18:30", None),
    "Thanksgiving": ("2026-11-26 18:30", "no session on Thursday 2026-11-26"),
    "the half day after it": ("2026-11-27 18:30", None),
    "the half day after its early close": ("2026-11-27 13:05", None),
    "the half day before its early close": ("2026-11-27 12:55", "closes at 13:00 EST"),
    "the full day before its close": ("2026-11-20 13:05", "closes at 16:00 EST"),
    "a summer day": ("2026-07-02 18:30", None),
    "Independence Day, observed": ("2026-07-03 18:30", "no session on Friday"),
    "a Saturday": ("2026-11-21 18:30", "no session on Saturday"),
    "New Year's Eve, another year in UTC": ("2026-12-31 21:30", None),
    "New Year's Day": ("2027-01-01 18:30", "no session on Friday 2027-01-01"),
    "an unscheduled closure": ("2025-01-09 18:30", "no session on Thursday 2025-01-09"),
}


@pytest.mark.parametrize("day", SESSIONS)
def test_a_session_is_one_of_the_exchange_in_its_own_time_zone(day: str) -> None:
    moment, expected = SESSIONS[day]
    local = datetime.fromisoformat(moment).replace(tzinfo=NEW_YORK)
    for same_moment in (local, local.astimezone(UTC), local.astimezone(ZoneInfo("Asia/Tokyo"))):
        reason = why_closed("XNYS", same_moment)
        assert reason is None if expected is None else expected in str(reason)
    assert why_closed("none", local) is None


def test_a_moment_without_time_zone_is_refused() -> None:
    with pytest.raises(DataError, match="needs a time zone"):
        why_closed("XNYS", datetime(2026, 11, 20, 18, 30))  # noqa: DTZ001  # that is the point


def test_a_config_is_read_by_name_and_from_nowhere_else(tmp_path: Path) -> None:
    folder, outside = tmp_path / "configs", tmp_path / "outside.yaml"
    folder.mkdir()
    outside.write_text(yaml.safe_dump(SMALL))
    (folder / "mine.yaml").write_text(yaml.safe_dump(SMALL))
    (folder / "sly.yaml").symlink_to(outside)
    assert config_names(folder) == ["mine", "sly"]
    assert load_config("mine", folder) == load_config("mine.yaml", folder)
    for name in ("../outside", "/etc/passwd", "sub/mine", "..", "", ".hidden", "mine.yml", "a\nb"):
        with pytest.raises(ConfigError, match="is not a name"):
            load_config(name, folder)
    with pytest.raises(ConfigError, match="symbolic link leads outside"):
        load_config("sly", folder)
    with pytest.raises(ConfigError, match=r"there is no config 'mien'.*did you mean 'mine'"):
        load_config("mien", folder)


@pytest.mark.usefixtures("prefect_api")
def test_runs_are_skipped_or_cancelled_with_a_reason(small: Path) -> None:
    from prefect import flow

    spec, settings = load_config("config", small.parent), load_settings()

    @flow(log_prints=False)
    @ends_early
    def second(models: int) -> str:
        with hold_models(spec.universe, spec.models[:models], settings):
            return "ran"

    with hold_models(spec.universe, spec.models[:2], settings):
        state = second(5, return_state=True)
        assert state.is_cancelled()
        assert f"is being retrained already by process {os.getpid()} of" in str(state.message)
        with pytest.raises(HeldError), hold_models(spec.universe, spec.models, settings):
            pass
        with hold_models(spec.universe, spec.models[2:], settings):
            pass
        with pytest.raises(HeldError, match="cancelled: small/market is being retrained"), prefect_server():
            second(1)
    assert second(5) == "ran"


@pytest.mark.usefixtures("prefect_api")
def test_a_scheduled_run_is_skipped_where_the_exchange_is_closed(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.ingest import ingest

    asked: list[datetime] = []

    def closed(calendar: str, moment: datetime) -> str:
        asked.append(moment)
        return f"{calendar} had no session on Thursday 2026-11-26"

    monkeypatch.setattr("tasks.runs.why_closed", closed)
    spec = load_config("config", small.parent)
    state = ingest(spec, on_session=True, return_state=True)
    assert (state.is_completed(), state.name) == (True, "Skipped")
    assert state.message == "nothing to ingest for small: XNYS had no session on Thursday 2026-11-26"
    assert asked[0].tzinfo is not None
    assert not (load_settings().root / "cubes").exists()


def test_what_is_worth_retrying() -> None:
    from prefect.states import Failed

    from schemas.errors import CheckError, ConflictError, StoreError

    for error, expected in (
        (StoreError("no answer"), True),
        (ConflictError("another was faster"), True),
        (TimeoutError(), True),
        (HeldError("another retrain"), False),
        (CheckError("blocked"), False),
        (OSError(28, "No space left on device"), False),
    ):
        assert worth_retrying(None, None, Failed(data=error)) is expected
