"""The factor covariance Omega = Cov(f), as of each date.

Here belong estimators that turn the history of factor returns into Omega, per period, without look-ahead.
Specific risk lives in `specific`, the risk of portfolios in `risk`.

The factor returns must speak one set of coordinates: those of a latent model refitted with another rotation
have to be rotated into line (`FactorModel.rotate`) before they are strung together.
"""

from __future__ import annotations

from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from models.arrays import BoolArray, Float64Array, NamedArrays
from models.risk import eigenfactor, oracle, regime, repair
from models.risk.cm_iewma import CombinedPredictors
from models.risk.sample import ShrunkSample
from models.risk.weighted import WeightedMoments
from schemas.base import Argued
from schemas.errors import DataError, ModelError
from schemas.risk import CovarianceSpec

Dates = pd.DatetimeIndex | list[pd.Timestamp]
_GROWTH = 1.05


class Base(Protocol):
    """What Omega is before the stages that any method may pass: one estimator for each method."""

    def start(self, n_factors: int) -> NamedArrays:
        """Return the state before the first observation."""
        ...

    def step(self, state: NamedArrays, returns: Float64Array, known: BoolArray) -> NamedArrays:
        """Return the state after one more observation, of which the factors ``known`` (factor,) count."""
        ...

    def read(self, state: NamedArrays, *, lagged: bool = True) -> Float64Array:
        """Return Omega (factor, factor_); without lags it is that of a single observation."""
        ...

    def mean(self, state: NamedArrays) -> Float64Array:
        """Return the mean (factor,) that the next observation is expected to have."""
        ...

    def effective(self, state: NamedArrays) -> float:
        """Return how many equally weighted observations are behind Omega."""
        ...


class FactorCovariance(CovarianceSpec, Argued):
    """Omega from the factor returns known as of a date, in squared decimals per period (not annualised).

    A date on which no factor return is known is no observation: Omega carries over it, and weights count
    observations, not calendar days. Omega is positive semi-definite by construction.

    "ewma" has the start and the centring corrected for bias, so that it equals
    ``pandas.DataFrame.ewm(halflife=...).cov()``. "ledoit_wolf" is that of Ledoit and Wolf (2004), A well-conditioned
    estimator for large-dimensional covariance matrices, equal to ``sklearn.covariance.ledoit_wolf`` on the
    observations up to the date. Parameters, all by name, are the fields of `schemas.risk.CovarianceSpec`: what a
    config says is what a notebook has.

    Examples
    --------
    >>> from models import IPCA, FactorCovariance
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> factor_returns = IPCA(n_factors=2).fit(panel).factor_returns(panel)
    >>> dict(FactorCovariance(halflife=42.0).estimate(factor_returns).sizes)
    {'factor': 2, 'factor_': 2}
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
        state: NamedArrays = {"count": np.zeros(n_factors, dtype=np.int64), **self._base.start(n_factors)}
        if self.oracle is not None:
            state |= oracle.start(n_factors)
        if self.eigenfactor is not None:
            state |= {"simulated": np.zeros(n_factors), "simulated_n": np.zeros(()), "simulated_age": np.zeros(())}
        if self.regime is not None:
            state |= regime.start()
        return state

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
        changed = {**state, **self._base.step(state, factor_returns, known), "count": state["count"] + known}
        if self.regime is not None and self.is_enough(state):
            deviations = (factor_returns - self._base.mean(state))[known]
            forecast = self._mended(self._base.read(state, lagged=False))[np.ix_(known, known)]
            distance = regime.distance(self.regime, deviations, forecast)
            changed |= regime.step(self.regime, changed, distance, float(known.sum()))
        if self.oracle is not None and self.is_enough(changed):
            deviations = factor_returns - self._base.mean(state)
            changed = oracle.step(self.oracle, changed, deviations, self._base.read(changed))
        if self.eigenfactor is not None and self.is_enough(changed):
            changed |= self._simulated_step(changed, self.eigenfactor.every)
        return changed

    def read(self, state: NamedArrays) -> Float64Array:
        """Return Omega (factor, factor_) as of the last date of a state; NaN if there is not enough behind it."""
        if not self.is_enough(state):
            return np.full((len(state["count"]), len(state["count"])), np.nan)
        omega = self._mended(self._filtered(state))
        if self.eigenfactor is not None:
            factor = eigenfactor.multipliers(
                state["simulated"].tobytes(), float(state["simulated_n"]), self.eigenfactor
            )
            omega = eigenfactor.adjusted(omega, factor)
        return omega if self.regime is None else omega * regime.variance_factor(self.regime, state)

    def repaired(self, factor_returns: xr.DataArray, dates: Dates | None = None) -> xr.DataArray:
        """Say by what share of its trace Omega had to be raised to be positive definite, as (date,); as in `path`.

        It is zero where nothing had to be done: moments are positive semi-definite by construction, and fall short of
        definite only if a factor is a combination of others.
        """
        values = factor_returns.transpose("date", "factor").values.astype(np.float64)
        as_of, rows = rows_as_of(factor_returns, dates)
        state, start, raised = self.start(values.shape[1]), 0, np.full(len(as_of), np.nan)
        for row, stop in enumerate(rows):
            for observation in values[start:stop]:
                state = self.step(state, observation)
            start = stop
            if self.is_enough(state):
                raised[row] = repair.repaired(self._filtered(state), self.floor)[1]
        return xr.DataArray(raised, dims="date", coords={"date": as_of}, name="repaired")

    def is_enough(self, state: NamedArrays) -> bool:
        """Whether a state has as many observations of each factor as Omega needs."""
        return self._available(state) >= self._required(state)

    def shortage(self, state: NamedArrays) -> str:
        """Say what a state lacks."""
        return (
            f"Omega of {len(state['count'])} factors needs {self._required(state)} dates with returns of each; it has "
            f"{self._available(state)}. Use fewer factors, a longer history or window, or a smaller min_observations."
        )

    @cached_property
    def _base(self) -> Base:
        if self.method == "ewma":
            return WeightedMoments(self)
        return CombinedPredictors(self.combination) if self.method == "cm_iewma" else ShrunkSample(self)

    def _required(self, state: NamedArrays) -> int:
        least = self.combination.min_observations + len(state["count"]) + 1 if self.method == "cm_iewma" else 0
        return max(self.min_observations, len(state["count"]) + 1, least)

    def _available(self, state: NamedArrays) -> int:
        found = int(state["count"].min(initial=np.iinfo(np.int64).max))
        return found if self.window is None else min(found, self.window)

    def _filtered(self, state: NamedArrays) -> Float64Array:
        omega = self._base.read(state)
        return omega if self.oracle is None else oracle.filtered(self.oracle, state, omega)

    def _mended(self, omega: Float64Array) -> Float64Array:
        return repair.repaired(omega, self.floor)[0]

    def _simulated_step(self, state: NamedArrays, every: int) -> NamedArrays:
        """Return what is simulated next: eigenvalues of Omega, and the observations behind it.

        They are taken anew when they are ``every`` observations old, or when a young history has grown by much.
        """
        age, n = state["simulated_age"] + 1, np.floor(self._base.effective(state))
        if age < every and n <= _GROWTH * state["simulated_n"]:
            return {"simulated_age": np.asarray(age)}
        values = np.linalg.eigvalsh(self._mended(self._filtered(state)))
        return {"simulated": values, "simulated_n": np.asarray(n), "simulated_age": np.zeros(())}


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
