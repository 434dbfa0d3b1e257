"""Run the declared data-quality checks with Great Expectations, and act on what they say.

Here belong the checks as an operation: summaries in, a report out, Data Docs beside it, and the quarantine that follows
from a report. What is checked is declared in `schemas.checks`; what the checks look at is computed in `models.quality`.

>>> report, survey = check_market(
...     market, sessions=sessions, frequency="daily", overrides=CheckOverrides(), data_docs=folder
... )
>>> if not report.blocked_ingest:
...     clean, quarantined = apply_quarantine(market, report)
...     excluded = estimation_exclusions(clean, report)

Great Expectations takes seconds to import, and only `check_market` and `check_derived` do so.
"""

from models.quality.quarantine import (
    apply_quarantine,
    blocked_rows,
    estimation_exclusions,
    refuted_returns,
    without_blocked,
)
from tasks.checking.checks import Earlier, check_derived, check_market, merge, thresholds_of

__all__ = [
    "Earlier",
    "apply_quarantine",
    "blocked_rows",
    "check_derived",
    "check_market",
    "estimation_exclusions",
    "merge",
    "refuted_returns",
    "thresholds_of",
    "without_blocked",
]
