"""The same content gives the same version, whatever deliveries it came in (P9)."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from small_market import SMALL

from models.deliveries import as_record, tidied
from schemas.checks import CheckReport
from schemas.contracts import Ingest
from schemas.refs import SnapshotRef
from schemas.spec import RunSpec
from storage.cube import Cube
from storage.layout import Layout
from tasks import delivering
from tasks.committing import derived_of
from tasks.delivering import Delivery, State, left_of
from tasks.digests import read_inputs
from tasks.naming import planned_version
from tasks.workspace import Workspace

DATES = pd.bdate_range("2024-01-01", periods=60).as_unit("ns")
TICKERS = ["A", "B", "C", "D", "E"]
SPEC = RunSpec.parse(
    {
        **SMALL,
        "universe": "us",
        "calendar": "none",
        "characteristics": ["mom1m", "maxret", "dolvol"],
        "portfolios": [{"kind": "equal_weight"}, {"kind": "inverse_volatility", "window": 10}],
    },
    origin="test",
)
PASSED = CheckReport(results=())


def market() -> xr.Dataset:
    draw = np.random.default_rng(0)
    shape = (len(DATES), len(TICKERS))
    close = np.exp(draw.normal(0.0, 0.02, shape).cumsum(axis=0) + 3.0)
    close[draw.random(shape) < 0.02] = np.nan
    close[:25, 2] = np.nan  # listed later
    fields = {"close": close, "volume": draw.integers(1000, 9000, shape).astype(float)}
    rows = xr.Dataset({name: (("date", "ticker"), values) for name, values in fields.items()})
    groups = xr.Dataset({"industry": (("date", "ticker"), np.tile([1, 0, 2, 0, 1], (60, 1)).astype(np.int32))})
    labels = {"date": DATES, "ticker": TICKERS}
    rates = xr.Dataset({"risk_free": ("date", np.linspace(1e-5, 2e-5, 60))}, {"date": DATES})
    return as_record(
        rows.assign_coords(labels),
        rates,
        groups.assign_coords(labels | {"industry_name": ["bank", "oil", "tech"]}),
    )


TRUTH = market()
Parts = list[tuple[str, xr.Dataset]]


def put(root: Path, parts: Parts, spec: RunSpec = SPEC) -> SnapshotRef:
    """Commit the first delivery, which decides the order of tickers, and what the record says after the last."""
    cube = Cube.open_or_create(Layout(root), "us")
    state = State.of(cube)
    for number, (kind, rows) in enumerate(parts):
        delivery = Delivery(rows, kind, spec.recipe, root)  # type: ignore[arg-type]
        recipe = delivery.recipe.beside(state.recipe)
        new = Ingest(ingest_key=f"{number}", kind=kind, spans=(delivery.span,))  # type: ignore[arg-type]
        record, ingests = tidied(delivery.on(state)[0]), left_of(state.ingests, new, ())
        if number in (0, len(parts) - 1):
            facts = {
                "recipe": recipe.model_dump(mode="json"),
                "ingests": [one.model_dump(mode="json") for one in ingests],
            }
            folder = root / f"derived-{number}"
            folder.mkdir(parents=True)
            derived = derived_of(record, recipe, PASSED, folder)
            commit = cube.replace(derived, record, onto=state.snapshot_id, message="test", metadata=facts)
            state = State.of(cube)
        else:
            state = replace(state, record=record, ingests=ingests)
    return SnapshotRef(universe="us", snapshot_id=commit.snapshot_id, ingest_key="i", checks_key="c")


def named(root: Path, snapshot: SnapshotRef) -> tuple[str, dict[date, str]]:
    inputs = read_inputs(Workspace(root), SPEC, snapshot)
    digests = dict(zip(inputs.dates.date, inputs.digests, strict=True))
    return planned_version(Workspace(root), SPEC, SPEC.models[0], snapshot, None).version, digests


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[date, str]]:
    """Name the version and the digests of one full delivery into a fresh root."""
    root = tmp_path_factory.mktemp("fresh")
    return named(root, put(root, [("full", TRUTH)]))


@st.composite
def spans(draw: st.DrawFn, overlap: int) -> list[slice]:
    """Cut all dates into spans, in any order, each reaching some dates into the next one."""
    cuts = sorted(draw(st.sets(st.integers(5, 55), max_size=3)))
    bounds = zip([0, *cuts], [*cuts, 60], strict=True)
    return draw(st.permutations([slice(first, min(last + overlap, 60)) for first, last in bounds]))


@st.composite
def spoilt(draw: st.DrawFn) -> xr.Dataset:
    """Spoil a window: prices on another basis, a wrong price or date, a ticker too many, misnamed or missing."""
    rows = TRUTH.isel(date=slice(draw(st.integers(0, 30)), draw(st.integers(35, 60)))).copy(deep=True)
    match draw(st.sampled_from(["basis", "price", "extra", "renamed", "missing", "date"])):
        case "basis":
            rows["close"] = rows["close"] * 0.5
        case "price":
            rows["close"][7, 1] *= 1.3
        case "extra":
            more = rows.isel(ticker=[1]).assign_coords(ticker=["A0"])
            rows = xr.concat([rows, more], "ticker", data_vars="minimal", coords="minimal", compat="override")
        case "renamed":
            rows = rows.assign_coords(ticker=["A", "Z", "C", "D", "E"])
        case "missing":
            rows = rows.isel(ticker=[0, 1, 3])
        case "date":
            dates = rows.indexes["date"]
            friday = int(np.flatnonzero(dates.day_of_week == 4)[0])
            rows = rows.assign_coords(
                date=dates.where(np.arange(len(dates)) != friday, dates[friday] + pd.Timedelta("1D"))
            )
    return rows


@st.composite
def deliveries(draw: st.DrawFn) -> Parts:
    """Deliver in any order, in such a way that the truth is all that is left in the end."""
    wrong = draw(st.lists(spoilt(), max_size=2))
    if not wrong and draw(st.booleans()):
        pieces = [("increment", TRUTH.isel(date=span)) for span in draw(spans(draw(st.integers(0, 4))))]
    else:
        pieces = [("full", TRUTH.isel(date=span)) for span in draw(spans(1))]
    order = draw(st.permutations(range(5)))
    return [("full", rows) for rows in wrong] + [(kind, rows.isel(ticker=order)) for kind, rows in pieces]


@settings(
    max_examples=5,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(parts=deliveries())
def test_any_order_of_deliveries_that_ends_in_the_same_content_gives_the_version_of_a_fresh_root(
    parts: Parts, fresh: tuple[str, dict[date, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("deliveries")
    snapshot = put(root, parts)
    assert named(root, snapshot) == fresh
    held = Cube.open(Layout(root), "us").open_dataset(snapshot.snapshot_id)
    sums = held["weights"].astype(np.float64).sum("ticker", skipna=False)
    np.testing.assert_allclose(sums.values[np.isfinite(sums.values)], 1.0, atol=1e-6)


@settings(
    max_examples=20,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(parts=deliveries())
def test_a_record_made_some_tickers_at_a_time_is_that_made_at_once(parts: Parts, tmp_path: Path) -> None:
    """Of a market that does not fit into memory; nothing of the record before is loaded."""
    state = State(None, None, SPEC.recipe, (), pd.DatetimeIndex([]))
    for number, (kind, rows) in enumerate(parts):
        delivery = Delivery(rows, kind, SPEC.recipe, tmp_path)  # type: ignore[arg-type]
        at_once, moved = delivery.on(state)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(delivering, "width_of", lambda _dates: 2)
            in_blocks, moved_in_blocks = delivery.on(state)
        xr.testing.assert_identical(tidied(in_blocks).load(), tidied(at_once))
        assert moved_in_blocks == moved
        new = Ingest(ingest_key=f"{number}", kind=kind, spans=(delivery.span,))  # type: ignore[arg-type]
        state = replace(state, record=tidied(at_once), ingests=left_of(state.ingests, new, ()))
