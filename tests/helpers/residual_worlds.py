"""Worlds in which what a linear model leaves is known: products of characteristics, clusters, a curve, or nothing.

Here belong the worlds and the measures against what the truth would have explained. ``python -m
tests.helpers.residual_worlds`` prints the tables of `docs/nonlinear.md`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import astuple, dataclass

import numpy as np
import pandas as pd
from numpy.polynomial.legendre import legvander

from models.families.base import FactorModel
from models.families.fama_macbeth import FamaMacBeth
from models.families.pca import PCA
from models.families.residual_network import ResidualNetwork
from models.families.residual_network.leaving_out import leave_one_out
from models.families.residual_pca import ResidualPCA
from models.families.residual_som import ResidualSOM
from models.families.residuals import ProvenFactors
from models.families.time_series import TimeSeriesModel
from models.panel import Panel

N_CLUSTERS = 4
NOISE = 0.02


@dataclass(frozen=True, eq=False)
class World:
    """A training and a test panel, and what the linear model misses in both of them.

    Attributes
    ----------
    train, test : Panel
    base : FactorModel
        The linear model, unfitted.
    loadings : numpy.ndarray
        (date, ticker, factor) true loadings of the test panel on what is planted.
    factors : numpy.ndarray
        (date, factor) true factor returns of the test panel.
    weights : numpy.ndarray
        (ticker,) of squared residuals: one over the variance.
    """

    train: Panel
    test: Panel
    base: FactorModel
    loadings: np.ndarray
    factors: np.ndarray
    weights: np.ndarray

    def fit(self, model: ProvenFactors) -> ProvenFactors:
        """Fit a model on the linear one."""
        return model.on(self.base.fit(self.train)).fit(self.train)


def product(
    seed: int, *, share: float = 0.1, n_stocks: int = 100, n_train: int = 300, n_test: int = 150, irrelevant: int = 0
) -> World:
    """Draw r = f0 + C1 f1 + C2 f2 + C1 C2 g + u.

    ``share`` is that of C1 C2 g in the variance of C1 C2 g + u. C are N(0, 1) by stock, with as much of the date, and
    ranked to [-1, 1] in the panel; with ``irrelevant`` ones beside the two.
    """
    rng = np.random.default_rng(seed)
    n_dates = n_train + n_test
    c = (rng.standard_normal((n_stocks, 2 + irrelevant)) + rng.standard_normal((n_dates, n_stocks, 2 + irrelevant))) / (
        2.0**0.5
    )
    ranks = 2.0 * c.argsort(axis=1).argsort(axis=1) / (n_stocks - 1) - 1.0
    hidden = 3.0 * ranks[..., 0] * ranks[..., 1]
    linear = np.concatenate([np.ones((n_dates, n_stocks, 1)), ranks[..., :2]], axis=2)
    common = np.einsum("tnk,tk->tn", linear, 0.01 * rng.standard_normal((n_dates, 3)))
    factor = NOISE * share**0.5 * rng.standard_normal(n_dates)
    noise = NOISE * (1.0 - share) ** 0.5 * rng.standard_normal((n_dates, n_stocks))
    returns = common + hidden * factor[:, None] + noise
    dates = pd.bdate_range("2000-01-03", periods=n_dates)
    names = [f"c{place + 1}" for place in range(c.shape[2])]
    chars = np.concatenate([np.ones((n_dates, n_stocks, 1)), ranks], axis=2, dtype=np.float32)
    panel = Panel.from_arrays(returns, chars, dates=dates, chars=["constant", *names])
    return World(
        panel.sel(end=dates[n_train - 1]),
        panel.sel(start=dates[n_train]),
        FamaMacBeth(),
        hidden[n_train:, :, None],
        factor[n_train:, None],
        np.ones(n_stocks),
    )


def clusters(seed: int, *, share: float = 0.1, n_stocks: int = 120, n_train: int = 500, n_test: int = 250) -> World:
    """Draw r = b m + s (share^.5 g of the cluster + (1 - share)^.5 u), with a market m that is given.

    Stocks are of four clusters in turn, which no characteristic shows, and of volatilities s between one and three.
    """
    rng = np.random.default_rng(seed)
    n_dates = n_train + n_test
    market = 0.01 * rng.standard_normal(n_dates)
    group = np.arange(n_stocks) % N_CLUSTERS
    scale = 0.01 * rng.uniform(1.0, 3.0, n_stocks)
    factors = share**0.5 * rng.standard_normal((n_dates, N_CLUSTERS))
    noise = (1.0 - share) ** 0.5 * rng.standard_normal((n_dates, n_stocks))
    returns = np.outer(market, rng.uniform(0.6, 1.4, n_stocks)) + scale * (factors[:, group] + noise)
    dates = pd.bdate_range("2000-01-03", periods=n_dates)
    panel = Panel.from_arrays(returns, dates=dates, factors=market[:, None], observed_factors=["market"])
    loadings = np.broadcast_to(scale[:, None] * np.eye(N_CLUSTERS)[group], (n_test, n_stocks, N_CLUSTERS))
    return World(
        panel.sel(end=dates[n_train - 1]),
        panel.sel(start=dates[n_train]),
        TimeSeriesModel(("market",)),
        loadings,
        factors[n_train:],
        1.0 / np.square(scale),
    )


def curve(
    seed: int,
    *,
    shares: tuple[float, ...] = (0.3, 0.03, 0.03, 0.03),
    n_stocks: int = 300,
    n_train: int = 100,
    n_test: int = 150,
) -> World:
    """Draw r = b m + s (g(y) h + u), with a market m that is given, and stocks on a curve.

    Each stock has one hidden place y, even on [-1, 1]; g are the Legendre polynomials of y but the constant, with mean
    square one, and each has a share of the variance of the residual. So the curve lies in as many dimensions as there
    are ``shares``.
    """
    rng = np.random.default_rng(seed)
    n_dates, n_factors = n_train + n_test, len(shares)
    market = 0.01 * rng.standard_normal(n_dates)
    degrees = np.arange(1, n_factors + 1)
    on_curve = legvander(rng.uniform(-1.0, 1.0, n_stocks), n_factors)[:, 1:] * np.sqrt(2 * degrees + 1)
    scale = 0.01 * rng.uniform(1.0, 3.0, n_stocks)
    factors = rng.standard_normal((n_dates, n_factors)) * np.sqrt(shares)
    noise = (1.0 - sum(shares)) ** 0.5 * rng.standard_normal((n_dates, n_stocks))
    returns = np.outer(market, rng.uniform(0.6, 1.4, n_stocks)) + scale * (factors @ on_curve.T + noise)
    dates = pd.bdate_range("2000-01-03", periods=n_dates)
    panel = Panel.from_arrays(returns, dates=dates, factors=market[:, None], observed_factors=["market"])
    return World(
        panel.sel(end=dates[n_train - 1]),
        panel.sel(start=dates[n_train]),
        TimeSeriesModel(("market",)),
        np.broadcast_to(scale[:, None] * on_curve, (n_test, *on_curve.shape)),
        factors[n_train:],
        1.0 / (np.square(scale) * (np.square(on_curve) @ np.array(shares) + 1.0 - sum(shares))),
    )


@dataclass(frozen=True)
class Outcome:
    """Measures on the test dates.

    ``adds`` is whether the model has further factors; ``correlation`` the multiple correlation of the planted factors
    with those that were found, mean over them; ``r2`` the share of squared residuals of the linear model that the found
    factors explain, each stock by the factor returns of the others, and ``attainable`` that by the true loadings.
    """

    adds: float
    correlation: float
    r2: float
    attainable: float


def judge(model: ProvenFactors, world: World) -> Outcome:
    """Measure a fitted model."""
    left = model._left(world.test)
    inside = left.mask.values
    returns = np.where(inside, left.returns.values, 0.0)
    true = _explained(leave_one_out(world.loadings, returns, inside * world.weights))
    if not model.adds_:
        return Outcome(0.0, 0.0, 0.0, true)
    found = model._further.factor_returns(left).values
    design = np.column_stack([np.ones(len(found)), found])
    fitted = design @ np.linalg.lstsq(design, world.factors, rcond=None)[0]
    shares = fitted.var(axis=0) / world.factors.var(axis=0) if world.factors.any() else np.zeros(1)
    return Outcome(1.0, float(np.sqrt(shares).mean()), _explained(model._further.losses(left)), true)


def _explained(losses: np.ndarray) -> float:
    without, with_them = losses.sum(axis=0)
    return float(1.0 - with_them / without)


def mean_outcome(world: Callable[[int], World], model: Callable[[], ProvenFactors], seeds: range) -> Outcome:
    """Average over seeds; correlation and R2 are zero where nothing is found."""
    outcomes = []
    for seed in seeds:
        drawn = world(seed)
        outcomes.append(astuple(judge(drawn.fit(model()), drawn)))
    return Outcome(*(float(value) for value in np.mean(outcomes, axis=0)))


def beside_lines(world: World) -> tuple[float, float, float]:
    """Return R2 of a curve, of as many linear components, and of the true loadings, whatever a test says."""
    model = world.fit(ResidualPCA("base", adds=True))
    left = model._left(world.test)
    returns = np.where(left.mask.values, left.returns.values, 0.0)
    by_curve = model._further.loadings(left).values
    lines = PCA(by_curve.shape[2], scale="correlation").fit(model._left(world.train)).loadings(left).values
    of_curve, of_lines, true = (
        _explained(leave_one_out(loadings, returns, left.mask.values * world.weights))
        for loadings in (by_curve, lines, world.loadings)
    )
    return of_curve, of_lines, true


def network() -> ResidualNetwork:
    """Build a network of one seed, otherwise with the defaults."""
    return ResidualNetwork("base", seeds=(0,))


CASES: dict[str, tuple[Callable[[int], World], Callable[[], ProvenFactors]]] = {
    "product, 10 %": (product, network),
    "product, 10 %, 8 irrelevant": (lambda seed: product(seed, irrelevant=8), network),
    "product, 3 %": (lambda seed: product(seed, share=0.03), network),
    "linear": (lambda seed: product(seed, share=0.0, irrelevant=8), network),
    "clusters, 20 %": (lambda seed: clusters(seed, share=0.2), lambda: ResidualSOM("base")),
    "clusters, 10 %": (clusters, lambda: ResidualSOM("base")),
    "clusters, 5 %": (lambda seed: clusters(seed, share=0.05), lambda: ResidualSOM("base")),
    "clusters, 0 %": (lambda seed: clusters(seed, share=0.0), lambda: ResidualSOM("base")),
    "curve": (curve, lambda: ResidualPCA("base")),
    "no curve": (lambda seed: curve(seed, shares=()), lambda: ResidualPCA("base")),
}


LINES: dict[str, Callable[[int], World]] = {
    "300 stocks, 100 dates": curve,
    "300 stocks, 500 dates": lambda seed: curve(seed, n_train=500),
    "100 stocks, 100 dates": lambda seed: curve(seed, n_stocks=100),
    "100 stocks, 500 dates": lambda seed: curve(seed, n_stocks=100, n_train=500),
    "300 stocks, 100 dates, even shares": lambda seed: curve(seed, shares=(0.1, 0.1, 0.1, 0.1)),
}


def print_lines(seeds: range) -> None:
    """Print means over seeds of what curves explain beside lines, as Markdown."""
    sys.stdout.write("| world | curve | linear components | true loadings | curve is higher |\n" + "|---" * 5 + "|\n")
    for name, world in LINES.items():
        found = np.array([beside_lines(world(seed)) for seed in seeds])
        cells = " | ".join(f"{value:.4f}" for value in found.mean(axis=0))
        sys.stdout.write(f"| {name} | {cells} | {(found[:, 0] > found[:, 1]).sum()} of {len(found)} |\n")
        sys.stdout.flush()


def main() -> None:
    """Print means over seeds, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=[*CASES])
    parser.add_argument("--lines", action="store_true", help="curves beside linear components, and nothing else")
    options = parser.parse_args()
    if options.lines:
        print_lines(range(options.seeds))
        return
    sys.stdout.write("| planted | model | found | correlation | R2 | R2 of the true loadings |\n")
    sys.stdout.write("|---" * 6 + "|\n")
    for name in options.cases:
        world, model = CASES[name]
        mean = mean_outcome(world, model, range(options.seeds))
        cells = f"{mean.adds:.2f} | {mean.correlation:.3f} | {mean.r2:.4f} | {mean.attainable:.4f}"
        sys.stdout.write(f"| {name} | `{model().kind}` | {cells} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
