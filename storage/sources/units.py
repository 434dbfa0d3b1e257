"""Whether returns are in the units they are declared in, judged by their size.

The judge is the median of the absolute values that are not zero: typical moves, which no crash and no bad
print can shift. Only clear cases are refused; thresholds lie well away from both readings:

==============================  ========  =========  =================================================
per period, as decimals         daily     monthly    typical
==============================  ========  =========  =================================================
a return or factor is refused   > 0.05    > 0.3      stocks 0.01 and 0.06, factors 0.003 and 0.02;
as percent, or as prices                             in percent a hundred times as much
a source declared in percent    < 1e-4    < 1e-3     decimals, divided by 100 once more
is refused as decimals, if all
its columns are
a risk-free rate is refused     > 0.002   > 0.05     65 % and 80 % a year; 1981 in the US: 0.0006 and
as percent, or as annual                             0.0135 per period
==============================  ========  =========  =================================================

A risk-free rate may really be nearly zero, so one that is too small is never refused; and with fewer than
`ENOUGH` values nothing is.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from schemas.cells import LARGEST_RATE, LARGEST_RETURN
from schemas.errors import SourceError
from schemas.sources import Units
from schemas.spec import Frequency

FloatArray = npt.NDArray[np.float64]
ENOUGH = 20
"""Fewest values that are judged."""

_SMALLEST_RETURN = {"daily": 1e-4, "monthly": 1e-3}
_WORST_FACTOR = -0.99
_PERIOD = {"daily": "day", "monthly": "month"}


def to_decimals(values: FloatArray, units: Units) -> FloatArray:
    """Return values as decimals."""
    return values / 100.0 if units == "percent" else values


def check_returns(what: str, columns: Mapping[str, FloatArray], units: Units, frequency: Frequency) -> None:
    """Refuse returns that are not in their declared units.

    Parameters
    ----------
    what : str
        What is being read, for the message.
    columns : Mapping[str, numpy.ndarray]
        Returns by name, as decimals according to the declared units.
    units : {"decimal", "percent"}
        The declared units.
    frequency : {"daily", "monthly"}
        Length of a period.

    Raises
    ------
    SourceError
        Naming the column, its typical size and the units to declare.
    """
    sizes = {name: _typical(values) for name, values in columns.items()}
    sizes = {name: size for name, size in sizes.items() if np.isfinite(size)}
    for name, size in sizes.items():
        if size > LARGEST_RETURN[frequency]:
            declared, other = ("percent", "prices or levels") if units == "percent" else ("decimals", "percent")
            advice = (
                "give returns" if units == "percent" else "set `units: percent`, or give returns if these are prices"
            )
            raise SourceError(
                f"{what}: '{name}' cannot be {frequency} returns in {declared}: a typical move would be "
                f"{size:.0%}; they look like {other}; {advice}"
            )
    if units == "percent" and sizes and max(sizes.values()) < _SMALLEST_RETURN[frequency]:
        name, size = max(sizes.items(), key=lambda item: item[1])
        raise SourceError(
            f"{what}: '{name}' cannot be {frequency} returns in percent: a typical move would be {size:.4%}; "
            "they look like decimals; set `units: decimal`"
        )


def check_rate(what: str, name: str, rate: FloatArray, frequency: Frequency) -> None:
    """Refuse a risk-free rate (decimals, according to its declared units) that is too high per period.

    Raises
    ------
    SourceError
        Naming the column and its typical size.
    """
    size = _typical(rate)
    if size > LARGEST_RATE[frequency]:
        raise SourceError(
            f"{what}: the risk-free rate '{name}' would be {size:.2%} per {_PERIOD[frequency]}; it looks "
            "like percent or an annual rate; set `units: percent`, or give the rate per period"
        )


def check_factor_codes(what: str, columns: Mapping[str, FloatArray], dates: npt.NDArray[np.datetime64]) -> None:
    """Refuse a factor return of -99 % or worse: it is the code -99.99 of a missing value.

    Raises
    ------
    SourceError
        Naming the column and the first date.
    """
    for name, values in columns.items():
        rows = np.flatnonzero(values <= _WORST_FACTOR)
        if rows.size:
            raise SourceError(
                f"{what}: '{name}' is {values[rows[0]]:.4g} on {np.datetime_as_string(dates[rows[0]], 'D')}, "
                "which no factor returns; Fama-French files write -99.99 for missing: leave these cells empty, or "
                "list the number as it is in the file under `missing_values`"
            )


def _typical(values: FloatArray) -> float:
    """Median of the absolute values that are known and not zero; NaN if there are too few."""
    known = np.abs(values[np.isfinite(values) & (values != 0.0)])
    return float(np.median(known)) if known.size >= ENOUGH else float("nan")
