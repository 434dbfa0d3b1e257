"""Returns with a common scale of their noise, and the table of what is seen of it.

Here belong the worlds and their scores. As a command: ``python tests/helpers/scaled_worlds.py`` prints the table of
`docs/beyond-variance.md`.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd

from models.arrays import Float64Array
from models.risk.common_scale import robust_factors, scale_factor

SIZE = 200  # stocks, and dates
SEEDS = 24


def seen(true: Float64Array, regressors: Float64Array) -> float:
    """R2 of a true factor (date,) on others (date, ...), with a constant."""
    design = np.column_stack([np.ones(len(true)), regressors])
    left = true - design @ np.linalg.lstsq(design, true, rcond=None)[0]
    return 1.0 - float(left.var() / true.var())


def world(seed: int, unit: float = 1.0) -> tuple[Float64Array, Float64Array]:
    """Make returns (date, ticker) and factors (date, 3): two AR(1), and the scale |N(0, 1)| of noise with three df."""
    rng = np.random.default_rng(seed)
    shocks = rng.standard_normal((SIZE + 100, 3))
    for date in range(1, len(shocks)):
        shocks[date, :2] += [0.8, 0.5] * shocks[date - 1, :2]
    factors = np.column_stack([shocks[100:, :2], np.abs(shocks[100:, 2])])
    loadings = rng.standard_normal((2, SIZE))
    noise = np.outer(factors[:, 2], rng.uniform(1.0, 2.0, SIZE)) * rng.standard_t(3.0, (SIZE, SIZE))
    return unit * (factors[:, :2] @ loadings + noise), factors


def row(seed: int, unit: float = 1.0) -> dict[str, float]:
    """Score one world."""
    returns, factors = world(seed, unit)
    returns = returns - returns.mean(axis=0)
    left, values, _ = np.linalg.svd(returns, full_matrices=False)
    components = left * values
    found, loadings = robust_factors(returns, 2)
    scale = scale_factor(returns - found @ loadings.T)
    return {
        "scale": seen(factors[:, 2], scale.factor),
        "first factor": seen(factors[:, 0], found),
        "second factor": seen(factors[:, 1], found),
        "scale, 3 components": seen(factors[:, 2], components[:, :3]),
        "first factor, 2 components": seen(factors[:, 0], components[:, :2]),
        "second factor, 2 components": seen(factors[:, 1], components[:, :2]),
    }


def table() -> pd.DataFrame:
    """One row a seed."""
    return pd.DataFrame([row(seed) for seed in range(SEEDS)])


if __name__ == "__main__":
    sys.stdout.write(table().agg(["mean", "min", "max"]).T.round(3).to_string() + "\n")
