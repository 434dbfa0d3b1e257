"""Returns with a weak skewed factor under noise that neighbours share, and the table of what models see of it.

Here belong the worlds and their scores; the aims that they are held against are in `tests/models/families/coskewness`.
As a command: ``python tests/helpers/skewed_worlds.py`` prints the table of `docs/beyond-variance.md`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from models.arrays import Float64Array, FloatArray
from models.families.base import FactorModel
from models.families.coskewness import CoskewnessPCA
from models.families.pca import PCA
from models.panel import Panel

N_STOCKS, N_TRAINED, N_DATES = 100, 1000, 2000
STRENGTHS = (1.0, 0.6, 0.12)
SEEDS = 24
_SHAPE = 0.5


@dataclass(frozen=True, eq=False)
class World:
    """Returns (date, ticker), the factors (date, 3) and the loadings (ticker, 3) that made them."""

    returns: Float64Array
    factors: Float64Array
    loadings: Float64Array

    def panel(self) -> Panel:
        """All dates as a panel."""
        dates = pd.bdate_range("2015-01-01", periods=len(self.returns))
        tickers = [f"S{stock:03d}" for stock in range(self.returns.shape[1])]
        index = pd.MultiIndex.from_product([dates, tickers], names=["date", "ticker"])
        return Panel.from_long(pd.DataFrame({"ret": self.returns.ravel()}, index=index).reset_index())

    def seen(self, factor_returns: FloatArray) -> float:
        """R2 of the third factor on factor returns (date, factor), over the test dates."""
        true = self.factors[N_TRAINED:, 2]
        regressors = np.column_stack([np.ones(len(true)), factor_returns[N_TRAINED:]])
        left = true - regressors @ np.linalg.lstsq(regressors, true, rcond=None)[0]
        return 1.0 - float(left.var() / true.var())


def skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> Float64Array:
    """Draw Gamma(1/2) variables of mean zero and variance one; their skewness is 2.83."""
    drawn: Float64Array = (rng.gamma(_SHAPE, size=shape) - _SHAPE) / np.sqrt(_SHAPE)
    return drawn


def world(seed: int, *, gaussian: bool = False, own: float = 0.0, unit: float = 0.01) -> World:
    """Two factors and a weak third one that is skewed, unless ``gaussian``; noise shared with two neighbours.

    ``own`` is the volatility of skewed noise of each stock alone, ``unit`` that of a noise of one.
    """
    rng = np.random.default_rng(seed)
    factors = rng.standard_normal((N_DATES, 3))
    if not gaussian:
        factors[:, 2] = skewed(rng, (N_DATES,))
    loadings = rng.standard_normal((N_STOCKS, 3)) * STRENGTHS
    noise = rng.standard_normal((N_DATES, N_STOCKS))
    noise = (noise + 0.5 * np.roll(noise, 1, axis=1) + 0.5 * np.roll(noise, -1, axis=1)) / np.sqrt(1.5)
    noise += own * skewed(rng, noise.shape)
    return World(unit * (factors @ loadings.T + noise), factors, loadings)


def scores(model: FactorModel, made: World) -> tuple[float, FactorModel]:
    """Fit to the dates of training; R2 of the third factor on test dates, and the fitted model."""
    panel = made.panel()
    fitted = model.fit(panel.sel(end=panel.dates[N_TRAINED - 1]))
    return made.seen(fitted.factor_returns(panel).values), fitted


def row(seed: int, *, gaussian: bool = False, own: float = 0.0) -> dict[str, float]:
    """Score one world."""
    made = world(seed, gaussian=gaussian, own=own)
    found, model = scores(CoskewnessPCA(), made)
    same, _ = scores(PCA(n_factors=len(model.factors_)), made)
    three, _ = scores(PCA(n_factors=3), made)
    statistics = model.statistics()
    known = made.seen(np.linalg.lstsq(made.loadings, made.returns.T, rcond=None)[0].T)
    return {
        "coskewness_pca": found,
        "PCA, as many factors": same,
        "PCA, 3 factors": three,
        "true loadings": known,
        "skewed factors": float(statistics["n_skewed"]),
        "p-value": float(statistics["coskewness_p_value"]),
    }


def table(seeds: Iterable[int], *, gaussian: bool = False, own: float = 0.0) -> pd.DataFrame:
    """One row a seed."""
    return pd.DataFrame([row(seed, gaussian=gaussian, own=own) for seed in seeds])


def _main() -> None:
    for title, arguments in (
        ("skewed factor", {}),
        ("Gaussian factor", {"gaussian": True}),
        ("Gaussian factor, skewed stocks", {"gaussian": True, "own": 1.0}),
    ):
        found = table(range(SEEDS), **arguments)
        sys.stdout.write(f"{title}, {len(found)} seeds\n{found.agg(['mean', 'min', 'max']).T.round(3).to_string()}\n\n")


if __name__ == "__main__":
    _main()
