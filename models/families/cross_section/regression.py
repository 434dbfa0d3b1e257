"""Weighted least squares on market, industries and styles at every date, from Gram statistics alone.

Here belongs the solution under the constraint that industries' returns, weighted by capitalisation, sum to zero, with
what inference needs of it. Where weights and statistics come from belongs in `rows` and in `models.statistics.gram`.

The columns of industries are 0/1 and disjoint, so that they are eliminated by group means and only a system of the
size of the styles is solved. Let g[j] be the return of industry j in the regression without a market factor. The
market is m = sum_j c[j] g[j] with c the shares of capitalisation, and the industries are g[j] - m: the exact solution
under the constraint, whichever industries are present.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.arrays import FloatArray
from models.statistics.gram import RANK_TOLERANCE, GramStatistics, solve_gram


@dataclass(frozen=True, eq=False)
class CrossSections:
    """Regressions of all dates; everything is NaN on a date that was dropped.

    Groups are the industries of the statistics, or all stocks as one group if they have none.

    Attributes
    ----------
    market : numpy.ndarray
        (date,) return of the market factor, decimals per period.
    industry : numpy.ndarray
        (date, group) returns of industries over the market; NaN where an industry has no stock.
    style : numpy.ndarray
        (date, char) returns of the styles.
    market_variance, industry_variance, style_variance : numpy.ndarray
        Their variances, as multiples of the variance of a specific return of unit weight.
    specific_variance : numpy.ndarray
        (date,) that variance: r'W(r - Xf) / (n - k).
    r_squared : numpy.ndarray
        (date,) 1 - sum w e^2 / sum w (r - mean)^2 with the weighted mean.
    vif : numpy.ndarray
        (date, char) variance inflation 1 / (1 - R2) of each style on all other regressors, weighted.
    present : numpy.ndarray
        (date, group) bool: the group has stocks.
    freedom : numpy.ndarray
        (date,) stocks less regressors of those present, n - k.
    share, group_weight : numpy.ndarray
        (date, group) shares of capitalisation c and sums of the regression weights.
    group_mean : numpy.ndarray
        (date, group, char) weighted mean styles of each group.
    inverse : numpy.ndarray
        (date, char, char) inverse of the styles' scatter within groups.
    """

    market: FloatArray
    industry: FloatArray
    style: FloatArray
    market_variance: FloatArray
    industry_variance: FloatArray
    style_variance: FloatArray
    specific_variance: FloatArray
    r_squared: FloatArray
    vif: FloatArray
    present: npt.NDArray[np.bool_]
    freedom: FloatArray
    share: FloatArray
    group_weight: FloatArray
    group_mean: FloatArray
    inverse: FloatArray

    @property
    def kept(self) -> npt.NDArray[np.bool_]:
        """(date,) bool: the date was not dropped."""
        kept: npt.NDArray[np.bool_] = np.isfinite(self.market)
        return kept


def regress(
    gram: GramStatistics, n_industries: int, caps: FloatArray | None = None, min_stocks: int | None = None
) -> CrossSections:
    """Solve all dates at once.

    Parameters
    ----------
    gram : GramStatistics
        Regressors: the intercept, then ``n_industries`` industries, then the styles.
    n_industries : int
        0 if there are none: then the market is the intercept.
    caps : numpy.ndarray, optional
        (date, industry) capitalisation of the stocks that enter, in any unit. Default: the sums of the regression
        weights.
    min_stocks : int, optional
        Dates with fewer stocks are dropped. Default: one more than the regressors of that date.

    Returns
    -------
    CrossSections
        A date is dropped if it has too few stocks or no capitalisation, or if its styles are collinear with one
        another or constant within every industry, by the rule of `models.statistics.gram.solve_gram`.
    """
    groups = slice(1, 1 + n_industries) if n_industries else slice(0, 1)
    styles = slice(1 + n_industries, None)
    weight = np.diagonal(gram.zz[:, groups, groups], axis1=1, axis2=2)
    present = weight > 0.0
    per_weight = _ratio(np.ones_like(weight), weight)
    mean = gram.zz[:, groups, styles] * per_weight[..., None]
    own = np.diagonal(gram.zz[:, styles, styles], axis1=1, axis2=2)
    scatter = gram.zz[:, styles, styles] - gram.zz[:, styles, groups] @ mean
    # What is left of a style that is constant within every industry is rounding, which scaling would make look real.
    varies = np.diagonal(scatter, axis1=1, axis2=2) > RANK_TOLERANCE * own
    scatter = np.where(varies[:, :, None] & varies[:, None, :], scatter, 0.0)
    moment = gram.zr[:, styles] - (gram.zr[:, None, groups] @ mean)[:, 0]
    identity = np.broadcast_to(np.eye(own.shape[1]), scatter.shape)
    solution, rank = solve_gram(scatter, np.concatenate([moment[..., None], identity], axis=2))
    style, inverse = solution[..., 0], solution[..., 1:]
    group = gram.zr[:, groups] * per_weight - (mean @ style[..., None])[..., 0]

    held = np.where(present, weight if caps is None or not n_industries else caps, 0.0)
    share = _ratio(held, held.sum(axis=1, keepdims=True))
    market = (share * group).sum(axis=1)
    freedom = gram.n - present.sum(axis=1) - own.shape[1]
    enough = freedom > 0 if min_stocks is None else gram.n >= min_stocks
    kept = (rank == own.shape[1]) & enough & (held.sum(axis=1) > 0.0)

    offset = mean - (share[:, None] @ mean)
    centre = (share[:, None] @ mean)[:, 0]
    of_market = (np.square(share) * per_weight).sum(axis=1)
    of_industry = per_weight * (1.0 - 2.0 * share) + of_market[:, None] + _quadratic(offset, inverse)
    squares = gram.rr - (gram.zr[:, groups] * group).sum(axis=1) - (gram.zr[:, styles] * style).sum(axis=1)
    squares = np.maximum(squares, 0.0)
    centred = gram.rr - _ratio(np.square(gram.zr[:, groups].sum(axis=1)), weight.sum(axis=1))
    spread = own - _ratio(np.square(gram.zz[:, groups, styles].sum(axis=1)), weight.sum(axis=1)[:, None])
    style_variance = np.diagonal(inverse, axis1=1, axis2=2)
    return CrossSections(
        market=_where(kept, market),
        industry=_where(kept, np.where(present, group - market[:, None], np.nan)),
        style=_where(kept, style),
        market_variance=_where(kept, of_market + _quadratic(centre[:, None], inverse)[:, 0]),
        industry_variance=_where(kept, np.where(present, of_industry, np.nan)),
        style_variance=_where(kept, style_variance),
        specific_variance=_where(kept & (freedom > 0), squares / np.maximum(freedom, 1)),
        r_squared=_where(kept & (centred > 0.0), 1.0 - _ratio(squares, centred)),
        vif=_where(kept, style_variance * spread),
        present=present,
        freedom=freedom,
        share=share,
        group_weight=weight,
        group_mean=mean,
        inverse=inverse,
    )


def weighted_r_squared(gram: GramStatistics, sections: CrossSections, n_industries: int) -> FloatArray:
    """R2 (date,) that given factor returns have under the weights of these statistics, as `CrossSections.r_squared`."""
    held = np.nan_to_num(sections.industry, nan=0.0) if n_industries else np.empty((len(gram.dates), 0))
    slopes = np.concatenate([sections.market[:, None], held, sections.style], axis=1)
    fitted = 2.0 * (slopes * gram.zr).sum(axis=1) - _quadratic(slopes[:, None], gram.zz)[:, 0]
    centred = gram.rr - _ratio(np.square(gram.zr[:, 0]), gram.weight)
    return _where(sections.kept & (centred > 0.0), 1.0 - _ratio(gram.rr - fitted, centred))


def _quadratic(rows: FloatArray, matrix: FloatArray) -> FloatArray:
    """(date, row) x' M x of rows (date, row, k) and matrices (date, k, k)."""
    form: FloatArray = ((rows @ matrix) * rows).sum(axis=2)
    return form


def _ratio(numerator: FloatArray, denominator: npt.NDArray[Any]) -> FloatArray:
    """Quotient; 0 where the denominator is not positive."""
    ratio: FloatArray = np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0.0)
    return ratio


def _where(kept: npt.NDArray[np.bool_], values: FloatArray) -> FloatArray:
    """Values of the kept dates, NaN elsewhere."""
    return np.where(kept.reshape(-1, *[1] * (values.ndim - 1)), values, np.nan)
