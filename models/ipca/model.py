"""Instrumented principal components: latent factors whose loadings are linear in characteristics.

Here belongs Kelly, Pruitt and Su (2019), from per-date Gram matrices alone: once they are computed the number
of stocks does not matter. Kernels and networks of characteristics belong elsewhere.
"""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, Self

import numpy as np
import scipy.linalg
import xarray as xr
from sklearn.exceptions import ConvergenceWarning

from models.base import FactorModel, FloatArray, ModelState
from models.gram import (
    RANK_TOLERANCE,
    GramStatistics,
    date_spans,
    gram_statistics,
    select_characteristics,
    solve_gram,
)
from models.panel import Panel
from schemas.errors import ModelError


class IPCA(FactorModel):
    """r[t] = Z[t-1] Gamma f[t] + e[t], restricted (no intercept), by alternating least squares.

    Source: Kelly, Pruitt and Su (2019), eq. 6 (factors given Gamma) and 7 (Gamma given factors), started from
    the leading left singular vectors of the managed portfolios Z'r / n. Normalisation: Gamma'Gamma = I, F'F /
    T diagonal and descending, every factor's mean positive.

    Parameters
    ----------
    n_factors : int
        K, at most the number of characteristics L.
    max_iter : int
        Limit of the iterations.
    tol : float
        The estimate has settled when the space spanned by Gamma turns by less: the sine of the largest angle
        between its last two iterates. It does not depend on the units of returns, nor on signs or order of
        the factors.

    Attributes
    ----------
    gamma_ : xarray.DataArray
        (char, factor).
    converged_, n_iter_, last_change_ : bool, int, float
        The certificate: whether the last turn was at most ``tol``, after how many iterations, and how large
        it was.
    n_dropped_ : int
        Dates with stocks whose Gamma'Z'Z Gamma is singular: they enter neither Gamma nor the premia.
    """

    latent: ClassVar[bool] = True

    def __init__(self, n_factors: int = 5, max_iter: int = 1000, tol: float = 1e-6) -> None:
        self.n_factors = n_factors
        self.max_iter = max_iter
        self.tol = tol

    gamma_: xr.DataArray
    converged_: bool
    n_iter_: int
    last_change_: float
    n_dropped_: int

    def fit(self, panel: Panel) -> Self:
        """Fit to the rows of ``panel.mask``.

        Raises
        ------
        ModelError
            If characteristics, stocks or returns do not carry so many factors, or if characteristics are
            collinear.

        Warns
        -----
        ConvergenceWarning
            If the space of Gamma still turns after ``max_iter`` iterations.
        """
        gram = gram_statistics(panel)
        _check_capacity(gram, self.n_factors)
        _check_collinearity(gram)
        gamma = self._iterate(gram)
        factors = factor_step(gram, gamma)
        kept = np.isfinite(factors).all(axis=1)
        rotation = _canonical_rotation(factors[kept])
        self.n_dropped_ = int((gram.n > 0).sum() - kept.sum())
        self._restore(gamma @ rotation, factors[kept].mean(axis=0) @ rotation, gram.chars)
        return self

    def loadings(self, panel: Panel) -> xr.DataArray:
        """Z[t-1] Gamma as (date, ticker, factor); NaN where not covered."""
        self._check_fitted()
        gamma, chars = self.gamma_.values, self.gamma_["char"].values.tolist()
        blocks = [_project(select_characteristics(block, chars).values, gamma) for block in panel.blocks()]
        coords = {"date": panel.dates, "ticker": panel.tickers, "factor": self.factors_}
        return xr.DataArray(np.concatenate(blocks), coords, ("date", "ticker", "factor"), name="loadings")

    def factor_returns(self, panel: Panel) -> xr.DataArray:
        """(Gamma'Z'Z Gamma)^-1 Gamma'Z'r as (date, factor); NaN where the matrix is singular."""
        self._check_fitted()
        gram = gram_statistics(panel, chars=self.gamma_["char"].values.tolist())
        coords = {"date": panel.dates, "factor": self.factors_}
        factors = factor_step(gram, self.gamma_.values)
        return xr.DataArray(factors, coords, ("date", "factor"), name="factor_returns")

    def _turn(self, rotation: FloatArray) -> None:
        self.gamma_ = self.gamma_.copy(data=self.gamma_.values @ rotation)

    def state(self) -> ModelState:
        """Gamma, premia, and the certificate of convergence."""
        self._check_fitted()
        meta = {
            "chars": self.gamma_["char"].values.tolist(),
            "converged": self.converged_,
            "n_iter": self.n_iter_,
            "last_change": self.last_change_,
            "n_dropped": self.n_dropped_,
        }
        return ModelState({"gamma": self.gamma_.values, "premia": self.premia_}, meta)

    @classmethod
    def from_state(cls, params: dict[str, Any], state: ModelState) -> Self:
        """Rebuild a fitted model."""
        model = cls(**params)
        meta = state.meta
        model.converged_, model.n_iter_, model.last_change_, model.n_dropped_ = (
            meta[name] for name in ("converged", "n_iter", "last_change", "n_dropped")
        )
        model._restore(state.arrays["gamma"], state.arrays["premia"], tuple(meta["chars"]))
        return model

    def _restore(self, gamma: FloatArray, premia: FloatArray, chars: tuple[str, ...]) -> None:
        self.factors_ = [f"factor_{k + 1}" for k in range(self.n_factors)]
        coords = {"char": [*chars], "factor": self.factors_}
        self.gamma_ = xr.DataArray(gamma, coords, ("char", "factor"), name="gamma")
        self.premia_ = premia

    def _iterate(self, gram: GramStatistics) -> FloatArray:
        """(char, factor) orthonormal Gamma at the fixed point, in no particular rotation."""
        gamma = _initial_gamma(gram, self.n_factors)
        self.converged_, self.n_iter_, self.last_change_ = False, 0, float("inf")
        while not self.converged_ and self.n_iter_ < self.max_iter:
            update = gamma_step(gram, factor_step(gram, gamma))
            self.last_change_ = float(np.linalg.norm(update - gamma @ (gamma.T @ update), ord=2))
            gamma = update
            self.n_iter_ += 1
            self.converged_ = self.last_change_ <= self.tol
        if not self.converged_:
            warnings.warn(
                f"IPCA stopped at max_iter={self.max_iter}: Gamma still turned by {self.last_change_:.1e}, "
                f"more than tol={self.tol}. Raise max_iter, or lower n_factors.",
                ConvergenceWarning,
                stacklevel=3,
            )
        return gamma


