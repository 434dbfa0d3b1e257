"""Fit the models of one universe again, and publish what they say."""

from __future__ import annotations

from prefect import flow

from schemas.parameters import AsOf, ModelNames, PromoteFirst, Snapshot
from schemas.refs import VersionRef
from schemas.settings import load_settings
from tasks.allocating import allocate_declared
from tasks.cataloguing import write_catalog
from tasks.cluster import open_cluster
from tasks.ingesting import head_snapshot
from tasks.logs import run_logger
from tasks.parameters import Config
from tasks.publishing import write_report
from tasks.runs import ends_early, hold_models, run_name
from tasks.training import train_each


@flow(name="retrain", flow_run_name=run_name, timeout_seconds=24 * 3600)
@ends_early
def retrain(
    spec: Config,
    snapshot: Snapshot = None,
    models: ModelNames = None,
    as_of: AsOf = None,
    promote_first: PromoteFirst = False,
) -> list[VersionRef]:
    """Fit, estimate the covariance, evaluate, gate, publish, allocate and report; what is already published stays.

    Parameters
    ----------
    spec : RunSpec
        The models and how they are fitted.
    snapshot : SnapshotRef, optional
        The state of the cube to fit on; the newest if left out.
    models : list of str, optional
        Names of the models to fit; all of the spec if left out.
    as_of : date, optional
        The last date that may be known; the last one of the snapshot if left out.
    promote_first : bool
        Whether the first version of a model becomes the champion if it passes the gate; it waits for
        somebody to promote it otherwise.

    Returns
    -------
    list[VersionRef]
        One version per model, in the order of the spec.

    Raises
    ------
    ModelsError
        If some models failed; the others are published, offered and reported all the same.
    """
    settings = load_settings()
    snapshot = snapshot or head_snapshot(spec.universe, settings)
    wanted = spec.models_named(models)
    with hold_models(spec.universe, wanted, settings), open_cluster(settings, run_logger().info) as cluster:
        outcomes = train_each(spec, wanted, snapshot, as_of, cluster, settings, promote_first=promote_first)
        allocate_declared(spec, [model.name for model in wanted], settings)
        if outcomes.versions:
            write_report(spec, snapshot, outcomes.versions, settings)
        write_catalog(settings)
    return outcomes.conclude()
