"""How many factors a panel of returns has: the criteria of Bai-Ng, Onatski and Ahn-Horenstein.

Here belongs what is decided from the leading eigenvalues of a second-moment matrix alone. How the matrix comes about
on an unbalanced panel belongs in `components`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr
from annotated_types import Ge, Le
from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError, PydanticKnownError

from models.arrays import FloatArray
from schemas.errors import ConfigError, ModelError

FactorRule = Literal["bai_ng", "onatski", "ahn_horenstein"]
RULES: tuple[FactorRule, ...] = get_args(FactorRule)
_MOST = 50
ONATSKI_WINDOW = 5  # eigenvalues of the regression that calibrates the threshold
_ONATSKI_ROUNDS = 100


def _number_or_rule(value: Any) -> Any:
    """Say what is wrong in one line, where the alternatives of a union would each say it of themselves."""
    if isinstance(value, str) and value not in RULES:
        raise PydanticCustomError("factor_rule", "Input should be a number, 'bai_ng', 'onatski' or 'ahn_horenstein'")
    if isinstance(value, int) and value < 1:
        raise PydanticKnownError("greater_than_equal", {"ge": 1})
    if isinstance(value, int) and value > _MOST:
        raise PydanticKnownError("less_than_equal", {"le": _MOST})
    return value


FactorNumber = Annotated[Annotated[int, Ge(1), Le(_MOST)] | FactorRule, BeforeValidator(_number_or_rule)]
"""A number of factors, or the rule that chooses it."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Leading eigenvalues of X'X / T of a (date, ticker) panel X, and what else the criteria need.

    Attributes
    ----------
    eigenvalues : numpy.ndarray
        (component,) leading eigenvalues, descending and not negative.
    total : float
        Sum of all eigenvalues, the trace of the matrix.
    n_dates, n_stocks : int
        T and n.
    """

    eigenvalues: FloatArray
    total: float
    n_dates: int
    n_stocks: int

    @classmethod
    def of(cls, returns: npt.ArrayLike, *, demean: bool = True) -> Spectrum:
        """All eigenvalues of a complete (date, ticker) array, each stock centred unless told otherwise.

        Raises
        ------
        ModelError
            If a return is missing: fit `PCA` with a rule instead, which fills gaps.
        """
        values = np.asarray(returns, dtype=np.float64)
        if values.ndim != 2 or not np.isfinite(values).all():
            raise ModelError("Spectrum.of needs a complete (date, ticker) array; fit PCA to a panel with gaps.")
        centred = values - values.mean(axis=0) if demean else values
        eigenvalues = np.square(np.linalg.svd(centred, compute_uv=False)) / len(values)
        return cls(eigenvalues, float(eigenvalues.sum()), *values.shape)


def choose_factors(spectrum: Spectrum, rule: FactorRule, max_factors: int) -> int:
    """Return the number of factors by one rule: IC_p2 of Bai-Ng, ED of Onatski, or GR of Ahn-Horenstein.

    Parameters
    ----------
    spectrum : Spectrum
    rule : str
        "bai_ng", "onatski" or "ahn_horenstein".
    max_factors : int
        The largest number considered. The answer may be 0.

    Raises
    ------
    ConfigError
        If the rule is unknown.
    ModelError
        If the panel is too small for so many factors.
    """
    if rule == "onatski":
        return onatski(spectrum, max_factors)
    if rule == "bai_ng":
        return int(np.argmin(bai_ng(spectrum, max_factors)["ic_p2"].values))
    if rule == "ahn_horenstein":
        return int(np.argmax(ahn_horenstein(spectrum, max_factors)["gr"].values))
    raise ConfigError(f"'{rule}' is no rule for the number of factors; give a number or one of {', '.join(RULES)}.")


def bai_ng(spectrum: Spectrum, max_factors: int) -> xr.Dataset:
    """Information criteria of Bai and Ng (2002) for 0 to ``max_factors`` factors; the smallest value wins.

    With V(k) the mean squared residual of k components, C^2 = min(n, T) and the penalties
    g1 = (n + T)/(nT) ln(nT/(n + T)), g2 = (n + T)/(nT) ln C^2, g3 = ln C^2 / C^2:
    PC_pi = V(k) + k V(max_factors) g_i and IC_pi = ln V(k) + k g_i. Source: section 5.

    Returns
    -------
    xarray.Dataset
        ``pc_p1``, ``pc_p2``, ``pc_p3``, ``ic_p1``, ``ic_p2``, ``ic_p3`` over ``n_factors``.

    Raises
    ------
    ModelError
        If ``max_factors`` is not below both the number of dates and of stocks.
    """
    left = _left_over(spectrum, max_factors) / spectrum.n_stocks
    n_dates, n_stocks = spectrum.n_dates, spectrum.n_stocks
    ratio, smaller = (n_dates + n_stocks) / (n_dates * n_stocks), min(n_dates, n_stocks)
    penalties = (-ratio * np.log(ratio), ratio * np.log(smaller), np.log(smaller) / smaller)
    count = np.arange(max_factors + 1)
    with np.errstate(divide="ignore"):  # a panel of exact rank k has V(k) = 0, and ln V(k) = -inf wins
        logarithm = np.log(left)
    criteria = {f"pc_p{i}": left + count * left[-1] * g for i, g in enumerate(penalties, start=1)}
    criteria |= {f"ic_p{i}": logarithm + count * g for i, g in enumerate(penalties, start=1)}
    return _by_number(criteria)


def ahn_horenstein(spectrum: Spectrum, max_factors: int) -> xr.Dataset:
    """Eigenvalue ratio ER and growth ratio GR of Ahn and Horenstein (2013); the largest value wins.

    ER(k) = mu_k / mu_(k+1) and GR(k) = ln(1 + mu_k / V(k)) / ln(1 + mu_(k+1) / V(k+1)), mu_k the eigenvalues over n
    and V(k) the sum of those after the k-th. For k = 0 the mock eigenvalue V(0) / ln(min(n, T)) stands in, so that
    the answer may be 0. The paper recommends to remove the mean of each date too; do so beforehand if wanted.

    Returns
    -------
    xarray.Dataset
        ``er`` and ``gr`` over ``n_factors`` from 0 to ``max_factors``.

    Raises
    ------
    ModelError
        If ``max_factors`` + 2 exceeds the number of dates or of stocks.
    """
    left = _left_over(spectrum, max_factors + 1)
    mock = spectrum.total / np.log(min(spectrum.n_dates, spectrum.n_stocks))
    values = np.concatenate([[mock], spectrum.eigenvalues[: max_factors + 1]])
    with np.errstate(divide="ignore", invalid="ignore"):  # a panel of exact rank k: the ratio at k is infinite
        ratio = values[:-1] / values[1:]
        growth = np.log1p(values / np.concatenate([[spectrum.total], left[1:]]))
        criteria = {"er": ratio, "gr": growth[:-1] / growth[1:]}
    return _by_number({name: np.nan_to_num(value, nan=0.0, posinf=np.inf) for name, value in criteria.items()})


def onatski(spectrum: Spectrum, max_factors: int) -> int:
    """Return the number of factors by the edge distribution of Onatski (2010), estimator ED.

    The largest i up to ``max_factors`` whose eigenvalue exceeds the next by at least delta. Delta is twice the
    absolute slope of the five eigenvalues from the j-th on against (j - 1)^(2/3), ..., (j + 3)^(2/3), with j =
    ``max_factors`` + 1 at first and one more than the last answer after that, until the answer repeats. Source:
    section 4.

    Raises
    ------
    ModelError
        If ``max_factors`` + 5 exceeds the number of dates or of stocks.
    """
    _check(spectrum, max_factors, max_factors + ONATSKI_WINDOW)
    values = spectrum.eigenvalues
    gaps = values[:max_factors] - values[1 : max_factors + 1]
    last, answers = max_factors, list[int]()
    for _ in range(_ONATSKI_ROUNDS):
        grid = np.arange(last, last + ONATSKI_WINDOW) ** (2.0 / 3.0)
        slope = np.polyfit(grid, values[last : last + ONATSKI_WINDOW], 1)[0]
        above = np.flatnonzero(gaps >= 2.0 * abs(slope))
        last = int(above[-1]) + 1 if len(above) else 0
        if last in answers:
            return max(answers[answers.index(last) :])  # of a cycle the largest; a fixed point is a cycle of one
        answers.append(last)
    return last


def _left_over(spectrum: Spectrum, last: int) -> FloatArray:
    """V(0), ..., V(last): the sum of the eigenvalues after the k-th."""
    _check(spectrum, last, last + 1)
    taken = np.concatenate([[0.0], np.cumsum(spectrum.eigenvalues[:last])])
    return np.maximum(spectrum.total - taken, 0.0)


def _check(spectrum: Spectrum, max_factors: int, needed: int) -> None:
    least = min(spectrum.n_dates, spectrum.n_stocks)
    if max_factors < 1 or needed > least or needed - 1 > len(spectrum.eigenvalues):
        raise ModelError(
            f"max_factors={max_factors} needs {needed} dates, stocks and eigenvalues; the panel has "
            f"{spectrum.n_dates} dates, {spectrum.n_stocks} stocks and {len(spectrum.eigenvalues)} eigenvalues. "
            "Lower max_factors."
        )


def _by_number(criteria: dict[str, FloatArray]) -> xr.Dataset:
    size = len(next(iter(criteria.values())))
    return xr.Dataset({name: ("n_factors", values) for name, values in criteria.items()}, {"n_factors": range(size)})
