"""Covariances of a cross-section that can be multiplied, solved and measured: in factor form, or dense.

Here belongs the linear algebra that judging a forecast needs, the same for a factor model and for a peer that gives a
dense matrix. Portfolios made of it belong in `portfolios`, densities in `likelihood`. The factor form never makes an
n x n matrix: its inverse is Woodbury's, its determinant that of the determinant lemma.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from scipy import linalg

from models.arrays import BoolArray, Float64Array, IntArray
from schemas.errors import DataError

_LEAST_EIGENVALUE = -1e-8
"""Eigenvalue of Omega, as a share of the largest, below which it is no rounding of a covariance."""


class Covariance(Protocol):
    """Covariance S (n, n) per period, squared decimals, of n stocks in a fixed order."""

    @property
    def n_stocks(self) -> int:
        """Number of stocks n."""

    @property
    def diagonal(self) -> Float64Array:
        """Variances of the stocks (n,)."""

    @property
    def scale(self) -> Float64Array:
        """Volatilities (n,) by which stocks are divided before eigenvectors are taken."""

    def variance(self, weights: Float64Array) -> Float64Array:
        """Variances w'Sw (p,) of portfolios (p, n)."""

    def times(self, b: Float64Array) -> Float64Array:
        """Product S b (n, p)."""

    def solve(self, b: Float64Array) -> Float64Array:
        """Solution S^-1 b (n, p)."""

    def log_determinant(self) -> float:
        """Logarithm of the determinant of S."""

    def restricted(self, kept: BoolArray | IntArray) -> Covariance:
        """Covariance of some of the stocks: positions, or a mask."""

    def plus_diagonal(self, added: Float64Array) -> Covariance:
        """Covariance S + diag(added)."""

    def eigen(self) -> tuple[Float64Array, Float64Array]:
        """Eigenvalues (k,), falling, and orthonormal eigenvectors (n, k) of S whitened by `scale`.

        Whatever is orthogonal to them has the eigenvalue 1.
        """


@dataclass(frozen=True, eq=False)
class FactorForm:
    """S = X Omega X' + D, at a cost of n K^2 and never n^2.

    Parameters
    ----------
    loadings : numpy.ndarray
        X (n, K), finite.
    omega : numpy.ndarray
        (K, K) factor covariance per period; may be singular.
    specific_variance : numpy.ndarray
        Diagonal of D (n,) per period, above zero: a stock without risk of its own has no density.

    Raises
    ------
    DataError
        If shapes do not match, a number is not finite, a specific variance is not positive or Omega is not a
        covariance.

    Notes
    -----
    With B = X Omega^(1/2) and A = D^(-1/2) B the capacitance is C = I + A'A (K, K), whose eigenvalues are at least 1:

    S^-1 = D^(-1/2) (I - A C^-1 A') D^(-1/2),  log det S = log det C + sum log D.

    Examples
    --------
    >>> from models import FactorForm
    >>> from models.risk.example import example_risk
    >>> model = example_risk()
    >>> form = FactorForm(model.loadings.values, model.omega.values, model.specific_variance.values)
    >>> form.loadings.shape
    (4, 2)
    """

    loadings: Float64Array
    omega: Float64Array
    specific_variance: Float64Array

    def __post_init__(self) -> None:
        n, k = np.shape(self.loadings)
        for name, shape in (("loadings", (n, k)), ("omega", (k, k)), ("specific_variance", (n,))):
            part = np.asarray(getattr(self, name), dtype=np.float64)
            if part.shape != shape:
                raise DataError(f"{name} has the shape {part.shape}; beside loadings of {(n, k)} it needs {shape}.")
            if not np.isfinite(part).all():
                raise DataError(f"{name} has a number that is not finite; leave out stocks that are not covered.")
            object.__setattr__(self, name, part)
        if n and self.specific_variance.min() <= 0.0:
            raise DataError(f"The specific variance of stock {self.specific_variance.argmin()} is not positive.")

    @property
    def n_stocks(self) -> int:
        """Number of stocks n."""
        return len(self.specific_variance)

    @cached_property
    def scaled_loadings(self) -> Float64Array:
        """B (n, K) with X Omega X' = B B'."""
        values, vectors = np.linalg.eigh((self.omega + self.omega.T) / 2.0)
        if values.size and values[0] < _LEAST_EIGENVALUE * max(values[-1], 0.0):
            raise DataError(f"omega is not a covariance: its least eigenvalue is {values[0]:.3g}.")
        root: Float64Array = self.loadings @ (vectors * np.sqrt(np.clip(values, 0.0, None)))
        return root

    @cached_property
    def scale(self) -> Float64Array:
        """Specific volatilities D^(1/2) (n,)."""
        return np.sqrt(self.specific_variance)

    @cached_property
    def _whitened(self) -> Float64Array:
        return self.scaled_loadings / self.scale[:, None]

    @cached_property
    def _capacitance(self) -> Float64Array:
        """Lower Cholesky factor of I + A'A."""
        inner = self._whitened.T @ self._whitened
        inner.flat[:: len(inner) + 1] += 1.0
        lower: Float64Array = np.asarray(np.linalg.cholesky(inner), dtype=np.float64)
        return lower

    @cached_property
    def diagonal(self) -> Float64Array:
        """Variances of the stocks (n,)."""
        total: Float64Array = np.square(self.scaled_loadings).sum(axis=1) + self.specific_variance
        return total

    def variance(self, weights: Float64Array) -> Float64Array:
        """Variances w'Sw (p,) of portfolios (p, n)."""
        systematic = np.square(weights @ self.scaled_loadings).sum(axis=1)
        total: Float64Array = systematic + np.square(weights) @ self.specific_variance
        return total

    def times(self, b: Float64Array) -> Float64Array:
        """Product S b (n, p)."""
        product: Float64Array = (
            self.scaled_loadings @ (self.scaled_loadings.T @ b) + self.specific_variance[:, None] * b
        )
        return product

    def solve(self, b: Float64Array) -> Float64Array:
        """Solution S^-1 b (n, p)."""
        y = b / self.scale[:, None]
        inner = linalg.cho_solve((self._capacitance, True), self._whitened.T @ y)
        solution: Float64Array = (y - self._whitened @ inner) / self.scale[:, None]
        return solution

    def log_determinant(self) -> float:
        """Logarithm of the determinant of S."""
        return float(2.0 * np.log(np.diag(self._capacitance)).sum() + np.log(self.specific_variance).sum())

    def restricted(self, kept: BoolArray | IntArray) -> FactorForm:
        """Covariance of some of the stocks: positions, or a mask."""
        return FactorForm(self.loadings[kept], self.omega, self.specific_variance[kept])

    def plus_diagonal(self, added: Float64Array) -> FactorForm:
        """Covariance S + diag(added)."""
        other = FactorForm(self.loadings, self.omega, self.specific_variance + added)
        other.__dict__["scaled_loadings"] = self.scaled_loadings  # the same B, which costs an eigenproblem
        return other

    def eigen(self) -> tuple[Float64Array, Float64Array]:
        """Eigenvalues above 1, falling, and eigenvectors of D^(-1/2) S D^(-1/2), from a K x K problem."""
        values, vectors = np.linalg.eigh(self._whitened.T @ self._whitened)
        real = values > 1e-10 * max(values.max(initial=0.0), 1.0)
        values, vectors = values[real][::-1], vectors[:, real][:, ::-1]
        return 1.0 + values, self._whitened @ (vectors / np.sqrt(values))


