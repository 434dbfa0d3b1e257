"""What a run does about the champion: the gate's judgement beside it, and the one offer of every version.

A version is offered once. What was promoted before, also what was rolled back since, is never offered again; what was
published by a run that died before its offer is offered by the next one. The first version of a model waits for
somebody to promote it. The criteria belong in `models.evaluation.gate`, what a person does by hand in
`tasks.promoting`.
"""

from __future__ import annotations

import xarray as xr

from models.evaluation.gate import decide
from models.forecasting.held import counted
from models.forecasting.metrics import Metrics
from schemas.contracts import GateDecision
from schemas.refs import PanelRef, SnapshotRef, VersionRef
from schemas.settings import Settings
from schemas.spec import RunSpec
from storage import published
from tasks.artifacts import publish_gate_table
from tasks.events import announce_promotion
from tasks.logs import run_logger
from tasks.panels import Sample, build_panel
from tasks.steps import step
from tasks.workspace import Workspace


def judge(
    space: Workspace, spec: RunSpec, panel: PanelRef, ref: VersionRef, challenger: xr.Dataset, metrics: Metrics
) -> GateDecision:
    """Let the gate compare a version with the present champion, on the data that the version may know."""
    champion = published.latest(space.layout, ref.universe, ref.model)
    beside = None if champion is None else (champion.version, published.open_version(space.layout, champion))
    sample = Sample(space, panel, spec)
    known = sample.known().data.isel(date=slice(0, -1))
    returns = counted(known["returns"].load(), sample.held(), spec.gate.suspected_returns)
    decision = decide(spec.gate, metrics, challenger, beside, returns, known["mask"].load())
    publish_gate_table(ref, decision)
    return decision


@step("offer", "offer {ref}", retried=True)
def offer_version(
    spec: RunSpec, snapshot: SnapshotRef, ref: VersionRef, settings: Settings, *, promote_first: bool = False
) -> VersionRef:
    """Make a published version the champion, if it may and was never offered before.

    Parameters
    ----------
    spec : RunSpec
        The gate's criteria, should they be asked again.
    snapshot : SnapshotRef
        The data to score on in that case.
    ref : VersionRef
        The version; `changed` says that this run published it, with the decision in its manifest.
    settings : Settings
        Where.
    promote_first : bool
        Whether the first version of a model may become the champion without anybody saying so.

    Returns
    -------
    VersionRef
        `promoted` says whether it is the champion now.

    Raises
    ------
    ConflictError
        If the champion has changed since the decision; run again, and the decision is made anew.
    """
    space, log = Workspace.of(settings), run_logger()
    champion = published.latest(space.layout, ref.universe, ref.model)
    present = None if champion is None else champion.version
    if present == ref.version or promoted_before(space, ref):
        return ref.model_copy(update={"promoted": present == ref.version})
    manifest = published.read_manifest(space.layout, ref)
    decision, stays = manifest.gate, ref.model_copy(update={"promoted": False})
    if present is not None and present[:10] > ref.version[:10]:
        log.info("%s is older than the champion %s", ref, present)
        return stays
    if decision.passed and decision.champion != present:  # an update was faster: judged beside its result
        panel = build_panel(spec, snapshot, ref.as_of, settings)
        decision = judge(space, spec, panel, ref, published.open_version(space.layout, ref), manifest.metrics)
    if not decision.passed:
        log.warning("%s is not promoted: %s", ref, "; ".join(decision.reasons))
        return stays
    if decision.champion is None and not promote_first:
        log.warning("%s waits for its first promotion: factorcube promote %s", ref, ref)
        return stays
    reason = f"passed the gate: {'; '.join(decision.reasons)}"
    return promote(space, ref, expected=decision.champion, reason=reason)


def promoted_before(space: Workspace, ref: VersionRef) -> bool:
    """Whether a version was the champion once, also if it was rolled back since: it is not offered again."""
    history = published.promotions(space.layout, ref.universe, ref.model)
    return any(one.version == ref.version for one in history)


def promote(space: Workspace, ref: VersionRef, *, expected: str | None, reason: str) -> VersionRef:
    """Make a version the champion if the champion is still the expected one, and not of a later date."""
    after = published.promote(
        space.layout, ref.universe, ref.model, ref.version, reason=reason, expected=expected, forward_only=True
    )
    run_logger().info("%s %s", ref, "is the champion now" if after.promoted else "is older than the champion")
    if after.promoted:
        announce_promotion(ref, expected, reason)
    return ref.model_copy(update={"promoted": after.promoted})
