"""A published version as the report reads it, and the small series that figures and tables draw from it.

Here belong annualising, trailing windows and counting, on whole arrays and without a word about looks. Drawing belongs
in `figures` and `figures_risk`, wording in `tables` and the template.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import xarray as xr

from models.allocation import efficient_frontier
from models.arrays import Float64Array
from models.inference.regression import automatic_lags, newey_west_covariance
from models.panel.row_blocks import rows_at_once
from models.risk.calibration import BUDGET
from models.risk.portfolio import RiskModel
from schemas.contracts import Manifest
from schemas.errors import DataError, ModelError

REALISED_WINDOW = {252: 63, 12: 12}
"""Periods over which realised volatility looks back, by periods per year."""

LEAST_RANKED = 63
"""Dates out of sample below which a bias statistic by rank is not shown."""

_NORMAL_95 = 1.96
_STRAIGHT = 1e-4
SPECIFIC = "specific"
OTHER = "other factors"


@dataclass(frozen=True)
class PublishedVersion:
    """One published version: its Dataset (`schemas.contracts.VERSION`) beside its manifest.

    Attributes
    ----------
    dataset : xarray.Dataset
        May be opened lazily.
    manifest : Manifest
        What it was made from.
    allocations : mapping of str to xarray.DataArray
        Weights (ticker) that were made from it as of its last date, by name.
    """

    dataset: xr.Dataset
    manifest: Manifest
    allocations: Mapping[str, xr.DataArray] = field(default_factory=dict)

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.manifest.model

    @property
    def path(self) -> str:
        """Where the version lies under the root of the deployment."""
        return f"published/{self.manifest.universe}/{self.manifest.model}/{self.manifest.version}"

    @property
    def periods_per_year(self) -> int:
        """252 or 12."""
        return int(self.dataset.attrs["periods_per_year"])

    @property
    def dates(self) -> pd.DatetimeIndex:
        """Dates of the version, ascending."""
        return pd.DatetimeIndex(self.dataset.indexes["date"])

    @property
    def portfolios(self) -> list[str]:
        """Names of the portfolios."""
        return [str(name) for name in self.dataset["portfolio"].values]

    @property
    def benchmarks(self) -> dict[str, str]:
        """Names of the portfolios that have a benchmark, and of that."""
        declared = self.manifest.config.get("portfolios", ())
        return {item["name"]: item["benchmark"] for item in declared if "benchmark" in item}

    @property
    def factors(self) -> list[str]:
        """Names of the factors."""
        return [str(name) for name in self.dataset["factor"].values]


def check_comparable(versions: Sequence[PublishedVersion]) -> None:
    """Refuse versions that one report cannot compare.

    Raises
    ------
    DataError
        If there are none, or they differ in universe or frequency.
    """
    if not versions:
        raise DataError("A report needs at least one published version; none was given.")
    kinds = {(version.manifest.universe, version.periods_per_year) for version in versions}
    if len(kinds) > 1:
        listed = ", ".join(f"{universe} ({periods} periods a year)" for universe, periods in sorted(kinds))
        raise DataError(f"A report compares versions of one universe and frequency, not {listed}.")


def portfolios_of(versions: Sequence[PublishedVersion]) -> list[str]:
    """Names of the portfolios of all versions, each once, in their order."""
    return list(dict.fromkeys(name for version in versions for name in version.portfolios))


def in_sample_spans(version: PublishedVersion) -> list[tuple[pd.Timestamp, pd.Timestamp]]:
    """First and last date of every unbroken stretch of dates that are in sample."""
    seen = ~version.dataset["out_of_sample"].values.astype(bool)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], seen, [False]]).astype(int)))
    dates = version.dates
    return [(dates[start], dates[stop - 1]) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def out_of_sample_start(version: PublishedVersion) -> pd.Timestamp | None:
    """First date that is out of sample; None if there is none."""
    held_out = np.flatnonzero(version.dataset["out_of_sample"].values)
    return version.dates[held_out[0]] if len(held_out) else None


def covered(version: PublishedVersion) -> Float64Array:
    """(date) number of stocks with loadings on every factor."""
    spans = _spans(version.dataset["loadings"])
    return np.concatenate([_count(span.compute().notnull().all("factor")) for span in spans])


def imputed(version: PublishedVersion) -> Float64Array:
    """(date) number of stocks whose loadings are the cross-section's mean."""
    return _count(version.dataset["imputed"])


def _count(flags: xr.DataArray) -> Float64Array:
    return np.asarray(flags.sum("ticker").values, dtype=np.float64)


def trailing_mean(values: Float64Array, window: int) -> Float64Array:
    """Mean over the last `window` dates, with at least half of them known."""
    return pd.Series(values).rolling(window, min_periods=math.ceil(window / 2)).mean().to_numpy()


