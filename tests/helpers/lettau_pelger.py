"""The simulation of Lettau and Pelger (2020): a weak factor with a high Sharpe ratio, found by RP-PCA and lost by PCA.

``python -m tests.helpers.lettau_pelger`` prints the table of `docs/published-checks.md`. What is stated and what is a
reading of the paper is said there.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from models.families.pca.rppca import RPPCA
from models.panel import Panel

N_STOCKS, N_DATES, N_FACTORS = 370, 650, 4
VARIANCES = np.array([5.0, 0.3, 0.1, 0.03])
SHARPE_RATIOS = np.array([0.12, 0.1, 0.3, 0.8])
BAND = 13  # pairs of stocks closer than this have correlated residuals


@dataclass(frozen=True)
class Outcome:
    """Out-of-sample measures: multiple correlation of true factor 4 with the estimated ones, and Sharpe ratios."""

    correlation: float
    best_single: float
    maximal_sharpe_ratio: float
    sharpe_ratio: float
    rms_alpha: float


def residual_root(band: int = BAND) -> np.ndarray:
    """Root of the residual covariance: unit variances, correlations 1 - |i - j| / band that end at the band."""
    correlation = scipy.linalg.toeplitz(np.maximum(0.0, 1.0 - np.arange(N_STOCKS) / band))
    return np.linalg.cholesky(correlation + 1e-10 * np.eye(N_STOCKS))


def simulate(rng: np.random.Generator, root: np.ndarray) -> tuple[Panel, Panel, np.ndarray]:
    """Draw a training panel, a test panel of the same length and loadings, and the factors of the test panel."""
    loadings = rng.standard_normal((N_STOCKS, N_FACTORS))
    deviations = np.sqrt(VARIANCES)
    factors = deviations * (SHARPE_RATIOS + rng.standard_normal((2, N_DATES, N_FACTORS)))
    returns = factors @ loadings.T + rng.standard_normal((2, N_DATES, N_STOCKS)) @ root.T
    return Panel.from_arrays(returns[0]), Panel.from_arrays(returns[1]), factors[1]


def judge(train: Panel, test: Panel, truth: np.ndarray, gamma: float) -> Outcome:
    """Fit to the training panel and measure on the test panel."""
    model = RPPCA(n_factors=N_FACTORS, gamma=gamma).fit(train)
    estimated = model.factor_returns(test).values
    weak = truth[:, -1]
    centred = estimated - estimated.mean(axis=0)
    projected = centred @ np.linalg.lstsq(centred, weak - weak.mean())[0]
    singles = [abs(np.corrcoef(column, weak)[0, 1]) for column in estimated.T]
    measures = model.evaluate(test)
    return Outcome(
        correlation=float(np.corrcoef(projected, weak)[0, 1]),
        best_single=max(singles),
        maximal_sharpe_ratio=measures["maximal_sharpe_ratio"],
        sharpe_ratio=measures["sharpe_ratio"],
        rms_alpha=measures["rms_alpha"],
    )


def monte_carlo(
    repetitions: int, gammas: tuple[float, ...], band: int = BAND, seed: int = 0
) -> dict[float, np.ndarray]:
    """(repetition, measure) outcomes by gamma, on the same draws."""
    rng, root = np.random.default_rng(seed), residual_root(band)
    outcomes: dict[float, list[Outcome]] = {gamma: [] for gamma in gammas}
    for _ in range(repetitions):
        train, test, truth = simulate(rng, root)
        for gamma in gammas:
            outcomes[gamma].append(judge(train, test, truth, gamma))
    return {gamma: np.array([list(vars(one).values()) for one in found]) for gamma, found in outcomes.items()}


def main() -> None:
    """Print means over repetitions, with the standard error of the first column."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--bands", type=int, nargs="+", default=[BAND])
    parser.add_argument("--gammas", type=float, nargs="+", default=[-1.0, 0.0, 1.0, 5.0, 10.0, 20.0])
    options = parser.parse_args()
    lines = [
        "| band | gamma | correlation (s.e.) | best single | maximal Sharpe | Sharpe, training weights | RMS alpha |"
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for band in options.bands:
        for gamma, found in monte_carlo(options.repetitions, tuple(options.gammas), band).items():
            mean, error = found.mean(axis=0), found[:, 0].std(ddof=1) / np.sqrt(len(found))
            rest = " | ".join(f"{value:.3f}" for value in mean[1:])
            lines.append(f"| {band} | {gamma:g} | {mean[0]:.3f} ({error:.3f}) | {rest} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
