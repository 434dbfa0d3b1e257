"""Data-quality checks as declarations, and the report of having run them.

Here belong what is checked, how severe a failure is, and what a report says. Computing what a check looks at
belongs in `models.quality`; running the checks with Great Expectations belongs in `tasks.checking`.

A check looks at one column of one small summary table: one row per date, per ticker, per variable. It is
therefore as fast on a million rows as on a thousand. What a failure means follows from two words:

=========  =============================================  =============================================
scope      severity `block`                               severity `warn`
=========  =============================================  =============================================
`row`      the cell becomes missing, or what of it is     the cell stays; its return and prices move no number
           wrong, if that can be told
`date`     the date does not land                         the report says so
`ingest`   nothing lands                                  the report says so
=========  =============================================  =============================================
"""

from __future__ import annotations

from datetime import date
from typing import Literal

from pydantic import Field, field_validator

from schemas.base import Frozen, Name, nearest

Severity = Literal["block", "warn"]
Scope = Literal["row", "date", "ingest"]
Table = Literal[
    "structure", "keys", "sessions", "dates", "columns", "tickers", "ingest", "withdrawn", "delivery", "cube"
]
Rule = Literal["at_most", "at_least", "unique", "in_set"]
SuspectedReturns = Literal["counted", "left_out"]
"""What becomes, where forecasts are judged, of a return that a check suspects and none refutes."""

MAX_FLAGGED_ROWS = 10_000
"""How many flagged rows a report describes one by one; `CheckReport.flagged_cells` names all of them."""

LAYOUTS = ("datetime(date)", "str(ticker)", "str(char)", "float(date, ticker)", "float(date, ticker, char)")
"""Types and dimensions that a market dataset may hold."""


class Check(Frozen):
    """One declared check: an expectation about one column of one summary table.

    A row-scoped check is special in one thing: its threshold is the one of the rule that flags rows, and the
    expectation is that a date has none of them.
    """

    name: Name
    suite: Name
    table: Table
    rule: Rule
    severity: Severity
    scope: Scope
    description: str = Field(description="What is expected, with `{}` for the threshold.")
    threshold: float | None = Field(default=None, ge=0.0)
    monthly_threshold: float | None = Field(default=None, ge=0.0, description="For monthly data, if another.")
    allowed: tuple[str, ...] = ()

    @property
    def expected(self) -> str:
        """The expectation in words."""
        return self.description.format("" if self.threshold is None else f"{self.threshold:g}")


_TABLES: dict[str, Table] = {
    "schema": "structure",
    "keys": "keys",
    "calendar": "sessions",
    "missing": "dates",
    "prices": "dates",
    "returns": "dates",
    "columns": "columns",
    "tickers": "tickers",
    "ingest": "ingest",
    "withdrawn": "withdrawn",
    "delivery": "delivery",
    "cube": "cube",
}
_Consequence = tuple[Severity, Scope]
_BLOCK_INGEST: _Consequence = ("block", "ingest")
_BLOCK_DATE: _Consequence = ("block", "date")
_BLOCK_ROW: _Consequence = ("block", "row")
_WARN_INGEST: _Consequence = ("warn", "ingest")
_WARN_DATE: _Consequence = ("warn", "date")
_WARN_ROW: _Consequence = ("warn", "row")


def _check(
    name: str,
    suite: str,
    consequence: _Consequence,
    description: str,
    threshold: float | None = None,
    *,
    monthly: float | None = None,
    rule: Rule = "at_most",
    allowed: tuple[str, ...] = (),
) -> Check:
    severity, scope = consequence
    return Check(
        name=name,
        suite=suite,
        table=_TABLES[suite],
        rule=rule,
        severity=severity,
        scope=scope,
        description=description,
        threshold=threshold,
        monthly_threshold=monthly,
        allowed=allowed,
    )


