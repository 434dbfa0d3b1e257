"""The few numbers that say how good a version is, from its own series over the dates out of sample."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from models.evaluation import forecasts

Metrics = dict[str, float | None]


def metrics_of(version: xr.Dataset, in_sample: Mapping[str, float | None], periods_per_year: int) -> Metrics:
    """Return the totals of a version's scores over the dates out of sample; None where there is no number.

    Those by portfolio come twice: by all returns that may be true, and, under names that end in ``_without_suspects``,
    by those alone that no check suspects (a version from before there were such series lacks them).

    Parameters
    ----------
    version : xarray.Dataset
        With its scores (`models.forecasting.rows.scored`).
    in_sample : mapping
        ``total_r2`` of the last fit on its training sample.
    periods_per_year : int
        By which volatilities are annualised.
    """
    outside = version["out_of_sample"]
    totals = forecasts.summary(forecasts.with_errors(version), outside)
    metrics: dict[str, float] = {
        "total_r2_in_sample": np.nan if in_sample["total_r2"] is None else in_sample["total_r2"],
        "total_r2_out_of_sample": float(totals["total_r2"]),
        "predictive_r2_out_of_sample": float(totals["predictive_r2"]),
    }
    by_portfolio: dict[str, xr.DataArray] = {}
    for suffix in ("", forecasts.WITHOUT_SUSPECTS):
        if f"portfolio_return{suffix}" in version:
            earned = version[f"portfolio_return{suffix}"]
            forecast = version["portfolio_variance"].shift(date=1).where(outside & earned.notnull())
            realised = earned.where(outside & forecast.notnull())
            by_portfolio |= {
                f"bias_statistic{suffix}": totals[f"bias_statistic{suffix}"],
                f"qlike{suffix}": totals[f"qlike{suffix}"],
                f"forecast_volatility{suffix}": (forecast.mean("date") * periods_per_year) ** 0.5,
                f"realised_volatility{suffix}": ((realised**2).mean("date") * periods_per_year) ** 0.5,
            }
    for name, values in by_portfolio.items():
        metrics |= {f"{name}.{p}": float(values.sel(portfolio=p)) for p in values["portfolio"].values}
    return {name: value if np.isfinite(value) else None for name, value in metrics.items()}
