"""Names for the types of arrays that the maths passes around, and how those kept by name are told apart.

Dimensions are said where an array is: ``(date, ticker, factor)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]
"""Numbers of any precision: panels and loadings are stored in float32, sums are taken in float64."""

Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

CodeArray = npt.NDArray[np.integer[Any]]
"""Positions in a list of names, of any width; -1 where there is none."""

NamedArrays = dict[str, npt.NDArray[Any]]
"""What a model or an estimator remembers, by name, as it is stored."""


def under(prefix: str, arrays: NamedArrays) -> NamedArrays:
    """Return the arrays whose names begin with a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
