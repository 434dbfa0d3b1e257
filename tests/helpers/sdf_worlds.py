"""Worlds in which the stochastic discount factor is known: the simulation of Chen, Pelger and Zhu (2024), section 4.

Here belong the worlds and the measures against what the truth would have earned. ``python -m tests.helpers.sdf_worlds``
prints the table of `docs/nonlinear.md`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import partial
from itertools import accumulate

import numpy as np
import pandas as pd

from models.families.base import FactorModel
from models.families.sdf import AttentionSDF, RandomFeatureSDF, SDFNetwork
from models.families.sdf.pricing import cross_sectional_r2, explained_variation, sharpe_ratio
from models.panel import Panel
from models.statistics.rowwise import cross_sections

N_STOCKS, N_TRAIN, N_TEST = 500, 350, 250
VARIANCE = 0.1
Loading = Callable[[np.ndarray], np.ndarray]


def product(c: np.ndarray) -> np.ndarray:
    """C1 C2, the loading of the paper."""
    return c[..., 0] * c[..., 1]


def linear(c: np.ndarray) -> np.ndarray:
    """C1."""
    return c[..., 0]


def wave(c: np.ndarray) -> np.ndarray:
    """Sqrt(2) sin(3 C1): hardly correlated with C1, and neither with its square."""
    return np.sqrt(2.0) * np.sin(3.0 * c[..., 0])


def corner(c: np.ndarray) -> np.ndarray:
    """2 where both are positive, else 0."""
    return 2.0 * ((c[..., 0] > 0.0) & (c[..., 1] > 0.0))


def nothing(c: np.ndarray) -> np.ndarray:
    """0: returns are noise."""
    return np.zeros(c.shape[:-1])


@dataclass(frozen=True, eq=False)
class World:
    """A training and a test panel, and the true loadings, or best weights (date, ticker), of the test panel."""

    train: Panel
    test: Panel
    beta: np.ndarray


def simulate(
    loading: Loading,
    seed: int,
    *,
    irrelevant: int = 0,
    sharpe: float = 1.0,
    n_stocks: int = N_STOCKS,
    n_train: int = N_TRAIN,
    n_test: int = N_TEST,
) -> World:
    """Draw r = beta F + e with beta a function of C1 and C2, F ~ N(sharpe s, s^2) with s^2 = .1, and e ~ N(0, 1).

    Characteristics are independent N(0, 1) by stock and date, ``irrelevant`` ones beside the two, ranked to [-1, 1] as
    by default in a panel.
    """
    rng = np.random.default_rng(seed)
    shape = (n_train + n_test, n_stocks)
    c = rng.standard_normal((*shape, 2 + irrelevant))
    factor = np.sqrt(VARIANCE) * (sharpe + rng.standard_normal(shape[0]))
    beta = loading(c)
    returns = beta * factor[:, None] + rng.standard_normal(shape)
    return world_of(c, returns, beta, n_train)


def simulate_timed(
    seed: int,
    *,
    timed: bool = True,
    irrelevant: int = 0,
    n_stocks: int = N_STOCKS,
    n_train: int = N_TRAIN,
    n_test: int = N_TEST,
) -> World:
    """Draw returns C1 F + e in which the price of C1 depends on the correlation of C2 and C3 over the stocks of a date.

    That is .8 tanh(a) with an autoregression a of persistence .9, and F ~ N(d s, s^2) with the same in units of its
    root mean square as d; 1 if not ``timed``. All else is as in `simulate`. ``beta`` is d C1, the best weights.
    """
    rng = np.random.default_rng(seed)
    shape = (n_train + n_test, n_stocks)
    correlation = 0.8 * np.tanh(autoregression(rng, shape[0], 0.9))
    c = rng.standard_normal((*shape, 3 + irrelevant))
    c[..., 2] = correlation[:, None] * c[..., 1] + np.sqrt(1.0 - np.square(correlation))[:, None] * c[..., 2]
    drive = correlation / np.sqrt(np.square(correlation).mean()) if timed else np.ones(shape[0])
    factor = np.sqrt(VARIANCE) * (drive + rng.standard_normal(shape[0]))
    returns = c[..., 0] * factor[:, None] + rng.standard_normal(shape)
    return world_of(c, returns, drive[:, None] * c[..., 0], n_train)


def autoregression(rng: np.random.Generator, n_dates: int, persistence: float) -> np.ndarray:
    """Return an autoregression (date,) of unit variance."""
    shocks = rng.standard_normal(n_dates)
    shocks[1:] *= np.sqrt(1.0 - persistence**2)
    return np.array([*accumulate(shocks, lambda before, shock: persistence * before + shock)])


def world_of(c: np.ndarray, returns: np.ndarray, beta: np.ndarray, n_train: int) -> World:
    """Rank characteristics (date, ticker, char) and split the dates; returns and beta are (date, ticker)."""
    ranks = (2.0 * c.argsort(axis=1).argsort(axis=1) / (c.shape[1] - 1) - 1.0).astype(np.float32)
    dates = pd.bdate_range("2000-01-03", periods=len(c))
    panel = Panel.from_arrays(returns, ranks, dates=dates, chars=[f"c{place + 1}" for place in range(c.shape[2])])
    return World(panel.sel(end=dates[n_train - 1]), panel.sel(start=dates[n_train]), beta[n_train:])


@dataclass(frozen=True)
class Outcome:
    """Measures on the test dates; ``relative`` is the Sharpe ratio over that of the portfolio whose weights are beta.

    EV and XS-R2 are of the residuals r - X f; ``projected`` is XS-R2 of cross-sectional regressions on X, as in the
    paper; ``attainable`` is that of r - beta (beta'r / beta'beta).
    """

    sharpe: float
    relative: float
    ev: float
    xs_r2: float
    projected: float
    attainable: float


def judge(model: FactorModel, world: World) -> Outcome:
    """Measure a fitted model whose first factor is the SDF's."""
    returns, mask = world.test.returns.values, world.test.mask.values
    own = sharpe_ratio(model.factor_returns(world.test).values[:, 0])
    true = sharpe_ratio((world.beta * returns).mean(axis=1))
    residuals = model.residuals(world.test).values
    exposures = model.loadings(world.test).values[..., :1]
    return Outcome(
        own,
        own / true,
        explained_variation(returns, residuals, mask),
        cross_sectional_r2(returns, residuals, mask),
        cross_sectional_r2(returns, projected(exposures, returns), mask),
        cross_sectional_r2(returns, projected(world.beta[..., None], returns), mask),
    )


