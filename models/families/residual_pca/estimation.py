"""A principal curve of stocks in the space of their histories of standardised residuals, with gaps.

Here belong where stocks lie on the curve, and the curve. How residuals are standardised, and what becomes of them,
belongs in `model`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial.legendre import legvander

from models.arrays import BoolArray, Float64Array
from models.statistics.gram import solve_gram
from models.statistics.rowwise import cross_sections

_ROUNDS = 10
_GRID = np.linspace(-1.0, 1.0, 201)


@dataclass(frozen=True, eq=False)
class Curve:
    """Where stocks lie, and how each moves with the factors.

    Attributes
    ----------
    coordinate : numpy.ndarray
        (ticker,) place on the curve, in even steps from -1 to 1.
    loadings : numpy.ndarray
        (ticker, factor) of standardised residuals: orthogonal over stocks, each of mean square one.
    """

    coordinate: Float64Array
    loadings: Float64Array


def principal_curve(z: Float64Array, degree: int, n_factors: int, least_common: float) -> Curve | None:
    """Lay a curve through the histories of stocks; None if fewer dates than functions have stocks enough for these.

    A curve is a polynomial of the coordinate with values in the space of the n_factors directions that it moves in
    most. In rounds it is made of the places of stocks, and each stock is put where the curve is nearest to its history,
    on the dates on which this is known (Hastie and Stuetzle 1989, Principal curves, Journal of the American Statistical
    Association 84). At given places the curve is that of projected principal components: histories are regressed on
    Legendre polynomials at each date, and the principal components of the fitted values are taken (Fan, Liao and Wang
    2016, Projected principal component analysis in factor models, Annals of Statistics 44).

    The start is deterministic: the largest linear principal component of the correlations about zero, with the largest
    correlation of each stock as its communality (Thurstone 1947, Multiple-factor analysis).

    Parameters
    ----------
    z : numpy.ndarray
        (date, ticker) histories of mean square one, NaN where missing.
    degree : int
        Of the polynomials.
    n_factors : int
        At most ``degree + 1``.
    least_common : float
        Dates that two stocks must have in common; those of fewer count as uncorrelated at the start.
    """
    known = np.isfinite(z)
    filled = np.where(known, z, 0.0)
    first = np.linalg.eigh(_correlations(filled, known, least_common))[1][:, -1]
    coordinate = _even(first if (first**3).sum() > 0.0 else -first)
    for _ in range(_ROUNDS):
        made = _through(coordinate, filled, known, degree, n_factors)
        if made is None:
            return None
        slopes, usable, returns = made
        curve = returns @ (legvander(_GRID, degree) @ slopes).T
        distance = known[usable].T @ np.square(curve) - 2.0 * filled[usable].T @ curve
        coordinate = _even(_GRID[distance.argmin(axis=1)], coordinate)
    made = _through(coordinate, filled, known, degree, n_factors)
    return None if made is None else Curve(coordinate, legvander(coordinate, degree) @ made[0])


def _through(
    coordinate: Float64Array, filled: Float64Array, known: BoolArray, degree: int, n_factors: int
) -> tuple[Float64Array, BoolArray, Float64Array] | None:
    """Return slopes (power, factor) of the curve through stocks, the dates used, and factor returns on them."""
    functions, triangle = np.linalg.qr(legvander(coordinate, degree))
    gram, moment = cross_sections(functions, filled, known.astype(np.float64))
    fitted, rank = solve_gram(gram, moment[..., None])
    usable = rank == degree + 1
    if usable.sum() <= degree:
        return None
    axes = np.linalg.eigh(fitted[usable, :, 0].T @ fitted[usable, :, 0])[1][:, ::-1][:, :n_factors]
    axes = axes * np.where(((functions @ axes) ** 3).sum(axis=0) < 0.0, -1.0, 1.0)
    unit = len(coordinate) ** 0.5
    return np.linalg.solve(triangle, axes) * unit, usable, fitted[usable, :, 0] @ axes / unit


def _even(values: Float64Array, then: Float64Array | None = None) -> Float64Array:
    """Return even steps from -1 to 1 in the order of values, and of others where these are equal."""
    order = np.lexsort((values if then is None else then, values))
    steps = np.empty(len(values))
    steps[order] = np.linspace(-1.0, 1.0, len(values))
    return steps


def _correlations(filled: Float64Array, known: BoolArray, least_common: float) -> Float64Array:
    """(ticker, ticker) correlations about zero over common dates, with the largest of each stock on the diagonal."""
    there = known.astype(np.float64)
    squares = np.square(filled).T @ there
    enough = (there.T @ there >= least_common) & (squares > 0.0) & (squares.T > 0.0)
    scale = np.sqrt(np.where(enough, squares * squares.T, 1.0))
    correlations = np.where(enough, filled.T @ filled / scale, 0.0)
    np.fill_diagonal(correlations, 0.0)
    np.fill_diagonal(correlations, np.abs(correlations).max(axis=1))
    return correlations
