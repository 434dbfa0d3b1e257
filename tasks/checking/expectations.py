"""Great Expectations suites made from declared checks, and their validation.

Here belongs everything that knows the API of Great Expectations, but for the pages of the Data Docs. The context is
ephemeral: nothing is read from or written to a project folder, nothing is sent anywhere.

Labels come from data and may end in a message of Great Expectations, which does not escape what it shows. So they are
escaped before it sees them, and restored in what it returns.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import great_expectations as gx
import pandas as pd
from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
    ProgressBarsConfig,
)
from great_expectations.expectations.core.expect_column_values_to_be_between import ExpectColumnValuesToBeBetween
from great_expectations.expectations.core.expect_column_values_to_be_in_set import ExpectColumnValuesToBeInSet
from great_expectations.expectations.core.expect_column_values_to_be_unique import ExpectColumnValuesToBeUnique
from great_expectations.expectations.expectation import Expectation

from schemas.checks import Check
from schemas.errors import CheckError


@dataclass(frozen=True)
class Outcome:
    """What came of one check: the labels of the rows of its table that failed, and what stands in each of them."""

    check: Check
    failing: tuple[str, ...]
    values: tuple[str, ...]


@dataclass(frozen=True)
class SuiteOutcome:
    """What came of the checks of one suite, and what labels the rows of their table."""

    suite: str
    label: str
    outcomes: tuple[Outcome, ...]


def validate(tables: Mapping[str, pd.DataFrame], checks: Iterable[Check]) -> list[SuiteOutcome]:
    """Validate summary tables against checks, suite by suite.

    Parameters
    ----------
    tables : Mapping of str to DataFrame
        Summaries by the name that checks give them; the first column labels the rows. A check whose table or column
        is not there is not run.
    checks : iterable of Check
        Checks in order.

    Raises
    ------
    CheckError
        If Great Expectations could not evaluate a check.
    """
    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        progress_bars=ProgressBarsConfig(globally=False),
        analytics_enabled=False,
    )
    context = gx.get_context(project_config=config, mode="ephemeral")
    source = context.data_sources.add_pandas("summaries")
    suites: dict[str, list[Check]] = {}
    for check in checks:
        if check.table in tables and check.name in tables[check.table]:
            suites.setdefault(check.suite, []).append(check)
    done = []
    for suite, members in suites.items():
        table = _escaped(tables[members[0].table])
        label = str(table.columns[0])
        batch_definition = source.add_dataframe_asset(suite).add_batch_definition_whole_dataframe("all")
        batch = batch_definition.get_batch(batch_parameters={"dataframe": table})
        validation = batch.validate(
            gx.ExpectationSuite(name=suite, expectations=[_expectation(check) for check in members]),
            result_format={"result_format": "COMPLETE", "unexpected_index_column_names": [label]},
        )
        results = {_check_name(result): result for result in validation.results}
        outcomes = tuple(_outcome(check, results[check.name], label) for check in members)
        done.append(SuiteOutcome(suite, label, outcomes))
    return done


def _expectation(check: Check) -> Expectation:
    common: dict[str, Any] = {"column": check.name, "meta": {"check": check.name}}
    if check.rule == "unique":
        return ExpectColumnValuesToBeUnique(**common)
    if check.rule == "in_set":
        return ExpectColumnValuesToBeInSet(value_set=list(check.allowed), **common)
    if check.rule == "at_least":
        return ExpectColumnValuesToBeBetween(min_value=check.threshold, **common)
    limit = 0.0 if check.scope == "row" else check.threshold
    return ExpectColumnValuesToBeBetween(max_value=limit, **common)


def _check_name(result: Any) -> str:
    return str(result.expectation_config.meta["check"])


def _outcome(check: Check, result: Any, label: str) -> Outcome:
    if "unexpected_index_list" not in result.result:
        raise CheckError(f"the check '{check.name}' could not be evaluated: {result.exception_info}")
    rows = result.result["unexpected_index_list"]
    labels, values = (tuple(html.unescape(str(row[key])) for row in rows) for key in (label, check.name))
    return Outcome(check, labels, values)


def _escaped(table: pd.DataFrame) -> pd.DataFrame:
    texts = {str(name): table[name].map(html.escape) for name in table.select_dtypes(exclude="number")}
    return table.assign(**texts)
