"""Functions of characteristics, and the portfolios that they manage.

Here belong standardisation, products, random features and managed portfolios. Which of them count, and how much,
belongs to each family.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from numpy.polynomial.legendre import legvander

from models.arrays import Float64Array, FloatArray, IntArray, NamedArrays, under
from models.panel import Panel
from models.statistics.gram import GramStatistics, select_characteristics
from models.statistics.rowwise import covered_values

_CUT = 4.0
_VARIES = 1e-6


@dataclass(frozen=True, eq=False)
class Section:
    """The estimation universe of one date.

    Attributes
    ----------
    rows : numpy.ndarray
        (stock, char) characteristics.
    returns : numpy.ndarray
        (stock,) float64.
    stocks : numpy.ndarray
        (stock,) positions on the panel's axis.
    """

    rows: FloatArray
    returns: Float64Array
    stocks: IntArray

    def of(self, chars: IntArray) -> Section:
        """Return it with some characteristics alone."""
        return Section(self.rows[:, chars], self.returns, self.stocks)


class FeatureMap(Protocol):
    """Functions of characteristics: first a constant and each characteristic in standard deviations, then others."""

    @property
    def size(self) -> int:
        """Number of features."""

    def __call__(self, rows: FloatArray) -> Float64Array:
        """Return (stock, feature) of the characteristics (stock, char) of one date."""


def sections_of(panel: Panel, chars: Sequence[str], min_stocks: int) -> list[Section]:
    """Return the dates of a panel with at least so many stocks in the estimation universe, in order."""
    found = []
    for block in panel.blocks():
        values = select_characteristics(block, chars).values
        returns, mask = block.returns.values, block.mask.values
        found += [
            Section(values[date, mask[date]], returns[date, mask[date]].astype(np.float64), np.flatnonzero(mask[date]))
            for date in np.flatnonzero(mask.sum(axis=1) >= min_stocks)
        ]
    return found


def of_characteristics(
    panel: Panel,
    chars: Sequence[str],
    function: Callable[[FloatArray], FloatArray],
    width: int,
    dtype: npt.DTypeLike = np.float64,
) -> FloatArray:
    """Apply a function of one cross-section to the stocks that are covered, date by date.

    Parameters
    ----------
    panel : Panel
        Read block by block.
    chars : sequence of str
        Characteristics that the function takes, in this order.
    function : callable
        Takes (stock, char) of a date with a stock, and returns (stock, factor).
    width : int
        Number of factors.
    dtype : dtype
        Of the result.

    Returns
    -------
    numpy.ndarray
        (date, ticker, factor), NaN where a stock is not covered.

    Raises
    ------
    ModelError
        If the panel lacks one of the characteristics.
    """
    found = [
        covered_values(select_characteristics(block, chars).values, block.coverage.values, function, width)
        for block in panel.blocks()
    ]
    return np.concatenate([block.astype(dtype, copy=False) for block in found])


def gram_of_features(features: FeatureMap, sections: Sequence[Section], dates: pd.DatetimeIndex) -> GramStatistics:
    """Return Phi'Phi, Phi'r, r'r and N of each date, features labelled by their place; one pass over the rows."""
    size, n_dates = features.size, len(sections)
    zz, zr, rr = np.empty((n_dates, size, size)), np.empty((n_dates, size)), np.empty(n_dates)
    for date, section in enumerate(sections):
        phi = features(section.rows)
        zz[date], zr[date], rr[date] = phi.T @ phi, section.returns @ phi, section.returns @ section.returns
    n = np.array([len(section.rows) for section in sections], dtype=np.int64)
    return GramStatistics(zz, zr, rr, n, n.astype(np.float64), dates, tuple(map(str, range(size))))


