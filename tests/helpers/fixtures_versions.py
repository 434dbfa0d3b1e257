"""Published versions as a run would leave them, simulated from a factor model with known truth."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import pandas as pd
import xarray as xr

from models.evaluation import forecasts
from reporting import PublishedVersion
from schemas.checks import CheckReport, CheckResult, FlaggedRow
from schemas.contracts import VERSION, Criterion, GateDecision, Manifest, SourceFile, validate
from schemas.errors import PublishError
from schemas.statistics import version_contract

MODELS = ("market", "fama_macbeth", "pca", "ipca", "autoencoder")


def make_versions(
    models=MODELS, *, n_dates=1500, n_tickers=20, n_factors=3, n_portfolios=3, frequency="daily", tickers=None
) -> list[PublishedVersion]:
    """Versions of several models on the same simulated returns; the first quarter of the dates is in sample."""
    rng = np.random.default_rng(0)
    periods = 252 if frequency == "daily" else 12
    freq = "B" if frequency == "daily" else "BME"
    dates = pd.date_range("2017-01-02", periods=n_dates, freq=freq).as_unit("ns")
    tickers = tickers or [f"T{number:03d}" for number in range(n_tickers)]
    n_tickers = len(tickers)
    scale = np.sqrt(252 / periods)
    regime = scale * (1.0 + 0.8 * (np.sin(np.linspace(0, 14, n_dates)) > 0.6))
    loadings = _loadings(rng, n_dates, n_tickers, n_factors)
    volatility = 0.008 / np.sqrt(np.arange(1, n_factors + 1))
    factors = (rng.normal(0.0003, 1.0, (n_dates, n_factors)) * volatility) * regime[:, None]
    specific = np.linspace(0.006, 0.022, n_tickers) * scale
    noise = rng.standard_t(5, (n_dates, n_tickers)) / np.sqrt(5 / 3) * specific
    before = np.vstack([loadings[:1], loadings[:-1]])
    returns = np.einsum("tnk,tk->tn", before, factors) + noise
    coords = {"date": dates, "ticker": tickers}
    realised = xr.DataArray(returns, dims=("date", "ticker"), coords=coords)
    return [
        _version(model, place, rng, realised, loadings, factors, specific, n_portfolios, frequency, periods)
        for place, model in enumerate(models)
    ]


def _loadings(rng, n_dates, n_tickers, n_factors):
    start = rng.normal(0.0, 0.5, (n_tickers, n_factors))
    start[:, 0] = rng.uniform(0.6, 1.5, n_tickers)
    drift = np.cumsum(rng.normal(0.0, 0.004, (n_dates, n_tickers, n_factors)), axis=0)
    return start + drift


def _version(model, place, rng, realised, loadings, factors, specific, n_portfolios, frequency, periods):
    kept = 1 if model == "market" else factors.shape[1]
    n_dates, n_tickers = realised.shape
    first = n_dates // 4
    X = loadings[:, :, :kept].astype(np.float32) * (1.0 + 0.02 * place)
    X = X + rng.normal(0.0, 0.01 * (place + 1), X.shape[1:]).astype(np.float32)
    late = n_tickers // 5
    X[: n_dates // 3, :late] = np.nan
    X[:20] = np.nan
    f = factors[:, :kept] / (1.0 + 0.02 * place)
    omega = np.full((n_dates, kept, kept), np.nan)
    for t in range(first, n_dates):
        window = f[max(0, t - 120) : t + 1]
        omega[t] = window.T @ window / len(window)
    D = np.broadcast_to((specific * (1.0 + 0.15 * place - 0.2)) ** 2, (n_dates, n_tickers)).astype(np.float32).copy()
    D[:first] = np.nan
    D[np.isnan(X).any(axis=2)] = np.nan
    weights = _weights(X, n_portfolios)
    exposure = np.einsum("ptn,tnk->ptk", weights, np.nan_to_num(X))
    systematic = np.einsum("ptk,tkl,ptl->pt", exposure, omega, exposure)
    euler = exposure * np.einsum("tkl,ptl->ptk", omega, exposure)
    own = np.einsum("ptn,tn->pt", weights.astype(float) ** 2, np.nan_to_num(D)) + 0.0 * systematic
    names = [f"f{number + 1}" for number in range(kept)] if model != "market" else ["market"]
    expected = np.einsum("tnk,k->tn", X, np.nanmean(f[:first], axis=0)).astype(np.float32)
    dataset = xr.Dataset(
        {
            "loadings": (("date", "ticker", "factor"), X),
            "imputed": (
                ("date", "ticker"),
                np.isfinite(X).all(axis=2)
                & (np.arange(n_dates) < n_dates // 2)[:, None]
                & (np.arange(n_tickers) < late),
            ),
            "factor_returns": (("date", "factor"), f),
            "omega": (("date", "factor", "factor_"), omega),
            "specific_variance": (("date", "ticker"), D),
            "weights": (("portfolio", "date", "ticker"), weights),
            "portfolio_variance": (("portfolio", "date"), systematic + own),
            "portfolio_variance_systematic": (("portfolio", "date"), systematic),
            "portfolio_variance_specific": (("portfolio", "date"), own),
            "portfolio_variance_factor": (("portfolio", "date", "factor"), euler),
            "expected_returns": (("date", "ticker"), expected),
            "out_of_sample": ("date", np.arange(n_dates) > first),
            "premia": ("factor", f.mean(axis=0)),
            "premia_stderr": (
                "factor",
                f.std(axis=0) / np.sqrt(n_dates),
                {"long_name": "standard error of the premia"},
            ),
        },
        coords={
            "date": realised["date"],
            "ticker": realised["ticker"],
            "factor": names,
            "factor_": names,
            "portfolio": ["equal_weight", "long_short", "concentrated", "fourth"][:n_portfolios],
        },
        attrs={"universe": "us_large", "model": model, "frequency": frequency, "periods_per_year": periods},
    )
    trusted = realised > -3.5 * specific  # a check suspects the largest falls
    evaluated = forecasts.evaluate(dataset, realised, trusted=trusted)
    for name in set(evaluated) & set(VERSION):
        dataset[name] = evaluated[name]
    dataset.attrs["as_of"] = str(dataset.indexes["date"][-1].date())
    validate(dataset, version_contract(dataset), PublishError, model)
    return PublishedVersion(dataset, _manifest(model, place, dataset, evaluated, periods))


def _weights(X, n_portfolios):
    covered = np.isfinite(X).all(axis=2)
    equal = covered / np.maximum(covered.sum(axis=1, keepdims=True), 1)
    sign = np.where(np.arange(X.shape[1]) % 2 == 0, 1.0, -1.0)
    few = equal * (np.arange(X.shape[1]) >= X.shape[1] - 4)
    few = few / np.maximum(few.sum(axis=1, keepdims=True), 1e-12)
    return np.stack([equal, equal * sign * 2, few, equal])[:n_portfolios].astype(np.float32)


def _manifest(model, place, dataset, evaluated, periods):
    held_out = dataset["out_of_sample"]
    inside, outside = forecasts.summary(evaluated, ~held_out), forecasts.summary(evaluated, held_out)
    metrics = {
        "total_r2_in_sample": float(inside["total_r2"]),
        "total_r2_out_of_sample": float(outside["total_r2"]),
        "predictive_r2_out_of_sample": float(outside["predictive_r2"]),
    }
    forecast = np.sqrt(dataset["portfolio_variance"].where(held_out).mean("date") * periods)
    realised = np.sqrt((dataset["portfolio_return"].where(held_out) ** 2).mean("date") * periods)
    for portfolio in dataset["portfolio"].values.tolist():
        metrics[f"bias_statistic.{portfolio}"] = float(outside["bias_statistic"].sel(portfolio=portfolio))
        metrics[f"qlike.{portfolio}"] = float(outside["qlike"].sel(portfolio=portfolio))
        metrics[f"forecast_volatility.{portfolio}"] = float(forecast.sel(portfolio=portfolio))
        metrics[f"realised_volatility.{portfolio}"] = float(realised.sel(portfolio=portfolio))
        for name in ("bias_statistic_without_suspects", "qlike_without_suspects"):
            metrics[f"{name}.{portfolio}"] = float(outside[name].sel(portfolio=portfolio))
    last = dataset.indexes["date"][-1].date()
    passed = place != 1
    return Manifest(
        universe="us_large",
        model=model,
        version=f"{last}-{place:08x}",
        as_of=last,
        created_at=datetime(2024, 7, 1, 6, 30, tzinfo=UTC),
        input_digest="7b" * 32,
        snapshot_id="V8ZQ2T0KXJ4M7N1R9S3C",
        ingest_key="9f" * 32,
        sources=(SourceFile(name="prices.parquet", sha256="ab" * 32), SourceFile(name="ff3.csv", sha256="cd" * 32)),
        code_version="0.1.0+g1a2b3c4",
        source_version="0.1.0+g1a2b3c4",
        config_digest="5e" * 32,
        config={"universe": "us_large", "frequency": dataset.attrs["frequency"], "models": [{"kind": model}]},
        kind=model,
        params={"n_factors": dataset.sizes["factor"]} | ({"seed": 7} if model == "autoencoder" else {}),
        state_meta={},
        refits=tuple(date(year, 12, 31) for year in range(2018, 2022)),
        metrics={name: value if np.isfinite(value) else None for name, value in metrics.items()},
        gate=_gate(place, dataset, passed=passed),
        packages={"numpy": "2.4.0", "torch": "2.13.0", "xarray": "2026.7.0"},
        arithmetic={"processor": "AMD EPYC (AVX2)", "MKL_CBWR": "AVX2"},
    )


def _gate(place, dataset, *, passed):
    """Decide as a gate would: the first version has no champion to be compared with, the second one fails."""
    reason = "total R2 out of sample 0.31 is at least 0.00" if passed else "bias statistic 2.31 is above 2.00"
    criteria = (
        Criterion(name="out-of-sample total R2", passed=True, value=0.31, limit="at least 0"),
        Criterion(name="mean bias statistic", passed=passed, value=1.1 if passed else 2.31, limit="between 0.5 and 2"),
    )
    if not place:
        return GateDecision(passed=passed, suspected_returns="counted", reasons=(reason,), criteria=criteria)
    beside = (
        Criterion(name="total R2", passed=True, value=0.4213, champion=0.4101, limit="at least the champion less 0.02"),
        Criterion(name="QLIKE", passed=True, value=None, limit="not applicable, no portfolio in common"),
    )
    dates = dataset.indexes["date"][-252:]
    return GateDecision(
        passed=passed,
        suspected_returns="left_out",
        reasons=(reason,),
        criteria=criteria + beside,
        champion="2022-08-31-0a1b2c3d",
        first_date=dates[0].date(),
        last_date=dates[-1].date(),
        dates=len(dates),
    )


def make_checks() -> CheckReport:
    """Return a report with every kind of outcome but a blocked ingest."""

    def result(check, severity, scope, failures, observed, expected):
        return CheckResult(
            check=check,
            suite="prices",
            severity=severity,
            scope=scope,
            passed=not failures,
            observed=observed,
            expected=expected,
            failures=failures,
        )

    return CheckReport(
        results=(
            result("columns", "block", "ingest", 0, "date, ticker, open, high, low, close, volume", "the same"),
            result("bar_is_possible", "block", "row", 12, "12 bars with low above high", "low ≤ open, close ≤ high"),
            result("large_return", "warn", "row", 62, "largest |return| 0.46", "|return| < 0.25 or 10 sigma"),
            result("coverage_drop", "block", "date", 2, "smallest share 0.61", "at least 0.90 of the day before"),
            result("stale_price", "warn", "row", 0, "longest run 3 days", "at most 5 days"),
        ),
        flagged_rows=tuple(
            FlaggedRow(
                date=date(2017, 1 + number % 12, 1 + number % 28),
                ticker=f"T{number % 20:03d}",
                check="bar_is_possible" if number % 6 == 0 else "large_return",
                severity="block" if number % 6 == 0 else "warn",
                detail="low 31.20 above high 30.95" if number % 6 == 0 else "return 0.31, 11.2 sigma",
            )
            for number in range(74)
        ),
        blocked_dates=(date(2018, 7, 3), date(2018, 11, 23)),
        data_docs="data_docs/index.html",
    )
