"""The planner of backfills: every partition in one state, in or out for a reason; batches; no disk, no Prefect."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.backfill import STEPS, BackfillPlan, BackfillRequest, Inputs, Made, PartitionRecord, PlannedPartition
from storage.sources import sessions
from tasks.backfilling.deciding.batches import batches_of
from tasks.backfilling.deciding.partitions import make_plan
from tasks.backfilling.deciding.world import World, month_of, months

NOW = datetime(2017, 1, 15, 12, tzinfo=UTC)
DAYS = tuple(stamp.date() for stamp in sessions("XNYS", date(2016, 1, 1), date(2016, 12, 31)))
MODELS = ("market", "pca")
CODES = {("ingest", ""): "c1"} | {(step, model): "c1" for step in ("retrain", "update") for model in MODELS}
LAST = {month: [day for day in DAYS if month_of(day) == month][-1] for month in months(DAYS[0], DAYS[-1])}


def world(until: date = date(2016, 10, 14), **changes) -> World:
    """Give a year of sessions, a cube up to a date, refits from June on."""
    held = tuple(day for day in DAYS if day <= until)
    facts = {
        "universe": "small",
        "models": MODELS,
        "first_refit": date(2016, 6, 30),
        "today": date(2016, 12, 31),
        "sessions": DAYS,
        "held": held,
        "digests": {day: f"d{day}" for day in held},
        "codes": CODES,
        "configs": {"": "ci", "market": "cm", "pca": "cp"},
        "source": "s1",
    }
    return World(**{**facts, **changes})


def request(**changes) -> BackfillRequest:
    return BackfillRequest(**{"start": "2016-01-01", "end": "2016-12-31", **changes})


def plan(state: World, **changes) -> BackfillPlan:
    return make_plan(state, request(**changes), snapshot_id="S", now=NOW)


def made(state: World, model: str, as_of: date, root: str | None = None, **changes) -> Made:
    """Give a version as a run of today's inputs would have made it."""
    now = state.inputs(model, as_of, parent=root)
    name = f"{as_of}-{'00000001' if root else '00000000'}"
    facts = {"version": name, "as_of": as_of, "root": root or name, "inputs": now, "created_at": NOW}
    return Made(**{**facts, **changes})


def record(inputs: Inputs | None = None, **changes) -> PartitionRecord:
    return PartitionRecord(
        **{"status": "done", "attempts": 1, "lock": "x", "started_at": NOW, "inputs": inputs, **changes}
    )


def of(found: BackfillPlan, step: str, model: str, period: str) -> PlannedPartition:
    (one,) = [
        item
        for item in found.partitions
        if (item.partition.step, item.partition.model, item.partition.period) == (step, model, period)
    ]
    return one


def with_retrains(state: World, *ends: str, model: str = "market", **changes) -> World:
    versions = [made(state, model, LAST[month], **changes) for month in ends]
    return replace(state, versions={**state.versions, model: [*state.versions.get(model, ()), *versions]})


def test_the_first_backfill_makes_every_period_that_is_over_and_says_why_it_leaves_out_others() -> None:
    found = plan(world())
    assert of(found, "ingest", "", "2016-03").state == "done"
    assert (of(found, "ingest", "", "2016-10").state, of(found, "ingest", "", "2016-10").included) == ("missing", True)
    assert of(found, "retrain", "pca", "2016-05").why == "before walk_forward.first (2016-06-30)"
    assert of(found, "retrain", "pca", "2016-06").as_of == date(2016, 6, 30)
    assert of(found, "update", "market", "2016-06-29").why == "before walk_forward.first (2016-06-30)"
    assert of(found, "update", "market", "2016-06-30").why == "a retrain version holds this date"
    after = of(found, "update", "market", "2016-08-15")
    assert after.included
    assert [str(needed) for needed in after.depends_on] == ["retrain market 2016-07"]
    assert str(of(found, "retrain", "market", "2016-11").depends_on[0]) == "ingest 2016-11"


