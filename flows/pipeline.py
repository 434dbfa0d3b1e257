"""The main job, end to end."""

from __future__ import annotations

from prefect import flow

from flows.ingest import ingest
from flows.retrain import retrain
from schemas.parameters import AsOf, PromoteFirst
from schemas.refs import VersionRef
from tasks.parameters import Config
from tasks.runs import ends_early, run_name


@flow(name="pipeline", flow_run_name=run_name)
@ends_early
def pipeline(spec: Config, promote_first: PromoteFirst = False, as_of: AsOf = None) -> list[VersionRef]:
    """Ingest one universe, then fit, evaluate and publish its models.

    Parameters
    ----------
    spec : RunSpec
        Everything that decides a number.
    promote_first : bool
        Whether the first version of a model becomes the champion if it passes the gate; it waits for
        somebody to promote it otherwise.
    as_of : date, optional
        The last date that models may know; the ingest brings in the whole source all the same.

    Returns
    -------
    list[VersionRef]
        One version per model, in the order of the spec.
    """
    return retrain(spec, ingest(spec), as_of=as_of, promote_first=promote_first)
