"""Cyclic coordinate descent with active sets, for many elastic nets at once, from Gram matrices alone.

Here belongs the solution at one penalty. Grids of penalties, warm starts along them and duality gaps belong in `path`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.arrays import FloatArray
from models.statistics.gram import solve_gram

_CONSISTENT = 1e-6  # a part of the l1 term, smaller than this share of it, that collinear columns leave is rounding


@dataclass
class Problems:
    """Batch of elastic nets 1/2 b'Cb - c'b + l1 |b|_1 + l2/2 |b|^2, all (batch, ...); b is the current iterate.

    C and c stand for ``gram`` and ``moment``; ``fitted`` is kept equal to C b.
    """

    gram: FloatArray
    moment: FloatArray
    l1: FloatArray
    l2: FloatArray
    b: FloatArray
    fitted: FloatArray

    def keep(self, which: npt.NDArray[np.bool_]) -> Problems:
        """Only some of the problems, as copies."""
        return Problems(*(getattr(self, name)[which] for name in self.__dataclass_fields__))

    def violation(self) -> FloatArray:
        """(batch,) largest violation of the conditions of Karush, Kuhn and Tucker, in the units of c.

        With g = c - C b - l2 b: |g_j - l1 sign(b_j)| where b_j is not zero, and where it is the excess of |g_j| over
        l1.
        """
        pull = self.pull()
        l1 = self.l1[:, None]
        inside = np.maximum(np.abs(pull) - l1, 0.0)
        outside = np.abs(pull - l1 * np.sign(self.b))
        worst: FloatArray = np.where(self.b != 0.0, outside, inside).max(axis=1, initial=0.0)
        return worst

    def pull(self) -> FloatArray:
        """(batch, k) minus the gradient of the smooth part, c - C b - l2 b."""
        return self.moment - self.fitted - self.l2[:, None] * self.b


def descend(problems: Problems, tolerance: FloatArray, max_iter: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Minimise every problem until its violation is within its tolerance; solved ones leave the batch.

    One iteration is an exact solve on the active set with its signs held, without the coefficients that would
    change sign on the way (the feature-sign search of Lee, Battle, Raina and Ng 2007), and one cyclic sweep over the
    coefficients that are active or violate their condition in any problem (Friedman, Hastie and Tibshirani 2010). Both
    lower the objective; the solve makes the last digits exact, where descent alone is slow on collinear regressors.

    Parameters
    ----------
    problems : Problems
        Started at its ``b``.
    tolerance : numpy.ndarray
        (batch,).
    max_iter : int
        Limit of the iterations.

    Returns
    -------
    b, violation, n_iter : numpy.ndarray
        (batch, k), (batch,), (batch,).
    """
    b = problems.b.copy()
    violation = np.zeros(len(b))
    n_iter = np.zeros(len(b))
    todo = np.arange(len(b))
    for iteration in range(max_iter + 1):
        _settle(problems)
        found = problems.violation()
        done = found <= tolerance[todo]
        if iteration == max_iter:
            done[:] = True
        if done.any():
            place = todo[done]
            b[place], violation[place], n_iter[place] = problems.b[done], found[done], iteration
            todo = todo[~done]
            if len(todo) == 0:
                break
            problems = problems.keep(~done)
        _sweep(problems)
    return b, violation, n_iter


def _sweep(problems: Problems) -> None:
    """Minimise over one coefficient after the other, in order, among those that matter in any problem."""
    wanted = (problems.b != 0.0) | (np.abs(problems.pull()) > problems.l1[:, None])
    for j in np.flatnonzero(wanted.any(axis=0)):
        old = problems.b[:, j]
        curvature = problems.gram[:, j, j]
        partial = problems.moment[:, j] - problems.fitted[:, j] + curvature * old
        shrunk = np.sign(partial) * np.maximum(np.abs(partial) - problems.l1, 0.0)
        total = curvature + problems.l2
        new = np.divide(shrunk, total, out=np.zeros_like(shrunk), where=(total > 0.0) & (curvature > 0.0))
        problems.fitted += (new - old)[:, None] * problems.gram[:, j]
        problems.b[:, j] = new


def _settle(problems: Problems) -> None:
    """Solve on the active sets until no coefficient changes sign; each change takes one out of an active set."""
    turned = _solve_active(problems)
    while turned.any():
        part = problems.keep(turned)
        again = _solve_active(part)
        problems.b[turned], problems.fitted[turned] = part.b, part.fitted
        turned[turned] = again


def _solve_active(problems: Problems) -> npt.NDArray[np.bool_]:
    """Move towards the solution on the active set with its signs, up to the first change of sign, and say where one is.

    Where active columns are collinear and the l1 part still falls along a direction that leaves C b as it is, the move
    is along that direction instead, until a coefficient is zero and leaves the active set.
    """
    columns = np.flatnonzero((problems.b != 0.0).any(axis=0))
    if len(columns) == 0:
        return np.zeros(len(problems.b), dtype=np.bool_)
    b = problems.b[:, columns]
    active = b != 0.0
    system = problems.gram[:, columns[:, None], columns] * (active[:, :, None] & active[:, None, :])
    place = np.arange(len(columns))
    system[:, place, place] = np.where(active, system[:, place, place] + problems.l2[:, None], 1.0)
    pull = problems.pull()[:, columns] - problems.l1[:, None] * np.sign(b)
    pull = np.where(active, pull, 0.0)
    solution, rank = solve_gram(system, pull[..., None])
    step, furthest = solution[..., 0], np.ones((len(b), 1))
    flat = rank < len(columns)
    if flat.any():
        left = pull[flat] - (system[flat] @ solution[flat])[..., 0]
        falls = np.abs(left).max(axis=1, keepdims=True) > _CONSISTENT * problems.l1[flat, None]
        curvature = np.diagonal(system[flat], axis1=1, axis2=2)
        step[flat] = np.where(falls, left / curvature, step[flat])
        furthest[flat] = np.where(falls, np.inf, 1.0)
    shrinks = b * step < 0.0
    until = np.divide(-b, step, out=np.full_like(b, np.inf), where=shrinks)
    length = np.minimum(until.min(axis=1, keepdims=True), furthest)
    length = np.where(np.isfinite(length), length, 0.0)
    turns = shrinks & (until <= length)
    problems.b[:, columns] = np.where(turns, 0.0, b + length * step)
    problems.fitted = (problems.gram @ problems.b[..., None])[..., 0]
    turned: npt.NDArray[np.bool_] = np.logical_or.reduce(turns, axis=1)
    return turned
