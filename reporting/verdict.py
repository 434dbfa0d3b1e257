"""The verdict on a portfolio's risk in words, made from the numbers: how much, from where, whether to believe it."""

from __future__ import annotations

import math

from models.evaluation.forecasts import bias_band
from reporting.standing import Standing
from reporting.tables import MISSING, number, percent
from reporting.tables_risk import UNDERSTATED, WITHIN, judgement


def verdict(standing: Standing) -> str:
    """Say the risk as of the last forecast, where it stands in its history, its source, and whether forecasts held."""
    found = standing.now
    return (
        f"{standing.portfolio} by {standing.model}: {percent(found.annual_volatility)} a year "
        f"as of {found.date:%Y-%m-%d}{_in_history(standing.percentile)}; "
        f"{percent(1.0 - found.specific_share, 0)} of its variance from factors; {_belief(standing)}."
    )


def _in_history(percentile: float) -> str:
    if math.isnan(percentile):
        return ""
    if percentile in {0.0, 1.0}:
        return f", the {'highest' if percentile else 'lowest'} of its history"
    place = min(max(round(100.0 * percentile), 1), 99)
    return f", {place}{_ending(place)} percentile of its history"


def _ending(place: int) -> str:
    return "th" if place in {11, 12, 13} else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")


def _belief(standing: Standing) -> str:
    if standing.earned is None:
        return "whether forecasts of it held is not known, for a version has no returns of tickers"
    statistic, dates = standing.bias_statistic, standing.judged
    verdict = judgement(statistic, dates)
    if verdict == MISSING or statistic is None:
        return "whether its forecasts held is not known, for no return lies out of sample yet"
    numbers = f"bias {number(statistic)}, band {' to '.join(number(edge) for edge in bias_band(dates))}"
    if verdict == WITHIN:
        return f"forecasts held ({numbers})"
    much = percent(abs(statistic - 1.0), 0)
    if verdict == UNDERSTATED:
        return f"forecasts were too low: returns varied {much} more than forecast ({numbers})"
    return f"forecasts were too high: returns varied {much} less than forecast ({numbers})"