def test_without_an_ingest_dates_that_are_not_there_are_left_out() -> None:
    found = plan(world(), what="retrain")
    assert of(found, "retrain", "pca", "2016-10").why == "period not over: the cube ends on 2016-10-14"
    assert of(found, "retrain", "pca", "2016-11").why == "no data yet"
    found = plan(world(today=date(2016, 11, 10)), what="update")
    assert of(found, "update", "pca", "2016-11-08").why == "no data yet"
    assert of(found, "update", "pca", "2016-11-11").why == "period not over"
    assert of(found, "update", "pca", "2016-08-01").why == "no retrain version in force"
    assert of(found, "update", "pca", "2016-06-01").why == "before walk_forward.first (2016-06-30)"
    gone = world()
    found = plan(replace(gone, held=tuple(day for day in gone.held if day != date(2016, 8, 1))), what="update")
    assert of(found, "update", "pca", "2016-08-01").why == "not in the cube"


def test_a_date_outside_the_panel_is_left_out() -> None:
    state = world()
    cut = replace(state, digests={day: digest for day, digest in state.digests.items() if day < date(2016, 8, 1)})
    assert of(plan(cut, what="retrain"), "retrain", "pca", "2016-08").why == "outside panel.start and panel.end"


@pytest.mark.parametrize("name", ["data", "code", "config"])
def test_stale_names_the_input_that_changed(name: str) -> None:
    state = with_retrains(world(), "2016-06", "2016-07")
    changed = {
        "data": {"digests": {day: f"d{day}" if day < date(2016, 7, 5) else f"e{day}" for day in state.held}},
        "code": {"codes": {**state.codes, ("retrain", "market"): "c2"}},
        "config": {"configs": {**state.configs, "market": "other"}},
    }[name]
    found = plan(replace(state, **changed), what="retrain", models=["market"])
    july = of(found, "retrain", "market", "2016-07")
    assert (july.state, july.changed, july.included) == ("stale", (name,), False)
    assert july.version == f"{LAST['2016-07']}-00000000"
    june = of(found, "retrain", "market", "2016-06")
    assert june.state == ("done" if name == "data" else "stale")
    assert of(plan(replace(state, **changed), what="retrain", select="stale"), "retrain", "market", "2016-07").included


def test_other_code_makes_stale_what_it_makes_and_nothing_else() -> None:
    state = with_retrains(with_retrains(world(), "2016-06"), "2016-06", model="pca")
    parent = {model: state.versions[model][0].version for model in MODELS}
    day = date(2016, 7, 20)
    versions = {model: [*state.versions[model], made(state, model, day, root=parent[model])] for model in MODELS}
    records = {
        ("ingest", ""): {"2016-07": record(Inputs(data="s1", code="c1", config="ci"), version="S", dates=1)},
        **{
            ("update", model): {str(day): record(state.inputs(model, day, parent[model]), version=found[-1].version)}
            for model, found in versions.items()
        },
    }
    state = replace(state, versions=versions, records=records)
    partitions = [("ingest", "", "2016-07")]
    partitions += [(step, model, at) for model in MODELS for step, at in (("retrain", "2016-06"), ("update", str(day)))]
    for edited in state.codes:
        found = plan(replace(state, codes={**state.codes, edited: "c2"}))
        stale = {at[:2] for at in partitions if of(found, *at).state == "stale"}
        assert stale == {edited}


