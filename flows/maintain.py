"""Remove what the retention rule lets go."""

from __future__ import annotations

from prefect import flow

from schemas.parameters import Apply
from schemas.retention import DEFAULT, Plan, Rule
from schemas.settings import load_settings
from tasks.freshness import report_stale_champions
from tasks.maintaining import carry_out_upkeep, plan_upkeep


@flow(name="maintain", flow_run_name="maintain", timeout_seconds=6 * 3600)
def maintain(rule: Rule = DEFAULT, apply: Apply = False) -> Plan:
    """Plan what may go, and remove it if asked to; never what a champion, a pin or a living manifest needs.

    Parameters
    ----------
    rule : RetentionRule
        How long things are kept.
    apply : bool
        Whether to remove; a dry run otherwise.

    Returns
    -------
    Plan
        What may go, or went, and what stays, with the reasons.
    """
    settings = load_settings()
    planned = plan_upkeep(rule, settings)
    if apply:
        planned = carry_out_upkeep(planned, settings)
    report_stale_champions(None, settings)
    return planned
