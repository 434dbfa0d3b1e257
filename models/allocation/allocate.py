"""An allocation as a spec says: from the rows of one date to weights.

Here belongs the choice among methods. Reading a published version and publishing weights belong in `tasks`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import xarray as xr

from models.allocation import factor_parity, optimised
from models.allocation.constraints import Constraints
from models.risk.portfolio import RiskModel
from schemas.allocation import AllocationSpec
from schemas.errors import ModelError


def allocate(
    model: RiskModel,
    spec: AllocationSpec,
    *,
    expected_returns: xr.DataArray | None = None,
    previous: xr.DataArray | None = None,
    industries: Mapping[str, Collection[str]] | None = None,
) -> xr.DataArray:
    """Make weights by the method of a spec, within its limits.

    Parameters
    ----------
    model : RiskModel
        Without dates.
    spec : AllocationSpec
    expected_returns : xarray.DataArray, optional
        (ticker) per period; `mean_variance` needs it.
    previous : xarray.DataArray, optional
        (ticker) weights held until now; without it turnover has no limit.
    industries : mapping, optional
        Tickers of each industry, by its name; limits of a group without tickers need it.

    Returns
    -------
    xarray.DataArray
        (ticker) float64, summing to 1; 0 where a ticker is not held or cannot be.

    Raises
    ------
    ConfigError
        If there is no such industry or factor as a limit is of.
    DataError, ModelError
        As `models.allocation.minimum_variance`; ModelError also if there are no expected returns for `mean_variance`.

    Examples
    --------
    >>> from models import allocate
    >>> from models.risk.example import example_risk
    >>> from schemas.allocation import AllocationSpec
    >>> model = example_risk()
    >>> allocate(model, AllocationSpec(name="low_risk", method="minimum_variance")).values.round(2).tolist()
    [0.3, 0.17, 0.41, 0.11]
    """
    limits = Constraints(
        long_only=spec.long_only,
        cap=spec.cap,
        previous=previous,
        max_turnover=None if previous is None else spec.max_turnover,
        groups={**(industries or {}), **{one.name: one.tickers for one in spec.groups if one.tickers is not None}},
        group_limits={one.name: one.range for one in spec.groups},
        exposure_limits={one.factor: one.range for one in spec.exposures},
    )
    match spec.method:
        case "minimum_variance":
            return optimised.minimum_variance(model, limits)
        case "maximum_diversification":
            return optimised.maximum_diversification(model, limits)
        case "risk_parity":
            return optimised.risk_parity(model, limits)
        case "factor_risk_parity":
            return factor_parity.factor_risk_parity(model, limits)
        case "hierarchical_risk_parity":
            return optimised.hierarchical_risk_parity(model, limits)
        case "mean_variance":
            if expected_returns is None:
                raise ModelError("mean_variance needs expected returns, which this model does not have.")
            return optimised.mean_variance(model, expected_returns, limits, risk_aversion=spec.risk_aversion)
