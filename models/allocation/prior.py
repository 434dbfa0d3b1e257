"""A risk model as skfolio's prior: any of its optimisers then sees X Omega X' + D, and ours sees it in factor form.

Here belongs the adapter to ``skfolio.prior``. What is optimised with it belongs in `optimised`; it imports skfolio, so
it is imported where an allocation is made.

skfolio's cone problems take the covariance by its square root [X L, D^1/2], L L' = Omega, wherever a distribution has a
factor model: n x K and n numbers in place of n x n. Its distributions hold the dense covariance beside it all the
same, as hierarchical methods and reported risks use it: 2 MB for 500 stocks, 200 MB for 5,000.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from skfolio.prior import BasePrior, FactorModel, ReturnDistribution

from models.arrays import Float64Array


class FactorPrior(BasePrior):  # type: ignore[misc]  # skfolio has no types
    """Expected returns and a factor covariance that were estimated elsewhere, as a prior of skfolio.

    Parameters
    ----------
    loadings : numpy.ndarray
        X, (n_assets, n_factors).
    omega : numpy.ndarray
        (n_factors, n_factors) positive semi-definite; a singular one gets skfolio's ridge, 1e-12 of its mean
        diagonal.
    specific_variance : numpy.ndarray
        (n_assets,).
    mu : numpy.ndarray, optional
        (n_assets,) expected returns; zero if left out.

    Attributes
    ----------
    return_distribution_ : skfolio.prior.ReturnDistribution
        After `fit`. Its ``returns`` are those that it was fitted on, and decide nothing here.
    """

    def __init__(
        self,
        loadings: Float64Array,
        omega: Float64Array,
        specific_variance: Float64Array,
        mu: Float64Array | None = None,
    ) -> None:
        self.loadings = loadings
        self.omega = omega
        self.specific_variance = specific_variance
        self.mu = mu

    def fit(self, X: npt.ArrayLike, y: None = None, **fit_params: Any) -> FactorPrior:
        """Set the distribution; nothing is estimated from X (n_observations, n_assets)."""
        del y, fit_params
        n_assets, n_factors = self.loadings.shape
        mu = np.zeros(n_assets) if self.mu is None else self.mu
        covariance = self.loadings @ self.omega @ self.loadings.T
        covariance = 0.5 * (covariance + covariance.T)
        covariance[np.diag_indices(n_assets)] += self.specific_variance
        factors = FactorModel(
            observations=np.arange(len(np.asarray(X))),
            asset_names=np.arange(n_assets),
            factor_names=np.arange(n_factors),
            factor_families=None,
            loading_matrix=self.loadings,
            exposures=None,
            factor_covariance=self.omega,
            factor_mu=np.zeros(n_factors),
            factor_returns=None,
            idio_covariance=self.specific_variance,
            idio_mu=None,
            idio_returns=None,
            idio_variances=None,
        )
        self.return_distribution_ = ReturnDistribution(
            mu=mu, covariance=covariance, returns=np.asarray(X, dtype=np.float64), factor_model=factors
        )
        return self
