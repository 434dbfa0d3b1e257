"""How an SDF is learnt from managed portfolios: ridge, validation, relevance of characteristics, loadings.

Here belongs closed-form algebra on portfolios (date, feature). What the features are belongs in `features`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.arrays import Float64Array, IntArray
from models.statistics.features import FeatureMap, Features, Products, Section, Units, Waves

_RIDGES = 10.0 ** np.arange(-4.0, 1.5, 0.5)
"""Ridges z, as shares of the trace of the second moments of the portfolios."""
_ROUNDS = 2
_MOST_PRODUCTS = 200
_ROWS_OF_MOMENTS = 60_000


@dataclass(frozen=True, eq=False)
class Sample:
    """Dates to learn from, and those held out to judge it; none for the whole."""

    learnt: IntArray
    held: IntArray


def samples_of(n_dates: int, n_folds: int) -> list[Sample]:
    """Return consecutive blocks of dates, each held out of the others once, and at last the whole."""
    every = np.arange(n_dates)
    blocks = np.array_split(every, n_folds)
    return [*(Sample(np.setdiff1d(every, block), block) for block in blocks), Sample(every, every[:0])]


def ridge_path(portfolios: Float64Array, scale: Float64Array) -> Float64Array:
    """Return theta = (E[FF'] + z S^-2)^-1 E[F] for every ridge, as (feature, ridge).

    Didisheim, Ke, Kelly and Malamud (2024), "Complexity in factor pricing models", eq. 5; Kozak, Nagel and Santosh
    (2020), "Shrinking the cross-section", eq. 20. With S the theta of a feature is a priori as large as its scale.
    The smaller one of the (feature, feature) and the (date, date) matrix is decomposed.

    Parameters
    ----------
    portfolios : numpy.ndarray
        (date, feature) F.
    scale : numpy.ndarray
        (feature,) diagonal of S.
    """
    scaled = portfolios * scale
    n_dates, n_features = scaled.shape
    if n_features > n_dates:
        return scale[:, None] * (scaled.T @ dual_path(scaled @ scaled.T))
    values, vectors = np.linalg.eigh(scaled.T @ scaled / n_dates)
    mean = scaled.T @ np.full(n_dates, 1.0 / n_dates)
    path: Float64Array = scale[:, None] * (vectors @ _shrunk(values, vectors.T @ mean))
    return path


def dual_path(gram: Float64Array) -> Float64Array:
    """Return alpha (date, ridge) of theta = S^2 F'alpha for every ridge: the same estimate, from dates alone.

    The weights that MSRR gives dates, alpha = (F S^2 F' + z T)^-1 1, with the (date, date) products F S^2 F' of the
    portfolios, which are all that has to be known of them.
    """
    n_dates = len(gram)
    values, vectors = np.linalg.eigh(gram / n_dates)
    path: Float64Array = vectors @ _shrunk(values, vectors.T @ np.full(n_dates, 1.0 / n_dates))
    return path


def _shrunk(values: Float64Array, target: Float64Array) -> Float64Array:
    """Divide a target (eigenvalue,) by the eigenvalues and each ridge, as (eigenvalue, ridge)."""
    values = np.maximum(values, 0.0)
    ridges = np.maximum(_RIDGES * values.sum(), np.finfo(np.float64).tiny)
    shrunk: Float64Array = target[:, None] / (values[:, None] + ridges)
    return shrunk


def squared_sharpe(returns: Float64Array) -> Float64Array:
    """Signed E[f]^2 / E[f^2] of each column (date, candidate).

    It is S^2 / (1 + S^2) for a Sharpe ratio S, and does not depend on scale; zero where there are no returns.
    """
    mean, square = returns.mean(axis=0), np.square(returns).mean(axis=0)
    found: Float64Array = np.sign(mean) * np.square(mean) / np.where(square > 0.0, square, 1.0)
    return found


@dataclass(frozen=True, eq=False)
class Step:
    """Ridge estimates with the ridge that does best on the dates held out.

    Attributes
    ----------
    value : float
        `squared_sharpe` of it there.
    thetas : list of numpy.ndarray
        (feature,) of each sample.
    """

    value: float
    thetas: list[Float64Array]


def validated(portfolios: Sequence[Float64Array], scales: Sequence[Float64Array], samples: Sequence[Sample]) -> Step:
    """Choose the ridge for portfolios (date, feature) and scales (feature,) of each sample."""
    paths = [
        ridge_path(every[sample.learnt], scale)
        for every, scale, sample in zip(portfolios, scales, samples, strict=True)
    ]
    held = [every[sample.held] @ path for every, path, sample in zip(portfolios, paths, samples, strict=True)]
    values = squared_sharpe(np.concatenate(held))
    best = int(values.argmax())
    return Step(float(values[best]), [path[:, best] for path in paths])


@dataclass(frozen=True, eq=False)
class Screen:
    """What the products say: the step of the round that did best, and the scales (feature,) of each sample in it."""

    step: Step
    scales: list[Float64Array]


def screened(portfolios: Float64Array, samples: Sequence[Sample]) -> Screen:
    """Estimate theta of the products; then again with each one's size as its scale, if that does better held out.

    The second round is a step of adaptive ridge: what counted little counts less.
    """
    scales = [np.ones(portfolios.shape[1]) for _ in samples]
    rounds = []
    for _ in range(_ROUNDS):
        step = validated([portfolios] * len(samples), scales, samples)
        rounds.append(Screen(step, scales))
        scales = [_relative(np.abs(theta)) for theta in step.thetas]
    return max(rounds, key=lambda one: one.step.value)


def relevance(theta: Float64Array, products: Products, n_chars: int) -> Float64Array:
    """Return how much each characteristic (char,) counts: the norm of theta over its products; 1 at most."""
    square = np.zeros(n_chars + 1)
    np.add.at(square, products.first, np.square(theta))
    np.add.at(square, products.second, np.square(theta))
    return _relative(np.sqrt(square[1:]))


@dataclass(frozen=True, eq=False)
class ScreenedProducts:
    """Products of characteristics, with what a first ridge says of them in each sample; the last one is the whole.

    Attributes
    ----------
    u : list of numpy.ndarray
        (stock, char) standardised characteristics of each date.
    samples : list of Sample
    products : Products
        All of them.
    managed : numpy.ndarray
        (date, product) the portfolios that they manage.
    kept : list of numpy.ndarray
        (kept,) places of the products that go on.
    scales : list of numpy.ndarray
        (kept,) how large their theta are a priori; squares sum to one.
    counts : list of numpy.ndarray
        (char,) `relevance` of the characteristics.
    """

    u: list[Float64Array]
    samples: list[Sample]
    products: Products
    managed: Float64Array
    kept: list[IntArray]
    scales: list[Float64Array]
    counts: list[Float64Array]


def screened_products(sections: Sequence[Section], units: Units, n_folds: int) -> ScreenedProducts:
    """Screen the products of the characteristics, by each fold for itself."""
    u = [units(section.rows) for section in sections]
    samples = samples_of(len(sections), n_folds)
    products = Products.of(u)
    managed = products.portfolios(u, sections)
    screen = screened(managed, samples)
    kept = [_kept(theta, products) for theta in screen.step.thetas]
    return ScreenedProducts(
        u=u,
        samples=samples,
        products=products,
        managed=managed,
        kept=kept,
        scales=[_prior(scale[places]) for scale, places in zip(screen.scales, kept, strict=True)],
        counts=[relevance(theta, products, u[0].shape[1]) for theta in screen.step.thetas],
    )


@dataclass(frozen=True, eq=False)
class Learnt:
    """The SDF of a training sample.

    Attributes
    ----------
    features : Features
    portfolios : numpy.ndarray
        (date, feature) that they manage.
    theta : numpy.ndarray
        (feature,) weights of the SDF factor, up to scale.
    relevance : numpy.ndarray
        (char,)
    bandwidth : float
        Of the waves; 0 if there are none.
    value : float
        `squared_sharpe` on the dates held out.
    """

    features: Features
    portfolios: Float64Array
    theta: Float64Array
    relevance: Float64Array
    bandwidth: float
    value: float


def learn(
    sections: Sequence[Section],
    units: Units,
    *,
    n_waves: int,
    bandwidths: Sequence[float],
    n_folds: int,
    seed: int,
) -> Learnt:
    """Learn an SDF: screen products, then add waves of what they find relevant if that does better held out.

    Whatever is chosen (ridge, round, products that are kept, relevance, bandwidth) is chosen without the dates on which
    it is judged: each fold has its own screen and its own waves, from the same draws.
    """
    prior = screened_products(sections, units, n_folds)
    u, samples, managed = prior.u, prior.samples, prior.managed
    n_chars = u[0].shape[1]
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((n_chars, n_waves))
    phases = rng.uniform(0.0, 2.0 * np.pi, n_waves)

    def candidate(bandwidth: float) -> Learnt:
        if bandwidth > 0.0:
            made = [
                Waves.managed(bandwidth * count[:, None] * directions, phases, u, sections) for count in prior.counts
            ]
        else:
            made = [(Waves.none(n_chars), np.empty((len(u), 0)))] * len(samples)
        portfolios = [
            np.concatenate([managed[:, places], own], axis=1) for places, (_, own) in zip(prior.kept, made, strict=True)
        ]
        equal = [np.full(own.shape[1], 1.0 / np.sqrt(max(own.shape[1], 1))) for _, own in made]
        joint = [np.concatenate([scale, wave]) for scale, wave in zip(prior.scales, equal, strict=True)]
        step = validated(portfolios, joint, samples)
        features = Features(units, prior.products.at(prior.kept[-1]), made[-1][0])
        return Learnt(features, portfolios[-1], step.thetas[-1], prior.counts[-1], bandwidth, step.value)

    tried = [0.0, *(bandwidths if n_waves else ())]
    return max((candidate(bandwidth) for bandwidth in tried), key=lambda one: one.value)


def second_moments(features: FeatureMap, sections: Sequence[Section]) -> Float64Array:
    """Return E[phi phi'] (feature, feature) over evenly spaced dates with some tens of thousands of rows."""
    rows = sum(len(section.rows) for section in sections)
    size = features.size
    total, count = np.zeros((size, size)), 0
    for section in sections[:: max(1, rows // _ROWS_OF_MOMENTS)]:
        values = features(section.rows)
        total += values.T @ values
        count += len(values)
    return total / count


def loadings_of(
    features: FeatureMap, sections: Sequence[Section], portfolios: Float64Array, factors: Float64Array, n_folds: int
) -> Float64Array:
    """Return B (feature, factor) of the loadings X = phi B: the ridge regression of r[i, t] on phi(C_i[t-1]) f[t].

    Dates count alike. For one factor phi B is E[f r | C] / E[f^2] where f does not depend on C, as in Chen, Pelger and
    Zhu (2024), eq. 5, whose network is fitted to the same moment. Factors are divided by their root mean square, so
    that one ridge does for all: the one with which X f explains most on the dates held out.

    Parameters
    ----------
    portfolios, factors : numpy.ndarray
        (date, feature) F and (date, factor) f.
    n_folds : int
        Consecutive blocks of dates, each held out once.
    """
    unit = np.sqrt(np.square(factors).mean(axis=0))
    f = factors / unit
    *folds, _ = samples_of(len(f), n_folds)
    blocks = [_normal_equations(features, sections, portfolios, f, fold.held) for fold in folds]
    gram, moment = (np.sum(parts, axis=0) for parts in zip(*blocks, strict=True))
    explained = np.zeros(len(_RIDGES))
    for held_gram, held_moment in blocks:
        path = _slopes(gram - held_gram, moment - held_moment)
        explained += (2.0 * held_moment @ path) - (path * (held_gram @ path)).sum(axis=0)
    best = _slopes(gram, moment)[:, int(explained.argmax())]
    found: Float64Array = best.reshape(f.shape[1], -1).T / unit
    return found


def _normal_equations(
    features: FeatureMap, sections: Sequence[Section], portfolios: Float64Array, f: Float64Array, dates: IntArray
) -> tuple[Float64Array, Float64Array]:
    """Return sum_t ff' x Phi'Phi / N (factor feature, factor feature) and sum_t f x F (factor feature,)."""
    n_factors, size = f.shape[1], features.size
    gram = np.zeros((n_factors, size, n_factors, size))
    for date in dates:
        phi = features(sections[date].rows)
        own = phi.T @ phi / len(phi)
        for one in range(n_factors):
            for other in range(n_factors):
                gram[one, :, other] += (f[date, one] * f[date, other]) * own
    return gram.reshape(n_factors * size, -1), (f[dates].T @ portfolios[dates]).ravel()


def _slopes(gram: Float64Array, moment: Float64Array) -> Float64Array:
    """Return (gram + z)^-1 moment for every ridge, as (factor feature, ridge); z is a share of the mean eigenvalue."""
    values, vectors = np.linalg.eigh(gram)
    values = np.maximum(values, 0.0)
    path: Float64Array = vectors @ ((vectors.T @ moment)[:, None] / (values[:, None] + _RIDGES * values.mean()))
    return path


def _kept(theta: Float64Array, products: Products) -> IntArray:
    """Return the places of the constant, of every characteristic, and of the products of the largest theta."""
    linear = products.first == 0
    order = np.argsort(np.where(linear, -np.inf, -np.abs(theta)), kind="stable")
    return np.sort(order[: max(_MOST_PRODUCTS, int(linear.sum()))])


def _prior(scale: Float64Array) -> Float64Array:
    """Scales whose squares sum to one."""
    shares: Float64Array = scale / np.sqrt(np.square(scale).sum())
    return shares


def _relative(size: Float64Array) -> Float64Array:
    """Sizes relative to the largest; ones if all are zero."""
    largest = size.max()
    return size / largest if largest > 0.0 else np.ones_like(size)
