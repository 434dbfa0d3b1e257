"""Do two forecasts lose the same? Diebold and Mariano's test of two series of losses on the same dates.

Which losses is the caller's choice: QLIKE of the same portfolios, minus the log-likelihood of cross-sections, squared
residuals. The choice among many models belongs in `models.evaluation.superiority`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from models.arrays import Float64Array
from models.inference.regression import automatic_lags, newey_west_covariance
from schemas.errors import DataError


@dataclass(frozen=True)
class DieboldMariano:
    """Test of equal expected loss.

    Attributes
    ----------
    difference : float
        Mean of the first loss less the second; negative if the first forecast is better.
    statistic : float
        It over its standard error, with the small-sample correction; NaN if there are fewer than two dates.
    p_value : float
        Two-sided.
    p_worse : float
        One-sided, of the hypothesis that the first is not worse: small if it is significantly worse.
    n_dates : int
        Dates on which both losses are known.
    """

    difference: float
    statistic: float
    p_value: float
    p_worse: float
    n_dates: int


def diebold_mariano(
    one: Float64Array, other: Float64Array, *, horizon: int = 1, lags: int | None = None
) -> DieboldMariano:
    """Test whether two forecasts lose the same (Diebold and Mariano 1995).

    The variance of the mean difference is that of Newey and West; the statistic is multiplied by
    sqrt((T + 1 - 2h + h (h - 1) / T) / T) and compared with Student's t with T - 1 degrees of freedom (Harvey,
    Leybourne and Newbold 1997).

    Parameters
    ----------
    one, other : numpy.ndarray
        (date,) losses in order of time, lower is better. Dates on which one is not known are left out.
    horizon : int
        h, periods that a forecast looks ahead: losses of overlapping forecasts depend on each other over h - 1 lags.
    lags : int, optional
        By default `automatic_lags` of the dates, or h - 1 if that is more.

    Returns
    -------
    DieboldMariano
        With a statistic of 0 where the losses are the same, and infinite where they differ by a constant.

    Raises
    ------
    DataError
        If the two are not of one length.

    Examples
    --------
    >>> import numpy as np
    >>> from models import diebold_mariano
    >>> rng = np.random.default_rng(0)
    >>> diebold_mariano(rng.normal(0.0, 1.0, 200), rng.normal(1.0, 1.0, 200)).p_value < 0.01
    True
    """
    if np.shape(one) != np.shape(other):
        raise DataError(f"Losses of {len(one)} and {len(other)} dates: both are needed on the same ones.")
    apart = np.asarray(one - other, dtype=np.float64)
    apart = apart[np.isfinite(apart)]
    n = len(apart)
    if n < 2:
        return DieboldMariano(float(apart.mean()) if n else math.nan, math.nan, math.nan, math.nan, n)
    used = max(automatic_lags(n), horizon - 1) if lags is None else lags
    mean = float(apart.mean())
    variance = float(newey_west_covariance(apart[:, None], min(used, n - 1))[0, 0])
    if variance <= np.finfo(np.float64).eps * mean**2:
        statistic = math.copysign(math.inf, mean) if mean else 0.0
    else:
        statistic = mean / math.sqrt(variance)
        statistic *= math.sqrt(max(n + 1.0 - 2.0 * horizon + horizon * (horizon - 1.0) / n, 0.0) / n)
    both, worse = 2.0 * float(stats.t.sf(abs(statistic), n - 1)), float(stats.t.sf(statistic, n - 1))
    return DieboldMariano(mean, statistic, both, worse, n)
