"""Scores of a family of portfolios under one forecast: one number per metric, and how sure it is.

Here belongs how metrics of `calibration` are pooled over the portfolios of a family and resampled by windows. Which
portfolios there are, and on which dates, is decided in `protocol`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.arrays import Float64Array, IntArray
from models.evaluation.calibration import (
    bias_interval,
    deviations,
    kurtosis,
    ljung_box,
    mincer_zarnowitz,
    moments,
    mrad_floor,
    mrad_of_moments,
    pooled_bias_statistic,
    q_statistic,
    qlike_loss,
)
from models.evaluation.tails import acerbi_szekely, basel_zone, christoffersen, kupiec, tail, violations

_SIGNIFICANCE = 0.05
_LAGS = 10
_SHORTFALL_LEVEL = 0.975
"""Of expected shortfall, as the Basel Committee and Acerbi and Szekely have it."""
_SIMULATIONS = 2000
_BASEL_PERIODS = 250


@dataclass(frozen=True, eq=False)
class Family:
    """Realised returns of a family of portfolios beside the variances that were forecast for them.

    Attributes
    ----------
    realised : numpy.ndarray
        (window, period, portfolio) returns of the periods of each window, NaN where there is none.
    variance : numpy.ndarray
        (window, portfolio) forecast per period, the same over a window.
    """

    realised: Float64Array
    variance: Float64Array

    @property
    def z(self) -> Float64Array:
        """Standardised returns (window, period, portfolio)."""
        volatility = np.sqrt(np.where(self.variance > 0.0, self.variance, np.nan))
        z: Float64Array = self.realised / volatility[:, None, :]
        return z

    def summed(self) -> Family:
        """Return the same family with one period a window: returns summed, variances times the number of periods."""
        n_periods = self.realised.shape[1]
        return Family(self.realised.sum(axis=1, keepdims=True), self.variance * n_periods)

    def losses(self) -> Float64Array:
        """QLIKE losses (window, period, portfolio)."""
        return qlike_loss(self.realised, np.broadcast_to(self.variance[:, None, :], self.realised.shape))


def score(family: Family, *, block: int, periods_per_year: float, draws: IntArray) -> dict[str, float]:
    """Every metric of a family.

    Parameters
    ----------
    family : Family
        Of consecutive windows.
    block : int
        Windows in a block of MRAD.
    periods_per_year : float
        Periods (of the family's, one or many days) in a year, for volatilities.
    draws : numpy.ndarray
        (draw, window) windows that a bootstrap puts together, for standard errors.

    Returns
    -------
    dict
        Name to number, NaN where it cannot be had; `models.evaluation.meanings` says what each is.
    """
    z = family.z
    n_windows, n_periods, n_portfolios = z.shape
    flat = z.reshape(n_windows * n_periods, n_portfolios)
    sums = moments(z).sum(axis=1)
    span = block * n_periods
    known = np.isfinite(flat)
    single = int(np.median(known.sum(axis=0)))
    fourth = kurtosis(flat)
    interval = bias_interval(single) if single > 1 else (math.nan, math.nan)
    wide = bias_interval(single, kurtosis=fourth) if single > 1 and fourth >= 1.0 else (math.nan, math.nan)
    year = 100.0 * math.sqrt(periods_per_year)
    earned = moments(family.realised).sum(axis=(1, 2))
    return {
        "portfolios": float(known.any(axis=0).sum()),
        "observations": float(known.sum()),
        "bias_statistic": pooled_bias_statistic(flat),
        "bias_statistic_stderr": _spread(deviations(sums.sum(axis=1)[draws].sum(axis=1))),
        "bias_low": interval[0],
        "bias_high": interval[1],
        "bias_low_kurtosis": wide[0],
        "bias_high_kurtosis": wide[1],
        "kurtosis": fourth,
        "mrad": _mrad(sums, block, span),
        "mrad_stderr": _spread(np.array([_mrad(sums[draw], block, span) for draw in draws])),
        "mrad_floor": mrad_floor(span) if span > 1 else math.nan,
        "q_statistic": q_statistic(flat),
        "qlike": _mean(family.losses()),
        "volatility": year * float(deviations(earned.sum(axis=0))),
        "volatility_stderr": year * _spread(deviations(earned[draws].sum(axis=1))),
        **_dynamics(family, flat),
        **_tails(flat),
    }


def _dynamics(family: Family, flat: Float64Array) -> dict[str, float]:
    """Whether variances moved as forecast: means over portfolios, and shares of those that a 5 % test rejects."""
    n_periods, n_portfolios = family.realised.shape[1:]
    realised = family.realised.reshape(-1, n_portfolios)
    variance = np.repeat(family.variance, n_periods, axis=0)
    fits = [mincer_zarnowitz(realised[:, place], variance[:, place]) for place in range(n_portfolios)]
    lags = min(_LAGS, len(flat) // 5)
    p_values = ljung_box(np.square(flat), lags)[1] if lags else np.full(n_portfolios, math.nan)
    return {
        "mincer_zarnowitz_slope": _mean(np.array([fit.slope for fit in fits])),
        "mincer_zarnowitz_rejected": rejected(np.array([fit.p_value for fit in fits])),
        "ljung_box_rejected": rejected(p_values),
    }


def _tails(flat: Float64Array) -> dict[str, float]:
    """Back-tests of normal tails: shares of violations, and of portfolios that a 5 % test rejects."""
    found = {}
    for level in (0.95, 0.99):
        hits = violations(flat, tail(level))
        name = f"{level:.0%}"[:-1]
        found[f"var_{name}_violations"] = _mean(hits)
        found[f"var_{name}_kupiec_rejected"] = rejected(kupiec(hits, level)[1])
        found[f"var_{name}_christoffersen_rejected"] = rejected(christoffersen(hits, level).conditional_p)
    zones = _zones(hits)
    shortfall = acerbi_szekely(flat, tail(_SHORTFALL_LEVEL), n_simulations=_SIMULATIONS)
    return found | {
        "basel_yellow": _mean(np.asarray(zones == "yellow", dtype=np.float64)),
        "basel_red": _mean(np.asarray(zones == "red", dtype=np.float64)),
        "es_z1": _mean(shortfall.z1),
        "es_z2": _mean(shortfall.z2),
        "es_z2_rejected": rejected(shortfall.z2_p),
    }


def _zones(hits: Float64Array) -> npt.NDArray[np.str_]:
    """Zones of every whole, known year of 250 periods of each portfolio, one after the other."""
    n_years = len(hits) // _BASEL_PERIODS
    years = hits[: n_years * _BASEL_PERIODS].reshape(n_years, _BASEL_PERIODS, hits.shape[1]).sum(axis=1)
    return np.array([basel_zone(int(number), _BASEL_PERIODS) for number in years[np.isfinite(years)]], dtype=np.str_)


def rejected(p_values: Float64Array) -> float:
    """Share of the known p-values below 5 %: about .05 of independent tests if all is well."""
    known = p_values[np.isfinite(p_values)]
    return float(np.mean(known < _SIGNIFICANCE)) if known.size else math.nan


def _mrad(sums: Float64Array, block: int, span: int) -> float:
    """MRAD of windows whose moments are (window, portfolio, 3), over blocks of so many windows."""
    if span < 2:
        return math.nan
    return mrad_of_moments(np.add.reduceat(sums, np.arange(0, len(sums), block), axis=0), span)


def _mean(values: Float64Array) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else math.nan


def _spread(resampled: Float64Array) -> float:
    known = resampled[np.isfinite(resampled)]
    return float(known.std(ddof=1)) if known.size > 1 else math.nan
