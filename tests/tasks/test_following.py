"""A delivery that follows: what is derived of the end of a market is, bit for bit, what is derived of all of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from running import ingested
from small_market import SMALL, write_config

from schemas.checks import CheckReport
from schemas.refs import SnapshotRef
from schemas.settings import Settings
from storage.configs import load_spec
from storage.cube import Cube
from storage.work import Kind
from tasks import following
from tasks.following import Tail
from tasks.workspace import Workspace

KNOWN, ALL, STOCKS = 330, 352, 14
DATES = pd.bdate_range("2015-01-01", periods=ALL)
PORTFOLIOS = [
    {"kind": "equal_weight"},
    {"kind": "inverse_volatility", "window": 20},
    {"kind": "value_weight", "value": "dollar_volume", "window": 5},
    {"kind": "long_short", "name": "spread", "characteristic": "mom1m"},
]
FIELDS = ["open", "high", "low", "close", "volume"]


Bars = dict[str, np.ndarray]


def scaled(bars: Bars, dates: slice, stock: int, ratio: float) -> None:
    """Multiply the prices of a stock."""
    for name in FIELDS[:4]:
        bars[name][dates, stock] *= ratio


def stale(bars: Bars, dates: slice, stock: int) -> None:
    """Let prices stand still."""
    for name in FIELDS[:4]:
        bars[name][dates, stock] = bars[name][dates.start, stock]


def absent(bars: Bars, dates: slice, stock: int) -> None:
    """Take rows out."""
    for values in bars.values():
        values[dates, stock] = np.nan


def other_company(bars: Bars, dates: slice, stock: int) -> None:
    """Let a ticker be away, and come back at another price."""
    absent(bars, dates, stock)
    scaled(bars, slice(dates.stop, None), stock, 3.0)


HAPPENS: dict[str, Callable[[Bars, slice, int], None]] = {
    "away": absent,
    "other": other_company,
    "late": lambda bars, dates, stock: absent(bars, slice(0, dates.start), stock),
    "gone": lambda bars, dates, stock: absent(bars, slice(dates.start, None), stock),
    "jump": lambda bars, dates, stock: scaled(bars, slice(dates.start, dates.start + 2), stock, 0.5),
    "halved": lambda bars, dates, stock: scaled(bars, slice(dates.start, None), stock, 0.5),
    "stale": stale,
    "bar": lambda bars, dates, stock: bars["low"].__setitem__((dates.start, stock), 1e6),
    "negative": lambda bars, dates, stock: bars["volume"].__setitem__((dates.start, stock), -1.0),
}
Event = tuple[str, int, int, int]
EVENTS = st.lists(
    st.tuples(
        st.sampled_from([*HAPPENS]),
        st.integers(1, STOCKS - 1),
        st.one_of(st.integers(KNOWN - 12, ALL - 1), st.integers(30, ALL - 1)),
        st.one_of(st.integers(1, 6), st.integers(20, 320)),
    ),
    min_size=2,
    max_size=9,
)
AROUND: list[Event] = [
    ("jump", 3, KNOWN - 1, 1),
    ("away", 4, 60, KNOWN + 3 - 60),
    ("other", 5, 60, KNOWN + 3 - 60),
    ("other", 6, KNOWN - 40, 45),
    ("stale", 7, KNOWN - 6, 30),
    ("halved", 8, KNOWN + 1, 1),
    ("bar", 9, KNOWN, 1),
    ("gone", 10, KNOWN - 20, 1),
    ("late", 11, KNOWN + 2, 1),
]
"""Each rule, and each thing that must be remembered, on both sides of the first new date."""
CUTS = st.sets(st.integers(KNOWN, ALL - 1), min_size=1, max_size=3)


def market(events: list[Event], seed: int) -> pd.DataFrame:
    """Bars of a market to which things happen (what, to which stock, as of a date, for so many), with industries."""
    rng = np.random.default_rng(seed)
    returns = rng.normal(0.0, 0.01, (ALL, 1)) + rng.normal(0.0, 0.012, (ALL, STOCKS))
    close = 50.0 * np.exp(returns.cumsum(axis=0))
    bars = {name: close * (1.0 + step) for name, step in zip(FIELDS[:4], (0.0, 0.004, -0.004, 0.0), strict=True)}
    bars["volume"] = rng.integers(100_000, 1_000_000, close.shape).astype(float)
    industry = np.array(["bank", "oil", "tech"])[(np.arange(STOCKS) + rng.integers(0, 300, (ALL, 1)) // 299) % 3]
    for what, stock, start, length in events:
        HAPPENS[what](bars, slice(start, start + length), stock)
    date, stock = np.nonzero(np.isfinite(bars["close"]))
    rows = {name: values[date, stock] for name, values in bars.items()} | {"industry": industry[date, stock]}
    return pd.DataFrame({"date": DATES[date], "ticker": [f"S{n:02d}" for n in stock], **rows})


def deliver(root: Path, rows: pd.DataFrame, kind: str = "increment") -> SnapshotRef:
    """Ingest some dates as a user does, from a file with that name."""
    root.mkdir(exist_ok=True)
    rows.drop(columns="industry").to_parquet(root / "prices.parquet")
    rows[["date", "ticker", "industry"]].to_parquet(root / "industries.parquet")
    origin = {"kind": "files", "paths": ["industries.parquet"]}
    changes: dict[str, Any] = {
        "calendar": "none",
        "delivery": kind,
        "portfolios": PORTFOLIOS,
        "industries": {"origin": origin, "industry": "industry", "date": "date"},
        "models": SMALL["models"][:1],
    }
    return ingested(load_spec(write_config(root, changes)), Settings(root=root / "out"))


def contents(root: Path, ref: SnapshotRef) -> tuple[xr.Dataset, xr.Dataset, CheckReport]:
    """Return cube, record and report as they are after an ingest."""
    space = Workspace.of(Settings(root=root / "out"))
    cube = Cube.open(space.layout, "small")
    record = cube.open_record(ref.snapshot_id)
    assert record is not None
    return (
        cube.open_dataset(ref.snapshot_id).load(),
        record.load(),
        CheckReport.model_validate(space.work.get_json(Kind.CHECKS, ref.checks_key)),
    )


def of_market(report: CheckReport) -> CheckReport:
    """Leave out what was checked of the cube: of a delivery that follows, that speaks of the dates written."""
    results = tuple(result for result in report.results if result.suite != "cube")
    return report.model_copy(update={"results": results, "data_docs": None})


def some(examples: int) -> settings:
    """Try so many markets."""
    checks, phases = [HealthCheck.function_scoped_fixture], [Phase.explicit, Phase.generate]
    return settings(max_examples=examples, deadline=None, phases=phases, suppress_health_check=checks)


@some(2)
@given(events=EVENTS, cuts=CUTS, seed=st.integers(0, 99))
@example(events=AROUND, cuts={KNOWN, KNOWN + 8}, seed=0)
def test_what_follows_is_what_is_derived_of_the_whole(
    events: list[Event], cuts: set[int], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    compare(events, cuts, seed, tmp_path_factory.mktemp("following"))


@pytest.mark.slow
@some(40)
@given(events=EVENTS, cuts=CUTS, seed=st.integers(0, 99))
def test_what_follows_is_what_is_derived_of_the_whole_in_many_markets(
    events: list[Event], cuts: set[int], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    compare(events, cuts, seed, tmp_path_factory.mktemp("following"))


def compare(events: list[Event], cuts: set[int], seed: int, folder: Path) -> None:
    """Ingest the same deliveries the short and the long way."""
    rows = market(events, seed)
    deliver(folder / "short", rows[rows["date"] < DATES[min(cuts)]])
    shutil.copytree(folder / "short", folder / "long")
    for start, stop in zip(sorted(cuts), [*sorted(cuts)[1:], ALL], strict=True):
        day = rows[(rows["date"] >= DATES[start]) & (rows["date"] <= DATES[stop - 1])]
        short = contents(folder / "short", deliver(folder / "short", day))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Tail, "of", classmethod(lambda *_args: None))
            long = contents(folder / "long", deliver(folder / "long", day))
        for one, other in zip(short[:2], long[:2], strict=True):
            xr.testing.assert_identical(one, other)
        assert of_market(short[2]) == of_market(long[2])


def test_a_day_that_follows_is_derived_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a new stock among its rows; a delivery that reaches back is not, nor one to a cube of another code."""
    rows = market([("late", 3, ALL - 1, 1)], 0)
    derived: list[int] = []
    whole = following.derived_of

    def counted(record: xr.Dataset, *others: Any) -> xr.Dataset:
        derived.append(record.sizes["date"])
        return whole(record, *others)

    monkeypatch.setattr(following, "derived_of", counted)
    deliver(tmp_path, rows[rows["date"] < DATES[-3]])
    assert derived == []
    deliver(tmp_path, rows[rows["date"] == DATES[-3]])
    deliver(tmp_path, rows[rows["date"] >= DATES[-2]], kind="full")
    assert len(derived) == 2
    assert max(derived) < 260
    deliver(tmp_path, rows[rows["date"] >= DATES[-5]].assign(volume=1e6))
    assert len(derived) == 2
