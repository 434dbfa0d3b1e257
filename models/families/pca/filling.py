"""Filling the gaps of an unbalanced panel by its own factor structure, with Anderson acceleration.

Here belongs the minimisation of the (risk-premium) PCA objective over loadings, factors and missing returns together.
The eigenvectors of the panel so filled belong in `matrices`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.arrays import FloatArray
from models.families.pca.matrices import FilledPanel, filled_components

_MEMORY = 10  # steps that the acceleration remembers
_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Fill:
    """A filled panel and the certificate of its convergence.

    Attributes
    ----------
    panel : FilledPanel
    converged : bool
        Whether one more plain round would move the fitted returns by at most ``tol`` of their norm.
    n_iter : int
        Rounds, each one pass over the returns; 0 without gaps.
    step : float
        How far the last plain round moved the fitted returns, over their norm.
    """

    panel: FilledPanel
    converged: bool
    n_iter: int
    step: float


@dataclass(frozen=True, eq=False)
class _Gaps:
    """What the rounds need of the gaps: known, missing and summed returns per stock, and the size of a return."""

    known: FloatArray
    missing: FloatArray
    sums: FloatArray
    unit: float


@dataclass(frozen=True, eq=False)
class _Round:
    """The state that a round arrives at, and the objective of the state that it started from."""

    panel: FilledPanel
    objective: float


def mean_filled(returns: FloatArray, scale: FloatArray) -> FilledPanel:
    """Fill the gaps of each stock with the mean of its known returns."""
    gaps = _gaps(returns, scale)
    factors, loadings = np.empty((len(returns), 0)), np.empty((len(scale), 0))
    return FilledPanel(returns, scale, gaps.sums / gaps.known, factors, loadings)


def fill(start: FilledPanel, n_factors: int, gamma: float, max_iter: int, tol: float) -> Fill:
    """Minimise the objective over loadings X, factor returns f and missing returns.

    With residuals e[t] = r[t] - X f[t] in units of the scale, the objective is that of Lettau and Pelger (2020),
    sum_t e[t]'e[t] + gamma T e_bar'e_bar, where e_bar is the mean residual over all dates. Its minimum over the
    missing returns of a stock with ``m`` gaps puts them at x'f[t] + c, with c = -gamma S / (T + gamma m) and S the
    sum of its known residuals. For gamma = -1 (PCA) c is the mean of the known residuals, which is the expectation
    maximisation of Stock and Watson (2002, appendix A) with an intercept; for gamma = 0 it is zero. The pricing error
    of a stock with gaps, in other words, counts with gamma n^2 / (T + gamma m) instead of gamma n, n the number of
    its returns: the less, the less is known of its mean.

    A round fills, then updates factor returns and loadings by least squares: it never raises the objective. Anderson
    acceleration combines the last rounds; a combination that raises the objective is dropped for the plain round.

    Parameters
    ----------
    start : FilledPanel
        Gaps filled anyhow.
    n_factors : int
    gamma : float
    max_iter, tol : int, float
        Limit of rounds, and the relative change of fitted returns over a plain round at which they have settled.
    """
    if not np.isnan(start.returns).any():
        return Fill(start, converged=True, n_iter=0, step=0.0)
    gaps = _gaps(start.returns, start.scale)
    panel = _first_fit(start, n_factors, gamma, gaps)
    best, plain, history = np.inf, panel, _History()
    step = np.inf
    for iteration in range(1, max_iter + 1):
        after = _round(panel, gamma, gaps)
        if after.objective > best + _ROUNDING * abs(best) and history:
            panel, best, history = plain, np.inf, _History()
            continue
        best, plain = after.objective, after.panel
        step = _relative_change(panel, plain)
        if step <= tol:
            return Fill(plain, converged=True, n_iter=iteration, step=step)
        panel = _unpack(history.combine(_pack(panel, gaps.unit), _pack(plain, gaps.unit)), panel, gaps.unit)
    return Fill(plain, converged=False, n_iter=max_iter, step=step)


class _History:
    """Anderson acceleration, type II (Walker and Ni 2011): the last states and where a plain round took them."""

    def __init__(self) -> None:
        self.states: list[FloatArray] = []
        self.images: list[FloatArray] = []

    def __bool__(self) -> bool:
        return bool(self.states)

    def combine(self, state: FloatArray, image: FloatArray) -> FloatArray:
        """Remember a round, and return the combination of images whose residuals nearly cancel."""
        self.states, self.images = [*self.states[-_MEMORY:], state], [*self.images[-_MEMORY:], image]
        if len(self.states) < 2:  # nothing to combine yet
            return image
        images = np.stack(self.images, axis=1)
        residuals = images - np.stack(self.states, axis=1)
        weights = np.linalg.lstsq(np.diff(residuals), residuals[:, -1], rcond=1e-10)[0]
        combined: FloatArray = image - np.diff(images) @ weights
        return combined


def _gaps(returns: FloatArray, scale: FloatArray) -> _Gaps:
    known = np.isfinite(returns).sum(axis=0).astype(np.float64)
    sums = np.nansum(returns, axis=0, dtype=np.float64) / scale
    squares = np.nansum(np.square(returns), axis=0, dtype=np.float64) / np.square(scale)
    unit = float(np.sqrt(squares.sum() / known.sum()))
    return _Gaps(known, len(returns) - known, sums, unit if unit > 0.0 else 1.0)


def _first_fit(start: FilledPanel, n_factors: int, gamma: float, gaps: _Gaps) -> FilledPanel:
    """Take the components of the panel as it is filled at first."""
    components = filled_components(start, n_factors, n_factors, gamma).first(n_factors)
    loadings = components.vectors * np.sqrt(start.shape[1])
    factors, residual = np.empty((start.shape[0], n_factors)), gaps.sums.copy()
    for span, block in start.by_date():
        factors[span] = block @ loadings / len(loadings)
        residual -= (loadings * (np.isfinite(start.returns[span]).T @ factors[span])).sum(axis=1)
    return FilledPanel(start.returns, start.scale, _constant(residual, gaps, gamma, len(factors)), factors, loadings)


def _round(panel: FilledPanel, gamma: float, gaps: _Gaps) -> _Round:
    """Fill, regress dates on loadings, regress stocks on the factors; one pass over the returns."""
    n_dates, loadings = panel.shape[0], panel.loadings
    pseudo_inverse = np.linalg.solve(loadings.T @ loadings, loadings.T).T
    factors, squares = np.empty_like(panel.factors), 0.0
    cross, known_factors = np.zeros_like(loadings), np.zeros_like(loadings)
    sums, residual = np.zeros(len(loadings)), np.zeros(len(loadings))
    for span, block in panel.by_date():
        known = np.isfinite(panel.returns[span])
        errors = np.where(known, block - panel.factors[span] @ loadings.T, 0.0)
        squares += float(np.square(errors).sum())
        residual += errors.sum(axis=0)
        factors[span] = block @ pseudo_inverse
        cross += block.T @ factors[span]
        sums += block.sum(axis=0)
        known_factors += known.T @ factors[span]
    mean = factors.mean(axis=0)
    normal = factors.T @ factors + gamma * n_dates * np.outer(mean, mean)
    loadings = np.linalg.solve(normal, (cross + gamma * np.outer(sums, mean)).T).T
    objective = squares - float((_constant(residual, gaps, gamma, n_dates) * residual).sum())
    left = gaps.sums - (loadings * known_factors).sum(axis=1)
    constant = _constant(left, gaps, gamma, n_dates)
    return _Round(FilledPanel(panel.returns, panel.scale, constant, factors, loadings), objective)


def _constant(residual: FloatArray, gaps: _Gaps, gamma: float, n_dates: int) -> FloatArray:
    """Best constant part of missing returns, from the (ticker,) sums of known residuals."""
    return -gamma * residual / (n_dates + gamma * gaps.missing)


def _relative_change(before: FilledPanel, after: FilledPanel) -> float:
    """|F1 X1' - F0 X0'| / |F1 X1'| over all dates and stocks, with the constant among the factors."""
    (factors, loadings), (factors0, loadings0) = _with_constant(after), _with_constant(before)
    size = _inner(factors, loadings, factors, loadings)
    # F1 X1' - F0 X0' as (F1 - F0) X1' + F0 (X1 - X0)': no cancellation of what is large
    difference = np.hstack([factors - factors0, factors0]), np.hstack([loadings, loadings - loadings0])
    change = _inner(*difference, *difference)
    return float(np.sqrt(max(change, 0.0) / size)) if size > 0.0 else 0.0


def _with_constant(panel: FilledPanel) -> tuple[FloatArray, FloatArray]:
    ones = np.ones((len(panel.factors), 1))
    return np.hstack([panel.factors, ones]), np.column_stack([panel.loadings, panel.constant])


def _inner(factors: FloatArray, loadings: FloatArray, factors_: FloatArray, loadings_: FloatArray) -> float:
    """Frobenius inner product of F X' and F_ X_'."""
    return float(((factors.T @ factors_) * (loadings.T @ loadings_)).sum())


def _pack(panel: FilledPanel, unit: float) -> FloatArray:
    """One vector in which factor returns and loadings are of like size, whatever the units of returns."""
    return np.concatenate([panel.factors.ravel() / unit, panel.loadings.ravel(), panel.constant / unit])


def _unpack(state: FloatArray, like: FilledPanel, unit: float) -> FilledPanel:
    n_dates, n_stocks = like.shape
    factors, loadings, constant = np.split(state, np.cumsum([like.factors.size, like.loadings.size]))
    factors, loadings = factors.reshape(n_dates, -1) * unit, loadings.reshape(n_stocks, -1)
    return FilledPanel(like.returns, like.scale, constant * unit, factors, loadings)
