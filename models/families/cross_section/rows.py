"""What a cross-sectional regression needs of the rows of a panel: weights, orthogonal styles, Huber's steps.

Here belongs everything that Gram statistics of given characteristics cannot say. The regression itself belongs in
`regression`. All of it is decided date by date: no date has a say in the weights of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import norm

from models.arrays import FloatArray
from models.families.cross_section.regression import CrossSections, regress
from models.panel import Panel
from models.statistics.gram import GramStatistics, Weighting, date_spans, select_characteristics, solve_gram
from schemas.errors import ConfigError, ModelError

Orthogonalise = Sequence[tuple[str, Sequence[str]]]
_MAD_OF_NORMAL = float(norm.ppf(0.75))


class Scope(NamedTuple):
    """Which stocks and regressors a regression is about."""

    styles: tuple[str, ...]
    industries: bool
    min_stocks: int | None


@dataclass(frozen=True, eq=False)
class SpecificWeights:
    """Inverse specific variances by stock, each used only after the date at whose close it was known.

    Attributes
    ----------
    as_of : pandas.DatetimeIndex
        Dates up to whose residuals a row of variances goes; it serves later dates up to the next one, inclusive.
    tickers : tuple of str
        Labels of the stocks.
    variance : numpy.ndarray
        (as_of, ticker) float32; NaN where unknown.
    """

    as_of: pd.DatetimeIndex
    tickers: tuple[str, ...]
    variance: npt.NDArray[np.float32]

    def at(self, panel: Panel) -> FloatArray:
        """(date, ticker) weights; a stock without a variance has the median, a date without any has NaN throughout."""
        row = self.as_of.searchsorted(panel.dates, side="left") - 1
        column = pd.Index(self.tickers).get_indexer(pd.Index(panel.tickers))
        known = np.isfinite(self.variance)
        usable = known.any(axis=1)
        median = np.full(len(self.variance), np.nan)
        median[usable] = np.nanmedian(self.variance[usable], axis=1)
        own = np.where((column >= 0) & known[:, column], self.variance[:, column].astype(np.float64), median[:, None])
        weights: FloatArray = np.where((row >= 0)[:, None], 1.0 / own[row], np.nan)
        return weights


def regression_weights(panel: Panel, weighting: Weighting, *, industries: bool) -> FloatArray:
    """(date, ticker) weights known before the date, of covered stocks of known industry; 0 elsewhere."""
    held = panel.market_weight.values.astype(np.float64)
    weights = np.ones_like(held) if weighting == "equal" else held
    enters = panel.coverage.values & np.isfinite(weights) & (weights > 0.0)
    if industries:
        enters &= panel.industry.values >= 0
    weights = np.where(enters, weights, 0.0)
    return np.sqrt(weights) if weighting == "sqrt_cap" else weights


def orthogonalised(panel: Panel, orthogonalise: Orthogonalise, weights: FloatArray) -> Panel:
    """Replace styles by what a weighted regression on an intercept and other styles leaves of them, date by date.

    The regression is over all covered stocks with a weight, whether or not their return will be known. Entries are
    followed in order: later ones see what earlier ones left. A date on which the others are collinear takes the
    minimum-norm solution, which leaves the same residual.

    Parameters
    ----------
    panel : Panel
        In memory.
    orthogonalise : sequence of (str, sequence of str)
        The style to replace, and the styles that it shall be orthogonal to.
    weights : numpy.ndarray
        (date, ticker), 0 where a stock does not enter.

    Raises
    ------
    ModelError
        If the panel lacks one of the styles.
    ConfigError
        If one shall be orthogonal to itself, or to nothing.
    """
    check_orthogonalise(orthogonalise, panel.chars)
    values = panel.characteristics.values.astype(np.float64)
    enters = weights > 0.0
    for style, others in orthogonalise:
        place = [panel.chars.index(name) for name in others]
        target = values[..., panel.chars.index(style)]
        design = np.concatenate([np.ones((*target.shape, 1)), values[..., place]], axis=2)
        inside = np.where(enters[..., None], design, 0.0)
        weighted = (inside * weights[..., None]).transpose(0, 2, 1)
        moment = weighted @ np.where(enters, target, 0.0)[..., None]
        slopes, _ = solve_gram(weighted @ inside, moment)
        values[..., panel.chars.index(style)] = target - (design @ slopes)[..., 0]
    characteristics = panel.characteristics.copy(data=values.astype(np.float32))
    return Panel(panel.data.assign(characteristics=characteristics))


def check_orthogonalise(orthogonalise: Orthogonalise, chars: Sequence[str]) -> None:
    """Raise a ModelError if the panel lacks a characteristic, a ConfigError if an entry names no other style."""
    for style, others in orthogonalise:
        missing = sorted({style, *others} - set(chars))
        if missing:
            raise ModelError(f"orthogonalise names {missing}, which the panel lacks; it has {[*chars]}.")
        if style in others or not others:
            raise ConfigError(f"orthogonalise must name styles other than '{style}' that it shall be orthogonal to.")


def systematic(panel: Panel, styles: Sequence[str], by_stock: FloatArray, style_returns: FloatArray) -> FloatArray:
    """(date, ticker) market and industry return of each stock plus its styles times theirs.

    Parameters
    ----------
    panel : Panel
        With characteristics as the model uses them.
    styles : sequence of str
    by_stock : numpy.ndarray
        (date, ticker) market plus industry return.
    style_returns : numpy.ndarray
        (date, char).
    """
    values = select_characteristics(panel, styles).values
    result = np.zeros(values.shape[:2])
    for place in range(values.shape[2]):  # one style after the other: no other stock has a say in how they are rounded
        result += values[..., place] * style_returns[:, place, None]
    result += by_stock
    return result


def by_code(market: FloatArray, industry: FloatArray, codes: npt.NDArray[np.integer]) -> FloatArray:
    """(date, ticker) market (date,) plus industry (date, group) return by code; NaN where the code is negative."""
    own = np.take_along_axis(industry, np.maximum(codes, 0).astype(np.int64), axis=1)
    return np.where(codes >= 0, market[:, None] + own, np.nan)


class HuberFit(NamedTuple):
    """Final weights (date, ticker) of Huber's steps; variance of a specific return of unit weight; unfinished dates."""

    weights: FloatArray
    specific_variance: FloatArray
    n_unfinished: int


