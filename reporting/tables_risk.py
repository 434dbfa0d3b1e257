"""Tables about risk: bias statistics with their bands and without suspects, portfolio and active risk, premia."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from models.evaluation.forecasts import WITHOUT_SUSPECTS, bias_band
from reporting.readings import PublishedVersion, factor_risk, last_forecast, portfolios_of
from reporting.tables import MISSING, Cell, Table, grouped, heads, num, number, percent

WITHIN, UNDERSTATED, OVERSTATED = "within", "risk understated", "risk overstated"


@dataclass(frozen=True)
class Bias:
    """The bias statistic of one portfolio of one model, out of sample, beside its band."""

    version: PublishedVersion
    portfolio: str
    statistic: float | None
    dates: int

    @property
    def verdict(self) -> str:
        """Where the statistic lies; see `judgement`."""
        return judgement(self.statistic, self.dates)


def judgement(statistic: float | None, dates: int) -> str:
    """Say where a bias statistic of so many dates lies beside its band; the sign for a missing one if there is none."""
    if statistic is None or not dates or not math.isfinite(statistic):
        return MISSING
    low, high = bias_band(dates)
    if low <= statistic <= high:
        return WITHIN
    return UNDERSTATED if statistic > high else OVERSTATED


def biases(versions: Sequence[PublishedVersion]) -> list[Bias]:
    """Return the bias statistic of every portfolio of every model."""
    return [
        Bias(
            version,
            portfolio,
            version.manifest.metrics.get(f"bias_statistic.{portfolio}"),
            int(version.dataset["standardised_return"].sel(portfolio=portfolio).where(held_out).count()),
        )
        for portfolio in portfolios_of(versions)
        for version, held_out in ((version, version.dataset["out_of_sample"]) for version in versions)
        if portfolio in version.portfolios
    ]


def bias(versions: Sequence[PublishedVersion]) -> Table:
    """One row per portfolio and model: volatilities, bias statistic with its band, verdict, QLIKE."""
    rows = []
    for item in biases(versions):
        metrics = item.version.manifest.metrics
        band = " to ".join(number(edge) for edge in bias_band(item.dates)) if item.dates else MISSING
        rows.append(
            (
                Cell(item.portfolio, "key"),
                Cell(item.version.model),
                num(percent(metrics.get(f"forecast_volatility.{item.portfolio}"))),
                num(percent(metrics.get(f"realised_volatility.{item.portfolio}"))),
                num(number(item.statistic)),
                num(band),
                num(f"{item.dates:,}"),
                Cell(item.verdict, {WITHIN: "good", MISSING: ""}.get(item.verdict, "warn")),
                num(number(metrics.get(f"qlike.{item.portfolio}"), 3)),
            )
        )
    volatilities = num("Forecast volatility"), num("Realised volatility")
    statistic = num("Bias statistic"), num("95% band"), num("Dates")
    return Table(
        heads("Portfolio", "Model", *volatilities, *statistic, "Verdict", num("QLIKE")),
        grouped(rows),
        f"Out of sample. Volatilities are annualised (× √{versions[0].periods_per_year}). The bias statistic is the "
        "standard deviation of returns over their forecast volatility; with right forecasts of normal returns about "
        "95% of them lie in 1 ± √(2/T). Fat tails widen the true band. QLIKE: compare models within a portfolio only.",
    )


def suspects(versions: Sequence[PublishedVersion]) -> Table:
    """One row per portfolio and model: what judges its risk, with suspected returns and without them."""
    shown = (("realised_volatility", percent), ("bias_statistic", number), ("qlike", number))
    rows = []
    for item in biases(versions):
        metrics, gate = item.version.manifest.metrics, item.version.manifest.gate.suspected_returns
        if f"bias_statistic{WITHOUT_SUSPECTS}.{item.portfolio}" in metrics:
            found = [
                num(form(metrics.get(f"{name}{suffix}.{item.portfolio}")))
                for name, form in shown
                for suffix in ("", WITHOUT_SUSPECTS)
            ]
            used = MISSING if gate is None else gate.replace("_", " ")
            rows.append((Cell(item.portfolio, "key"), Cell(item.version.model), *found, Cell(used)))
    words = [num(f"{word}, {which}") for word in ("Realised", "Bias", "QLIKE") for which in ("with", "without")]
    return Table(
        heads("Portfolio", "Model", *words, "In the gate"),
        grouped(rows),
        "Out of sample, with returns that a data check suspects and without them. A suspicion can be wrong: a true "
        "crash must not vanish from the judgement of risk. What cannot be true (an impossible price, a jump that a "
        "later price undoes) counts in neither. Nothing suspected is learnt from. The last column: how the gate took "
        "them.",
    )


def portfolio_risk(versions: Sequence[PublishedVersion]) -> Table:
    """One row per portfolio and model: volatility as of the last forecast, its parts, the largest factor."""
    rows = [
        _risk_row(version, portfolio)
        for portfolio in portfolios_of(versions)
        for version in versions
        if portfolio in version.portfolios
    ]
    parts = num("Volatility"), num("Systematic"), num("Specific")
    return Table(
        heads("Portfolio", "Model", "As of", *parts, "Largest factor", num("Its share")),
        grouped(rows),
        "At the last date with a forecast. Volatility is annualised "
        f"(× √{versions[0].periods_per_year}); systematic, specific and the largest factor (by size of its Euler "
        "contribution) are shares of the variance.",
    )


def active_risk(versions: Sequence[PublishedVersion]) -> Table:
    """One row per portfolio with a benchmark and model: tracking error and beta as of the last forecast."""
    rows = [
        _active_row(version, portfolio, version.benchmarks[portfolio])
        for portfolio in portfolios_of(versions)
        for version in versions
        if portfolio in version.benchmarks
    ]
    return Table(
        heads("Portfolio", "Benchmark", "Model", "As of", num("Tracking error"), num("Beta")),
        grouped(rows),
        "At the last date with a forecast. Tracking error: forecast volatility of the weights less those of the "
        f"benchmark, annualised (× √{versions[0].periods_per_year}). Beta: forecast covariance with the benchmark over "
        "the variance of the benchmark.",
    )


def factors(versions: Sequence[PublishedVersion]) -> Table:
    """One row per factor of each model: sample and annualised premium with its t-statistic, and volatility."""
    periods = versions[0].periods_per_year
    rows = []
    for version in versions:
        unknown = np.full(len(version.factors), np.nan)
        position = last_forecast(version)
        volatility = unknown if position is None else factor_risk(version, position)[0]
        errors = version.dataset["premia_stderr"].values if "premia_stderr" in version.dataset else unknown
        premia = version.dataset["premia"].values
        for factor, premium, error, level in zip(version.factors, premia, errors, volatility, strict=True):
            rows.append(
                (
                    Cell(version.model, "key"),
                    Cell(factor),
                    Cell(_sample(version), "date"),
                    num(percent(premium * periods, 2)),
                    num(percent(error * periods, 2)),
                    num(number(premium / error if error > 0.0 else None)),
                    num(number(level, 1, "%")),
                )
            )
    numbers = num("Premium a year"), num("Standard error"), num("t"), num("Volatility a year")
    return Table(
        heads("Model", "Factor", "Sample", *numbers),
        grouped(rows),
        f"Premium: mean factor return of the last training sample, annualised (× {periods}); its standard error, where "
        f"the model gives one, is Newey-West. Volatility: from Omega as of its last date, annualised (× √{periods}).",
    )


def _sample(version: PublishedVersion) -> str:
    """Return the span of the last training sample."""
    manifest = version.manifest
    if not manifest.refits:
        return MISSING
    window = manifest.config.get("walk_forward", {}).get("window")
    span = version.dates[version.dates <= pd.Timestamp(manifest.refits[-1])][-(window or len(version.dates)) :]
    return f"{span[0]:%Y-%m-%d} to {span[-1]:%Y-%m-%d}" if len(span) else MISSING


def _active_row(version: PublishedVersion, portfolio: str, benchmark: str) -> tuple[Cell, ...]:
    data = version.dataset[["tracking_error", "portfolio_beta"]].sel(portfolio=portfolio)
    named = Cell(portfolio, "key"), Cell(benchmark), Cell(version.model)
    known = np.flatnonzero(data["tracking_error"].notnull().values)
    if not len(known):
        return (*named, *[Cell(MISSING)] * 3)
    last = data.isel(date=int(known[-1]))
    return (
        *named,
        Cell(f"{version.dates[known[-1]]:%Y-%m-%d}", "date"),
        num(percent(float(last["tracking_error"]) * math.sqrt(version.periods_per_year))),
        num(number(float(last["portfolio_beta"]))),
    )


def _risk_row(version: PublishedVersion, portfolio: str) -> tuple[Cell, ...]:
    data = version.dataset.sel(portfolio=portfolio)
    known = np.flatnonzero((data["portfolio_variance"] > 0.0).values)
    if not len(known):
        return (Cell(portfolio, "key"), Cell(version.model), *[Cell(MISSING)] * 6)
    last = data.isel(date=int(known[-1]))
    total = float(last["portfolio_variance"])
    shares = last["portfolio_variance_factor"].values / total
    largest = int(np.argmax(np.abs(np.nan_to_num(shares))))
    return (
        Cell(portfolio, "key"),
        Cell(version.model),
        Cell(f"{version.dates[known[-1]]:%Y-%m-%d}", "date"),
        num(percent(math.sqrt(total * version.periods_per_year))),
        num(percent(float(last["portfolio_variance_systematic"]) / total)),
        num(percent(float(last["portfolio_variance_specific"]) / total)),
        Cell(version.factors[largest]),
        num(percent(float(shares[largest]))),
    )