def factor_step(gram: GramStatistics, gamma: FloatArray) -> FloatArray:
    """Factors given Gamma, f[t] = (Gamma'Z'Z Gamma)^-1 Gamma'Z'r, as (date, factor): eq. 6.

    NaN on dates on which Gamma'Z'Z Gamma is singular by the rule of `models.gram.solve_gram`.
    """
    n_dates, n_chars, n_factors = *gram.zr.shape, gamma.shape[1]
    half = (gram.zz.reshape(-1, n_chars) @ gamma).reshape(n_dates, n_chars, n_factors)
    factors, rank = solve_gram(gamma.T @ half, (gram.zr @ gamma)[..., None])
    return np.where((rank == n_factors)[:, None], factors[..., 0], np.nan)


def gamma_step(gram: GramStatistics, factors: FloatArray) -> FloatArray:
    """Gamma given factors, (sum_t Z'Z x ff')^-1 sum_t Z'r x f made orthonormal, as (char, factor): eq. 7.

    Dates with NaN factors do not enter. The sum of Kronecker products is one matrix product over dates.

    Raises
    ------
    ModelError
        If the factors do not identify Gamma.
    """
    factors = np.where(np.isfinite(factors), factors, 0.0)
    (n_dates, n_chars), n_factors = gram.zr.shape, factors.shape[1]
    outer = (factors[:, :, None] * factors[:, None, :]).reshape(n_dates, n_factors**2)
    total = (gram.zz.reshape(n_dates, n_chars**2).T @ outer).reshape(n_chars, n_chars, n_factors, n_factors)
    size = n_chars * n_factors
    system = total.transpose(0, 2, 1, 3).reshape(size, size)
    try:
        solution = scipy.linalg.cho_solve(scipy.linalg.cho_factor(system), (gram.zr.T @ factors).reshape(size))
    except np.linalg.LinAlgError as error:
        raise ModelError(_rank_message(n_factors)) from error
    orthonormal, _ = np.linalg.qr(solution.reshape(n_chars, n_factors))
    return orthonormal


