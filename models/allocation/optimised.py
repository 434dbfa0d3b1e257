"""Allocations through skfolio: minimum variance, maximum diversification, risk parity, mean-variance, hierarchical.

Here belong objectives that skfolio knows, on the covariance of a `RiskModel` of one date. Every function gives weights
(ticker) float64 that sum to 1, 0 on tickers that cannot be held: those without loadings or specific variance.

Convex problems are solved by Clarabel in factor form, to a duality gap of 1e-9 on variances that are scaled to 1, or of
1e-7 where rounding allows no less: as a rule weights are then exact to 1e-4, the objective to 1e-7,
and limits on groups, exposures and turnover hold to 1e-5; bounds of single weights and the sum hold exactly.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from models.allocation.constraints import Constraints, Holdable
from models.arrays import Float64Array
from models.risk.portfolio import RiskModel
from schemas.errors import ConfigError, DataError, ModelError

_TOLERANCES = (1e-9, 1e-7)
"""Gaps of duality to solve to, one after another: where the first is beyond what rounding lets a solver reach."""
_FREE = Constraints()


def minimum_variance(model: RiskModel, constraints: Constraints = _FREE) -> xr.DataArray:
    """Weights of the least variance, argmin w' Sigma w.

    Parameters
    ----------
    model : RiskModel
        Without dates.
    constraints : Constraints

    Raises
    ------
    ConfigError, DataError, ModelError
        As `Holdable.of`; also ModelError if the limits contradict each other, or the solver fails.

    Examples
    --------
    >>> from models import minimum_variance
    >>> from models.risk.example import example_risk
    >>> model = example_risk()
    >>> minimum_variance(model).values.round(2).tolist()
    [0.3, 0.17, 0.41, 0.11]
    """
    from skfolio.optimization import MeanRisk, ObjectiveFunction

    stocks = Holdable.of(model, constraints)
    return _solved(stocks, MeanRisk, None, objective_function=ObjectiveFunction.MINIMIZE_RISK)


def mean_variance(
    model: RiskModel,
    expected_returns: xr.DataArray,
    constraints: Constraints = _FREE,
    *,
    risk_aversion: float = 10.0,
) -> xr.DataArray:
    """Weights of the highest utility, argmax mu'w - (gamma / 2) w' Sigma w.

    Parameters
    ----------
    model : RiskModel
        Without dates.
    expected_returns : xarray.DataArray
        (ticker) mu per period, such as those of a factor model with alpha set to 0: loadings times premia. A stock
        without one is not held.
    constraints : Constraints
    risk_aversion : float
        gamma, above 0. It is the same for all frequencies.

    Raises
    ------
    ConfigError
        If the risk aversion is not above 0.
    DataError, ModelError
        As `minimum_variance`; DataError also if a ticker is unknown.

    Examples
    --------
    >>> import xarray as xr
    >>> from models import mean_variance
    >>> from models.risk.example import example_risk
    >>> model = example_risk()
    >>> expected = xr.DataArray([2e-3, 1e-3, 1e-3, 1e-3], {"ticker": ["A", "B", "C", "D"]}, ("ticker",))
    >>> mean_variance(model, expected, risk_aversion=1.0).values.round(2).tolist()
    [1.0, 0.0, 0.0, 0.0]
    """
    from skfolio.optimization import MeanRisk, ObjectiveFunction

    if not risk_aversion > 0.0:
        raise ConfigError(f"risk_aversion must be above 0, not {risk_aversion}.")
    unknown = expected_returns.indexes["ticker"].difference(model.loadings.indexes["ticker"])
    if len(unknown):
        raise DataError(f"expected_returns has a ticker the risk model does not know: {unknown[0]}.")
    wanted: xr.DataArray = xr.ufuncs.isfinite(expected_returns)
    stocks = Holdable.of(model, constraints, wanted)
    mu = expected_returns.reindex(ticker=stocks.tickers).values.astype(np.float64)[stocks.position] * stocks.scale
    objective = ObjectiveFunction.MAXIMIZE_UTILITY  # skfolio's utility is mu'w - risk_aversion * w' Sigma w
    return _solved(stocks, MeanRisk, mu, objective_function=objective, risk_aversion=risk_aversion / 2.0)


def maximum_diversification(model: RiskModel, constraints: Constraints = _FREE) -> xr.DataArray:
    """Weights of the highest diversification ratio, argmax w'sigma / sqrt(w' Sigma w).

    Choueifaty and Coignard (2008), Toward maximum diversification. Parameters and errors are those of
    `minimum_variance`.

    Examples
    --------
    >>> from models import maximum_diversification
    >>> from models.risk.example import example_risk
    >>> model = example_risk()
    >>> maximum_diversification(model).sum().round(6).item()
    1.0
    """
    from skfolio.optimization import MaximumDiversification

    return _solved(Holdable.of(model, constraints), MaximumDiversification, None)


def risk_parity(model: RiskModel, constraints: Constraints = _FREE) -> xr.DataArray:
    """Long weights of which every ticker contributes the same to the variance.

    Maillard, Roncalli and Teiletche (2010), The properties of equally weighted risk contribution portfolios. Such
    weights are unique and positive, so `long_only` changes nothing. Where a limit binds, contributions are as equal as
    it lets them be: it is added to the problem min sigma(w) s.t. sum log w >= c (Roncalli 2013, Introduction to risk
    parity and budgeting). Parameters and errors are those of `minimum_variance`.

    Examples
    --------
    >>> from models import risk_parity
    >>> from models.risk.example import example_risk
    >>> model = example_risk()
    >>> weights = risk_parity(model)
    >>> shares = model.asset_contributions(weights) / model.variance(weights)
    >>> shares.values.round(2).tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    from skfolio import RiskMeasure
    from skfolio.optimization import RiskBudgeting

    stocks = Holdable.of(model, replace(constraints, long_only=True))
    return _solved(stocks, RiskBudgeting, None, risk_measure=RiskMeasure.STANDARD_DEVIATION)


