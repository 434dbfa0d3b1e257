"""Twins: share classes and dual listings, whose residuals move together, as sparse blocks of specific covariance.

Here belong how such stocks are found and what their blocks add to the risk of a portfolio. No stock by stock matrix is
ever held: correlations are looked at a strip at a time, and what remains is a small matrix for each block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from models.arrays import Float64Array, FloatArray, IntArray
from models.risk.repair import repaired

_STRIP = 256
_FLOOR = 0.01  # least eigenvalue of a block's correlations: a pair of twins is no free hedge


@dataclass(frozen=True, eq=False)
class SpecificBlocks:
    """Blocks of correlated residuals; all other stocks are by themselves.

    Attributes
    ----------
    members : tuple of numpy.ndarray
        Positions (member,) of the stocks of each block, ascending.
    correlations : tuple of numpy.ndarray
        (member, member) of each block, positive definite.
    """

    members: tuple[IntArray, ...]
    correlations: tuple[Float64Array, ...]

    def added_variance(self, weights: FloatArray, specific_variance: FloatArray) -> Float64Array:
        """Return what the blocks add to w'Dw (portfolio,): sum over pairs in a block of w_i w_j sigma_i sigma_j rho_ij.

        Parameters
        ----------
        weights : numpy.ndarray
            (portfolio, ticker).
        specific_variance : numpy.ndarray
            (ticker,) the diagonal of D; a member of a block without one counts as not held.
        """
        held = np.nan_to_num(weights * np.sqrt(specific_variance))
        added = np.zeros(len(held))
        for members, correlation in zip(self.members, self.correlations, strict=True):
            part = held[:, members]
            added += np.einsum("pi,ij,pj->p", part, correlation - np.eye(len(members)), part)
        return added


def linked_blocks(residuals: FloatArray, *, threshold: float = 0.7, min_observations: int = 60) -> SpecificBlocks:
    """Find stocks whose residuals are correlated by more than a threshold, and those linked through them.

    Parameters
    ----------
    residuals : numpy.ndarray
        (date, ticker) decimals per period, NaN where unknown; about zero, as specific variance is.
    threshold : float
        At 252 dates the standard error of a correlation of 0 is .06: .7 is ten of them away; twins have .9 and more.
    min_observations : int
        Dates that a pair must share.
    """
    known = np.isfinite(residuals)
    x = np.where(known, residuals, 0.0).astype(np.float64)
    seen, squares = known.astype(np.float64), np.square(x)
    rows, columns, values = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0)]
    for first in range(0, x.shape[1], _STRIP):
        strip = slice(first, first + _STRIP)
        scale = np.sqrt((squares[:, strip].T @ seen) * (seen[:, strip].T @ squares))
        shared = seen[:, strip].T @ seen
        product = x[:, strip].T @ x
        correlation = np.divide(product, scale, out=np.zeros_like(product), where=scale > 0.0)
        row, column = np.nonzero((correlation > threshold) & (shared >= min_observations))
        later = column > row + first
        rows.append(row[later] + first)
        columns.append(column[later])
        values.append(correlation[row[later], column[later]])
    return _blocks(np.concatenate(rows), np.concatenate(columns), np.concatenate(values), x.shape[1])


def _blocks(rows: IntArray, columns: IntArray, values: Float64Array, n_stocks: int) -> SpecificBlocks:
    """Join linked pairs; members that are linked through others only have a correlation of zero, before repair."""
    graph = coo_array((values, (rows, columns)), shape=(n_stocks, n_stocks))
    label = connected_components(graph, directed=False)[1]
    linked = np.unique(np.concatenate([rows, columns]))
    members, correlations = [], []
    for block in np.unique(label[linked]):
        inside = np.flatnonzero(label == block)
        correlation = np.eye(len(inside))
        own = label[rows] == block
        row, column = np.searchsorted(inside, rows[own]), np.searchsorted(inside, columns[own])
        correlation[row, column] = correlation[column, row] = values[own]
        mended = repaired(correlation, _FLOOR)[0]
        scale = 1.0 / np.sqrt(np.diagonal(mended))
        members.append(inside)
        correlations.append(mended * np.outer(scale, scale))
    return SpecificBlocks(tuple(members), tuple(correlations))