def test_an_update_is_stale_from_the_restated_date_on_and_when_another_retrain_is_in_force() -> None:
    state = with_retrains(world(), "2016-06")
    parent = state.versions["market"][0].version
    days = [day for day in state.held if date(2016, 6, 30) < day <= date(2016, 7, 29)]
    version = made(state, "market", days[-1], root=parent)
    records = {str(day): record(state.inputs("market", day, parent=parent), version=version.version) for day in days}
    state = replace(
        state,
        versions={"market": [*state.versions["market"], version]},
        records={("update", "market"): records},
    )
    found = plan(state, what="update", models=["market"])
    assert {of(found, "update", "market", str(day)).state for day in days} == {"done"}
    restated = replace(state, digests={day: f"e{day}" if day >= days[7] else f"d{day}" for day in state.held})
    found = plan(restated, what="update", models=["market"])
    states = [of(found, "update", "market", str(day)).state for day in days]
    assert states == ["done"] * 7 + ["stale"] * (len(days) - 7)
    other = Made(
        version="2016-06-30-ffffffff", as_of=date(2016, 6, 30), root="2016-06-30-ffffffff",
        inputs=state.inputs("market", date(2016, 6, 30)), created_at=NOW + timedelta(days=1),
    )  # fmt: skip
    found = plan(replace(state, versions={"market": [*state.versions["market"], other]}), what="update")
    first = of(found, "update", "market", str(days[0]))
    assert (first.state, first.changed, first.why) == (
        "stale", ("parent",), "another retrain version is in force; select stale or all makes it",
    )  # fmt: skip


def test_what_a_scheduled_run_made_counts_without_a_record() -> None:
    state = with_retrains(world(), "2016-06")
    parent = state.versions["market"][0].version
    daily = made(state, "market", date(2016, 7, 20), root=parent)
    state = replace(state, versions={"market": [*state.versions["market"], daily]})
    found = plan(state, what="update", models=["market"])
    assert of(found, "update", "market", "2016-07-20").state == "done"
    assert of(found, "update", "market", "2016-07-05").version == daily.version
    assert of(found, "update", "market", "2016-07-21").included


def test_a_version_that_was_removed_is_missing_again() -> None:
    state = world()
    known = record(state.inputs("market", LAST["2016-07"]), version=f"{LAST['2016-07']}-00000000")
    found = plan(replace(state, records={("retrain", "market"): {"2016-07": known}}), what="retrain")
    july = of(found, "retrain", "market", "2016-07")
    assert (july.state, july.why) == ("missing", "made before, but not there any more")


def test_a_failure_blocks_what_depends_on_it_and_nothing_else() -> None:
    broken = record(status="failed", error="singular", attempts=2)
    state = with_retrains(world(), "2016-06", "2016-08")
    state = replace(state, records={("retrain", "market"): {"2016-07": broken}})
    july = of(plan(state, what="retrain"), "retrain", "market", "2016-07")
    assert (july.state, july.included) == ("failed", False)
    assert july.why == "failed 2 times: singular; select failed or all makes it"
    found = plan(state, what="update", models=["market"])
    assert of(found, "update", "market", "2016-07-20").included
    blocked = of(found, "update", "market", "2016-08-10")
    assert (blocked.blocked, blocked.included, blocked.why) == (True, False, "retrain market 2016-07 failed")
    assert of(found, "update", "market", "2016-09-12").included
    assert of(plan(state, what="all", select="failed"), "retrain", "market", "2016-07").included


def test_a_failed_ingest_blocks_the_retrains_of_its_month_and_after() -> None:
    broken = record(status="failed", error="half of the tickers are gone")
    found = plan(replace(world(), records={("ingest", ""): {"2016-08": broken}}), what="retrain")
    assert of(found, "retrain", "pca", "2016-07").included
    assert of(found, "retrain", "pca", "2016-08").why == "the ingest of 2016-08 failed"
    assert of(found, "retrain", "pca", "2016-09").blocked
    state = replace(with_retrains(world(), "2016-06"), records={("ingest", ""): {"2016-08": broken}})
    found = plan(state, what="update", models=["market"])
    assert of(found, "update", "market", "2016-07-20").included
    assert of(found, "update", "market", "2016-09-12").blocked, "it must not continue a fit from before the gap"
    before = plan(replace(world(), records={("ingest", ""): {"2015-08": broken}}), what="retrain")
    assert of(before, "retrain", "pca", "2016-07").included, "a month before the cube begins is no part of it"