def projected(loadings: np.ndarray, returns: np.ndarray) -> np.ndarray:
    """Residuals of the regression of r[t] on the loadings X[t-1] (date, ticker, factor), date by date."""
    gram, moment = cross_sections(loadings, returns, np.ones(returns.shape))
    slopes = (np.linalg.pinv(gram) @ moment[..., None])[..., 0]
    return returns - (loadings * slopes[:, None]).sum(axis=2)


def mean_outcome(
    world: str, irrelevant: int, seeds: range, model: Callable[[], FactorModel] = RandomFeatureSDF
) -> Outcome:
    """Average over seeds in one of `WORLDS`, by default with the defaults of the SDF of random features."""
    outcomes = []
    for seed in seeds:
        drawn = WORLDS[world](seed, irrelevant=irrelevant)
        outcomes.append(astuple(judge(model().fit(drawn.train), drawn)))
    return Outcome(*(float(value) for value in np.mean(outcomes, axis=0)))


MODELS: dict[str, Callable[[], FactorModel]] = {one.kind: one for one in (AttentionSDF, RandomFeatureSDF, SDFNetwork)}
LOADINGS: tuple[Loading, ...] = (product, linear, wave, corner, nothing)
WORLDS: dict[str, Callable[..., World]] = {
    **{loading.__name__: partial(simulate, loading) for loading in LOADINGS},
    "timed": simulate_timed,
}


def main() -> None:
    """Print means over seeds, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--loadings", nargs="+", choices=WORLDS, default=[*WORLDS])
    parser.add_argument("--irrelevant", type=int, nargs="+", default=[8])
    parser.add_argument("--model", choices=MODELS, default=RandomFeatureSDF.kind)
    options = parser.parse_args()
    sys.stdout.write("| loading | irrelevant | SR | SR over true | EV | XS-R2 | XS-R2, regressed | of true beta |\n")
    sys.stdout.write("|---" * 8 + "|\n")
    for name in options.loadings:
        for irrelevant in options.irrelevant:
            mean = astuple(mean_outcome(name, irrelevant, range(options.seeds), MODELS[options.model]))
            cells = ["" if np.isnan(value) else f"{value:.3f}" for value in mean]
            sys.stdout.write(f"| {name} | {irrelevant} | {' | '.join(cells)} |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
