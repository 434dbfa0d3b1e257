"""Upkeep of a cube: expire old snapshots, free what nothing refers to, and re-read what stays.

Here belongs what needs Icechunk's own words (tags, expiry, garbage collection). Which snapshots stay is decided in
`tasks.maintaining`.

Expiry cuts the history of `main` at the first snapshot that is young enough; the head always stays. An older snapshot
that must stay is held by a tag of its own, ``kept-<snapshot>-<time>``: Icechunk never gives a tag's name out twice.
Tags are set before anything expires, and once more before anything is deleted, for versions that were published
meanwhile. Each step leaves a cube whose kept snapshots can all be opened, so that a run may die anywhere and the next
one completes it.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from pathlib import Path

import icechunk
from numcodecs.zstd import Zstd

from schemas.errors import ConfigError, CubeError
from storage.cube import BRANCH, Cube, SnapshotInfo, told
from storage.damage import keys_of, unreadable
from storage.files import staging
from storage.layout import Layout

_KEPT = "kept-"
_NAMED_WITHIN = {"snapshots", "manifests", "transactions"}
_HEADER_BYTES, _ID_LENGTH, _ALPHABET = 39, 20, "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Of Icechunk's files (format 1): what stands before the compressed content, and how their names are written."""


@dataclass(frozen=True)
class Freed:
    """What expiry and garbage collection removed, or would remove.

    Attributes
    ----------
    snapshots : int
        Snapshots that can no longer be opened.
    size_bytes : int
        Size of all files removed.
    """

    snapshots: int
    size_bytes: int


def living(cube: Cube) -> list[SnapshotInfo]:
    """Return all snapshots that can be opened: the history of `main`, newest first, then what tags hold.

    Raises
    ------
    CubeError
        If one of them cannot be read.
    """
    problems: list[str] = []
    found = _reachable(cube, problems)
    if problems:
        raise CubeError(problems[0])
    return found


def _reachable(cube: Cube, problems: list[str]) -> list[SnapshotInfo]:
    """Return the snapshots that can be reached, and note where the way ends early."""
    found: dict[str, SnapshotInfo] = {}
    what = f"cube '{cube.universe}'"
    with told(what):
        starts = [{"branch": BRANCH}, *({"tag": tag} for tag in sorted(cube.repository.list_tags()))]
    for start in starts:
        parent = ""
        try:
            with told(what):
                for one in cube.repository.ancestry(**start):
                    if parent and one.id != parent:
                        raise CubeError(f"it holds what calls itself {one.id}")
                    parent = one.parent_id or ""
                    if parent and one.id not in found:
                        found[one.id] = SnapshotInfo(one.id, one.written_at, one.message, dict(one.metadata))
        except CubeError as error:
            where = f"snapshot {parent}, which a later one follows," if parent else f"{start}"
            problems.append(f"{what}: {where} cannot be read ({error}); restore the cube from a copy")
    return list(found.values())


def expire(cube: Cube, named: Callable[[], Mapping[str, str]], *, before: datetime, abandoned: datetime) -> Freed:
    """Expire the snapshots committed before a moment, but for the head and those that are named, and free their data.

    Parameters
    ----------
    cube : Cube
        Which one; no writer can commit to it meanwhile (in an object store: nor needs to wait).
    named : callable
        Returns the snapshots that must stay, with the reason; asked again before anything is deleted.
    before : datetime
        Snapshots committed since then stay.
    abandoned : datetime
        Files that nothing refers to are removed if they were written before then. In an object store a writer may be
        at work: leave it the time that an upsert can take.

    Raises
    ------
    CubeError
        If the cube is damaged or cannot be written; nothing that stays was touched.
    """
    with cube.exclusive(), told(f"cube '{cube.universe}'"):
        _hold(cube, named(), before)
        cube.repository.expire_snapshots(before)
        _hold(cube, named(), before)
        summary = cube.repository.garbage_collect(abandoned)
    return Freed(snapshots=summary.snapshots_deleted, size_bytes=summary.bytes_deleted)


def would_free(
    layout: Layout, cube: Cube, named: Callable[[], Mapping[str, str]], *, before: datetime, abandoned: datetime
) -> Freed | None:
    """Return what `expire` would free, found out on a copy of hard links; None where there are none.

    Icechunk never writes to a file again, so that the copy shares all bytes with the cube and changes none.
    """
    try:
        folder = layout.store.path(layout.cube(cube.universe))
    except ConfigError:
        return None
    try:
        with cube.exclusive(), staging(folder.parent) as copy:
            home = Layout(copy)
            target = Path(home.store.locate(home.cube(cube.universe)))
            shutil.copytree(folder, target, copy_function=os.link)
            return expire(Cube.open(home, cube.universe), named, before=before, abandoned=abandoned)
    except OSError:  # a file system without hard links
        return None