def huber_weights(
    panel: Panel, scope: Scope, base: FloatArray, threshold: float, max_iter: int, tol: float
) -> HuberFit:
    """Iterate weighted least squares on Huber's weights, many dates together, each until it has converged.

    A stock whose residual u = sqrt(w) (r - Xf) / s exceeds the threshold has its weight multiplied by
    threshold / abs(u), where s is the median of abs(sqrt(w) (r - Xf)) over that of a standard normal, renewed at
    every step. A date has converged when no u moves by more than ``tol``. Source: Huber (1981), section 7.6; the
    variance is the one that ``statsmodels.RLM`` calls ``H1``.

    Parameters
    ----------
    panel : Panel
        In memory, with characteristics as the model uses them.
    base : numpy.ndarray
        (date, ticker) regression weights, positive only in the estimation universe.
    threshold, max_iter, tol
        See `CrossSectionalModel`.
    """
    values = select_characteristics(panel, scope.styles).values
    codes = panel.industry.values if scope.industries else np.zeros(base.shape, dtype=np.int64)
    n_groups = len(panel.industries) if scope.industries else 1
    parts = []
    for span in date_spans(len(base), base.shape[1] * (len(scope.styles) + 2)):
        enters = base[span] > 0.0
        joint = np.ones((*enters.shape, len(scope.styles) + 2))
        joint[..., 1:-1], joint[..., -1] = values[span], panel.returns.values[span]
        joint[~enters] = 0.0
        grouped = _Grouped(joint, np.where(enters, codes[span], 0).astype(np.int64), n_groups)
        parts.append(_huber_steps(grouped, base[span], scope.min_stocks, threshold, max_iter, tol))
    weights, variance, unfinished = zip(*parts, strict=True)
    return HuberFit(np.concatenate(weights), np.concatenate(variance), sum(unfinished))


