"""From a panel to the regressions of its dates: which weights, which statistics, which solution.

Here belongs the order of the steps. The maths of the rows belongs in `rows`, the solution in `regression`, what is
learnt from the regressions in `model`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import xarray as xr

from models.arrays import FloatArray
from models.families.cross_section import rows
from models.families.cross_section.regression import CrossSections, regress, weighted_r_squared
from models.panel import Panel
from models.statistics.gram import (
    INTERCEPT,
    Design,
    GramStatistics,
    Weighting,
    collinear,
    gram_of,
    gram_statistics,
    industry_name,
)
from schemas.errors import ModelError

FEWEST_DATES = 2  # with which a model can be fitted


class Weighted(NamedTuple):
    """A panel whose characteristics are as the model uses them, and its weights (date, ticker).

    ``base`` are the regression weights and ``final`` those after Huber's steps; ``specific_variance`` (date,) is known
    only then. ``n_unfinished`` counts dates on which the steps did not converge.
    """

    panel: Panel
    base: FloatArray
    final: FloatArray
    specific_variance: FloatArray | None = None
    n_unfinished: int = 0


class Regressed(NamedTuple):
    """Regressions of dates, and what inference needs beside them.

    Attributes
    ----------
    industries : tuple of str
        Of the panel, in the order of the groups of ``sections``; empty if it has none.
    sections, base : CrossSections
        With the final weights, and with those before Huber's steps (the same if there are none).
    specific_variance, r_squared : numpy.ndarray
        (date,) variance of a specific return of unit weight, and R2 by the weights before Huber's steps.
    n_stocks : numpy.ndarray
        (date,) stocks that entered.
    n_unfinished : int
        Dates on which Huber's steps did not converge.
    collinear : tuple of str
        Regressors that are collinear over all dates, where fewer than two dates could be regressed for it.
    """

    industries: tuple[str, ...]
    sections: CrossSections
    base: CrossSections
    specific_variance: FloatArray
    r_squared: FloatArray
    n_stocks: FloatArray
    n_unfinished: int = 0
    collinear: tuple[str, ...] = ()

    def factor_returns(self, industries: Sequence[str]) -> FloatArray:
        """(date, factor) returns of the market, these industries and the styles; NaN for an industry not regressed."""
        found = self.sections
        return self._columns(industries, found.market, found.industry, found.style)

    def standard_errors(self, industries: Sequence[str]) -> FloatArray:
        """(date, factor) standard errors of `factor_returns`; NaN where they are not estimated."""
        base = self.base
        variance = self._columns(industries, base.market_variance, base.industry_variance, base.style_variance)
        return np.sqrt(variance * self.specific_variance[:, None])

    def places(self, industries: Sequence[str]) -> list[int | None]:
        """Position of each industry among those of the regressions; None if they lack it."""
        at = {name: place for place, name in enumerate(self.industries)}
        return [at.get(name) for name in industries]

    def _columns(
        self, industries: Sequence[str], market: FloatArray, industry: FloatArray, style: FloatArray
    ) -> FloatArray:
        columns = np.full((len(market), 1 + len(industries) + style.shape[1]), np.nan)
        columns[:, 0] = market
        for factor, place in enumerate(self.places(industries), start=1):
            if place is not None:
                columns[:, factor] = industry[:, place]
        columns[:, 1 + len(industries) :] = style
        return columns


@dataclass(frozen=True, eq=False)
class Recipe:
    """All that decides the regressions of a panel; the fields are parameters of `CrossSectionalModel`.

    Attributes
    ----------
    weighting : str
        Of the regression, or of the dates that ``specific`` does not serve.
    specific : SpecificWeights, optional
        Inverse specific variances as weights.
    by_cap : bool
        Industries are constrained by capitalisation, not by their regression weights.
    """

    styles: tuple[str, ...]
    industries: bool
    weighting: Weighting
    specific: rows.SpecificWeights | None
    orthogonalise: rows.Orthogonalise
    by_cap: bool
    huber: float | None
    max_iter: int
    tol: float
    min_stocks: int | None

    @property
    def design(self) -> Design:
        """Statistics of the regressors and weights, where neither needs the rows."""
        return Design(
            self.styles, intercept=True, industries=self.industries, weighting=self.weighting, caps=self._caps
        )

    @property
    def _caps(self) -> bool:
        """Whether statistics must hold the capitalisation of industries beside their weights."""
        return self.industries and self.by_cap and self.weighting != "cap"

    @property
    def plain(self) -> bool:
        """Whether regressors and weights are those of `design`."""
        return self.specific is None and self.huber is None and not self.orthogonalise

    def prepared(self, block: Panel) -> Panel:
        """Return the block, in memory, with orthogonal styles."""
        if not self.orthogonalise:
            return block
        return rows.orthogonalised(
            block, self.orthogonalise, rows.regression_weights(block, self.weighting, industries=self.industries)
        )

    def weighted(self, block: Panel) -> Weighted:
        """Return the block with its weights; they are 0 outside the estimation universe."""
        panel = self.prepared(block)
        base = rows.regression_weights(panel, self.weighting, industries=self.industries)
        if self.specific is not None:
            own = self.specific.at(panel)
            base = np.where(np.isfinite(own) & (base > 0.0), own, base)
        base = np.where(panel.mask.values, base, 0.0)
        if self.huber is None:
            return Weighted(panel, base, base)
        scope = rows.Scope(self.styles, self.industries, self.min_stocks)
        fit = rows.huber_weights(panel, scope, base, self.huber, self.max_iter, self.tol)
        return Weighted(panel, base, fit.weights, fit.specific_variance, fit.n_unfinished)

    def regress(self, panel: Panel, known: Collection[str] | None = None) -> Regressed:
        """Regress all dates of a panel; ``known`` as in `solve`."""
        if self.plain:
            return self.solve(gram_of(panel, self.design), known)
        finals, bases, variances, unfinished = [], [], [], 0
        for block in panel.blocks():
            weighted = self.weighted(block)
            finals.append(self._statistics(weighted.panel, weighted.final))
            if weighted.specific_variance is not None:
                bases.append(self._statistics(weighted.panel, weighted.base))
                variances.append(weighted.specific_variance)
                unfinished += weighted.n_unfinished
        final = self.solve(GramStatistics.concat(finals), known)
        if not bases:
            return final
        gram = GramStatistics.concat(bases)
        return final._replace(
            base=self.solve(gram, known).base,
            specific_variance=np.concatenate(variances),
            r_squared=weighted_r_squared(gram, final.sections, len(final.industries)),
            n_unfinished=unfinished,
        )

    def solve(self, gram: GramStatistics, known: Collection[str] | None = None) -> Regressed:
        """Solve from statistics alone.

        Parameters
        ----------
        gram : GramStatistics
            Of the intercept, industries and styles. Industries are constrained by its ``caps``, or by the sums of the
            regression weights if it has none.
        known : collection of str, optional
            Industries that take part in the constraint; stocks of others have a return of their own industry, but no
            share in the market. Default: all.
        """
        found = tuple(name.removeprefix(industry_name("")) for name in gram.industries)
        if gram.chars[: 1 + len(found)] != (INTERCEPT, *gram.industries):
            raise ModelError("CrossSectionalModel needs Gram statistics with an intercept, and industries after it.")
        if gram.chars[1 + len(found) :] != self.styles:
            raise ModelError(f"These Gram statistics have other styles than {[*self.styles]}: {[*gram.chars]}.")
        if self._caps and gram.caps is None:
            raise ModelError("CrossSectionalModel needs Gram statistics with the capitalisation of industries.")
        caps = gram.caps
        if found and known is not None and not set(found) <= set(known):
            place = np.arange(1, 1 + len(found))
            held = gram.zz[:, place, place] if caps is None else caps
            caps = held * np.isin(found, [*known])
        sections = regress(gram, len(found), caps, self.min_stocks)
        involved: tuple[str, ...] = ()
        if sections.kept.sum() < FEWEST_DATES:
            apart = slice(1 if found else 0, None)  # industries add up to the intercept
            involved = tuple(collinear(gram.zz[:, apart, apart].sum(axis=0), gram.chars[apart]))
        return Regressed(
            found,
            sections,
            sections,
            sections.specific_variance,
            sections.r_squared,
            gram.n.astype(np.float64),
            collinear=involved,
        )

    def _statistics(self, panel: Panel, weights: FloatArray) -> GramStatistics:
        coords = {"date": panel.dates, "ticker": panel.tickers}
        array = xr.DataArray(weights, coords, ("date", "ticker"))
        return gram_statistics(
            panel, chars=self.styles, weights=array, intercept=True, industries=self.industries, caps=self._caps
        )
