"""The way from a snapshot to published versions as of a date: the steps that a retrain and a backfill share.

Each step is a task, and shows in Prefect as one, whoever calls for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from schemas.families import ModelSpec
from schemas.refs import SnapshotRef, VersionRef
from schemas.settings import Settings
from schemas.spec import RunSpec
from tasks.assembling import estimate_covariance, evaluate_models
from tasks.cluster import Cluster
from tasks.fitting import fit_models
from tasks.offering import offer_version
from tasks.outcomes import Outcomes
from tasks.panels import build_panel
from tasks.publishing import plan_versions, publish_version


def train(
    spec: RunSpec,
    models: Sequence[ModelSpec],
    snapshot: SnapshotRef,
    as_of: date | None,
    cluster: Cluster,
    settings: Settings,
    *,
    promote_first: bool = False,
) -> list[VersionRef]:
    """Fit models walking forward up to a date, evaluate, gate, publish and promote; what is there already stays.

    Parameters
    ----------
    spec : RunSpec
        How models are fitted and judged.
    models : sequence of ModelSpec
        Which ones.
    snapshot : SnapshotRef
        The data. Nothing after `as_of` has a say: a later snapshot of the same data gives the same bits.
    as_of : date or None
        The last date that may be known; the last one of the snapshot if None.
    cluster : Cluster
        Where fits run.
    settings : Settings
        Where everything is kept.
    promote_first : bool
        Whether the first version of a model becomes the champion if it passes the gate.

    Returns
    -------
    list[VersionRef]
        One version per model, in the order given.

    Raises
    ------
    ModelsError
        If some models failed; the others are published and offered all the same.
    """
    return train_each(spec, models, snapshot, as_of, cluster, settings, promote_first=promote_first).conclude()


def train_each(
    spec: RunSpec,
    models: Sequence[ModelSpec],
    snapshot: SnapshotRef,
    as_of: date | None,
    cluster: Cluster,
    settings: Settings,
    *,
    promote_first: bool = False,
) -> Outcomes:
    """Do what `train` does, and return what became of each model, also if some failed."""
    outcomes = Outcomes()
    planned = plan_versions(spec, models, snapshot, as_of, settings)
    missing = [model for model in models if planned[model.name].changed]
    if missing:
        panel = build_panel(spec, snapshot, as_of, settings)
        fits, failed = fit_models(spec, missing, panel, cluster, settings)
        outcomes.fail(failed)
        fitted = [model for model in missing if model.name not in failed]
        risks, failed = estimate_covariance(spec, fitted, panel, fits, cluster, settings)
        outcomes.fail(failed)
        metrics, failed = evaluate_models(spec, panel, risks, cluster, settings)
        outcomes.fail(failed)
        made = {risk.model: risk for risk in risks}
        planned |= outcomes.attempt(
            metrics,
            lambda name: publish_version(spec, panel, made[name], planned[name], metrics[name], settings),
        )
    offered = outcomes.attempt(
        planned,
        lambda name: offer_version(spec, snapshot, planned[name], settings, promote_first=promote_first),
    )
    outcomes.versions = list(offered.values())
    return outcomes
