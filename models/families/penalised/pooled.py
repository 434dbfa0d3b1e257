"""The pooled penalised regression of all returns on characteristics, and the factor returns of what it selects.

Here belongs what is computed from Gram statistics by date. The estimation itself is in `estimation`.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from models.arrays import FloatArray
from models.families.penalised.estimation import Estimate, Penalisation, estimate
from models.families.penalised.moments import pooled_moments
from models.statistics.gram import GramStatistics, solve_gram
from schemas.errors import ModelError

DATE_RIDGE = 1e-3


def estimate_pooled(gram: GramStatistics, ones: int, how: Penalisation) -> tuple[Estimate, npt.NDArray[np.intp]]:
    """Estimate one regression on all dates; its folds are blocks of dates.

    Parameters
    ----------
    gram : GramStatistics
    ones : int
        Position of the column of ones.
    how : Penalisation

    Returns
    -------
    estimate : Estimate
        Of one problem.
    columns : numpy.ndarray
        (char,) where each regressor of the statistics stands in [intercept, regressors] of the estimate.

    Raises
    ------
    ModelError
        If no date has stocks, or fewer than two blocks do.
    """
    if gram.weight.sum() == 0.0:
        raise ModelError(f"No stock is in the estimation universe on any of the {len(gram.dates)} dates.")
    order = np.array([ones, *(j for j in range(len(gram.chars)) if j != ones)])
    ordered = gram.select([gram.chars[j] for j in order])
    estimated = estimate(partial(pooled_moments, ordered), len(gram.dates), how)
    if estimated.chosen[0] < 0:
        raise ModelError(
            f"Fewer than two of the {how.folds.n_folds} blocks of dates can be trained and tested: give more dates, "
            "or fewer folds."
        )
    return estimated, np.argsort(order)


def slopes_by_date(
    gram: GramStatistics, selected: npt.NDArray[np.bool_], ones: int
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Least squares at each date on the selected regressors, and ridge where they are rank deficient.

    The rule of rank is that of `solve_gram`. A deficient date is solved with ``DATE_RIDGE`` (1e-3) times the diagonal
    of Z'WZ added to it, but for the column of ones: a penalty that does not depend on the units of the
    characteristics.

    Parameters
    ----------
    gram : GramStatistics
    selected : numpy.ndarray
        (char,) which regressors enter; others get slopes of 0.
    ones : int
        Position of the column of ones.

    Returns
    -------
    slopes : numpy.ndarray
        (date, char); NaN on dates without stocks.
    ridged : numpy.ndarray
        (date,) which dates with stocks are deficient.
    """
    columns = np.flatnonzero(selected)
    zz, zr = gram.zz[:, columns[:, None], columns], gram.zr[:, columns, None]
    solution, rank = solve_gram(zz, zr)
    ridged = (gram.n > 0) & (rank < len(columns))
    if ridged.any():
        deficient = zz[ridged]
        place = np.arange(len(columns))
        deficient[:, place, place] *= np.where(columns == ones, 1.0, 1.0 + DATE_RIDGE)
        solution[ridged] = solve_gram(deficient, zr[ridged])[0]
    slopes = np.zeros(gram.zr.shape)
    slopes[:, columns] = solution[..., 0]
    slopes[gram.n == 0] = np.nan
    return slopes, ridged
