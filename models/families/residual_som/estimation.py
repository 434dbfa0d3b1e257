"""A self-organising map of stocks by the histories of their standardised residuals.

Here belongs what follows from histories with gaps alone: the start, the rounds and the slopes. How residuals are
standardised, and what becomes of the map, belongs in `model`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from models.arrays import BoolArray, Float64Array, IntArray

_ROUNDS = 30
_MOST_FURTHER = 100
_ALONE = 1e-9  # weight of all other stocks below which a node has no series


@dataclass(frozen=True, eq=False)
class Map:
    """Where stocks lie on the grid, and how each moves with the nodes.

    Attributes
    ----------
    node : numpy.ndarray
        (ticker,) the node whose series is most like the history of the stock.
    weights : numpy.ndarray
        (ticker, node) of the stock in the mean of the node.
    memberships : numpy.ndarray
        (ticker, node) how near each node is to that of the stock; they sum to one.
    slopes : numpy.ndarray
        (ticker, node) of the history on the series that the other stocks give the node.
    """

    node: IntArray
    weights: Float64Array
    memberships: Float64Array
    slopes: Float64Array


def organise(z: Float64Array, rows: int, columns: int, width: float) -> Map:
    """Organise stocks on a grid by a batch self-organising map (Kohonen 2013, Essentials of the self-organizing map).

    The series of a node is the mean of the histories of stocks, weighted by a normal kernel of the distance on the grid
    from the node of the stock; the node of a stock is that with the nearest series. The kernel narrows from half the
    grid to ``width`` in rounds of equal ratio, and then rounds go on until no stock moves.

    Near is in terms of 1 - correlation about zero, over the dates on which the history is known: histories have equal
    scale, the series of nodes have not. For each stock series are of the other stocks alone. Otherwise its own noise
    would hold it where it is, the more so the fewer stocks a node has.

    The start is deterministic: the grid is laid over the plane of the two largest principal components.

    Parameters
    ----------
    z : numpy.ndarray
        (date, ticker) histories of mean square one, NaN where missing.
    rows, columns : int
        Of the grid.
    width : float
        Last width of the kernel, in steps of the grid.
    """
    known = np.isfinite(z)
    filled = np.where(known, z, 0.0)
    apart = _distances(rows, columns)
    node = _start(filled, rows, columns)
    widest = max(rows, columns, 2.0 * width) / 2.0
    for kernel in width * (widest / width) ** np.linspace(1.0, 0.0, _ROUNDS):
        node = _nearest(filled, known, _weights(apart[node], kernel))
    for _ in range(_MOST_FURTHER):
        before, node = node, _nearest(filled, known, _weights(apart[node], width))
        if np.array_equal(before, node):
            break
    weights, near = _weights(apart[node], width), _kernel(apart[node], width)
    moments = _moments(filled, known, weights)
    slopes = np.column_stack([product / np.where(square > 0.0, square, 1.0) for product, square in moments])
    return Map(node, weights, near / near.sum(axis=1, keepdims=True), slopes)


def _distances(rows: int, columns: int) -> Float64Array:
    """(node, node) squared distances on the grid."""
    places = np.stack(np.divmod(np.arange(rows * columns), columns), axis=1)
    squared: Float64Array = np.square(places[:, None] - places).sum(axis=2).astype(np.float64)
    return squared


def _kernel(squared: Float64Array, width: float) -> Float64Array:
    kernel: Float64Array = np.exp(-squared / (2.0 * width**2))
    return kernel


def _weights(squared: Float64Array, width: float) -> Float64Array:
    """Weights (ticker, node) in the means of nodes, 1 for the stocks nearest to a node: none is a mean of nothing."""
    return _kernel(squared - squared.min(axis=0), width)


def _start(filled: Float64Array, rows: int, columns: int) -> IntArray:
    """Lay the grid over the scores of stocks on two components, two standard deviations to either side."""
    scores = np.linalg.svd(filled, full_matrices=False)[2][:2].T
    cubes = (scores**3).sum(axis=0)
    scores = scores * np.where(cubes < 0.0, -1.0, 1.0) / np.sqrt(np.square(scores).mean(axis=0))
    longer, shorter = (rows, columns) if rows >= columns else (columns, rows)
    first, second = _steps(scores[:, 0], longer), _steps(scores[:, 1], shorter)
    return first * columns + second if rows >= columns else second * columns + first


def _steps(scores: Float64Array, size: int) -> IntArray:
    """Position among so many equal steps from -2 to 2."""
    found: IntArray = np.clip(np.floor((scores + 2.0) / 4.0 * size), 0, size - 1).astype(np.int64)
    return found


def _nearest(filled: Float64Array, known: BoolArray, weights: Float64Array) -> IntArray:
    moments = _moments(filled, known, weights)
    likeness = np.column_stack([product / np.sqrt(np.where(square > 0.0, square, 1.0)) for product, square in moments])
    nearest: IntArray = likeness.argmax(axis=1)
    return nearest


def _moments(
    filled: Float64Array, known: BoolArray, weights: Float64Array
) -> Iterator[tuple[Float64Array, Float64Array]]:
    """Give for each node sums over the known dates of a stock: its history times the series of the others, and squares.

    Parameters
    ----------
    filled, known : numpy.ndarray
        (date, ticker) histories, zero where missing, and where they are known.
    weights : numpy.ndarray
        (ticker, node) of the histories in the series.
    """
    for own in weights.T:
        series = means_of_others(filled, known, own)
        yield (filled * series).sum(axis=0), np.square(series).sum(axis=0)


def means_of_others(filled: Float64Array, known: BoolArray, weights: Float64Array) -> Float64Array:
    """Weighted mean of all other stocks at each date, for each stock where it is known: (date, ticker), else zero.

    Parameters
    ----------
    filled, known : numpy.ndarray
        (date, ticker) values, zero where missing, and where they are known.
    weights : numpy.ndarray
        (ticker,)
    """
    weighted = filled * weights
    mass = (known @ weights)[:, None] - known * weights
    total = weighted.sum(axis=1, keepdims=True) - weighted
    enough = known & (mass > _ALONE)
    return np.where(enough, total / np.where(enough, mass, 1.0), 0.0)
