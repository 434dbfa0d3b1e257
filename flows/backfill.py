"""Make a span of the past: what is missing, what failed, or what has become stale."""

from __future__ import annotations

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from schemas.backfill import MAX_CONCURRENCY, BackfillSummary, Request
from schemas.settings import load_settings
from tasks.backfilling.engine import FlowEngine
from tasks.backfilling.stepping import Backfill
from tasks.backfilling.summary import conclude
from tasks.cataloguing import write_catalog
from tasks.cluster import open_cluster
from tasks.logs import run_logger
from tasks.parameters import Config


@flow(
    name="backfill",
    flow_run_name="backfill {request.what} {spec.universe} {request.start} to {request.end}",
    task_runner=ThreadPoolTaskRunner(max_workers=MAX_CONCURRENCY),  # type: ignore[arg-type]  # Prefect's F is invariant
)
def backfill(spec: Config, request: Request) -> BackfillSummary:
    """Make the partitions of a request, step by step and batch by batch; started again, it goes on with what is left.

    Parameters
    ----------
    spec : RunSpec
        The universe, its source and its models.
    request : BackfillRequest
        Which partitions, in which order, and when to give up.

    Returns
    -------
    BackfillSummary
        What became of every partition.

    Raises
    ------
    BackfillError
        If some failed or were not reached; everything else is made all the same.
    """
    settings = load_settings()
    with open_cluster(settings, run_logger().info) as cluster:
        under_way = Backfill(
            spec, request, settings, FlowEngine(spec, settings, cluster, alone=request.concurrency == 1)
        )
        for step in request.steps:
            under_way.step(step)
    write_catalog(settings)
    return conclude(under_way.summary)
