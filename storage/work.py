"""Intermediate results, each kept once under the hash of what it was made from.

Here belong panels, fits, raw data and other things that can be made again. What users read belongs in
`storage.published`, what must never be lost in `storage.cube`.

An entry is a folder that is staged, synced and renamed: it is there whole or not at all, and is never changed. Two
writers of one key have made the same thing, so the first wins and the second throws its copy away. A process may die at
any time; what it leaves is removed by the next writer of that kind.

Where machines share no disk, entries lie in an object store (`storage.shared_work`), and what lies here is a copy: an
entry is there once it is there, whatever this folder holds; it is fetched whole, by one process of a machine, when it
is first asked for.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import xarray as xr
from pydantic import TypeAdapter, ValidationError

from schemas.base import Name, digest
from schemas.errors import ConfigError, CorruptionError, ExecutionError, StoreError
from schemas.refs import Key
from storage.arrays import FAST_COMPRESSORS, date_blocks, read_dataset, write_dataset
from storage.damage import Guard, chunk_of
from storage.files import locked, place, sha256_file, staging, write_atomic
from storage.layout import Layout
from storage.weights import load_state, save_state

if TYPE_CHECKING:
    from storage.shared_work import SharedWork

_KEY: TypeAdapter[str] = TypeAdapter(Name)
_ARRAYS, _JSON, _METADATA = "arrays.safetensors", "value.json", "zarr.json"
_FILES = "files.json"
_NOTED_SECONDS = 3600.0
_ASKED = 16
_FETCH_SECONDS = 86400.0


class Kind(StrEnum):
    """What an entry is; its folder has this name."""

    RAW = "raw"
    """Market data, factors and industries as they were read (dataset)."""
    CHECKS = "checks"
    """Check reports (JSON)."""
    SURVEYS = "surveys"
    """What checks looked at of a market, for the delivery that follows (arrays)."""
    INGESTS = "ingests"
    """Snapshots that hold an ingest (JSON)."""
    DIGESTS = "digests"
    """Chained digests of the dates of a snapshot (arrays)."""
    PANELS = "panels"
    """Panels (dataset)."""
    HELD = "held"
    """Portfolio weights and estimation universe beside a panel (dataset)."""
    GRAMS = "grams"
    """Statistics of spans of dates (arrays)."""
    PIECES = "pieces"
    """Parts of fits, such as the networks of an ensemble (arrays)."""
    FITS = "fits"
    """Fitted models (arrays)."""
    REALISED = "realised"
    """Factor returns of a fit with latent factors over all dates (arrays)."""
    TURNS = "turns"
    """Rotations of the fits of a model onto the first (arrays)."""
    ROWS = "rows"
    """Rows that a fit serves (arrays)."""
    RISK_STATES = "risk-states"
    """States of the estimators of risk as of a date (arrays)."""
    RISKS = "risks"
    """Assembled risk models (dataset)."""
    STATES = "states"
    """State of the last fit of a risk model (arrays)."""
    EVALUATIONS = "evaluations"
    """Forecasts of a risk model, scored by date (dataset)."""
    METRICS = "metrics"
    """Scores of a risk model (JSON)."""


class WorkStore:
    """The intermediate results of one installation; safe to use from many processes at once.

    A `key` has up to 64 lower-case letters and digits, as `schemas.base.digest` gives them.

    Parameters
    ----------
    layout : Layout
        Where the folders of entries are.
    shared : SharedWork, optional
        Where entries lie that machines share; the folders hold copies of them then. Every method may raise
        `StoreError` for it.
    """

    def __init__(self, layout: Layout, shared: SharedWork | None = None) -> None:
        self._layout = layout
        self._shared = shared

    def has(self, kind: Kind, key: Key) -> bool:
        """Whether there is such an entry; asking counts as using it, see `storage.leftovers`."""
        entry = self._entry(kind, key)
        return entry.is_dir() and _used(entry) if self._shared is None else self._shared.has(kind, key)

    def among(self, kind: Kind, keys: Iterable[Key]) -> set[Key]:
        """Return those of the keys that `has` an entry, asked side by side: a store of many machines answers slowly."""
        asked = [*keys]
        if self._shared is None:
            entries = zip(asked, self._entries(kind, asked), strict=True)
            return {key for key, entry in entries if entry.is_dir() and _used(entry)}
        with ThreadPoolExecutor(_ASKED) as pool:
            return {key for key, there in zip(asked, pool.map(partial(self.has, kind), asked), strict=True) if there}

    def put_arrays(self, kind: Kind, key: Key, arrays: Mapping[str, npt.NDArray[Any]], meta: Mapping[str, Any]) -> None:
        """Keep named numeric arrays and JSON facts; does nothing if the entry exists."""

        def write(folder: Path) -> None:
            save_state(folder / _ARRAYS, dict(arrays))
            value = {"meta": dict(meta), "sha256": sha256_file(folder / _ARRAYS)}
            write_atomic(folder / _JSON, _sealed(value))

        self._put(kind, key, write)

    def get_arrays(self, kind: Kind, key: Key) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
        """Return the arrays and the facts.

        Raises
        ------
        ExecutionError
            If there is no such entry, or it holds something else.
        CorruptionError
            If its bytes are not those that were written.
        """
        folder = self._existing(kind, key, _ARRAYS)
        value = _unsealed(folder / _JSON)
        if sha256_file(folder / _ARRAYS) != value["sha256"]:
            raise CorruptionError(f"{folder / _ARRAYS}: does not match its checksum; remove {folder} and run again")
        return load_state(folder / _ARRAYS), value["meta"]

    def put_json(self, kind: Kind, key: Key, value: Any) -> None:
        """Keep a JSON value; does nothing if the entry exists."""
        self._put(kind, key, lambda folder: write_atomic(folder / _JSON, _sealed(value)))

    def get_json(self, kind: Kind, key: Key) -> Any:
        """Return the JSON value; raises as `get_arrays` does."""
        return _unsealed(self._existing(kind, key, _JSON) / _JSON)

    def put_dataset(
        self,
        kind: Kind,
        key: Key,
        blocks: xr.Dataset | Iterable[xr.Dataset],
        *,
        attrs: Mapping[str, Any] | None = None,
        tiles: bool = False,
    ) -> None:
        """Keep a dataset as plain Zarr, one block of dates in memory at a time; does nothing if the entry exists.

        Parameters
        ----------
        kind, key : str
            Where.
        blocks : xarray.Dataset or iterable of xarray.Dataset
            A dataset, lazy or not, or consecutive spans of its dates. Variables without `date` are taken from
            the first. An iterable is not consumed if the entry exists.
        attrs : mapping, optional
            Attributes of the dataset; those of the first block if left out.
        tiles : bool
            As for `storage.arrays.chunk_shape`.

        Raises
        ------
        AlignmentError
            If a block does not continue the one before.
        """
        spans = date_blocks(blocks) if isinstance(blocks, xr.Dataset) else blocks

        def write(folder: Path) -> None:
            write_dataset(folder, spans, attrs=attrs, consolidated=True, compressors=FAST_COMPRESSORS, tiles=tiles)
            value = {"sizes": _sizes(folder), "metadata": sha256_file(folder / _METADATA)}
            write_atomic(folder / _FILES, _sealed(value))

        self._put(kind, key, write)

    def open_dataset(self, kind: Kind, key: Key) -> xr.Dataset:
        """Open a dataset lazily.

        Raises
        ------
        ExecutionError
            If there is no such entry, or it holds something else.
        CorruptionError
            If a file has gone or has another size. A flipped bit in a chunk is noticed when that chunk is read.
        """
        folder = self._existing(kind, key, _FILES)
        guard = Guard(str(folder), "remove this folder and run again")
        with guard.told(f"file {_FILES}"):
            value = _unsealed(folder / _FILES)
            written, found = value["sizes"], _sizes(folder)
        other = sorted(name for name, size in written.items() if found.get(name) != size)
        if other:
            how = "has another size than was written" if other[0] in found else "is missing"
            raise guard.damaged(chunk_of(other[0]), how)
        if sha256_file(folder / _METADATA) != value["metadata"]:
            raise guard.damaged(f"file {_METADATA}", "does not match its checksum")
        return read_dataset(folder, guard=replace(guard, expected=written), consolidated=True)

    def _put(self, kind: Kind, key: Key, write: Callable[[Path], None]) -> None:
        if self.has(kind, key):
            return
        entry = self._entry(kind, key)
        with _told(entry), staging(entry.parent) as folder:
            write(folder)
            if self._shared is None or self._shared.put(kind, key, folder):
                place(folder, entry)

    def _existing(self, kind: Kind, key: Key, file: str) -> Path:
        entry = self._entry(kind, key)
        if self._shared is not None and not entry.is_dir():
            self._fetch(self._shared, kind, key)
        if not entry.is_dir():
            raise ExecutionError(f"{entry}: no such intermediate result; run the step that makes it again")
        if not (entry / file).is_file():
            raise ExecutionError(f"{entry}: holds no {file}; ask for it in the form in which it was kept")
        _used(entry)
        return entry

    def _fetch(self, shared: SharedWork, kind: Kind, key: Key) -> None:
        """Copy an entry of other machines, if there is one, unless another process of this one just did."""
        entry = self._entry(kind, key)
        with _told(entry), locked(self._layout.fetch_lock(kind), timeout_seconds=_FETCH_SECONDS):
            if not entry.is_dir():
                with staging(entry.parent) as folder:
                    if shared.fetch(kind, key, folder):
                        place(folder, entry)

    def _entry(self, kind: Kind, key: Key) -> Path:
        (entry,) = self._entries(kind, [key])
        return entry

    def _entries(self, kind: Kind, keys: Sequence[Key]) -> list[Path]:
        """Where entries lie; that no link leads the folder of their kind astray is looked at once for all."""
        folder = self._layout.work(kind)
        for key in keys:
            try:
                _KEY.validate_python(key, strict=True)
            except ValidationError:
                raise ConfigError(f"key {key!r} of kind '{kind}' is not a hash or a name") from None
        return [folder / key for key in keys]


@contextmanager
def _told(entry: Path) -> Iterator[None]:
    """Say which entry could not be written to this disk."""
    try:
        yield
    except StoreError:  # names its own
        raise
    except OSError as error:
        raise ExecutionError(f"{entry}: cannot be written: {error}; mend that and run again") from error


def _used(entry: Path) -> bool:
    """Note on the entry that it is still in use, at most once an hour; True."""
    with suppress(OSError):  # a reader may not write, and the entry may be on its way out
        if entry.stat().st_mtime < time.time() - _NOTED_SECONDS:
            os.utime(entry)
    return True


def _sizes(folder: Path) -> dict[str, int]:
    """Return the size of every file of a dataset but for the list of them."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {name: path.stat().st_size for path in files if (name := path.relative_to(folder).as_posix()) != _FILES}


def _sealed(value: Any) -> str:
    value = json.loads(json.dumps(value))  # keys become strings and tuples lists, as they will be read
    return json.dumps({"sha256": digest(value), "value": value}, ensure_ascii=False)


def _unsealed(path: Path) -> Any:
    with suppress(OSError, ValueError, KeyError, TypeError):
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["sha256"] == digest(document["value"]):
            return document["value"]
    raise CorruptionError(f"{path}: does not match its checksum; remove {path.parent} and run again")
