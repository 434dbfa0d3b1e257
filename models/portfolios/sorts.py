"""Portfolios made from characteristics: quantile sorts, double sorts, spreads, and characteristic-managed portfolios.

Here belong portfolios that test whether a characteristic is priced, all dates and stocks at once. Portfolios to hold
and to report the risk of belong in `portfolios`, regressions on characteristics in `fama_macbeth`.

Everything at date t is formed from what a panel shows at t, which was known before t; the return of t alone is not.

>>> portfolios = quantile_sort(panel, "mom12m", 10, weighting="cap")
>>> portfolios.returns                        # (date, portfolio) mom12m1 ... mom12m10
>>> portfolios.spread()                       # (date) highest less lowest
>>> grid = double_sort(panel, "size", "bm", (2, 3))
>>> grid.spread("bm")                         # (date) highest less lowest bm, averaged over size
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import xarray as xr

from models.arrays import BoolArray, Float64Array, IntArray
from models.panel import Panel
from models.statistics.gram import Design, gram_of, managed_portfolios, select_characteristics, solve_gram
from schemas.errors import ConfigError, DataError

Characteristic = str | xr.DataArray
Quantiles = int | Sequence[float]

__all__ = ["SortedPortfolios", "double_sort", "managed_returns", "managed_weights", "quantile_sort"]


@dataclass(frozen=True, eq=False)
class SortedPortfolios:
    """Portfolios that split a universe into disjoint buckets, date by date.

    Attributes
    ----------
    returns : xarray.DataArray
        (date, portfolio) mean return per period over members in the estimation universe (with a return that no check
        suspects), by their weights; NaN for a bucket without any. ``portfolio`` also has one coordinate per sorting
        characteristic: the number of the bucket, 1 is the lowest.
    counts : xarray.DataArray
        (date, portfolio) stocks in each bucket when it was formed; 0 for an empty one.
    n_missing : xarray.DataArray
        (date, portfolio) of these, stocks without such a return at the date, which the others make up for.
    bucket : xarray.DataArray
        (date, ticker) int16 position of a stock's portfolio, -1 where it has none.
    weight : xarray.DataArray
        (date, ticker) float64 weight of a stock in its portfolio, known before the date; the weights of a portfolio sum
        to 1. NaN where a stock has none.

    Examples
    --------
    >>> from models import quantile_sort
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> quantile_sort(panel, "size", 4).counts[-1].values.tolist()
    [6, 6, 6, 6]
    """

    returns: xr.DataArray
    counts: xr.DataArray
    n_missing: xr.DataArray
    bucket: xr.DataArray
    weight: xr.DataArray

    @property
    def weights(self) -> xr.DataArray:
        """(portfolio, date, ticker) float32 weights as `RiskModel.variance` takes them; NaN where a bucket is empty."""
        position = xr.DataArray(np.arange(self.returns.sizes["portfolio"], dtype=np.int16), dims="portfolio")
        held = self.weight.astype(np.float32).where(self.bucket == position, np.float32(0.0))
        defined = (self.counts > 0).transpose("portfolio", "date")
        found = held.transpose("portfolio", "date", "ticker").where(defined.drop_vars("portfolio"))
        return found.assign_coords(self.returns["portfolio"].coords).rename("weights")

    def spread(self, by: str | None = None) -> xr.DataArray:
        """Highest less lowest bucket of one characteristic, averaged equally over the buckets of the other.

        Parameters
        ----------
        by : str, optional
            The characteristic; may be left out after a sort on one.

        Returns
        -------
        xarray.DataArray
            (date) return per period of a portfolio that is long 1 and short 1; NaN where one of its buckets has none.

        Raises
        ------
        ConfigError
            If the sort has no such characteristic, or two and none is named.
        """
        sides = self._sides(by)
        held = sides != 0.0
        values = self.returns.values[:, held] @ sides[held]
        return xr.DataArray(values, {"date": self.returns["date"]}, ("date",), name="spread")

    def spread_weights(self, by: str | None = None) -> xr.DataArray:
        """(date, ticker) weights of `spread`, 0 where a stock is not held, NaN on dates on which a bucket is empty."""
        sides = self._sides(by)
        bucket = self.bucket.values
        held = np.where(bucket >= 0, sides[bucket] * np.nan_to_num(self.weight.values), 0.0)
        defined = self.counts.values[:, sides != 0.0].min(axis=1) > 0
        return self.weight.copy(data=np.where(defined[:, None], held, np.nan)).rename("spread_weights")

    def _sides(self, by: str | None) -> Float64Array:
        names = [str(name) for name in self.returns["portfolio"].coords if name != "portfolio"]
        if by is None and len(names) > 1:
            raise ConfigError(f"Say of which characteristic the spread is: one of {names}.")
        name = names[0] if by is None else by
        if name not in names:
            raise ConfigError(f"There is no sort on '{name}'; the portfolios are sorted on {names}.")
        number = self.returns[name].values
        top, bottom = number == number.max(), number == number.min()
        sides: Float64Array = top / top.sum() - bottom / bottom.sum()
        return sides


def quantile_sort(
    panel: Panel,
    by: Characteristic,
    quantiles: Quantiles = 5,
    *,
    weighting: str | xr.DataArray = "equal",
    universe: xr.DataArray | None = None,
    breakpoints: xr.DataArray | None = None,
) -> SortedPortfolios:
    """Split the stocks of each date into buckets by one characteristic.

    A stock is in bucket k if its value is above k - 1 breakpoints, so that equal values stay together and a bucket may
    be empty. A breakpoint is an order statistic: of n values the one at position floor(q (n - 1)). Sorting on any
    strictly increasing function of the characteristic therefore gives the same portfolios; and where all stocks set the
    breakpoints they are those of ``pandas.qcut``.

    Parameters
    ----------
    panel : Panel
    by : str or xarray.DataArray
        A characteristic of the panel, or values (date, ticker) known before the date, named. Stocks whose value is NaN
        are in no bucket; note that a panel shows 0, the middle, for a value that a covered stock lacks.
    quantiles : int or sequence of float
        Number of equal buckets, or increasing breakpoints in (0, 1), such as ``[0.3, 0.7]``.
    weighting : {"equal", "cap"} or xarray.DataArray
        Equal weights, the panel's ``market_weight``, or weights (date, ticker) known before the date. Stocks whose
        weight is not positive are in no bucket.
    universe : xarray.DataArray, optional
        (date, ticker) bool, known before the date: stocks that enter. Default: all that are covered.
    breakpoints : xarray.DataArray, optional
        (date, ticker) bool, known before the date: stocks among those that set the breakpoints, such as those of the
        NYSE.

    Raises
    ------
    ModelError
        If the panel lacks the characteristic.
    ConfigError
        If the quantiles are not such, the weighting is unknown, or values to sort on have no name.
    DataError
        If values to sort on, or weights, lack dates or tickers of the panel.

    Examples
    --------
    >>> from models import quantile_sort
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> quantile_sort(panel, "size", 3).returns.dims
    ('date', 'portfolio')
    """
    values, name = _values(panel, by)
    cuts = _fractions(quantiles)
    weight, member, setters = _members(panel, values, weighting, universe, breakpoints)
    bucket = _buckets(values, np.where(member, 0, -1), setters, cuts, 1)
    numbers = {name: np.arange(1, len(cuts) + 2)}
    return _portfolios(panel, bucket, weight, numbers)


def double_sort(
    panel: Panel,
    first: Characteristic,
    second: Characteristic,
    quantiles: tuple[Quantiles, Quantiles] = (5, 5),
    *,
    dependent: bool = False,
    weighting: str | xr.DataArray = "equal",
    universe: xr.DataArray | None = None,
    breakpoints: xr.DataArray | None = None,
) -> SortedPortfolios:
    """Split the stocks of each date by two characteristics into a grid of portfolios ``<first>i/<second>j``.

    Parameters
    ----------
    panel : Panel
    first, second : str or xarray.DataArray
        As ``by`` of `quantile_sort`; stocks need both.
    quantiles : tuple
        As in `quantile_sort`, for each of the two.
    dependent : bool
        The breakpoints of the second are set within each bucket of the first; without it, over all stocks. Where nobody
        of a bucket sets breakpoints its stocks are in no portfolio.
    weighting, universe, breakpoints
        As in `quantile_sort`.

    Raises
    ------
    ModelError, DataError
        As `quantile_sort`.
    ConfigError
        As `quantile_sort`, or if both characteristics have the same name.

    Examples
    --------
    >>> from models import double_sort
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> dict(double_sort(panel, "size", "value", (2, 2)).returns.sizes)
    {'date': 120, 'portfolio': 4}
    """
    values, name = _values(panel, first)
    others, other = _values(panel, second)
    if name == other:
        raise ConfigError(f"A double sort needs two characteristics of different names; both are '{name}'.")
    cuts, other_cuts = _fractions(quantiles[0]), _fractions(quantiles[1])
    both = np.where(np.isfinite(others), values, np.nan)
    weight, member, setters = _members(panel, both, weighting, universe, breakpoints)
    rows, columns = len(cuts) + 1, len(other_cuts) + 1
    row = _buckets(values, np.where(member, 0, -1), setters, cuts, 1)
    if dependent:
        column = _buckets(others, row, setters, other_cuts, rows)
    else:
        column = _buckets(others, np.where(member, 0, -1), setters, other_cuts, 1)
    bucket = np.where((row >= 0) & (column >= 0), row * columns + column, -1)
    numbers = {name: np.repeat(np.arange(1, rows + 1), columns), other: np.tile(np.arange(1, columns + 1), rows)}
    return _portfolios(panel, bucket, weight, numbers)


def managed_returns(panel: Panel, chars: Sequence[str] | None = None, *, intercept: bool = False) -> xr.DataArray:
    """Return the characteristic-managed portfolios x = (Z'Z)^-1 Z'r as (date, char), over the estimation universe.

    NaN on dates without a stock; of a rank-deficient date the minimum-norm solution. Source: Gu, Kelly and Xiu (2021),
    Autoencoder asset pricing models, eq. 16.

    Parameters
    ----------
    panel : Panel
    chars : sequence of str, optional
        Which characteristics, in which order. Default: all.
    intercept : bool
        Put a column of ones first.

    Examples
    --------
    >>> from models import managed_returns
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> dict(managed_returns(panel, ["size", "value"]).sizes)
    {'date': 120, 'char': 2}
    """
    gram = gram_of(panel, Design(tuple(panel.chars if chars is None else chars), intercept=intercept))
    coords = {"date": panel.dates, "char": [*gram.chars]}
    return xr.DataArray(managed_portfolios(gram), coords, ("date", "char"), name="managed_returns")


def managed_weights(panel: Panel, chars: Sequence[str] | None = None) -> xr.DataArray:
    """Weights (Z'Z)^-1 Z' of the characteristic-managed portfolios over covered stocks, as (char, date, ticker).

    They are known before the date, and so exist for the next one; where every covered stock is in the estimation
    universe with a return, weights times returns are `managed_returns`. 0 where a stock is not covered, NaN on dates
    that cover nobody.

    Examples
    --------
    >>> from models import managed_weights
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> dict(managed_weights(panel, ["size", "value"]).sizes)
    {'char': 2, 'date': 120, 'ticker': 24}
    """
    names = [*panel.chars] if chars is None else [*chars]
    coverage = panel.coverage.values
    known = np.where(coverage[..., None], select_characteristics(panel, names).values, 0.0).astype(np.float64)
    moment = known.transpose(0, 2, 1)
    weights, _ = solve_gram(moment @ known, moment)
    weights = np.where(coverage.sum(axis=1)[:, None, None] > 0, weights, np.nan).transpose(1, 0, 2)
    coords = {"char": names, "date": panel.dates, "ticker": panel.tickers}
    return xr.DataArray(weights, coords, ("char", "date", "ticker"), name="managed_weights")


def _values(panel: Panel, by: Characteristic) -> tuple[Float64Array, str]:
    """(date, ticker) values to sort on, and their name."""
    if isinstance(by, str):
        return select_characteristics(panel, [by]).values[..., 0].astype(np.float64), by
    if by.name is None:
        raise ConfigError("Values to sort on need a name; give them one with .rename(...).")
    return _aligned(panel, by).astype(np.float64), str(by.name)


def _aligned(panel: Panel, array: xr.DataArray) -> npt.NDArray[np.generic]:
    try:
        aligned = array.sel(date=panel.dates, ticker=panel.tickers).transpose("date", "ticker")
    except (KeyError, ValueError) as error:
        name = array.name or "array"
        raise DataError(f"'{name}' must be (date, ticker) and have every date and ticker of the panel.") from error
    values: npt.NDArray[np.generic] = aligned.values
    return values


def _fractions(quantiles: Quantiles) -> list[Fraction]:
    """Breakpoints as exact fractions, so that positions of order statistics do not depend on rounding."""
    if isinstance(quantiles, int):
        if quantiles < 2:
            raise ConfigError(f"{quantiles} buckets do not split anything; ask for at least 2.")
        return [Fraction(k, quantiles) for k in range(1, quantiles)]
    cuts = [Fraction(str(float(quantile))) for quantile in quantiles]
    if not cuts or cuts[0] <= 0 or cuts[-1] >= 1 or any(a >= b for a, b in pairwise(cuts)):
        raise ConfigError(f"Breakpoints must increase within (0, 1), not {[*quantiles]}.")
    return cuts


def _members(
    panel: Panel,
    values: Float64Array,
    weighting: str | xr.DataArray,
    universe: xr.DataArray | None,
    breakpoints: xr.DataArray | None,
) -> tuple[Float64Array, BoolArray, BoolArray]:
    """(date, ticker) weights, which stocks enter, and which of them set the breakpoints."""
    if isinstance(weighting, xr.DataArray):
        weight = _aligned(panel, weighting).astype(np.float64)
    elif weighting in ("equal", "cap"):
        weight = np.ones(values.shape) if weighting == "equal" else panel.market_weight.values.astype(np.float64)
    else:
        raise ConfigError(
            f"weighting='{weighting}' is unknown; choose 'equal' or 'cap', or give weights (date, ticker)."
        )
    member = panel.coverage.values & np.isfinite(values) & np.isfinite(weight) & (weight > 0.0)
    if universe is not None:
        member = member & _aligned(panel, universe).astype(np.bool_)
    setters = member if breakpoints is None else member & _aligned(panel, breakpoints).astype(np.bool_)
    return weight, member, setters


def _buckets(
    values: Float64Array, group: IntArray, setters: BoolArray, cuts: list[Fraction], n_groups: int
) -> IntArray:
    """Bucket of every stock by the breakpoints of its group at its date; -1 without a group, or where nobody sets them.

    Stocks that set breakpoints are sorted by group and value, so that the values of a group lie side by side and all of
    its order statistics are found by position.
    """
    last = np.where(setters, group, n_groups)
    order = np.lexsort((np.where(setters, values, np.inf), last), axis=-1)
    ordered = np.take_along_axis(values, order, axis=1)
    size = np.stack([(last == g).sum(axis=1) for g in range(n_groups)], axis=1)
    start = np.cumsum(size, axis=1) - size
    bucket = np.where(group >= 0, 0, -1)
    place = np.maximum(group, 0)
    for cut in cuts:
        position = start + np.maximum(size - 1, 0) * cut.numerator // cut.denominator
        level = np.take_along_axis(ordered, np.minimum(position, values.shape[1] - 1), axis=1)
        above = values > np.take_along_axis(level, place, axis=1)
        bucket += above & (group >= 0)
    unset = np.take_along_axis(size, place, axis=1) == 0
    return np.where(unset, -1, bucket)


def _portfolios(
    panel: Panel, bucket: IntArray, weight: Float64Array, numbers: dict[str, npt.NDArray[np.int64]]
) -> SortedPortfolios:
    """Sum by date and bucket, all at once."""
    n_portfolios, shape = len(next(iter(numbers.values()))), bucket.shape
    held = bucket >= 0
    cell = (np.arange(shape[0])[:, None] * n_portfolios + bucket)[held]
    known = panel.mask.values[held]
    stock_weight, stock_return = weight[held], panel.returns.values[held].astype(np.float64)

    def sums(cells: IntArray, values: Float64Array | None = None) -> Float64Array:
        total: Float64Array = np.bincount(cells, values, shape[0] * n_portfolios).astype(np.float64)
        return total.reshape(shape[0], n_portfolios)

    counts, total = sums(cell), sums(cell, stock_weight)
    earned = sums(cell[known], stock_weight[known] * stock_return[known])
    behind = sums(cell[known], stock_weight[known])
    returns = np.divide(earned, behind, out=np.full(earned.shape, np.nan), where=behind > 0.0)
    share = np.full(shape, np.nan)
    share[held] = stock_weight / total.ravel()[cell]

    labels = ["/".join(f"{name}{number[i]}" for name, number in numbers.items()) for i in range(n_portfolios)]
    coords = {"date": panel.dates, "portfolio": labels, **{name: ("portfolio", n) for name, n in numbers.items()}}
    stocks = {"date": panel.dates, "ticker": panel.tickers}

    def labelled(values: npt.NDArray[np.generic], name: str) -> xr.DataArray:
        return xr.DataArray(values, coords, ("date", "portfolio"), name=name)

    return SortedPortfolios(
        returns=labelled(returns, "returns"),
        counts=labelled(counts.astype(np.int64), "counts"),
        n_missing=labelled(counts.astype(np.int64) - sums(cell[known]).astype(np.int64), "n_missing"),
        bucket=xr.DataArray(bucket.astype(np.int16), stocks, ("date", "ticker"), name="bucket"),
        weight=xr.DataArray(share, stocks, ("date", "ticker"), name="weight"),
    )
