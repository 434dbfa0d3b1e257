"""The factor covariance Omega = Cov(f), as of each date.

Here belong estimators that turn the history of factor returns into Omega, per period, without look-ahead.
Specific risk lives in `specific`, the risk of portfolios in `risk`.

The factor returns must speak one set of coordinates: those of a latent model refitted with another rotation
have to be rotated into line (`FactorModel.rotate`) before they are strung together.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from models.arrays import BoolArray, Float64Array, IntArray, NamedArrays
from models.statistics.gram import solve_gram
from schemas.base import Argued
from schemas.errors import DataError, ModelError
from schemas.risk import CovarianceSpec

Dates = pd.DatetimeIndex | list[pd.Timestamp]


class FactorCovariance(CovarianceSpec, Argued):
    """Omega from the factor returns known as of a date, in squared decimals per period (not annualised).

    A date on which no factor return is known is no observation: Omega carries over it, and weights count
    observations, not calendar days. Omega is positive semi-definite by construction.

    "ewma" has the start and the centring corrected for bias, so that it equals
    ``pandas.DataFrame.ewm(halflife=...).cov()``. "ledoit_wolf" is that of Ledoit and Wolf (2004), A well-conditioned
    estimator for large-dimensional covariance matrices, equal to ``sklearn.covariance.ledoit_wolf`` on the
    observations up to the date. Parameters, all by name, are the fields of `schemas.risk.CovarianceSpec`: what a
    config says is what a notebook has.
    """

    def estimate(self, factor_returns: xr.DataArray) -> xr.DataArray:
        """Omega as of the last date.

        Parameters
        ----------
        factor_returns : xarray.DataArray
            (date, factor) decimals per period.

        Returns
        -------
        xarray.DataArray
            (factor, factor_) float64.

        Raises
        ------
        DataError
            If the dates are not sorted and unique, or a value is infinite.
        ModelError
            If there are no more observations than factors, or fewer than `min_observations`.
        """
        return self.path(factor_returns, factor_returns.indexes["date"][-1:]).isel(date=0, drop=True)

    def path(self, factor_returns: xr.DataArray, dates: Dates | None = None) -> xr.DataArray:
        """Omega as of each date, from the factor returns up to and including that date: the fold of `step`.

        Parameters
        ----------
        factor_returns : xarray.DataArray
            (date, factor) decimals per period; NaN where unknown, see `step`.
        dates : sequence of dates, optional
            Sorted as-of dates; by default those of `factor_returns`.

        Returns
        -------
        xarray.DataArray
            (date, factor, factor_) float64; NaN on dates before there are enough observations.

        Raises
        ------
        DataError
            If dates are not sorted and unique, or a value is infinite.
        ModelError
            If the last date does not have enough observations.
        """
        values = factor_returns.transpose("date", "factor").values.astype(np.float64)
        as_of, rows = rows_as_of(factor_returns, dates)
        names = factor_returns.indexes["factor"].to_numpy()
        omega = np.full((len(as_of), len(names), len(names)), np.nan)
        state, start = self.start(len(names)), 0
        for row, stop in enumerate(rows):
            for observation in values[start:stop]:
                state = self.step(state, observation)
            start = stop
            omega[row] = self.read(state)
        if len(rows) and not self.is_enough(state):
            raise ModelError(self.shortage(state))
        coords = {"date": as_of, "factor": names, "factor_": names}
        return xr.DataArray(omega, dims=("date", "factor", "factor_"), coords=coords, name="omega")

    def start(self, n_factors: int) -> NamedArrays:
        """Return the state before the first observation: arrays by name, which can be kept and taken up again."""
        state: NamedArrays = {"count": np.zeros(n_factors, dtype=np.int64)}
        if self.method == "ledoit_wolf":
            nothing = {"extra_row": np.zeros(0, dtype=np.int64), "extra": np.zeros((0, n_factors, n_factors))}
            return state | nothing | {"sample": np.zeros((0, n_factors))}
        second = {"mean": np.zeros(n_factors), "second": np.zeros((n_factors, n_factors))}
        return state | second | {"mass": np.zeros(()), "squares": np.zeros(())}

    def step(self, state: NamedArrays, factor_returns: Float64Array) -> NamedArrays:
        """Return the state after one more date; what was given is not changed.

        The first observation is the first date on which all factors are known. From then on a factor without a return
        carries by itself: its regression on the others, and what they leave of its variance, stay as they are, while
        all others go on. That is the expectation step of maximum likelihood with missing values (Dempster, Laird and
        Rubin 1977), and keeps Omega positive semi-definite. A date without any return changes nothing.

        Parameters
        ----------
        state : dict[str, numpy.ndarray]
            From `start` or `step`.
        factor_returns : numpy.ndarray
            (factor,) decimals per period, NaN where unknown.
        """
        known = ~np.isnan(factor_returns)
        if not (known.all() or (known.any() and state["count"].any())):
            return state
        advance = self._ewma_step if self.method == "ewma" else self._sample_step
        return {"count": state["count"] + known, **advance(state, factor_returns, known)}

    def read(self, state: NamedArrays) -> Float64Array:
        """Return Omega (factor, factor_) as of the last date of a state; NaN if there is not enough behind it."""
        if not self.is_enough(state):
            return np.full((len(state["count"]), len(state["count"])), np.nan)
        if self.method == "ledoit_wolf":
            return _shrunk(self._deviations(state), state["extra_row"], state["extra"])
        bias = state["squares"] / state["mass"] ** 2 if self.centred else 0.0
        omega: Float64Array = np.asarray(state["second"] / (1.0 - bias), dtype=np.float64)
        return omega

    def is_enough(self, state: NamedArrays) -> bool:
        """Whether a state has as many observations of each factor as Omega needs."""
        return self._available(state) >= self._required(state)

    def shortage(self, state: NamedArrays) -> str:
        """Say what a state lacks."""
        return (
            f"Omega of {len(state['count'])} factors needs {self._required(state)} dates with returns of each; it has "
            f"{self._available(state)}. Use fewer factors, a longer history or window, or a smaller min_observations."
        )

    def _required(self, state: NamedArrays) -> int:
        return max(self.min_observations, len(state["count"]) + 1)

    def _available(self, state: NamedArrays) -> int:
        found = int(state["count"].min(initial=np.iinfo(np.int64).max))
        return found if self.window is None else min(found, self.window)

    def _ewma_step(self, state: NamedArrays, returns: Float64Array, known: BoolArray) -> NamedArrays:
        decay = 0.5 ** (1.0 / self.halflife)
        mass, squares = decay * state["mass"] + 1.0, decay**2 * state["squares"] + 1.0
        share = 1.0 / mass
        mean, second = state["mean"], state["second"]
        deviation = returns - mean if self.centred else returns
        gain = share * (1.0 - share) if self.centred else share
        carried = None
        if not known.all():
            deviation, carried = _completed(deviation, known, second)
        changed = (1.0 - share) * second + gain * np.outer(deviation, deviation)
        if carried is not None:
            changed += share * carried
        if self.centred:
            mean = mean + share * deviation
        return {"mean": mean, "second": changed, "mass": np.asarray(mass), "squares": np.asarray(squares)}

    def _sample_step(self, state: NamedArrays, returns: Float64Array, known: BoolArray) -> NamedArrays:
        sample, rows, extra = state["sample"], state["extra_row"], state["extra"]
        observation = returns
        if not known.all():
            mean = sample.mean(axis=0) if self.centred else np.zeros(len(returns))
            deviation, carried = _completed(returns - mean, known, _second_moment(self._deviations(state), extra))
            observation = mean + deviation
            rows, extra = np.append(rows, len(sample)), np.concatenate([extra, carried[None]])
        sample = np.concatenate([sample, observation[None]])
        gone = 0 if self.window is None else max(0, len(sample) - self.window)
        kept = rows >= gone
        return {"sample": sample[gone:], "extra_row": rows[kept] - gone, "extra": extra[kept]}

    def _deviations(self, state: NamedArrays) -> Float64Array:
        sample: Float64Array = state["sample"]
        return sample - sample.mean(axis=0) if self.centred else sample


def _completed(deviation: Float64Array, known: BoolArray, second: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Fill what is missing by its regression on what is known; also the (factor, factor_) variance that this leaves."""
    missing = ~known
    slopes = solve_gram(second[np.ix_(known, known)][None], second[np.ix_(known, missing)][None])[0][0]
    left = np.zeros_like(second)
    carried = second[np.ix_(missing, missing)] - second[np.ix_(missing, known)] @ slopes
    left[np.ix_(missing, missing)] = 0.5 * (carried + carried.T)
    filled = deviation.copy()
    filled[missing] = deviation[known] @ slopes
    return filled, left