def damaged_parts(cube: Cube, note: Callable[[str], None]) -> Iterator[str]:
    """Re-read every chunk of every living snapshot; yield one line for each thing that is damaged.

    A chunk that several snapshots share is read once: after the oldest, only what each commit changed.

    Parameters
    ----------
    cube : Cube
        Which one.
    note : callable
        Called with the name of each array before it is read.
    """
    read: set[str] = set()
    problems: list[str] = []
    yield from _misnamed(cube)
    snapshots = _reachable(cube, problems)
    yield from problems
    for snapshot in reversed(snapshots):
        what = f"cube '{cube.universe}', snapshot {snapshot.id}"
        try:
            cube.open_dataset(snapshot.id)
            group = cube.open_group(snapshot.id)
            with told(what):
                keys = keys_of(group.store)
        except CubeError as error:
            yield str(error)
            continue
        try:
            changed = _changed(cube, snapshot.id, read)
        except icechunk.IcechunkError:
            yield f"{what}: its transaction log cannot be read; it is not needed to read data, expire the snapshot"
            changed = None
        read.add(snapshot.id)
        by_array: dict[str, list[str]] = {}
        for key in keys:
            if changed is None or key in changed:
                by_array.setdefault(key.partition("/c/")[0], []).append(key)
        for name, chunks in by_array.items():
            note(f"{what}, {name}")
            yield from unreadable(group, chunks)


def _misnamed(cube: Cube) -> Iterator[str]:
    """Yield the files of Icechunk's own that hold another one's content: it opens what lies under a name unasked.

    A manifest in the place of another snapshot's is whole by itself, and leads to sound chunks with other numbers.
    """
    store, key = cube.layout.store, cube.layout.cube(cube.universe)
    for name in store.files(key):
        kind, _, identifier = name.partition("/")
        if kind not in _NAMED_WITHIN or len(identifier) != _ID_LENGTH:
            continue
        try:
            content = Zstd().decode(store.read(f"{key}/{name}")[_HEADER_BYTES:])
        except (OSError, RuntimeError, ValueError):
            continue  # what cannot be read is named where it is needed
        if _raw_id(identifier) not in bytes(content):
            yield f"{store.locate(key)}/{name} holds the content of another file; restore the cube from a copy"


def _raw_id(identifier: str) -> bytes:
    """Return the 12 bytes that a name of Icechunk's stands for, in Crockford's base 32."""
    number = 0
    for letter in identifier:
        number = number * 32 + max(_ALPHABET.find(letter), 0)
    return (number >> (5 * _ID_LENGTH - 96)).to_bytes(12, "big")


def _changed(cube: Cube, snapshot_id: str, read: set[str]) -> set[str] | None:
    """Return the keys of the chunks that a commit wrote; None if its parent was not read before."""
    parent = cube.repository.lookup_snapshot(snapshot_id).parent_id
    if parent not in read:
        return None
    difference = cube.repository.diff(from_snapshot_id=parent, to_snapshot_id=snapshot_id)
    return {
        "/".join([path.strip("/"), "c", *map(str, coordinates)])
        for path, chunks in difference.updated_chunks.items()
        for coordinates in chunks
    }


def _hold(cube: Cube, named: Mapping[str, str], before: datetime) -> None:
    """Let a tag hold every named snapshot that expiry would cut off, and let go of those that are no longer named."""
    held = {cube.repository.lookup_tag(tag): tag for tag in cube.repository.list_tags() if tag.startswith(_KEPT)}
    history = cube.history()
    young = {one.id for one in takewhile(lambda one: one.written_at >= before, history)}
    known = {one.id for one in living(cube)}
    for snapshot_id in set(named) - young - set(held):
        # One that is not known may still lie there: the last run died between expiry and removal.
        with suppress(*(() if snapshot_id in known else (icechunk.IcechunkError,))):
            cube.repository.create_tag(f"{_KEPT}{snapshot_id}-{time.time_ns()}", snapshot_id)
    for snapshot_id in set(held) - set(named):
        cube.repository.delete_tag(held[snapshot_id])
