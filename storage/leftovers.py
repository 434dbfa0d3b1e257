"""What can be removed from the folders below the root: unused intermediate results, abandoned staging, old files.

Here belongs finding such things and removing them without ever leaving the root: a symbolic link is unlinked, never
followed. Which of them may go is decided in `tasks.maintaining`.

A folder is removed by giving it the hidden name of an abandoned staging folder first, so that no reader meets half
of it, and whatever a killed run leaves is removed by the next one, or by the next writer.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from storage.files import STAGING, fsync, remove_abandoned, size_of
from storage.layout import Layout, is_name

_GROUP = "zarr.json"
_TEMPORARY = ".tmp"
_OLD_LINKS = ".new"


@dataclass(frozen=True)
class Leftover:
    """A file or folder that may be removed.

    Attributes
    ----------
    path : Path
        Where it lies.
    used_at : datetime
        When it was written, or an intermediate result last used (UTC).
    size_bytes : int
        Size of all its files; links count as nothing.
    """

    path: Path
    used_at: datetime
    size_bytes: int


def work_entries(layout: Layout) -> Iterator[Leftover]:
    """Yield every intermediate result."""
    for kind in _visible(layout.root / "work"):
        if is_name(kind.name) and kind.is_dir() and not kind.is_symlink():
            yield from (_leftover(path) for path in _visible(kind) if is_name(path.name))


def quarantined(layout: Layout) -> Iterator[Leftover]:
    """Yield every file of rows that a check kept out of a cube."""
    yield from _files(layout.root / "quarantine")


def reports(layout: Layout) -> Iterator[Leftover]:
    """Yield every report."""
    yield from _files(layout.root / "reports")


def abandoned(layout: Layout) -> Iterator[Leftover]:
    """Yield staging folders and temporary files that were never moved to their places, below the root."""
    for folder, folders, files in os.walk(layout.root):
        if _GROUP in files:  # nothing is staged among the arrays of a version or an entry
            folders.clear()
        hidden = [name for name in folders if name.startswith(STAGING)]
        folders[:] = [name for name in folders if name not in hidden]
        unfinished = [name for name in files if name.startswith(".") and name.endswith((_TEMPORARY, _OLD_LINKS))]
        for name in (*hidden, *unfinished):
            with suppress(FileNotFoundError):  # its owner was faster
                yield _leftover(Path(folder, name))


def remove(leftover: Leftover) -> bool:
    """Remove a file or folder; False if it was used since, is owned by a living writer, or has gone.

    Symbolic links inside it are unlinked, and what they lead to stays.
    """
    path = leftover.path
    if path.name.startswith(STAGING) and path.is_dir() and not path.is_symlink():
        return remove_abandoned(path)
    with suppress(FileNotFoundError):
        if path.is_symlink() or not path.is_dir():
            path.unlink()
            return True
        hidden = path.with_name(f"{STAGING}{uuid.uuid4().hex}")
        path.rename(hidden)
        if _used_at(hidden) > leftover.used_at and not path.exists():
            hidden.rename(path)
            return False
        fsync(hidden.parent)
        with suppress(FileNotFoundError):  # a writer beside it removes what looks abandoned, too
            shutil.rmtree(hidden)
        return True
    return False


def _files(folder: Path) -> Iterator[Leftover]:
    for universe in _visible(folder):
        if is_name(universe.name) and universe.is_dir() and not universe.is_symlink():
            yield from (_leftover(path) for path in _visible(universe) if not path.is_dir() or path.is_symlink())


def _visible(folder: Path) -> list[Path]:
    if folder.is_symlink() or not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _leftover(path: Path) -> Leftover:
    if path.is_symlink():
        return Leftover(path=path, used_at=_used_at(path), size_bytes=0)
    size = size_of(path) if path.is_dir() else path.lstat().st_size
    return Leftover(path=path, used_at=_used_at(path), size_bytes=size)


def _used_at(path: Path) -> datetime:
    return datetime.fromtimestamp(path.lstat().st_mtime, UTC)
