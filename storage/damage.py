"""Damage: stored bytes that are not what was written, told by one typed error that names them.

Here belongs what all readers of arrays share: a store that notices a chunk that has gone, a decoder that says
which chunk it could not decode, and the seal of a cube's metadata. What is checked when, and what the checksums
of a version or an entry are, belongs to the store that wrote them.

Without this a damaged chunk is a ``RuntimeError`` from deep inside a codec, and a missing one is NaN: plain Zarr
takes an absent chunk for one that holds nothing but missing values. Icechunk knows which chunks there are, but
does not check its own metadata: a flipped bit in a snapshot file can change an attribute or hide a chunk without
an error, which is why every commit carries the seal of what it holds.

Zarr takes the decoder of an array from its configuration when the array is opened. `naming` makes it `NamingPipeline`
for that moment, one opening at a time; whatever else a process opens meanwhile is decoded by it as by Zarr's own.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import zarr
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.core.codec_pipeline import BatchedCodecPipeline
from zarr.core.sync import sync
from zarr.registry import register_pipeline
from zarr.storage import StorePath, WrapperStore

from schemas.base import digest
from schemas.errors import CorruptionError, FactorcubeError


@dataclass(frozen=True)
class Guard:
    """What to say if something that is read turns out to be damaged.

    Attributes
    ----------
    what : str
        What is read: a folder, or a cube and its snapshot.
    remedy : str
        What a person can do about it.
    error : type[FactorcubeError]
        What to raise.
    expected : collection of str
        Keys that were written; if one of them has gone, that is damage and not a missing value.
    """

    what: str
    remedy: str
    error: type[FactorcubeError] = CorruptionError
    expected: Collection[str] = field(default=(), repr=False)

    def damaged(self, where: str, how: str) -> FactorcubeError:
        """Return the error that names a damaged place."""
        return self.error(f"{self.what}: {where} {how}; {self.remedy}")

    @contextmanager
    def told(self, where: str = "its metadata") -> Iterator[None]:
        """Turn whatever reading raises into the error that names the place."""
        try:
            yield
        except FactorcubeError:
            raise
        except BaseException as error:
            if not isinstance(error, Exception) and not panicked(error):
                raise
            raise self.damaged(where, f"cannot be read ({_reason(error)})") from error


class GuardedStore(WrapperStore[Store]):
    """A store whose reads tell damage as its guard says."""

    def __init__(self, store: Store, guard: Guard) -> None:
        super().__init__(store)
        self.guard = guard

    def _with_store(self, store: Store) -> GuardedStore:
        return type(self)(store, self.guard)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return the bytes of a key; raise if they were written and have gone."""
        content = await super().get(key, prototype, byte_range)
        if content is None and key in self.guard.expected:
            raise self.guard.damaged(chunk_of(key), "is missing")
        return content


class NamingPipeline(BatchedCodecPipeline):
    """Zarr's decoder, which names the chunk that it could not read or decode."""

    async def read_batch(self, batch_info: Iterable[Any], out: Any, drop_axes: tuple[int, ...] = ()) -> None:
        """Decode a batch of chunks, which is one chunk unless Zarr is configured otherwise."""
        batch = list(batch_info)
        getter = batch[0][0] if batch else None
        if not isinstance(getter, StorePath) or not isinstance(getter.store, GuardedStore):
            await super().read_batch(batch, out, drop_axes)
            return
        with getter.store.guard.told(", ".join(chunk_of(item[0].path) for item in batch)):
            await super().read_batch(batch, out, drop_axes)


register_pipeline(NamingPipeline)  # so that Zarr finds it by its name; nothing uses it yet
_PIPELINE = {"codec_pipeline.path": f"{NamingPipeline.__module__}.{NamingPipeline.__qualname__}"}
_OPENING = threading.Lock()
"""Zarr's configuration is one for all threads, and two that set it at once would restore it wrongly."""


@contextmanager
def naming() -> Iterator[None]:
    """Let arrays that are opened inside name the chunk that cannot be decoded, whenever it is read."""
    with _OPENING, zarr.config.set(_PIPELINE):
        yield


def panicked(error: BaseException) -> bool:
    """Whether Icechunk's Rust code gave up: on some damage it panics, which is no `Exception` in Python."""
    return type(error).__name__ == "PanicException"


def chunk_of(key: str) -> str:
    """Say which array and chunk a key of a store is."""
    found = re.fullmatch(r"(.+)/c[./](.+)", key)
    return f"array '{found[1]}', chunk {found[2].replace('.', '/')}" if found else f"file {key}"


def metadata_seal(store: Store, facts: Mapping[str, Any]) -> str:
    """Hash all metadata of a Zarr hierarchy, which chunks it has, and facts that belong to it.

    The content of chunks is not part of it: their codec has a checksum of its own.
    """
    return sync(_seal(store, facts))


def keys_of(store: Store) -> list[str]:
    """Return all keys of a store in order: of metadata, and of the chunks that were written."""
    return sync(_keys(store))


def unreadable(group: zarr.Group, keys: Iterable[str]) -> Iterator[str]:
    """Read chunks of a guarded group, given by their keys; yield the message of each that is damaged."""
    for key in keys:
        name, separator, chunk = key.partition("/c/")
        if separator:
            try:
                with naming():
                    array: Any = group[name]
                array.get_block_selection(tuple(int(part) for part in chunk.split("/")))
            except FactorcubeError as error:
                yield str(error)


async def _keys(store: Store) -> list[str]:
    return sorted([key async for key in store.list()])


async def _seal(store: Store, facts: Mapping[str, Any]) -> str:
    hasher = hashlib.sha256(digest(dict(facts)).encode())
    for key in await _keys(store):
        hasher.update(key.encode() + b"\0")
        if key.rpartition("/")[2] == "zarr.json":
            content = await store.get(key, default_buffer_prototype())
            hasher.update(b"" if content is None else content.to_bytes())
    return hasher.hexdigest()


def _reason(error: BaseException) -> str:
    """Return the first line of an error that says something, without the frame that Icechunk draws around it."""
    lines = (line.strip(" x×|\t") for line in str(error).splitlines())
    text = next((line for line in lines if line), "")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
