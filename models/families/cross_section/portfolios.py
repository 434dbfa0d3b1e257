"""Pure factor portfolios: the weights with which a cross-sectional regression adds up returns.

Here belong the weights of stocks. The regression they follow from belongs in `regression`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.arrays import FloatArray
from models.families.cross_section.estimation import Weighted
from models.families.cross_section.regression import CrossSections
from models.statistics.gram import select_characteristics


def pure_portfolios(
    weighted: Weighted, sections: CrossSections, styles: Sequence[str], groups: Sequence[int | None], wanted: list[int]
) -> FloatArray:
    """Weights (date, factor, ticker) whose product with the returns is the factor return.

    With B the mean styles of each group, A the scatter of styles within groups and D the sums of weights:
    styles hold A^-1 (z - B) w; the portfolio of a group holds w / D less B times those of the styles; the market, the
    groups by capitalisation; an industry, its group less the market.

    Parameters
    ----------
    weighted : Weighted
        Panel and weights of the regressions.
    sections : CrossSections
    styles : sequence of str
    groups : sequence of int or None
        Position of each industry of the model among the groups of ``sections``; None if no stock has it.
    wanted : list of int
        Positions among market, industries and styles.
    """
    weight = weighted.final
    values = select_characteristics(weighted.panel, styles).values
    values = np.where((weight > 0.0)[..., None], values, 0.0).astype(np.float64)
    codes = np.zeros(weight.shape, dtype=np.int64)
    if groups:
        codes = np.maximum(weighted.panel.industry.values, 0).astype(np.int64)
    day = np.arange(len(weight))[:, None]
    of_style = ((values - sections.group_mean[day, codes]) * weight[..., None]) @ sections.inverse
    total = sections.group_weight[day, codes]
    in_group = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0.0)

    def combined(share: FloatArray) -> FloatArray:
        """Portfolio of groups held by these shares (date, group)."""
        centre = share[:, None] @ sections.group_mean
        return share[day, codes] * in_group - (of_style @ centre.transpose(0, 2, 1))[..., 0]

    market = combined(sections.share)
    result = np.full((len(weight), len(wanted), weight.shape[1]), np.nan)
    for row, position in enumerate(wanted):
        if position == 0:
            result[:, row] = market
        elif position > len(groups):
            result[:, row] = of_style[..., position - 1 - len(groups)]
        elif (place := groups[position - 1]) is not None:
            only = np.zeros_like(sections.share)
            only[:, place] = 1.0
            held: npt.NDArray[np.bool_] = sections.present[:, place, None]
            result[:, row] = np.where(held, combined(only) - market, np.nan)
    result[~sections.kept] = np.nan
    return result