@dataclass(frozen=True, eq=False)
class Dense:
    """A covariance given whole, as shrinkage and other peers give it.

    Parameters
    ----------
    covariance : numpy.ndarray
        S (n, n) per period, symmetric and positive definite.

    Raises
    ------
    DataError
        If it is not square, not finite, or (once it is solved) not positive definite.

    Examples
    --------
    >>> import numpy as np
    >>> from models import Dense
    >>> Dense(np.array([[4e-4, 1e-4], [1e-4, 4e-4]])).covariance.shape
    (2, 2)
    """

    covariance: Float64Array

    def __post_init__(self) -> None:
        s = np.asarray(self.covariance, dtype=np.float64)
        if s.ndim != 2 or s.shape[0] != s.shape[1]:
            raise DataError(f"A covariance has two equal dimensions, not the shape {s.shape}.")
        if not np.isfinite(s).all():
            raise DataError("The covariance has a number that is not finite; leave out stocks that are not covered.")
        object.__setattr__(self, "covariance", s)

    @property
    def n_stocks(self) -> int:
        """Number of stocks n."""
        return len(self.covariance)

    @property
    def diagonal(self) -> Float64Array:
        """Variances of the stocks (n,)."""
        return np.diag(self.covariance)

    @cached_property
    def scale(self) -> Float64Array:
        """Volatilities of the stocks (n,): the whitened covariance is the correlation matrix."""
        return np.sqrt(self.diagonal)

    @cached_property
    def _cholesky(self) -> Float64Array:
        try:
            lower: Float64Array = np.asarray(np.linalg.cholesky(self.covariance), dtype=np.float64)
        except np.linalg.LinAlgError as error:
            raise DataError(
                "The covariance is not positive definite: no optimiser and no density can use it."
            ) from error
        return lower

    def variance(self, weights: Float64Array) -> Float64Array:
        """Variances w'Sw (p,) of portfolios (p, n)."""
        total: Float64Array = ((weights @ self.covariance) * weights).sum(axis=1)
        return total

    def times(self, b: Float64Array) -> Float64Array:
        """Product S b (n, p)."""
        product: Float64Array = self.covariance @ b
        return product

    def solve(self, b: Float64Array) -> Float64Array:
        """Solution S^-1 b (n, p)."""
        solution: Float64Array = linalg.cho_solve((self._cholesky, True), b)
        return solution

    def log_determinant(self) -> float:
        """Logarithm of the determinant of S."""
        return float(2.0 * np.log(np.diag(self._cholesky)).sum())

    def restricted(self, kept: BoolArray | IntArray) -> Dense:
        """Covariance of some of the stocks: positions, or a mask."""
        return Dense(self.covariance[kept][:, kept])

    def plus_diagonal(self, added: Float64Array) -> Dense:
        """Covariance S + diag(added)."""
        total = self.covariance.copy()
        total.flat[:: len(total) + 1] += added
        return Dense(total)

    def eigen(self) -> tuple[Float64Array, Float64Array]:
        """Eigenvalues, falling, and eigenvectors of the correlation matrix."""
        values, vectors = np.linalg.eigh(self.covariance / np.outer(self.scale, self.scale))
        return values[::-1], vectors[:, ::-1]