# fmt: off
CHECKS: tuple[Check, ...] = (
    # What was read: variables, types, axes.
    _check("layout", "schema", _BLOCK_INGEST,
           "variables are floats over (date, ticker)", rule="in_set", allowed=LAYOUTS),
    _check("duplicate_key", "keys", _BLOCK_INGEST, "every date and every ticker once", rule="unique"),
    _check("unsorted_key", "keys", _BLOCK_INGEST, "dates and tickers ascend", 0.0),
    _check("bad_key", "keys", _BLOCK_INGEST, "no blank labels, no dates with a time of day", 0.0),
    # The calendar.
    _check("unknown_session", "calendar", _BLOCK_INGEST, "no date that is not a session", 0.0),
    _check("missing_session", "calendar", _WARN_DATE, "no session without data", 0.0),
    _check("calendar_gap", "calendar", _WARN_DATE, "at most {} days between dates", 7.0, monthly=45.0),
    # What is missing.
    _check("null_rate", "missing", _BLOCK_DATE,
           "share of active tickers without a price or return at most {}", 0.5),
    _check("field_null_rate", "missing", _WARN_DATE,
           "share missing of any other field, where there is a price or return, at most {}", 0.5),
    _check("count_ratio", "missing", _BLOCK_DATE,
           "number of tickers over its trailing median at least {}", 0.5, rule="at_least"),
    _check("column_null_rate", "columns", _WARN_INGEST, "share missing of each variable at most {}", 0.2),
    _check("empty_ticker", "tickers", _WARN_INGEST,
           "at least {} price or return of each ticker", 1.0, rule="at_least"),
    _check("unexplained_end", "tickers", _WARN_INGEST,
           "no ticker that ends early without a delisting return", 0.0),
    _check("reused_ticker", "tickers", _WARN_INGEST,
           "no ticker away for more than {} periods that comes back at another price, or after twelve times as many",
           21.0, monthly=3.0),
    # Prices of a row.
    _check("impossible_bar", "prices", _BLOCK_ROW,
           "low <= open, close <= high, up to {} of the price", 1e-4),
    _check("nonpositive_price", "prices", _BLOCK_ROW, "prices above {}", 0.0),
    _check("negative_volume", "prices", _BLOCK_ROW, "volume and shares not negative", 0.0),
    _check("stale_price", "prices", _WARN_ROW,
           "price unchanged over fewer than {} periods", 10.0, monthly=4.0),
    # Returns of a row. The three kinds of jump are looked for in daily data only.
    _check("impossible_return", "returns", _BLOCK_ROW, "returns finite, and no loss above {}", 1.0),
    _check("lost_return", "returns", _WARN_ROW,
           "no return of more than {} from before a gap without prices", 0.0),
    _check("return_bound", "returns", _WARN_ROW, "absolute return at most {}", 1.0, monthly=5.0),
    _check("reversed_jump", "returns", _WARN_ROW, "no jump of {} sigmas that is undone within days", 6.0),
    _check("unconfirmed_jump", "returns", _WARN_ROW,
           "no overnight jump of {} sigmas that turnover does not confirm", 8.0),
    _check("split_like_jump", "returns", _WARN_ROW,
           "no jump of {} sigmas that a split ratio explains", 6.0),
    _check("jump_cluster", "returns", _WARN_DATE, "share of tickers with such a jump at most {}", 0.02),
    _check("adjusted_split", "returns", _WARN_DATE, "at most {} splits that `adjust: splits` adjusted", 0.0),
    # All of it.
    _check("priced", "ingest", _BLOCK_INGEST, "at least {} price or return", 1.0, rule="at_least"),
    _check("return_unit", "ingest", _BLOCK_INGEST,
           "median absolute return of a usual date at most {}: decimals, not percent", 0.2, monthly=0.4),
    _check("quarantined_share", "ingest", _BLOCK_INGEST, "share of rows that are blocked at most {}", 0.05),
    # What a delivery takes back.
    _check("withdrawn_row", "withdrawn", _WARN_DATE,
           "every row that an earlier delivery had, from the first to the last date of a full one", 0.0),
    _check("withdrawn_share", "delivery", _BLOCK_INGEST, "share of such rows that are gone at most {}", 0.05),
    _check("known_tickers", "delivery", _BLOCK_INGEST,
           "share of the cube's active tickers that are in a full delivery at least {}", 0.5, rule="at_least"),
    # What is about to be written to a cube.
    _check("infinite_value", "cube", _BLOCK_INGEST, "no infinite return or characteristic", 0.0),
    _check("partial_weights", "cube", _BLOCK_INGEST, "weights for all tickers or for none", 0.0),
    _check("weights_sum", "cube", _BLOCK_INGEST,
           "net weight of each portfolio within {} of its median over time", 1e-3),
    _check("unknown_industry", "cube", _WARN_DATE,
           "share of the estimation universe whose industry is not known at most {}", 0.1),
    _check("cube_return_bound", "cube", _WARN_DATE, "absolute return at most {}", 1.0, monthly=5.0),
    _check("vanished_returns", "cube", _WARN_DATE,
           "number of returns over its trailing median at least {}", 0.5, rule="at_least"),
    _check("characteristic_coverage", "cube", _WARN_DATE,
           "coverage of each characteristic over its trailing median at least {}", 0.5, rule="at_least"),
    _check("characteristic_drift", "cube", _WARN_DATE,
           "deciles of each characteristic within {} usual spreads of their trailing median", 5.0),
    _check("characteristic_spread", "cube", _WARN_DATE,
           "spread of each characteristic over its trailing median at least {}", 0.05, rule="at_least"),
)
# fmt: on
"""All checks. One whose column the data do not allow (no volumes, returns only) is not run."""