def forecast_volatility(version: PublishedVersion, portfolio: str) -> Float64Array:
    """(date) annualised forecast volatility in percent; NaN where the version has no such portfolio."""
    variance = _of_portfolio(version, "portfolio_variance", portfolio)
    return np.sqrt(variance * version.periods_per_year) * 100.0


def realised_volatility(version: PublishedVersion, portfolio: str) -> Float64Array:
    """(date) annualised trailing root mean square of the portfolio's returns, in percent."""
    returns = _of_portfolio(version, "portfolio_return", portfolio)
    window = REALISED_WINDOW[version.periods_per_year]
    return np.sqrt(trailing_mean(returns**2, window) * version.periods_per_year) * 100.0


def surprises(version: PublishedVersion, portfolio: str) -> Float64Array:
    """(date) returns over their forecast volatility, out of sample; NaN elsewhere, and without such a portfolio."""
    held_out = version.dataset["out_of_sample"].values.astype(bool)
    return np.where(held_out, _of_portfolio(version, "standardised_return", portfolio), np.nan)


def trailing_bias(version: PublishedVersion, portfolio: str) -> Float64Array:
    """(date) bias statistic of the trailing year out of sample, with at least half of its dates known."""
    window = version.periods_per_year
    values = pd.Series(surprises(version, portfolio))
    return values.rolling(window, min_periods=math.ceil(window / 2)).std().to_numpy()


def bias_by_rank(version: PublishedVersion) -> pd.DataFrame | None:
    """Bias statistic out of sample by ranks of eigenportfolios; None if the version does not say.

    Returns
    -------
    pandas.DataFrame
        ``bias`` and the ``low`` and ``high`` end of its 95% interval by bucket of ranks, by the Newey-West error of the
        mean ratio of variances; buckets that are known on `LEAST_RANKED` dates.
    """
    if "variance_ratio_by_rank" not in version.dataset:
        return None
    held_out = version.dataset["out_of_sample"].values.astype(bool)
    found = {}
    for rank, values in version.dataset["variance_ratio_by_rank"].transpose("rank", "date").to_pandas().iterrows():
        ratios = values[held_out].dropna().to_numpy()
        if len(ratios) >= LEAST_RANKED:
            mean = ratios.mean()
            reach = _NORMAL_95 * math.sqrt(newey_west_covariance(ratios[:, None], automatic_lags(len(ratios)))[0, 0])
            found[str(rank)] = np.sqrt([mean, max(mean - reach, 0.0), mean + reach])
    return pd.DataFrame.from_dict(found, orient="index", columns=["bias", "low", "high"])


def _of_portfolio(version: PublishedVersion, name: str, portfolio: str) -> Float64Array:
    return np.asarray(version.dataset[name].reindex(portfolio=[portfolio]).squeeze("portfolio").values)


def last_forecast(version: PublishedVersion) -> int | None:
    """Position of the last date with a complete Omega; None before the first refit."""
    known = np.flatnonzero(version.dataset["omega"].notnull().all(["factor", "factor_"]).values)
    return int(known[-1]) if len(known) else None


def factor_risk(version: PublishedVersion, position: int) -> tuple[Float64Array, Float64Array]:
    """Annualised factor volatilities in percent (factor), and correlations (factor, factor_), at one date."""
    omega = version.dataset["omega"].isel(date=position).transpose("factor", "factor_").values
    volatility = np.sqrt(np.clip(np.diag(omega), 0.0, None))
    scale = np.where(volatility > 0.0, volatility, np.nan)
    return volatility * math.sqrt(version.periods_per_year) * 100.0, omega / np.outer(scale, scale)


def leading_factors(version: PublishedVersion, most: int) -> list[int]:
    """Positions of the factors that move returns most, in their own order.

    A factor is measured by the variance of its returns times the mean squared loading at the last date with loadings,
    which does not depend on how the model scales its factors. The factor of estimation error has no returns.
    """
    moving = [place for place, name in enumerate(version.factors) if name != BUDGET]
    if len(moving) <= most:
        return moving
    squares = np.full(len(version.factors), np.nan)
    for block in reversed(_spans(version.dataset["loadings"].transpose("date", "ticker", "factor"))):
        loadings = block.compute()
        known = np.flatnonzero(loadings.notnull().any(["ticker", "factor"]).values)
        if len(known):
            squares = (loadings.isel(date=int(known[-1])).astype(np.float64) ** 2).mean("ticker").values
            break
    variance = version.dataset["factor_returns"].transpose("date", "factor").var("date").values
    strength = np.nan_to_num(squares * variance)
    return sorted(np.argsort(-strength, kind="stable")[:most].tolist())