def test_running_counts_only_while_its_lock_is_held() -> None:
    going = record(status="running", lock="retrain-market-2016-07")
    state = replace(world(), records={("retrain", "market"): {"2016-07": going}})
    dead = of(plan(state, what="retrain"), "retrain", "market", "2016-07")
    assert (dead.state, dead.why) == ("missing", "killed before it was finished")
    alive = of(plan(replace(state, held_locks=frozenset({going.lock})), what="retrain"), "retrain", "market", "2016-07")
    assert (alive.state, alive.included) == ("running", True)


def test_an_estimate_is_the_median_of_like_partitions_or_unknown() -> None:
    times = {f"2016-0{n}": record(seconds=float(n), version="gone") for n in (1, 2, 6)}
    found = plan(replace(world(), records={("retrain", "market"): times}), what="retrain")
    assert of(found, "retrain", "market", "2016-08").seconds == 2.0
    assert of(found, "retrain", "pca", "2016-08").seconds is None
    assert found.seconds == 2.0 * sum(item.partition.model == "market" for item in found.included)


def test_batches_join_what_one_piece_of_work_makes() -> None:
    state = with_retrains(with_retrains(world(), "2016-06", "2016-08"), "2016-06", model="pca")
    found = plan(state, what="update")
    batches = batches_of(found.included, backward=False)
    assert [batch.label for batch in batches] == [
        "update market 2016-07-01 to 2016-08-30",
        "update pca 2016-07-01 to 2016-10-14",
        "update market 2016-09-01 to 2016-10-14",
    ]
    assert batches_of(found.included, backward=True) == batches[::-1]
    assert len({lock for batch in batches for lock in batch.locks}) == 3
    months_of = batches_of(plan(world(), what="retrain").included, backward=False)
    assert [batch.models for batch in months_of] == [MODELS] * 4
    later = world(held=tuple(day for day in DAYS if not date(2016, 3, 5) < day < date(2016, 5, 5)))
    assert [batch.label for batch in batches_of(plan(later, what="ingest").included, backward=False)] == [
        "ingest 2016-03 to 2016-05"
    ]


def test_a_batch_that_failed_is_split_down_to_single_partitions_but_a_stretch_is_not() -> None:
    (batch,) = batches_of(plan(world(held=()), what="ingest").included, backward=False)
    pieces = [batch]
    while any(piece.halves() for piece in pieces):
        pieces = [part for piece in pieces for part in (piece.halves() or (piece,))]
    assert [piece.label for piece in pieces] == [f"ingest 2016-{month:02d}" for month in range(1, 13)]
    state = with_retrains(world(), "2016-06")
    stretch = batches_of(plan(state, what="update", models=["market"]).included, backward=False)[0]
    assert not stretch.halves()


def test_a_span_must_be_in_order() -> None:
    with pytest.raises(ValidationError, match="start 2016-05-01 is after end 2016-04-01"):
        request(start="2016-05-01", end="2016-04-01")


