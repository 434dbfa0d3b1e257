"""Penalised regressions of every ticker on observed factors, side by side.

Here belongs the way from the panel's rows to one problem per ticker. The estimation itself is in `estimation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from models.arrays import FloatArray
from models.families.penalised.estimation import Estimate, Penalisation, estimate
from models.families.penalised.moments import ticker_moments
from models.panel import Panel
from schemas.errors import ModelError

_CELLS_IN_FLIGHT = 4_000_000  # float64 cells of cross-products and paths held at once: 32 MB


def estimate_tickers(
    panel: Panel, names: Sequence[str], min_observations: int, how: Penalisation
) -> tuple[Estimate, npt.NDArray[np.int64], FloatArray]:
    """Estimate all tickers, a span of them at a time, so that memory does not grow with their number.

    Dates without one of the factors do not enter, nor count in the folds.

    Returns
    -------
    estimate : Estimate
        One problem per ticker.
    n_obs : numpy.ndarray
        (ticker,) number of returns.
    premia : numpy.ndarray
        (factor,) means of the factors over the dates that enter.

    Raises
    ------
    ModelError
        If no ticker has ``min_observations`` returns on these dates.
    """
    factors = panel.observed(names)
    dated = np.flatnonzero(np.isfinite(factors).all(axis=1))
    factors = factors[dated]
    known = panel.mask.values[dated]
    n_obs = known.sum(axis=0, dtype=np.int64)
    if n_obs.max(initial=0) < min_observations:
        raise ModelError(
            f"No ticker has min_observations={min_observations} returns on the {len(dated)} dates with all of "
            f"{', '.join(names)}; the longest history has {int(n_obs.max(initial=0))}. Lower min_observations, or give "
            "more dates."
        )
    design = np.column_stack([np.ones(len(dated)), factors])
    returns = np.where(known, panel.returns.values[dated], 0.0)
    samples = max(how.n_bootstraps, how.folds.n_folds + 1)
    cells = samples * design.shape[1] ** 2 + (how.folds.n_folds + 1) * how.n_lambdas * design.shape[1]
    step = max(1, _CELLS_IN_FLIGHT // cells)
    parts = []
    for start in range(0, known.shape[1], step):
        span = slice(start, start + step)
        moments_of = partial(ticker_moments, design, returns[:, span], known[:, span])
        parts.append(estimate(moments_of, len(dated), how))
    return Estimate.join(parts), n_obs, factors.mean(axis=0)
