"""The step that brings the catalog up to date after a run has published or promoted something."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from schemas.settings import Settings
from storage.catalog import refresh_catalog
from tasks.logs import run_logger
from tasks.runs import RETRIED
from tasks.workspace import Workspace


@task(name="write catalog", cache_policy=NO_CACHE, **RETRIED)
def write_catalog(settings: Settings) -> str:
    """Describe what is published and which versions are champions; return the location of the root document."""
    catalog = refresh_catalog(Workspace.of(settings).layout)
    for line in catalog.left_out:
        run_logger().warning("left out of the catalog: %s", line)
    return catalog.location
