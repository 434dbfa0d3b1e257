"""Tables at any width: ids are whole, what may be left out goes first and is named, a pipe gets everything."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, date, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from deploy import cli_upkeep, console_backfill, console_difference, console_versions
from deploy.console_tables import Column, print_in_parts, print_table
from schemas.backfill import BackfillPlan, BackfillRequest, Partition, PlannedPartition
from schemas.differences import ArrayDifference, CovarianceDifference, InputDifference, VersionDifference
from schemas.retention import DEFAULT, Item, Plan

VERSION = "us_demo/conditional_autoencoder/2022-12-28-3f2a9c01"
MOMENT = datetime(2024, 6, 28, 18, 0, tzinfo=UTC)


def printed(show: Callable[[Console], None], width: int, *, terminal: bool = True) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    show(console)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]  # it is the one above


def champions(console: Console) -> None:
    facts = {"version": VERSION.rsplit("/", 1)[1], "promoted_at": "2024-01-02 03:04:05 UTC", "by": "somebody"}
    why = "passed the gate: total R2 out of sample 0.31 is at least 0.00"
    found = {
        VERSION.rsplit("/", 1)[0]: {**facts, "reason": why, "still": True, "there": True},
        "us/none": {"version": None},
    }
    console_versions.print_champions(console, found, MOMENT)


def plan(console: Console) -> None:
    request = BackfillRequest(start=date(2016, 1, 1), end=date(2016, 12, 31), what="all")
    needs = Partition(universe="us_demo", model="", step="ingest", period="2016-12")
    asked = {"universe": "us_demo", "model": "conditional_autoencoder", "step": "retrain"}
    partitions = tuple(
        PlannedPartition(
            partition=Partition.model_validate({**asked, "period": f"2016-{month:02d}"}),
            state="failed",
            included=True,
            why="failed 3 times: n_factors = 40 is more than the 24 stocks as of 2016-12-30",
            depends_on=(needs,),
        )
        for month in (1, 12)
    )  # fmt: skip
    made = BackfillPlan(universe="us_demo", request=request, snapshot_id=None, made_at=MOMENT, partitions=partitions)
    console_backfill.print_plan(console, made)


def difference(console: Console) -> None:
    array = ArrayDifference(
        name="portfolio_variance_systematic", identical=False, compared=123456, unmatched=12, maximum=1.2e-3, rms=1e-4,
        relative=1e-2,
    )  # fmt: skip
    found = VersionDifference(
        one=VERSION, other=VERSION, identical=False, identical_where_common=False, axes={}, arrays=(array,),
        alignment="", aligned=(), covariance=CovarianceDifference(dates=1, mean=0.1, maximum=0.2),
        portfolio_variance={},
        metrics={"forecast_volatility.equal_weight": (0.1, 0.2)},
        inputs=(InputDifference(name="config_digest", one="5e" * 32, other="6f" * 32),),
    )  # fmt: skip
    console_difference.print_difference(console, found)


def upkeep(console: Console) -> None:
    item = Item(kind="unreferenced data", name=VERSION, size_bytes=10**7, why="older than 90 days and no month's last")
    cli_upkeep._print_plan(console, Plan(rule=DEFAULT, planned_at=MOMENT, remove=(item,), keep=()), "would go")


IDS = {
    champions: [VERSION.rsplit("/", 1)[0], VERSION.rsplit("/", 1)[1], "us/none"],
    plan: ["conditional_autoencoder", "2016-01 to 2016-12", "failed", "2016-12-30"],
    difference: [
        f"A {VERSION}",
        "portfolio_variance_systematic",
        "forecast_volatility.equal_weight",
        "5e" * 32,
        "6f" * 32,
    ],
    upkeep: [VERSION, "unreferenced data"],
}


@pytest.mark.parametrize("width", [80, 60, 40])
@pytest.mark.parametrize("show", IDS, ids=lambda show: show.__name__)
def test_ids_are_whole_at_any_width(show: Callable[[Console], None], width: int) -> None:
    lines = printed(show, width)
    assert [name for name in IDS[show] if not any(name in line for line in lines)] == []
    assert "…" not in "".join(lines)


def test_versions_at_80_columns_are_one_line_each_and_a_pipe_gets_every_column(monkeypatch: pytest.MonkeyPatch) -> None:
    version = "us_demo/autoencoder/2022-12-28-3f2a9c01"
    line = {"version": version, "as_of": "2022-12-28", "champion": True, "pinned": "for the audit of the year 2022",
            "made_by": "retrain", "gate": "passed", "total_r2": 0.3123, "error": None}  # fmt: skip
    monkeypatch.setattr(console_versions, "versions_listed", lambda *_: [line])

    def show(console: Console) -> None:
        console_versions.print_versions(console, None, [None])  # type: ignore[arg-type,list-item]  # both are replaced

    at_80 = printed(show, 80)
    assert max(map(len, at_80)) <= 80
    assert any(version in text for text in at_80)
    assert at_80[-1] == "no room for: as of, made by, total R2 out of sample"
    (row,) = [text for text in printed(show, 80, terminal=False) if version in text]
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        version, "2022-12-28", "retrain", "0.3123", "passed", "yes", "for the audit of the year 2022",
    ]  # fmt: skip


words = st.text("abcdefg-0123", min_size=1, max_size=20)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(words, words, words, st.lists(words, max_size=6).map(" ".join)), min_size=1, max_size=4),
    width=st.integers(20, 140),
)
def test_whole_cells_stay_whole_text_breaks_between_words_and_what_is_left_out_is_named(
    rows: list[tuple[str, str, str, str]], width: int
) -> None:
    columns = ("version", Column("second kind", drop=2), Column("first", drop=1), Column("why so", text=True))
    lines = printed(lambda console: print_table(console, columns, rows), width)
    gone = lines[-1].removeprefix("no room for: ").split(", ") if lines[-1].startswith("no room") else []
    assert gone in ([], ["first"], ["first", "second kind"])
    for version, second, first, why in rows:
        for cell in (version, *([second] * (len(gone) < 2)), *([first] * (not gone)), *why.split()):
            assert any(cell in line for line in lines[:-1]), (cell, lines)
    if not gone:
        return
    least = (["version", *(row[0] for row in rows)], ["why", *(word for row in rows for word in row[3].split())])
    assert max(map(len, lines[:-1])) <= max(width, 1 + sum(3 + max(map(len, kept)) for kept in least))


def test_columns_of_which_none_may_go_come_in_parts_and_escape_codes_do_not_come_at_all() -> None:
    rows = [["ipca", *["12.3% (1.02)"] * 4], ["\x1b[31mrealised", *["12.3%"] * 4]]
    columns = ["model", "equal_weight", "inverse_volatility", "momentum", "tech"]
    lines = printed(lambda console: print_in_parts(console, columns, rows), 60)
    assert max(map(len, lines)) <= 60
    assert [name for name in columns if not any(name in line for line in lines)] == []
    assert sum("ipca" in line for line in lines) == 2
    assert "\x1b" not in "".join(lines)
