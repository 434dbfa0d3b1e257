"""The six events that factorcube sends to Prefect: what automations start runs and raise alerts from.

Here belongs what is sent. What follows from it is declared in `deploy.automations`. An event is news, not state: one
that is lost with its process costs a follow-up run, which the next schedule makes good, and never data.

============================  =======================================  =====================================
event                         resource                                 sent when
============================  =======================================  =====================================
factorcube.snapshot.committed factorcube.universe.<universe>           an ingest changed a cube
factorcube.snapshot.new-month factorcube.universe.<universe>           it brought the first date of a month
factorcube.checks.failed      factorcube.universe.<universe>           a check of an ingest failed
factorcube.version.promoted   factorcube.model.<universe>.<model>      a version became `latest`
factorcube.champion.stale     factorcube.model.<universe>.<model>      a champion lags behind its cube
factorcube.allocation.failed  factorcube.model.<universe>.<model>      declared weights could not be made
============================  =======================================  =====================================

Every resource carries the labels ``factorcube.universe``, ``factorcube.flow`` (the flow that sent it) and, where the
run was given the name of a config, ``factorcube.config``: so an automation starts runs with the same config, and takes
no notice of what a backfill does to the past.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import xarray as xr
from prefect.context import FlowRunContext
from prefect.events import emit_event
from prefect.runtime import deployment

from schemas.checks import CheckReport
from schemas.refs import SnapshotRef, VersionRef

COMMITTED = "factorcube.snapshot.committed"
NEW_MONTH = "factorcube.snapshot.new-month"
CHECKS_FAILED = "factorcube.checks.failed"
PROMOTED = "factorcube.version.promoted"
STALE = "factorcube.champion.stale"
ALLOCATION_FAILED = "factorcube.allocation.failed"

BLOCKING = "factorcube.blocking"
"""Label of failed checks: ``true`` if one of them kept data out of the cube."""


def announce_snapshot(ref: SnapshotRef, previous: xr.Dataset | None, ingested: xr.Dataset) -> None:
    """Tell that a cube has changed, and whether its newest date lies in another month than the newest one before.

    Parameters
    ----------
    ref : SnapshotRef
        The snapshot; nothing is sent if it was there already.
    previous : Dataset or None
        The cube before.
    ingested : Dataset
        What was written to it.
    """
    if not ref.changed:
        return
    before = None if previous is None else _last(previous)
    head = _last(ingested) if before is None else max(before, _last(ingested))
    payload = {"snapshot": ref.snapshot_id, "head": str(head), "previous": str(before) if before else None}
    _emit(COMMITTED, ref.universe, None, payload)
    if before is None or (head.year, head.month) > (before.year, before.month):
        _emit(NEW_MONTH, ref.universe, None, payload)


def announce_failed_checks(universe: str, report: CheckReport) -> None:
    """Tell which checks of an ingest failed, how many dates they block, and whether they block anything at all."""
    if report.failed:
        failed = [f"{result.severity} {result.check}: {result.observed}" for result in report.failed]
        blocking = any(result.severity == "block" for result in report.failed)
        payload = {"failed": failed, "blocked_dates": len(report.blocked_dates)}
        _emit(CHECKS_FAILED, universe, None, payload, {BLOCKING: str(blocking).lower()})


def announce_promotion(ref: VersionRef, previous: str | None, reason: str) -> None:
    """Tell that a version became the champion of its model."""
    payload = {"version": ref.version, "previous": previous, "reason": reason}
    _emit(PROMOTED, ref.universe, ref.model, payload)


def announce_stale_champion(champion: VersionRef, as_of: date, head: date, periods: int) -> None:
    """Tell that a champion lags behind its cube by more periods than the settings allow."""
    payload = {"version": champion.version, "as_of": str(as_of), "head": str(head), "periods": periods}
    _emit(STALE, champion.universe, champion.model, payload)


def announce_failed_allocation(champion: VersionRef, name: str, reason: str) -> None:
    """Tell that weights which a config declares could not be made by a champion."""
    payload = {"version": champion.version, "allocation": name, "reason": reason}
    _emit(ALLOCATION_FAILED, champion.universe, champion.model, payload)


def _last(dataset: xr.Dataset) -> date:
    newest: date = dataset.indexes["date"][-1].date()
    return newest


def _emit(
    event: str, universe: str, model: str | None, payload: dict[str, Any], labels: Mapping[str, str] | None = None
) -> None:
    """Send an event if there is a run that could have caused it; plain functions that are called alone send none."""
    context = FlowRunContext.get()
    if context is None or context.flow is None or context.flow_run is None:
        return
    where = f"universe.{universe}" if model is None else f"model.{universe}.{model}"
    resource = {
        "prefect.resource.id": f"factorcube.{where}",
        "prefect.resource.name": universe if model is None else f"{universe}/{model}",
        "factorcube.universe": universe,
        "factorcube.flow": context.flow.name,
        **(labels or {}),
    }
    config = deployment.parameters.get("spec") if context.flow_run.deployment_id else None
    if isinstance(config, str):
        resource["factorcube.config"] = config
    run = {
        "prefect.resource.id": f"prefect.flow-run.{context.flow_run.id}",
        "prefect.resource.role": "flow-run",
        "prefect.resource.name": context.flow_run.name,
    }
    emit_event(event, resource, related=[run], payload={**payload, "config": config, "universe": universe})
