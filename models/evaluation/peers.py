"""Covariance forecasts that need no factor model of ours: what others use, judged by the same protocol.

Here belong forecasters of the past returns alone, for `models.evaluation.protocol.judge`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import xarray as xr
from sklearn.covariance import ledoit_wolf as sklearn_ledoit_wolf
from sklearn.decomposition import FactorAnalysis as MaximumLikelihood

from models.arrays import Float64Array
from models.evaluation.asking import Forecast, Forecaster
from models.evaluation.covariances import Covariance, Dense, FactorForm
from models.risk.shrinkage import qis as shrunk_by_qis

_WINDOW = 504
_FACTORS = 20
_HALFLIFE = 126.0
_LEAST_VARIANCE = 1e-10


def _forecaster(estimate: Callable[[Float64Array], Covariance], window: int | None) -> Callable[..., Forecaster]:
    """Make a forecaster of an estimate from the past returns (date, ticker), where a missing one counts as zero."""

    def of(returns: xr.DataArray) -> Forecaster:
        def forecast(as_of: pd.Timestamp, tickers: pd.Index) -> Forecast:
            past = returns.sel(date=slice(None, as_of), ticker=tickers).transpose("date", "ticker").values
            past = past if window is None else past[-window:]
            return Forecast(tickers, estimate(np.nan_to_num(past.astype(np.float64))))

        return forecast

    return of


def _sample(x: Float64Array) -> Covariance:
    return Dense(x.T @ x / len(x))


def _ledoit_wolf(x: Float64Array) -> Covariance:
    return Dense(sklearn_ledoit_wolf(x, assume_centered=True)[0])


def _qis(x: Float64Array) -> Covariance:
    deviations = x - x.mean(axis=0)
    return Dense(shrunk_by_qis(deviations.T @ deviations / len(x), len(x) - 1.0))


def _principal(x: Float64Array) -> Covariance:
    weights = np.power(0.5, np.arange(len(x))[::-1] / _HALFLIFE)
    rows = x * np.sqrt(weights / weights.sum())[:, np.newaxis]
    _, singular, vectors = np.linalg.svd(rows, full_matrices=False)
    loadings = vectors[:_FACTORS].T * singular[:_FACTORS]
    specific = np.square(rows).sum(axis=0) - np.square(loadings).sum(axis=1)
    return FactorForm(loadings, np.eye(_FACTORS), np.maximum(specific, _LEAST_VARIANCE))


def _maximum_likelihood(x: Float64Array) -> Covariance:
    found = MaximumLikelihood(_FACTORS, svd_method="lapack", max_iter=200).fit(x)
    return FactorForm(found.components_.T, np.eye(_FACTORS), np.maximum(found.noise_variance_, _LEAST_VARIANCE))


PEERS: dict[str, Callable[[xr.DataArray], Forecaster]] = {
    "sample": _forecaster(_sample, _WINDOW),
    "ledoit_wolf": _forecaster(_ledoit_wolf, _WINDOW),
    "qis": _forecaster(_qis, _WINDOW),
    "pca20_ewma126": _forecaster(_principal, None),
    "sklearn_fa20": _forecaster(_maximum_likelihood, _WINDOW),
}
"""By name: the sample covariance, Ledoit and Wolf (2004) by scikit-learn, their QIS (2022), and scikit-learn's factor
analysis, of the last 504 dates; 20 principal components of the returns weighed with a half-life of 126 dates."""
