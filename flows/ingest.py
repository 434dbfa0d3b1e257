"""Bring one universe's data into its cube."""

from __future__ import annotations

from prefect import flow

from schemas.parameters import End, OnSession, Start
from schemas.refs import SnapshotRef
from schemas.settings import load_settings
from tasks.allocating import with_allocations
from tasks.freshness import report_stale_champions
from tasks.ingesting import check_data, find_snapshot, read_source, write_cube
from tasks.parameters import Config
from tasks.runs import ends_early, require_session, run_name


@flow(name="ingest", flow_run_name=run_name, timeout_seconds=4 * 3600)
@ends_early
def ingest(spec: Config, start: Start = None, end: End = None, on_session: OnSession = False) -> SnapshotRef:
    """Read the source, check it, and commit what passes to the cube; late and restated dates as well as new ones.

    Parameters
    ----------
    spec : RunSpec
        The universe and its source.
    start, end : date, optional
        First and last date to commit; all of the source if left out.
    on_session : bool
        Whether to end at once, as Skipped, if the exchange was closed on the day that the run was scheduled for.

    Returns
    -------
    SnapshotRef
        The snapshot that holds the data; the old one, with `changed` False, if they were there already.
    """
    settings = load_settings()
    if on_session:
        require_session(spec)
    spec = with_allocations(spec, settings)
    raw = read_source(spec, settings, start, end)
    snapshot = find_snapshot(spec, raw, settings)
    if snapshot is None:
        checks = check_data(spec, raw, settings)
        snapshot = write_cube(spec, raw, checks, settings)
    report_stale_champions(spec.universe, settings)
    return snapshot
