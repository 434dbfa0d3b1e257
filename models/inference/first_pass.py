"""The first pass of a two-pass regression: betas of assets, and what each date adds to them.

Here belong assets with complete histories and with gaps. What premia follow from betas belongs in `factor_premia`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.arrays import FloatArray
from models.inference.pricing_tests import balanced_regression
from models.inference.regression import weighted_products
from models.statistics.gram import solve_gram
from schemas.errors import ModelError


@dataclass(frozen=True, eq=False)
class FirstPass:
    """Betas of a first pass, and what each date adds to them.

    Attributes
    ----------
    returns, factors : numpy.ndarray
        (date, asset), without a gap, and (date, factor).
    beta : numpy.ndarray
        (asset, factor).
    residuals : numpy.ndarray
        (date, asset).
    scores : numpy.ndarray
        (date, factor) what a residual adds to T times beta.
    """

    returns: FloatArray
    factors: FloatArray
    beta: FloatArray
    residuals: FloatArray
    scores: FloatArray

    def along(self, vector: FloatArray) -> FloatArray:
        """(date, asset) what each date adds to T times beta_i' v."""
        added: FloatArray = (self.scores @ vector)[:, None] * self.residuals
        return added

    def summed(self, weights: FloatArray) -> FloatArray:
        """(date, factor) what each date adds to T times sum_i w_i beta_i."""
        added: FloatArray = self.scores * (self.residuals @ weights)[:, None]
        return added


@dataclass(frozen=True, eq=False)
class GappedPass(FirstPass):
    """The same of assets with gaps.

    ``returns`` are mean_i + beta_i' (f[t] - mean(f)) + u_it, and ``residuals`` are u_it, with u_it what the residual
    e_it adds to T times the mean alpha_i + beta_i' mean(f): e_it on complete histories, and zero on an unknown return.

    Attributes
    ----------
    design, errors : numpy.ndarray
        (date, 1 + factor) x_t, and (date, asset) e_it, zero where unknown.
    inverse : numpy.ndarray
        (asset, 1 + factor, 1 + factor) (X_i'X_i / T)^-1.
    """

    design: FloatArray
    errors: FloatArray
    inverse: FloatArray

    def along(self, vector: FloatArray) -> FloatArray:
        """(date, asset) what each date adds to T times beta_i' v."""
        added: FloatArray = (self.design @ (self.inverse[:, :, 1:] @ vector).T) * self.errors
        return added

    def summed(self, weights: FloatArray) -> FloatArray:
        """(date, factor) what each date adds to T times sum_i w_i beta_i."""
        n_assets, size, width = self.inverse[:, 1:, :].shape
        along = (self.errors * weights) @ self.inverse[:, 1:, :].reshape(n_assets, size * width)
        added: FloatArray = (along.reshape(-1, size, width) @ self.design[:, :, None])[..., 0]
        return added


def first_pass(returns: npt.ArrayLike, factors: npt.ArrayLike) -> FirstPass:
    """Regress each asset on the factors, over its own dates."""
    response, regressors = np.asarray(returns, dtype=np.float64), np.asarray(factors, dtype=np.float64)
    if response.ndim != 2 or not np.isnan(response).any():
        found = balanced_regression(response, regressors)
        return FirstPass(found.returns, found.factors, found.beta, found.residuals, found.scores[:, 1:])
    # what is wrong with the factors is said as for complete histories
    balanced_regression(np.zeros((len(response), 1)), regressors)
    known = np.isfinite(response)
    n_dates, size = len(response), regressors.shape[1] + 1
    design = np.column_stack([np.ones(n_dates), regressors])
    gram = weighted_products(known.astype(np.float64), design, design) / n_dates
    moment = np.where(known, response, 0.0).T @ design / n_dates
    identity = np.broadcast_to(np.eye(size), gram.shape)
    solution, rank = solve_gram(gram, np.concatenate([moment[..., None], identity], axis=2))
    poor = np.flatnonzero((known.sum(axis=0) <= size) | (rank < size))
    if len(poor):
        raise ModelError(
            f"The asset at position {poor[0]} has {int(known[:, poor[0]].sum())} returns, which do not identify its "
            f"betas on {size - 1} factors; leave it out."
        )
    coefficients, inverse = solution[..., 0], solution[..., 1:]
    errors = np.where(known, response - design @ coefficients.T, 0.0)
    counted = (design @ (inverse @ design.mean(axis=0)).T) * errors
    return GappedPass(
        returns=design @ coefficients.T + counted,
        factors=regressors,
        beta=coefficients[:, 1:],
        residuals=counted,
        scores=np.empty((n_dates, 0)),
        design=design,
        errors=errors,
        inverse=inverse,
    )
