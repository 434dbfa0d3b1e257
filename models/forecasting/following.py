"""Omega and specific variance through time, and the rows that one fit serves.

The estimators of risk have a state: a path is the fold of their steps, so that one more day costs one day. A state that
was kept is taken up again where the model and the data up to its date are the same; who keeps it decides that. How the
rows of several fits become a version belongs in `joining` and `rows`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from models.arrays import Float64Array, FloatArray, NamedArrays
from models.families.base import FactorModel
from models.forecasting.answers import Answers, answers
from models.panel.row_blocks import Rows
from models.risk.covariance import FactorCovariance
from models.risk.specific import SpecificRisk
from schemas.errors import ModelError
from schemas.risk import RiskSpec, first_followed

KEPT_DATES = 64
"""A state is kept after each so many dates, and after the last one."""


@dataclass(frozen=True, eq=False)
class RiskState:
    """What the estimators remember of the dates before a position.

    Attributes
    ----------
    n_dates : int
        Position of the first date of the panel that it has not seen.
    since : int
        Position of the first one that it has.
    tickers : tuple of str
        Axis of ``specific``.
    covariance, specific : dict[str, numpy.ndarray]
        States of the two estimators.
    """

    n_dates: int
    since: int
    tickers: tuple[str, ...]
    covariance: NamedArrays
    specific: NamedArrays

    def on(self, tickers: tuple[str, ...], start: NamedArrays) -> RiskState:
        """Bring the state to other tickers; those that it lacks are as in ``start``, before the first date."""
        if tickers == self.tickers:
            return self
        at = pd.Index(tickers).get_indexer(pd.Index(self.tickers))
        specific = {name: array.copy() for name, array in start.items()}
        for name, array in self.specific.items():
            if array.ndim:
                specific[name][at] = array
            else:
                specific[name] = array
        return replace(self, tickers=tickers, specific=specific)


@dataclass(frozen=True)
class RiskEstimators:
    """How Omega and specific variance are estimated; one state for the two."""

    covariance: FactorCovariance
    specific: SpecificRisk
    own: bool = True
    """Whether a model that states its own Omega and specific variance is taken at its word."""
    history: int | None = None
    """Dates up to a fit that are followed for it; all if None."""

    @classmethod
    def of(cls, risk: RiskSpec) -> RiskEstimators:
        """Make the estimators that the risk part of a run spec describes."""
        covariance = FactorCovariance(**risk.covariance.model_dump())
        return cls(covariance, SpecificRisk(**risk.specific.model_dump()), risk.own, risk.remembered)

    def since(self, fitted: int) -> int:
        """Return the position of the first date that is followed for a fit made as of a position."""
        return first_followed(self.history, fitted)

    def start(self, n_factors: int, tickers: tuple[str, ...], since: int = 0) -> RiskState:
        """Return the state before the first date that is followed."""
        return RiskState(since, since, tickers, self.covariance.start(n_factors), self.specific.start(len(tickers)))

    def step(self, state: RiskState, factor_returns: Float64Array, residuals: FloatArray) -> RiskState:
        """Return the state after one more date: (factor,) returns and (ticker,) residuals, NaN where unknown."""
        covariance = self.covariance.step(state.covariance, factor_returns)
        specific = self.specific.step(state.specific, residuals)
        return replace(state, n_dates=state.n_dates + 1, covariance=covariance, specific=specific)

    def read(
        self, state: RiskState, loadings: FloatArray, market_weight: FloatArray
    ) -> tuple[Float64Array, npt.NDArray[np.float32]]:
        """Return Omega (factor, factor_) and the variance (ticker,) of every stock; NaN where history is too short.

        Parameters
        ----------
        state : RiskState
        loadings, market_weight : numpy.ndarray
            (ticker, factor) and (ticker,) known at the close of its last date; NaN where a stock is not covered.
        """
        everyone = np.ones(len(state.tickers), dtype=np.bool_)
        specific = self.specific.read(state.specific, everyone, loadings=loadings, size=market_weight)
        return self.covariance.read(state.covariance), specific

    def shortage(self, state: RiskState) -> str | None:
        """Say why no risk can be read from a state; None if it can."""
        if not self.covariance.is_enough(state.covariance):
            return self.covariance.shortage(state.covariance)
        enough = (state.specific["count"] >= self.specific.min_observations).any()
        return None if enough else self.specific.shortage()


class Checkpoints(Protocol):
    """Where states are kept between runs. Who keeps them knows which model and data they belong to."""

    def find(self, n_dates: int, since: int) -> RiskState | None:
        """Return the last state that is known of at most so many dates, of those from a position on."""
        ...

    def keep(self, state: RiskState) -> None:
        """Keep a state."""
        ...


class NoCheckpoints:
    """Keeps nothing: everything is followed anew."""

    def find(self, n_dates: int, since: int) -> RiskState | None:  # noqa: ARG002  # of the protocol
        """There is none."""
        return None

    def keep(self, state: RiskState) -> None:
        """Forget it."""


@dataclass(frozen=True, eq=False)
class Served:
    """The rows that one fit serves: as-of dates from the date that it was made as of, up to the next refit.

    Attributes
    ----------
    begin : int
        Position of the first as-of date.
    tickers : tuple of str
        Those of the panel that the fit has looked at.
    loadings : numpy.ndarray
        (as_of, ticker, factor) known at the close of the date, float32.
    expected_returns : numpy.ndarray
        (as_of, ticker) of the next date, float32.
    factor_returns : numpy.ndarray
        (as_of + 1, factor) what this fit says was realised on each of these dates, and on the one after the last; NaN
        if that is yet to come.
    omega : numpy.ndarray
        (as_of, factor, factor_); NaN on dates before the first fit.
    specific_variance : numpy.ndarray
        (as_of, ticker) float32; NaN on dates before the first fit.
    """

    begin: int
    tickers: tuple[str, ...]
    loadings: npt.NDArray[np.float32]
    expected_returns: npt.NDArray[np.float32]
    factor_returns: Float64Array
    omega: Float64Array
    specific_variance: npt.NDArray[np.float32]

    @classmethod
    def empty(cls, begin: int, end: int, tickers: tuple[str, ...], n_factors: int) -> Served:
        """Return the rows of the as-of dates from ``begin`` to ``end`` (exclusive) without a number in them."""
        n_rows, shape = end - begin, (len(tickers), n_factors)
        return cls(
            begin=begin,
            tickers=tickers,
            loadings=np.full((n_rows, *shape), np.nan, dtype=np.float32),
            expected_returns=np.full((n_rows, shape[0]), np.nan, dtype=np.float32),
            factor_returns=np.full((n_rows + 1, shape[1]), np.nan),
            omega=np.full((n_rows, shape[1], shape[1]), np.nan),
            specific_variance=np.full((n_rows, shape[0]), np.nan, dtype=np.float32),
        )

    def __len__(self) -> int:
        """Return the number of as-of dates."""
        return len(self.loadings)


def in_sample(model: FactorModel, panel: Rows, begin: int, end: int) -> Served:
    """Make the rows of as-of dates before the first fit: its loadings, expected and factor returns, and no risk.

    Parameters
    ----------
    model : FactorModel
        The first fit.
    panel : Rows
        As in `serve`.
    begin, end : int
        Positions of as-of dates, the end exclusive.
    """
    served = Served.empty(begin, end, tuple(panel.tickers), len(model.factors_))
    for block in answers(model, panel, begin, end + 1, expected_from=begin + 1):
        _show(served, block)
    return served


def serve(
    model: FactorModel,
    panel: Rows,
    begin: int,
    end: int,
    estimators: RiskEstimators,
    *,
    fitted: int | None = None,
    checkpoints: Checkpoints | None = None,
) -> Served:
    """Make the rows of the as-of dates from ``begin`` to ``end`` (exclusive, by position) of one fit.

    Estimates of risk follow the dates from `RiskEstimators.since` on: what a fit costs does not grow with all that was
    before. Where those are not enough, for instance since an industry was empty on each of them, they follow all.

    Row t of a panel holds X[t-1] beside r[t], so that the row after an as-of date has what is known at its close: the
    panel must reach to the row ``end``, which may be the next session, without a return.

    Parameters
    ----------
    model : FactorModel
        Fitted, in the coordinates of the version.
    panel : Rows
        A `Panel`, or whatever gives rows of one, up to ``end`` at least.
    begin, end : int
        Positions of as-of dates.
    estimators : RiskEstimators
    fitted : int, optional
        Position of the date that the fit was made as of; ``begin`` if left out.
    checkpoints : Checkpoints, optional
        Where states may be taken up from, and are kept.

    Raises
    ------
    ModelError
        If the last date has not enough history behind it.
    """
    stated = model.own_omega() if estimators.own else None
    kept = checkpoints or NoCheckpoints()
    tickers = tuple(panel.tickers)
    served = Served.empty(begin, end, tickers, len(model.factors_))
    if stated is not None:
        served.omega[:] = stated
        for block in answers(model, panel, begin, end + 1, expected_from=begin + 1, own=True):
            if block.specific is None:
                raise ModelError(f"{type(model).__name__} states an Omega of its own, and no specific variance.")
            _show(served, block)
            place = np.arange(block.first, block.first + len(block.residuals)) - 1
            later = place >= begin
            served.specific_variance[place[later] - begin] = _with_median(block.specific[later])
        return served
    fitted = begin if fitted is None else fitted
    for since in dict.fromkeys((estimators.since(fitted), 0)):
        state = estimators.start(len(model.factors_), tickers, since)
        found = kept.find(begin + 1, since)
        state = state if found is None else found.on(tickers, state.specific)
        if _followed(model, panel, state, served, estimators, fitted, kept):
            break
    return served


def _followed(
    model: FactorModel,
    panel: Rows,
    state: RiskState,
    served: Served,
    estimators: RiskEstimators,
    fitted: int,
    kept: Checkpoints,
) -> bool:
    """Follow a state to the end of the rows that are served; say whether it had enough dates behind it at the fit."""
    begin, end = served.begin, served.begin + len(served)
    for block in answers(model, panel, min(state.n_dates, begin), end + 1, expected_from=begin + 1):
        _show(served, block)
        for row in range(max(state.n_dates - block.first, 0), len(block.residuals)):
            if state.n_dates > begin:
                known = block.loadings[row], block.market_weight[row]
                row_of = state.n_dates - 1 - begin
                served.omega[row_of], served.specific_variance[row_of] = estimators.read(state, *known)
            if state.n_dates == end:
                break
            state = estimators.step(state, block.factor_returns[row], block.residuals[row])
            if state.n_dates == fitted + 1 and state.since and estimators.shortage(state):
                return False
            if state.n_dates > fitted and (state.n_dates % KEPT_DATES == 0 or state.n_dates == end):
                kept.keep(state)
    shortage = estimators.shortage(state)
    if shortage:
        raise ModelError(shortage)
    return True


def _with_median(variance: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Give stocks of which a model says nothing the median variance of the date, as `SpecificRisk` does."""
    filled = variance.copy()
    for row in filled:
        known = np.isfinite(row)
        if known.any():
            row[~known] = np.median(row[known])
    return filled


def _show(served: Served, block: Answers) -> None:
    """Put what a block of rows says under the as-of dates before them."""
    place = np.arange(block.first, block.first + len(block.residuals)) - served.begin
    served.factor_returns[place[place >= 0]] = block.factor_returns[place >= 0]
    served.loadings[place[place >= 1] - 1] = block.loadings[place >= 1]
    served.expected_returns[place[place >= 1] - 1] = block.expected_returns[place >= 1]
