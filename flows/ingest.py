"""Bring one universe's data into its cube."""

from __future__ import annotations

from prefect import flow

from schemas.refs import SnapshotRef
from schemas.settings import load_settings
from schemas.spec import RunSpec
from tasks.ingesting import check_data, find_snapshot, read_source, write_cube


@flow(name="ingest", flow_run_name="ingest {spec.universe}")
def ingest(spec: RunSpec) -> SnapshotRef:
    """Read the source, check it, and commit what passes to the cube.

    Parameters
    ----------
    spec : RunSpec
        The universe and its source.

    Returns
    -------
    SnapshotRef
        The snapshot that holds the data; the old one, with `changed` False, if they were there already.
    """
    settings = load_settings()
    staged = read_source(spec, settings)
    known = find_snapshot(spec, staged, settings)
    if known is not None:
        return known
    checks = check_data(spec, staged, settings)
    return write_cube(spec, staged, checks, settings)
