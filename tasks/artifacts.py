"""What a person sees of a run in Prefect: tables of checks, metrics and gate decisions, and links.

Outside of a run there is nothing to belong to, and nothing is made. What Prefect shows is a courtesy: a server that is
lost costs the view of a run, never its results.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import cast
from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from schemas.checks import CheckReport
from schemas.contracts import GateDecision
from schemas.refs import VersionRef
from tasks.logs import in_run, run_logger

_SECONDS_BETWEEN_MOVES = 2.0
_SECONDS_OF_SILENCE = 600.0
"""How long nothing is sent after a server did not answer: Prefect's client waits about a minute each time."""


class _Courtesy:
    """Sends to Prefect's server what the run can do without."""

    def __init__(self) -> None:
        self._silent_until = 0.0

    def __call__(self, send: Callable[[], object]) -> None:
        if not in_run() or time.monotonic() < self._silent_until:
            return
        try:
            send()
        except Exception as error:  # noqa: BLE001  # whatever the server or its client raises, the run goes on
            self._silent_until = time.monotonic() + _SECONDS_OF_SILENCE
            run_logger().warning("Prefect cannot show this run for now (%s); the run goes on", type(error).__name__)


courtesy = _Courtesy()
"""Call with a function that sends something: outside of a run, or while the server is lost, nothing is sent."""


class Progress:
    """A progress bar of the run, moved at most every two seconds; called with how many are done, of how many.

    Parameters
    ----------
    what : str
        What is being done, in the plural: ``fits``.
    name : str
        Whose: the universe.
    """

    def __init__(self, what: str, name: str) -> None:
        self._what, self._name = what, name
        self._bar: UUID | None = None
        self._moved = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Show that so many are done; what is done at once needs no bar."""
        due = time.monotonic() - self._moved >= _SECONDS_BETWEEN_MOVES or (done == total and self._bar is not None)
        if due:
            courtesy(lambda: self._move(100.0 * done / total, total))
            self._moved = time.monotonic()

    def _move(self, percent: float, total: int) -> None:
        if self._bar is None:
            made = create_progress_artifact(
                percent, key=key_of(self._what, self._name), description=f"{total} {self._what} of {self._name}"
            )
            self._bar = cast("UUID", made)
        else:
            update_progress_artifact(self._bar, percent)


def publish_check_table(universe: str, report: CheckReport) -> None:
    """Show every check with its outcome as a table artifact of the run."""
    rows: list[dict[str, object]] = [
        {
            "check": result.check,
            "severity": result.severity,
            "outcome": "passed" if result.passed else "FAILED",
            "failures": result.failures,
            "observed": result.observed,
            "expected": result.expected,
        }
        for result in report.results
    ]
    publish_table("checks", universe, rows, f"Data-quality checks of {universe}")


def publish_metrics_table(universe: str, rows: list[dict[str, object]]) -> None:
    """Show the metrics of every model as a table artifact of the run."""
    publish_table("metrics", universe, rows, f"Models of {universe}")


def publish_gate_table(ref: VersionRef, decision: GateDecision) -> None:
    """Show what the gate asked of a version, what the version and its champion have, and the outcome."""
    beside = "no champion" if decision.champion is None else f"{decision.champion}, {decision.dates} held-out dates"
    rows: list[dict[str, object]] = [
        {
            "criterion": one.name,
            "outcome": "passed" if one.passed else "FAILED",
            "version": one.value,
            "champion": one.champion,
            "limit": one.limit,
        }
        for one in decision.criteria
    ]
    shown = f"Gate of {ref} against {beside}: {'; '.join(decision.reasons)}"
    publish_table("gate", f"{ref.universe}-{ref.model}", rows, shown)


def publish_link(universe: str, name: str, link: str) -> None:
    """Show a link to a file that the run made."""
    courtesy(lambda: create_link_artifact(key=key_of(name, universe), link=link, description=f"{name} of {universe}"))


def publish_table(what: str, name: str, rows: list[dict[str, object]], description: str) -> None:
    """Show rows as a table artifact of the run."""
    courtesy(lambda: create_table_artifact(key=key_of(what, name), table=rows, description=description))


def key_of(what: str, name: str) -> str:
    """Return the key of an artifact: Prefect wants lower-case letters, digits and dashes."""
    return f"{what}-{name.replace('_', '-')}"
