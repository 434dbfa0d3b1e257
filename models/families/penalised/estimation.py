"""A penalised regression with its penalty chosen by cross-validation, and how stable the selection is.

Here belongs what the pooled regression and the regressions per ticker share: both are batches of problems whose
cross-products are sums over weighted dates. Labels and factors belong in `model`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from models.arrays import FloatArray
from models.families.penalised.cross_validation import BlockedFolds, Rule, average_error, choose_penalty, squared_error
from models.families.penalised.moments import Moments
from models.families.penalised.path import lambda_grid, penalised_path

MomentsOf = Callable[[FloatArray], Moments]
"""Cross-products (sample, problem, ...) of the dates weighted by an array (sample, date)."""


@dataclass(frozen=True)
class Penalisation:
    """How a penalty is formed and chosen: see `PenalisedModel` for the parameters."""

    l1_ratio: float
    n_lambdas: int
    fixed: float | None
    folds: BlockedFolds
    rule: Rule
    standardise: bool
    n_bootstraps: int
    seed: int


@dataclass(frozen=True, eq=False)
class Estimate:
    """Paths, chosen penalties and stability of a batch of problems with k regressors beside the intercept.

    Attributes
    ----------
    lambdas : numpy.ndarray
        (problem, penalty) from the strongest to the weakest.
    path : numpy.ndarray
        (problem, penalty, 1 + k) in the units of the data, the intercept first.
    cv_error, cv_stderr : numpy.ndarray
        (problem, penalty) mean squared error of the tested dates, and its standard error; NaN where fewer than two
        folds can be trained and tested.
    chosen : numpy.ndarray
        (problem,) position of the chosen penalty; -1 where the errors are NaN.
    fold_frequency, bootstrap_frequency : numpy.ndarray
        (problem, k) share of the folds, and of the samples drawn by date, in which the slope is not zero at the
        chosen penalty; NaN where there are none.
    gap : numpy.ndarray
        (problem,) largest relative duality gap along the path.
    unconverged : numpy.ndarray
        (problem,) solutions of the path, folds and draws that did not reach the tolerance.
    """

    lambdas: FloatArray
    path: FloatArray
    cv_error: FloatArray
    cv_stderr: FloatArray
    chosen: npt.NDArray[np.int64]
    fold_frequency: FloatArray
    bootstrap_frequency: FloatArray
    gap: FloatArray
    unconverged: npt.NDArray[np.int64]

    def arrays(self, columns: npt.NDArray[np.intp], covered: npt.NDArray[np.bool_]) -> dict[str, npt.NDArray[Any]]:
        """Name what a model keeps, for these columns of [intercept, regressors]; NaN where not ``covered`` (problem,).

        The intercept counts as selected, always.
        """
        at_choice = np.maximum(self.chosen, 0)[:, None]
        slopes = np.take_along_axis(self.path, at_choice[..., None], axis=1)[:, 0]
        always = np.ones((len(slopes), 1))
        frequencies = {
            "selection_frequency_folds": np.concatenate([always, self.fold_frequency], axis=1)[:, columns],
            "selection_frequency_bootstrap": np.concatenate([always, self.bootstrap_frequency], axis=1)[:, columns],
        }
        found = {
            "coefficients": slopes[:, columns],
            "alpha": slopes[:, 0],
            "path": self.path[..., columns],
            "lambdas": self.lambdas,
            "cv_error": self.cv_error,
            "cv_error_stderr": self.cv_stderr,
            "chosen_lambda": np.take_along_axis(self.lambdas, at_choice, axis=1)[:, 0],
            "duality_gap": self.gap,
            **frequencies,
        }
        for name, array in found.items():
            found[name] = np.where(covered.reshape(-1, *[1] * (array.ndim - 1)), array, np.nan)
        chosen_columns = (slopes != 0.0) | (np.arange(slopes.shape[1]) == 0)
        return found | {"selected": chosen_columns[:, columns] & covered[:, None]}

    @classmethod
    def join(cls, parts: list[Self]) -> Self:
        """Put batches one after the other."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))


