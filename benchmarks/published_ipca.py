"""The Monte Carlo of Gu, Kelly and Xiu (2021), section 2.5 and its tables: total R2 of IPCA out of sample.

Here belong the simulation and the table; the test of it is `tests/benchmarks/test_published_ipca.py`. Run
``python -m benchmarks.published_ipca`` for the table of `docs/published-checks.md`.

The readings that the numbers need: the residual is .1 times a Student t with 5 degrees of freedom as it is, of variance
.0167 (a unit-variance t would give another R2); IPCA, which has nothing to tune, is fitted to the 120 months of
training and validation; factor returns of the 60 test months are cross-sectional regressions on Z Gamma; R2 is pooled
and uncentred.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from models.families.ipca import IPCA
from models.statistics.gram import GramStatistics

PUBLISHED = {"a": (18.6, 32.2, 40.7, 41.0, 41.4, 41.7), "b": (11.0, 11.4, 11.9, 12.3, 12.7, 13.1)}
N_STOCKS, N_CHARS, SPAN = 200, 50, 60  # one span each of training, validation and test
Loadings = Literal["a", "b"]


class Draw(NamedTuple):
    """One simulated panel of 180 months.

    Characteristics (date, ticker, char), loadings (date, ticker, factor) and returns (date, ticker).
    """

    characteristics: np.ndarray
    beta: np.ndarray
    returns: np.ndarray
    dates: pd.DatetimeIndex


def draw(kind: Loadings, seed: int) -> Draw:
    """Simulate one panel."""
    rng = np.random.default_rng(seed)
    n_dates = 3 * SPAN
    rho = rng.uniform(0.9, 1.0, N_CHARS)
    state = np.zeros((N_STOCKS, N_CHARS))
    latent = np.empty((n_dates, N_STOCKS, N_CHARS))
    for date in range(n_dates):
        state = rho * state + rng.standard_normal(state.shape)
        latent[date] = state
    c = 2.0 * (latent.argsort(axis=1).argsort(axis=1) + 1) / (N_STOCKS + 1) - 1.0
    factors = rng.normal(0.03, 0.1, (n_dates, 3)) + rng.normal(0.0, 0.01, (n_dates, 3))
    first, second, third = c[..., 0], c[..., 1], c[..., 2]
    beta = {
        "a": np.stack([1.2 * first, second, 0.8 * third], axis=2),
        "b": np.stack([first**2, 2.0 * first * second, 0.6 * np.sign(third)], axis=2),
    }[kind]
    returns = (beta @ factors[..., None])[..., 0] + 0.1 * rng.standard_t(5, (n_dates, N_STOCKS))
    return Draw(c, beta, returns, pd.date_range("2000-01-31", periods=n_dates, freq="ME"))


def simulate(kind: Loadings, seed: int) -> GramStatistics:
    """Simulate one panel, as its statistics."""
    c, _, returns, dates = draw(kind, seed)
    n_dates = len(dates)
    return GramStatistics(
        zz=c.transpose(0, 2, 1) @ c,
        zr=(returns[:, None, :] @ c)[:, 0],
        rr=np.square(returns).sum(axis=1),
        n=np.full(n_dates, N_STOCKS),
        weight=np.full(n_dates, float(N_STOCKS)),
        dates=dates,
        chars=tuple(f"c{i + 1}" for i in range(N_CHARS)),
    )


def out_of_sample(kind: Loadings, repetitions: int, fitted: int = 2 * SPAN) -> np.ndarray:
    """(repetition, K) total R2 of K = 1 to 6 over the last 60 months, in percent, fitted to the first ``fitted``."""
    found = np.empty((repetitions, 6))
    for repetition in range(repetitions):
        gram = simulate(kind, repetition)
        train, test = gram.sel(end=gram.dates[fitted - 1]), gram.sel(start=gram.dates[2 * SPAN])
        model: IPCA | None = None
        for k in range(1, 7):
            model = IPCA(k, max_iter=5000).fit_gram(train, warm_start=model)
            found[repetition, k - 1] = 100.0 * model.score_gram(test)["total_r2"]
    return found


def table(repetitions: int = 100) -> str:
    """Return the published numbers beside ours, as Markdown."""
    lines = ["| model | fitted to | " + " | ".join(f"K = {k}" for k in range(1, 7)) + " |", "|---" * 8 + "|"]
    for kind in ("a", "b"):
        lines.append(f"| {kind} | published | " + " | ".join(f"{value:.1f}" for value in PUBLISHED[kind]) + " |")
        for fitted in (SPAN, 2 * SPAN):
            mean = out_of_sample(kind, repetitions, fitted).mean(axis=0)
            lines.append(f"| {kind} | {fitted} months | " + " | ".join(f"{value:.1f}" for value in mean) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
