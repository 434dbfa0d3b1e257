"""The bytes of one published version against its manifest: the seal, the checksums, and what does not belong to it.

Here belongs everything that says whether the files of a version are those that were published. It knows no pointer:
`storage.pointer` asks here before it names a version, `storage.versions` finds and opens them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from schemas.contracts import Manifest
from schemas.errors import ConfigError, CorruptionError, FactorcubeError, PublishError, StoreError
from schemas.refs import VersionRef
from storage.layout import Layout
from storage.stores import MANIFEST, SEAL, Store

REMEDY = "restore the version from a copy, or remove its folder and publish it again"
_READERS = 8
Sound = set[tuple[str, str]]
"""Files that match their checksum, by tag and checksum."""


def read_manifest(layout: Layout, ref: VersionRef) -> Manifest:
    """Return the manifest of a version; raises as `storage.versions.open_version` does."""
    key = key_of(layout, ref)
    if not layout.store.complete(key):
        raise PublishError(f"{layout.store.locate(key)}: no such published version")
    manifest = manifest_in(layout.store, key)
    if (manifest.universe, manifest.model, manifest.version) != (ref.universe, ref.model, ref.version):
        described = f"describes {manifest}"
        raise damaged(layout.store, f"{key}/{MANIFEST}", described)
    return manifest


def verify(layout: Layout, ref: VersionRef, *, champion: str | None = None) -> None:
    """Check every byte of a version against its checksums.

    Parameters
    ----------
    layout : Layout
        Where.
    ref : VersionRef
        Which one.
    champion : str, optional
        The version that readers have now: what a version that continues it shares with it is not read again, since
        whoever reads either reads the same bytes.

    Raises
    ------
    PublishError
        If there is no such version.
    CorruptionError
        If a file is damaged, missing, or was not published; the message names the first.
    """
    for error in damages(layout, ref, set() if champion is None else _shared(layout, ref, champion)):
        raise error


def damages(layout: Layout, ref: VersionRef, sound: Sound | None = None) -> Iterator[FactorcubeError]:
    """Check every byte of a version against its checksums; yield an error for each file that is not as published.

    Parameters
    ----------
    layout : Layout
        Where.
    ref : VersionRef
        Which one.
    sound : set of tuple[str, str], optional
        Files that need not be read, by tag (`storage.stores.Store.tags`) and checksum; those that are sound join them,
        so that what versions share is read once.
    """
    store, key, known = layout.store, key_of(layout, ref), set() if sound is None else sound
    try:
        checksums = read_manifest(layout, ref).checksums
    except CorruptionError as error:
        yield error
        return
    there = store.tags(key)

    def problem(name: str) -> FactorcubeError | None:
        mark = there.get(name, ""), checksums[name]
        try:
            if mark not in known:
                read_checked(store, key, name, checksums)
        except (CorruptionError, ConfigError) as error:  # a link in the place of a file leads outside
            return error
        known.add(mark)
        return None

    with ThreadPoolExecutor(_READERS) as pool:  # an object store answers many at once
        yield from (error for error in pool.map(problem, checksums) if error is not None)
    for name in sorted(set(there) - {*checksums, MANIFEST, SEAL}):
        yield CorruptionError(f"{store.locate(key)}/{name} was not published with this version; {REMEDY}")


def _shared(layout: Layout, ref: VersionRef, champion: str) -> Sound:
    """Return the files that a version has in common with the champion, if that is what it continues."""
    try:
        manifest = read_manifest(layout, ref)
    except CorruptionError:
        return set()
    if manifest.parent != champion:
        return set()
    tags = layout.store.tags(key_of(layout, ref.model_copy(update={"version": champion})))
    return {(tags[name], checksum) for name, checksum in manifest.checksums.items() if name in tags}


def manifest_in(store: Store, key: str) -> Manifest:
    """Return the manifest of a version, checked against its seal."""
    where = f"{key}/{MANIFEST}"
    try:
        content = store.read(where)
        if store.read(f"{key}/{SEAL}") != manifest_seal(content):
            raise damaged(store, where, f"does not match {SEAL}")
        return Manifest.model_validate_json(content)
    except StoreError:
        raise
    except (OSError, ValueError) as error:
        raise damaged(store, where, f"cannot be read ({type(error).__name__})") from error


def manifest_seal(manifest: bytes) -> bytes:
    """Return the line that seals a manifest, as ``sha256sum`` writes it."""
    return f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n".encode()


def key_of(layout: Layout, ref: VersionRef) -> str:
    """Return the key of a version in the store."""
    return f"{layout.home(ref.universe, ref.model)}/{ref.version}"


def read_checked(store: Store, key: str, name: str, checksums: dict[str, str]) -> bytes:
    """Return the content of a file of a version, checked against its checksum."""
    where = f"{key}/{name}"
    try:
        content = store.read(where)
        if hashlib.sha256(content).hexdigest() != checksums[name]:
            raise damaged(store, where, "does not match its checksum")
    except StoreError:
        raise
    except (OSError, KeyError) as error:
        raise damaged(store, where, "is missing or cannot be read") from error
    return content


def damaged(store: Store, key: str, how: str) -> CorruptionError:
    """Return the error that names a file of a version, and says what to do."""
    return CorruptionError(f"{store.locate(key)} {how}; {REMEDY}")