@dataclass(frozen=True, eq=False)
class Units:
    """Mean and standard deviation (char,) of each characteristic over the rows of a sample.

    Standardised values are cut at four standard deviations.
    """

    mean: Float64Array
    scale: Float64Array

    @classmethod
    def of(cls, sections: Sequence[Section]) -> Self:
        """Take them over all rows."""
        count = sum(len(section.rows) for section in sections)
        mean = np.sum([section.rows.sum(axis=0, dtype=np.float64) for section in sections], axis=0) / count
        square = np.sum([np.square(section.rows - mean).sum(axis=0) for section in sections], axis=0)
        return cls(mean, np.sqrt(square / count))

    @property
    def varying(self) -> IntArray:
        """Positions of the characteristics that are not constant."""
        return np.flatnonzero(self.scale > _VARIES * np.abs(self.mean))

    def at(self, chars: IntArray) -> Units:
        """Those of some characteristics alone."""
        return Units(self.mean[chars], self.scale[chars])

    def __call__(self, rows: FloatArray) -> Float64Array:
        """Standardise (stock, char)."""
        return np.clip((rows.astype(np.float64) - self.mean) / self.scale, -_CUT, _CUT)


@dataclass(frozen=True, eq=False)
class Products:
    """Products A_i A_j of [1, u_1, .., u_L], centred and of unit variance: a constant, u, squares and interactions.

    Attributes
    ----------
    first, second : numpy.ndarray
        (product,) positions i <= j in [1, u]; 0 and 0 is the constant, which stays 1.
    mean, inverse : numpy.ndarray
        (product,) what is subtracted, and by what is multiplied: 0 for a product that does not vary.
    """

    first: IntArray
    second: IntArray
    mean: Float64Array
    inverse: Float64Array

    @classmethod
    def of(cls, standardised: Sequence[Float64Array]) -> Self:
        """All products of up to two characteristics, with moments over all rows."""
        size = standardised[0].shape[1] + 1
        mean, square, count = np.zeros((size, size)), np.zeros((size, size)), 0
        for u in standardised:
            augmented = _augmented(u)
            mean += augmented.T @ augmented
            square += np.square(augmented).T @ np.square(augmented)
            count += len(u)
        first, second = np.triu_indices(size)
        centre = (mean / count)[first, second]
        variance = (square / count)[first, second] - np.square(centre)
        varies = variance > _VARIES
        inverse = np.where(varies, 1.0 / np.sqrt(np.where(varies, variance, 1.0)), 0.0)
        centre[0], inverse[0] = 0.0, 1.0
        return cls(first.astype(np.int64), second.astype(np.int64), centre, inverse)

    def at(self, places: IntArray) -> Products:
        """Return some of them alone."""
        return Products(self.first[places], self.second[places], self.mean[places], self.inverse[places])

    @property
    def linear(self) -> Products:
        """The constant and the characteristics themselves, which are products with 1."""
        return self.at(np.flatnonzero(self.first == 0))

    def beside(self, other: Products) -> Products:
        """Return these products, then others."""
        return Products(**{name: np.concatenate([value, vars(other)[name]]) for name, value in vars(self).items()})

    def __call__(self, u: Float64Array) -> Float64Array:
        """Return (stock, product)."""
        augmented = _augmented(u)
        return (augmented[:, self.first] * augmented[:, self.second] - self.mean) * self.inverse

    def portfolios(self, standardised: Sequence[Float64Array], sections: Sequence[Section]) -> Float64Array:
        """Return F[t] = sum_i phi(u_i) r_i / N as (date, product), from one weighted Gram matrix a date."""
        found = np.empty((len(sections), len(self.first)))
        for date, (u, section) in enumerate(zip(standardised, sections, strict=True)):
            augmented = _augmented(u)
            gram = (augmented * section.returns[:, None]).T @ augmented / len(u)
            found[date] = (gram[self.first, self.second] - self.mean * gram[0, 0]) * self.inverse
        return found


