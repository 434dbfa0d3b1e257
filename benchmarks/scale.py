"""The way from a file to published versions and their daily update, stage by stage, on markets of growing size.

Here belong the made-up market, the order of the stages, and how time and memory grow. The stages are the real steps,
with worker processes of Dask as a run has them, in a process of its own for every size. Models are first fitted at half
of the dates and then every quarter, so that refits grow as dates do.

Memory is that of all processes together, as proportional set size (PSS: what several share counts once), sampled
five times a second. Freed memory is given back to the kernel before each stage. An exponent is the slope of log time on
the processors, which others on the machine hardly change, or of log memory above what idle processes hold, over log
size, from the second largest size to the largest one.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import Row, trim_heap
from schemas.refs import SnapshotRef
from schemas.settings import Settings
from schemas.spec import RunSpec
from tasks.assembling import estimate_covariance, evaluate_models
from tasks.cluster import Cluster, open_cluster
from tasks.fitting import fit_models
from tasks.ingesting import check_data, find_snapshot, read_source, write_cube
from tasks.offering import offer_version
from tasks.panels import build_panel
from tasks.publishing import plan_versions, publish_version
from tasks.updating import update_version

CHARS = tuple(f"c{n}" for n in range(6))
INDUSTRIES, FACTORS = 10, 4
MODELS: tuple[dict[str, Any], ...] = (
    {"kind": "market"},
    {"kind": "pca"},
    {"kind": "ipca", "n_factors": 4},
    {"kind": "factor_analysis", "n_factors": 4},
    {"kind": "cross_section"},
)
WORKERS = 2
IDLE = "idle processes"
_LITTLE_BYTES = 100e6
"""Memory above that of idle processes of which nothing can be told."""
_SECONDS_BETWEEN_SAMPLES = 0.2
_BLOCK_DATES = 256


class Size(NamedTuple):
    """How many dates and tickers a market has."""

    dates: int
    tickers: int

    def __str__(self) -> str:
        return f"{self.dates:,} dates x {self.tickers:,} tickers"


class Stage(NamedTuple):
    """What one stage took: wall-clock time, processor time and peak memory of all processes together."""

    seconds: float
    processor_seconds: float
    peak_bytes: float


class Plan(NamedTuple):
    """What is fitted on a market.

    Attributes
    ----------
    models : tuple of dict
        Models, as a config names them.
    window : int or None
        Dates that a fit looks back on; all before it if None.
    first : float
        Share of the dates before the first refit.
    most_bytes : float
        Memory of others beyond which a run is ended.
    """

    models: tuple[dict[str, Any], ...]
    window: int | None
    first: float
    most_bytes: float


GROWING = Plan(MODELS, window=126, first=0.5, most_bytes=5 * 2**30)
"""With a window that grows, fits alone would be quadratic in dates."""

Stages = dict[str, Stage]

BASE = Size(300, 250)
ALONG_DATES = (BASE, Size(1_200, 250), Size(4_800, 250))
ALONG_TICKERS = (BASE, Size(300, 1_000), Size(300, 4_000))
LARGEST = Size(2_400, 2_000)
QUICK = Size(200, 200)
WARM = Size(150, 200)


def run(*, quick: bool) -> list[Row]:
    """Time the stages on each size; a row for each stage of the largest one, with the exponents of all."""
    if quick:
        return [row(name, QUICK, stage) for name, stage in measured(QUICK).items()]
    found = {size: measured(size) for size in dict.fromkeys((*ALONG_DATES, *ALONG_TICKERS, LARGEST))}
    return [
        row(
            name,
            LARGEST,
            stage,
            *(
                f"{axis}: {_exponents(name, [found[size] for size in sizes], sizes)}"
                for axis, sizes in (("dates", ALONG_DATES), ("tickers", ALONG_TICKERS))
            ),
        )
        for name, stage in found[LARGEST].items()
    ]


def row(name: str, size: Size, stage: Stage, *growth: str) -> Row:
    """Say what a stage took, and how it grew."""
    note = "; ".join((f"{stage.processor_seconds:.3g} s on the processors", *growth))
    return Row(f"{name}, {size}", stage.seconds, "", note=note, ours_peak_bytes=int(stage.peak_bytes))


def _exponents(name: str, found: list[Stages], sizes: tuple[Size, ...]) -> str:
    """Say how a stage grew from the second last size to the last one."""
    if name not in found[-1] or name not in found[-2]:
        return "not reached"
    before, after = found[-2:]
    ratio = math.log(math.prod(sizes[-1]) / math.prod(sizes[-2]))
    above = [max(1, each[name].peak_bytes - each[IDLE].peak_bytes) for each in (before, after)]
    times = [max(0.01, each[name].processor_seconds) for each in (before, after)]
    time, memory = (math.log(after / before) / ratio for before, after in (times, above))
    little = max(above) < _LITTLE_BYTES
    return f"time^{time:.2f}, " + ("hardly any memory" if little else f"memory^{memory:.2f}")


def measured(size: Size, plan: Plan = GROWING) -> Stages:
    """Run all stages on a market of some size, in a process of its own, and watch it from outside.

    A run that fails, or would take more of others' memory than the plan allows, is ended; the stages before are
    returned.
    """
    with tempfile.TemporaryDirectory(prefix="factorcube-scale-") as folder:
        write_market(Path(folder), size)
        context = get_context("spawn")
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_stages, args=(there, Path(folder), size, plan))
        process.start()
        there.close()
        found: Stages = {}
        try:
            for name, stage in _watched(here, psutil.Process(process.pid), plan.most_bytes):
                found[name] = stage
                used, peak = stage.processor_seconds, stage.peak_bytes / 1e6
                print(f"{size}: {name}: {stage.seconds:.2f} s, {used:.2f} s used, {peak:.0f} MB", flush=True)
        finally:
            _end(psutil.Process(process.pid))
            process.join()
    return found


def _watched(here: Connection, process: psutil.Process, most_bytes: float) -> Iterator[tuple[str, Stage]]:
    """Yield each stage that a process tells of as it ends, with the memory that was sampled meanwhile."""
    name, start, used, peak = "", time.perf_counter(), 0.0, 0.0
    while True:
        peak = max(peak, _total(process, lambda each: each.memory_full_info().pss))
        if peak > most_bytes:
            print(f"{name}: ended, for it takes more than {most_bytes / 2**30:.0f} GiB", flush=True)
            return
        if not here.poll(_SECONDS_BETWEEN_SAMPLES):
            continue
        try:
            told = here.recv()
        except EOFError:
            return
        now = _total(process, lambda each: sum(each.cpu_times()[:2]))
        if name:
            yield name, Stage(time.perf_counter() - start, now - used, peak)
        name, start, used, peak = told, time.perf_counter(), now, 0.0


def _total(process: psutil.Process, of: Callable[[psutil.Process], float]) -> float:
    """Sum something over a process and all that it started."""
    total = 0.0
    with suppress(psutil.NoSuchProcess):
        for each in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += of(each)
    return total


def _end(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        for each in (*process.children(recursive=True), process):
            with suppress(psutil.NoSuchProcess):
                each.kill()


def _stages(told: Connection, folder: Path, size: Size, plan: Plan) -> None:
    """Run the stages, telling the name of each before it begins, and an empty one at the end.

    A small market goes first: what processes import with their first work is not the work's.
    """
    settings = {name: Settings(root=folder / name, workers=WORKERS) for name in ("small", "out")}
    with open_cluster(settings["out"], lambda _line: None) as cluster, tempfile.TemporaryDirectory() as small:

        def begin(name: str) -> None:
            trim_heap()
            cluster.client.run(trim_heap)
            told.send(name)

        write_market(Path(small), WARM)
        _run(Path(small), WARM, plan, cluster, settings["small"], lambda _name: None)
        begin(IDLE)
        _run(folder, size, plan, cluster, settings["out"], begin)
        told.send("")


def _run(
    folder: Path, size: Size, plan: Plan, cluster: Cluster, settings: Settings, begin: Callable[[str], None]
) -> None:
    """Run the stages as the flows do, with the files of a folder."""
    history, day = (spec_of(folder, delivery, size, plan) for delivery in ("history", "day"))
    snapshot = ingested(history, settings, begin)
    _trained(history, snapshot, cluster, settings, begin)
    after = ingested(day, settings, begin, " of one day")
    for model in day.models:
        begin(f"update {model.name} by one day")
        update_version(day.universe, model.name, after, None, settings)
    begin("rerun without changes")
    find_snapshot(day, read_source(day, settings), settings)
    plan_versions(history, history.models, snapshot, None, settings)
    for model in day.models:
        update_version(day.universe, model.name, after, None, settings)


def ingested(spec: RunSpec, settings: Settings, begin: Callable[[str], None], what: str = "") -> SnapshotRef:
    """Ingest as the flow does, telling the name of each step before it begins."""
    begin(f"read{what}")
    raw = read_source(spec, settings)
    begin(f"check{what}")
    checks = check_data(spec, raw, settings)
    begin(f"write cube{what}")
    return write_cube(spec, raw, checks, settings)


def _trained(
    spec: RunSpec, snapshot: SnapshotRef, cluster: Cluster, settings: Settings, begin: Callable[[str], None]
) -> None:
    begin("name versions")
    planned = plan_versions(spec, spec.models, snapshot, None, settings)
    begin("build panel")
    panel = build_panel(spec, snapshot, None, settings)
    for model in spec.models:
        name = model.name
        begin(f"fit {name}")
        fits, failed = fit_models(spec, [model], panel, cluster, settings)
        refuse(failed)
        begin(f"rows and risk of {name}")
        risks, failed = estimate_covariance(spec, [model], panel, fits, cluster, settings)
        refuse(failed)
        begin(f"evaluate {name}")
        metrics, failed = evaluate_models(spec, panel, risks, cluster, settings)
        refuse(failed)
        begin(f"publish {name}")
        published = publish_version(spec, panel, risks[0], planned[name], metrics[name], settings)
        offer_version(spec, snapshot, published, settings, promote_first=True)


def refuse(failed: dict[str, Exception]) -> None:
    """Raise the first error of models that failed."""
    for error in failed.values():
        raise error


def spec_of(folder: Path, delivery: str, size: Size, plan: Plan = GROWING) -> RunSpec:
    """Return the spec of a run on one file of a folder that `write_market` has filled."""
    origin = {"kind": "files", "paths": [str(folder / f"{delivery}.parquet")]}
    industries = {"kind": "files", "paths": [str(folder / "industries.parquet")]}
    first = _dates(size)[int(size.dates * plan.first)]
    return RunSpec.parse(
        {
            "universe": "made_up",
            "calendar": "none",
            "delivery": "increment",
            "data": {"shape": "long_panel", "origin": origin, "characteristics": [*CHARS]},
            "industries": {"origin": industries, "industry": "industry"},
            "models": [*plan.models],
            "walk_forward": {"first": f"{first:%Y-%m-%d}", "every": "quarter", "window": plan.window},
            "gate": {"min_total_r2": -1e6, "max_bias_statistic": 1e6, "min_bias_statistic": 1e-6},
        },
        origin="the benchmark",
    )


def write_market(folder: Path, size: Size, seed: int = 0) -> None:
    """Write a made-up market: all dates but the last as `history.parquet`, the last one as `day.parquet`, industries.

    A third of the cells is filled: tickers are listed and delisted, one cell in two hundred has no return and one in
    fifty lacks a characteristic. Characteristics are persistent; loadings are linear in them, returns have a market
    and further factors.
    """
    rng = np.random.default_rng(seed)
    dates, tickers = _dates(size), np.array([f"T{n:05d}" for n in range(size.tickers)])
    listed = rng.uniform(-0.35, 0.95, size.tickers) * size.dates
    delisted = listed + rng.uniform(0.2, 0.75, size.tickers) * size.dates
    slopes = rng.normal(0.0, 0.5, (len(CHARS), FACTORS))
    industry = rng.integers(0, INDUSTRIES, size.tickers)
    names = pa.array([f"industry_{code}" for code in industry])
    pq.write_table(pa.table({"ticker": tickers, "industry": names}), folder / "industries.parquet")
    state = rng.standard_normal((size.tickers, len(CHARS)))
    history = None
    for start in range(0, size.dates, _BLOCK_DATES):
        block = range(start, min(start + _BLOCK_DATES, size.dates))
        characteristics = np.empty((len(block), *state.shape), dtype=np.float32)
        returns = np.empty((len(block), size.tickers))
        for place, _ in enumerate(block):
            loadings = np.column_stack([np.full(size.tickers, 1.0), state @ slopes])
            factors = rng.normal(3e-4, 0.008, 1 + FACTORS) * np.array([1.0, *[0.4] * FACTORS])
            returns[place] = loadings @ factors + rng.normal(0.0, 0.004, INDUSTRIES)[industry]
            returns[place] += 0.015 * rng.standard_t(6, size.tickers)
            state = 0.99 * state + math.sqrt(1.0 - 0.99**2) * rng.standard_normal(state.shape)
            characteristics[place] = state
        np.clip(returns, -0.5, 0.5, out=returns)
        returns[rng.random(returns.shape) < 0.005] = np.nan
        characteristics[rng.random(characteristics.shape) < 0.02] = np.nan
        position = np.arange(block.start, block.stop)[:, None]
        row, column = np.nonzero((listed <= position) & (position < delisted))
        columns = {"date": dates[block.start + row], "ticker": tickers[column], "ret": returns[row, column]}
        columns |= {name: characteristics[row, column, place] for place, name in enumerate(CHARS)}
        table = pa.table(columns)
        last = block.start + row == size.dates - 1
        history = history or pq.ParquetWriter(folder / "history.parquet", table.schema)
        history.write_table(table.filter(pa.array(~last)))
        if last.any():
            pq.write_table(table.filter(pa.array(last)), folder / "day.parquet")
    if history is not None:
        history.close()


def _dates(size: Size) -> pd.DatetimeIndex:
    return pd.bdate_range("1995-01-02", periods=size.dates)
