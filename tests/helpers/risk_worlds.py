"""A world in which what explains little of all returns is much of the risk of quiet portfolios.

Here belong the world and the measures beside the truth. ``python -m tests.helpers.risk_worlds`` prints the table of
`docs/nonlinear.md`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from models import FactorCovariance, Panel, RiskNetwork, SpecificRisk, diebold_mariano
from models.characteristics import compute
from models.families.base import FactorModel

MARKET, WILD, HIDDEN = 0.01, 0.02, 0.006
NOISE = (0.006, 0.04)
CHARS = ["mom1m", "mom6m", "mom12m", "retvol", "beta", "idiovol", "dolvol"]
WORLD: dict[str, Any] = {"n_factors": 3, "max_epochs": 30}
REAL: dict[str, Any] = {"n_factors": 5, "max_epochs": 20, "patience": 5, "n_portfolios": 4}


@dataclass(frozen=True, eq=False)
class World:
    """A training and a test panel, and the true covariance of the latter.

    Attributes
    ----------
    train, test : Panel
    loadings : numpy.ndarray
        (date, ticker, factor) true loadings on the test dates, on factors of unit variance.
    specific : numpy.ndarray
        (ticker,) true variance of the rest.
    """

    train: Panel
    test: Panel
    loadings: np.ndarray
    specific: np.ndarray


def quiet(seed: int, *, n_stocks: int = 100, n_train: int = 600, n_test: int = 250) -> World:
    """Draw r = b m + wild C2 f + quiet (1 + C2 C3) h + u.

    The first characteristic ranks stocks by volatility: the lower half are quiet, with a standard deviation of .006 of
    u, the others wild, with .04. h makes 3 % of all squared returns, and half of those of quiet stocks. C2 and C3 are
    N(0, 1) by stock, with as much of the date, and ranked to [-1, 1].
    """
    rng = np.random.default_rng(seed)
    n_dates = n_train + n_test
    c = rng.standard_normal((n_stocks, 2)) + rng.standard_normal((n_dates, n_stocks, 2))
    ranks = 2.0 * c.argsort(axis=1).argsort(axis=1) / (n_stocks - 1) - 1.0
    volatility = np.linspace(-1.0, 1.0, n_stocks)
    wild = (volatility > 0.0).astype(np.float64)
    deviation = np.where(wild, NOISE[1], NOISE[0])
    ones = np.ones((n_dates, n_stocks))
    product = 3.0 * ranks[..., 0] * ranks[..., 1]
    loadings = np.stack(
        [MARKET * ones * (0.7 + 0.6 * wild), WILD * wild * ranks[..., 0], HIDDEN * (1.0 - wild) * (1.0 + product)],
        axis=2,
    )
    factors = rng.standard_normal((n_dates, 3))
    returns = np.einsum("tnk,tk->tn", loadings, factors) + deviation * rng.standard_normal((n_dates, n_stocks))
    dates = pd.bdate_range("2000-01-03", periods=n_dates)
    chars = np.concatenate([np.broadcast_to(volatility, ones.shape)[..., None], ranks], axis=2, dtype=np.float32)
    panel = Panel.from_arrays(returns, chars, dates=dates, chars=["volatility", "c2", "c3"])
    train, test = panel.sel(end=dates[n_train - 1]), panel.sel(start=dates[n_train])
    return World(train, test, loadings[n_train:], np.square(deviation))


def real(path: Path) -> tuple[Panel, Panel]:
    """Return the 505 stocks before 2017 and from then on; days known to be wrong are left out."""
    bars = pd.read_parquet(path).set_index(["date", "ticker"]).to_xarray()
    suspect = bars["suspect"].fillna(0.0).astype(bool)
    fields = bars.drop_vars(["suspect", "open"]).astype(np.float64)
    fields["returns"] = (fields["close"] / fields["close"].shift(date=1) - 1.0).where(~suspect)
    chars = compute(fields, CHARS, suspected=suspect)
    table = xr.merge([fields["returns"], chars.to_dataset("char")]).to_dataframe().reset_index()
    panel = Panel.from_long(table, returns="returns", characteristics=CHARS, min_coverage=1.0)
    return panel.sel("2014-02-14", "2016-12-31"), panel.sel("2017-01-01")


@dataclass(frozen=True, eq=False)
class Outcome:
    """What covariances met on the test dates.

    Attributes
    ----------
    squares : numpy.ndarray
        (date,) squared returns of the minimum-variance portfolio.
    minimum_variance, sorts : numpy.ndarray
        (date,) QLIKE of that portfolio, and of sorts on products of two characteristics, among quiet stocks too; of
        returns in percent.
    r2 : float
        Total R2.
    """

    squares: np.ndarray
    minimum_variance: np.ndarray
    sorts: np.ndarray
    r2: float

    @property
    def volatility(self) -> float:
        """Of the minimum-variance portfolio, in percent a year."""
        return 100.0 * float(np.sqrt(252.0 * self.squares.mean()))


def judge(test: Panel, loadings: np.ndarray, omega: np.ndarray, specific: np.ndarray, r2: float) -> Outcome:
    """Measure X Omega X' + D, with X (date, ticker, factor), Omega (date, factor, factor) and D (date, ticker)."""
    found = []
    parts = (omega, loadings, specific, test.estimation_returns(), test.characteristics.values)
    for omega_t, *cells in zip(*(part.astype(np.float64) for part in parts), strict=True):
        inside = np.logical_and.reduce([np.isfinite(cell.reshape(len(cell), -1)).all(axis=1) for cell in cells])
        x, d, r, z = (cell[inside] for cell in cells)
        covariance = x @ omega_t @ x.T + np.diag(d)
        own = np.linalg.solve(covariance, np.ones(len(r)))
        products = [z[:, i] * z[:, j] for i, j in combinations(np.flatnonzero(z.std(axis=0)), 2)]
        sorts = [part * product for product in products for part in (1.0, d <= np.median(d))]
        weights = np.array([own / own.sum(), *sorts])
        forecasts, realised = ((weights @ covariance) * weights).sum(axis=1) * 1e4, np.square(weights @ r) * 1e4
        losses = np.log(forecasts) + realised / forecasts
        found.append((realised[0] / 1e4, losses[0], losses[1:].mean()))
    squares, minimum_variance, sorts = np.transpose(found)
    return Outcome(squares, minimum_variance, sorts, r2)


