"""The pass over a panel that gathers its Gram statistics: from Zarr, from memory, on one and two Dask workers.

The panel is simulated: 94 characteristics, ranked, in float32, of 2,000 stocks of which nine in ten have a row. It is
kept as `retrain` keeps it, in whole blocks of the store, an even number of them: an odd block would keep one of two
workers waiting, whatever they cost. The peer is the product's own pass over the same arrays in memory.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from uuid import uuid4

import numpy as np
import pandas as pd
import xarray as xr

from benchmarks.harness import Row, measure
from models import Panel
from models.statistics.gram import Design, gram_of
from models.statistics.spans import spans
from schemas.refs import PanelRef, SnapshotRef
from schemas.settings import Settings
from schemas.spec import RunSpec
from storage.work import Kind
from tasks.cluster import open_cluster
from tasks.grams import make_span
from tasks.panels import Sample
from tasks.workspace import Workspace

STOCKS, CHARS = 2_000, 94
DATES = (64, 256, 1024)
WORKER_REPEATS = 3
QUICK_STOCKS, QUICK_DATES = 200, (16, 64, 256)
_SPEC = RunSpec.parse(
    {
        "universe": "simulated",
        "data": {"shape": "long_prices", "origin": {"kind": "files", "paths": ["none.parquet"]}},
        "models": [{"kind": "fama_macbeth"}],
        "portfolios": [{"kind": "equal_weight"}],
        "walk_forward": {"first": "2001-01-01"},
    },
    origin="benchmark",
)


def run(*, quick: bool) -> list[Row]:
    """Time the three passes, each on the same stored panels."""
    stocks, sizes = (QUICK_STOCKS, QUICK_DATES) if quick else (STOCKS, DATES)
    design = Design(tuple(f"c{n}" for n in range(CHARS)))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        samples = {n_dates: Sample(Workspace(root), _stored_panel(root, n_dates, stocks), _SPEC) for n_dates in sizes}
        rows = [_against_memory(samples[sizes[1]], design, _size(sizes[1], stocks))]
        rows += [_flat(samples[n], design, n, sizes[0], _size(n, stocks)) for n in sizes]
        rows.append(_workers(samples[sizes[2]], design, sizes[2], _size(sizes[2], stocks)))
    return rows


def _size(n_dates: int, stocks: int) -> str:
    return f"{n_dates:,} dates x {stocks:,} stocks x {CHARS} characteristics"


def _stored_panel(root: Path, n_dates: int, stocks: int) -> PanelRef:
    """Simulate a panel block by block, and keep it in the work store with digests of its dates."""
    work = Workspace(root).work
    dates = pd.bdate_range("2000-01-03", periods=n_dates + 1)
    name = f"dates{n_dates}"
    facts = {
        "dates": [f"{day:%Y-%m-%d}" for day in dates[:-1]],
        "digests": [f"{name}-{n}" for n in range(n_dates)],
        "tickers": [f"S{n}" for n in range(stocks)],
    }
    work.put_arrays(Kind.DIGESTS, name, {"first_seen": np.zeros(stocks, dtype=np.int64)}, facts)
    work.put_dataset(Kind.PANELS, name, _simulated(dates, stocks))
    return PanelRef(
        universe="simulated",
        key=name,
        inputs=name,
        snapshot=SnapshotRef(universe="simulated", snapshot_id="none", ingest_key="none", checks_key="none"),
        as_of=dates[-2].date(),
        next_date=date(2100, 1, 1),
    )


def _simulated(dates: pd.DatetimeIndex, stocks: int, block: int = 16) -> Iterator[xr.Dataset]:
    rng = np.random.default_rng(0)
    for start in range(0, len(dates), block):
        days = dates[start : start + block]
        rank = rng.integers(0, stocks, (len(days), stocks, CHARS)).astype(np.float32) / np.float32(stocks) - 0.5
        rank[rng.random(rank.shape[:2]) < 0.1] = np.nan
        returns = 0.02 * rng.standard_normal(rank.shape[:2], dtype=np.float32)
        chars = [f"c{n}" for n in range(CHARS)]
        yield Panel.from_arrays(returns, rank, dates=days, chars=chars).data


def _against_memory(sample: Sample, design: Design, size: str) -> Row:
    stored = Panel(sample.space.work.open_dataset(Kind.PANELS, sample.panel.key))
    from_zarr = measure(lambda: gram_of(stored, design), repeats=3)
    loaded = stored.load()
    from_memory = measure(lambda: gram_of(loaded, design), repeats=3)
    same = from_zarr.value.zz.tobytes() == from_memory.value.zz.tobytes()
    return Row(
        f"Gram pass from Zarr, {size}",
        from_zarr.seconds,
        "the same pass from memory",
        from_memory.seconds,
        note="the same bits" if same else "DIFFERENT BITS",
        target=0.5,
        ours_peak_bytes=from_zarr.peak_bytes,
        peer_peak_bytes=from_memory.peak_bytes,
    )


def _flat(sample: Sample, design: Design, n_dates: int, least: int, size: str) -> Row:
    """Build the Gram store in this process, span by span, and take its peak memory."""

    def build() -> None:
        for start, stop in spans(n_dates):
            make_span(sample, design, start, stop)

    built = measure(build)
    shutil.rmtree(sample.space.root / "work" / Kind.GRAMS)
    return Row(
        f"Gram store, {n_dates // least}x: {size}",
        built.seconds,
        "",
        note="built in one process; memory must not grow with the dates",
        ours_peak_bytes=built.peak_bytes,
    )


def _workers(sample: Sample, design: Design, n_dates: int, size: str) -> Row:
    one, two = (_on_workers(sample, design, n_dates, workers) for workers in (1, 2))
    bare = [_in_processes(sample, design, n_dates, processes) for processes in (1, 2)]
    return Row(
        f"Gram store on 2 Dask workers, {size}",
        two,
        "1 Dask worker",
        one,
        note="worker processes of one thread each, started and warm; "
        f"2 processes without Dask are {bare[0] / bare[1]:.3g} times as fast as 1",
        target=1.7,
    )


def _on_workers(sample: Sample, design: Design, n_dates: int, workers: int) -> float:
    """Seconds that a cluster takes to build the store."""

    def build() -> None:
        futures = [
            cluster.submit(make_span, sample, design, start, stop, key=f"span-{uuid4().hex}")
            for start, stop in spans(n_dates)
        ]
        cluster.gather(futures, str)

    with open_cluster(Settings(root=sample.space.root, workers=workers), lambda _: None) as cluster:
        cluster.client.wait_for_workers(workers)
        return _best(sample.space.root, build)


def _in_processes(sample: Sample, design: Design, n_dates: int, processes: int) -> float:
    """Seconds that plain processes take, each with its share of the spans: what the machine gives at most."""
    shares = [list(spans(n_dates))[n::processes] for n in range(processes)]

    def build() -> None:
        for future in [pool.submit(_make_spans, sample, design, share) for share in shares]:
            future.result()

    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        return _best(sample.space.root, build)


def _make_spans(sample: Sample, design: Design, share: list[tuple[int, int]]) -> None:
    for start, stop in share:
        make_span(sample, design, start, stop)


def _best(root: Path, build: Callable[[], None]) -> float:
    """Seconds of the fastest of a few runs, each of which builds the whole store; the first one warms up."""
    seconds = []
    for _ in range(1 + WORKER_REPEATS):
        start = time.perf_counter()
        build()
        seconds.append(time.perf_counter() - start)
        shutil.rmtree(root / "work" / Kind.GRAMS)
    return min(seconds[1:])
