"""A small market that one can compute by heart, and the config of a run on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import exchange_calendars
import numpy as np
import pandas as pd
import polars as pl
import yaml


def make_market(stocks: int = 24, start: str = "2015-01-02", end: str = "2016-12-30", seed: int = 0) -> pl.DataFrame:
    """OHLCV bars of a market with one common factor, sessions of XNYS."""
    sessions = exchange_calendars.get_calendar("XNYS", start="2010-01-01").sessions_in_range(start, end)
    rng = np.random.default_rng(seed)
    common = rng.normal(3e-4, 0.01, len(sessions))
    returns = np.outer(common, rng.uniform(0.5, 1.5, stocks)) + rng.normal(0.0, 0.012, (len(sessions), stocks))
    close = 50.0 * np.exp(np.cumsum(returns, axis=0))
    spread = np.abs(rng.normal(0.0, 0.004, close.shape))
    frame = pd.DataFrame(
        {
            "date": np.repeat(sessions.to_numpy(), stocks),
            "ticker": np.tile([f"S{n:03d}" for n in range(stocks)], len(sessions)),
            "open": close.ravel(),
            "high": (close * (1.0 + spread)).ravel(),
            "low": (close * (1.0 - spread)).ravel(),
            "close": close.ravel(),
            "volume": rng.integers(100_000, 1_000_000, close.size),
        }
    )
    return pl.from_pandas(frame)


SMALL: dict[str, Any] = {
    "universe": "small",
    "data": {
        "shape": "long_prices",
        "origin": {"kind": "files", "paths": ["prices.parquet"]},
        "open": "open",
        "high": "high",
        "low": "low",
        "volume": "volume",
    },
    "characteristics": ["mom1m", "mom6m", "maxret", "retvol", "dolvol", "baspread"],
    "portfolios": [{"kind": "equal_weight"}, {"kind": "fixed", "name": "pair", "weights": {"S000": 0.5, "S001": 0.5}}],
    "models": [
        {"kind": "market"},
        {"kind": "fama_macbeth"},
        {"kind": "pca", "n_factors": 2},
        {"kind": "ipca", "n_factors": 2},
        {"kind": "autoencoder", "n_factors": 2, "hidden": [4], "seeds": [0, 1], "max_epochs": 3},
    ],
    "walk_forward": {"first": "2016-06-30", "every": "quarter"},
}


def write_config(folder: Path, changes: dict[str, Any]) -> Path:
    """Write the small config with some keys replaced; its report shows one portfolio, which is quicker than all."""
    path = folder / "config.yaml"
    config = {**SMALL, **changes}
    first = config["portfolios"][0]
    shown = {"portfolios": [first.get("name", first["kind"])]}
    path.write_text(yaml.safe_dump({"report": shown, **config}))
    return path
