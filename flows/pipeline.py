"""The main job, end to end."""

from __future__ import annotations

from prefect import flow

from flows.ingest import ingest
from flows.retrain import retrain
from schemas.refs import VersionRef
from schemas.spec import RunSpec


@flow(name="pipeline", flow_run_name="pipeline {spec.universe}")
def pipeline(spec: RunSpec) -> list[VersionRef]:
    """Ingest one universe, then fit, evaluate and publish its models.

    Parameters
    ----------
    spec : RunSpec
        Everything that decides a number.

    Returns
    -------
    list[VersionRef]
        One version per model, in the order of the spec.
    """
    return retrain(spec, ingest(spec))
