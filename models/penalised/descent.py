"""Cyclic coordinate descent with active sets, for many elastic nets at once, from Gram matrices alone.

Here belongs the solution at one penalty. Grids of penalties, warm starts along them and duality gaps belong in `path`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.base import FloatArray
from models.gram import solve_gram


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

    One iteration is an exact solve on the active set with its signs held, shortened at the first coefficient that
    would change sign (the feature-sign search of Lee, Battle, Raina and Ng 2007), and one cyclic sweep over the
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
        _solve_active(problems)
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


def _solve_active(problems: Problems) -> None:
    """Move towards the solution on the active set with its signs, up to the first change of sign.

    A problem whose active columns are collinear stays where it is.
    """
    columns = np.flatnonzero((problems.b != 0.0).any(axis=0))
    if len(columns) == 0:
        return
    b = problems.b[:, columns]
    active = b != 0.0
    system = problems.gram[:, columns[:, None], columns] * (active[:, :, None] & active[:, None, :])
    place = np.arange(len(columns))
    system[:, place, place] = np.where(active, system[:, place, place] + problems.l2[:, None], 1.0)
    target = np.where(active, problems.moment[:, columns] - problems.l1[:, None] * np.sign(b), 0.0)
    solution, rank = solve_gram(system, target[..., None])
    step = solution[..., 0] - b
    turns = active & (np.sign(solution[..., 0]) != np.sign(b))
    length = np.where(turns, np.divide(-b, step, out=np.ones_like(b), where=turns), 1.0)
    shortest = length.min(axis=1, keepdims=True)
    moved = np.where(turns & (length == shortest), 0.0, b + shortest * step)
    problems.b[:, columns] = np.where((rank == len(columns))[:, None], moved, b)
    problems.fitted = (problems.gram @ problems.b[..., None])[..., 0]
