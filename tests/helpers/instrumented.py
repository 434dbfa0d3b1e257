"""Simulated returns whose loadings are linear in characteristics, the model of IPCA."""

from __future__ import annotations

import numpy as np
import pandas as pd
from statsmodels.datasets import grunfeld

from models.panel import Panel


def instrumented(
    n_dates: int = 60,
    n_stocks: int = 30,
    n_chars: int = 5,
    n_factors: int = 2,
    noise: float = 0.02,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Complete returns, float32 characteristics, and the true Gamma."""
    rng = np.random.default_rng(seed)
    characteristics = rng.uniform(-0.5, 0.5, (n_dates, n_stocks, n_chars)).astype(np.float32)
    characteristics += 0.2 * rng.standard_normal((1, n_stocks, n_chars)).astype(np.float32)
    gamma = np.linalg.qr(rng.standard_normal((n_chars, n_factors)))[0]
    factors = 0.01 + 0.05 * rng.standard_normal((n_dates, n_factors)) / np.arange(1, n_factors + 1)
    returns = np.einsum("tnl,lk,tk->tn", characteristics, gamma, factors)
    return returns + noise * rng.standard_normal(returns.shape), characteristics, gamma


def given_panel(seed: int = 0, *, alpha: float = 0.01, **sizes: int) -> Panel:
    """Unbalanced panel with two latent factors, one observed factor, and a true Gamma_alpha."""
    returns, characteristics, gamma = instrumented(seed=seed, **sizes)
    rng = np.random.default_rng(seed + 100)
    n_chars = characteristics.shape[2]
    market = 0.01 + 0.05 * rng.standard_normal((len(returns), 1))
    beside = rng.standard_normal((n_chars, 2))
    beside -= gamma @ (gamma.T @ beside)
    returns += characteristics @ (alpha * beside[:, 0]) + characteristics @ beside[:, 1] * market
    returns[rng.random(returns.shape) < 0.1] = np.nan
    return Panel.from_arrays(returns, characteristics, factors=market, observed_factors=["mkt"])


def grunfeld_panel(*, constant: bool) -> Panel:
    """Grunfeld's investment of firms on their value and capital, untransformed and of the same date."""
    data = grunfeld.load_pandas().data
    data["date"] = pd.to_datetime(data["year"].astype(int).astype(str) + "-12-31")
    return Panel.from_long(
        data,
        returns="invest",
        characteristics=["value", "capital"],
        ticker="firm",
        lag=0,
        transform="none",
        constant=constant,
    )
