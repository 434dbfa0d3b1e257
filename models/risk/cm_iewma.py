"""CM-IEWMA: predictors with fast and slow half-lives, weighed at every date by the likelihood of the last few.

Here belong the predictors, the weights, and the estimator with a state. Source: Johansson, Ogut, Pelger, Schmelzer and
Boyd (2023), A simple method for predicting covariance matrices of financial returns, sections 3 and 4. An iterated
EWMA predictor has one half-life for volatilities and another for correlations of standardised returns (Engle 2002).
With L_p the lower Cholesky factor of the precision of predictor p, and L(w) = sum_p w_p L_p, the weights maximise

    sum over the last N dates of  sum_i log L(w)_ii - ||L(w)' r||^2 / 2   over the simplex,

a concave problem in as many unknowns as there are predictors. Omega is (L(w) L(w)')^-1. Neither a turn of the factors
nor their order leaves it alone, since Cholesky factors follow the order; means are taken as zero.
"""

from __future__ import annotations

import numpy as np

from models.arrays import BoolArray, Float64Array, NamedArrays
from models.risk.moments import completed
from models.risk.repair import repaired
from schemas.risk import CombinationSpec

_LEAST_EIGENVALUE = 1e-6  # of a correlation matrix, of mean eigenvalue 1
_ITERATIONS, _GAP, _STAY = 60, 1e-10, 0.99


class CombinedPredictors:
    """The estimator of method cm_iewma."""

    def __init__(self, spec: CombinationSpec) -> None:
        self._spec = spec
        halflives = np.array(spec.halflives)
        self._decay = 0.5 ** (1.0 / halflives)

    def start(self, n_factors: int) -> NamedArrays:
        """Return the state before the first observation."""
        predictors = len(self._spec.halflives)
        return {
            "seen": np.zeros((), dtype=np.int64),
            "variance": np.zeros((predictors, n_factors)),
            "correlation": np.zeros((predictors, n_factors, n_factors)),
            "masses": np.zeros((predictors, 2)),
            "diagonals": np.zeros((0, n_factors, predictors)),
            "whitened": np.zeros((0, n_factors, predictors)),
        }

    def step(self, state: NamedArrays, returns: Float64Array, known: BoolArray) -> NamedArrays:
        """Return the state after one more observation.

        What is missing is filled, by each predictor for itself, as `moments.Moment.step` does; the likelihood of a date
        that lacks a factor has no say in the weights.
        """
        seen = int(state["seen"])
        ready = self._is_ready(state)
        scored = self._scored(state, returns) if ready and known.all() else {}
        filled = np.broadcast_to(returns, state["variance"].shape)
        carried = np.zeros_like(state["correlation"])
        if not known.all():
            forecast = self.predictors(state) if ready else _diagonal(state["variance"])
            parts = [completed(returns, known, one) for one in forecast]
            filled, carried = (np.stack(each) for each in zip(*parts, strict=True))
        advances = np.array([1.0, float(seen >= self._spec.min_observations)])
        masses = np.where(advances > 0.0, self._decay * state["masses"] + 1.0, state["masses"])
        share = advances / np.maximum(masses, 1.0)
        squares = np.square(filled) + np.diagonal(carried, axis1=1, axis2=2)
        variance = state["variance"] + share[:, :1] * (squares - state["variance"])
        correlation = state["correlation"]
        if advances[1]:
            scale = np.divide(1.0, np.sqrt(variance), out=np.zeros_like(variance), where=variance > 0.0)
            z = filled * scale
            product = z[:, :, None] * z[:, None, :] + carried * scale[:, :, None] * scale[:, None, :]
            correlation = correlation + share[:, 1:, None] * (product - correlation)
        moments = {"variance": variance, "correlation": correlation, "masses": masses}
        return {**state, **scored, **moments, "seen": np.asarray(seen + 1)}

    def read(self, state: NamedArrays, *, lagged: bool = True) -> Float64Array:  # noqa: ARG002  # it has no lags
        """Return Omega (factor, factor_)."""
        factor = _precision_factors(self.predictors(state)).transpose(1, 2, 0) @ self.weights(state)
        root = np.linalg.inv(factor)
        omega: Float64Array = root.T @ root
        return omega

    def weights(self, state: NamedArrays) -> Float64Array:
        """Return the weight (predictor,) of each pair of half-lives; equal until a likelihood is known."""
        diagonals, whitened = state["diagonals"], state["whitened"]
        predictors = diagonals.shape[2]
        if not len(diagonals) or predictors == 1:
            return np.full(predictors, 1.0 / predictors)
        crossed = whitened.reshape(-1, predictors)
        return likeliest_weights(diagonals.reshape(-1, predictors), crossed.T @ crossed)

    def predictors(self, state: NamedArrays) -> Float64Array:
        """Return what each pair of half-lives says by itself (predictor, factor, factor_)."""
        moment = state["correlation"]
        scale = np.sqrt(np.diagonal(moment, axis1=1, axis2=2))
        scale = np.where(scale > 0.0, scale, 1.0)
        correlation = moment / (scale[:, :, None] * scale[:, None, :])
        places = np.arange(moment.shape[1])
        correlation[:, places, places] = 1.0
        if np.linalg.eigvalsh(correlation)[:, 0].min() < _LEAST_EIGENVALUE:
            correlation = np.stack([repaired(one, _LEAST_EIGENVALUE)[0] for one in correlation])
        volatility = np.sqrt(state["variance"])
        covariance: Float64Array = correlation * volatility[:, :, None] * volatility[:, None, :]
        covariance[0, places, places] *= 1.0 + self._spec.ridge
        return covariance

    def mean(self, state: NamedArrays) -> Float64Array:
        """Return zeros (factor,): means are not estimated."""
        return np.zeros(state["variance"].shape[1])

    def effective(self, state: NamedArrays) -> float:
        """Observations of equal weight behind the correlations, under the weights of the date."""
        decay = self._decay[:, 1]
        behind = np.minimum(state["seen"], (1.0 + decay) / (1.0 - decay))
        return float(self.weights(state) @ behind)

    def _is_ready(self, state: NamedArrays) -> bool:
        """Whether correlations have more observations than factors, so that a likelihood means something."""
        return bool(state["seen"] > self._spec.min_observations + state["variance"].shape[1])

    def _scored(self, state: NamedArrays, returns: Float64Array) -> NamedArrays:
        factors = _precision_factors(self.predictors(state))
        diagonal = np.diagonal(factors, axis1=1, axis2=2).T
        whitened = (factors.transpose(0, 2, 1) @ returns).T
        last = -self._spec.window
        return {
            "diagonals": np.concatenate([state["diagonals"], diagonal[None]])[last:],
            "whitened": np.concatenate([state["whitened"], whitened[None]])[last:],
        }


