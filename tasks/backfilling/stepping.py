"""Going through the steps of a backfill: plan one, make its batches as Prefect tasks, go on to the next.

Each step is planned when it is reached, so that what a step needs of the one before is what that one really made.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, as_completed

from schemas.backfill import BackfillRequest, BackfillSummary, PartitionOutcome, PlannedPartition, Result, Step
from schemas.settings import Settings
from schemas.spec import RunSpec
from storage.partitions import PartitionStore
from tasks.artifacts import Progress
from tasks.backfilling.deciding.batches import batches_of
from tasks.backfilling.engine import Engine
from tasks.backfilling.running import Job, JobResult, failed
from tasks.backfilling.summary import summarise
from tasks.backfilling.survey import plan_backfill
from tasks.logs import run_logger
from tasks.workspace import Workspace


@task(name="backfill batch", task_run_name="{job.label}", cache_policy=NO_CACHE)
def make_batch(job: Job) -> JobResult:
    """Make one batch; one that fails is a result like any other, and its reason stands in the summary."""
    return job.run()


class Backfill:
    """One backfill under way.

    Parameters
    ----------
    spec, request, settings
        What is made, and where.
    engine : Engine
        Who makes it.
    """

    def __init__(self, spec: RunSpec, request: BackfillRequest, settings: Settings, engine: Engine) -> None:
        self._spec, self._request, self._settings, self._engine = spec, request, settings, engine
        self._store = PartitionStore(Workspace.of(settings).layout, spec.universe)
        self._results: list[JobResult] = []
        self._planned: list[tuple[float, float]] = []
        self._began = time.time()

    @property
    def summary(self) -> BackfillSummary:
        """What has become of it so far."""
        return summarise(self._spec.universe, self._request, self._results, self._began, self._planned)

    @property
    def stopped(self) -> bool:
        """Whether there were too many failures to start anything more."""
        most = self._request.max_failures
        return most is not None and sum(_is_failure(result) for result in self._results) >= most

    def step(self, step: Step) -> None:
        """Plan a step and make its batches, some of them at the same time."""
        jobs = self.plan(step)
        total = sum(len(job.batch.planned) for job in jobs)
        progress, done = Progress(f"backfill-{step}", self._spec.universe), 0
        for result in self._made(jobs):
            self._results.append(result)
            done += len(result.outcomes)
            progress(done, total)

    def plan(self, step: Step) -> list[Job]:
        """Plan a step against what is there now; what it is blocked by goes to the summary."""
        began = time.time()
        request = self._request.model_copy(update={"what": step})
        plan, snapshot = plan_backfill(self._spec, request, self._settings)
        batches = batches_of(plan.included, backward=request.direction == "backward")
        self._leave("blocked", (item for item in plan.partitions if item.blocked))
        self._planned.append((began, time.time()))
        run_logger().info("%s: %d partition(s) in %d batch(es)", step, len(plan.included), len(batches))
        return [Job(batch, snapshot, plan.made_at, self._engine, self._store) for batch in batches]

    def _made(self, jobs: Iterable[Job]) -> Iterator[JobResult]:
        waiting = deque(jobs)
        active: dict[PrefectFuture[JobResult], Job] = {}
        while waiting or active:
            while waiting and len(active) < self._request.concurrency and not self.stopped:
                job = waiting.popleft()
                active[make_batch.submit(job)] = job
            if not active:
                break
            future = next(as_completed(list(active)))
            job = active.pop(future)
            result = future.result(raise_on_failure=False)
            yield result if isinstance(result, JobResult) else failed(job.batch, f"{type(result).__name__}: {result}")
        for job in waiting:
            self._leave("stopped", job.batch.planned)

    def _leave(self, result: Result, left: Iterable[PlannedPartition]) -> None:
        why = f"not started after {self._request.max_failures} failure(s)"
        outcomes = tuple(
            PartitionOutcome(partition=item.partition, result=result, why=why if result == "stopped" else item.why)
            for item in left
        )
        if outcomes:
            self._results.append(JobResult(outcomes))


def _is_failure(result: JobResult) -> int:
    """Count the failures of a batch: pieces that failed by themselves, not the partitions in them."""
    return len({(one.partition.model, one.why) for one in result.outcomes if one.result == "failed"})