@dataclass(frozen=True, eq=False)
class Waves:
    """Random Fourier features sqrt(2) cos(u projections + phases) - mean (Rahimi and Recht 2007, algorithm 1).

    Their sum approximates functions that are smooth on the scale of the projections: the kernel is Gaussian, and a
    characteristic whose projections are small hardly enters (automatic relevance determination).

    Attributes
    ----------
    projections : numpy.ndarray
        (char, wave)
    phases, mean : numpy.ndarray
        (wave,)
    """

    projections: Float64Array
    phases: Float64Array
    mean: Float64Array

    @classmethod
    def none(cls, n_chars: int) -> Self:
        """No wave at all."""
        return cls(np.empty((n_chars, 0)), np.empty(0), np.empty(0))

    def at(self, places: IntArray) -> Waves:
        """Return some of them alone."""
        return Waves(self.projections[:, places], self.phases[places], self.mean[places])

    def beside(self, other: Waves) -> Waves:
        """Return these waves, then others of the same characteristics."""
        return Waves(
            **{name: np.concatenate([value, vars(other)[name]], axis=-1) for name, value in vars(self).items()}
        )

    @classmethod
    def managed(
        cls,
        projections: Float64Array,
        phases: Float64Array,
        standardised: Sequence[Float64Array],
        sections: Sequence[Section],
    ) -> tuple[Self, Float64Array]:
        """Return waves with mean zero over all rows, and their managed portfolios (date, wave)."""
        sums = np.empty((len(sections), 2, len(phases)))
        for date, (u, section) in enumerate(zip(standardised, sections, strict=True)):
            both = np.stack([section.returns, np.ones(len(u))])
            sums[date] = np.sqrt(2.0) * (both @ _cosines(u, projections, phases))
        count = np.array([len(u) for u in standardised])
        average = np.array([section.returns.mean() for section in sections])
        mean = sums[:, 1].sum(axis=0) / count.sum()
        return cls(projections, phases, mean), sums[:, 0] / count[:, None] - average[:, None] * mean

    def __call__(self, u: Float64Array) -> Float64Array:
        """Return (stock, wave); cosines have the precision of float32."""
        values: Float64Array = np.sqrt(2.0) * _cosines(u, self.projections, self.phases) - self.mean
        return values


@dataclass(frozen=True, eq=False)
class Features:
    """Products and waves of characteristics, side by side; the first products are a constant and each characteristic.

    They take the characteristics that vary, in the order of ``units``.
    """

    units: Units
    products: Products
    waves: Waves

    @property
    def size(self) -> int:
        """Number of features."""
        return len(self.products.first) + len(self.waves.phases)

    def __call__(self, rows: FloatArray) -> Float64Array:
        """Return (stock, feature) of (stock, char)."""
        u = self.units(rows)
        return np.concatenate([self.products(u), self.waves(u)], axis=1)

    def arrays(self) -> NamedArrays:
        """Return all that `from_arrays` needs."""
        return {
            **{f"units_{name}": value for name, value in vars(self.units).items()},
            **{f"products_{name}": value for name, value in vars(self.products).items()},
            **{f"waves_{name}": value for name, value in vars(self.waves).items()},
        }

    @classmethod
    def from_arrays(cls, arrays: NamedArrays) -> Self:
        """Rebuild the features."""
        return cls(
            Units(**under("units_", arrays)), Products(**under("products_", arrays)), Waves(**under("waves_", arrays))
        )


@dataclass(frozen=True, eq=False)
class Polynomials:
    """Legendre polynomials of each characteristic by itself: a sieve of additive functions.

    A constant, the first polynomial of each characteristic, the second of each, and so on. They take the
    characteristics that vary, each between its smallest and its largest value in the sample, and outside as there.

    Attributes
    ----------
    low, high : numpy.ndarray
        (char,) the ends.
    degree : int
        Of the last polynomials.
    """

    low: Float64Array
    high: Float64Array
    degree: int

    @classmethod
    def of(cls, sections: Sequence[Section], degree: int) -> Self:
        """Take the ends over all rows."""
        low = np.min([section.rows.min(axis=0) for section in sections], axis=0).astype(np.float64)
        high = np.max([section.rows.max(axis=0) for section in sections], axis=0).astype(np.float64)
        return cls(low, high, degree)

    @property
    def size(self) -> int:
        """Number of functions."""
        return 1 + self.degree * len(self.low)

    def __call__(self, rows: FloatArray) -> Float64Array:
        """Return (stock, function) of (stock, char)."""
        inside = np.clip(rows.astype(np.float64), self.low, self.high)
        values = legvander(2.0 * (inside - self.low) / (self.high - self.low) - 1.0, self.degree)
        each = np.moveaxis(values[..., 1:], 2, 1).reshape(len(rows), -1)
        return np.concatenate([np.ones((len(rows), 1)), each], axis=1)


def _augmented(u: Float64Array) -> Float64Array:
    return np.concatenate([np.ones((len(u), 1)), u], axis=1)


def _cosines(u: Float64Array, projections: Float64Array, phases: Float64Array) -> Float64Array:
    return np.cos((u @ projections + phases).astype(np.float32)).astype(np.float64)
