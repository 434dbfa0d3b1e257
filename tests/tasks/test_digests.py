"""Content digests: they follow what stands in the rows up to a date, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from small_market import SMALL
from storing import cube_data

from models.panel import digests as digests_of_rows
from schemas.refs import SnapshotRef
from schemas.spec import RunSpec
from storage import arrays
from storage.cube import Cube
from storage.layout import Layout
from tasks.digests import input_digests, read_inputs
from tasks.workspace import Workspace

DATES = pd.bdate_range("2024-01-01", periods=150)
SPEC = RunSpec.parse(
    {**SMALL, "universe": "us", "portfolios": [{"kind": "equal_weight", "name": "market"}]}, origin="test"
)


def snapshot(root: Path, *parts: xr.Dataset) -> SnapshotRef:
    cube = Cube.open_or_create(Layout(root), "us")
    for part in parts:
        commit = cube.upsert(part, message="test", metadata={})
    return SnapshotRef(universe="us", snapshot_id=commit.snapshot_id, ingest_key="i", checks_key="c")


def digests(root: Path, *parts: xr.Dataset, spec: RunSpec = SPEC) -> dict[date, str]:
    return input_digests(Workspace(root), spec, snapshot(root, *parts))


@pytest.fixture
def data() -> xr.Dataset:
    return cube_data(DATES)


def test_appended_dates_leave_the_earlier_digests(data: xr.Dataset, tmp_path: Path) -> None:
    short, rest = data.isel(date=slice(0, 100)), data.isel(date=slice(100, None))
    before = digests(tmp_path / "a", short)
    after = digests(tmp_path / "a", rest)
    assert list(before.items()) == list(after.items())[:100]
    assert after == digests(tmp_path / "b", data), "and it does not matter in how many ingests the data came"
    assert len(set(after.values())) == 150


def test_a_ticker_that_is_added_later_changes_nothing_before_it(data: xr.Dataset, tmp_path: Path) -> None:
    first, rest = data.isel(date=slice(0, 100)), cube_data(DATES[100:], ("A", "B", "C", "NEW"), seed=1)
    before = digests(tmp_path, first)
    after = digests(tmp_path, rest)
    assert list(before.values()) == list(after.values())[:100]
    inputs = read_inputs(Workspace(tmp_path), SPEC, snapshot(tmp_path, rest))
    assert dict(zip(inputs.tickers, inputs.first_seen, strict=True))["NEW"] == 100


def test_rows_that_no_commit_has_touched_are_not_read_again(
    data: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An appended date costs its own chunk, a restated one the rows from its chunk on; the digests are those of all.

    Tickers that come later have a weight of zero on all dates, which is written.
    """
    monkeypatch.setattr(arrays, "MAX_CHUNK_DATES", 32)
    read: list[int] = []
    rows_of = digests_of_rows._rows

    def counted(cube: xr.Dataset, *more: list[str]) -> Iterator[object]:
        read.append(cube.sizes["date"])
        return rows_of(cube, *more)

    monkeypatch.setattr(digests_of_rows, "_rows", counted)
    late = data.isel(date=[100]).copy(deep=True)
    late["returns"][0, 0] = 0.5
    other = data.isel(date=[149]).assign_coords(ticker=["A0", "B0", "C0"])  # they come before all others, by name
    steps = [data.isel(date=slice(0, 140)), data.isel(date=slice(140, 149)), data.isel(date=[149]), late, other]
    spec = SPEC.model_copy(update={"panel": SPEC.panel.model_copy(update={"start": DATES[20].date()})})
    for part, unread in zip(steps, (0, 128 - 20, 128 - 20, 96 - 20, 0), strict=True):
        ref = snapshot(tmp_path, part)
        found = input_digests(Workspace(tmp_path), spec, ref)
        assert read[-1] == len(found) - unread
        shutil.rmtree(tmp_path / "work")
        assert found == input_digests(Workspace(tmp_path), spec, ref)
        assert read[-1] == len(found), "nothing is known without the work store"


RESTATED = ["returns", "characteristics", "estimation", "refuted", "risk_free", "factors", "weights", "industry"]


@pytest.mark.parametrize("variable", RESTATED)
def test_a_restatement_changes_exactly_the_digests_from_its_date_on(
    variable: str, data: xr.Dataset, tmp_path: Path
) -> None:
    before = digests(tmp_path, data)
    late = data.isel(date=[70]).copy(deep=True)
    cell = late[variable].values.reshape(-1)
    if variable in ("estimation", "refuted", "industry"):
        cell[0] = 1 - cell[0]
    else:
        cell[0] = np.nextafter(cell[0], np.float32(np.inf))
    after = digests(tmp_path, late)
    same = [before[day] == after[day] for day in before]
    assert same == [True] * 70 + [False] * 80


def test_late_data_change_the_digests_from_their_date_on(data: xr.Dataset, tmp_path: Path) -> None:
    before = digests(tmp_path, data.isel(date=np.delete(np.arange(150), 70)))
    after = digests(tmp_path, data.isel(date=[70]))
    assert all((before[day] == after[day]) == (day < DATES[70].date()) for day in before)


def test_what_a_spec_does_not_use_has_no_say(data: xr.Dataset, tmp_path: Path) -> None:
    panel = SPEC.panel.model_copy(update={"characteristics": ("beta",), "start": DATES[10].date()})
    spec = SPEC.model_copy(update={"panel": panel})
    before = digests(tmp_path / "a", data, spec=spec)
    changed = data.copy(deep=True)
    changed["characteristics"].loc[{"char": "mom12m"}] = 7.0
    changed["returns"][5] = 0.5
    extra = changed["weights"].assign_coords(portfolio=["other"])
    changed = changed.drop_vars(["weights", "portfolio"]).assign(
        weights=xr.concat([data["weights"], extra], "portfolio")
    )
    assert digests(tmp_path / "b", changed, spec=spec) == before
    assert min(before) == DATES[10].date()


def test_an_industry_that_is_named_later_changes_nothing_before_it(data: xr.Dataset, tmp_path: Path) -> None:
    without = data.drop_vars(["industry", "industry_name"])
    plain = digests(tmp_path / "none", without)
    first, rest = data.isel(date=slice(0, 100)), data.isel(date=slice(100, None)).copy(deep=True)
    rest["industry"][7, 0] = 2
    rest = rest.assign_coords(industry_name=["bank", "tech", "oil"])
    before, after = digests(tmp_path / "a", first), digests(tmp_path / "a", rest)
    assert list(before.values()) == list(after.values())[:100]
    renamed = digests(tmp_path / "b", first, rest.assign_coords(industry_name=["bank", "tech", "gas"]))
    assert [after[day] == renamed[day] for day in after] == [True] * 107 + [False] * 43
    assert not set(plain.values()) & set(after.values())


def test_one_portfolio_less_or_no_portfolio_on_a_date_counts(data: xr.Dataset, tmp_path: Path) -> None:
    before = digests(tmp_path / "a", data.assign(weights=xr.zeros_like(data["weights"])))
    undefined = data.assign(weights=xr.zeros_like(data["weights"]))
    undefined["weights"][:, 100:] = np.nan
    after = digests(tmp_path / "b", undefined)
    assert [before[day] == after[day] for day in before] == [True] * 100 + [False] * 50
