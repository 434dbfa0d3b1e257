"""Returns that are not linear in their factors, and what their portfolios' volatility is said to be."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
import xarray as xr

from models.risk.nonlinear import nonlinear_risk

N_STOCKS, N_FACTORS = 100, 3
WORLDS = ("linear", "floor", "curved", "network")


def response(world: str, seed: int = 0) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return phi of a market: the first factor is a market with loadings about 1, the others are as large and mixed.

    ``floor``: each stock loses no more than 2 % by factors; ``curved``: X f + 5 (X f)^2; ``network``: one hidden layer
    of 16 tanh units takes X and f together, with weights that nobody has trained.
    """
    rng = np.random.default_rng(seed)
    X = torch.as_tensor(np.column_stack([rng.normal(1.0, 0.3, N_STOCKS), rng.normal(0.0, 0.6, (N_STOCKS, 2))]))
    inner = torch.as_tensor(rng.standard_normal((2 * N_FACTORS, 16)))
    outer = torch.as_tensor(rng.standard_normal(16) / 4.0)

    def network(f: torch.Tensor) -> torch.Tensor:
        together = torch.cat([X, (50.0 * f).expand(N_STOCKS, N_FACTORS)], dim=1)
        return X @ f + 0.02 * torch.tanh(together @ inner) @ outer

    return {
        "linear": lambda f: X @ f,
        "floor": lambda f: torch.clamp(X @ f, min=-0.02),
        "curved": lambda f: X @ f + 5.0 * (X @ f) ** 2,
        "network": network,
    }[world]


def row(world: str, volatility: float, *, tails: bool = False, seed: int = 0) -> dict[str, float]:
    """Volatility in percent of the equal-weight portfolio in a market with such a volatility, three ways."""
    tickers, factors = np.arange(N_STOCKS), np.arange(N_FACTORS)
    scale = np.diag(volatility**2 * np.array([1.0, 0.25, 0.25]))
    omega = xr.DataArray(scale, {"factor": factors, "factor_": factors}, ("factor", "factor_"))
    found = nonlinear_risk(
        response(world, seed),
        omega,
        xr.DataArray(np.full(N_STOCKS, 0.02**2), {"ticker": tickers}),
        xr.DataArray(np.full(N_STOCKS, 1.0 / N_STOCKS), {"ticker": tickers}),
        shocks=np.random.default_rng(seed).standard_t(4, (20_000, N_FACTORS)) if tails else None,
        seed=seed,
    )
    specific = found.specific.item()
    said = {name: 100.0 * (found[name].item() + specific) ** 0.5 for name in ("linearised", "quadratic", "simulated")}
    error = 50.0 * found.standard_error.item() / (found.simulated.item() + specific) ** 0.5
    return said | {"standard error": error, "difference": said["simulated"] - said["linearised"]}


def main() -> None:
    for title, tails in (("normal factors", False), ("t4 factors", True)):
        rows = {
            (world, f"{100 * volatility:g}%"): row(world, volatility, tails=tails)
            for world in WORLDS
            for volatility in (0.005, 0.01, 0.03)
        }
        sys.stdout.write(f"{title}\n{pd.DataFrame(rows).T.round(3).to_string()}\n\n")


if __name__ == "__main__":
    main()
