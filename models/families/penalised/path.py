"""Ridge, lasso and elastic net along a grid of penalties, and the certificate of each solution.

Here belong the grid, the path, and the duality gap. The solution at one penalty belongs in `descent`, the choice among
penalties in `estimation`.

The objective is that of scikit-learn's ``ElasticNet`` and ``Lasso``, with lambda for its ``alpha`` and n the sum of
weights (scikit-learn scales sample weights to sum to the number of rows, which gives the same)::

    |r - Z b|^2_W / (2 n) + lambda * l1_ratio * |b|_1 + lambda * (1 - l1_ratio) / 2 * |b|^2_2

Ridge is l1_ratio 0: it equals scikit-learn's ``Ridge(alpha=n * lambda)``, whose objective is not divided by 2 n.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.arrays import FloatArray
from models.families.penalised.descent import Problems, descend
from models.families.penalised.moments import Quadratic

TOLERANCE = 1e-10
MAX_ITER = 1000
_SHORTEST = 1e-3  # weakest penalty over the strongest, as in scikit-learn
_RIDGE_SPAN = (1e3, 1e-5)  # ridge penalties over the mean variance of the regressors


@dataclass(frozen=True, eq=False)
class Path:
    """Solutions along a path.

    Attributes
    ----------
    coefficients : numpy.ndarray
        (..., penalty, k) in the coordinates of the quadratic form: see `Quadratic.slopes`.
    violation : numpy.ndarray
        (..., penalty) largest violation of the optimality conditions, over the largest |moment|.
    gap : numpy.ndarray
        (..., penalty) by how much the objective can at most be above its minimum, over half the variance of the
        response; not a bound at penalty 0.
    n_iter : numpy.ndarray
        (..., penalty) sweeps.
    converged : numpy.ndarray
        (..., penalty) whether the violation is within the tolerance.
    """

    coefficients: FloatArray
    violation: FloatArray
    gap: FloatArray
    n_iter: FloatArray
    converged: npt.NDArray[np.bool_]


def lambda_grid(quadratic: Quadratic, l1_ratio: float, n_lambdas: int) -> FloatArray:
    """Penalties (..., penalty) of each problem, falling geometrically.

    With an l1 part from the least penalty at which every slope is zero, max |moment| / l1_ratio, to a thousandth of
    it, as scikit-learn does. Ridge shrinks in proportion to the variance of the regressors and never to zero: from
    1000 times their mean variance to 1e-5 of it.
    """
    if l1_ratio > 0.0:
        first = np.abs(quadratic.moment).max(axis=-1, initial=0.0) / l1_ratio
        ratio = _SHORTEST
    else:
        diagonal = np.diagonal(quadratic.gram, axis1=-2, axis2=-1)
        varying = np.maximum((quadratic.scale > 0.0).sum(axis=-1), 1)
        first = _RIDGE_SPAN[0] * diagonal.sum(axis=-1) / varying
        ratio = _RIDGE_SPAN[1] / _RIDGE_SPAN[0]
    grid: FloatArray = first[..., None] * np.geomspace(1.0, ratio, n_lambdas)
    return grid


def penalised_path(
    quadratic: Quadratic,
    lambdas: FloatArray,
    l1_ratio: float,
    *,
    start: FloatArray | None = None,
    tol: float = TOLERANCE,
    max_iter: int = MAX_ITER,
) -> Path:
    """Solve a batch of problems along their penalties, each from the solution before.

    Parameters
    ----------
    quadratic : Quadratic
        (...) problems.
    lambdas : numpy.ndarray
        (..., penalty) from the strongest to the weakest; not negative.
    l1_ratio : float
        0 is ridge, solved by one eigendecomposition per problem for all penalties; 1 is lasso.
    start : numpy.ndarray, optional
        (..., k) where the first solution is sought from. Default: zero.
    tol : float
        Largest violation of the optimality conditions, over the largest |moment| of the problem.
    max_iter : int
        Limit of the sweeps at each penalty.
    """
    shape, size = quadratic.moment.shape[:-1], quadratic.moment.shape[-1]
    gram, moment = quadratic.gram.reshape(-1, size, size), quadratic.moment.reshape(-1, size)
    grid = lambdas.reshape(len(gram), -1)
    if l1_ratio == 0.0:
        solved: FloatArray = _ridge(gram, moment, grid)
        pull = moment[:, None] - solved @ gram - grid[..., None] * solved
        violation: FloatArray = np.abs(pull).max(axis=-1, initial=0.0)
        n_iter: FloatArray = np.zeros(grid.shape)
    else:
        varies = np.diagonal(gram, axis1=1, axis2=2) > 0.0
        first = np.zeros_like(moment) if start is None else np.where(varies, start.reshape(-1, size), 0.0)
        solved, violation, n_iter = _descend_along(gram, moment, grid, l1_ratio, first, tol, max_iter)
    largest = np.abs(moment).max(axis=-1, initial=0.0)[:, None]
    relative = np.divide(violation, largest, out=np.zeros_like(violation), where=largest > 0.0)
    gap = _relative_gap(gram, moment, quadratic.variance.reshape(-1, 1), solved, grid, l1_ratio)

    def shaped(array: FloatArray) -> FloatArray:
        return array.reshape(*shape, *array.shape[1:])

    return Path(shaped(solved), shaped(relative), shaped(gap), shaped(n_iter), shaped(relative) <= tol)


def _ridge(gram: FloatArray, moment: FloatArray, grid: FloatArray) -> FloatArray:
    """(batch, penalty, k) (C + lambda)^-1 c of all penalties from the spectrum of C; minimum norm where singular."""
    values, vectors = np.linalg.eigh(gram)
    rotated = (moment[:, None] @ vectors)[:, 0]
    floor = len(moment[0]) * np.finfo(float).eps * values[:, -1:, None].swapaxes(1, 2)
    shifted = np.maximum(values, 0.0)[:, None] + grid[..., None]
    inverse = np.divide(1.0, shifted, out=np.zeros_like(shifted), where=shifted > floor)
    solved: FloatArray = (rotated[:, None] * inverse) @ vectors.transpose(0, 2, 1)
    return solved


def _descend_along(
    gram: FloatArray,
    moment: FloatArray,
    grid: FloatArray,
    l1_ratio: float,
    start: FloatArray,
    tol: float,
    max_iter: int,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Coordinate descent at one penalty after the other, warm started."""
    solved = np.empty((*grid.shape, moment.shape[1]))
    violation, n_iter = np.empty(grid.shape), np.empty(grid.shape)
    tolerance = tol * np.abs(moment).max(axis=1, initial=0.0)
    b = start
    for position in range(grid.shape[1]):
        strength = grid[:, position]
        fitted = (gram @ b[..., None])[..., 0]
        problems = Problems(gram, moment, strength * l1_ratio, strength * (1.0 - l1_ratio), b.copy(), fitted)
        b, violation[:, position], n_iter[:, position] = descend(problems, tolerance, max_iter)
        solved[:, position] = b
    return solved, violation, n_iter


