"""How attention is estimated beside a plain SDF: one ridge in closed form, from products of dates with dates.

Here belong the second moments of cross-sections, and the ridge on what they and the characteristics manage together.
The screen of the plain part belongs in `models.families.sdf.estimation`.

With X = [1, C] in standard units (stock, 1 + char) and S = X'X / N, linear attention X W X' / N lets stocks look at
each other. Its weights (X W X' / N) X lambda = X W S lambda are linear in W (x) lambda: stock i has
sum_jkl x_ij S_kl theta_jkl. There are about as many theta as the cube of the number of characteristics, but all that
the ridge has to know of the portfolios that they weigh is their products on dates s and t,

    F_s'F_t <S_s, S_t>,   F = X'r / N,

so that a matrix (date, date) is decomposed, whatever the number of characteristics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from models.arrays import Float64Array, FloatArray
from models.families.sdf.estimation import ScreenedProducts, dual_path, squared_sharpe
from models.panel import Panel
from models.statistics.features import Features, Products, Section, Units
from models.statistics.gram import select_characteristics


@dataclass(frozen=True, eq=False)
class CrossSection:
    """X = [1, C] in standard units, and the second moments of a cross-section of it.

    Attributes
    ----------
    units : Units
    linear : Products
        A constant and each characteristic.
    """

    units: Units
    linear: Products

    def __call__(self, rows: FloatArray) -> Float64Array:
        """Return X (stock, 1 + char) of (stock, char)."""
        return self.linear(self.units(rows))

    def moments(self, x: Float64Array) -> Float64Array:
        """Return S = X'X / N as (moment,), whose products are those of the matrices: <S, S'> = trace(S S')."""
        first, second = np.triu_indices(x.shape[1])
        once: Float64Array = (x.T @ x / len(x))[first, second] * np.where(first == second, 1.0, np.sqrt(2.0))
        return once

    def moments_of(self, panel: Panel, chars: Sequence[str], min_stocks: int) -> Float64Array:
        """Return them as (date, moment), of all covered stocks, on dates with ``min_stocks`` returns."""
        found = []
        for block in panel.blocks():
            values, covered = select_characteristics(block, chars).values, block.coverage.values
            dates = np.flatnonzero(block.mask.values.sum(axis=1) >= min_stocks)
            found += [self.moments(self(values[date, covered[date]])) for date in dates]
        return np.array(found)


@dataclass(frozen=True, eq=False)
class Attention:
    """What attention adds to the weight of each stock: X Theta z, with z the second moments less their mean.

    Attributes
    ----------
    section : CrossSection
    centre : numpy.ndarray
        (moment,) mean over the training dates.
    theta : numpy.ndarray
        (1 + char, moment)
    """

    section: CrossSection
    centre: Float64Array
    theta: Float64Array

    def __call__(self, rows: FloatArray) -> Float64Array:
        """Return (stock, 1) of the characteristics (stock, char) of all covered stocks of one date."""
        x = self.section(rows)
        return x @ self._coefficients(self.section.moments(x))

    def beside(self, section: Section, moments: Float64Array) -> Section:
        """Put it beside the characteristics of some stocks of a date whose second moments (moment,) are known."""
        added = self.section(section.rows) @ self._coefficients(moments)
        return Section(np.column_stack([section.rows, added]), section.returns, section.stocks)

    def scaled(self, sections: Sequence[Section], moments: Float64Array) -> tuple[Self, float]:
        """Return it with a mean square of one over dates (date, moment), and the root of what it was; or both zero."""
        added = [self.beside(one, own).rows[:, -1] for one, own in zip(sections, moments, strict=True)]
        size = float(np.sqrt(np.square(np.concatenate(added)).mean()))
        return replace(self, theta=self.theta / (size if size > 0.0 else 1.0)), size

    def _coefficients(self, moments: Float64Array) -> Float64Array:
        return self.theta @ (moments - self.centre)[:, None]


@dataclass(frozen=True, eq=False)
class AttendedFeatures:
    """Products of characteristics, and beside them what attention gives: the last column of the rows."""

    products: Features

    @property
    def size(self) -> int:
        """Number of features."""
        return self.products.size + 1

    def __call__(self, rows: FloatArray) -> Float64Array:
        """Return (stock, feature) of (stock, char and attention)."""
        return np.column_stack([self.products(rows[:, :-1]), rows[:, -1]])


@dataclass(frozen=True, eq=False)
class LearntAttention:
    """The SDF of a training sample.

    Attributes
    ----------
    plain : numpy.ndarray
        (kept,) theta of the products that are kept, up to the scale of the SDF.
    theta : numpy.ndarray
        (1 + char, moment) of attention, on the same scale.
    strength : float
        Prior variance of what attention adds, beside that of the plain weights; 0 for none.
    value : float
        `squared_sharpe` on the dates held out.
    """

    plain: Float64Array
    theta: Float64Array
    strength: float
    value: float


def learn_attention(prior: ScreenedProducts, moments: Float64Array, strengths: Sequence[float]) -> LearntAttention:
    """Estimate plain weights and attention in one ridge, with the strength and the ridge that do best held out.

    Maximum Sharpe ratio regression: theta makes sum_t (1 - f[t])^2 + z |theta|^2 small (Britten-Jones 1999; Kelly,
    Kuznetsov, Malamud and Xu 2025). A priori plain weights have a variance of one, and what attention adds that of
    ``strength``.

    Parameters
    ----------
    prior : ScreenedProducts
        The plain part.
    moments : numpy.ndarray
        (date, moment) second moments of the cross-sections, less their mean.
    strengths : sequence of float
        Tried beside 0.
    """
    linear = prior.managed[:, prior.products.first == 0]
    size = np.sqrt(linear.shape[1] * max(np.square(moments).sum(axis=1).mean(), np.finfo(np.float64).tiny))
    attended = (linear @ linear.T) * (moments @ moments.T) / np.square(size)
    scaled = [prior.managed[:, kept] * scale for kept, scale in zip(prior.kept, prior.scales, strict=True)]

    def candidate(strength: float) -> LearntAttention:
        grams = [portfolios @ portfolios.T + strength * attended for portfolios in scaled]
        paths = [
            dual_path(gram[np.ix_(sample.learnt, sample.learnt)])
            for gram, sample in zip(grams, prior.samples, strict=True)
        ]
        held = [
            gram[np.ix_(sample.held, sample.learnt)] @ path
            for gram, path, sample in zip(grams, paths, prior.samples, strict=True)
        ]
        values = squared_sharpe(np.concatenate(held))
        best = int(values.argmax())
        alpha = paths[-1][:, best]
        return LearntAttention(
            plain=prior.scales[-1] * (scaled[-1].T @ alpha),
            theta=strength / np.square(size) * (linear.T @ (alpha[:, None] * moments)),
            strength=strength,
            value=float(values[best]),
        )

    return max((candidate(strength) for strength in (0.0, *strengths)), key=lambda one: one.value)
