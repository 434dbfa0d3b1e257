"""What more machines would do for a run: its tasks as they were measured here, put on any number of machines.

Here belongs the recording of the tasks of a run with what each waits for, and the simulation. The run is that of
`scale`, with all models at once, as the flows have it; what a flow does in its own process, one thing after the other,
stays so. A machine is a worker with one thread. Of the tasks that may begin the one with most work behind it goes
first; each takes what it took here and `LATENCY` more, for a scheduler in a network and results in an object store,
which is assumed.
"""

from __future__ import annotations

import heapq
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from benchmarks.harness import Row
from benchmarks.scale import Size, ingested, refuse, spec_of, write_market
from schemas.settings import Settings
from tasks.assembling import estimate_covariance, evaluate_models
from tasks.cluster import Cluster
from tasks.fitting import fit_models
from tasks.panels import build_panel
from tasks.publishing import plan_versions, publish_version

if TYPE_CHECKING:
    from distributed import Future

LATENCY = 0.1
MACHINES = (1, 2, 8, 32, 100)
_SIZE, _QUICK = Size(2_400, 500), Size(200, 200)

Result = TypeVar("Result")


class Task(NamedTuple):
    """One call on a worker: what it took, and the names of the tasks that it waits for."""

    seconds: float
    needs: tuple[str, ...]


class Recorded(NamedTuple):
    """A run with two workers.

    Attributes
    ----------
    alone : float
        Seconds of what the flow does in its own process: ingest, panel, publishing.
    stages : dict
        By name the tasks of each stage that is spread over workers, one stage after the other.
    seconds : dict
        How long each of these stages took here, from its first call to its last result.
    """

    alone: float
    stages: dict[str, dict[str, Task]]
    seconds: dict[str, float]


def run(*, quick: bool) -> list[Row]:
    """Record a run with two workers and its fits with one; a row for the ratio, and one for each number of machines."""
    size = _QUICK if quick else _SIZE
    one, two = recorded(size, 1), recorded(size, 2)
    what = f"{sum(map(len, two.stages.values())):,} tasks, {size}"
    without_latency = finish(two.stages["fits"], 2, latency=0.0)
    rows = [
        Row(
            f"fits on two workers of this machine, {size}",
            two.seconds["fits"],
            "one worker",
            one.seconds["fits"],
            note=f"the same tasks by simulation: {without_latency:.3g} s; what they took in all: "
            f"{_work(one.stages['fits']):.3g} s with one, {_work(two.stages['fits']):.3g} s with two",
        )
    ]
    base = simulated(two, 1)
    for machines in MACHINES:
        seconds = simulated(two, machines)
        busy = sum(_work(tasks) for tasks in two.stages.values()) / (machines * (seconds - two.alone))
        rows.append(
            Row(
                f"{machines} machine(s), {what}",
                seconds,
                "one machine",
                base,
                note=f"simulated; {two.alone:.3g} s of it on one machine in any case; the others busy {busy:.0%}; "
                f"{machines * seconds / 3600:.2g} machine-hours",
            )
        )
    return rows


def simulated(run: Recorded, machines: int) -> float:
    """Seconds of a run on so many machines."""
    return run.alone + sum(finish(tasks, machines) for tasks in run.stages.values())


