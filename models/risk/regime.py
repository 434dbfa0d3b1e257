"""Volatility regime adjustment: what recent forecasts were off by, all alike.

Here belongs the recursion, for factors and for stocks: Menchero, Orr and Wang (2011), The Barra US Equity Model (USE4),
Methodology Notes, and its variants in Paleologo (2025), The Elements of Quantitative Investing. The forecasts that it
standardises by are of a single observation: those for a horizon, with Newey and West's lags, would be undone by it.
"""

from __future__ import annotations

import numpy as np
from scipy.special import digamma, gammaln

from models.arrays import Float64Array, NamedArrays
from schemas.risk import RegimeSpec

_TINY = 1e-12


def start() -> NamedArrays:
    """Return the state before the first forecast was met."""
    return {"regime": np.zeros(()), "regime_mass": np.zeros(())}


def step(spec: RegimeSpec, state: NamedArrays, distance: float, n: float) -> NamedArrays:
    """Return the state after one more squared distance of n standardised returns, whose expectation is n."""
    decay = 0.5 ** (1.0 / spec.halflife)
    mass = decay * state["regime_mass"] + 1.0
    value = _transformed(spec, distance, n)
    mean = state["regime"] + (value - state["regime"]) / mass
    return {"regime": np.asarray(mean), "regime_mass": np.asarray(mass)}


def variance_factor(spec: RegimeSpec, state: NamedArrays) -> float:
    """Return what variances are multiplied by: 1 until a forecast was met."""
    if not state["regime_mass"]:
        return 1.0
    value = float(state["regime"])
    volatility = {"rms": np.sqrt(max(value, 0.0)), "first_moment": value, "log": np.exp(0.5 * value)}[spec.method]
    return float(np.clip(volatility, *spec.bounds) ** 2)


def distance(spec: RegimeSpec, deviations: Float64Array, covariance: Float64Array) -> float:
    """Return d^2 of returns (K,) less their mean under a forecast (K, K): sum of z^2, or d' Omega^-1 d."""
    if spec.statistic == "diagonal":
        return float((np.square(deviations) / np.diagonal(covariance)).sum())
    return float(deviations @ np.linalg.solve(covariance, deviations))


def _transformed(spec: RegimeSpec, distance: float, n: float) -> float:
    """Of a chi-square distance with n degrees of freedom, something whose mean tells the multiplier."""
    if spec.method == "rms":
        return distance / n
    if spec.method == "first_moment":
        expected = np.sqrt(2.0) * np.exp(gammaln(0.5 * (n + 1.0)) - gammaln(0.5 * n))
        return float(np.sqrt(distance) / expected)
    return float(np.log(max(distance, _TINY)) - digamma(0.5 * n) - np.log(2.0))
