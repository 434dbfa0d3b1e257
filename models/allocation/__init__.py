"""From a risk model to weights: allocations that see the covariance of stocks as X Omega X' + D.

==========================================  ============================
say what weights may be                      `models.allocation.constraints`
hand a risk model to skfolio                 `models.allocation.prior`
allocate through skfolio                     `models.allocation.optimised`
give factors equal shares of risk            `models.allocation.factor_parity`
draw the efficient frontier                  `models.allocation.frontier`
allocate as a config says                    `models.allocation.allocate`
==========================================  ============================

Weights by rule, without an optimiser, belong in `models.portfolios`. skfolio and cvxpy take seconds to import, and are
imported when the first allocation is made.
"""

from models.allocation.allocate import allocate
from models.allocation.constraints import Constraints
from models.allocation.factor_parity import factor_risk_parity
from models.allocation.frontier import efficient_frontier
from models.allocation.optimised import (
    hierarchical_risk_parity,
    maximum_diversification,
    mean_variance,
    minimum_variance,
    risk_parity,
)

__all__ = [
    "Constraints",
    "allocate",
    "efficient_frontier",
    "factor_risk_parity",
    "hierarchical_risk_parity",
    "maximum_diversification",
    "mean_variance",
    "minimum_variance",
    "risk_parity",
]
