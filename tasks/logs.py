"""Where a step says what it does: to the Prefect run that it is part of, or to Python's own log outside of one."""

from __future__ import annotations

import logging

from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging import get_run_logger

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]


def in_run() -> bool:
    """Whether this code is part of a Prefect run, so that artifacts have something to belong to."""
    return FlowRunContext.get() is not None or TaskRunContext.get() is not None


def run_logger() -> Log:
    """Return the logger of the run; the same plain function serves flows, backfills and notebooks."""
    return get_run_logger() if in_run() else logging.getLogger("factorcube")
