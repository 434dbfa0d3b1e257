"""Fit the models of one universe again, and publish what they say."""

from __future__ import annotations

from prefect import flow

from schemas.parameters import AsOf, ModelNames, PromoteFirst, Snapshot
from schemas.refs import VersionRef
from schemas.settings import load_settings
from tasks.assembling import estimate_covariance, evaluate_models
from tasks.cataloguing import write_catalog
from tasks.cluster import open_cluster
from tasks.fitting import fit_models
from tasks.ingesting import head_snapshot
from tasks.logs import run_logger
from tasks.offering import offer_version
from tasks.panels import build_panel
from tasks.parameters import Config
from tasks.publishing import plan_versions, publish_version, write_report
from tasks.runs import ends_early, hold_models, run_name


@flow(name="retrain", flow_run_name=run_name, timeout_seconds=24 * 3600)
@ends_early
def retrain(
    spec: Config,
    snapshot: Snapshot = None,
    models: ModelNames = None,
    as_of: AsOf = None,
    promote_first: PromoteFirst = False,
) -> list[VersionRef]:
    """Fit, estimate the covariance, evaluate, gate, publish and report; versions already published stay as they are.

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
    """
    settings = load_settings()
    snapshot = snapshot or head_snapshot(spec.universe, settings)
    wanted = spec.models_named(models)
    with hold_models(spec.universe, wanted, settings):
        planned = plan_versions(spec, wanted, snapshot, as_of, settings)
        missing = [model for model in wanted if planned[model.name].changed]
        if missing:
            panel = build_panel(spec, snapshot, as_of, settings)
            with open_cluster(settings, run_logger().info) as cluster:
                fits = fit_models(spec, missing, panel, cluster, settings)
                risks = estimate_covariance(spec, missing, panel, fits, cluster, settings)
                metrics = evaluate_models(spec, panel, risks, cluster, settings)
            for risk in risks:
                name = risk.model
                planned[name] = publish_version(spec, panel, risk, planned[name], metrics[name], settings)
        versions = [
            offer_version(spec, snapshot, ref, settings, promote_first=promote_first) for ref in planned.values()
        ]
        write_report(spec, snapshot, versions, settings)
        write_catalog(settings)
    return versions
