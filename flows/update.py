"""Continue the champions of one universe to new dates, without fitting them again."""

from __future__ import annotations

from prefect import flow

from schemas.parameters import AsOf, ModelNames, Snapshot
from schemas.refs import VersionRef
from schemas.settings import load_settings
from tasks.allocating import allocate_declared
from tasks.cataloguing import write_catalog
from tasks.ingesting import head_snapshot
from tasks.outcomes import Outcomes
from tasks.parameters import Config
from tasks.runs import run_name
from tasks.updating import continuable, update_version


@flow(name="update", flow_run_name=run_name, timeout_seconds=4 * 3600)
def update(
    spec: Config,
    snapshot: Snapshot = None,
    models: ModelNames = None,
    until: AsOf = None,
) -> list[VersionRef]:
    """Give loadings, factor returns, Omega, specific and portfolio variance for the dates after each champion's.

    Each champion is continued with the config and the fit that it was made with; a model without one is left out. The
    weights that the config declares follow.

    Parameters
    ----------
    spec : RunSpec
        The universe and its models.
    snapshot : SnapshotRef, optional
        The data; the newest state of the cube if left out.
    models : list of str, optional
        Names of the models to continue; all of the spec if left out.
    until : date, optional
        Last date; the last one of the snapshot if left out.

    Returns
    -------
    list[VersionRef]
        The champions as they are now.

    Raises
    ------
    ModelsError
        If some could not be continued; the others are all the same.
    """
    settings = load_settings()
    snapshot = snapshot or head_snapshot(spec.universe, settings)
    names = continuable(spec, models, settings)
    outcomes = Outcomes()
    updated = outcomes.attempt(names, lambda name: update_version(spec.universe, name, snapshot, until, settings))
    outcomes.versions = list(updated.values())
    allocate_declared(spec, names, settings)
    write_catalog(settings)
    return outcomes.conclude()
