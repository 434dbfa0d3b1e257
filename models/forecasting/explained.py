"""What moves the loadings of a version: made of its last fit and the dates before it, and put beside its rows.

Here belong the dates and the axes. What the numbers are belongs in `models.evaluation.explaining`.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from models.evaluation.explaining import characteristic_importance, response_curves
from models.families.base import FactorModel
from models.panel import Panel
from schemas.errors import DataError, ModelError

_DATES = 252


def with_explanation(rows: xr.Dataset, last: FactorModel, known: Panel) -> xr.Dataset:
    """Add importance of characteristics and response curves of the last fit; nothing where there are none.

    There are none if loadings belong to named stocks, or no characteristic varies.

    Parameters
    ----------
    rows : xarray.Dataset
        With the statistics of the fit, whose axis of characteristics, if there is one, these numbers are put on.
    last : FactorModel
        The last fit, in the coordinates of the rows.
    known : Panel
        The rows up to the date of that fit; the last 252 are explained.
    """
    recent = known.rows(max(len(known.dates) - _DATES - last.row_memory, 0), len(known.dates))
    try:
        curves = response_curves(last, recent)
    except (ModelError, DataError):
        return rows
    chars = rows["char"].values if "char" in rows.coords else recent.chars
    response = curves.drop_vars("value").reindex(char=chars, factor=rows["factor"].values)
    return rows.assign(
        characteristic_importance=characteristic_importance(last, recent).reindex(char=chars),
        response=response.astype(np.float32),
        response_value=curves["value"].drop_vars("value").reindex(char=chars),
    )
