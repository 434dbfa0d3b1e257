"""What upkeep may remove and what it must keep: the rule, and the plan that follows from it.

Here belong the ages and numbers that a person chooses, the choice of versions that follows from them, and the
records that a dry run shows. Looking at the stores and removing things belongs in `tasks.maintaining`.

Whatever the rule says, four things are never removed: the champion, a pinned version, a version that a kept one
names as its parent, and the snapshot of a cube that a kept version was made from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Frozen
from schemas.parameters import Shown

Period = Literal["month", "quarter", "year"]


class RetentionRule(Frozen):
    """How long things are kept. A thing is removed only if no line of the rule keeps it."""

    keep_days: int = Field(default=90, ge=0, description="Keep versions published in the last so many days.")
    keep_last: int = Field(default=10, ge=1, description="Keep the newest so many versions of every model.")
    keep_every: Period | None = Field(
        default="month", description="Keep the last version of every month, quarter or year of as-of dates; null: none."
    )
    keep_champions: bool = Field(
        default=False, description="Keep every version that ever was `latest`; daily updates are, each in its turn."
    )
    grace_days: int = Field(
        default=7, ge=0, description="Keep what was `latest` in the last so many days: a reader may have it open."
    )
    snapshot_days: int = Field(default=30, ge=0, description="Keep the snapshots of cubes of the last so many days.")
    work_days: int = Field(default=30, ge=0, description="Keep intermediate results used in the last so many days.")
    report_days: int = Field(default=180, ge=0, description="Keep reports and quarantined rows so many days.")
    abandoned_hours: int = Field(
        default=24, ge=0, description="Take for abandoned what a writer left unfinished for so many hours."
    )


Rule = Annotated[RetentionRule, Shown("How long versions, snapshots, intermediate results and reports are kept.")]

DEFAULT = RetentionRule()
"""The rule of whoever does not choose one."""


@dataclass(frozen=True)
class Candidate:
    """What the rule looks at of one version of a model."""

    version: str
    as_of: date
    created_at: datetime
    parent: str | None
    champion_until: datetime | None
    """When it stopped being the champion; None if it never was one."""


class Item(Frozen):
    """One thing that upkeep keeps or removes."""

    kind: Literal["version", "snapshot", "unreferenced data", "work", "staging", "quarantine", "report"]
    name: str
    size_bytes: int | None = Field(default=None, ge=0, description="None: known only once it is done.")
    why: str = Field(description="Why it is kept, or may go.")


class Plan(Frozen):
    """What one run of upkeep keeps and removes, with the reasons."""

    rule: RetentionRule
    planned_at: datetime
    remove: tuple[Item, ...]
    keep: tuple[Item, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes that the removal frees, as far as they are known."""
        return sum(item.size_bytes or 0 for item in self.remove)


Reasons = dict[str, str]
"""Versions that stay, with the reason."""


def kept_versions(
    rule: RetentionRule,
    versions: Sequence[Candidate],
    *,
    champion: str | None,
    pins: Mapping[str, str],
    now: datetime,
) -> Reasons:
    """Choose the versions of one model that stay, each with the reason.

    Parameters
    ----------
    rule : RetentionRule
        The rule.
    versions : sequence of Candidate
        All versions of the model.
    champion : str or None
        The version that `latest` names.
    pins : Mapping[str, str]
        Pinned versions with the reason of the pin.
    now : datetime
        The present.
    """
    reasons: Reasons = {}
    ordered = sorted(versions, key=lambda one: (one.as_of, one.created_at, one.version))
    by_period = {_period(one.as_of, rule.keep_every): one.version for one in ordered if rule.keep_every}
    last_of = set(by_period.values())
    newest = {one.version for one in ordered[-rule.keep_last :]}
    for one in ordered:
        until = one.champion_until
        if one.version == champion:
            reasons[one.version] = "champion"
        elif one.version in pins:
            reasons[one.version] = f"pinned: {pins[one.version]}"
        elif one.created_at > now - timedelta(days=rule.keep_days):
            reasons[one.version] = f"published in the last {rule.keep_days} days"
        elif one.version in newest:
            reasons[one.version] = f"one of the newest {rule.keep_last}"
        elif one.version in last_of:
            reasons[one.version] = f"last of its {rule.keep_every}"
        elif until is not None and rule.keep_champions:
            reasons[one.version] = "was champion"
        elif until is not None and until > now - timedelta(days=rule.grace_days):
            reasons[one.version] = f"was champion in the last {rule.grace_days} days"
    return _with_parents(reasons, {one.version: one.parent for one in ordered})


def _with_parents(reasons: Reasons, parents: Mapping[str, str | None]) -> Reasons:
    """Add the versions that kept ones continue, and those that these continue."""
    for version in tuple(reasons):
        child, parent = version, parents[version]
        while parent is not None and parent in parents and parent not in reasons:
            reasons[parent] = f"parent of {child}"
            child, parent = parent, parents[parent]
    return reasons


def _period(day: date, every: Period | None) -> tuple[int, ...]:
    if every == "year":
        return (day.year,)
    return (day.year, (day.month - 1) // 3) if every == "quarter" else (day.year, day.month)
