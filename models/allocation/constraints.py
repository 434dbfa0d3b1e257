"""What weights may be, and the part of a risk model that they may be of.

Here belong limits on weights, in the words of a user and as arrays of the stocks that can be held. The objective that
weights serve belongs in `optimised` and `factor_parity`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import xarray as xr
from scipy.optimize import linprog

from models.arrays import Float64Array, IntArray
from models.risk.portfolio import RiskModel
from schemas.base import nearest
from schemas.errors import ConfigError, DataError, ModelError

_DUST = 1e-9
"""Weights below this are what an interior-point solver leaves of 0."""
_ROUNDS = 5
_LEAST_INSIDE = 1e-3
"""Least net weight within its bounds that can take up what is missing of 1."""
_SLACK = 1e-9
"""By how much a limit may miss what weights can reach before it is refused: rounding."""

Range = tuple[float, float]
"""Least and largest value; an infinite one is no limit."""


@dataclass(frozen=True, eq=False)
class Constraints:
    """Limits on weights, which always sum to 1.

    Attributes
    ----------
    long_only : bool
        Whether no weight may be negative.
    cap : float, optional
        Largest weight of a ticker; without `long_only` also the largest short one.
    groups : mapping
        Tickers of each group, by its name; groups may overlap. Of a series of sectors by ticker it is
        ``sectors.groupby(sectors).groups``.
    group_limits : mapping
        Least and largest net weight of groups, by name. Groups that are not named are free, and so is a ticker that is
        in no group.
    exposure_limits : mapping
        Least and largest exposure X'w to factors, by name, in the units of the model's loadings.
    previous : xarray.DataArray, optional
        (ticker) weights held until now; a ticker left out was not held.
    max_turnover : float, optional
        Most that the absolute changes from `previous` may sum to: 2 sells and buys everything. What is held of tickers
        that can be held no more has to be sold, and counts.

    Raises
    ------
    ConfigError
        If a limit cannot be, or one lacks what it is of.

    Examples
    --------
    >>> from models import Constraints, minimum_variance
    >>> from models.risk.example import example_risk
    >>> model = example_risk()
    >>> minimum_variance(model, Constraints(cap=0.4)).values.round(2).tolist()
    [0.31, 0.17, 0.4, 0.12]
    """

    long_only: bool = True
    cap: float | None = None
    groups: Mapping[str, Collection[str]] = field(default_factory=dict)
    group_limits: Mapping[str, Range] = field(default_factory=dict)
    exposure_limits: Mapping[str, Range] = field(default_factory=dict)
    previous: xr.DataArray | None = None
    max_turnover: float | None = None

    def __post_init__(self) -> None:
        if self.cap is not None and not self.cap > 0.0:
            raise ConfigError(f"cap must be above 0, not {self.cap}.")
        for name in self.group_limits:
            if name not in self.groups:
                raise ConfigError(f"there is no group '{name}' to limit; {nearest(name, list(self.groups))}")
        for what, limits in (("group", self.group_limits), ("factor", self.exposure_limits)):
            for name, (low, high) in limits.items():
                if not low <= high:
                    raise ConfigError(
                        f"the limits of {what} '{name}' are {low} and {high}; the first may not be larger."
                    )
        if self.max_turnover is not None and (self.previous is None or self.max_turnover < 0.0):
            raise ConfigError("max_turnover needs previous weights, and may not be negative.")


@dataclass(frozen=True, eq=False)
class Holdable:
    """The stocks of a risk model that can be held, and limits as arrays of them.

    Attributes
    ----------
    tickers : pandas.Index
        Of the whole model.
    position : numpy.ndarray
        (n,) of the stocks that can be held, along `tickers`.
    loadings, omega, specific : numpy.ndarray
        (n, factor), (factor, factor), (n,) float64, in squared units of `scale`: so that stocks have a variance of 1
        on average, and a solver's tolerance means the same for daily and for monthly returns.
    scale : float
        What variances were multiplied by.
    lower, upper : float or None
        Bounds of every weight.
    rows, most : numpy.ndarray
        (g, n), (g,): rows @ w <= most.
    previous : numpy.ndarray or None
        (n,) weights held until now.
    turnover : float or None
        What `max_turnover` leaves for these stocks.
    """

    tickers: pd.Index
    position: IntArray
    factors: pd.Index
    loadings: Float64Array
    omega: Float64Array
    specific: Float64Array
    scale: float
    lower: float | None
    upper: float | None
    rows: Float64Array
    most: Float64Array
    previous: Float64Array | None
    turnover: float | None

    @classmethod
    def of(cls, model: RiskModel, constraints: Constraints, wanted: xr.DataArray | None = None) -> Holdable:
        """Select the covered stocks, and of these the `wanted` ones (ticker) if that is given.

        Raises
        ------
        DataError
            If the model has dates, Omega is not known, or a ticker of the limits is unknown to the model.
        ConfigError
            If a factor of the limits is unknown to the model.
        ModelError
            If no stock can be held, or a limit leaves nothing.
        """
        if any("date" in part.dims for part in (model.loadings, model.omega, model.specific_variance)):
            raise DataError("an allocation is as of one date; choose it from the parts of the risk model with .sel")
        omega = model.omega.transpose("factor", "factor_").values.astype(np.float64)
        if not np.isfinite(omega).all():
            raise DataError("Omega is not known on this date: there is nothing to allocate by.")
        tickers = model.loadings.indexes["ticker"]
        use = model.covered.values.copy()
        if wanted is not None:
            use &= wanted.reindex(ticker=tickers, fill_value=False).values.astype(bool)
        position = np.flatnonzero(use)
        if not len(position):
            raise ModelError("no ticker can be held: none is covered, or none of those that are asked for.")
        loadings = model.loadings.transpose("ticker", "factor").values.astype(np.float64)[position]
        specific = model.specific_variance.values.astype(np.float64)[position]
        variance = np.einsum("nk,kl,nl->n", loadings, omega, loadings) + specific
        if not (variance > 0.0).all():
            raise ModelError(f"{tickers[position][variance <= 0.0][0]} has no risk at all; leave it out.")
        scale = 1.0 / float(variance.mean())
        previous, turnover = _turnover(constraints, tickers, position)
        lower = 0.0 if constraints.long_only else None if constraints.cap is None else -constraints.cap
        upper = _upper(constraints, len(position))
        limited = _group_rows(constraints, tickers, position)
        limited |= _exposure_rows(constraints, model.loadings.indexes["factor"], loadings)
        for what, (row, within) in limited.items():
            _require_reachable(what, row, within, (lower, upper))
        rows, most = _inequalities(list(limited.values()), len(position))
        return cls(
            tickers=tickers,
            position=position,
            factors=model.loadings.indexes["factor"],
            loadings=loadings,
            omega=omega * scale,
            specific=specific * scale,
            scale=scale,
            lower=lower,
            upper=upper,
            rows=rows,
            most=most,
            previous=previous,
            turnover=turnover,
        )

    @property
    def free(self) -> bool:
        """Whether nothing limits weights but that they sum to 1."""
        return self.lower is None and self.upper is None and not len(self.rows) and self.turnover is None

    def weights(self, values: Float64Array) -> xr.DataArray:
        """Return a solver's weights (n,) on the whole axis (ticker), 0 where nothing is held.

        Its last digits are taken off: what is as good as 0 is 0, bounds hold exactly, and the sum is 1.
        """
        low = -np.inf if self.lower is None else self.lower
        high = np.inf if self.upper is None else self.upper
        held = np.clip(np.where(np.abs(values) < _DUST, 0.0, values), low, high)
        for _ in range(_ROUNDS):
            gap, inside = 1.0 - held.sum(), (held > low) & (held < high)
            total = held[inside].sum()
            if gap == 0.0 or abs(total) < _LEAST_INSIDE:
                break
            held = np.clip(np.where(inside, held * (1.0 + gap / total), held), low, high)
        found = np.zeros(len(self.tickers))
        found[self.position] = held
        return xr.DataArray(found, {"ticker": self.tickers}, ("ticker",), name="weights")


def _upper(constraints: Constraints, n: int) -> float | None:
    if constraints.cap is None:
        return None
    if constraints.cap * n < 1.0 - 1e-12:
        raise ModelError(f"{n} tickers of at most {constraints.cap:g} each cannot sum to 1; raise the cap.")
    return constraints.cap


def _group_rows(
    constraints: Constraints, tickers: pd.Index, position: IntArray
) -> dict[str, tuple[Float64Array, Range]]:
    """Limited sums over the stocks that can be held, by what they are called in a message."""
    limited = {}
    for name, within in constraints.group_limits.items():
        members = pd.Index(constraints.groups[name])
        unknown = members.difference(tickers)
        if len(unknown):
            raise DataError(f"the group '{name}' has {unknown[0]}, which the risk model does not know.")
        row = tickers[position].isin(members).astype(np.float64)
        limited[f"the weight of the group '{name}'"] = (row, within)
    return limited


def _exposure_rows(
    constraints: Constraints, factors: pd.Index, loadings: Float64Array
) -> dict[str, tuple[Float64Array, Range]]:
    limited = {}
    for name, within in constraints.exposure_limits.items():
        if name not in factors:
            known = nearest(name, list(map(str, factors)))
            raise ConfigError(f"the risk model has no factor '{name}' whose exposure could be limited; {known}")
        limited[f"the exposure to '{name}'"] = (loadings[:, factors.get_loc(name)], within)
    return limited


def _require_reachable(what: str, row: Float64Array, within: Range, bounds: tuple[float | None, float | None]) -> None:
    """Refuse a limit that no weights within their bounds could keep, whatever the other limits are."""
    ends = []
    for sign in (1.0, -1.0):
        found = linprog(sign * row, A_eq=np.ones((1, len(row))), b_eq=[1.0], bounds=[bounds], method="highs")
        ends.append(sign * (-np.inf if found.fun is None or not found.success else float(found.fun)))
    low, high = ends
    if within[0] > high + _SLACK:
        raise ModelError(
            f"{what} shall be at least {within[0]:g}, but single weights within their bounds reach at most {high:g}; "
            "lower the limit or raise the cap."
        )
    if within[1] < low - _SLACK:
        raise ModelError(
            f"{what} shall be at most {within[1]:g}, but single weights within their bounds reach no less than "
            f"{low:g}; raise the limit."
        )


def _inequalities(limited: list[tuple[Float64Array, Range]], n_stocks: int) -> tuple[Float64Array, Float64Array]:
    """Rows (g, n) and bounds (g,) with rows @ w <= bounds, one for each finite limit."""
    sides = [
        (sign * row, sign * edge) for row, within in limited for sign, edge in zip((-1.0, 1.0), within, strict=True)
    ]
    finite = [(row, edge) for row, edge in sides if np.isfinite(edge)]
    rows = np.array([row for row, _ in finite], dtype=np.float64).reshape(-1, n_stocks)
    return rows, np.array([edge for _, edge in finite], dtype=np.float64)


def _turnover(
    constraints: Constraints, tickers: pd.Index, position: IntArray
) -> tuple[Float64Array | None, float | None]:
    if constraints.previous is None:
        return None, None
    series = constraints.previous.to_series().astype(np.float64)
    unknown = series.index[~series.index.isin(tickers) & (series != 0.0)]
    if series.isna().any() or len(unknown):
        what = f"hold {unknown[0]}, which the risk model does not know" if len(unknown) else "are not all known"
        raise DataError(f"the previous weights {what}.")
    whole = np.asarray(series.reindex(tickers, fill_value=0.0), dtype=np.float64)
    here: Float64Array = whole[position]
    if constraints.max_turnover is None:
        return here, None
    sold = float(np.abs(whole).sum() - np.abs(here).sum())
    left = constraints.max_turnover - sold
    if left < 0.0:
        raise ModelError(
            f"max_turnover is {constraints.max_turnover:g}, and {sold:g} must be sold of tickers that cannot be held."
        )
    return here, left
