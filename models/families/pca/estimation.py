"""From a panel with gaps to components, with the number of factors given or chosen by a rule.

Here belongs the order of things: fill or take pairs, decompose, choose. The steps themselves belong in `matrices`,
`filling` and `models.families.pca.factor_number`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from models.arrays import FloatArray
from models.families.pca.factor_number import ONATSKI_WINDOW, FactorRule, Spectrum, choose_factors
from models.families.pca.filling import Fill, fill, mean_filled
from models.families.pca.matrices import Components, FilledPanel, filled_components, pairwise_components
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
    """Components as many as there are factors, and whether and after how many rounds the filling of gaps settled."""

    components: Components
    converged: bool = True
    n_iter: int = 0


def estimate(returns: FloatArray, scale: FloatArray, tickers: list[str], recipe: Recipe) -> Estimate:
    """Estimate the components of (date, ticker) returns over the (ticker,) scale, NaN where missing.

    Raises
    ------
    ModelError
        If the rank of the returns is below the number of factors, a rule finds none, or two stocks share no dates.

    Warns
    -----
    ConvergenceWarning
        If the fill has not settled after ``max_iter`` rounds.
    """
    most = recipe.n_factors if isinstance(recipe.n_factors, int) else recipe.max_factors
    if recipe.missing == "pairwise":
        components = pairwise_components(returns, scale, most, recipe.gamma, tickers)
        return Estimate(components.first(_number(components.spectrum, recipe)))
    start = mean_filled(returns, scale)
    if isinstance(recipe.n_factors, int):
        return _filled(start, recipe.n_factors, recipe)
    if not np.isnan(returns).any():
        components = _decompose(start, recipe)
        return Estimate(components.first(_number(components.spectrum, recipe)))
    return _filled(*_chosen(start, recipe), recipe)


def _chosen(start: FilledPanel, recipe: Recipe) -> tuple[FilledPanel, int]:
    """Choose the number of factors on a panel filled with as many as Bai and Ng find; return that panel too.

    Gaps at their means look like a factor of their own, and a panel filled with too many factors confirms them. So the
    fill goes up from one factor, to the fewest k of which IC_p2 finds no more than k once gaps are filled with k.
    """
    panel, loose = start, max(recipe.tol, _TOL_OF_CHOICE)
    for n_factors in range(1, recipe.max_factors + 1):
        panel = fill(panel, n_factors, recipe.gamma, recipe.max_iter, loose).panel
        spectrum = _decompose(panel, recipe).spectrum
        if choose_factors(spectrum, "bai_ng", recipe.max_factors) <= n_factors:
            break
    return panel, _number(spectrum, recipe)


def _filled(start: FilledPanel, n_factors: int, recipe: Recipe) -> Estimate:
    filled: Fill = fill(start, n_factors, recipe.gamma, recipe.max_iter, recipe.tol)
    if not filled.converged:
        warnings.warn(
            f"Principal components filled gaps for max_iter={recipe.max_iter} rounds without settling to "
            f"tol={recipe.tol}: raise max_iter or min_observed, or lower n_factors.",
            ConvergenceWarning,
            stacklevel=4,
        )
    components = _decompose(filled.panel, recipe).first(n_factors)
    return Estimate(components, filled.converged, filled.n_iter)


def _decompose(panel: FilledPanel, recipe: Recipe) -> Components:
    most = recipe.n_factors if isinstance(recipe.n_factors, int) else recipe.max_factors
    return filled_components(panel, most, recipe.max_factors + ONATSKI_WINDOW, recipe.gamma)


def _number(spectrum: Spectrum, recipe: Recipe) -> int:
    if isinstance(recipe.n_factors, int):
        return recipe.n_factors
    chosen = choose_factors(spectrum, recipe.n_factors, recipe.max_factors)
    if chosen == 0:
        raise ModelError(f"n_factors='{recipe.n_factors}' finds no factor in these returns; give a number instead.")
    return chosen
