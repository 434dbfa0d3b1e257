"""Refits of IPCA through time, from one set of Gram statistics.

Here belongs what many fits of overlapping windows share: statistics are packed once, and each fit starts from the one
before. What is fitted at a date belongs in `model`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import xarray as xr

from models.families.ipca.checks import check_capacity, check_collinearity
from models.families.ipca.model import IPCA
from models.statistics.gram import GramStatistics
from schemas.errors import ModelError


def walk_forward(
    gram: GramStatistics,
    refits: pd.DatetimeIndex,
    *,
    n_factors: Sequence[int],
    window: int | None = None,
    observed: xr.DataArray | None = None,
    warm: bool = True,
    **params: Any,
) -> dict[tuple[pd.Timestamp, int], IPCA]:
    """Fit IPCA up to each refit date, for each number of factors; no fit sees anything after its date.

    Parameters
    ----------
    gram : GramStatistics
        Of the whole span.
    refits : pandas.DatetimeIndex
        Last date of each training window, increasing.
    n_factors : sequence of int
        Numbers of latent factors, increasing.
    window : int, optional
        Dates of each training window. Default: all up to the refit.
    observed : xarray.DataArray, optional
        As for `IPCA.fit_gram`.
    warm : bool
        Start each fit from that of the date before with as many factors, and the first date's from that with fewer.
    **params
        Further arguments of `IPCA`; not ``n_factors``, ``bootstrap`` or panel mode.

    Returns
    -------
    dict
        Fitted models by refit date and number of factors.

    Raises
    ------
    ModelError
        If a window lacks what a fit needs, or nothing lies before a refit.
    """
    found: dict[tuple[pd.Timestamp, int], IPCA] = {}
    largest = IPCA(max(n_factors), **params)
    whole = largest.moments(gram, observed)
    earlier: dict[int, IPCA] = {}
    for refit in refits:
        stop = int(gram.dates.searchsorted(refit, side="right"))
        if stop == 0:
            raise ModelError(f"No date of the statistics is at or before the refit at {refit:%Y-%m-%d}.")
        span = slice(0 if window is None else max(0, stop - window), stop)
        part, moments = gram.sel(gram.dates[span.start], gram.dates[stop - 1]), whole.at(span).complete()
        check_capacity(part, max(n_factors), len(largest.observed))
        check_collinearity(part)
        last: IPCA | None = None
        for k in n_factors:
            start = earlier.get(k, last) if warm else None
            last = IPCA(k, **params).fit_moments(moments.with_factors(k), gram.chars, start)
            earlier[k] = found[refit, k] = last
    return found
