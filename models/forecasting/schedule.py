"""When models are fitted again, walking forward, and on which dates.

What a run does at these dates belongs in `tasks`, what a fit serves between them in `following`.
"""

from __future__ import annotations

from itertools import pairwise

import pandas as pd

from models.panel import Panel
from schemas.errors import ModelError
from schemas.spec import WalkForward

_PERIODS = {"month": "M", "quarter": "Q", "year": "Y"}
_LEAST_HISTORY = 24


def refit_dates(dates: pd.DatetimeIndex, schedule: WalkForward, next_session: pd.Timestamp) -> list[pd.Timestamp]:
    """Dates as of which models are fitted: the last session not after `first`, then the last of every period.

    Parameters
    ----------
    dates : pandas.DatetimeIndex
        Sessions of the panel, up to the last with a return.
    schedule : WalkForward
        When to refit.
    next_session : pandas.Timestamp
        The session after the last date: it tells whether the last period is over.

    Raises
    ------
    ModelError
        If there is too little history before the first refit.
    """
    first = int(dates.searchsorted(pd.Timestamp(schedule.first), side="right")) - 1
    if first + 1 < _LEAST_HISTORY:
        begin = dates[min(_LEAST_HISTORY, len(dates)) - 1]
        raise ModelError(
            f"walk_forward.first is {schedule.first}, but only {max(first + 1, 0)} dates lie before it and a fit needs "
            f"{_LEAST_HISTORY}; choose a date after {begin:%Y-%m-%d}"
        )
    span = pd.DatetimeIndex([*dates[first:], next_session])
    periods = span.to_period(_PERIODS[schedule.every])
    ends = [day for (day, this), (_, following) in pairwise(zip(span, periods, strict=True)) if this != following]
    return sorted({dates[first], *ends})


def training(known: Panel, window: int | None) -> Panel:
    """Return the last ``window`` dates of a panel that ends with a date of a fit; all of them if there is no window."""
    return known if window is None else known.sel(start=known.dates[-min(window, len(known.dates))])
