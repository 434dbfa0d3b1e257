"""The automations, as code: what follows from an event, and what raises an alert.

`apply_automations` creates or updates them by name and removes those of ours that are no longer declared; what people
made themselves in the UI is left alone. What every alert means and what to do about it is in deploy/runbook.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events import EventTrigger, ResourceSpecification
from prefect.events.actions import ActionTypes, ChangeFlowRunState, DoNothing, RunDeployment, SendNotification
from prefect.events.schemas.automations import AutomationCore, Posture
from prefect.types import SecretDict

from deploy.deployments import HEARTBEAT_SECONDS
from schemas.settings import Settings
from tasks import events

PREFIX = "factorcube: "
"""All names begin with it: it marks what may be updated and removed here."""

SILENCE = timedelta(seconds=2 * HEARTBEAT_SECONDS + 5)
"""A run that has been silent for two beats has crashed."""

NO_INGEST = timedelta(days=5)
"""Longer than the longest weekend with holidays."""

ALERTS_BLOCK = "factorcube-alerts"

_OURS = {"prefect.resource.id": "prefect.tag.factorcube", "prefect.resource.role": "tag"}


def automations(deployments: Mapping[str, UUID], alerts: UUID | None) -> list[AutomationCore]:
    """Declare all automations.

    Parameters
    ----------
    deployments : Mapping[str, UUID]
        Ids of the deployments ``update`` and ``retrain``, by name.
    alerts : UUID or None
        Notification block that alerts go to; without one an alert is only an event in Prefect's feed.
    """
    return [
        _follow_up("update after an ingest", events.COMMITTED, deployments["update"]),
        _follow_up("retrain after the first ingest of a month", events.NEW_MONTH, deployments["retrain"]),
        AutomationCore(
            name=f"{PREFIX}mark silent runs as crashed",
            description="A run whose machine or process died cannot say so: it stops sending heartbeats.",
            trigger=EventTrigger(
                after={"prefect.flow-run.heartbeat"},
                expect={"prefect.flow-run.*"},
                match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
                match_related=ResourceSpecification(_OURS),
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                threshold=1,
                within=SILENCE,
            ),
            actions=[
                ChangeFlowRunState(
                    state=StateType.CRASHED,
                    message=f"No heartbeat for {SILENCE.total_seconds():.0f} s: the process or its machine is gone.",
                )
            ],
        ),
        _alert(
            "checks failed",
            EventTrigger(expect={events.CHECKS_FAILED}, match=ResourceSpecification({events.BLOCKING: "true"})),
            "Checks of {{ event.resource.name }} failed",
            "{{ event.payload.failed | join('; ') }}. Blocked dates: {{ event.payload.blocked_dates }}.",
            alerts,
        ),
        _alert(
            "champion stale",
            EventTrigger(expect={events.STALE}),
            "Champion of {{ event.resource.name }} is stale",
            "{{ event.payload.version }} is as of {{ event.payload.as_of }}, the cube has {{ event.payload.head }}: "
            "{{ event.payload.periods }} periods behind.",
            alerts,
        ),
        _alert(
            "allocation failed",
            EventTrigger(expect={events.ALLOCATION_FAILED}),
            "Allocation {{ event.payload.allocation }} by {{ event.resource.name }} failed",
            "By {{ event.payload.version }}: {{ event.payload.reason }}",
            alerts,
        ),
        _alert(
            "run failed or crashed",
            EventTrigger(
                expect={"prefect.flow-run.Crashed", "prefect.flow-run.Failed", "prefect.flow-run.TimedOut"},
                match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
                match_related=ResourceSpecification(_OURS),
            ),
            "Run {{ flow_run.name }} {{ flow_run.state.name }}",
            "{{ flow_run.state.message }}",
            alerts,
        ),
        _alert(
            "no ingest",
            EventTrigger(
                expect={"prefect.flow-run.Completed", "prefect.flow-run.Skipped"},
                match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
                match_related=ResourceSpecification(
                    {"prefect.resource.id": "prefect.tag.ingest", "prefect.resource.role": "tag"}
                ),
                posture=Posture.Proactive,
                threshold=1,
                within=NO_INGEST,
            ),
            "No ingest has ended well",
            f"For {NO_INGEST.days} days no ingest was completed: is the worker running, is the schedule active?",
            alerts,
        ),
    ]


def apply_automations(settings: Settings) -> list[str]:
    """Create or update all automations on the Prefect server of the environment; the deployments must be there.

    Returns
    -------
    list[str]
        Their names.
    """
    with get_client(sync_client=True) as client:
        deployments = {name: client.read_deployment_by_name(f"{name}/{name}").id for name in ("update", "retrain")}
        known = {one.name: one for one in client.read_automations() if one.name.startswith(PREFIX)}
        declared = automations(deployments, _alerts_block(settings))
        for automation in map(_in_full, declared):
            there = known.pop(automation.name, None)
            if there is None:
                client.create_automation(automation)
            else:
                client.update_automation(there.id, automation)
        for left in known.values():
            client.delete_automation(left.id)
    return [automation.name for automation in declared]


def _in_full(automation: AutomationCore) -> AutomationCore:
    """Return an automation with its defaults set: Prefect's client leaves out what was not, and the server wants it."""
    return AutomationCore.model_validate(automation.model_dump(mode="json", exclude={"owner_resource"}))


def _follow_up(name: str, event: str, deployment: UUID) -> AutomationCore:
    """Start a deployment with the config of the ingest that sent an event; a backfill's ingests start nothing."""
    parameters: dict[str, Any] = {
        "spec": {"__prefect_kind": "jinja", "template": "{{ event.payload.config }}"},
    }
    return AutomationCore(
        name=f"{PREFIX}{name}",
        trigger=EventTrigger(
            expect={event},
            match=ResourceSpecification(
                {
                    "prefect.resource.id": "factorcube.universe.*",
                    "factorcube.flow": "ingest",
                    "factorcube.config": "*",
                }
            ),
        ),
        actions=[RunDeployment(source="selected", deployment_id=deployment, parameters=parameters)],
    )


def _alert(name: str, trigger: EventTrigger, subject: str, body: str, alerts: UUID | None) -> AutomationCore:
    action: ActionTypes = DoNothing()
    if alerts is not None:
        action = SendNotification(block_document_id=alerts, subject=subject, body=body)
    return AutomationCore(name=f"{PREFIX}alert: {name}", trigger=trigger, actions=[action])


def _alerts_block(settings: Settings) -> UUID | None:
    """Keep the webhook as a block on the server, its URL among the block's secrets; the block is named by alerts."""
    if settings.alert_webhook is None:
        return None
    block = CustomWebhookNotificationBlock(
        name="factorcube",
        url="{{ url }}",
        json_data={"text": "{{ subject }}\n{{ body }}"},
        secrets=SecretDict({"url": settings.alert_webhook.get_secret_value()}),
    )
    return cast("UUID", block.save(ALERTS_BLOCK, overwrite=True))
