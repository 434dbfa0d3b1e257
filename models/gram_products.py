"""The cross-products of one block of dates: the inner loop of every pass over a panel.

Here belongs how Z'WZ, Z'Wr and r'Wr of each date come from arrays. What they are for, and how they are labelled,
belongs in `gram`.

Each date is one symmetric product [1, Z, r]'W[1, Z, r] over its known rows alone, copied side by side into a buffer of
float64 that is used again and again: it stays in the processor's cache, and to allocate it anew for every date costs
more than the product. Leaving out the unknown rows, instead of setting them to zero, makes the bits of a date
independent of how many there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from models.base import FloatArray

_CELLS_IN_CACHE = 250_000
"""Cells of the buffer, 2 MB, if one date is not larger: small cross-sections are copied many dates at a time."""


class Products(NamedTuple):
    """Cross-products by date: see `models.gram.GramStatistics`."""

    zz: FloatArray
    zr: FloatArray
    rr: FloatArray
    n: npt.NDArray[np.int64]
    weight: FloatArray


class _Rows(NamedTuple):
    """Known rows of a few dates, date after date.

    ``joint`` is [1, Z, r] without weights, ``ends`` the position after the last row of each date.
    """

    dates: slice
    joint: FloatArray
    kept: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]


def cross_products(
    characteristics: FloatArray,
    returns: FloatArray,
    known: npt.NDArray[np.bool_],
    *,
    weight: FloatArray | None = None,
    intercept: bool = False,
    industry: npt.NDArray[np.integer[Any]] | None = None,
    n_industries: int = 0,
) -> Products:
    """Compute the products of [1, industries, Z] and r, in float64 from float32 input.

    Parameters
    ----------
    characteristics : numpy.ndarray
        (date, ticker, char), finite where ``known``.
    returns : numpy.ndarray
        (date, ticker), finite where ``known``.
    known : numpy.ndarray
        (date, ticker) which rows enter.
    weight : numpy.ndarray, optional
        (date, ticker) diagonal of W, positive where ``known``. Default: 1.
    intercept : bool
        Put a column of ones first.
    industry : numpy.ndarray, optional
        (date, ticker) codes from 0 to n_industries - 1 where ``known``. Their 0/1 columns follow the intercept; they
        are never formed, since their products are sums by group.
    """
    n_dates, first = len(returns), int(intercept)
    groups = n_industries if industry is not None else 0
    size = first + groups + characteristics.shape[2] + 1
    product = np.zeros((n_dates, size, size))
    total = np.zeros(n_dates)
    place = np.r_[:first, first + groups : size]
    for rows in _known_rows(characteristics, returns, known, first):
        joint = rows.joint
        held = None if weight is None else weight[rows.dates].ravel()[rows.kept]
        if industry is not None:
            codes = industry[rows.dates].ravel()[rows.kept]
            _place_industries(product[rows.dates], _sums_by_group(joint, held, codes, rows.ends, groups), place, first)
        if held is not None:
            joint *= np.sqrt(held)[:, None]
        begin = 0
        for date, end in enumerate(rows.ends.tolist(), start=rows.dates.start):
            part = joint[begin:end]
            if groups:
                product[date][place[:, None], place] = part.T @ part
            else:
                np.matmul(part.T, part, out=product[date])
            total[date] = end - begin if held is None else held[begin:end].sum()
            begin = end
    return Products(product[:, :-1, :-1], product[:, :-1, -1], product[:, -1, -1], known.sum(1, dtype=np.int64), total)


def _known_rows(
    characteristics: FloatArray, returns: FloatArray, known: npt.NDArray[np.bool_], first: int
) -> Iterator[_Rows]:
    """Copy the known rows of a few dates at a time to one buffer; it may be changed until the next are asked for."""
    n_dates, n_stocks, n_chars = characteristics.shape
    step = max(1, min(n_dates, _CELLS_IN_CACHE // max(1, n_stocks * (first + n_chars + 1))))
    buffer = np.empty((step * n_stocks, first + n_chars + 1))
    raw = np.empty((step * n_stocks, n_chars), dtype=characteristics.dtype)
    for start in range(0, n_dates, step):
        dates = slice(start, min(start + step, n_dates))
        kept = np.flatnonzero(known[dates])
        joint, taken = buffer[: len(kept)], raw[: len(kept)]
        np.take(
            characteristics[dates].reshape((dates.stop - start) * n_stocks, n_chars),
            kept,
            axis=0,
            out=taken,
            mode="clip",
        )
        joint[:, :first] = 1.0
        joint[:, first:-1] = taken
        joint[:, -1] = returns[dates].ravel()[kept]
        yield _Rows(dates, joint, kept, known[dates].sum(axis=1).cumsum())


def _sums_by_group(
    joint: FloatArray,
    weight: FloatArray | None,
    industry: npt.NDArray[np.integer[Any]],
    ends: npt.NDArray[np.int64],
    groups: int,
) -> FloatArray:
    """(date, group, 1 + column) sums of the weight, and of the weighted columns of [1, Z, r], by date and industry."""
    n_rows, n_dates = len(joint), len(ends)
    date = np.repeat(np.arange(n_dates), np.diff(ends, prepend=0))
    value = np.ones(n_rows) if weight is None else weight
    cells = (date * groups + industry, np.arange(n_rows))
    member = sparse.csr_array((value, cells), shape=(n_dates * groups, n_rows))
    sums = np.empty((n_dates * groups, 1 + joint.shape[1]))
    sums[:, 0] = member @ np.ones(n_rows)
    sums[:, 1:] = member @ joint
    return sums.reshape(n_dates, groups, sums.shape[1])


def _place_industries(product: FloatArray, sums: FloatArray, others: npt.NDArray[np.intp], first: int) -> None:
    """Write the rows and columns of the industries, which follow the intercept."""
    place = np.arange(first, first + sums.shape[1])
    product[:, place, place] = sums[..., 0]
    product[:, place[:, None], others] = sums[..., 1:]
    product[:, others[:, None], place] = sums[..., 1:].transpose(0, 2, 1)
