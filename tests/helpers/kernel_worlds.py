"""Worlds whose loadings are known functions of characteristics: those of Gu, Kelly and Xiu (2021), and others.

Here belong the worlds and what the true loadings explain. ``python -m tests.helpers.kernel_worlds`` prints the table of
`docs/nonlinear.md`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.published_ipca import N_STOCKS, SPAN, draw
from models.families.base import FactorModel, uncentred_r2
from models.families.ipca import IPCA
from models.families.kernel import KernelIPCA
from models.families.regressed_pca import RegressedPCA
from models.panel import Panel

Loading = Callable[[np.ndarray], np.ndarray]


def triple(c: np.ndarray) -> np.ndarray:
    """3 C1 C2 C3 + .3 (C1 + C2 + C3)."""
    return 3.0 * c[..., :3].prod(axis=-1) + 0.3 * c[..., :3].sum(axis=-1)


def hill(c: np.ndarray) -> np.ndarray:
    """2 exp(-8 d^2), with d the distance of (C1, C2) from (.3, -.3)."""
    return 2.0 * np.exp(-8.0 * ((c[..., 0] - 0.3) ** 2 + (c[..., 1] + 0.3) ** 2))


def corner(c: np.ndarray) -> np.ndarray:
    """2 where C1 and C2 are positive, else 0."""
    return 2.0 * ((c[..., 0] > 0.0) & (c[..., 1] > 0.0))


LOADINGS = {loading.__name__: loading for loading in (triple, hill, corner)}
COLUMNS = ("KernelIPCA", "without waves", "RegressedPCA", "IPCA", "true loadings")


@dataclass(frozen=True, eq=False)
class World:
    """A training and a test panel, and the true loadings (date, ticker, factor) of both."""

    train: Panel
    test: Panel
    beta_train: np.ndarray
    beta_test: np.ndarray


def simulate(kind: str, seed: int, n_chars: int | None = None) -> World:
    """Draw 120 training and 60 test months of 200 stocks, with 50 characteristics or the first few of them.

    "a" and "b" are the models of the paper; others have one factor, N(.03, .1^2), and the loading of that name.
    """
    drawn = draw("b" if kind == "b" else "a", seed)
    beta, returns = drawn.beta, drawn.returns
    if kind in LOADINGS:
        rng = np.random.default_rng(1000 + seed)
        beta = LOADINGS[kind](drawn.characteristics)[..., None]
        returns = beta[..., 0] * rng.normal(0.03, 0.1, (len(returns), 1)) + 0.1 * rng.standard_t(5, returns.shape)
    rows = drawn.characteristics[..., :n_chars].astype(np.float32)
    panel = Panel.from_arrays(returns.astype(np.float32), rows, dates=drawn.dates)
    cut = 2 * SPAN
    train, test = panel.sel(end=drawn.dates[cut - 1]), panel.sel(start=drawn.dates[cut])
    return World(train, test, beta[:cut], beta[cut:])


def true_scores(world: World) -> tuple[float, float]:
    """Total and predictive R2 on the test dates of cross-sectional regressions on the true loadings.

    Premia are means of factor returns over the training dates, as in a model that knows the loadings.
    """
    returns = world.test.returns.copy()
    realised = slopes(world.beta_test, world.test.returns.values)
    premia = slopes(world.beta_train, world.train.returns.values).mean(axis=0)
    fitted = (world.beta_test * realised[:, None]).sum(axis=2)
    return uncentred_r2(world.test, returns.copy(data=fitted)), uncentred_r2(
        world.test, returns.copy(data=world.beta_test @ premia)
    )


def slopes(beta: np.ndarray, returns: np.ndarray) -> np.ndarray:
    """Return (date, factor) of the regression of each date's returns on its loadings."""
    return np.stack([np.linalg.lstsq(x, r, rcond=None)[0] for x, r in zip(beta, returns.astype(float), strict=True)])


def with_constant(panel: Panel) -> Panel:
    """Panel with a constant for IPCA, which has none of its own."""
    rows = panel.characteristics.values
    ones = np.ones((*rows.shape[:2], 1), dtype=np.float32)
    return Panel.from_arrays(panel.returns.values, np.concatenate([rows, ones], axis=2), dates=panel.dates)


def scores(kind: str, seed: int, n_chars: int | None = None) -> np.ndarray:
    """(column, 2) total and predictive R2 out of sample, in percent, in the order of ``COLUMNS``."""
    world = simulate(kind, seed, n_chars)
    k = world.beta_test.shape[2]
    models: list[FactorModel] = [KernelIPCA(k), KernelIPCA(k, n_waves=0), RegressedPCA(k), IPCA(k, max_iter=5000)]
    found = []
    for model in models:
        train, test = world.train, world.test
        if isinstance(model, IPCA) and kind in LOADINGS:
            train, test = with_constant(train), with_constant(test)
        found.append(tuple(model.fit(train).score(test).values()))
    return 100.0 * np.array([*found, true_scores(world)])


def tell(
    scores: Callable[[str, int, int | None], np.ndarray], columns: Sequence[str], *, draws: int, kinds: Sequence[str]
) -> None:
    """Print means of scores over draws, as Markdown; as many draws and kinds unless the command line has others."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=draws)
    parser.add_argument("--kinds", nargs="+", choices=["a", "b", *LOADINGS], default=kinds)
    options = parser.parse_args()
    head = f"| loadings ({N_STOCKS} stocks) | R2 | {' | '.join(columns)} |"
    sys.stdout.write(f"{head}\n{'|---' * (2 + len(columns))}|\n")
    for kind in options.kinds:
        each = [scores(kind, seed, 12 if kind in LOADINGS else None) for seed in range(options.draws)]
        mean = np.mean(each, axis=0)
        for column, name in enumerate(("total", "predictive")):
            sys.stdout.write(f"| {kind} | {name} | {' | '.join(f'{value:.1f}' for value in mean[:, column])} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    tell(scores, COLUMNS, draws=20, kinds=["a", "b", *LOADINGS])
