"""Simulated panels with industries for the tests of the cross-sectional model, and their rows as plain arrays."""

from __future__ import annotations

import numpy as np

from models import Panel

N_INDUSTRIES, STYLES = 5, ["size", "value", "momentum"]
CAP_POWER = {"equal": 0.0, "sqrt_cap": 0.5, "cap": 1.0}


def simulate(
    seed: int = 0, n_dates: int = 30, n_stocks: int = 80, *, balanced: bool = False, outliers: bool = False
) -> Panel:
    """Draw returns of market, industries and styles.

    Unless balanced: some stocks have no industry or no characteristics, a tenth are outside the estimation universe,
    and industry 2 has no stock in it on dates 3 to 5.
    """
    rng = np.random.default_rng(seed)
    shape = (n_dates, n_stocks)
    codes = np.broadcast_to(np.arange(n_stocks) % N_INDUSTRIES, shape).astype(np.int16)
    characteristics = 0.3 * rng.standard_normal((*shape, 3)) + rng.standard_normal((n_stocks, 3))
    characteristics = (characteristics + 0.2 * codes[..., None]).astype(np.float32)
    mask = np.ones(shape, dtype=np.bool_)
    factors = 0.01 * rng.standard_normal((n_dates, 1 + N_INDUSTRIES + 3))
    own = np.take_along_axis(factors[:, 1 : 1 + N_INDUSTRIES], codes.astype(np.int64), axis=1)
    returns = factors[:, :1] + own + np.einsum("tnk,tk->tn", characteristics, factors[:, -3:])
    returns += 0.02 * rng.standard_normal(shape)
    if outliers:
        returns += np.where(rng.random(shape) < 0.05, 0.5 * rng.standard_normal(shape), 0.0)
    if not balanced:
        codes = np.where(rng.random(shape) < 0.02, -1, codes).astype(np.int16)
        characteristics[rng.random(shape) < 0.05] = np.nan
        mask = rng.random(shape) < 0.9
        mask[3:6] &= codes[3:6] != 2
    return Panel.from_arrays(
        returns,
        characteristics,
        mask=mask,
        market_weight=np.exp(1.5 * rng.standard_normal(shape)),
        industry=codes,
        industries=[f"{code:02d}" for code in range(N_INDUSTRIES)],
        chars=STYLES,
    )


def dense(panel: Panel, date: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Regressors [1, industries, styles], returns and capitalisation of the stocks that enter at a date."""
    code = panel.industry.values[date]
    enters = panel.mask.values[date] & (code >= 0)
    dummies = code[enters, None] == np.arange(len(panel.industries))
    styles = panel.characteristics.values[date, enters].astype(np.float64)
    X = np.hstack([np.ones((enters.sum(), 1)), dummies, styles])
    return X, panel.returns.values[date, enters], panel.market_weight.values[date, enters].astype(np.float64)
