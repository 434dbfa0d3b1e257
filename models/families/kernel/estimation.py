"""How KernelIPCA chooses functions of characteristics, how much each may count, and the factors in them.

Here belong the screen, the ridge and the validation. What the functions are belongs in `models.statistics.features`,
alternating least squares in `models.families.ipca`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from models.arrays import Float64Array, IntArray
from models.families.ipca.estimation import normalise, solve
from models.families.ipca.iteration import Solution
from models.families.ipca.steps import Moments, initial_coefficients
from models.families.linear import gram_r2
from models.statistics.features import Features, Products, Section, Units, Waves, gram_of_features
from models.statistics.gram import GramStatistics

FREQUENCIES = (1.0, 2.0, 3.0, 4.0, 6.0)
"""Of the waves of one characteristic, in radians per standard deviation."""
_MEMORY = 10  # of the Anderson acceleration
_COARSE = 1e-4  # tolerance of what is only compared
_VARIES = 1e-6


@dataclass(frozen=True)
class Options:
    """What a fit is asked for: see `models.families.kernel.model.KernelIPCA`."""

    n_factors: int
    n_features: int
    n_waves: int
    bandwidths: tuple[float, ...]
    ridges: tuple[float, ...]
    max_iter: int
    tol: float
    seed: int


@dataclass(frozen=True, eq=False)
class Sample:
    """Cross-sections of the dates of a fit, with their labels.

    Attributes
    ----------
    sections : list of Section
        Only the characteristics that vary.
    dates : pandas.DatetimeIndex
    """

    sections: list[Section]
    dates: pd.DatetimeIndex

    def at(self, dates: slice) -> Sample:
        """Only these dates."""
        return Sample(self.sections[dates], self.dates[dates])


@dataclass(frozen=True, eq=False)
class Screen:
    """What each feature (feature,) would explain alone, and its mean square over all rows.

    Attributes
    ----------
    excess : numpy.ndarray
        Mean over dates of ((sum_i phi_i e_i)^2 - sum_i phi_i^2 e_i^2) / (sum_i e_i^2 E[phi^2]): how far stocks that are
        alike in the feature move together. It is N Var(slope) / Var(e), the ratio of signal to noise of the slope of a
        date's regression on the feature, and zero in expectation if residuals of stocks are independent.
    square : numpy.ndarray
        E[phi^2].
    n_dates : int
    """

    excess: Float64Array
    square: Float64Array
    n_dates: int

    @classmethod
    def of(cls, features: Features, sections: Sequence[Section], residuals: Sequence[Float64Array]) -> Screen:
        """Screen features by the residuals (stock,) of each date."""
        total, square, count = np.zeros(features.size), np.zeros(features.size), 0
        for section, e in zip(sections, residuals, strict=True):
            phi = features(section.rows)
            squares = np.square(phi)
            own = np.square(e)
            size = float(own.sum())
            if size > 0.0:
                total += (np.square(e @ phi) - own @ squares) / size
            square += squares.sum(axis=0)
            count += len(phi)
        square /= count
        known = square > _VARIES
        excess = np.where(known, total / (len(sections) * np.where(known, square, 1.0)), 0.0)
        return cls(excess, square, len(sections))

    @property
    def noise(self) -> float:
        """Standard error of the excess of a feature without a role: a squared normal deviate, averaged over dates."""
        return float(np.sqrt(2.0 / self.n_dates))

    def largest(self, n: int) -> IntArray:
        """Places of at most n features that stand out of the noise, in their order."""
        order = np.argsort(-self.excess, kind="stable")[:n]
        return np.sort(order[self.excess[order] > self.noise])

    @property
    def penalty(self) -> Float64Array:
        """(feature,) ridge E[phi^2] / excess that is optimal for the slope of each feature by itself.

        With slopes N(0, tau^2) and residuals of variance s^2 the posterior mean minimises sum_i e_i^2 + s^2 b^2 /
        tau^2, and s^2 / tau^2 is N E[phi^2] / excess; the factor N is left to `penalised`. An excess below its
        noise is taken as that.
        """
        penalty: Float64Array = np.maximum(self.square, _VARIES) / np.maximum(self.excess, self.noise)
        return penalty

    def at(self, places: IntArray) -> Screen:
        """Return some features alone."""
        return Screen(self.excess[places], self.square[places], self.n_dates)

    def alike(self) -> Screen:
        """Give every feature the mean excess, as a kernel does that is the sum of them."""
        return replace(self, excess=np.full_like(self.excess, self.excess.mean()))

    def beside(self, other: Screen) -> Screen:
        """Return these features, then others."""
        excess, square = np.concatenate([self.excess, other.excess]), np.concatenate([self.square, other.square])
        return Screen(excess, square, self.n_dates)


def plain(gram: GramStatistics, n_factors: int) -> Moments:
    """Pack statistics for the steps of IPCA, without given series."""
    return Moments.of(gram, np.empty((len(gram.n), 0)), n_factors)


def penalised(gram: GramStatistics, penalty: Float64Array, n_factors: int) -> Moments:
    """Pack statistics with N[t] diag(penalty) added to Phi'Phi of each date.

    IPCA on these minimises sum_t |r - Phi Gamma f|^2 + N (Gamma f)' diag(penalty) Gamma f: the slopes of each date are
    shrunk, whatever the rotation or the units of factors.
    """
    moments = plain(gram, n_factors)
    rows, columns = np.triu_indices(len(penalty))
    moments.packed[:, rows == columns] += gram.n[:, None] * penalty
    return moments


def estimate(
    gram: GramStatistics, penalty: Float64Array, options: Options, *, tol: float, start: Float64Array | None = None
) -> Solution:
    """Iterate alternating least squares on penalised statistics, from a start or from principal components."""
    moments = penalised(gram, penalty, options.n_factors)
    first = initial_coefficients(moments) if start is None else start
    solution, _ = solve(moments, first, n_starts=1, max_iter=options.max_iter, tol=tol, memory=_MEMORY)
    return solution


def realised(gram: GramStatistics, gamma: Float64Array) -> Float64Array:
    """Return factor returns (date, factor) by cross-sectional regression on Phi Gamma; zero where they do not exist."""
    return plain(gram, gamma.shape[1]).realise(gram.zz, gamma).regressors.astype(np.float64)


def total_r2(gram: GramStatistics, gamma: Float64Array) -> float:
    """Uncentred total R2 of the returns explained by Phi Gamma f."""
    return gram_r2(gram, realised(gram, gamma) @ gamma.T)


@dataclass(frozen=True, eq=False)
class Basis:
    """Features, what the screen says of each, and their statistics."""

    features: Features
    screen: Screen
    gram: GramStatistics


class Bases:
    """Makes the bases of one training sample: linear, with products and waves of one characteristic, and joint waves.

    Attributes
    ----------
    linear, single : Basis
        Constant and characteristics; and with them what the screen keeps of squares, products and waves of one.
    relevance : numpy.ndarray
        (char,) root mean square of the slopes of `single` in which a characteristic has a part, beside the largest.
    """

    def __init__(self, sample: Sample, units: Units, options: Options) -> None:
        self._sample, self._units, self._options = sample, units, options
        self._u = [units(section.rows) for section in sample.sections]
        products = Products.of(self._u)
        lines = products.first == 0
        self._lines, self._curves = products.at(np.flatnonzero(lines)), products.at(np.flatnonzero(~lines))
        n_chars = self._u[0].shape[1]
        features = Features(units, self._lines, Waves.none(n_chars))
        returns = [section.returns for section in sample.sections]
        screen = Screen.of(features, sample.sections, returns)
        gram = gram_of_features(features, sample.sections, sample.dates)
        self.linear = Basis(features, screen, gram)
        gamma = self._first(self.linear)
        explained = realised(gram, gamma) @ gamma.T
        self._residuals = [
            r - features(section.rows) @ slopes
            for r, section, slopes in zip(returns, sample.sections, explained, strict=True)
        ]
        self.single = self._single(*_own_waves(n_chars))
        self.relevance = self._relevance()

    def joint(self, bandwidth: float) -> Basis:
        """Return the basis with random Fourier features of all characteristics, each in its relevance."""
        rng = np.random.default_rng(self._options.seed)
        directions = rng.standard_normal((len(self.relevance), self._options.n_waves))
        shifts = rng.uniform(0.0, 2.0 * np.pi, self._options.n_waves)
        none = self._curves.at(np.empty(0, dtype=np.int64))
        waves, screen = self._screened(bandwidth * self.relevance[:, None] * directions, shifts, none)
        basis = self.single.features
        features = Features(self._units, basis.products, basis.waves.beside(waves))
        gram = gram_of_features(features, self._sample.sections, self._sample.dates)
        return Basis(features, self.single.screen.beside(screen.alike()), gram)

    def _screened(self, projections: Float64Array, phases: Float64Array, curves: Products) -> tuple[Waves, Screen]:
        """Return waves, and the screen of curves and waves by what the linear basis leaves."""
        sections = self._sample.sections
        waves, _ = Waves.managed(projections, phases, self._u, sections)
        return waves, Screen.of(Features(self._units, curves, waves), sections, self._residuals)

    def _single(self, projections: Float64Array, phases: Float64Array) -> Basis:
        """Put the best of squares, products and waves beside the linear basis."""
        waves, screen = self._screened(projections, phases, self._curves)
        kept = screen.largest(self._options.n_features)
        n_curves = len(self._curves.first)
        products = self._lines.beside(self._curves.at(kept[kept < n_curves]))
        features = Features(self._units, products, waves.at(kept[kept >= n_curves] - n_curves))
        gram = gram_of_features(features, self._sample.sections, self._sample.dates)
        return Basis(features, self.linear.screen.beside(screen.at(kept)), gram)

    def _first(self, basis: Basis) -> Float64Array:
        return estimate(basis.gram, basis.screen.penalty, self._options, tol=_COARSE).coefficients.astype(np.float64)

    def _relevance(self) -> Float64Array:
        gamma, basis = self._first(self.single), self.single
        slopes = realised(basis.gram, gamma) @ gamma.T
        size = np.square(slopes).mean(axis=0) * basis.screen.square
        products, waves = basis.features.products, basis.features.waves
        n_products = len(products.first)
        square = np.zeros(len(waves.projections) + 1)
        np.add.at(square, products.first, size[:n_products])
        squares = products.first != products.second
        np.add.at(square, products.second[squares], size[:n_products][squares])
        square[1:] += (waves.projections != 0.0) @ size[n_products:]
        largest = square[1:].max()
        relevance: Float64Array = np.sqrt(square[1:] / largest) if largest > 0.0 else np.ones(len(square) - 1)
        return relevance


@dataclass(frozen=True, eq=False)
class Choice:
    """What did best on the validation span: ``bandwidth`` is None for the linear basis, 0 without joint waves."""

    bandwidth: float | None
    ridge: float
    value: float


@dataclass(frozen=True, eq=False)
class Learnt:
    """A fitted KernelIPCA: features and Gamma (feature, factor), premia (factor,), and how it came about."""

    features: Features
    gamma: Float64Array
    premia: Float64Array
    relevance: Float64Array
    choice: Choice
    solution: Solution


def choose(sample: Sample, units: Units, options: Options, n_training: int) -> Choice:
    """Choose basis and ridge by total R2 on the dates after the first ``n_training``, unseen by all else."""
    held = sample.at(slice(n_training, None))
    bases = Bases(sample.at(slice(0, n_training)), units, options)
    tried: list[Choice] = []
    for bandwidth in (None, 0.0, *(options.bandwidths if options.n_waves else ())):
        basis = _basis(bases, bandwidth)
        gram = gram_of_features(basis.features, held.sections, held.dates)
        start: Float64Array | None = None
        for ridge in sorted(options.ridges, reverse=True):
            found = estimate(basis.gram, ridge * basis.screen.penalty, options, tol=_COARSE, start=start)
            start = found.coefficients.astype(np.float64)
            tried.append(Choice(bandwidth, ridge, total_r2(gram, start)))
    return max(tried, key=lambda one: one.value)


def learn(sample: Sample, units: Units, options: Options, n_training: int) -> Learnt:
    """Choose on the validation span, then fit what was chosen to all dates, with a screen of its own."""
    choice = choose(sample, units, options, n_training)
    bases = Bases(sample, units, options)
    basis = _basis(bases, choice.bandwidth)
    solution = estimate(basis.gram, choice.ridge * basis.screen.penalty, options, tol=options.tol)
    found = normalise(plain(basis.gram, options.n_factors), solution.coefficients)
    gamma = np.ascontiguousarray(found.coefficients, dtype=np.float64)
    return Learnt(basis.features, gamma, found.means.astype(np.float64), bases.relevance, choice, solution)


def _basis(bases: Bases, bandwidth: float | None) -> Basis:
    if bandwidth is None:
        return bases.linear
    return bases.joint(bandwidth) if bandwidth > 0.0 else bases.single


def _own_waves(n_chars: int) -> tuple[Float64Array, Float64Array]:
    """Projections (char, wave) and phases (wave,) of cosine and sine of each characteristic, at each frequency."""
    projections = np.concatenate([frequency * np.eye(n_chars) for frequency in FREQUENCIES for _ in range(2)], axis=1)
    phases = np.repeat(np.tile([0.0, -0.5 * np.pi], len(FREQUENCIES)), n_chars)
    return projections, phases
