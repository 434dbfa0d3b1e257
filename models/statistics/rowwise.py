"""Products over stocks and characteristics whose bits depend on one row of a panel alone.

BLAS rounds a row of a product according to how many rows there are, and a sum according to where its terms lie. Here
belong the products that a row by itself gives with the bits that it has in a panel, whatever dates lie around it and
whichever stocks that do not enter stand on its axis. Sums of squares and cross-products are `gram`'s.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from models.arrays import BoolArray, Float64Array, FloatArray, IntArray


def covered_product(values: FloatArray, covered: BoolArray, matrix: FloatArray) -> Float64Array:
    """Multiply the rows of covered stocks by a matrix, each date by itself.

    Parameters
    ----------
    values : numpy.ndarray
        (date, ticker, char), finite where covered.
    covered : numpy.ndarray
        (date, ticker)
    matrix : numpy.ndarray
        (char, factor)

    Returns
    -------
    numpy.ndarray
        (date, ticker, factor) in float64; NaN where not covered.
    """
    matrix = np.ascontiguousarray(matrix, dtype=np.float64)
    return covered_values(values, covered, lambda rows: rows.astype(np.float64) @ matrix, matrix.shape[1])


def covered_values(
    values: FloatArray, covered: BoolArray, function: Callable[[FloatArray], FloatArray], width: int
) -> Float64Array:
    """Apply a function of one cross-section to the rows of covered stocks, each date by itself.

    Parameters
    ----------
    values : numpy.ndarray
        (date, ticker, char), finite where covered.
    covered : numpy.ndarray
        (date, ticker)
    function : callable
        Takes (stock, char) of a date with a stock, and returns (stock, factor).
    width : int
        Number of factors.

    Returns
    -------
    numpy.ndarray
        (date, ticker, factor) in float64; NaN where not covered.
    """
    found = np.full((*covered.shape, width), np.nan)
    for date, inside in enumerate(covered):
        if inside.any():
            found[date, inside] = function(values[date, inside])
    return found


def ordered_product(values: FloatArray, matrix: FloatArray) -> Float64Array:
    """Multiply (row, char) by (char, factor), one characteristic after the other; for few or short rows."""
    product = np.zeros((len(values), matrix.shape[1]))
    for column, slopes in zip(values.T, matrix, strict=True):
        product += column[:, None].astype(np.float64) * slopes
    return product


def moments_by_pattern(
    values: FloatArray, returns: FloatArray, known: BoolArray, weights: FloatArray
) -> tuple[Float64Array, Float64Array, IntArray]:
    """Return X'WX for each set of known stocks that there is, and X'Wr of each date, for loadings of all dates.

    Most dates know the same stocks as the one before: their sums are taken once.

    Parameters
    ----------
    values, weights : numpy.ndarray
        (ticker, factor) and (ticker,), finite.
    returns, known : numpy.ndarray
        (date, ticker); returns are finite where known.

    Returns
    -------
    gram : numpy.ndarray
        (pattern, factor, factor)
    moment : numpy.ndarray
        (date, factor)
    pattern : numpy.ndarray
        (date,) position of each date's set.
    """
    _, first, pattern = np.unique(np.packbits(known, axis=1), axis=0, return_index=True, return_inverse=True)
    pattern = pattern.reshape(-1)
    gram, moment = np.empty((len(first), values.shape[1], values.shape[1])), np.empty((len(known), values.shape[1]))
    before = -1
    for date in np.argsort(pattern, kind="stable"):
        inside = known[date]
        if pattern[date] != before:
            before = pattern[date]
            rows = values[inside].astype(np.float64, copy=False)
            weighted = (rows * weights[inside, None]).T
            gram[before] = weighted @ rows
        moment[date] = weighted @ returns[date, inside]
    return gram, moment, pattern


def cross_sections(values: FloatArray, returns: FloatArray, weights: FloatArray) -> tuple[Float64Array, Float64Array]:
    """Return X'WX and X'Wr of each date, over the stocks of positive weight.

    Parameters
    ----------
    values : numpy.ndarray
        (date, ticker, factor) loadings, or (ticker, factor) if they are the same on every date.
    returns, weights : numpy.ndarray
        (date, ticker); values and returns are finite where the weight is positive.

    Returns
    -------
    gram : numpy.ndarray
        (date, factor, factor) in float64.
    moment : numpy.ndarray
        (date, factor) in float64.
    """
    n_dates, size = len(returns), values.shape[-1]
    gram, moment = np.empty((n_dates, size, size)), np.empty((n_dates, size))
    for date in range(n_dates):
        inside = np.flatnonzero(weights[date] > 0.0)  # positions are taken in half the time that a mask takes
        rows = (values if values.ndim == 2 else values[date]).take(inside, axis=0).astype(np.float64, copy=False)
        weighted = (rows * weights[date].take(inside)[:, None]).T
        gram[date] = weighted @ rows
        moment[date] = weighted @ returns[date].take(inside).astype(np.float64, copy=False)
    return gram, moment