def _second_moment(x: Float64Array, extra: Float64Array) -> Float64Array:
    """Mean of x x' over the rows of x (n, K), with what some of them have beside it: ``extra`` (m, K, K)."""
    moment: Float64Array = (x.T @ x + extra.sum(axis=0)) / len(x)
    return moment


def _shrunk(x: Float64Array, rows: IntArray, extra: Float64Array) -> Float64Array:
    """Ledoit and Wolf (2004), section 3.2: rho mu I + (1 - rho) S with rho = b^2 / d^2.

    The x x' of ``rows`` (m,) have ``extra`` (m, K, K) beside them: the variance of what was filled in.
    """
    n, k = x.shape
    sample = _second_moment(x, extra)
    mu = np.trace(sample) / k
    target = mu * np.eye(k)
    dispersion = np.square(sample - target).sum()
    squares = np.square(np.square(x).sum(axis=1)).sum()
    if len(rows):
        crossed = np.einsum("nk,nkl,nl->", x[rows], extra, x[rows])
        squares += 2.0 * crossed + np.square(extra).sum()
    error = (squares / n - np.square(sample).sum()) / n
    shrinkage = min(max(error, 0.0) / dispersion, 1.0) if dispersion > 0.0 else 0.0
    shrunk: Float64Array = (1.0 - shrinkage) * sample + shrinkage * target
    return shrunk


def rows_as_of(history: xr.DataArray, dates: Dates | None) -> tuple[pd.DatetimeIndex, npt.NDArray[np.int_]]:
    """As-of dates (by default those of `history`), and how many rows of `history` are known on each.

    Raises
    ------
    DataError
        If either the dates or those of `history` are not sorted and unique, or `history` has an infinite
        value.
    """
    known = pd.DatetimeIndex(history.indexes["date"])
    as_of = known if dates is None else pd.DatetimeIndex(dates)
    name = history.name or "history"
    for index, what in ((known, f"dates of {name}"), (as_of, "as-of dates")):
        if not (index.is_monotonic_increasing and index.is_unique):
            raise DataError(f"The {what} must be sorted and unique; sort them or drop the duplicates.")
    infinite = np.isinf(history.transpose("date", ...).values).reshape(len(known), -1).any(axis=1)
    if infinite.any():
        raise DataError(f"{name} is infinite on {known[infinite][0]:%Y-%m-%d}; a missing value must be NaN.")
    return as_of, known.searchsorted(as_of, side="right")
