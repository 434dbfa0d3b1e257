"""The two steps of alternating least squares, from per-date moments: factors given Gamma, and Gamma given factors.

Here belongs the algebra of one step. How steps are iterated belongs in `iteration`, and steps that work on the rows
themselves in `rows`.

Everywhere ``coefficients`` is the (char, K + M) matrix [Gamma_beta, Gamma_given], and ``regressors`` the (date, K + M)
matrix [f, h]: K latent factors f beside M given series h, which are the observed factors and, last, the ones of an
intercept. The model is r[t] = Z[t-1] coefficients regressors[t] + e[t].
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import scipy.linalg

from models.arrays import FloatArray
from models.statistics.gram import GramStatistics, solve_gram
from schemas.errors import ModelError


class Projection(NamedTuple):
    """Returns projected on Z Gamma, date by date.

    Attributes
    ----------
    regressors : numpy.ndarray
        (date, K + M); zero on dates that were not kept.
    kept : numpy.ndarray
        (date,) bool: the factors exist.
    explained : float
        sum_t r'r less the sum of squared residuals, over the kept dates: what alternating least squares maximises.
    """

    regressors: FloatArray
    kept: npt.NDArray[np.bool_]
    explained: float


@dataclass(frozen=True, eq=False)
class Moments:
    """What the steps need of each date; Z'Z is symmetric, and only its upper triangle is kept and multiplied.

    Attributes
    ----------
    packed : numpy.ndarray
        (date, L (L + 1) / 2) upper triangles of Z'Z, row by row.
    zr : numpy.ndarray
        (date, L) Z'r.
    rr : numpy.ndarray
        (date,) r'r.
    n : numpy.ndarray
        (date,) number of stocks.
    given : numpy.ndarray
        (date, M) given series; zero where unknown.
    usable : numpy.ndarray
        (date,) bool: there are stocks, and every given series is known.
    n_factors : int
        K, of the latent factors.
    """

    packed: FloatArray
    zr: FloatArray
    rr: FloatArray
    n: npt.NDArray[np.int64]
    given: FloatArray
    usable: npt.NDArray[np.bool_]
    n_factors: int

    @classmethod
    def of(cls, gram: GramStatistics, given: FloatArray, n_factors: int) -> Self:
        """Pack the statistics; ``given`` is (date, M) with NaN where a series is unknown."""
        rows, columns = _pairs(len(gram.chars))
        known: npt.NDArray[np.bool_] = np.asarray(np.isfinite(given).all(axis=1))
        return cls(
            packed=gram.zz[:, rows, columns],
            zr=gram.zr,
            rr=gram.rr,
            n=gram.n,
            given=np.where(known[:, None], given, 0.0),
            usable=known & (gram.n > 0),
            n_factors=n_factors,
        )

    @property
    def n_chars(self) -> int:
        """L."""
        return int(self.zr.shape[1])

    def at(self, dates: slice) -> Self:
        """Only these dates, as views."""
        parts = {name: getattr(self, name)[dates] for name in ("packed", "zr", "rr", "n", "given", "usable")}
        return replace(self, **parts)

    def complete(self) -> Self:
        """Leave out the dates on which a characteristic is zero for everybody, unless no date would be left.

        What little the other characteristics say of a factor there would give it a return of any size.
        """
        squares = self.packed[:, np.diagonal(_pair_index(self.n_chars))]
        usable = self.usable & (squares > 0.0).all(axis=1)
        return replace(self, usable=usable) if usable.any() else self

    def with_factors(self, n_factors: int) -> Self:
        """Return the same moments for another number of latent factors."""
        return replace(self, n_factors=n_factors)

    def project(self, coefficients: FloatArray) -> Projection:
        """Factors given Gamma, f = (Gamma'Z'Z Gamma)^-1 Gamma'(Z'r - Z'Z Gamma_given h): eq. 6.

        Dates on which Gamma'Z'Z Gamma is singular by the rule of `models.statistics.gram.solve_gram` are not kept. All
        products B'Z'Z B come from one matrix product, since each is linear in the packed triangle.
        """
        inner = (self.packed @ _pair_weights(coefficients))[:, _pair_index(coefficients.shape[1])]
        return self._solve(inner, self.zr @ coefficients)

    def realise(self, zz: FloatArray, coefficients: FloatArray) -> Projection:
        """Give what `project` does, from Z'Z (date, L, L), each date multiplied by itself: others do not round it."""
        columns = np.ascontiguousarray(coefficients)
        right = np.ascontiguousarray(np.ascontiguousarray(zz) @ columns)
        moment = np.ascontiguousarray(self.zr)[:, None, :] @ columns
        return self._solve(np.ascontiguousarray(columns.T) @ right, moment[:, 0])

    def _solve(self, inner: FloatArray, moment: FloatArray) -> Projection:
        """Solve for the factors, given B'Z'Z B and B'Z'r of each date for the coefficients B."""
        k = self.n_factors
        regressors = np.concatenate([np.zeros((len(self.zr), k)), self.given], axis=1)
        kept = self.usable.copy()
        if k:
            right = moment[:, :k].copy()
            for series, column in zip(self.given.T, np.moveaxis(inner[:, :k, k:], 2, 0), strict=True):
                right -= column * series[:, None]
            factors, rank = solve_gram(np.ascontiguousarray(inner[:, :k, :k]), right[..., None])
            kept &= rank == k
            regressors[:, :k] = factors[..., 0]
        regressors[~kept] = 0.0
        quadratic = ((inner @ regressors[..., None])[..., 0] * regressors).sum()
        return Projection(regressors, kept, float(2.0 * (regressors * moment).sum() - quadratic))

    def update(self, projection: Projection) -> FloatArray:
        """Gamma given factors, (sum_t Z'Z x ff')^-1 sum_t Z'r x f, as (char, K + M): eq. 7.

        Raises
        ------
        ModelError
            If the factors do not identify Gamma.
        """
        system, moment = self._normal_equations(projection.regressors)
        try:
            factor = scipy.linalg.cho_factor(system, lower=False, overwrite_a=True, check_finite=False)
        except np.linalg.LinAlgError as error:
            raise ModelError(rank_message(self.n_factors)) from error
        solution = scipy.linalg.cho_solve(factor, moment.reshape(-1), check_finite=False)
        return np.ascontiguousarray(solution.reshape(moment.shape).T)

    def first_order_residual(self, coefficients: FloatArray) -> float:
        """Norm of the gradient sum_t Z'e f' relative to that of sum_t Z'r f': 0 at an optimum.

        Regressors are scaled to unit length, so that it depends neither on units of returns nor of observed factors.
        """
        regressors = self.project(coefficients).regressors
        scale = np.sqrt(np.square(regressors).sum(axis=0))
        scale = np.where(scale > 0.0, scale, 1.0)
        system, moment = self._normal_equations(regressors / scale)
        upper = np.triu(system, 1)
        stacked = (coefficients * scale).T.reshape(-1)
        gradient = moment.reshape(-1) - upper @ stacked - upper.T @ stacked - np.diagonal(system) * stacked
        size = float(np.linalg.norm(moment))
        return float(np.linalg.norm(gradient)) / size if size > 0.0 else 0.0

    def residual_moments(self, coefficients: FloatArray, regressors: FloatArray) -> FloatArray:
        """Z'e[t] as (date, L)."""
        return self.zr - _packed_product(self.packed, regressors @ coefficients.T)

    def _normal_equations(self, regressors: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Upper triangle of the (K + M) L square system in blocks by factor, and the right-hand side (K + M, char)."""
        size, n_chars = regressors.shape[1], self.n_chars
        left, right = _pairs(size)
        total = (regressors[:, left] * regressors[:, right]).T @ self.packed
        blocks = total[:, _pair_index(n_chars)]
        system = np.zeros((size * n_chars, size * n_chars))
        for pair, (a, b) in enumerate(zip(left, right, strict=True)):
            system[a * n_chars : (a + 1) * n_chars, b * n_chars : (b + 1) * n_chars] = blocks[pair]
        return system, regressors.T @ self.zr


def initial_coefficients(moments: Moments, known: FloatArray | None = None) -> FloatArray:
    """Gamma that would be optimal if Z'Z / n were the same at every date, as (char, K + M).

    With S = sum Z'Z / sum n it maximises tr (Gamma'S Gamma)^-1 Gamma'(sum_t Z'r r'Z / n) Gamma: leading generalised
    eigenvectors, at the cost of one L x L problem. What is known is fitted first, and taken out of Z'r.

    Parameters
    ----------
    moments : Moments
    known : numpy.ndarray, optional
        (char, k + M) coefficients of k < K latent factors and of the given series. Default: of the given series alone,
        by regression.
    """
    n_chars, n_given = moments.n_chars, moments.given.shape[1]
    if known is None:
        alone = moments.with_factors(0)
        empty = np.zeros((n_chars, n_given))
        known = alone.update(alone.project(empty)) if n_given else empty
    n_known = known.shape[1] - n_given
    regressors = moments.with_factors(n_known).project(known).regressors
    zr = np.where(moments.usable[:, None], moments.residual_moments(known, regressors), 0.0)
    portfolios = zr / np.sqrt(np.maximum(moments.n, 1))[:, None]
    mean = moments.packed.sum(axis=0)[_pair_index(n_chars)] / max(1, int(moments.n.sum()))
    try:
        vectors = scipy.linalg.eigh(portfolios.T @ portfolios, mean)[1]
    except np.linalg.LinAlgError as error:
        raise ModelError(rank_message(moments.n_factors)) from error
    leading = vectors[:, ::-1][:, : moments.n_factors - n_known]
    return np.concatenate([known[:, :n_known], leading, known[:, n_known:]], axis=1)


def _packed_product(packed: FloatArray, vectors: FloatArray) -> FloatArray:
    """(date, L) products Z'Z v[t] of packed triangles with one vector per date."""
    n_chars = vectors.shape[1]
    square = _pair_index(n_chars)
    product = np.empty_like(vectors)
    for i in range(n_chars):
        product[:, i] = np.einsum("tj,tj->t", packed[:, square[i]], vectors)
    return product


def rank_message(n_factors: int) -> str:
    """Say that the returns do not carry so many factors."""
    return f"n_factors={n_factors} exceeds the number of factors in these returns; lower n_factors."


@lru_cache(maxsize=64)
def _pairs(size: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows and columns of the upper triangle of a square matrix; not to be written to."""
    return np.triu_indices(size)


@lru_cache(maxsize=64)
def _pair_index(size: int) -> npt.NDArray[np.int64]:
    """(size, size) position of each element of a symmetric matrix in its packed triangle; not to be written to."""
    index = np.empty((size, size), dtype=np.int64)
    rows, columns = _pairs(size)
    index[rows, columns] = index[columns, rows] = np.arange(len(rows))
    return index


def _pair_weights(coefficients: FloatArray) -> FloatArray:
    """Weights w such that the packed Z'Z times w is the packed B'Z'Z B, as (L (L + 1) / 2, pairs of columns)."""
    rows, columns = _pairs(len(coefficients))
    left, right = _pairs(coefficients.shape[1])
    upper, lower = coefficients[rows], coefficients[columns]
    weights = upper[:, left] * lower[:, right]
    weights += (rows != columns)[:, None] * (lower[:, left] * upper[:, right])
    return weights
