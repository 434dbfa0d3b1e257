"""Risk parity by factor: every factor contributes its share of the systematic variance, and little is specific.

Here belongs the one allocation that skfolio cannot make: its budgets of risk are of assets. The exposures that share
risk out are a problem of K numbers, solved by Newton's method; the weights that have them with the least specific
variance are a closed form, or one cone problem where weights are limited.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from models.allocation.constraints import Constraints, Holdable
from models.allocation.optimised import convex, solved
from models.arrays import Float64Array
from models.risk.portfolio import RiskModel
from schemas.errors import ConfigError, ModelError

_FREE = Constraints(long_only=False)
_LEAST_NET = 1e-6
"""Least net weight, as a share of the gross weight, that can be scaled to 1."""


def factor_risk_parity(
    model: RiskModel, constraints: Constraints = _FREE, *, shares: Mapping[str, float] | None = None
) -> xr.DataArray:
    """Weights whose factors contribute given shares of the systematic variance, with the least specific variance.

    Contributions x_k (Omega x)_k of exposures x = X'w are in the given ratios for x = argmin x' Omega x / 2 - sum_k b_k
    log x_k, which is unique among positive exposures (Roncalli and Weisang 2016, Risk parity portfolios with risk
    factors). Of all weights with exposures in the direction of x, those of the least specific variance in relation to
    it are proportional to D^-1 X (X' D^-1 X)^-1 x, and scaled to sum to 1. Where weights are limited, the same problem
    is solved under the limits.

    Factors have signs: an exposure to -f in place of f is another portfolio with the same contributions. Positive
    exposures to the factors as they are labelled are meant, or negative ones to all of them, if these sum to 1.

    Parameters
    ----------
    model : RiskModel
        Without dates.
    constraints : Constraints
    shares : mapping, optional
        Share of each factor, all above 0, which are scaled to sum to 1; equal if left out.

    Returns
    -------
    xarray.DataArray
        (ticker) float64, summing to 1.

    Raises
    ------
    ConfigError
        If shares are not of the model's factors, or not above 0.
    DataError, ModelError
        As `models.allocation.minimum_variance`. ModelError also if Omega is singular, loadings are collinear or no
        stock has specific variance, or the portfolio has no net weight to be scaled.

    Examples
    --------
    >>> from models import factor_risk_parity
    >>> from models.risk.example import example_risk
    >>> model = example_risk()
    >>> factor_risk_parity(model).sum().round(6).item()
    1.0
    """
    stocks = Holdable.of(model, constraints)
    exposures = _exposures(stocks.omega, _budget(stocks, shares))
    if not (stocks.specific > 0.0).all():
        raise ModelError("factor risk parity needs specific variance above 0 for every ticker.")
    values = _closed_form(stocks, exposures) if stocks.free else _limited(stocks, exposures)
    return stocks.weights(values)


def _budget(stocks: Holdable, shares: Mapping[str, float] | None) -> Float64Array:
    if shares is None:
        return np.full(len(stocks.factors), 1.0 / len(stocks.factors))
    if set(shares) != set(stocks.factors):
        raise ConfigError(f"shares must be of the factors {', '.join(map(str, stocks.factors))}.")
    budget = np.array([shares[factor] for factor in stocks.factors], dtype=np.float64)
    if not (np.isfinite(budget) & (budget > 0.0)).all():
        raise ConfigError("every factor needs a share above 0.")
    shared: Float64Array = budget / budget.sum()
    return shared


def _exposures(omega: Float64Array, budget: Float64Array) -> Float64Array:
    """Positive x (K,) with x_k (Omega x)_k = b_k: damped Newton on a self-concordant function (Spinu 2013)."""
    deviation = np.sqrt(np.diag(omega))
    if not (deviation > 0.0).all() or np.linalg.matrix_rank(omega, hermitian=True) < len(omega):
        raise ModelError("Omega is singular: factors that move as one cannot share risk out; drop some.")
    correlation = omega / np.outer(deviation, deviation)
    x = np.sqrt(budget)
    for _ in range(200):
        gradient = correlation @ x - budget / x
        step = np.linalg.solve(correlation + np.diag(budget / x**2), gradient)
        decrement = float(np.sqrt(max(gradient @ step, 0.0) / budget.min()))
        x = x - step / (1.0 + decrement) if decrement > 0.25 else x - step
        if decrement < 1e-13:
            break
    if float(abs(x * (correlation @ x) - budget).max()) > 1e-9:
        raise ModelError("the exposures that share risk out were not found; Omega is close to singular.")
    found: Float64Array = x / deviation
    return found


def _closed_form(stocks: Holdable, exposures: Float64Array) -> Float64Array:
    scaled = stocks.loadings / stocks.specific[:, None]
    gram = stocks.loadings.T @ scaled
    if np.linalg.matrix_rank(gram, hermitian=True) < len(gram):
        raise ModelError("loadings are collinear over these tickers: exposures cannot be chosen one by one.")
    values: Float64Array = scaled @ np.linalg.solve(gram, exposures)
    net = float(values.sum())
    if abs(net) < _LEAST_NET * float(np.abs(values).sum()):
        raise ModelError("factor risk parity has no net weight with this model, so it cannot be scaled to sum to 1.")
    return values / net


def _limited(stocks: Holdable, exposures: Float64Array) -> Float64Array:
    """Minimise t'Dt for t = w / c with exposures x or -x, over the scale c as well: the same ratio under limits."""
    reasons = []
    for sign in (1.0, -1.0):
        try:
            return solved(lambda sign=sign: _cone(stocks, sign * exposures))  # type: ignore[misc]  # the default binds
        except ModelError as error:
            reasons.append(error)
    raise ModelError(
        "no weights within the limits give factors these shares of risk; allow short weights, or loosen other limits."
    ) from reasons[0]


def _cone(stocks: Holdable, exposures: Float64Array) -> Float64Array:
    cp = convex()
    t, net = cp.Variable(len(stocks.position)), cp.Variable(nonneg=True)
    units = float(np.abs(exposures).max())
    limits: list[Any] = [stocks.loadings.T @ t == exposures / units, cp.sum(t) == net]
    if stocks.lower is not None:
        limits.append(t >= stocks.lower * net)
    if stocks.upper is not None:
        limits.append(t <= stocks.upper * net)
    if len(stocks.rows):
        limits.append(stocks.rows @ t <= stocks.most * net)
    if stocks.turnover is not None and stocks.previous is not None:
        limits.append(cp.norm1(t - stocks.previous * net) <= stocks.turnover * net)
    problem = cp.Problem(cp.Minimize(cp.norm(cp.multiply(np.sqrt(stocks.specific), t))), limits)
    problem.solve(solver="CLARABEL", tol_gap_abs=1e-9, tol_gap_rel=1e-9)
    if problem.status != "optimal" or net.value is None or float(net.value) < _LEAST_NET:
        raise ModelError(f"the problem is {problem.status}.")
    values: Float64Array = np.asarray(t.value, dtype=np.float64) / float(net.value)
    return values
