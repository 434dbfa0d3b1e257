"""What data must carry for IPCA to be identified.

Here belongs what can be said before the first iteration, from the statistics alone.
"""

from __future__ import annotations

import numpy as np

from models.arrays import FloatArray
from models.statistics.gram import RANK_TOLERANCE, GramStatistics, collinear
from schemas.errors import ModelError


def check_capacity(gram: GramStatistics, n_factors: int, n_observed: int) -> None:
    """Refuse more factors than characteristics, or than dates with at least so many stocks.

    None are allowed beside observed factors.

    Raises
    ------
    ModelError
        With the sizes at hand.
    """
    n_chars = len(gram.chars)
    sizes = gram.n[gram.n > 0]
    n_dates = int((sizes >= n_factors).sum())
    if (n_factors or n_observed) and 0 <= n_factors <= min(n_chars, n_dates):
        return
    cross_sections = f"median cross-section {int(np.median(sizes))} stocks" if len(sizes) else "no stocks"
    raise ModelError(
        f"n_factors={n_factors} must be from 1 to the number of characteristics, {n_chars}, and needs at "
        f"least as many dates with as many stocks; {n_dates} of {len(sizes)} dates have them "
        f"({cross_sections}). Lower n_factors, or give more characteristics, stocks or dates."
    )


def check_collinearity(gram: GramStatistics) -> None:
    """Refuse characteristics that are zero or collinear over the whole panel: Gamma would be arbitrary.

    Raises
    ------
    ModelError
        That names them.
    """
    total = gram.zz.sum(axis=0)
    scale = np.sqrt(np.diagonal(total))
    zero = [name for name, size in zip(gram.chars, scale, strict=True) if size == 0.0]
    if zero:
        raise ModelError(f"The characteristics {zero} are zero on every row; leave them out.")
    involved = collinear(total, gram.chars)
    if involved:
        raise ModelError(f"The characteristics {involved} are collinear over the whole panel; leave one out.")


def check_given(given: FloatArray, names: tuple[str, ...]) -> None:
    """Refuse given series that are zero or collinear over the dates on which all are known.

    Raises
    ------
    ModelError
        That names them.
    """
    size = np.sqrt(np.square(given).sum(axis=0))
    if len(given) >= len(names) and (size > 0.0).all():
        values = np.linalg.eigvalsh((given / size).T @ (given / size))
        if values[0] > RANK_TOLERANCE * values[-1]:
            return
    raise ModelError(
        f"The given series {[*names]} are zero or collinear over the {len(given)} dates on which all are known; "
        "leave one out, or give more dates."
    )
