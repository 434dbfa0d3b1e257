"""Small cubes, versions and entries for the tests of `storage`, and what they do in processes of their own."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import obstore
import pandas as pd
import xarray as xr

from schemas.contracts import CUBE, VERSION, GateDecision, Manifest
from storage import published
from storage.cube import Cube
from storage.layout import Layout
from storage.work import WorkStore

CHARS = ("beta", "mom12m")


def cube_data(
    dates: Sequence[Any],
    tickers: Sequence[str] = ("A", "B", "C"),
    *,
    seed: int = 0,
    portfolios: Sequence[str] = ("market",),
    chars: Sequence[str] = CHARS,
    optional: bool = True,
) -> xr.Dataset:
    """Random values for every variable of a cube."""
    draw = np.random.default_rng(seed)
    coords = {
        "date": pd.DatetimeIndex(dates).astype("datetime64[ns]"),
        "ticker": list(tickers),
        "char": list(chars),
        "observed_factor": ["smb"],
        "portfolio": list(portfolios),
        "industry_name": ["bank", "tech"],
    }
    arrays: dict[str, Any] = {}
    for name, variable in CUBE.items():
        if variable.required or optional:
            values = draw.standard_normal([len(coords[dim]) for dim in variable.dims])
            if variable.dtype == "bool":
                values = values > 0
            elif variable.dtype == "int16":
                values = np.digitize(values, [-1.0, 0.0]) - 1
            arrays[name] = (variable.dims, values.astype(variable.dtype))
    used = {dim for dims, _ in arrays.values() for dim in dims} | ({"industry_name"} if "industry" in arrays else set())
    return xr.Dataset(arrays, coords={dim: labels for dim, labels in coords.items() if dim in used})


def version_data(periods: int = 12, *, seed: int = 0, end: str = "2024-06-28", tickers: int = 4) -> xr.Dataset:
    """Random values for every variable of a published version and some statistics, with missing ones among them."""
    draw = np.random.default_rng(seed)
    coords = {
        "date": pd.bdate_range(end=end, periods=periods),
        "ticker": ["A", "<script>", "Ünïcode", *(f"T{i}" for i in range(tickers - 3))],
        "factor": ["f1", "f2"],
        "factor_": ["f1", "f2"],
        "portfolio": ["market", "momentum"],
        "char": list(CHARS),
        "level": [0.0, 0.5, 1.0],
        "rank": ["1", "last 20"],
    }
    arrays = {}
    for name, variable in VERSION.items():
        values = draw.standard_normal([len(coords[dim]) for dim in variable.dims])
        if variable.dtype == "bool":
            arrays[name] = (variable.dims, values > 0)
        else:
            arrays[name] = (variable.dims, np.where(values > 1, np.nan, values).astype(variable.dtype))
    for name, dims in {"r_squared": ("ticker",), "gamma": ("char", "factor"), "sharpe_ratio": ()}.items():
        arrays[name] = (
            dims,
            draw.standard_normal([len(coords[dim]) for dim in dims]),
            {"long_name": f"what {name} says"},
        )
    return xr.Dataset(arrays, coords=coords, attrs={"frequency": "daily", "periods_per_year": 252})


def manifest_of(dataset: xr.Dataset, *, tag: str = "0123abcd", model: str = "ipca", **changes: Any) -> Manifest:
    """Return the manifest of a version made by `version_data`."""
    as_of = dataset.indexes["date"][-1].date()
    facts: dict[str, Any] = {
        "universe": "us",
        "model": model,
        "version": f"{as_of}-{tag}",
        "as_of": as_of,
        "created_at": datetime.now(UTC),
        "input_digest": "7b" * 32,
        "snapshot_id": "6CT3GGQAMBCV3GZCBCPG",
        "ingest_key": "k",
        "sources": (),
        "code_version": "0.1.0",
        "source_version": "0.1.0",
        "config_digest": "d",
        "config": {"nested": {"list": (1, 2)}},
        "kind": "ipca",
        "params": {"n_factors": 2},
        "state_meta": {},
        "refits": (as_of,),
        "metrics": {"total_r2": 0.25, "unknown": None},
        "gate": GateDecision(passed=True, reasons=("all fine",)),
        "packages": {"numpy": np.__version__},
        "arithmetic": {"processor": "Intel(R) Xeon(R) Processor (AVX512)", "MKL_CBWR": "AVX2"},
    }
    return Manifest(**{**facts, **changes})


STATE = {"gamma": np.arange(6.0).reshape(2, 3), "count": np.int64(3)}

ONE, TWO = ("2024-06-27", "2024-06-28")


def publish_one(root: Path, end: str = ONE, seed: int = 0) -> None:
    """Publish and promote the version of one as-of date."""
    dataset = version_data(end=end, seed=seed)
    layout = Layout(root)
    ref = published.publish(layout, dataset, manifest_of(dataset, tag=f"{seed:08x}"), STATE)
    published.promote(layout, ref.universe, ref.model, ref.version, reason="test")


def first_upsert(root: Path) -> None:
    """Write ten sessions into a fresh cube."""
    Cube.open_or_create(Layout(root), "us").upsert(
        cube_data(pd.bdate_range("2024-01-01", periods=10)), message="first", metadata={}
    )


def second_upsert(root: Path) -> None:
    """Write a late date, later dates and a new ticker, so that every array is moved and grown."""
    dates = pd.DatetimeIndex(["2024-01-06", *pd.bdate_range("2024-01-10", periods=8)])
    Cube.open(Layout(root), "us").upsert(
        cube_data(dates, ("C", "A", "NEW"), seed=1, portfolios=("market", "new")), message="second", metadata={}
    )


def upsert_months(root: Path, year: int) -> None:
    """Write a year month by month, for writers side by side."""
    cube = Cube.open(Layout(root), "us")
    for month in range(1, 7):
        dates = pd.bdate_range(f"{year}-{month:02d}-01", periods=15)
        cube.upsert(cube_data(dates, seed=100 * year + month), message=f"{year}-{month}", metadata={})


def keep_work(root: Path) -> None:
    """Keep one entry of every form."""
    store = WorkStore(Layout(root))
    store.put_arrays("fits", "a" * 64, STATE, {"factors": ["f1"]})
    store.put_json("metrics", "b" * 64, {"total_r2": 0.5})
    store.put_dataset("panels", "c" * 64, cube_data(pd.bdate_range("2024-01-01", periods=600)))


def counting_writes(root: Path, act: Callable[[Any], None], argument: Any, counter: Path, since: str = "") -> None:
    """Act, and note how often Python was about to change something on the disk below `root`; see `dying_at_write`."""
    steps = on_every_write(root, since, lambda _: None)
    act(argument)
    counter.write_text(str(steps()), encoding="utf-8")


def dying_at_write(root: Path, act: Callable[[Any], None], argument: Any, last: int, since: str = "") -> None:
    """Act, and kill this process without warning just before its `last`-th change of the disk below `root`.

    Changes are counted from the first one whose paths contain `since`: Zarr's threads make folders in no fixed number.
    """
    on_every_write(root, since, lambda step: os.kill(os.getpid(), signal.SIGKILL) if step == last else None)
    act(argument)


def dying_in_icechunk(act: Callable[[Any], None], argument: Any, method: str, last: int) -> None:
    """Act, and kill this process at the `last`-th call of a method that stores or commits.

    A ``commit`` is killed just after it returned (the writer never learns of it), anything else just before.
    """
    owner = icechunk.Session if hasattr(icechunk.Session, method.removeprefix("before ")) else icechunk.IcechunkStore
    name = method.removeprefix("before ")
    original = getattr(owner, name)
    calls = 0

    def deadly(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if method == "commit":
            original(*args, **kwargs)
        if calls == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, name, deadly)
    act(argument)


def kill_at_put(last: int) -> None:
    """Kill this process when it begins to put its last object into a store."""
    put, puts = obstore.put, 0

    def deadly(*arguments: Any, **options: Any) -> Any:
        nonlocal puts
        puts += 1
        if puts >= last:
            os.kill(os.getpid(), signal.SIGKILL)
        return put(*arguments, **options)

    obstore.put = deadly


def on_every_write(root: Path, since: str, note: Callable[[int], None]) -> Callable[[], int]:
    """Call `note` with 1, 2, ... before every file opened to write, rename, link and remove."""
    steps = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal steps
        changes = event in {"os.rename", "os.symlink", "os.link", "os.remove"}
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        paths = str(args)
        if (changes or writes) and str(root) in paths and (steps or since in paths):
            steps += 1
            note(steps)

    sys.addaudithook(hook)
    return lambda: steps
