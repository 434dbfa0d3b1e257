"""The cross-products of one block of dates: the inner loop of every pass over a panel.

Here belongs how Z'WZ, Z'Wr and r'Wr of each date come from arrays. What they are for, and how they are labelled,
belongs in `gram`.

Each date is one symmetric product [1, Z, r]'W[1, Z, r] over its known rows alone, copied side by side into a buffer of
float64 that is used again and again: it stays in the processor's cache, and to allocate it anew for every date costs
more than the product. Leaving out the unknown rows, instead of setting them to zero, makes the bits of a date
independent of how many there are.

The product is torch's: its BLAS multiplies tall, narrow matrices two to three times faster than numpy's. Its sums
depend on the number of threads and, as far as is promised, on where rows begin in a cache line: so it runs in one
thread, and every row begins a line. It is loaded by the first product: a process that makes none does without.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from models.arrays import FloatArray
from models.blas import one_thread

_CELLS_IN_CACHE = 125_000
"""Cells of the buffer, 1 MB, if one date is not larger: small cross-sections are copied many dates at a time."""
_CELLS_IN_LINE = 8
"""Cells of float64 in a cache line of 64 bytes."""


class Products(NamedTuple):
    """Cross-products by date: see `models.statistics.gram.GramStatistics`."""

    zz: FloatArray
    zr: FloatArray
    rr: FloatArray
    n: npt.NDArray[np.int64]
    weight: FloatArray
    caps: FloatArray


class _Rows(NamedTuple):
    """Known rows of a few dates, date after date.

    ``joint`` is [1, Z, r] without weights, with zeros after it up to a whole cache line. ``ends`` is the position after
    the last row of each date.
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
    cap: FloatArray | None = None,
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
    cap : numpy.ndarray, optional
        (date, ticker) capitalisation, summed by industry where it is positive. Default: no sums.
    """
    import torch

    returns, known = np.ascontiguousarray(returns), np.ascontiguousarray(known)  # rows are picked date by date
    weight, industry, cap = (None if each is None else np.ascontiguousarray(each) for each in (weight, industry, cap))
    n_dates, first = len(returns), int(intercept)
    groups = n_industries if industry is not None else 0
    width = first + characteristics.shape[2] + 1
    inner = np.zeros((n_dates, width, width))
    by_group = np.zeros((n_dates, groups, 1 + width))
    caps = np.zeros((n_dates, groups if cap is not None else 0))
    counts, total = np.zeros(n_dates, dtype=np.int64), np.zeros(n_dates)
    targets = torch.from_numpy(inner)
    with one_thread():
        for rows in _known_rows(characteristics, returns, known, first):
            joint = rows.joint
            held = None if weight is None else weight[rows.dates].ravel()[rows.kept]
            if industry is not None:
                codes = industry[rows.dates].ravel()[rows.kept]
                cells = np.repeat(groups * np.arange(len(rows.ends)), np.diff(rows.ends, prepend=0)) + codes
                sums, own = by_group[rows.dates], caps[rows.dates]
                found = _sums_by_cell(joint, held, cells, len(rows.ends) * groups)[:, : 1 + width]
                sums[:] = found.reshape(sums.shape)
                if cap is not None:
                    positive = np.fmax(cap[rows.dates].ravel()[rows.kept], 0.0)
                    own[:] = np.bincount(cells, positive, len(rows.ends) * groups).reshape(own.shape)
            stacked, begin = torch.from_numpy(joint[:, :width]), 0
            if held is not None:
                stacked *= torch.from_numpy(np.sqrt(held))[:, None]
            for date, end in enumerate(rows.ends.tolist(), start=rows.dates.start):
                part = stacked[begin:end]
                torch.mm(part.T, part, out=targets[date])
                counts[date] = end - begin
                total[date] = end - begin if held is None else held[begin:end].sum()
                begin = end
    for row in range(width):  # BLAS rounds the two halves of a product with itself apart
        inner[:, row + 1 :, row] = inner[:, row, row + 1 :]
    product = _with_industries(inner, by_group, first) if groups else inner
    return Products(product[:, :-1, :-1], product[:, :-1, -1], product[:, -1, -1], counts, total, caps)


def _known_rows(
    characteristics: FloatArray, returns: FloatArray, known: npt.NDArray[np.bool_], first: int
) -> Iterator[_Rows]:
    """Copy the known rows of a few dates at a time to one buffer; it may be changed until the next are asked for."""
    import torch

    n_dates, n_stocks, n_chars = characteristics.shape
    width = first + n_chars + 1
    pitch = -(-width // _CELLS_IN_LINE) * _CELLS_IN_LINE
    step = max(1, min(n_dates, _CELLS_IN_CACHE // max(1, n_stocks * pitch)))
    buffer = torch.zeros((step * n_stocks, pitch), dtype=torch.float64).numpy()
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
        joint[:, first : width - 1] = taken
        joint[:, width - 1] = returns[dates].ravel()[kept]
        yield _Rows(dates, joint, kept, np.searchsorted(kept, n_stocks * np.arange(1, dates.stop - start + 1)))


def _sums_by_cell(
    joint: FloatArray, weight: FloatArray | None, cells: npt.NDArray[np.integer[Any]], n_cells: int
) -> FloatArray:
    """(cell, 1 + column) sums of the weight, and of the weighted columns of [1, Z, r], by pair of date and industry."""
    value = np.ones(len(joint)) if weight is None else weight
    member = sparse.csc_array((value, cells, np.arange(len(joint) + 1)), shape=(n_cells, len(joint)))
    sums = np.empty((n_cells, 1 + joint.shape[1]))
    sums[:, 0] = np.bincount(cells, value, n_cells)
    sums[:, 1:] = member @ joint
    return sums


def _with_industries(inner: FloatArray, sums: FloatArray, first: int) -> FloatArray:
    """Products of all columns, from those of [1, Z, r] and the sums by industry, whose columns follow the intercept."""
    n_dates, groups, size = len(inner), sums.shape[1], inner.shape[1] + sums.shape[1]
    place, others = np.arange(first, first + groups), np.r_[:first, first + groups : size]
    product = np.zeros((n_dates, size, size))
    product[:, others[:, None], others] = inner
    product[:, place, place] = sums[..., 0]
    product[:, place[:, None], others] = sums[..., 1:]
    product[:, others[:, None], place] = sums[..., 1:].transpose(0, 2, 1)
    return product
