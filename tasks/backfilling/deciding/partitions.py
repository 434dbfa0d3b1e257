"""Which partitions a request has, in which state each one is, and whether it will be made and why.

Pure: a `World` and a request go in, a plan comes out. Every partition of the span is in it, in exactly one state, so
that a dry run shows what is left out as well. What depends on what:

    update of a date <- the retrain version in force at that date <- the ingest of the months up to it
"""

from __future__ import annotations

from datetime import date, datetime

from schemas.backfill import (
    BackfillPlan,
    BackfillRequest,
    Inputs,
    Partition,
    PartitionRecord,
    PlannedPartition,
    State,
)
from tasks.backfilling.deciding.anchors import Anchor, anchors_of, best, retrained
from tasks.backfilling.deciding.world import World, month_of, months, span_of, within

_SELECTED: dict[str, tuple[State, ...]] = {
    "missing": ("missing", "running"),
    "failed": ("failed",),
    "missing_and_failed": ("missing", "running", "failed"),
    "stale": ("stale",),
    "all": ("missing", "running", "failed", "stale", "done"),
}
_CHANGES = {
    "data": "the data have changed",
    "code": "the code has changed",
    "config": "the config has changed",
    "parent": "another retrain version is in force",
}


def make_plan(world: World, request: BackfillRequest, *, snapshot_id: str | None, now: datetime) -> BackfillPlan:
    """Plan a request.

    Parameters
    ----------
    world : World
        What is there.
    request : BackfillRequest
        What is asked for.
    snapshot_id : str or None
        State of the cube that was looked at.
    now : datetime
        When it was looked at.

    Returns
    -------
    BackfillPlan
        All partitions of the steps of the request. What comes after a step that is yet to run is a forecast: a
        backfill plans each step anew when it gets there.
    """
    ingests = _ingests(world, request) if "ingest" in request.steps else []
    retrains = _retrains(world, request, ingests) if "retrain" in request.steps else []
    updates = _updates(world, request, ingests, retrains) if "update" in request.steps else []
    return BackfillPlan(
        universe=world.universe,
        request=request,
        snapshot_id=snapshot_id,
        made_at=now,
        partitions=(*ingests, *retrains, *updates),
    )


def _ingests(world: World, request: BackfillRequest) -> list[PlannedPartition]:
    planned = []
    now = Inputs(data=world.source, code=world.codes.get(("ingest", ""), ""), config=world.configs.get("", ""))
    for month in months(request.start, request.end):
        sessions, held, record = world.sessions_in(month), world.held_in(month), world.record("ingest", "", month)
        if record is not None and record.inputs is not None:
            changed = record.inputs.changed(now)
            there = len(held) >= (record.dates or 0) and not (record.dates == 0 and changed)
        else:
            changed = ()
            there = bool(held) and (world.calendar_free or set(sessions) <= world.holds)
        state = _state(world, record, there=there, changed=changed)
        reason = None
        if not sessions:
            reason = "no session in this month"
        elif sessions[-1] > world.today:
            reason = f"period not over: it ends on {sessions[-1]}"
        planned.append(
            _planned(
                world, request, Partition(step="ingest", universe=world.universe, period=month), state,
                out=reason, record=record, changed=changed, inputs=now, as_of=sessions[-1] if sessions else None,
                version=record.version if record and there else None,
            )
        )  # fmt: skip
    return planned


def _retrains(world: World, request: BackfillRequest, ingests: list[PlannedPartition]) -> list[PlannedPartition]:
    coming = {item.partition.period: item.partition for item in ingests if item.included}
    failed = _failed_ingests(world, coming)
    planned = []
    for model in world.models:
        retrains = retrained(world, model)
        for month in months(request.start, request.end):
            as_of = _last_date(world, month, coming)
            now = world.inputs(model, as_of)
            made = None if as_of is None else best(retrains.get(as_of, ()), now)
            changed = made.inputs.changed(now) if made else ()
            record = world.record("retrain", model, month)
            state = _state(world, record, there=made is not None, changed=changed)
            partition = Partition(step="retrain", universe=world.universe, model=model, period=month)
            before = [ingest for period, ingest in coming.items() if period <= month]
            broken = next((period for period in failed if period <= month), None)
            planned.append(
                _planned(
                    world, request, partition, state,
                    out=_no_retrain(world, request, month, as_of, coming), record=record, changed=changed, inputs=now,
                    as_of=as_of, version=made.version if made else None,
                    blocked=f"the ingest of {broken} failed" if broken else None,
                    depends_on=(before[-1],) if before else _own_ingest(world, month),
                )
            )  # fmt: skip
    return planned


def _updates(
    world: World, request: BackfillRequest, ingests: list[PlannedPartition], retrains: list[PlannedPartition]
) -> list[PlannedPartition]:
    coming = {item.partition.period: item.partition for item in ingests if item.included}
    failed = _failed_ingests(world, coming)
    days = sorted(
        {*within(world.sessions, request.start, request.end), *within(world.held, request.start, request.end)}
    )
    planned = []
    for model in world.models:
        anchors = anchors_of(world, model, retrains)
        covered = _covered(world, model)
        for day in days:
            anchor = anchors.at(day)
            partition = Partition(step="update", universe=world.universe, model=model, period=str(day))
            record = world.record("update", model, str(day))
            now = world.inputs(model, day, parent=(anchor.version if anchor else None) or "")
            by = _holder(world, model, day, anchor, record, covered)
            changed = record.inputs.changed(now) if record and record.inputs and by == record.version else ()
            blocked = f"{anchor.partition} failed" if anchor and anchor.failed else None
            broken = next((month for month in failed if month <= month_of(day)), None)
            blocked = f"the ingest of {broken} failed" if broken else blocked
            planned.append(
                _planned(
                    world, request, partition, _state(world, record, there=by is not None, changed=changed),
                    out=_no_update(world, day, anchor, coming, blocked=blocked is not None), record=record,
                    changed=changed, inputs=now, as_of=day, version=by, blocked=blocked,
                    depends_on=(anchor.partition,) if anchor else (),
                )
            )  # fmt: skip
    return planned