def _relative_gap(
    gram: FloatArray, moment: FloatArray, variance: FloatArray, solved: FloatArray, grid: FloatArray, l1_ratio: float
) -> FloatArray:
    """(batch, penalty) duality gap over variance / 2, from the same statistics.

    With an l1 part that of the elastic net with the residual, scaled into the dual feasible set, as dual point; for
    ridge the bound |gradient|^2 / (2 lambda) of a strongly convex objective.
    """
    l1, l2 = l1_ratio * grid, (1.0 - l1_ratio) * grid
    fitted = solved @ gram
    pull = moment[:, None] - fitted - l2[..., None] * solved
    if l1_ratio == 0.0:
        gap = np.divide(np.square(pull).sum(axis=-1), 2.0 * l2, out=np.zeros_like(l2), where=l2 > 0.0)
    else:
        product = (solved * moment[:, None]).sum(axis=-1)
        squares = variance - 2.0 * product + (solved * fitted).sum(axis=-1)
        steepest = np.abs(pull).max(axis=-1, initial=0.0)
        shrink = np.divide(l1, steepest, out=np.ones_like(l1), where=steepest > l1)
        gap = 0.5 * (1.0 + shrink**2) * (squares + l2 * np.square(solved).sum(axis=-1))
        gap += l1 * np.abs(solved).sum(axis=-1) - shrink * (variance - product)
    half = np.broadcast_to(variance / 2.0, gap.shape)
    relative: FloatArray = np.divide(gap, half, out=np.zeros_like(gap), where=half > 0.0)
    return relative
