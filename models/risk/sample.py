"""Omega from a sample of equally weighted observations, shrunk.

Here belongs the sample that such an estimator remembers. The shrinkage itself is in `shrinkage`.
"""

from __future__ import annotations

import numpy as np

from models.arrays import BoolArray, Float64Array, NamedArrays
from models.risk.moments import completed
from models.risk.shrinkage import ledoit_wolf, second_moment, shrink
from schemas.risk import CovarianceSpec


class ShrunkSample:
    """The estimator of methods ledoit_wolf, oas, qis and factor_qis; its state is the sample itself."""

    def __init__(self, spec: CovarianceSpec) -> None:
        self._spec = spec

    def start(self, n_factors: int) -> NamedArrays:
        """Return the state before the first observation."""
        nothing = {"extra_row": np.zeros(0, dtype=np.int64), "extra": np.zeros((0, n_factors, n_factors))}
        return nothing | {"sample": np.zeros((0, n_factors))}

    def step(self, state: NamedArrays, returns: Float64Array, known: BoolArray) -> NamedArrays:
        """Return the state after one more observation; what is missing is filled as `moments.Moment.step` does."""
        sample, rows, extra = state["sample"], state["extra_row"], state["extra"]
        observation = returns
        if not known.all():
            mean = self.mean(state)
            deviation, carried = completed(returns - mean, known, second_moment(self._deviations(state), extra))
            observation = mean + deviation
            rows, extra = np.append(rows, len(sample)), np.concatenate([extra, carried[None]])
        sample = np.concatenate([sample, observation[None]])
        gone = 0 if self._spec.window is None else max(0, len(sample) - self._spec.window)
        kept = rows >= gone
        return {"sample": sample[gone:], "extra_row": rows[kept] - gone, "extra": extra[kept]}

    def read(self, state: NamedArrays, *, lagged: bool = True) -> Float64Array:  # noqa: ARG002  # it has no lags
        """Return Omega (factor, factor_)."""
        method, x = self._spec.method, self._deviations(state)
        if method == "ledoit_wolf":
            return ledoit_wolf(x, state["extra_row"], state["extra"])
        sample = second_moment(x, state["extra"])
        if method == "oas":
            return shrink(sample, float(len(x)), "oas")
        free = float(len(x) - self._spec.centred)
        return shrink(sample * (len(x) / free), free, "qis" if method == "qis" else "factor_qis", self._spec.n_factors)

    def mean(self, state: NamedArrays) -> Float64Array:
        """Return the mean (factor,) that the next observation is expected to have; zero unless centred."""
        sample: Float64Array = state["sample"]
        return sample.mean(axis=0) if self._spec.centred else np.zeros(sample.shape[1])

    def effective(self, state: NamedArrays) -> float:
        """Observations behind Omega."""
        return float(len(state["sample"]))

    def _deviations(self, state: NamedArrays) -> Float64Array:
        sample: Float64Array = state["sample"]
        return sample - sample.mean(axis=0) if self._spec.centred else sample