MONTHS = months(DAYS[0], DAYS[-1])
INPUTS = st.sampled_from(["same", "data", "code", "none"])


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Any history: dates missing from the cube, versions there or not, records of every status."""
    until = draw(st.sampled_from(DAYS))
    state = world(until)
    holes = draw(st.sets(st.sampled_from(DAYS), max_size=5))
    state = replace(state, held=tuple(day for day in state.held if day not in holes))
    for model in MODELS:
        for month in draw(st.sets(st.sampled_from(MONTHS), max_size=5)):
            held = state.held_in(month)
            if held:
                other = {} if draw(st.booleans()) else {"inputs": Inputs(data="x", code="c0", config="cm")}
                state = replace(
                    state,
                    versions={
                        **state.versions,
                        model: [*state.versions.get(model, ()), made(state, model, held[-1], **other)],
                    },
                )
    records = {}
    for step, model, periods in [
        ("ingest", "", MONTHS),
        *((step, model, kind) for model in MODELS for step, kind in (("retrain", MONTHS), ("update", DAYS))),
    ]:
        found = {}
        for period in draw(st.sets(st.sampled_from(periods), max_size=6)):
            status = draw(st.sampled_from(["running", "done", "failed"]))
            names = [version.version for version in state.versions.get(model, ())] or ["gone"]
            found[str(period)] = record(
                draw(st.sampled_from([None, Inputs(data="x", code="c1", config="")])),
                status=status, version=draw(st.sampled_from([*names, None])), lock=draw(st.sampled_from(["a", "b"])),
                error="broken" if status == "failed" else None, dates=draw(st.sampled_from([None, 0, 5])),
            )  # fmt: skip
        records[step, model] = found
    return replace(state, records=records, held_locks=draw(st.sampled_from([frozenset(), frozenset("a")])))


@st.composite
def requests(draw: st.DrawFn) -> BackfillRequest:
    start, end = sorted(draw(st.lists(st.sampled_from(DAYS), min_size=2, max_size=2)))
    return BackfillRequest(
        what=draw(st.sampled_from(["all", *STEPS])),
        start=start,
        end=end,
        models=draw(st.sampled_from([(), ("pca",)])),
        select=draw(st.sampled_from(["missing", "failed", "missing_and_failed", "stale", "all"])),
    )


@settings(max_examples=60, deadline=None)
@given(worlds(), requests())
def test_any_plan_is_complete_consistent_and_never_depends_on_the_future(state: World, asked: BackfillRequest) -> None:
    state = replace(state, models=asked.models or MODELS)
    found = make_plan(state, asked, snapshot_id=None, now=NOW)
    partitions = [item.partition for item in found.partitions]
    assert len(set(partitions)) == len(partitions)
    touched = months(asked.start, asked.end)
    days = [day for day in DAYS if asked.start <= day <= asked.end]
    expected = {
        "ingest": len(touched),
        "retrain": len(touched) * len(state.models),
        "update": len(days) * len(state.models),
    }
    for step in STEPS:
        count = sum(partition.step == step for partition in partitions)
        assert count == (expected[step] if step in asked.steps else 0)
    chosen = {"missing": {"missing", "running"}, "failed": {"failed"}, "stale": {"stale"}}
    chosen["missing_and_failed"] = chosen["missing"] | chosen["failed"]
    for item in found.partitions:
        assert item.why
        assert not (item.included and item.blocked)
        if item.included or item.blocked:
            assert asked.select == "all" or item.state in chosen[asked.select]
        assert bool(item.changed) == (item.state == "stale")
        for needed in item.depends_on:
            assert STEPS.index(needed.step) < STEPS.index(item.partition.step)
            assert needed.period <= item.partition.period
    for step in STEPS:
        included = [item for item in found.included if item.partition.step == step]
        batches = batches_of(included, backward=asked.direction == "backward")
        assert sorted(str(item.partition) for batch in batches for item in batch.planned) == sorted(
            str(item.partition) for item in included
        )
        for batch in batches:
            assert all(one.partition.period <= two.partition.period for one, two in pairwise(batch.planned))


@settings(max_examples=50, deadline=None)
@given(worlds())
def test_what_the_selections_make_together_is_what_all_makes_beside_what_is_done(state: World) -> None:
    def chosen(select: str) -> set[str]:
        found = make_plan(state, request(what="retrain", select=select), snapshot_id=None, now=NOW)
        return {str(item.partition) for item in found.included if select != "all" or item.state != "done"}

    assert chosen("missing") | chosen("failed") | chosen("stale") == chosen("all")
    assert not chosen("missing") & chosen("failed")
    assert chosen("missing") | chosen("failed") == chosen("missing_and_failed")
