"""Simulated eigenfactor adjustment: by how much the variances of estimated eigenportfolios are too small.

Here belongs the simulation. When it is done, and what its result multiplies, belongs in `covariance`.

Menchero, Wang and Orr (2011), Eigen-adjusted covariance matrices, take the estimate for the truth: they draw returns
from it, estimate Omega from each draw, and compare the true variance of its eigenportfolios with the estimated one.
Three identities make that cheap. In the eigenbasis of Omega only its eigenvalues D enter. A draw is used through its
covariance alone, which is Wishart, so that it is drawn as such (Bartlett 1933), for any number of observations. And the
true variance u'Du of an eigenportfolio over its estimated variance is the derivative of the logarithm of an eigenvalue,

    u_k' D u_k / lambda_k(S) = d log lambda_k(S + t D) / dt at t = 0   (Hellmann and Feynman),

which takes eigenvalues of two matrices and no eigenvector.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.stats import chi2

from models.arrays import Float64Array
from schemas.risk import EigenfactorSpec

_STEP = 1e-4
_BATCH = 125
_LEAST = 0.1  # of a multiplier of volatility, whatever the scale


def volatility_bias(values: Float64Array, n: float, n_simulations: int, seed: int) -> Float64Array:
    """Return the true over the estimated volatility of eigenportfolios, v (K,), root mean square over draws.

    Parameters
    ----------
    values : numpy.ndarray
        (K,) eigenvalues of Omega, ascending; positive.
    n : float
        Observations behind Omega. Fewer than K + 2 cannot be simulated, and count as so many.
    n_simulations, seed : int
        Number of draws, and what fixes them: the same seed gives the same draws for all n and Omega.
    """
    root = np.sqrt(values)
    step = _STEP * np.diag(values)
    total = np.zeros(len(values))
    draws = _wishart(len(values), max(int(n), len(values) + 2), n_simulations, seed)
    for first in range(0, n_simulations, _BATCH):
        sample = draws[first : first + _BATCH] * np.outer(root, root)
        above, below = np.linalg.eigvalsh(sample + step), np.linalg.eigvalsh(sample - step)
        total += ((above - below) / (above + below)).sum(axis=0)
    return np.sqrt(total / (_STEP * n_simulations))


@lru_cache(maxsize=8)
def multipliers(values: bytes, n: float, spec: EigenfactorSpec) -> Float64Array:
    """Return what eigenvalues are multiplied by (K,): (1 + scale (v - 1))^2, with v as in `volatility_bias`.

    Parameters
    ----------
    values : bytes
        Of the float64 eigenvalues: the dates until the next simulation ask for the same one.
    n : float
        Observations behind Omega, unless the spec says how many.
    spec : EigenfactorSpec
    """
    bias = volatility_bias(np.frombuffer(values), spec.n_observations or n, spec.n_simulations, spec.seed)
    factor: Float64Array = np.square(np.maximum(1.0 + spec.scale * (bias - 1.0), _LEAST))
    factor.flags.writeable = False
    return factor


def adjusted(omega: Float64Array, factor: Float64Array) -> Float64Array:
    """Multiply the eigenvalues of Omega (K, K), ascending, by a factor (K,)."""
    values, vectors = np.linalg.eigh(omega)
    changed: Float64Array = (vectors * (values * factor)) @ vectors.T
    return 0.5 * (changed + changed.T)


@lru_cache(maxsize=2)
def _wishart(k: int, n: int, n_simulations: int, seed: int) -> Float64Array:
    """Draws (simulation, K, K) of W / n, W ~ Wishart(I, n): A A' / n with A lower triangular."""
    normal, uniform = _draws(k, n_simulations, seed)
    triangle = np.tril(normal, -1)
    triangle[:, np.arange(k), np.arange(k)] = np.sqrt(chi2.ppf(uniform, n - np.arange(k)))
    result: Float64Array = triangle @ triangle.transpose(0, 2, 1) / n
    return result


@lru_cache(maxsize=2)
def _draws(k: int, n_simulations: int, seed: int) -> tuple[Float64Array, Float64Array]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n_simulations, k, k)), rng.uniform(size=(n_simulations, k))
