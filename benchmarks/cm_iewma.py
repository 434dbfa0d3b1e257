"""Regret of covariance predictors on five Fama-French factors, as Johansson et al. (2023) measure it.

Here belong the protocol and the table. ``python -m benchmarks.cm_iewma FILE`` prints that of
`docs/published-checks.md`; the file holds daily factor returns in percent (date, Mkt-RF, SMB, HML, RMW, CMA), as of
2017-12-29. A test is `tests/benchmarks/test_cm_iewma.py`.

A predictor knows the returns up to t; its score is the log-likelihood of the next day's under N(0, Omega_t). The
prescient one has the sample covariance of the quarter of t, with the mean's outer product added. Regret is the mean,
over the days scored in a quarter, of what the prescient one scores more; the table has its mean, standard deviation
(divisor n) and maximum over quarters, from t = 1965-06-28 on.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import xarray as xr

from models import FactorCovariance

FACTORS = ("Mkt-RF", "SMB", "HML", "RMW", "CMA")
FIRST = "1965-06-28"
OTHERS = {
    "rolling window 125": (0.625, 0.956, 12.25),
    "EWMA 63": (0.548, 0.744, 9.43),
    "IEWMA 21 / 63": (0.427, 0.357, 4.12),
    "CM-IEWMA": (0.372, 0.279, 2.24),
}
"""Mean, standard deviation and maximum that an independent implementation of the paper has on this file."""


def factor_returns(path: str) -> xr.DataArray:
    """Read (date, factor) decimals."""
    frame = pd.read_parquet(path).set_index("date")[[*FACTORS]] / 100.0
    return xr.DataArray(frame, dims=("date", "factor"), name="factor_returns")


def predicted(returns: xr.DataArray) -> dict[str, np.ndarray]:
    """(date, factor, factor_) Omega of each predictor; NaN before it has one."""
    x = returns.values
    square = x[:, :, None] * x[:, None, :]
    total = np.concatenate([np.zeros((1, *square.shape[1:])), np.cumsum(square, axis=0)])
    rolling = np.full_like(square, np.nan)
    rolling[124:] = (total[125:] - total[:-125]) / 125.0
    iterated = {"halflives": ((21.0, 63.0),), "ridge": 0.0}
    return {
        "rolling window 125": rolling,
        "EWMA 63": FactorCovariance(halflife=63.0, centred=False).path(returns).values,
        "IEWMA 21 / 63": FactorCovariance(method="cm_iewma", combination=iterated).path(returns).values,
        "CM-IEWMA": FactorCovariance(method="cm_iewma").path(returns).values,
    }


def regret(returns: xr.DataArray, omega: np.ndarray) -> pd.Series:
    """Regret by quarter of one predictor (date, factor, factor_)."""
    dates = returns.indexes["date"]
    quarter = dates.to_period("Q")
    x = pd.DataFrame(returns.values, index=dates)
    mean = x.groupby(quarter).mean()
    seen = x.groupby(quarter).cov().to_numpy().reshape(len(mean), len(FACTORS), len(FACTORS))
    prescient = seen + mean.to_numpy()[:, :, None] * mean.to_numpy()[:, None, :]
    place = mean.index.get_indexer(quarter)
    known = np.asarray(dates >= FIRST)[:-1]
    lost = _log_likelihood(prescient[place], returns.values) - _log_likelihood(omega, returns.values)
    return pd.Series(lost[known], index=quarter[1:][known]).groupby(level=0).mean()


def table(path: str) -> str:
    """Return the regrets beside those of others, as Markdown."""
    returns = factor_returns(path)
    lines = ["| predictor | mean | std | max | others: mean | std | max |", "|---|---|---|---|---|---|---|"]
    for name, omega in predicted(returns).items():
        found = regret(returns, omega)
        cells = [f"{value:.3f}" for value in (found.mean(), found.std(ddof=0), found.max())]
        lines.append(f"| {name} | {' | '.join([*cells, *(f'{value:g}' for value in OTHERS[name])])} |")
    return "\n".join(lines)


def _log_likelihood(omega: np.ndarray, returns: np.ndarray) -> np.ndarray:
    """(date - 1,) log density of the next date's returns under N(0, Omega)."""
    forecast, after = omega[:-1], returns[1:]
    result = np.full(len(after), np.nan)
    known = np.isfinite(forecast).all(axis=(1, 2))
    root = np.linalg.cholesky(forecast[known])
    z = np.linalg.solve(root, after[known][..., None])[..., 0]
    log_root = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
    result[known] = -log_root - 0.5 * (np.square(z).sum(axis=1) + after.shape[1] * np.log(2.0 * np.pi))
    return result


if __name__ == "__main__":
    print(table(sys.argv[1]))
