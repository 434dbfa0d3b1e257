"""Whether two series label the same periods with the same dates: returns and the factors that are to explain them.

Here belongs the rule, which a run and a notebook share. Joining belongs where the arrays are: in
`storage.sources.factors` and in `models.panel`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Dates = npt.NDArray[np.datetime64]

_FEW, _FEW_SHARE = 2, 0.05
"""Dates, and share of them, that may differ on both sides, as holidays of a vendor do."""

_MORE_OFTEN = 2
"""Rows of factors per date, beyond the first, from which on they are called of another frequency."""


def describe_mismatch(dates: Dates, factors: Dates) -> str | None:
    """Say why factors are not labelled as the returns are; None if they are, as far as both reach.

    Parameters
    ----------
    dates : numpy.ndarray
        Dates of the returns, ascending.
    factors : numpy.ndarray
        Dates of the factors, ascending.
    """
    if not factors.size:
        return "there are no dates of factors"
    common = np.intersect1d(dates, factors)
    if not common.size:
        return (
            f"no date in common with the market: the factors are from {_day(factors[0])} to {_day(factors[-1])}, "
            f"the market from {_day(dates[0])} to {_day(dates[-1])}; label periods alike"
        )
    first, last = max(dates[0], factors[0]), min(dates[-1], factors[-1])
    own, theirs = (both[(both >= first) & (both <= last)] for both in (dates, factors))
    lacking, strange = np.setdiff1d(own, common), np.setdiff1d(theirs, common)
    if strange.size > _MORE_OFTEN * own.size:
        return (
            f"{theirs.size} dates of factors lie among {own.size} of the market, which is another frequency; give the "
            "factors' returns over the same periods"
        )
    if min(lacking.size, strange.size) > max(_FEW, _FEW_SHARE * own.size):
        return (
            f"{lacking.size} of {own.size} dates have no factors, the first is {_day(lacking[0])}, and {strange.size} "
            f"dates of the factors are none of the market's, the first is {_day(strange[0])}; label periods alike"
        )
    return None


def _day(date: np.datetime64) -> str:
    return str(np.datetime_as_string(date, unit="D"))