@dataclass(frozen=True, eq=False)
class _Grouped:
    """Rows [1, Z, r] (date, ticker, column), 0 where a stock does not enter, and the group (date, ticker) of each."""

    joint: FloatArray
    codes: npt.NDArray[np.int64]
    n_groups: int

    def at(self, dates: npt.NDArray[np.int64]) -> _Grouped:
        return _Grouped(self.joint[dates], self.codes[dates], self.n_groups)

    def regress(self, weights: FloatArray, min_stocks: int | None) -> CrossSections:
        """Regressions by weights (date, ticker); the constraint has no say in residuals, and is left out."""
        n_dates, _, width = self.joint.shape
        weighted = self.joint * weights[..., None]
        inner = np.empty((n_dates, width, width))
        for date, enters in enumerate(self.joint[..., 0] > 0.0):  # without the rows of those that do not enter
            inner[date] = weighted[date, enters].T @ self.joint[date, enters]
        place = (np.arange(n_dates)[:, None] * self.n_groups + self.codes).ravel()
        sums = [np.bincount(place, weighted[..., i].ravel(), n_dates * self.n_groups) for i in range(width)]
        by_group = np.stack(sums, axis=1).reshape(n_dates, self.n_groups, width)
        last = self.n_groups + width - 1
        product = np.zeros((n_dates, last + 1, last + 1))
        others = np.r_[0, 1 + self.n_groups : last + 1]
        groups = np.arange(1, 1 + self.n_groups)
        product[:, others[:, None], others] = inner
        product[:, groups, groups] = by_group[..., 0]
        product[:, groups[:, None], others] = by_group
        product[:, others[:, None], groups] = by_group.transpose(0, 2, 1)
        counts = (weights > 0.0).sum(axis=1, dtype=np.int64)
        gram = GramStatistics(
            product[:, :-1, :-1],
            product[:, :-1, -1],
            product[:, -1, -1],
            counts,
            inner[:, 0, 0],
            pd.DatetimeIndex([]),
            (),
        )
        return regress(gram, self.n_groups, min_stocks=min_stocks)

    def residuals(self, found: CrossSections) -> FloatArray:
        """(date, ticker) returns less what the regressions explain."""
        own = by_code(found.market, found.industry, self.codes)
        left = self.joint[..., -1] - own
        for place in range(found.style.shape[1]):
            left -= self.joint[..., 1 + place] * found.style[:, place, None]
        return left


def _huber_steps(
    grouped: _Grouped, base: FloatArray, min_stocks: int | None, threshold: float, max_iter: int, tol: float
) -> HuberFit:
    """Iterate all dates until each has converged on its own."""
    weights, scaled = base.copy(), np.full(base.shape, np.inf)
    scale, freedom = np.full(len(base), np.nan), np.zeros(len(base))
    active, now = np.arange(len(base)), grouped
    for _ in range(max_iter):
        found = now.regress(weights[active], min_stocks)
        residual = np.sqrt(base[active]) * now.residuals(found)
        enters = (base[active] > 0.0) & np.isfinite(residual)
        size = _median(np.abs(residual), enters) / _MAD_OF_NORMAL
        fresh = np.divide(residual, size[:, None], out=np.zeros_like(residual), where=enters & (size > 0.0)[:, None])
        moved = np.abs(fresh - scaled[active]).max(axis=1, initial=0.0)
        scaled[active], scale[active], freedom[active] = fresh, size, found.freedom
        unfinished = moved > tol
        if not unfinished.all():
            active, now = active[unfinished], now.at(np.flatnonzero(unfinished))
        if not len(active):
            break
        excess = np.abs(scaled[active])
        weights[active] = base[active] * np.minimum(1.0, threshold / np.maximum(excess, threshold))
    return HuberFit(weights, _huber_variance(scaled, base > 0.0, scale, freedom, threshold), len(active))


def _median(values: FloatArray, held: npt.NDArray[np.bool_]) -> FloatArray:
    """(date,) median over the held stocks; 0 where there are none."""
    ordered = np.sort(np.where(held, values, np.inf), axis=1)
    count = held.sum(axis=1)
    rows = np.arange(len(values))
    middle = 0.5 * (ordered[rows, np.maximum(count - 1, 0) // 2] + ordered[rows, np.minimum(count // 2, count - 1)])
    return np.where(count > 0, middle, 0.0)


def _huber_variance(
    scaled: FloatArray, enters: npt.NDArray[np.bool_], scale: FloatArray, freedom: FloatArray, threshold: float
) -> FloatArray:
    """(date,) K^2 s^2 sum psi^2 / (n - k) / (mean psi')^2."""
    count = np.maximum(enters.sum(axis=1), 1)
    psi = np.clip(np.where(enters, scaled, 0.0), -threshold, threshold)
    inside = (enters & (np.abs(scaled) <= threshold)).sum(axis=1) / count
    correction = 1.0 + (count - freedom) / count * (1.0 - inside) / np.where(inside > 0.0, inside, np.nan)
    squares = np.square(psi).sum(axis=1) * np.square(scale) / np.where(freedom > 0, freedom, np.nan)
    variance: FloatArray = np.square(correction / np.where(inside > 0.0, inside, np.nan)) * squares
    return variance
