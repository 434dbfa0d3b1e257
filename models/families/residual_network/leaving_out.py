"""What given loadings explain of a cross-section, each stock by the factor returns of all others.

Here belongs the loss on which further factors are tried. Learning loadings belongs in `models.families.profiled`.
"""

from __future__ import annotations

import numpy as np

from models.arrays import Float64Array, FloatArray
from models.families.profiled import DECIDES_ITSELF
from models.statistics.gram import solve_gram
from models.statistics.rowwise import cross_sections


def leave_one_out(loadings: FloatArray, returns: Float64Array, weights: Float64Array) -> Float64Array:
    """Mean squares of returns, and of what is left when each is explained by the factor returns of all others.

    With leverages h_i = w_i x_i'(X'WX)^-1 x_i the residual without the stock itself is (e_i - x_i'f) / (1 - h_i), so
    that nothing is fitted again (Allen 1974, The relationship between variable selection and data augmentation). A
    stock without which a factor has no return is left unexplained.

    Parameters
    ----------
    loadings : numpy.ndarray
        (date, ticker, factor)
    returns, weights : numpy.ndarray
        (date, ticker); loadings and returns are finite where the weight is positive.

    Returns
    -------
    numpy.ndarray
        (date, 2), weighted means over stocks: without factors and with them; NaN on dates without a stock.
    """
    gram, moment = cross_sections(loadings, returns, weights)
    inverse, _ = solve_gram(gram, np.broadcast_to(np.eye(gram.shape[1]), gram.shape))
    losses = np.full((len(returns), 2), np.nan)
    for date in np.flatnonzero((weights > 0.0).any(axis=1)):
        inside = weights[date] > 0.0
        rows, own, weight = loadings[date, inside].astype(np.float64), returns[date, inside], weights[date, inside]
        towards = rows @ inverse[date]
        slack = 1.0 - weight * (towards * rows).sum(axis=1)
        known = slack > DECIDES_ITSELF
        left = np.where(known, (own - towards @ moment[date]) / np.where(known, slack, 1.0), own)
        losses[date] = weight @ np.square(own) / weight.sum(), weight @ np.square(left) / weight.sum()
    return losses