def hierarchical_risk_parity(model: RiskModel, constraints: Constraints = _FREE) -> xr.DataArray:
    """Weights by recursive bisection of stocks in the order of a tree of their correlations.

    Lopez de Prado (2016), Building diversified portfolios that outperform out of sample. The only limits that it knows
    are a cap and that weights are long. It is made from the dense covariance: a tree has all pairs of stocks.

    Parameters
    ----------
    model : RiskModel
        Without dates.
    constraints : Constraints

    Raises
    ------
    ConfigError
        If limits on groups, exposures or turnover are asked for, or short weights.
    DataError, ModelError
        As `minimum_variance`.

    Examples
    --------
    >>> from models import hierarchical_risk_parity
    >>> from models.risk.example import example_risk
    >>> model = example_risk()
    >>> hierarchical_risk_parity(model).sum().round(6).item()
    1.0
    """
    from skfolio import RiskMeasure
    from skfolio.distance import CovarianceDistance
    from skfolio.optimization import HierarchicalRiskParity

    limited = constraints.group_limits or constraints.exposure_limits or constraints.max_turnover is not None
    if limited or not constraints.long_only:
        raise ConfigError(
            "hierarchical risk parity takes a cap alone: no limits of groups or exposures, no turnover, no short "
            "weights."
        )
    stocks = Holdable.of(model, constraints)
    estimator = HierarchicalRiskParity(
        risk_measure=RiskMeasure.VARIANCE,
        distance_estimator=CovarianceDistance(covariance_estimator="precomputed"),
        distance_from_prior=True,
        prior_estimator=_prior(stocks, None),
        max_weights=1.0 if stocks.upper is None else stocks.upper,
    )
    return stocks.weights(_fitted(estimator, stocks))


def _solved(stocks: Holdable, estimator: Any, mu: Float64Array | None, **options: Any) -> xr.DataArray:
    """Weights of a convex estimator of skfolio under the limits."""
    limits: dict[str, Any] = {"min_weights": stocks.lower, "max_weights": stocks.upper}
    if len(stocks.rows):
        limits["left_inequality"], limits["right_inequality"] = stocks.rows, stocks.most
    if stocks.turnover is not None:
        limits["add_constraints"] = _turnover(stocks)
    for tolerance in _TOLERANCES:
        params = {"tol_gap_abs": tolerance, "tol_gap_rel": tolerance}
        fitted = estimator(prior_estimator=_prior(stocks, mu), solver_params=params, **limits, **options)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Solution may be inaccurate", category=UserWarning)
            try:
                return stocks.weights(_fitted(fitted, stocks))
            except UserWarning:
                continue
    raise ModelError("the solver did not come close enough to a solution; loosen the limits or look at Omega.")


def _turnover(stocks: Holdable) -> Callable[[Any], Any]:
    """Limit the sum of absolute changes; skfolio's own limit is one for each asset.

    Ratios and budgets of risk are optimised over multiples of weights: their sum is that multiple, as weights sum to 1.
    """
    cp = convex()

    def limit(w: Any) -> Any:
        return cp.norm1(w - stocks.previous * cp.sum(w)) <= stocks.turnover * cp.sum(w)

    return limit


def convex() -> Any:
    """Import cvxpy, whose types mypy cannot follow."""
    import cvxpy

    return cvxpy


def _prior(stocks: Holdable, mu: Float64Array | None) -> Any:
    from models.allocation.prior import FactorPrior

    return FactorPrior(stocks.loadings, stocks.omega, stocks.specific, mu)


def _fitted(estimator: Any, stocks: Holdable) -> Float64Array:
    """Fit an optimiser of skfolio, and return its weights (n,)."""
    return solved(lambda: np.asarray(estimator.fit(np.zeros((2, len(stocks.position)))).weights_, dtype=np.float64))


def solved(solve: Callable[[], Float64Array]) -> Float64Array:
    """Run a solver, and turn what it says of a problem that has no solution into a `ModelError`."""
    from skfolio.exceptions import OptimizationError

    cp = convex()
    try:
        found = solve()
    except (OptimizationError, cp.error.SolverError, cp.error.DCPError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ModelError(f"no weights satisfy all limits, or the solver failed: {reason}.") from error
    if not np.isfinite(found).all():
        raise ModelError("the solver gave weights that are not finite.")
    return found
