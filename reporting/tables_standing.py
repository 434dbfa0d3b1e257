"""Tables of one portfolio by one model: risk now, exposures, contributors, what was earned, falls, tails, stress."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from models.evaluation.tails import kupiec, tail, violations
from models.risk.book import LEVELS, BookRisk
from reporting.readings import SPECIFIC
from reporting.standing import STRESS_WINDOW, Standing, earned_over, falls, worst_episodes
from reporting.tables import Cell, Table, heads, num, number, percent

_TICKERS, _DIVERSIFIERS, _FACTORS = 10, 5, 15
_SIGNIFICANT = 0.05


def contributors(found: BookRisk) -> pd.DataFrame:
    """Return the rows of the tickers that contribute most in size, the largest contribution first."""
    order = found.by_ticker["contribution"].abs().sort_values(ascending=False, kind="stable").index[:_TICKERS]
    return found.by_ticker.loc[order].sort_values("contribution", ascending=False, kind="stable")


def now(standing: Standing) -> Table:
    """Volatility, losses at their levels, and shares, as of the last forecast."""
    found = standing.now
    period = period_of(standing)
    known = standing.volatility[np.isfinite(standing.volatility)]
    rows = [
        ("Volatility a year", percent(found.annual_volatility)),
        ("Lowest, median and highest so far", ", ".join(map(percent, np.quantile(known, [0.0, 0.5, 1.0])))),
        (f"Volatility a {period}", percent(found.volatility, 2)),
        *[(f"Value at risk {level:.0%}, 1 {period}", percent(found.value_at_risk(level), 2)) for level in LEVELS],
        *[
            (f"Expected shortfall {level:.0%}, 1 {period}", percent(found.expected_shortfall(level), 2))
            for level in LEVELS
        ],
        ("Of its variance from factors", percent(1.0 - found.specific_share)),
    ]
    if found.active is not None:
        rows += [
            (f"Beta to {found.benchmark}", number(found.beta)),
            (f"Tracking error to {found.benchmark} a year", percent(found.active.annual_volatility)),
            ("Of it from factors", percent(1.0 - found.active.specific_share)),
        ]
    return Table(
        heads("Risk now", num("")),
        tuple((Cell(word, "key"), num(text)) for word, text in rows),
        "Losses are those of normal returns, in percent of the portfolio.",
    )


def exposures(standing: Standing) -> Table:
    """One row per factor: exposure now, that of the benchmark and the difference where there is one, contribution."""
    found, year = standing.now, math.sqrt(standing.periods_per_year)
    order = found.by_factor["contribution"].abs().sort_values(ascending=False, kind="stable").index[:_FACTORS]
    beside = [] if found.active is None else [num(f"{found.benchmark}"), num("Active")]
    rows = []
    for name, row in found.by_factor.loc[order].iterrows():
        against = []
        if found.active is not None:
            active = float(found.active.by_factor["exposure"][str(name)])
            against = [num(number(row["exposure"] - active)), num(number(active))]
        brought = num(percent(row["contribution"] * year, 2)), num(percent(row["share"]))
        rows.append((Cell(str(name), "key"), num(number(row["exposure"])), *against, *brought))
    count = len(found.by_factor)
    return Table(
        heads("Factor", num("Exposure"), *beside, num("Volatility from it a year"), num("Share")),
        tuple(rows),
        f"The {len(rows)} of {count} factors that bring most." if count > len(rows) else "",
    )


def diversifiers(standing: Standing) -> Table:
    """Return the tickers that bring the least risk for their size."""
    year = math.sqrt(standing.periods_per_year)
    return Table(
        heads("Diversifier", num("Weight"), num("Its volatility a year"), num("Share of risk")),
        tuple(
            (
                Cell(str(name), "key"),
                num(percent(row["weight"], 2)),
                num(percent(row["volatility"] * year)),
                num(percent(row["share"])),
            )
            for name, row in standing.now.diversifiers(_DIVERSIFIERS).iterrows()
        ),
        "Tickers whose share of the risk is furthest below their share of the gross weight.",
    )


def earned(standing: Standing) -> Table | None:
    """Return what factors earned over the last month, year and since the first forecast, linked; None if not known."""
    spans = {"Month": standing.periods_per_year // 12, "Year": standing.periods_per_year, "Since start": None}
    known = {word: linked for word, span in spans.items() if (linked := earned_over(standing, span)) is not None}
    if not known:
        return None
    names = [str(name) for name in standing.now.by_factor.index]
    effects = {word: found["factor"].values for word, found in known.items()}
    order = np.argsort(-np.abs([*effects.values()][-1]), kind="stable")[:_FACTORS]
    left = [place for place in range(len(names)) if place not in order]
    rows = [
        (
            Cell(names[place], "key"),
            *[num(percent(values[place], 2)) for values in effects.values()],
        )
        for place in order
    ]
    if left:
        sums = [num(percent(values[left].sum(), 2)) for values in effects.values()]
        rows.append((Cell(f"{len(left)} other factors", "key"), *sums))
    for word, name in (("Specific", "specific"), ("Return", "portfolio_return")):
        rows.append((Cell(word, "key"), *[num(percent(float(found[name]), 2)) for found in known.values()]))
    dates = ", ".join(f"{int(found['n_dates']):,}" for found in known.values())
    return Table(
        heads("Earned by", *map(num, known)),
        tuple(rows),
        f"Excess return to {standing.dates[-1]:%Y-%m-%d}, compounded; effects are linked (Carino) and sum to it. Over "
        f"{dates} dates; start is the first forecast, {standing.dates[0]:%Y-%m-%d}.",
    )


def drawdowns(standing: Standing) -> Table | None:
    """Return the deepest drawdowns; None if there is none."""
    found = falls(standing)
    if not found:
        return None
    return Table(
        heads(num("Drawdown"), "From", "Lowest", "Made up by"),
        tuple(
            (
                num(percent(fall.depth)),
                Cell(f"{fall.peak:%Y-%m-%d}", "date"),
                Cell(f"{fall.trough:%Y-%m-%d}", "date"),
                Cell(f"{fall.recovered:%Y-%m-%d}" if fall.recovered is not None else "not yet", "date"),
            )
            for fall in found
        ),
        "",
    )


def exceedances(standing: Standing) -> Table | None:
    """One row per level: losses beyond the value at risk, how many are expected, and a verdict; None if not judged."""
    if not standing.judged:
        return None
    rows = []
    for level in LEVELS:
        hits = violations(standing.surprises[:, None], tail(level))
        count, expected = int(np.nansum(hits)), (1.0 - level) * standing.judged
        p_value = float(kupiec(hits, level)[1][0])
        apart = p_value < _SIGNIFICANT
        words = ("more than said" if count > expected else "fewer than said") if apart else "as many as said"
        rows.append(
            (
                Cell(f"{level:.0%}", "key"),
                num(f"{count:,}"),
                num(number(expected, 1)),
                num(number(p_value)),
                Cell(words, "warn" if apart else "good"),
            )
        )
    return Table(
        heads("Value at risk", num("Losses beyond it"), num("Expected"), num("p-value"), "Verdict"),
        tuple(rows),
        f"Over {standing.judged:,} returns out of sample, with normal value at risk. The p-value is Kupiec's, of the "
        "number alone.",
    )


def stress(standing: Standing) -> Table | None:
    """One row per episode: what the portfolio earned then, and what the same factor returns would do now."""
    found = worst_episodes(standing)
    if not found:
        return None
    then = [num("Earned then")] if standing.earned is not None else []
    rows = [
        (
            Cell(f"{episode.start:%Y-%m-%d} to {episode.end:%Y-%m-%d}", "date"),
            *[num(percent(episode.earned)) for _ in then],
            num(percent(episode.again)),
            num(percent(episode.worst)),
        )
        for episode in found
    ]
    return Table(
        heads("Episode", *then, num("If factors did it again"), num("Worst on the way")),
        tuple(rows),
        f"The worst spans of {STRESS_WINDOW[standing.periods_per_year]} periods in the sample that do not overlap, and "
        f"their factor returns at the exposures of {standing.now.date:%Y-%m-%d}; what was {SPECIFIC} then is left out.",
    )


def uncovered(standing: Standing) -> str:
    """Say what of the weights the model does not cover; empty if nothing."""
    found = standing.now
    if not len(found.uncovered):
        return ""
    names = [str(name) for name in found.uncovered.abs().sort_values(ascending=False, kind="stable").index]
    more = f" and {len(names) - _TICKERS} more" if len(names) > _TICKERS else ""
    return (
        f"Not covered: {percent(found.uncovered_share)} of it, in {', '.join(names[:_TICKERS])}{more}; the covered "
        "ones of their side stand for them."
    )


def period_of(standing: Standing) -> str:
    """Name of a period."""
    return "day" if standing.periods_per_year == 252 else "month"
