"""What an upsert does to the cells of a cube: which values change, move or stay, and which labels are added.

Here belongs the merge of one dataset into the arrays of one cube. The lock, the commit and opening belong to
`storage.cube`.

The cells that a dataset covers are the products of its labels: (date, ticker) for `returns`, (portfolio,
date, ticker) for `weights`. They take the dataset's values, NaN included. All other cells keep theirs; a
variable that the dataset lacks keeps all. Cells that were never written are NaN (False in `estimation`, -1 in
`industry`), with one exception that the contract of `weights` asks for: where a portfolio is defined at a date, a stock
without a weight is not held, and its weight is 0.

Values of `industry` are positions along `industry_name`. The names decide: codes of the dataset become the codes that
the cube has for the same names, which keep their meaning for ever, and names that it lacks are added at the end.

Dates are kept in order, so that a late date moves all that follow: the arrays are rewritten from the chunk of
the first new date to the end, block by block, reading the old values from the snapshot the write started
from. A write that only adds dates at the end touches the last chunk and new ones, and a block whose bits do
not change is not written at all.

A dataset may also be *whole*: all that there is from now on. Nothing of the old values stays, and the axes are the
dataset's own, but for the tickers, which only grow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
import zarr

from schemas.contracts import CUBE, RECORD, Variable, validate
from schemas.errors import AlignmentError
from storage.arrays import (
    COMPRESSOR,
    DATE_ENCODING,
    LABEL_ATTRS,
    LABEL_CHUNK,
    TILE_DATES,
    chunk_shape,
    encode_dates,
    fill_value,
    same_bits,
)
from storage.damage import naming

Labels = Mapping[str, pd.Index]
Contract = dict[str, Variable]
Array = npt.NDArray[Any]

_FIXED = ("char", "observed_factor")
"""Axes whose set of labels never changes once a cube has them."""
_CODES, _NAMES = "industry", "industry_name"


def checked(dataset: xr.Dataset, what: str, contract: Contract = CUBE) -> xr.Dataset:
    """Refuse a dataset that does not follow a contract or whose labels are not fit for axes.

    Parameters
    ----------
    dataset : xarray.Dataset
        Variables of `schemas.contracts.CUBE`; dates strictly increasing, at midnight, without time zone.
    what : str
        The cube, for messages.
    contract : dict of str to Variable
        `CUBE` or `RECORD`.

    Raises
    ------
    AlignmentError
        If a variable is missing, unknown or of another type; if an axis has no labels or doubled ones; if
        dates are missing (NaT), unsorted or carry a time of day. The message names the first offender.
    """
    validate(dataset, contract, AlignmentError, what)
    axes = {dim for name in dataset for dim in contract[str(name)].dims}
    axes |= {_NAMES} if _CODES in dataset or "classified" in dataset else set()
    extra = sorted(set(map(str, dataset.coords)) - axes)
    if extra:
        raise AlignmentError(f"{what}: coordinates {', '.join(extra)} are not axes of a cube; drop them")
    if _CODES in dataset and _NAMES not in dataset.coords:
        raise AlignmentError(f"{what}: the codes of '{_CODES}' have no names; give them along '{_NAMES}'")
    for dim in map(str, dataset.dims):
        if dim not in dataset.indexes:
            raise AlignmentError(f"{what}: axis '{dim}' has no labels")
        index = dataset.indexes[dim]
        _check_dates(index, what) if dim == "date" else _check_names(index, dim, what)
        if index.has_duplicates:
            first = index[index.duplicated()][0]
            shown = f"{first:%Y-%m-%d}" if dim == "date" else repr(first)
            raise AlignmentError(f"{what}: {dim} {shown} is given twice; keep one of each")
    return dataset


@dataclass(frozen=True)
class Merge:
    """The labels of a cube before an upsert, of the dataset, and of the cube afterwards.

    Attributes
    ----------
    old, new, merged : Mapping[str, pandas.Index]
        Labels by axis. `merged` has all dates in order; tickers and portfolios of the cube in their order and
        then new ones in theirs; characteristics and observed factors as the cube has them.
    whole : bool
        Whether the dataset is all that there is from now on.
    """

    old: Labels
    new: Labels
    merged: Labels
    whole: bool = False

    @classmethod
    def of(cls, old: Labels, new: Labels, what: str, *, whole: bool = False) -> Merge:
        """Merge the labels of a cube and a dataset.

        Raises
        ------
        AlignmentError
            If the characteristics or observed factors differ; the message names those that do.
        """
        merged = dict(old)
        for dim, labels in new.items():
            if dim not in old:
                merged[dim] = labels
            elif dim in _FIXED:
                _refuse_other(old[dim], labels, dim, what)
            elif whole and dim != "ticker":
                merged[dim] = labels
            elif dim == "date":
                merged[dim] = old[dim].union(labels)
            else:
                merged[dim] = old[dim].append(labels[old[dim].get_indexer(labels) < 0])
        return cls(old=old, new=new, merged=merged, whole=whole)

    def grown(self, dim: str) -> bool:
        """Whether the cube gets new labels along an axis."""
        return len(self.merged[dim]) > len(self.old.get(dim, ()))

    def relabelled(self, dim: str) -> bool:
        """Whether an axis has other labels than before."""
        return dim not in self.old or not self.merged[dim].equals(self.old[dim])

    @property
    def first_moved(self) -> int:
        """Position of the first date that stands elsewhere than before; the number of dates if none does."""
        merged = self.merged["date"]
        old = self.old.get("date", pd.DatetimeIndex([]))[: len(merged)]
        moved = np.flatnonzero(old != merged[: len(old)])
        return int(moved[0]) if len(moved) else len(merged)


def apply(
    merge: Merge, dataset: xr.Dataset, old: zarr.Group | None, new: zarr.Group, contract: Contract = CUBE
) -> bool:
    """Write a dataset into a cube, or into its record.

    Parameters
    ----------
    merge : Merge
        The labels.
    dataset : xarray.Dataset
        What to write; it may be lazy, and is loaded block by block.
    old, new : zarr.Group
        The cube as it was, read-only, and as it will be, not yet committed. `old` is None if there was none.
    contract : dict of str to Variable
        `CUBE` or `RECORD`.

    Returns
    -------
    bool
        Whether any bit of the cube changes.
    """
    labels = [_write_labels(new, dim, merge) for dim in merge.merged]
    with naming():
        held = {name: None if old is None else old.get(name) for name in contract}
    variables = [_Variable(name, contract[name], merge, held[name], dataset.get(name)) for name in contract]
    tiles = contract is RECORD  # an ingest goes through it by blocks of tickers
    values = [variable.write(new, tiles) for variable in variables if variable.known]
    return any(labels + values)


class _Variable:
    """The merge of one variable."""

    def __init__(self, name: str, contract: Variable, merge: Merge, old: Any, given: xr.DataArray | None) -> None:
        self.name, self.old, self.given = name, old, given
        self.contract, self.dims = contract, contract.dims
        self.dtype = np.dtype(contract.dtype)
        self.axis = self.dims.index("date")
        self.merge = merge
        self.shape = tuple(len(merge.merged.get(dim, ())) for dim in self.dims)
        self.old_at = [] if old is None else self._positions(merge.old)
        self.new_at = [] if given is None else self._positions(merge.new)

    @property
    def known(self) -> bool:
        """Whether the cube or the dataset has it."""
        return self.old is not None or self.given is not None

    def write(self, group: zarr.Group, tiles: bool) -> bool:
        """Bring the array in `group` up to date, in chunks of this kind; return whether a value changed."""
        target: Any
        if self.old is None:
            attributes: dict[str, Any] = {**self.contract.attrs}
            target = group.create_array(
                self.name,
                shape=self.shape,
                chunks=chunk_shape(self.dims, self.shape, self.dtype.itemsize, room=True, tiles=tiles),
                dtype=self.dtype,
                fill_value=fill_value(self.dtype),
                compressors=COMPRESSOR,
                dimension_names=self.dims,
                attributes=attributes,
            )
        else:
            target = group[self.name]
            if target.shape != self.shape:
                target.resize(self.shape)
        size = target.chunks[self.axis]
        step = size * max(1, TILE_DATES // size)  # what is merged at once: a lazy dataset may lie in tiles
        changed = self.old is None
        first, last = self._span()
        for start in range(first - first % step, last, step):
            stop = min(start + step, self.shape[self.axis])
            stored, block = self._block(start, stop)
            for low in range(0, stop - start, size) if block.size else ():
                chunk = self._at(slice(low, low + size))
                if stored is None or not same_bits(stored[chunk], block[chunk]):
                    target[self._at(slice(start + low, min(start + low + size, stop)))] = block[chunk]
                    changed = True
        return changed

    def _span(self) -> tuple[int, int]:
        """Return the dates, from the first to before the last, that may hold other values than before."""
        total = self.shape[self.axis]
        if self.merge.whole:
            return 0, total
        if self.name == "weights" and self.old is not None and self.merge.grown("ticker"):
            return 0, total
        moved = self.merge.first_moved
        if self.given is None:
            return moved, total
        given = self.new_at[self.axis]
        return min(int(given[0]), moved), total if moved < total else int(given[-1]) + 1

    def _block(self, start: int, stop: int) -> tuple[Array | None, Array]:
        """Return the block as it is stored now, if its dates have not moved, and as it is to be."""
        shape = [*self.shape]
        shape[self.axis] = stop - start
        block = np.full(shape, fill_value(self.dtype), self.dtype)
        stays = stop <= self.merge.first_moved
        if self.merge.whole:
            stays &= not any(self.merge.relabelled(dim) for dim in self.dims if dim not in ("date", "ticker"))
        if self.old is not None and (stays or not self.merge.whole):
            self._put(block, self.old, self.old_at, start, stop)
        stored = block.copy() if stays else None
        if self.merge.whole:
            block[...] = fill_value(self.dtype)
        if self.given is not None:
            self._put(block, self.given, self.new_at, start, stop)
        if self.name == "weights":
            missing = np.isnan(block)
            block[missing & ~missing.all(axis=-1, keepdims=True)] = 0.0
        return stored, block

    def _put(self, block: Array, source: Any, positions: list[Array], start: int, stop: int) -> None:
        """Copy what `source` has of the dates from `start` to before `stop` to its place in the block."""
        low, high = np.searchsorted(positions[self.axis], [start, stop])
        if low == high:
            return
        span = self._at(slice(int(low), int(high)))
        stored = isinstance(source, zarr.Array)
        values = source[span] if stored else source.transpose(*self.dims)[span].values
        if self.name == _CODES and not stored:
            values = self._recoded(values)
        places = list(positions)
        places[self.axis] = positions[self.axis][low:high] - start
        block[_key(places)] = values

    def _recoded(self, codes: Array) -> Array:
        """Return the cube's codes of the industries that the dataset's codes stand for."""
        known = self.merge.merged[_NAMES].get_indexer(self.merge.new[_NAMES])
        if codes.min(initial=-1) < -1 or codes.max(initial=-1) >= len(known):
            raise AlignmentError(f"'{_CODES}' holds codes beyond its {len(known)} names; give a name to every code")
        return np.append(known, -1)[codes].astype(self.dtype)  # a code of -1 takes the last

    def _at(self, dates: slice) -> tuple[slice, ...]:
        return (slice(None),) * self.axis + (dates,)

    def _positions(self, labels: Labels) -> list[Array]:
        return [self.merge.merged[dim].get_indexer(labels[dim]) for dim in self.dims]


def _key(positions: list[Array]) -> Any:
    """Index the product of positions: as slices where each runs without gaps, which is much faster."""
    runs = [p.size > 0 and p[-1] - p[0] == p.size - 1 and bool(np.all(np.diff(p) == 1)) for p in positions]
    if all(runs):
        return tuple(slice(int(p[0]), int(p[-1]) + 1) for p in positions)
    return np.ix_(*positions)


def _write_labels(group: zarr.Group, dim: str, merge: Merge) -> bool:
    labels = merge.merged[dim]
    if dim in group and not merge.relabelled(dim):
        return False
    is_date = dim == "date"
    if dim not in group:
        group.create_array(
            dim,
            shape=(0,),
            chunks=(LABEL_CHUNK,),
            dtype=np.int64 if is_date else str,
            compressors=COMPRESSOR,
            dimension_names=(dim,),
            attributes={**LABEL_ATTRS[dim], **(DATE_ENCODING if is_date else {})},
        )
    array: Any = group[dim]
    array.resize((len(labels),))
    array[:] = encode_dates(pd.DatetimeIndex(labels)) if is_date else labels.to_numpy(dtype=object)
    return True


def _check_dates(index: pd.Index, what: str) -> None:
    if index.empty:
        raise AlignmentError(f"{what}: there are no dates to write")
    if not isinstance(index, pd.DatetimeIndex) or index.tz is not None:
        raise AlignmentError(f"{what}: dates have type {index.dtype}; give datetime64 without a time zone")
    if index.hasnans:
        raise AlignmentError(f"{what}: date {int(np.argmax(index.isna()))} (counting from 0) is missing (NaT)")
    timed = index[index != index.normalize()]
    if len(timed):
        raise AlignmentError(f"{what}: date {timed[0]} carries a time of day; give midnight")
    back = np.flatnonzero(index[1:] < index[:-1])
    if len(back):
        before, after = index[back[0]], index[back[0] + 1]
        raise AlignmentError(f"{what}: dates are not sorted: {before:%Y-%m-%d} stands before {after:%Y-%m-%d}")


def _check_names(index: pd.Index, dim: str, what: str) -> None:
    wrong = [label for label in index if not isinstance(label, str) or not label]
    if wrong:
        raise AlignmentError(f"{what}: {dim} {wrong[0]!r} is not a name; give non-empty strings")


def _refuse_other(old: pd.Index, new: pd.Index, dim: str, what: str) -> None:
    missing, unknown = old.difference(new, sort=False), new.difference(old, sort=False)
    if len(missing) or len(unknown):
        parts = [f"missing {', '.join(missing)}"] if len(missing) else []
        parts += [f"new {', '.join(unknown)}"] if len(unknown) else []
        raise AlignmentError(
            f"{what}: axis '{dim}' differs from the cube's: {'; '.join(parts)}; it is fixed by the "
            "first write, so give the same labels or start another universe"
        )
