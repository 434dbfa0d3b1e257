"""Exponentially weighted second moments of factor returns, one half-life each, observation by observation.

Here belongs the recursion that estimators of Omega share: its start, missing values, and Newey and West's lags. How
several half-lives become one Omega belongs in `covariance`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.arrays import BoolArray, Float64Array, NamedArrays
from models.statistics.gram import solve_gram


@dataclass(frozen=True)
class Moment:
    """The covariance, or second moment, under weights that halve every ``halflife`` observations.

    With ``lags`` L > 0 it is the long-run one of Newey and West (1987), V_0 + sum_j (1 - j / (L + 1)) (V_j + V_j'), of
    the weighted series sqrt(w_t) r_t: a pair of dates weighs the root of both weights. So it is positive semi-definite
    whatever the half-life, which a weight of the later date alone does not give.

    Attributes
    ----------
    halflife : float
        Observations.
    lags : int
        L.
    centred : bool
        About the weighted mean; else about zero.
    """

    halflife: float
    lags: int
    centred: bool

    @property
    def decay(self) -> float:
        """Weight of an observation beside the one after it."""
        return float(0.5 ** (1.0 / self.halflife))

    def start(self, n_factors: int) -> NamedArrays:
        """Return the state before the first observation."""
        square = (n_factors, n_factors)
        state: NamedArrays = {"mean": np.zeros(n_factors), "second": np.zeros(square)}
        state |= {"mass": np.zeros(()), "squares": np.zeros(())}
        if self.lags:
            state |= {"recent": np.zeros((0, n_factors)), "lagged": np.zeros(square)}
            state |= {"lead": np.zeros(n_factors), "pairs": np.zeros(())}
        return state

    def step(self, state: NamedArrays, returns: Float64Array, known: BoolArray) -> NamedArrays:
        """Return the state after one more observation, of which at least one factor is known.

        What is missing is filled by its regression on what is known, and the variance that this leaves is added: the
        expectation step of Dempster, Laird and Rubin (1977).

        Parameters
        ----------
        state : dict[str, numpy.ndarray]
            From `start` or `step`; unchanged.
        returns : numpy.ndarray
            (factor,) decimals per period.
        known : numpy.ndarray
            (factor,) which of them count.
        """
        decay = self.decay
        mass, squares = decay * state["mass"] + 1.0, decay**2 * state["squares"] + 1.0
        share = 1.0 / mass
        mean, second = state["mean"], state["second"]
        deviation = returns - mean if self.centred else returns
        gain = share * (1.0 - share) if self.centred else share
        carried = None
        if not known.all():
            deviation, carried = completed(deviation, known, second)
        lags = self._lagged_step(state, mean + deviation if self.centred else deviation) if self.lags else {}
        changed = (1.0 - share) * second + gain * np.outer(deviation, deviation)
        if carried is not None:
            changed += share * carried
        if self.centred:
            mean = mean + share * deviation
        return {"mean": mean, "second": changed, "mass": np.asarray(mass), "squares": np.asarray(squares)} | lags

    def read(self, state: NamedArrays, *, lagged: bool = True) -> Float64Array:
        """Return the covariance (factor, factor_), corrected for the start and the centring.

        Parameters
        ----------
        state : dict[str, numpy.ndarray]
            With at least two observations behind it, if centred.
        lagged : bool
            With the lags; else of single observations, as a forecast of the next one needs it.
        """
        bias = state["squares"] / state["mass"] ** 2 if self.centred else 0.0
        moment = state["second"]
        if self.lags and lagged:
            crossed = state["lagged"]
            if self.centred:
                level = np.outer(state["mean"], state["lead"])
                crossed = crossed - (level + level.T) + state["pairs"] * np.outer(state["mean"], state["mean"])
            moment = moment + crossed / state["mass"]
        covariance: Float64Array = np.asarray(moment / (1.0 - bias), dtype=np.float64)
        return covariance

    def variance(self, state: NamedArrays) -> Float64Array:
        """Return the diagonal (factor,) of `read`, without lags."""
        bias = state["squares"] / state["mass"] ** 2 if self.centred else 0.0
        variance: Float64Array = np.diagonal(state["second"]) / (1.0 - bias)
        return variance

    @staticmethod
    def effective(state: NamedArrays) -> float:
        """Observations of equal weight that are worth as much: (sum w)^2 / sum w^2."""
        return float(state["mass"] ** 2 / state["squares"])

    def _lagged_step(self, state: NamedArrays, observation: Float64Array) -> NamedArrays:
        """Return sums over pairs of dates, both ways: of r_t r_s' (lagged), of r_t (lead), and of one (pairs)."""
        recent, decay = state["recent"], self.decay
        lag = np.arange(1, len(recent) + 1)
        weight = (1.0 - lag / (self.lags + 1.0)) * decay ** (lag / 2.0)
        past = weight @ recent[::-1]
        crossed = np.outer(observation, past)
        return {
            "recent": np.concatenate([recent, observation[None]])[-self.lags :],
            "lagged": decay * state["lagged"] + (crossed + crossed.T),
            "lead": decay * state["lead"] + weight.sum() * observation + past,
            "pairs": np.asarray(decay * state["pairs"] + 2.0 * weight.sum()),
        }


def completed(deviation: Float64Array, known: BoolArray, second: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Fill what is missing by its regression on what is known; also the (factor, factor_) variance that this leaves."""
    missing = ~known
    slopes = solve_gram(second[np.ix_(known, known)][None], second[np.ix_(known, missing)][None])[0][0]
    left = np.zeros_like(second)
    carried = second[np.ix_(missing, missing)] - second[np.ix_(missing, known)] @ slopes
    left[np.ix_(missing, missing)] = 0.5 * (carried + carried.T)
    filled = deviation.copy()
    filled[missing] = deviation[known] @ slopes
    return filled, left
