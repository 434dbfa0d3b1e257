"""From what a book holds, in values or shares, to its weights.

Here belongs what is known of holdings by themselves. Leaving out what is not covered belongs in `weights`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from schemas.errors import DataError

_LEAST_NET = 0.05
"""Share of the gross value below which the net value says nothing of the size of a book."""


def weights_of_values(values: pd.Series, name: str) -> pd.Series:
    """Return market values over their sum.

    Parameters
    ----------
    values : pandas.Series
        By ticker, sold short below zero.
    name : str
        Of the book, for messages.

    Raises
    ------
    DataError
        If a value is not finite, or longs and shorts leave next to nothing, so that weights cannot be told.
    """
    amounts = values.astype(np.float64)
    if not np.isfinite(amounts).all():
        raise DataError(f"{name}: the value of {amounts.index[~np.isfinite(amounts)][0]} is not a finite number.")
    net, gross = float(amounts.sum()), float(amounts.abs().sum())
    if not net > _LEAST_NET * gross:
        raise DataError(
            f"{name}: its values sum to {net:g} with {gross:g} held long and short, which is no size to take weights "
            "of; give a column `weight`, in parts of the book's capital"
        )
    return amounts / net