def judged(model: FactorModel, train: Panel, test: Panel) -> Outcome:
    """Measure a fitted model, with Omega and D of the dates before each by the usual estimators."""
    whole = Panel(xr.concat([train.data, test.data], "date"))
    before = whole.dates[len(train.dates) - 1 : -1]
    omega = FactorCovariance().path(model.factor_returns(whole), before).values
    specific = SpecificRisk().path(model.residuals(whole), before).values
    return judge(test, model.loadings(test).values, omega, specific, model.score(test)["total_r2"])


def truth(world: World) -> Outcome:
    """Measure the true covariance."""
    n_dates, _, n_factors = world.loadings.shape
    omega = np.broadcast_to(np.eye(n_factors), (n_dates, n_factors, n_factors))
    specific = np.broadcast_to(world.specific, world.loadings.shape[:2])
    return judge(world.test, world.loadings, omega, specific, np.nan)


def lines(name: str, train: Panel, test: Panel, model: dict[str, Any], weights: list[float]) -> Iterator[str]:
    """Fit a network for each weight, the first of which the others are compared with, and say what it met."""
    first: Outcome | None = None
    for weight in weights:
        found = judged(RiskNetwork(**model, risk_weights=(weight,), seeds=(0,)).fit(train), train, test)
        first = found if first is None else first
        p_value = "" if found is first else f"{diebold_mariano(found.squares, first.squares).p_value:.3f}"
        yield f"| {name} | {weight:g} | {_cells(found)} | {found.r2:.3f} | {p_value} |"


def _cells(found: Outcome) -> str:
    return f"{found.volatility:.2f} | {found.minimum_variance.mean():.3f} | {found.sorts.mean():.3f}"


def main() -> None:
    """Print what networks of each weight met, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2, help="draws of the world")
    parser.add_argument("--weights", type=float, nargs="+", default=[0.0, 0.1])
    parser.add_argument("--prices", type=Path, help="daily bars of the 505 stocks; default: the world")
    options = parser.parse_args()
    sys.stdout.write("| data | risk weight | volatility | its QLIKE | QLIKE of sorts | R2 | p |\n" + "|---" * 7 + "|\n")
    if options.prices is not None:
        told = lines("505 stocks", *real(options.prices), REAL, options.weights)
        sys.stdout.writelines(f"{line}\n" for line in told)
        return
    for seed in range(options.seeds):
        world = quiet(seed)
        told = lines(f"draw {seed}", world.train, world.test, WORLD, options.weights)
        sys.stdout.writelines(f"{line}\n" for line in told)
        sys.stdout.write(f"| draw {seed} | truth | {_cells(truth(world))} | | |\n")


if __name__ == "__main__":
    main()
