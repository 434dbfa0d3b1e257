"""The pass over a panel that gathers its Gram statistics: from Zarr, from memory, on one and two Dask workers.

The panel is simulated: 94 characteristics, ranked, in float32, of 2,000 stocks of which nine in ten have a row. It is
kept as `retrain` keeps it, in whole blocks of the store, an even number of them: an odd block would keep one of two
workers waiting, whatever they cost. The peer is the product's own pass over the same arrays in memory.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from benchmarks.harness import Measured, Row, measure
from models import Panel
from models.gram import Design, gram_of
from schemas.refs import PanelRef, SnapshotRef
from schemas.settings import Settings
from schemas.spec import RunSpec
from tasks.cluster import open_cluster
from tasks.grams import make_span, spans
from tasks.workspace import Workspace

STOCKS, CHARS = 2_000, 94
DATES = (64, 256, 1024)
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
        panels = {n_dates: _stored_panel(root, n_dates, stocks) for n_dates in sizes}
        rows = [_against_memory(root, panels[sizes[1]], design, _size(sizes[1], stocks))]
        rows += [_flat(root, panels[n], design, n, sizes[0], _size(n, stocks)) for n in sizes]
        rows.append(_workers(root, panels[sizes[2]], design, sizes[2], _size(sizes[2], stocks)))
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
    work.put_arrays("digests", name, {"first_seen": np.zeros(stocks, dtype=np.int64)}, facts)
    work.put_dataset("panels", name, _simulated(dates, stocks))
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


def _against_memory(root: Path, panel: PanelRef, design: Design, size: str) -> Row:
    stored = Panel(Workspace(root).work.open_dataset("panels", panel.key))
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


def _flat(root: Path, panel: PanelRef, design: Design, n_dates: int, least: int, size: str) -> Row:
    """Build the Gram store in this process, span by span, and take its peak memory."""

    def build() -> None:
        for start, stop in spans(n_dates):
            make_span(root, panel, _SPEC, design, start, stop)

    built = measure(build)
    shutil.rmtree(root / "work" / "grams")
    return Row(
        f"Gram store, {n_dates // least}x: {size}",
        built.seconds,
        "",
        note="built in one process; memory must not grow with the dates",
        ours_peak_bytes=built.peak_bytes,
    )


def _workers(root: Path, panel: PanelRef, design: Design, n_dates: int, size: str) -> Row:
    one, two = (_on_workers(root, panel, design, n_dates, workers) for workers in (1, 2))
    return Row(
        f"Gram store on 2 Dask workers, {size}",
        two.seconds,
        "1 Dask worker",
        one.seconds,
        note="worker processes of one thread each, started and warm",
        target=1.7,
    )


def _on_workers(root: Path, panel: PanelRef, design: Design, n_dates: int, workers: int) -> Measured[list[str]]:
    with open_cluster(Settings(root=root, workers=workers), lambda _: None) as cluster:
        cluster.client.wait_for_workers(workers)
        cluster.client.run(_warm)
        futures = []
        start = time.perf_counter()
        for first, stop in spans(n_dates):
            futures.append(
                cluster.submit(make_span, root, panel, _SPEC, design, first, stop, key=f"span-{first}-{stop}")
            )
        names = cluster.gather(futures, str)
        seconds = time.perf_counter() - start
    shutil.rmtree(root / "work" / "grams")
    return Measured(names, seconds, None)


def _warm() -> None:
    """Import on a worker what the spans need."""
    import models.gram  # noqa: F401
    import tasks.grams  # noqa: F401