REFUTING = ("reversed_jump",)
"""Checks whose warning means that a return cannot be true. What others suspect may be a crash, which forecasts must be
judged by."""
TELLING = ("lost_return",)
"""Checks of rows whose warning says what is not known: nothing that is there is suspected for it."""

_NAMES = [check.name for check in CHECKS]


class CheckOverride(Frozen):
    """What a run spec may change of one declared check."""

    severity: Severity | None = Field(default=None, description="What a failure does; as declared if left out.")
    threshold: float | None = Field(
        default=None, ge=0.0, description="Where a failure begins; as declared if left out."
    )


class CheckOverrides(Frozen):
    """Changes to declared checks, by name."""

    overrides: dict[str, CheckOverride] = Field(
        default_factory=dict, description="What to change, by the name of the check."
    )

    @field_validator("overrides")
    @classmethod
    def _known(cls, overrides: dict[str, CheckOverride]) -> dict[str, CheckOverride]:
        by_name = {check.name: check for check in CHECKS}
        for name, override in overrides.items():
            if name not in by_name:
                raise ValueError(f"there is no check '{name}' ({nearest(name, _NAMES)})")
            if override.threshold is not None and by_name[name].threshold is None:
                raise ValueError(f"the check '{name}' has no threshold; only its severity can be set")
        return overrides


def declared(overrides: CheckOverrides, frequency: Literal["daily", "monthly"]) -> dict[str, Check]:
    """Return the checks by name, as this run wants them: those of its frequency, changed by the user."""
    out = {}
    for check in CHECKS:
        threshold = check.threshold
        if frequency == "monthly" and check.monthly_threshold is not None:
            threshold = check.monthly_threshold
        changed = overrides.overrides.get(check.name, CheckOverride())
        out[check.name] = check.model_copy(
            update={
                "threshold": threshold if changed.threshold is None else changed.threshold,
                "severity": changed.severity or check.severity,
            }
        )
    return out


class FlaggedRow(Frozen):
    """One (date, ticker) that a row-scoped check objects to."""

    date: date
    ticker: str
    check: str
    severity: Severity
    detail: str


class FlaggedCells(Frozen):
    """All (date, ticker) that one row-scoped check objects to, as dates by ticker."""

    check: str
    severity: Severity
    fields: tuple[str, ...] = Field(
        default=(), description="The fields that are wrong, where the rest of the row is not; all of it if empty."
    )
    cells: dict[str, tuple[date, ...]]

    @property
    def count(self) -> int:
        """How many rows there are."""
        return sum(len(dates) for dates in self.cells.values())


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
    flagged_rows: tuple[FlaggedRow, ...] = Field(default=(), description="The first ones, for people to read.")
    flagged_cells: tuple[FlaggedCells, ...] = Field(default=(), description="All of them, for machines.")
    blocked_dates: tuple[date, ...] = ()
    data_docs: str | None = Field(default=None, description="Path of the Data Docs index.")

    @property
    def failed(self) -> tuple[CheckResult, ...]:
        """Checks that did not pass, blocking ones first."""
        return tuple(sorted((r for r in self.results if not r.passed), key=lambda r: r.severity))

    @property
    def blocking(self) -> tuple[CheckResult, ...]:
        """Failed checks of scope `ingest` that block everything."""
        return tuple(r for r in self.failed if r.severity == "block" and r.scope == "ingest")

    @property
    def blocked_ingest(self) -> bool:
        """Whether a check of scope `ingest` blocks everything."""
        return bool(self.blocking)

    @property
    def flagged_count(self) -> int:
        """How many times a row was flagged; a row that two checks object to counts twice."""
        return sum(item.count for item in self.flagged_cells)
