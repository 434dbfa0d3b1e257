"""Omega from exponentially weighted moments: half-lives of volatilities and of correlations, blended.

Here belongs how several moments become one Omega. One moment's recursion is in `moments`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.arrays import BoolArray, Float64Array, NamedArrays
from models.risk.moments import Moment
from models.risk.shrinkage import shrink
from schemas.risk import CorrelationSpec, CovarianceSpec, MemorySpec


class WeightedMoments:
    """The estimator of method ewma; its state holds the arrays of moment number i as ``<i>.<name>``."""

    def __init__(self, spec: CovarianceSpec) -> None:
        self._spec = spec
        self._volatility = spec.volatilities
        self._correlation: CorrelationSpec | None = spec.correlation
        self._moments: list[Moment] = [
            *self._of(self._volatility),
            *(self._of(spec.correlation) if spec.correlation else []),
        ]
        self._first = len(self._volatility.halflives)

    def start(self, n_factors: int) -> NamedArrays:
        """Return the state before the first observation."""
        parts = [moment.start(n_factors) for moment in self._moments]
        return {f"{i}.{name}": array for i, part in enumerate(parts) for name, array in part.items()}

    def step(self, state: NamedArrays, returns: Float64Array, known: BoolArray) -> NamedArrays:
        """Return the state after one more observation."""
        parts: list[NamedArrays] = []
        before = _parts(state, len(self._moments))
        for i, (moment, part) in enumerate(zip(self._moments, before, strict=True)):
            if i < self._first or self._correlation is None or not self._correlation.standardised:
                parts.append(moment.step(part, returns, known))
                continue
            scaled = self._standardised(parts[: self._first], returns)
            seen = known & np.isfinite(scaled)
            enough = seen.any() if part["mass"] else seen.all()
            parts.append(moment.step(part, scaled, seen) if enough else part)
        return {f"{i}.{name}": array for i, part in enumerate(parts) for name, array in part.items()}

    def read(self, state: NamedArrays, *, lagged: bool = True) -> Float64Array:
        """Return Omega (factor, factor_); without lags it is that of a single observation."""
        parts = _parts(state, len(self._moments))
        omega = self._blend(self._volatility, parts[: self._first], 0, lagged=lagged)
        if self._correlation is not None:
            slow = self._correlated(self._correlation, parts[self._first :], lagged=lagged)
            root = np.sqrt(np.diagonal(omega))
            omega = slow * np.outer(root, root)
        spec = self._spec.shrinkage
        if spec is None:
            return omega
        if spec.of == "covariance":
            return shrink(omega, self.effective(state), spec.method, spec.n_factors)
        root = np.sqrt(np.diagonal(omega))
        shrunk = shrink(_correlation(omega), self.effective(state), spec.method, spec.n_factors)
        scaled: Float64Array = _correlation(shrunk) * np.outer(root, root)
        return scaled

    def mean(self, state: NamedArrays) -> Float64Array:
        """Return the mean (factor,) that the next observation is expected to have; zero unless centred."""
        shares = np.array(self._volatility.shares)
        mean: Float64Array = shares @ np.stack([part["mean"] for part in _parts(state, self._first)])
        return mean

    def effective(self, state: NamedArrays) -> float:
        """Observations of equal weight behind the correlations, which decide the directions of eigenportfolios."""
        spec, first = (self._correlation, self._first) if self._correlation else (self._volatility, 0)
        parts = _parts(state, len(self._moments))[first : first + len(spec.halflives)]
        return float(sum(share * Moment.effective(part) for share, part in zip(spec.shares, parts, strict=True)))

    def _of(self, spec: MemorySpec) -> list[Moment]:
        return [Moment(halflife, spec.newey_west_lags, self._spec.centred) for halflife in spec.halflives]

    def _blend(self, spec: MemorySpec, parts: Sequence[NamedArrays], first: int, *, lagged: bool) -> Float64Array:
        moments = self._moments[first : first + len(parts)]
        if len(parts) == 1:
            return moments[0].read(parts[0], lagged=lagged)
        read = np.stack([moment.read(part, lagged=lagged) for moment, part in zip(moments, parts, strict=True)])
        blended: Float64Array = np.tensordot(np.array(spec.shares), read, axes=1)
        return blended

    def _correlated(self, spec: MemorySpec, parts: Sequence[NamedArrays], *, lagged: bool) -> Float64Array:
        """Blend correlations, not covariances, so that a half-life that holds a crisis does not outweigh the others."""
        moments = self._moments[self._first :]
        read = [_correlation(moment.read(part, lagged=lagged)) for moment, part in zip(moments, parts, strict=True)]
        blended: Float64Array = np.tensordot(np.array(spec.shares), np.stack(read), axes=1)
        return blended

    def _standardised(self, volatility: Sequence[NamedArrays], returns: Float64Array) -> Float64Array:
        """Divide returns (factor,) by their volatility, this date's included; NaN where that is not yet to be had."""
        if self._spec.centred and volatility[0]["squares"] == volatility[0]["mass"] ** 2:
            return np.full(len(returns), np.nan)
        moments = zip(self._volatility.shares, self._moments, volatility, strict=False)
        variance = np.sum([share * moment.variance(part) for share, moment, part in moments], axis=0)
        unknown = np.full(len(returns), np.nan)
        scaled: Float64Array = np.divide(returns, np.sqrt(variance), out=unknown, where=variance > 0.0)
        return scaled


def _parts(state: NamedArrays, n: int) -> list[NamedArrays]:
    """Arrays of the first n moments, by their own names."""
    parts: list[NamedArrays] = [{} for _ in range(n)]
    for key, array in state.items():
        number, dot, name = key.partition(".")
        if dot and int(number) < n:
            parts[int(number)][name] = array
    return parts


def _correlation(covariance: Float64Array) -> Float64Array:
    """Correlations (K, K); a factor that does not move has none with the others."""
    variance = np.diagonal(covariance)
    scale = np.divide(1.0, np.sqrt(variance), out=np.zeros(len(variance)), where=variance > 0.0)
    correlation: Float64Array = covariance * np.outer(scale, scale)
    np.fill_diagonal(correlation, 1.0)
    return correlation
