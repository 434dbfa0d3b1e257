"""A history of risk against skfolio, day by day, and the eigenfactor adjustment against a loop over draws.

`harness` says how a benchmark is made. The peers are skfolio's estimators fed a day at a time, as its documentation has
it for online use, and the eigenfactor simulation as Menchero, Wang and Orr (2011) write it down.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from skfolio.moments import RegimeAdjustedEWCovariance
from skfolio.moments.variance import RegimeAdjustedEWVariance

from benchmarks.harness import Row, measure
from models.risk.covariance import FactorCovariance
from models.risk.eigenfactor import volatility_bias
from models.risk.specific import SpecificRisk

Array = npt.NDArray[np.float64]
_ALIKE = {"regime_multiplier_clip": (1.0 - 1e-12, 1.0 + 1e-12)}
"""skfolio's regime cannot be left out, only bound to 1."""


def run(*, quick: bool) -> list[Row]:
    """Time a history of days, and one date's simulation."""
    days, factors, stocks, draws = (120, 12, 200, 100) if quick else (2500, 60, 3000, 1000)
    rng = np.random.default_rng(0)
    f = (
        rng.normal(size=(days, factors))
        @ (rng.normal(size=(factors, factors)) * np.geomspace(1.0, 0.1, factors))
        * 0.01
    )
    e = rng.normal(size=(days, stocks)) * np.linspace(0.01, 0.04, stocks)
    return [_omega(f, days, factors), _specific(e, days, stocks), _eigenfactor(f, factors, draws)]


def _omega(f: Array, days: int, factors: int) -> Row:
    ours = measure(lambda: _ours_omega(f))
    shown = min(days, 250)
    theirs = measure(lambda: _theirs(RegimeAdjustedEWCovariance(half_life=84, corr_half_life=504, **_ALIKE), f[:shown]))
    return Row(
        work=f"Omega of {days:,} days x {factors} factors, half-lives 84 and 504",
        ours_seconds=ours.seconds,
        peer="skfolio",
        peer_seconds=theirs.seconds * days / shown,
        note=f"agree to 1e-7 once their starts are forgotten (a test); its time is that of {shown} days, scaled",
        target=5.0,
        ours_peak_bytes=ours.peak_bytes,
        peer_peak_bytes=theirs.peak_bytes,
    )


def _specific(e: Array, days: int, stocks: int) -> Row:
    ours = measure(lambda: _ours_specific(e))
    shown = min(days, 250)
    theirs = measure(lambda: _theirs(RegimeAdjustedEWVariance(half_life=84, **_ALIKE), e[:shown]))
    error = float(np.abs(_ours_specific(e[:shown])[-1] / theirs.value.variance_ - 1.0).max())
    return Row(
        work=f"specific variance of {days:,} days x {stocks:,} stocks, half-life 84",
        ours_seconds=ours.seconds,
        peer="skfolio",
        peer_seconds=theirs.seconds * days / shown,
        note=f"differ by {error:.0e} at most; its time is that of {shown} days, scaled",
        target=5.0,
        ours_peak_bytes=ours.peak_bytes,
        peer_peak_bytes=theirs.peak_bytes,
    )


def _eigenfactor(f: Array, factors: int, draws: int) -> Row:
    n = 250
    values: Array = np.asarray(np.linalg.eigvalsh(np.cov(f.T)), dtype=np.float64)
    first = measure(lambda: volatility_bias(values, n, draws, 1))
    ours = measure(lambda: volatility_bias(values * 1.01, n, draws, 1), repeats=3)
    theirs = measure(lambda: _simulated(np.cov(f.T), n, draws))
    error = float(np.abs(first.value / theirs.value - 1.0).max())
    return Row(
        work=f"eigenfactor adjustment, {factors} factors, {draws:,} draws of {n} days",
        ours_seconds=ours.seconds,
        peer="as it is written down",
        peer_seconds=theirs.seconds,
        note=f"differ by {error:.0e}, the error of the draws; the first date, which makes them: {first.seconds:.2g} s",
        target=7.0,
        ours_peak_bytes=first.peak_bytes,
        peer_peak_bytes=theirs.peak_bytes,
    )


def _ours_omega(f: Array) -> Array:
    # Standardised, as skfolio's correlations are.
    slow = {"halflives": (504.0,), "standardised": True}
    estimator = FactorCovariance(halflife=84.0, centred=False, correlation=slow)
    state = estimator.start(f.shape[1])
    omega = np.empty((len(f), f.shape[1], f.shape[1]))
    for day, row in enumerate(f):
        state = estimator.step(state, row)
        omega[day] = estimator.read(state)
    return omega


def _ours_specific(e: Array) -> npt.NDArray[np.float32]:
    estimator = SpecificRisk(halflife=84.0, floor=0.0)
    state = estimator.start(e.shape[1])
    variance = np.empty(e.shape, dtype=np.float32)
    for day, row in enumerate(e):
        state = estimator.step(state, row)
        variance[day] = estimator.read(state)
    return variance


def _theirs(estimator: Any, x: Array) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for row in x:
            estimator.partial_fit(row[None])
    return estimator


def _simulated(omega: Array, n: int, draws: int) -> Array:
    """Simulate the true over the estimated volatility of eigenportfolios (K,), draw after draw."""
    rng = np.random.default_rng(0)
    values, vectors = np.linalg.eigh(omega)
    ratios = np.zeros(len(values))
    for _ in range(draws):
        x = (rng.standard_normal((n, len(values))) * np.sqrt(values)) @ vectors.T
        estimated, turned = np.linalg.eigh(x.T @ x / n)
        ratios += np.diagonal(turned.T @ omega @ turned) / estimated / draws
    return np.sqrt(ratios)
