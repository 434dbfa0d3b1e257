"""Wild residual bootstrap by date of Gamma_alpha, of observed factors and of each characteristic.

Here belong the tests of Kelly, Pruitt and Su (2019), section 3.3, from per-date moments alone: managed portfolios are
redrawn and Gamma is estimated again, never a return of a stock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from models.arrays import FloatArray
from models.families.ipca.iteration import Solution, iterate, orthonormal
from models.families.ipca.steps import Moments

_MEMORY = 10  # of the Anderson acceleration
_FREEDOM = 5  # of Student's t of the wild weights


@dataclass(frozen=True, eq=False)
class BootstrapTest:
    """Tests of several hypotheses, each on its own.

    Attributes
    ----------
    statistic : numpy.ndarray
        (test,) sum of squares of the tested coefficients at the estimate.
    draws : numpy.ndarray
        (draw, test) the same in samples drawn under the hypothesis that they are zero.
    n_unsettled : int
        Draws whose iterations stopped at the limit; they are counted as they are. Of all tests that were run together.
    """

    statistic: FloatArray
    draws: FloatArray
    n_unsettled: int

    @property
    def p_value(self) -> FloatArray:
        """(test,) share of draws at least as large, the estimate counted as one: (1 + #) / (1 + draws), never zero."""
        larger: FloatArray = (self.draws >= self.statistic).sum(axis=0)
        return (1.0 + larger) / (1.0 + len(self.draws))

    def select(self, tests: slice) -> BootstrapTest:
        """Only these tests."""
        return replace(self, statistic=self.statistic[tests], draws=self.draws[:, tests])


def given_test(
    moments: Moments, coefficients: FloatArray, n_draws: int, seed: int, max_iter: int, tol: float
) -> BootstrapTest:
    """Test of each given series: Gamma_alpha = 0 by W = Gamma_alpha'Gamma_alpha, and observed factors alike.

    Parameters
    ----------
    moments : Moments
        Of the fit.
    coefficients : numpy.ndarray
        (char, K + M) estimate, Gamma_beta orthonormal and the rest orthogonal to it.
    n_draws, seed : int
    max_iter, tol : int, float
        Of each estimation; they are warm started from the estimate.
    """
    tests = range(moments.n_factors, coefficients.shape[1])
    nulls = [_without(coefficients, (slice(None), column)) for column in tests]
    statistics = [_column_square(column) for column in tests]
    return _bootstrap(moments, coefficients, nulls, statistics, n_draws, seed, max_iter, tol)


def characteristic_test(
    moments: Moments, coefficients: FloatArray, n_draws: int, seed: int, max_iter: int, tol: float
) -> BootstrapTest:
    """Test of each characteristic: row l of Gamma_beta is zero, by W = gamma_l'gamma_l; parameters as `given_test`."""
    k = moments.n_factors
    rows = range(len(coefficients))
    nulls = [_without(coefficients, (row, slice(0, k))) for row in rows]
    statistics = [_row_square(row, k) for row in rows]
    return _bootstrap(moments, coefficients, nulls, statistics, n_draws, seed, max_iter, tol)


def _without(coefficients: FloatArray, part: tuple[int | slice, int | slice]) -> FloatArray:
    null = coefficients.copy()
    null[part] = 0.0
    return null


def _column_square(column: int) -> Callable[[FloatArray], float]:
    return lambda coefficients: float(np.square(coefficients[:, column]).sum())


def _row_square(row: int, n_factors: int) -> Callable[[FloatArray], float]:
    return lambda coefficients: float(np.square(coefficients[row, :n_factors]).sum())


def _bootstrap(
    moments: Moments,
    coefficients: FloatArray,
    nulls: Sequence[FloatArray],
    statistics: Sequence[Callable[[FloatArray], float]],
    n_draws: int,
    seed: int,
    max_iter: int,
    tol: float,
) -> BootstrapTest:
    """Draw x*[t] = Z'Z Gamma_0 f[t] / n + q[t] d[s(t)] under each hypothesis, and estimate again.

    d = Z'e / n are the residuals of the managed portfolios, s(t) a date drawn with replacement, q[t] Student's t with
    5 degrees of freedom scaled to unit variance. All hypotheses see the same q and s.
    """
    regressors, kept, _ = moments.project(coefficients)
    n = np.maximum(moments.n, 1)[:, None]
    known = np.flatnonzero(kept)
    residuals = moments.residual_moments(coefficients, regressors)[known] / n[known]
    systematic = [moments.zr - moments.residual_moments(null, regressors) for null in nulls]
    rng = np.random.default_rng(seed)
    draws, unsettled = np.empty((n_draws, len(nulls))), 0
    start = orthonormal(coefficients, moments.n_factors)
    for draw in range(n_draws):
        weights = rng.standard_t(_FREEDOM, len(n)) / np.sqrt(_FREEDOM / (_FREEDOM - 2.0))
        noise = n * weights[:, None] * residuals[rng.integers(len(known), size=len(n))]
        for test, (mean, statistic) in enumerate(zip(systematic, statistics, strict=True)):
            sample = replace(moments, zr=mean + noise, usable=kept)
            solution: Solution = iterate(sample, start, max_iter=max_iter, tol=tol, memory=_MEMORY)
            draws[draw, test] = statistic(solution.coefficients)
            unsettled += not solution.converged
    return BootstrapTest(np.array([statistic(start) for statistic in statistics]), draws, unsettled)
