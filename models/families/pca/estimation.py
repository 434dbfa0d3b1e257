"""From a panel with gaps to components, with the number of factors given or chosen by a rule.

Here belongs the order of things: fill or take pairs, decompose, choose. The steps themselves belong in `matrices`,
`filling` and `models.families.pca.factor_number`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from models.arrays import FloatArray
from models.families.pca.completion import Gaps
from models.families.pca.factor_number import ONATSKI_WINDOW, FactorRule, Spectrum, choose_factors
from models.families.pca.filling import Fill, fill
from models.families.pca.matrices import (
    Components,
    ScaledPanel,
    complete_components,
    completed_components,
    pairwise_components,
)
from schemas.errors import ModelError

_TOL_OF_CHOICE = 1e-5  # to which gaps are filled while a rule chooses the number of factors


@dataclass(frozen=True)
class Recipe:
    """What is asked of the components; the fields are those of `PCA`, and gamma is of `RPPCA`."""

    n_factors: int | FactorRule
    max_factors: int
    missing: Literal["em", "pairwise"]
    gamma: float
    max_iter: int
    tol: float


@dataclass(frozen=True, eq=False)
class Estimate:
    """Components as many as there are factors, and after how many rounds the filling of gaps settled.

    Attributes
    ----------
    components : Components
    mean, variance : numpy.ndarray
        (ticker,) of the returns over the scale: of the completed panel, or of each stock's own history if covariances
        are estimated by pairs.
    n_iter : int
        0 without gaps to fill.
    """

    components: Components
    mean: FloatArray
    variance: FloatArray
    n_iter: int = 0


def estimate(returns: FloatArray, scale: FloatArray, tickers: list[str], recipe: Recipe) -> Estimate:
    """Estimate the components of (date, ticker) returns over the (ticker,) scale, NaN where missing.

    Raises
    ------
    ModelError
        If the rank of the returns is below the number of factors, a rule finds none, two stocks share no dates, or the
        gaps have not settled after ``max_iter`` rounds.
    """
    most = recipe.n_factors if isinstance(recipe.n_factors, int) else recipe.max_factors
    if recipe.missing == "em" and np.isnan(returns).any():
        return _filled(Gaps(returns, scale), recipe)
    if recipe.missing == "pairwise":
        components = pairwise_components(returns, scale, most, recipe.gamma, tickers)
    else:
        n_eigenvalues = recipe.max_factors + ONATSKI_WINDOW
        components = complete_components(ScaledPanel(returns, scale), most, n_eigenvalues, recipe.gamma)
    mean = np.nanmean(returns, axis=0, dtype=np.float64) / scale
    variance = np.nanvar(returns, axis=0, dtype=np.float64) / np.square(scale)
    return Estimate(components.first(_number(components.spectrum, recipe)), mean, variance)


def _filled(gaps: Gaps, recipe: Recipe) -> Estimate:
    if not gaps.observed.any():
        raise ModelError("Every return is zero: there is no component. Leave these stocks out.")
    if isinstance(recipe.n_factors, int):
        n_factors, start = recipe.n_factors, None
    else:
        n_factors, start = _chosen(gaps, recipe)
    filled = fill(gaps, n_factors, recipe.max_iter, recipe.tol, start)
    components = _decompose(filled, n_factors, recipe).first(n_factors)
    return Estimate(components, filled.completed.mean, filled.completed.variance, filled.n_iter)


def _chosen(gaps: Gaps, recipe: Recipe) -> tuple[int, Fill | None]:
    """Choose the number of factors on a panel filled with as many as Bai and Ng find; return a fill to go on from.

    Gaps at their means look like a factor of their own, and a panel filled with too many factors confirms them. So the
    fill goes up from one factor, to the fewest k of which IC_p2 finds no more than k once gaps are filled with k.
    """
    filled: Fill | None = None
    loose = max(recipe.tol, _TOL_OF_CHOICE)
    for n_factors in range(1, recipe.max_factors + 1):
        filled = fill(gaps, n_factors, recipe.max_iter, loose, filled)
        spectrum = _decompose(filled, recipe.max_factors, recipe).spectrum
        if choose_factors(spectrum, "bai_ng", recipe.max_factors) <= n_factors:
            break
    chosen = _number(spectrum, recipe)
    return chosen, filled if chosen >= n_factors else None


def _decompose(filled: Fill, n_components: int, recipe: Recipe) -> Components:
    n_eigenvalues = recipe.max_factors + ONATSKI_WINDOW
    return completed_components(filled.completed, n_components, n_eigenvalues, recipe.gamma)


def _number(spectrum: Spectrum, recipe: Recipe) -> int:
    if isinstance(recipe.n_factors, int):
        return recipe.n_factors
    chosen = choose_factors(spectrum, recipe.n_factors, recipe.max_factors)
    if chosen == 0:
        raise ModelError(f"n_factors='{recipe.n_factors}' finds no factor in these returns; give a number instead.")
    return chosen
