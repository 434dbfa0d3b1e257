"""Presets of the block `risk`: the values that a name stands for, and how given keys go over them.

Here belong the numbers of the presets, each with its source or measurement; what a key means is in `risk`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Preset = Literal["short", "medium", "long", "barra_use4s", "barra_use4l"]


def _use4(volatility: float, regime: float) -> dict[str, Any]:
    """Half-lives and stages of USE4S (short horizon) and USE4L (long), as its public summary has them.

    Menchero, Orr and Wang (2011), The Barra US Equity Model (USE4), Methodology Notes: one half-life for volatilities
    of factors and for specific risk, 504 days for correlations, 5 Newey-West lags for variances and 2 for correlations,
    the eigenfactor scale 1.4, Bayesian shrinkage .1 in ten groups of size.
    """
    return {
        "covariance": {
            "halflife": volatility,
            "newey_west_lags": 5,
            "correlation": {"halflives": (504.0,), "newey_west_lags": 2},
            "eigenfactor": {"scale": 1.4},
            "regime": {"halflife": regime},
        },
        "specific": {
            "halflife": volatility,
            "newey_west_lags": 5,
            "structural": {},
            "shrinkage": {"strength": 0.1, "groups": 10},
            "regime": {"halflife": regime},
        },
        "own": False,
        "calibration": None,
    }


PRESETS: dict[Preset, dict[str, Any]] = {
    "short": {
        "covariance": {
            "halflife": 21.0,
            "correlation": {"halflives": (63.0,), "standardised": True},
            "regime": {"halflife": 10.0},
        },
        "specific": {"halflife": 21.0, "regime": {"halflife": 10.0}},
        "calibration": {"volatility": {"horizon": 5}, "curve": {"halflife": 100.0, "prior": 25.0}},
    },
    "medium": {},
    "long": {
        "covariance": {
            "halflife": 252.0,
            "newey_west_lags": 5,
            "correlation": {"halflives": (504.0,), "newey_west_lags": 2},
        },
        "specific": {"halflife": 252.0, "newey_west_lags": 5},
        "calibration": {"volatility": {"horizon": 63}, "curve": {"halflife": 8.0, "prior": 2.0}},
    },
    "barra_use4s": _use4(84.0, 42.0),
    "barra_use4l": _use4(252.0, 168.0),
}
"""short: one day ahead; medium: 21 days; long: a quarter and more. docs/methodology.md has what was measured."""


def over(preset: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Put given keys over those of a preset, at any depth; a null that is given switches a stage off."""
    merged = dict(preset)
    for key, value in given.items():
        below = merged.get(key)
        merged[key] = over(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged
