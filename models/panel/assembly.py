"""How a panel is put together: lag, coverage, mask, transform and market weight, in one place.

Here belong that logic on plain arrays, and the reading of a cube span by span. The `Panel` itself, and the
ways to make one from frames and arrays, belong in `panel`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from models.arrays import BoolArray, CodeArray, FloatArray, IntArray
from models.panel.transforms import TRANSFORMS
from schemas.cells import DATE_ADVICE, DATE_FORMATS, MIDNIGHT, MONTH_FORMATS
from schemas.errors import ConfigError, DataError

CONSTANT = "constant"
UNKNOWN = -1
"""Industry code of a stock whose industry is not known."""
NEVER = np.iinfo(np.int64).max
"""Date of what does not appear."""


def assemble(
    *,
    returns: FloatArray,
    characteristics: FloatArray,
    eligible: BoolArray,
    chars: list[str],
    usable: BoolArray | None = None,
    coverage: BoolArray | None = None,
    market_weight: FloatArray | None = None,
    industry: CodeArray | None = None,
    industries: Sequence[str] = (),
    transform: str | None = None,
    constant: bool = False,
    min_coverage: float = 0.0,
) -> xr.Dataset:
    """Put together the variables of a panel from arrays whose rows are dates and are already lagged.

    Parameters
    ----------
    returns : numpy.ndarray
        (date, ticker) excess returns at the date.
    characteristics : numpy.ndarray
        (date, ticker, char) known before the date.
    eligible : numpy.ndarray
        (date, ticker) estimation flag known before the date.
    usable : numpy.ndarray, optional
        (date, ticker) estimation flag of the date itself: a return that a check suspects is not learnt from, though
        the stock stays covered. Default: every return.
    coverage : numpy.ndarray, optional
        (date, ticker). Default: stocks with at least one, and at least the share ``min_coverage``, of the
        characteristics (all of them under the transform "none"); if there are no characteristics,
        ``eligible``.
    market_weight : numpy.ndarray, optional
        (date, ticker), renormalised over covered stocks. Default, and where they have no weight: equal.
    industry : numpy.ndarray, optional
        (date, ticker) positions in ``industries``, known before the date; -1 where unknown.
    industries : sequence of str
        Names of the codes.
    transform : str, optional
        A name of `TRANSFORMS`; None if the characteristics are transformed already.
    constant : bool
        Append a characteristic ``constant`` that is 1 on covered rows.

    Returns
    -------
    xarray.Dataset
        Without labels for dates and tickers.
    """
    returns = np.where(np.isfinite(returns), returns, np.nan)
    trusted = np.isfinite(returns) & (True if usable is None else usable)
    mask = eligible & trusted
    if coverage is None:
        coverage = _covered(characteristics, eligible, 1.0 if transform == "none" else min_coverage)
    if transform is not None:
        characteristics = TRANSFORMS[transform](characteristics, coverage)
    characteristics = np.where(coverage[..., np.newaxis], characteristics, np.nan).astype(np.float32)
    if constant:
        ones = np.where(coverage, np.float32(1.0), np.float32(np.nan))[..., np.newaxis]
        characteristics, chars = np.concatenate([characteristics, ones], axis=2), [*chars, CONSTANT]
    if len(set(chars)) != len(chars):
        raise DataError(f"Characteristics must have different names, that of the constant included: {chars}.")
    data = xr.Dataset(
        {
            "returns": (("date", "ticker"), returns),
            "characteristics": (("date", "ticker", "char"), characteristics),
            "coverage": (("date", "ticker"), coverage),
            "mask": (("date", "ticker"), mask & coverage),
            "trusted": (("date", "ticker"), trusted),
            "market_weight": (("date", "ticker"), _normalised(market_weight, coverage)),
        },
        coords={"char": np.array(chars, dtype=np.str_)},
    )
    if industry is None:
        return data
    data["industry"] = (("date", "ticker"), np.where(coverage, industry, UNKNOWN).astype(np.int16))
    return data.assign_coords(industry_name=np.array(industries, dtype=np.str_))


def order_industries(codes: CodeArray, names: Sequence[str]) -> tuple[npt.NDArray[np.int16], list[str]]:
    """Put industries in the order in which they first appear, and by name within a date; leave out those that do not.

    The codes up to a date do not depend on what comes after it.

    Parameters
    ----------
    codes : numpy.ndarray
        (date, ticker) positions in ``names``, -1 where unknown.
    names : sequence of str
        Names of the codes.

    Raises
    ------
    DataError
        There are more names than an int16 can number.
    """
    place, kept = industry_places(first_seen(codes, len(names)), names)
    return place[codes], kept


def first_seen(codes: CodeArray, names: int) -> IntArray:
    """Return the first date at which each of so many industries appears in codes (date, ticker), as a position.

    `NEVER` of those that do not.
    """
    first = np.full(names, NEVER, dtype=np.int64)
    date, ticker = np.nonzero(codes >= 0)
    np.minimum.at(first, codes[date, ticker], date)
    return first


def industry_places(first: IntArray, names: Sequence[str]) -> tuple[npt.NDArray[np.int16], list[str]]:
    """Return the new code of each old one, the last for -1, and the names in their new order; as `order_industries`."""
    if len(names) > np.iinfo(np.int16).max:
        raise DataError(f"There are {len(names)} industries; give coarser groups, at most {np.iinfo(np.int16).max}.")
    order = sorted(np.flatnonzero(first < NEVER).tolist(), key=lambda code: (first[code], names[code]))
    place = np.full(len(names) + 1, UNKNOWN, dtype=np.int16)  # a code of -1 takes the last
    place[order] = np.arange(len(order))
    return place, [str(names[code]) for code in order]


def _covered(characteristics: FloatArray, eligible: BoolArray, min_coverage: float) -> BoolArray:
    n_chars = characteristics.shape[2]
    if n_chars == 0:
        return eligible.copy()
    enough: BoolArray = np.isfinite(characteristics).sum(axis=2) >= max(1.0, min_coverage * n_chars - 1e-9)
    return enough


def _normalised(weights: FloatArray | None, coverage: BoolArray) -> npt.NDArray[np.float32]:
    """Weights of covered stocks that sum to 1, equal where none are given; NaN on dates that cover nobody."""
    counts = coverage.sum(axis=1, keepdims=True)
    equal = np.where(counts > 0, coverage / np.maximum(counts, 1), np.nan)
    if weights is None:
        return equal.astype(np.float32)
    held = np.where(coverage & np.isfinite(weights), weights, 0.0).astype(np.float64)
    total = np.cumsum(held, axis=1)[:, -1:]  # one after the other: absent stocks in between do not change the rounding
    return np.where(total > 0.0, held / np.where(total > 0.0, total, 1.0), equal).astype(np.float32)


def rows(array: xr.DataArray, start: int, stop: int, *, fill: float) -> npt.NDArray[Any]:
    """Dates start to stop (by position) of a possibly lazy array, with ``fill`` beyond its ends.

    A lag is a shift of this window: the rows one earlier of everything that is known before the date.
    """
    length = array.sizes["date"]
    first, last = (min(max(edge, 0), length) for edge in (start, stop))
    order = ("date", "ticker", "observed_factor", "char")
    values = array.isel(date=slice(first, last)).transpose(*order, missing_dims="ignore").values
    before = min(max(-start, 0), stop - start)
    after = (stop - start) - before - (last - first)
    if not before and not after:
        return values
    return np.pad(values, [(before, after)] + [(0, 0)] * (array.ndim - 1), constant_values=fill)


def as_dates(values: Any) -> pd.DatetimeIndex:
    """Dates in nanoseconds and without a time zone; text is a date in the forms of `schemas.cells` only.

    Raises
    ------
    DataError
        If they are numbers, cannot be read as dates, are missing, or have a time zone.
    """
    given = pd.Index(values)
    if pd.api.types.is_numeric_dtype(given):
        raise DataError("Dates are numbers; convert them with pandas.to_datetime and a format.")
    try:
        text = given.inferred_type in {"string", "mixed"}
        dates = pd.DatetimeIndex(_of_text(given) if text else pd.to_datetime(given)).as_unit("ns")
    except (ValueError, TypeError) as error:
        raise DataError(f"Dates cannot be read: {error}") from error
    if dates.tz is not None:
        raise DataError(f"Dates are in time zone {dates.tz}; take it off with tz_localize(None).")
    if dates.hasnans:
        raise DataError("Dates must not have missing values.")
    return dates.rename("date")


def _of_text(values: pd.Index) -> pd.DatetimeIndex:
    """Read dates as text; pandas itself guesses the form of each, and takes 03.02.17 for March beside 13.02.17."""
    if values.hasnans:
        raise DataError("Dates must not have missing values.")
    text = values.astype("str").str.strip()
    plain = text.str.replace(MIDNIGHT, "", regex=True)
    days = pd.DatetimeIndex([pd.NaT] * len(plain))
    for form, length in {**DATE_FORMATS, **MONTH_FORMATS}.items():
        digits = plain if length is None else plain.where(plain.str.len() == length)
        found = pd.to_datetime(digits, format=form, errors="coerce")
        days = days.where(days.notna(), found + pd.offsets.MonthEnd(0) if form in MONTH_FORMATS else found)
    if days.hasnans:
        raise DataError(
            f"Dates cannot be read: '{text[days.isna()][0]}' is not a date; {DATE_ADVICE}, or convert them with "
            "pandas.to_datetime and a format."
        )
    return days


def as_axis(values: Any) -> pd.DatetimeIndex:
    """Dates as `as_dates` gives them, refused with a `DataError` unless they strictly increase."""
    dates = as_dates(values)
    wrong = np.flatnonzero(np.diff(dates.asi8) <= 0)
    if len(wrong):
        raise DataError(f"Dates must strictly increase; {dates[wrong[0] + 1]} follows {dates[wrong[0]]}.")
    return dates


def panel_blocks(
    cube: xr.Dataset,
    *,
    characteristics: Sequence[str] | None = None,
    transform: str = "rank",
    lag: int = 1,
    constant: bool = True,
    min_coverage: float = 0.5,
    market_portfolio: str | None = None,
    next_date: pd.Timestamp | None = None,
    block: int = 256,
) -> Iterator[xr.Dataset]:
    """Build the panel of a cube span by span, so that no more than a span and its lag is ever in memory.

    At date t: ``returns`` is r[t] less the risk-free rate of t; characteristics, market weight and industry are those
    stored ``lag`` dates earlier; mask is a finite excess return of a covered stock that is in the estimation universe
    both ``lag`` dates earlier and at t. The first ``lag`` dates cover nobody. Blocks joined along ``date`` are the same
    bit for bit whatever the block size.

    Parameters
    ----------
    cube : xarray.Dataset
        Possibly lazily opened: ``returns`` and ``estimation`` (date, ticker); optionally ``characteristics``
        (date, ticker, char), ``risk_free`` (date), ``factors`` (date, observed_factor), ``weights``
        (portfolio, date, ticker), ``industry`` (date, ticker) with its names along ``industry_name``. Without
        characteristics, coverage is the estimation flag.
    characteristics : sequence of str, optional
        Which ones, in which order. Default: all of the cube's.
    transform, lag, constant, min_coverage
        As in `Panel.from_long`.
    market_portfolio : str, optional
        The portfolio whose weights, renormalised over covered stocks, are the market. Default: equal weights.
    next_date : pandas.Timestamp, optional
        Label of one more row after the cube's last date: no return, mask False, coverage and characteristics
        as of the last close.
    block : int
        Dates per span.

    Yields
    ------
    xarray.Dataset
        The ``data`` of a `Panel`; its attributes are the cube's with ``transform``, ``lag`` and
        ``risk_free_subtracted``, which is 0 if the cube has no risk-free rate and returns are taken as they
        are.

    Raises
    ------
    DataError
        The cube lacks a variable, characteristic or portfolio that is asked for.
        Or next_date is not after the cube's last date.
    ConfigError
        The transform is unknown, the lag is negative, or it is 0 with a next_date.
    """
    _check(cube, transform, lag, market_portfolio)
    dates = _axis(cube, lag, next_date)
    chars = _positions(cube, characteristics)
    industries = [str(name) for name in cube["industry_name"].values] if "industry" in cube else []
    facts = {"transform": transform, "lag": lag, "risk_free_subtracted": int("risk_free" in cube)}
    for start in range(0, len(dates), block):
        stop = min(start + block, len(dates))
        data = assemble(
            **_read(cube, chars, lag, market_portfolio, start, stop),
            chars=list(chars),
            industries=industries,
            transform=transform,
            constant=constant,
            min_coverage=min_coverage,
        ).assign_coords(date=dates[start:stop], ticker=cube["ticker"].variable)
        if cube.sizes.get("observed_factor"):
            data["factors"] = (("date", "observed_factor"), rows(cube["factors"], start, stop, fill=np.nan))
            data = data.assign_coords(observed_factor=cube["observed_factor"].variable)
        yield data.assign_attrs({**cube.attrs, **facts})


def _check(cube: xr.Dataset, transform: str, lag: int, market_portfolio: str | None) -> None:
    if transform not in TRANSFORMS:
        raise ConfigError(f"Unknown transform '{transform}'; choose one of {', '.join(TRANSFORMS)}.")
    if lag < 0:
        raise ConfigError(f"A lag of {lag} would look ahead; it must be 0 or more.")
    for name in ("returns", "estimation"):
        if name not in cube:
            raise DataError(f"The cube has no variable '{name}'; ingest it before building a panel.")
    portfolios = cube["portfolio"].values.tolist() if "weights" in cube else []
    if market_portfolio is not None and market_portfolio not in portfolios:
        raise DataError(f"The cube has no portfolio '{market_portfolio}' to be the market; it has {portfolios}.")


def _axis(cube: xr.Dataset, lag: int, next_date: pd.Timestamp | None) -> pd.DatetimeIndex:
    dates = as_axis(cube.indexes["date"])
    if next_date is None:
        return dates
    if lag < 1:
        raise ConfigError("A row for the next date needs a lag of at least 1: with 0, nothing is known about it.")
    return as_axis(dates.append(as_dates([next_date])))


def _positions(cube: xr.Dataset, names: Sequence[str] | None) -> dict[str, int]:
    """Positions on the char axis of the characteristics asked for, in the order asked for."""
    stored = [str(name) for name in cube["char"].values] if "characteristics" in cube else []
    for name in names or ():
        if name not in stored:
            raise DataError(f"The cube has no characteristic '{name}'; it has {stored}.")
    return {name: stored.index(name) for name in (stored if names is None else names)}


def _read(
    cube: xr.Dataset, chars: dict[str, int], lag: int, market_portfolio: str | None, start: int, stop: int
) -> dict[str, npt.NDArray[Any]]:
    """Arrays of one span for `assemble`: the date's return beside what was known ``lag`` dates before."""
    returns = rows(cube["returns"], start, stop, fill=np.nan)
    if "risk_free" in cube:
        risk_free = rows(cube["risk_free"], start, stop, fill=np.nan).astype(np.float64)
        returns = (returns - risk_free[:, np.newaxis]).astype(np.float32)
    known = (start - lag, stop - lag)
    read = {
        "returns": returns,
        "eligible": rows(cube["estimation"], *known, fill=0).astype(np.bool_),
        "usable": rows(cube["estimation"], start, stop, fill=0).astype(np.bool_),
    }
    if chars:
        wanted = cube["characteristics"].isel(char=list(chars.values()))
        read["characteristics"] = rows(wanted, *known, fill=np.nan)
    else:
        read["characteristics"] = np.empty((*returns.shape, 0), dtype=np.float32)
    if "industry" in cube:
        read["industry"] = rows(cube["industry"], *known, fill=UNKNOWN)
    if market_portfolio is not None:
        weights = cube["weights"].sel(portfolio=market_portfolio)
        read["market_weight"] = rows(weights, *known, fill=np.nan)
    return read
