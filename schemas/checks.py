"""Data-quality checks as declarations, and the report of having run them."""

from __future__ import annotations

from datetime import date
from typing import Literal

from pydantic import Field

from schemas.base import Frozen

Severity = Literal["block", "warn"]
Scope = Literal["row", "date", "ingest"]


class CheckOverride(Frozen):
    """What a run spec may change of one declared check."""

    severity: Severity | None = None
    threshold: float | None = None


class CheckOverrides(Frozen):
    """Changes to declared checks, by name."""

    overrides: dict[str, CheckOverride] = Field(default_factory=dict)


class FlaggedRow(Frozen):
    """One (date, ticker) that a row-scoped check objects to."""

    date: date
    ticker: str
    check: str
    severity: Severity
    detail: str


class CheckResult(Frozen):
    """The outcome of one check."""

    check: str
    suite: str
    severity: Severity
    scope: Scope
    passed: bool
    observed: str
    expected: str
    failures: int = Field(description="How many rows, dates or columns failed.")


class CheckReport(Frozen):
    """The outcome of all checks of one ingest."""

    results: tuple[CheckResult, ...]
    flagged_rows: tuple[FlaggedRow, ...] = ()
    blocked_dates: tuple[date, ...] = ()
    data_docs: str | None = Field(default=None, description="Path of the Data Docs index, relative to the root.")

    @property
    def blocked_ingest(self) -> bool:
        """Whether a check of scope `ingest` blocks everything."""
        return any(not r.passed and r.severity == "block" and r.scope == "ingest" for r in self.results)