def bends(version: PublishedVersion) -> bool:
    """Whether a loading of the last fit is a function of a characteristic and no straight line; False if not known."""
    if "response" not in version.dataset:
        return False
    curves = version.dataset["response"].transpose("char", "level", "factor").values.astype(np.float64)
    size = np.nanmax(np.abs(curves), axis=(0, 1), initial=0.0)
    return bool((np.abs(np.diff(curves, n=2, axis=1)) > _STRAIGHT * size).any())


def important(version: PublishedVersion, most: int) -> pd.Series[float]:
    """Return importance by characteristic in percent of the squared returns, the largest first, at most so many."""
    found = version.dataset["characteristic_importance"]
    names = [str(name) for name in found["char"].values]
    return (pd.Series(found.values, index=names) * 100.0).sort_values(ascending=False, kind="stable")[:most]


def moving_returns(version: PublishedVersion) -> xr.DataArray:
    """(date, factor) factor returns without the factor of estimation error, which has none."""
    names = [name for name in version.factors if name != BUDGET]
    return version.dataset["factor_returns"].sel(factor=names)


def specific_volatility(version: PublishedVersion) -> tuple[pd.Series[float], pd.Timestamp] | None:
    """Annualised specific volatility by ticker in percent, at the last date that has any; None if none has."""
    variance = version.dataset["specific_variance"].transpose("date", "ticker")
    known = np.flatnonzero(variance.notnull().any("ticker").values)
    if not len(known):
        return None
    values = variance.isel(date=int(known[-1])).values.astype(np.float64)
    tickers = [str(name) for name in version.dataset["ticker"].values]
    volatility = np.sqrt(values * version.periods_per_year) * 100.0
    return pd.Series(volatility, index=tickers).dropna(), version.dates[known[-1]]


@dataclass(frozen=True, eq=False)
class Frontier:
    """The efficient frontier by the last row of a version, and where portfolios lie beside it; percent a year.

    Attributes
    ----------
    volatility, expected : numpy.ndarray
        (point,) of the frontier.
    portfolios, allocations : dict of str to (float, float)
        Volatility and expected return by name; those that hold a stock without either are left out.
    """

    volatility: Float64Array
    expected: Float64Array
    portfolios: dict[str, tuple[float, float]]
    allocations: dict[str, tuple[float, float]]


def frontier(version: PublishedVersion) -> Frontier | None:
    """Return the frontier as of the last date; None without expected returns, or where none can be made."""
    if "expected_returns" not in version.dataset:
        return None
    parts = ["loadings", "omega", "specific_variance", "expected_returns", "weights"]
    rows = version.dataset[parts].isel(date=-1, drop=True).load()
    model, mu = RiskModel(rows["loadings"], rows["omega"], rows["specific_variance"]), rows["expected_returns"]
    try:
        found = efficient_frontier(model, mu)
    except (DataError, ModelError):
        return None
    periods = version.periods_per_year

    def placed(weights: xr.DataArray) -> tuple[float, float]:
        held = weights.where(weights != 0.0, drop=True)
        earned = float((held * mu.sel(ticker=held["ticker"])).sum(skipna=False))
        return math.sqrt(float(model.variance(weights)) * periods) * 100.0, earned * periods * 100.0

    declared = {name: placed(rows["weights"].sel(portfolio=name, drop=True)) for name in version.portfolios}
    allocated = {name: placed(weights) for name, weights in version.allocations.items()}
    return Frontier(
        np.sqrt(found["variance"].values * periods) * 100.0,
        found["expected_return"].values * periods * 100.0,
        {name: place for name, place in declared.items() if np.isfinite(place).all()},
        {name: place for name, place in allocated.items() if np.isfinite(place).all()},
    )


def default_tickers(version: PublishedVersion, most: int) -> tuple[str, ...]:
    """Return the largest holdings of the first portfolio at its last defined date; the first tickers if it has none."""
    tickers = [str(name) for name in version.dataset["ticker"].values]
    if not version.portfolios:
        return tuple(tickers[:most])
    weights = version.dataset["weights"].isel(portfolio=0).transpose("date", "ticker")
    known = np.flatnonzero(weights.notnull().any("ticker").values)
    if not len(known):
        return tuple(tickers[:most])
    size = np.nan_to_num(np.abs(weights.isel(date=int(known[-1])).values))
    return tuple(tickers[position] for position in np.argsort(-size, kind="stable")[:most])


def _spans(loadings: xr.DataArray) -> list[xr.DataArray]:
    """Cut loadings, which may be lazy, into spans of dates that fit into memory."""
    size = rows_at_once(loadings.sizes["ticker"], loadings.sizes["factor"])
    return [loadings.isel(date=slice(start, start + size)) for start in range(0, loadings.sizes["date"], size)]
