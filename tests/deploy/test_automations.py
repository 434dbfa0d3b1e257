"""Automations as code: Prefect's own models take them, they react to the right events, and applying is idempotent."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from uuid import uuid4

import pandas as pd
import pytest
from prefect.server.events.schemas.automations import Automation as ServerAutomation
from prefect.server.events.schemas.events import ReceivedEvent

from deploy.automations import NO_INGEST, PREFIX, SILENCE, _in_full, automations
from deploy.deployments import HEARTBEAT_SECONDS
from schemas.refs import SnapshotRef
from schemas.settings import Settings, load_settings
from tasks import events

IDS = {"update": uuid4(), "retrain": uuid4()}
TAG = {"prefect.resource.id": "prefect.tag.factorcube", "prefect.resource.role": "tag"}


def declared(alerts: bool = False) -> dict[str, ServerAutomation]:
    """As the server sees them."""
    made = automations(IDS, uuid4() if alerts else None)
    return {
        one.name.removeprefix(PREFIX): ServerAutomation.model_validate(
            {**_in_full(one).model_dump(mode="json"), "id": uuid4()}
        )
        for one in made
    }


def event(name: str, resource: dict[str, str], related: list[dict[str, str]] | None = None) -> ReceivedEvent:
    return ReceivedEvent.model_validate(
        {
            "event": name,
            "resource": resource,
            "related": related or [],
            "occurred": datetime.now(UTC),
            "received": datetime.now(UTC),
            "id": uuid4(),
        }
    )


def reacting(happened: ReceivedEvent) -> set[str]:
    return {
        name for name, one in declared().items() if one.trigger.covers(happened) and one.trigger.expects(happened.event)
    }


def from_ingest(**labels: str) -> dict[str, str]:
    return {
        "prefect.resource.id": "factorcube.universe.small",
        "factorcube.flow": "ingest",
        "factorcube.config": "small",
        **labels,
    }


def test_an_ingest_is_followed_by_an_update_and_in_a_new_month_by_a_retrain() -> None:
    assert reacting(event(events.COMMITTED, from_ingest())) == {"update after an ingest"}
    assert reacting(event(events.NEW_MONTH, from_ingest())) == {"retrain after the first ingest of a month"}


def test_a_backfill_and_a_run_without_a_named_config_start_nothing() -> None:
    backfilled = from_ingest(**{"factorcube.flow": "backfill"})
    assert reacting(event(events.COMMITTED, backfilled)) == set()
    nameless = {key: value for key, value in from_ingest().items() if key != "factorcube.config"}
    assert reacting(event(events.NEW_MONTH, nameless)) == set()


def test_only_what_concerns_us_raises_an_alert() -> None:
    run = {"prefect.resource.id": f"prefect.flow-run.{uuid4()}"}
    silent = "mark silent runs as crashed"
    assert reacting(event("prefect.flow-run.Crashed", run, [TAG])) == {"alert: run failed or crashed", silent}
    assert reacting(event("prefect.flow-run.Failed", run)) == set(), "the run of somebody else on the same server"
    assert reacting(event("prefect.flow-run.Cancelled", run, [TAG])) == {silent}, "a second retrain is no alarm"
    assert reacting(event(events.CHECKS_FAILED, from_ingest(**{events.BLOCKING: "true"}))) == {"alert: checks failed"}
    assert reacting(event(events.CHECKS_FAILED, from_ingest(**{events.BLOCKING: "false"}))) == set()
    stale = {"prefect.resource.id": "factorcube.model.small.ipca"}
    assert reacting(event(events.STALE, stale)) == {"alert: champion stale"}
    assert reacting(event(events.ALLOCATION_FAILED, stale)) == {"alert: allocation failed"}


def test_a_run_is_given_time_for_two_heartbeats_and_the_ingest_for_a_long_weekend() -> None:
    assert SILENCE.total_seconds() > 2 * HEARTBEAT_SECONDS
    assert NO_INGEST.days > 4, "Thursday's holiday before a weekend, or a weekend before a Tuesday"


def test_parameters_come_from_the_event() -> None:
    (action,) = declared()["update after an ingest"].actions
    assert action.deployment_id == IDS["update"]
    assert action.parameters == {"spec": {"__prefect_kind": "jinja", "template": "{{ event.payload.config }}"}}


def test_alerts_notify_only_where_there_is_somebody_to_notify() -> None:
    def kinds(alerts: bool) -> set[str]:
        return {one.actions[0].type for name, one in declared(alerts).items() if name.startswith("alert")}

    assert kinds(alerts=False) == {"do-nothing"}
    assert kinds(alerts=True) == {"send-notification"}


@pytest.mark.usefixtures("prefect_api")
def test_applying_twice_changes_nothing_and_removes_only_what_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.client.orchestration import get_client

    from deploy.automations import apply_automations

    secret = "https://hooks.example.com/secret-token"
    monkeypatch.setenv("FACTORCUBE_ALERT_WEBHOOK", secret)
    with get_client(sync_client=True) as client:
        for name in ("update", "retrain"):
            client.create_deployment(client.create_flow_from_name(name), name)
        left = automations(IDS, None)[-1].model_copy(update={"name": f"{PREFIX}no longer declared"})
        theirs = left.model_copy(update={"name": "made by somebody in the UI"})
        for one in (left, theirs):
            client.create_automation(_in_full(one))
        names = apply_automations(load_settings())
        first = {one.name: one for one in client.read_automations()}
        assert set(first) == {*names, theirs.name}
        assert apply_automations(load_settings()) == names
        second = {one.name: one for one in client.read_automations()}
        assert {name: one.id for name, one in first.items()} == {name: one.id for name, one in second.items()}
        assert {name: one.actions for name, one in first.items()} == {name: one.actions for name, one in second.items()}
        assert secret not in repr(client.read_automations())
        document = client.read_block_document_by_name("factorcube-alerts", "custom-webhook", include_secrets=False)
        assert secret not in document.model_dump_json(), "the address is a secret and is not shown"


def test_nothing_is_sent_outside_of_a_run() -> None:
    """Plain functions announce what they do as well; there is no server then, and none is asked for."""
    import xarray as xr

    ref = SnapshotRef(universe="small", snapshot_id="S", ingest_key="k", checks_key="c")
    dates = xr.Dataset(coords={"date": ["2016-01-04"]})
    events.announce_snapshot(ref, None, dates.assign_coords(date=dates.date.astype("datetime64[ns]")))


def sent(before: date | None, first: str, last: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    import xarray as xr

    names: list[str] = []
    monkeypatch.setattr(events, "_emit", lambda name, *_: names.append(name))
    ingested = xr.Dataset(coords={"date": pd.bdate_range(first, last)})
    previous = None if before is None else xr.Dataset(coords={"date": pd.DatetimeIndex([before])})
    ref = SnapshotRef(universe="small", snapshot_id="S", ingest_key="k", checks_key="c")
    events.announce_snapshot(ref, previous, ingested)
    events.announce_snapshot(ref.model_copy(update={"changed": False}), previous, ingested)
    return names


def test_a_month_is_new_once(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [events.COMMITTED, events.NEW_MONTH]
    assert sent(None, "2016-01-04", "2016-01-29", monkeypatch) == both, "the first ingest"
    assert sent(date(2016, 1, 29), "2016-01-04", "2016-02-01", monkeypatch) == both
    assert sent(date(2016, 2, 1), "2016-01-04", "2016-02-02", monkeypatch) == [events.COMMITTED]
    assert sent(date(2016, 12, 30), "2017-01-02", "2017-01-03", monkeypatch) == both
    assert sent(date(2016, 2, 2), "2015-12-01", "2015-12-31", monkeypatch) == [events.COMMITTED], "restated history"


@pytest.mark.usefixtures("prefect_api")
def test_a_long_fit_has_a_bar_and_a_short_one_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect import flow
    from prefect.client.orchestration import get_client

    from tasks import artifacts

    @flow
    def fitting(seconds: float) -> None:
        monkeypatch.setattr(artifacts, "_SECONDS_BETWEEN_MOVES", seconds)
        progress = artifacts.Progress("waits", f"us_{seconds:g}")
        for done in range(1, 5):
            progress(done, 4)

    fitting(0.0)
    fitting(3600.0)
    with get_client(sync_client=True) as client:
        bars = [one for one in client.read_artifacts() if (one.key or "").startswith("waits-")]
    assert [(bar.key, bar.data) for bar in bars] == [("waits-us-0", 100.0)]


def test_a_champion_ages_by_sessions_or_by_months() -> None:
    from schemas.contracts import Manifest
    from tasks.freshness import periods_behind

    def behind(as_of: date, head: date, **config: str) -> int:
        return periods_behind(Manifest.model_construct(as_of=as_of, config=config), head)

    daily = {"frequency": "daily", "calendar": "XNYS"}
    assert behind(date(2026, 11, 25), date(2026, 11, 27), **daily) == 1, "Thanksgiving is no session"
    assert behind(date(2026, 11, 20), date(2026, 11, 23), **daily) == 1, "neither is a weekend"
    assert behind(date(2026, 11, 20), date(2026, 11, 20), **daily) == 0
    assert behind(date(2026, 11, 23), date(2026, 11, 20), **daily) == 0, "ahead of a cube that was rolled back"
    assert behind(date(2025, 12, 31), date(2026, 2, 28), frequency="monthly", calendar="none") == 2


@pytest.mark.usefixtures("prefect_api")
def test_a_champion_that_lags_is_reported_once_it_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect import flow
    from storing import STATE, cube_data, manifest_of, version_data

    from storage import published
    from storage.cube import Cube
    from storage.layout import Layout
    from tasks import freshness

    layout, told = Layout(tmp_path), []
    monkeypatch.setattr(freshness, "announce_stale_champion", lambda ref, *facts: told.append((ref.model, *facts)))
    for model, end in (("ipca", "2024-06-14"), ("market", "2024-06-26"), ("waiting", "2024-05-31")):
        data = version_data(end=end)
        config = {"frequency": "daily", "calendar": "XNYS"}
        ref = published.publish(layout, data, manifest_of(data, model=model, config=config), STATE)
        if model != "waiting":
            published.promote(layout, ref.universe, ref.model, ref.version, reason="test")
    Cube.open_or_create(layout, "us").upsert(
        cube_data(pd.bdate_range("2024-06-03", "2024-06-28")), message="ingest", metadata={}
    )

    @flow
    def looking(limit: int) -> list[str]:
        settings = Settings(root=tmp_path, champion_max_age=limit)
        return [ref.model for ref in freshness.report_stale_champions("us", settings)]

    assert looking(9) == []
    assert looking(8) == ["ipca"], "of 17 June to 28 June one day is a holiday: nine sessions"
    assert told == [("ipca", date(2024, 6, 14), date(2024, 6, 28), 9)]
