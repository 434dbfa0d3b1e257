"""A small made-up market for examples in docstrings; no result and no test of a model rests on it.

Here belongs nothing that is fitted to it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from models.panel.panel import Panel

_N_DATES, _N_TICKERS = 120, 24


def example_cube() -> xr.Dataset:
    """Return 120 business days of 24 made-up stocks, the same everywhere, with the variables of a cube.

    Returns follow a market and the characteristics ``size`` and ``value`` of the day before. There is one observed
    factor, ``market``, one portfolio, ``equal_weight``, and two industries. Source: none; numbers are drawn.
    """
    rng = np.random.default_rng(0)
    shape = (_N_DATES, _N_TICKERS)
    characteristics = np.cumsum(rng.normal(size=(*shape, 2)), axis=0)
    market, slopes = rng.normal(0.0005, 0.01, _N_DATES), rng.normal(0.0, 0.005, (_N_DATES, 2))
    known = np.roll(characteristics, 1, axis=0) / np.abs(characteristics).max()
    returns = market[:, None] + (known @ slopes[..., None])[..., 0] + rng.normal(0.0, 0.005, shape)
    return xr.Dataset(
        {
            "returns": (("date", "ticker"), returns.astype(np.float32)),
            "characteristics": (("date", "ticker", "char"), characteristics.astype(np.float32)),
            "estimation": (("date", "ticker"), np.ones(shape, dtype=np.bool_)),
            "factors": (("date", "observed_factor"), market[:, None].astype(np.float32)),
            "weights": (("portfolio", "date", "ticker"), np.full((1, *shape), 1.0 / _N_TICKERS, dtype=np.float32)),
            "industry": (("date", "ticker"), np.tile(np.arange(_N_TICKERS, dtype=np.int16) % 2, (_N_DATES, 1))),
        },
        coords={
            "date": pd.bdate_range("2024-01-01", periods=_N_DATES),
            "ticker": [f"S{place:02d}" for place in range(_N_TICKERS)],
            "char": ["size", "value"],
            "observed_factor": ["market"],
            "portfolio": ["equal_weight"],
            "industry_name": ["banks", "mines"],
        },
    )


def example_panel() -> Panel:
    """Return the panel of `example_cube`: ranked characteristics, known the day before, and a constant."""
    return Panel.from_cube(example_cube())