def finish(tasks: Mapping[str, Task], machines: int, *, latency: float = LATENCY) -> float:
    """Seconds until the last of some tasks is done; what waits for longest behind a task decides which goes first."""
    behind = _behind(tasks)
    waits = {name: {need for need in task.needs if need in tasks} for name, task in tasks.items()}
    followers: defaultdict[str, list[str]] = defaultdict(list)
    for name, needs in waits.items():
        for need in needs:
            followers[need].append(name)
    ready = [(-behind[name], name) for name, needs in waits.items() if not needs]
    heapq.heapify(ready)
    running: list[tuple[float, str]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < machines:
            _, name = heapq.heappop(ready)
            heapq.heappush(running, (now + tasks[name].seconds + latency, name))
        now, done = heapq.heappop(running)
        for name in followers[done]:
            waits[name].discard(done)
            if not waits[name]:
                heapq.heappush(ready, (-behind[name], name))
    return now


def _behind(tasks: Mapping[str, Task]) -> dict[str, float]:
    """Seconds of the longest chain of tasks that begins with each."""
    found = {name: task.seconds for name, task in tasks.items()}
    for name in reversed(tasks):  # a task is submitted after those that it waits for
        for need in tasks[name].needs:
            if need in found:
                found[need] = max(found[need], tasks[need].seconds + found[name])
    return found


def _work(tasks: Mapping[str, Task]) -> float:
    return sum(task.seconds for task in tasks.values())


class _Recording(Cluster):
    """A cluster that remembers what each call waits for."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, lambda _line: None)
        self.needs: dict[str, tuple[str, ...]] = {}

    def submit(self, function: Callable[..., Result], *arguments: Any, key: str) -> Future[Result]:
        future = super().submit(function, *arguments, key=key)
        self.needs[str(future.key)] = tuple(str(each.key) for each in _futures(arguments))
        return future

    def recorded(self, call: Callable[[], Result]) -> tuple[Result, dict[str, Task], float]:
        """Call something that submits tasks; return also these, and how long it took."""
        from distributed import get_task_stream

        self.needs = {}
        with get_task_stream(self.client) as stream:
            start = time.perf_counter()
            result = call()
            seconds = time.perf_counter() - start
        took: defaultdict[str, float] = defaultdict(float)
        for task in stream.data:
            took[str(task["key"])] += sum(
                part["stop"] - part["start"] for part in task["startstops"] if part["action"] == "compute"
            )
        return result, {name: Task(took[name], needs) for name, needs in self.needs.items()}, seconds


def _load() -> None:
    """Import on a worker, with this module, what tasks need: seconds that are not theirs."""
    import torch  # noqa: F401


def _futures(arguments: Iterable[Any]) -> Iterator[Any]:
    from distributed import Future

    for argument in arguments:
        if isinstance(argument, Future):
            yield argument
        elif isinstance(argument, list | tuple):
            yield from _futures(argument)


def recorded(size: Size, workers: int) -> Recorded:
    """Run all steps of a retrain on a made-up market, and keep what its tasks took and wait for."""
    with tempfile.TemporaryDirectory(prefix="factorcube-machines-") as folder:
        settings = Settings(root=Path(folder) / "out", workers=workers)
        write_market(Path(folder), size)
        spec = spec_of(Path(folder), "history", size)
        with closing(_Recording(settings)) as cluster:
            cluster.client.run(_load)
            start = time.perf_counter()
            snapshot = ingested(spec, settings, lambda _step: None)
            planned = plan_versions(spec, spec.models, snapshot, None, settings)
            panel = build_panel(spec, snapshot, None, settings)
            alone = time.perf_counter() - start
            models = list(spec.models)
            stages, seconds = {}, {}
            (fits, failed), stages["fits"], seconds["fits"] = cluster.recorded(
                lambda: fit_models(spec, models, panel, cluster, settings)
            )
            refuse(failed)
            (risks, failed), stages["rows and risk"], seconds["rows and risk"] = cluster.recorded(
                lambda: estimate_covariance(spec, models, panel, fits, cluster, settings)
            )
            refuse(failed)
            (metrics, failed), stages["evaluation"], seconds["evaluation"] = cluster.recorded(
                lambda: evaluate_models(spec, panel, risks, cluster, settings)
            )
            refuse(failed)
            start = time.perf_counter()
            for risk in risks:
                publish_version(spec, panel, risk, planned[risk.model], metrics[risk.model], settings)
            return Recorded(alone + time.perf_counter() - start, stages, seconds)