def _planned(
    world: World,
    request: BackfillRequest,
    partition: Partition,
    state: State,
    *,
    out: str | None,
    record: PartitionRecord | None,
    changed: tuple[str, ...],
    inputs: Inputs,
    as_of: date | None,
    version: str | None,
    blocked: str | None = None,
    depends_on: tuple[Partition, ...] = (),
) -> PlannedPartition:
    selected = state in _SELECTED[request.select]
    why = out or _described(state, record, changed)
    if out is None and not selected and state != "done":
        why += f"; select {state} or all makes it"
    elif out is None and selected and blocked:
        why = blocked
    included = out is None and selected and not blocked
    return PlannedPartition(
        partition=partition,
        state=state,
        included=included,
        blocked=out is None and selected and blocked is not None,
        why=why,
        depends_on=depends_on,
        changed=changed if state == "stale" else (),
        version=version,
        as_of=as_of,
        inputs=inputs,
        seconds=world.estimate(partition.step, partition.model) if included else None,
    )


def _state(world: World, record: PartitionRecord | None, *, there: bool, changed: tuple[str, ...]) -> State:
    if world.running(record):
        return "running"
    if there and not changed:
        return "done"
    if record is not None and record.status == "failed":
        return "failed"
    return "stale" if there else "missing"


def _described(state: State, record: PartitionRecord | None, changed: tuple[str, ...]) -> str:
    match state:
        case "done":
            return "done"
        case "running":
            return "another backfill is making it, and is waited for"
        case "failed":
            times = record.attempts if record else 1
            return f"failed {'once' if times == 1 else f'{times} times'}: {record.error if record else 'unknown'}"
        case "stale":
            return "; ".join(_CHANGES[name] for name in changed)
    if record is not None and record.version is not None:
        return "made before, but not there any more"
    return "killed before it was finished" if record is not None else "never made"


def _last_date(world: World, month: str, coming: dict[str, Partition]) -> date | None:
    """Return the as-of date of a retrain: the last date of the month that the cube has, or will have."""
    held, sessions = world.held_in(month), world.sessions_in(month)
    if month in coming and sessions:
        return max((sessions[-1], *held[-1:]))
    return held[-1] if held else None


def _no_retrain(
    world: World, request: BackfillRequest, month: str, as_of: date | None, coming: dict[str, Partition]
) -> str | None:
    """Say why a month cannot be retrained; None if it can."""
    sessions = world.sessions_in(month)
    last = sessions[-1] if sessions else span_of(month)[1]
    if last < world.first_refit:
        return f"before walk_forward.first ({world.first_refit})"
    if last > world.today:
        return "period not over"
    if as_of is None:
        return "no data yet"
    if as_of < last and month not in coming and month_of(world.held[-1]) == month:
        return f"period not over: the cube ends on {as_of}"
    if not request.start <= as_of <= request.end:
        return "its as-of date is outside the span"
    return _not_in_panel(world, as_of)


def _no_update(
    world: World, day: date, anchor: Anchor | None, coming: dict[str, Partition], *, blocked: bool
) -> str | None:
    """Say why a date cannot be updated; None if it can."""
    if day > world.today:
        return "period not over"
    if day not in world.holds and month_of(day) not in coming and not blocked:
        return "no data yet" if not world.held or day > world.held[-1] else "not in the cube"
    if anchor is None:
        early = day < world.first_refit
        return f"before walk_forward.first ({world.first_refit})" if early else "no retrain version in force"
    return "a retrain version holds this date" if anchor.as_of == day else _not_in_panel(world, day)


def _not_in_panel(world: World, day: date) -> str | None:
    return "outside panel.start and panel.end" if day in world.holds and day not in world.digests else None


def _failed_ingests(world: World, coming: dict[str, Partition]) -> list[str]:
    """Return the months inside the cube whose last ingest failed and is not tried again now."""
    first = month_of(world.held[0]) if world.held else ""
    records = world.records.get(("ingest", ""), {})
    return sorted(
        month
        for month, record in records.items()
        if record.status == "failed" and month >= first and month not in coming
    )


def _own_ingest(world: World, month: str) -> tuple[Partition, ...]:
    return (Partition(step="ingest", universe=world.universe, period=month),)


def _covered(world: World, model: str) -> dict[str, tuple[date, str]]:
    """Return, by retrain version, how far updates of today's inputs reach: date and name of the furthest."""
    reached: dict[str, tuple[date, str]] = {}
    for made in world.versions.get(model, ()):
        if not made.retrained and made.inputs == world.inputs(model, made.as_of, parent=made.root):
            reached[made.root] = max(reached.get(made.root, (date.min, "")), (made.as_of, made.version))
    return reached


def _holder(
    world: World,
    model: str,
    day: date,
    anchor: Anchor | None,
    record: PartitionRecord | None,
    covered: dict[str, tuple[date, str]],
) -> str | None:
    """Return the version that holds the rows of a date; None if there is none."""
    if anchor is not None and anchor.as_of == day:
        return anchor.version
    if record is not None and record.version in world.version_names.get(model, frozenset()):
        return record.version
    reach = covered.get(anchor.version or "") if anchor else None
    return reach[1] if reach and reach[0] >= day else None
