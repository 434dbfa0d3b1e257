"""The step that brings the catalog up to date after a run has published or promoted something."""

from __future__ import annotations

from schemas.settings import Settings
from storage.catalog import refresh_catalog
from tasks.logs import run_logger
from tasks.steps import step
from tasks.workspace import Workspace


@step("write catalog", "write catalog", retried=True)
def write_catalog(settings: Settings) -> str:
    """Describe what is published and which versions are champions; return the location of the root document."""
    catalog = refresh_catalog(Workspace.of(settings).layout)
    for line in catalog.left_out:
        run_logger().warning("left out of the catalog: %s", line)
    return catalog.location