def estimate(moments_of: MomentsOf, n_dates: int, how: Penalisation) -> Estimate:
    """Solve all dates and all folds along one grid, side by side, choose, and draw samples at the choice.

    The grid of a problem comes from all its dates, so that a penalty means the same in every fold. Folds standardise by
    their own training dates.
    """
    train, test = (mask.astype(np.float64) for mask in how.folds.masks(n_dates))
    samples = moments_of(np.concatenate([np.ones((1, n_dates)), train]))
    quadratic = samples.quadratic(standardise=how.standardise)
    whole = quadratic.at(np.array([0]))
    if how.fixed is None:
        grid = lambda_grid(whole, how.l1_ratio, how.n_lambdas)
    else:
        grid = np.full((*whole.variance.shape, 1), how.fixed)
    path = penalised_path(quadratic, np.repeat(grid, len(train) + 1, axis=0), how.l1_ratio)
    slopes = quadratic.slopes(path.coefficients)

    tested = moments_of(test)
    tested_weight = np.where(samples.weight[1:] > 0.0, tested.weight, 0.0)
    errors = squared_error(tested.zz, tested.zr, tested.rr, slopes[1:])
    fold_error = errors / np.where(tested_weight > 0.0, tested_weight, 1.0)[..., None]
    cv_error, cv_stderr = average_error(fold_error, tested_weight)
    chosen = choose_penalty(cv_error, cv_stderr, how.rule)

    at_choice = np.maximum(chosen, 0)[:, None]
    in_folds = np.take_along_axis(path.coefficients[1:], at_choice[None, ..., None], axis=2)[:, :, 0] != 0.0
    centre = np.take_along_axis(path.coefficients[0], at_choice[..., None], axis=1)[:, 0]
    strength = np.take_along_axis(grid[0], at_choice, axis=1)
    drawn, failed = _bootstrap(moments_of, n_dates, how, centre, strength)
    return Estimate(
        lambdas=grid[0],
        path=slopes[0],
        cv_error=cv_error,
        cv_stderr=cv_stderr,
        chosen=chosen,
        fold_frequency=_frequency(in_folds, tested_weight > 0.0),
        bootstrap_frequency=drawn,
        gap=path.gap[0].max(axis=-1),
        unconverged=(~path.converged).sum(axis=(0, 2)) + failed,
    )


def bootstrap_weights(n_dates: int, n_bootstraps: int, seed: int) -> FloatArray:
    """(draw, date) how often each date is drawn, with replacement, as many draws as there are dates."""
    positions = np.random.default_rng(seed).integers(n_dates, size=(n_bootstraps, n_dates))
    counts = np.zeros((n_bootstraps, n_dates))
    np.add.at(counts, (np.arange(n_bootstraps)[:, None], positions), 1.0)
    return counts


def _bootstrap(
    moments_of: MomentsOf, n_dates: int, how: Penalisation, centre: FloatArray, strength: FloatArray
) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Share of samples drawn by date in which each slope is not zero, and how many did not converge, by problem."""
    if how.n_bootstraps == 0:
        return np.full_like(centre, np.nan), np.zeros(len(centre), dtype=np.int64)
    samples = moments_of(bootstrap_weights(n_dates, how.n_bootstraps, how.seed))
    quadratic = samples.quadratic(standardise=how.standardise)
    shape = quadratic.moment.shape
    grid, start = np.broadcast_to(strength, (*shape[:-1], 1)), np.broadcast_to(centre, shape)
    path = penalised_path(quadratic, grid, how.l1_ratio, start=start)
    frequency = _frequency(path.coefficients[:, :, 0] != 0.0, samples.weight > 0.0)
    return frequency, (~path.converged).sum(axis=(0, 2))


def _frequency(selected: npt.NDArray[np.bool_], used: npt.NDArray[np.bool_]) -> FloatArray:
    """(problem, k) share of the used samples (sample, problem) that select; NaN without one."""
    count = used.sum(axis=0)[:, None]
    total = (selected & used[..., None]).sum(axis=0)
    share: FloatArray = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return share