def _initial_gamma(gram: GramStatistics, n_factors: int) -> FloatArray:
    """Leading left singular vectors of the managed portfolios Z'r / n, as (char, factor)."""
    portfolios = gram.zr / np.maximum(gram.n, 1)[:, None]
    _, vectors = np.linalg.eigh(portfolios.T @ portfolios)
    return np.ascontiguousarray(vectors[:, ::-1][:, :n_factors])


def _canonical_rotation(factors: FloatArray) -> FloatArray:
    """Rotation that makes F'F / T diagonal and descending, and the means positive."""
    values, rotation = np.linalg.eigh(factors.T @ factors / len(factors))
    if values[0] <= RANK_TOLERANCE * values[-1]:
        raise ModelError(_rank_message(factors.shape[1]))
    rotation = rotation[:, ::-1]
    sign = np.where(factors.mean(axis=0) @ rotation < 0.0, -1.0, 1.0)
    return rotation * sign


def _project(characteristics: FloatArray, gamma: FloatArray) -> FloatArray:
    """(date, ticker, factor) product in float64."""
    n_dates, n_stocks, n_chars = characteristics.shape
    values = np.empty((n_dates, n_stocks, gamma.shape[1]))
    for span in date_spans(n_dates, n_stocks * n_chars):
        np.matmul(characteristics[span].astype(np.float64), gamma, out=values[span])
    return values


def _check_capacity(gram: GramStatistics, n_factors: int) -> None:
    """Refuse more factors than characteristics, or than dates with at least so many stocks."""
    n_chars = len(gram.chars)
    sizes = gram.n[gram.n > 0]
    n_dates = int((sizes >= n_factors).sum())
    if 1 <= n_factors <= min(n_chars, n_dates):
        return
    cross_sections = f"median cross-section {int(np.median(sizes))} stocks" if len(sizes) else "no stocks"
    raise ModelError(
        f"n_factors={n_factors} must be from 1 to the number of characteristics, {n_chars}, and needs at "
        f"least as many dates with as many stocks; {n_dates} of {len(sizes)} dates have them "
        f"({cross_sections}). Lower n_factors, or give more characteristics, stocks or dates."
    )


def _check_collinearity(gram: GramStatistics) -> None:
    """Refuse characteristics that are zero or collinear over the whole panel: Gamma would be arbitrary."""
    total = gram.zz.sum(axis=0)
    scale = np.sqrt(np.diagonal(total))
    zero = [name for name, size in zip(gram.chars, scale, strict=True) if size == 0.0]
    if zero:
        raise ModelError(f"The characteristics {zero} are zero on every row; leave them out.")
    values, vectors = np.linalg.eigh(total / np.outer(scale, scale))
    if values[0] <= RANK_TOLERANCE * values[-1]:
        involved = [gram.chars[i] for i in np.flatnonzero(np.abs(vectors[:, 0]) > 0.05)]
        raise ModelError(f"The characteristics {involved} are collinear over the whole panel; leave one out.")


def _rank_message(n_factors: int) -> str:
    return f"n_factors={n_factors} exceeds the number of factors in these returns; lower n_factors."
