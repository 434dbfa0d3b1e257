"""A version behind its parent: rows are put after those that are there, and only files that change are written.

Here belongs what a version has in common with the one that it continues, while it is staged. How files that stay as
they are become the version's own, as links on a disk or copies inside an object store, belongs to `storage.stores`;
which rows follow belongs to `models.forecasting.continuing`.

The staged folder lies over the parent: Zarr writes to the folder, and reads from the parent what is not in it. An array
keeps its chunks, so that new rows touch its last chunk, and a ticker that joined the axis gets chunks of its own, which
are absent, and therefore missing values, on the dates before it. There is one exception, as in a cube: where a
portfolio is defined, a stock without a weight is not held, and its weight is 0.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
import zarr
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore, WrapperStore

from schemas.contracts import Manifest
from schemas.errors import CorruptionError, PublishError
from schemas.refs import VersionRef
from storage.arrays import consolidate, encode_dates, same_bits
from storage.checksums import key_of, read_checked, read_manifest
from storage.layout import Layout
from storage.stores import Shared, Store
from storage.versions import STATE, open_version


@dataclass(frozen=True, eq=False)
class Parent:
    """A published version that another one continues.

    Attributes
    ----------
    store, key
        Where it lies.
    manifest : Manifest
        Its own, with the checksums of its files.
    dataset : xarray.Dataset
        Its rows, lazily.
    """

    store: Store
    key: str
    manifest: Manifest
    dataset: xr.Dataset

    @classmethod
    def of(cls, layout: Layout, ref: VersionRef) -> Parent:
        """Open a version; raises as `storage.versions.open_version` does."""
        return cls(layout.store, key_of(layout, ref), read_manifest(layout, ref), open_version(layout, ref))

    def read(self, name: str) -> bytes:
        """Return the content of a file, checked against its checksum."""
        return read_checked(self.store, self.key, name, self.manifest.checksums)

    def shared(self, written: Iterable[str]) -> Shared:
        """Return the files that a version has in common with this one, given those that were written for it."""
        own = set(written)
        return Shared(self.key, {name: sum_ for name, sum_ in self.manifest.checksums.items() if name not in own})

    def require_continued(self, rows: xr.Dataset) -> None:
        """Refuse rows that do not follow this version.

        Raises
        ------
        PublishError
            If they do not begin after its last date, do not have its variables, its tickers first, or its other labels.
        """
        old, what = self.dataset, f"rows do not continue {self.manifest}"
        if rows.indexes["date"][0] <= old.indexes["date"][-1]:
            first, last = rows.indexes["date"][0], old.indexes["date"][-1]
            raise PublishError(f"{what}: they begin on {first:%Y-%m-%d}, and it reaches to {last:%Y-%m-%d}")
        if different := sorted(map(str, set(rows.variables) ^ set(old.variables))):
            raise PublishError(f"{what}: only one of the two has {', '.join(different)}")
        for dim, labels in old.indexes.items():
            other = rows.indexes[dim]
            if dim != "date" and not labels.equals(other[: len(labels)] if dim == "ticker" else other):
                raise PublishError(f"{what}: they have other labels along '{dim}'; an axis of tickers only grows")

    def unheld(self, n_tickers: int) -> npt.NDArray[np.float32]:
        """Return the weights (portfolio, date, ticker) of tickers that join: 0 where a portfolio is defined."""
        weights = np.where(self._defined, np.float32(0.0), np.float32(np.nan))
        return np.repeat(weights[..., np.newaxis], n_tickers, axis=2)

    @cached_property
    def _defined(self) -> npt.NDArray[np.bool_]:
        """Whether a portfolio is defined (portfolio, date): all stocks have a weight then, or none, also the last."""
        defined: npt.NDArray[np.bool_] = self.dataset["weights"].isel(ticker=-1).notnull().values
        return defined


class Overlay(WrapperStore[LocalStore]):
    """A staged folder over the files of a parent: written to the folder, read from the parent where it has nothing.

    What is read of the parent is checked against its checksum.
    """

    def __init__(self, store: LocalStore, parent: Parent) -> None:
        super().__init__(store)
        self.parent = parent
        self._below = parent.manifest.checksums.keys() - {STATE}

    @classmethod
    def over(cls, folder: Path, parent: Parent) -> Overlay:
        """Lay an existing folder over a parent."""
        return cls(LocalStore(folder), parent)

    def _with_store(self, store: LocalStore) -> Overlay:
        return type(self)(store, self.parent)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return the bytes of a key; of the parent's always whole files, since chunks of a version are no shards."""
        content = await super().get(key, prototype, byte_range)
        if content is None and key in self._below:
            return prototype.buffer.from_bytes(self.parent.read(key))
        return content

    async def exists(self, key: str) -> bool:
        """Whether the folder or the parent has a key."""
        return await super().exists(key) or key in self._below

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names in a folder of either."""
        start = f"{prefix.rstrip('/')}/" if prefix else ""
        names = {name async for name in super().list_dir(prefix)}
        theirs = {key.removeprefix(start).partition("/")[0] for key in self._below if key.startswith(start)}
        for name in sorted(names | theirs):
            yield name


def append(store: Overlay, rows: xr.Dataset) -> None:
    """Put rows behind those of the parent; the attributes become those of the rows.

    Parameters
    ----------
    store : Overlay
        The staged folder over the parent.
    rows : xarray.Dataset
        Rows that continue the parent (`Parent.require_continued`), in memory. Of what has no dates only what has
        tickers is written, where that axis has grown.
    """
    group = zarr.open_group(store, mode="r+", use_consolidated=False)
    old = store.parent.dataset.sizes
    for name, variable in rows.variables.items():
        array: Any = group[str(name)]
        if {**array.attrs, **variable.attrs} != dict(array.attrs):
            array.update_attributes(variable.attrs)
        sizes = dict(variable.sizes)
        if "date" in sizes:
            sizes["date"] += old["date"]
        if tuple(sizes.values()) == array.shape:
            continue
        array.resize(tuple(sizes.values()))
        array[tuple(slice(old["date"], None) if dim == "date" else slice(None) for dim in sizes)] = _stored(variable)
        if name == "weights" and (joined := sizes["ticker"] - old["ticker"]):
            array[:, : old["date"], old["ticker"] :] = store.parent.unheld(joined)
    group.attrs.put(dict(rows.attrs))
    consolidate(store)


def require_kept(stored: xr.Dataset, parent: Parent) -> None:
    """Compare the rows of a parent that lie in chunks which were written anew with what became of them.

    Parameters
    ----------
    stored : xarray.Dataset
        The continued version, read back lazily.
    parent : Parent
        The version that it continues.

    Raises
    ------
    CorruptionError
        If a bit of them is another one.
    """
    n_dates, n_tickers = parent.dataset.sizes["date"], parent.dataset.sizes["ticker"]
    for name, array in parent.dataset.data_vars.items():
        if "date" not in array.dims:
            continue
        span = array.encoding["preferred_chunks"]["date"]
        before = array.isel(date=slice(n_dates - n_dates % span, None))
        after = stored[name].isel(date=slice(n_dates - n_dates % span, n_dates))
        after = after.isel(ticker=slice(n_tickers)) if "ticker" in array.dims else after
        if not same_bits(before.values, after.values):
            raise _unsound(parent, str(name))
    joined = stored["weights"].isel(date=slice(n_dates), ticker=slice(n_tickers, None))
    if joined.size and not same_bits(joined.values, parent.unheld(joined.sizes["ticker"])):
        raise _unsound(parent, "weights")


def _unsound(parent: Parent, name: str) -> CorruptionError:
    return CorruptionError(f"'{name}' of {parent.manifest} was not kept as it was; is the disk sound?")


def _stored(variable: xr.Variable) -> npt.NDArray[Any]:
    """Return values as Zarr takes them: dates as days, labels as objects."""
    if variable.dtype.kind == "M":
        return encode_dates(pd.DatetimeIndex(variable.values))
    return variable.values if variable.dtype.kind in "biuf" else variable.values.astype(object)
