"""Make weights from a published version, and publish them."""

from __future__ import annotations

from prefect import flow

from schemas.parameters import Allocation, VersionName
from schemas.refs import AllocationRef
from schemas.settings import load_settings
from tasks.allocating import allocate_weights


@flow(name="allocate", flow_run_name="allocate {allocation.name} by {version}", timeout_seconds=3600)
def allocate(version: VersionName, allocation: Allocation) -> AllocationRef:
    """Allocate by the covariance of a version as of its last date, and publish the weights; they never change.

    A portfolio of kind `allocation` with the same name takes them up at the next ingest.

    Parameters
    ----------
    version : str
        A version such as ``us_demo/ipca/latest``.
    allocation : AllocationSpec
        By what, within which limits, and under which name.

    Returns
    -------
    AllocationRef
        The weights; with `changed` False if they were there already.
    """
    return allocate_weights(version, allocation, load_settings())
