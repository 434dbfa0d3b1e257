"""Fit the models of one universe again, and publish what they say."""

from __future__ import annotations

from prefect import flow
from prefect.logging import get_run_logger

from schemas.refs import SnapshotRef, VersionRef
from schemas.settings import load_settings
from schemas.spec import RunSpec
from tasks.assembling import estimate_covariance, evaluate_models
from tasks.cluster import open_cluster
from tasks.fitting import fit_models
from tasks.panels import build_panel
from tasks.publishing import decide, plan_versions, publish_version, write_report


@flow(name="retrain", flow_run_name="retrain {spec.universe}")
def retrain(spec: RunSpec, snapshot: SnapshotRef) -> list[VersionRef]:
    """Fit, estimate the covariance, evaluate, gate, publish and report; versions already published stay as they are.

    Parameters
    ----------
    spec : RunSpec
        The models and how they are fitted.
    snapshot : SnapshotRef
        The state of the cube to fit on.

    Returns
    -------
    list[VersionRef]
        One version per model, in the order of the spec.
    """
    settings = load_settings()
    planned = plan_versions(spec, snapshot, settings)
    models = [model for model in spec.models if planned[model.name].changed]
    if models:
        panel = build_panel(spec, snapshot, settings)
        with open_cluster(settings, get_run_logger().info) as cluster:
            fits = fit_models(spec, models, panel, cluster, settings)
            risks = estimate_covariance(spec, models, panel, fits, cluster, settings)
            metrics = evaluate_models(spec, panel, risks, cluster, settings)
        decisions = decide(spec, metrics)
        for risk in risks:
            name = risk.model
            planned[name] = publish_version(spec, panel, risk, planned[name], metrics[name], decisions[name], settings)
    versions = list(planned.values())
    write_report(spec, snapshot, versions, settings)
    return versions