def likeliest_weights(rows: Float64Array, crossed: Float64Array) -> Float64Array:
    """Maximise sum_j log(a_j'w) - w'Pw / 2 over the simplex.

    A primal-dual interior point method (Boyd and Vandenberghe 2004, section 11.7), to a duality gap of 1e-10 a row.

    Parameters
    ----------
    rows : numpy.ndarray
        (row, predictor) a_j, positive.
    crossed : numpy.ndarray
        (predictor, predictor) P, positive semi-definite.

    Returns
    -------
    numpy.ndarray
        (predictor,) weights, which sum to one.
    """
    n_rows, k = rows.shape
    w, slack = np.full(k, 1.0 / k), np.full(k, float(n_rows))
    centring, places = 0.1, np.arange(k)
    system, right = np.zeros((k + 1, k + 1)), np.zeros(k + 1)
    system[:k, k] = system[k, :k] = 1.0
    for _ in range(_ITERATIONS):
        scaled = rows / (rows @ w)[:, None]
        gradient = scaled.sum(axis=0) - crossed @ w
        # At the optimum gradient + slack is one number, the multiplier of the sum, and slack or weight is zero.
        gap = w @ slack
        if gap <= _GAP * n_rows and (gradient - gradient @ w).max() <= 1e3 * _GAP * n_rows:
            break
        target = centring * gap / k
        system[:k, :k] = scaled.T @ scaled + crossed
        system[places, places] += slack / w
        right[:k], right[k] = gradient + target / w, 1.0 - w.sum()
        move = np.linalg.solve(system, right)[:k]
        turn = (target - slack * move) / w - slack
        shrinking = -min((move / w).min(), (turn / slack).min())
        size = min(1.0, _STAY / shrinking) if shrinking > 0.0 else 1.0
        w, slack = w + size * move, slack + size * turn
        centring = max((1.0 - size) ** 2, 1e-3) if size > 0.5 else 0.3
    result: Float64Array = w / w.sum()
    return result


def _precision_factors(covariances: Float64Array) -> Float64Array:
    """Lower Cholesky factors of the inverses (predictor, factor, factor)."""
    inverse = np.linalg.inv(covariances)
    factors = np.linalg.cholesky(0.5 * (inverse + inverse.transpose(0, 2, 1)))
    return np.asarray(factors, dtype=np.float64)


def _diagonal(variance: Float64Array) -> Float64Array:
    """Diagonal matrices (predictor, factor, factor) of variances (predictor, factor)."""
    matrix = np.zeros((*variance.shape, variance.shape[1]))
    matrix[:, np.arange(variance.shape[1]), np.arange(variance.shape[1])] = variance
    return matrix
