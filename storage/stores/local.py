"""Cubes and published versions in a folder of a local disk.

Here belong locks, renames and links. A version is staged beside its place and renamed; a document is written anew
under a lock; a removed version first takes the hidden name of an abandoned staging folder, which the next writer
removes if this one dies.

What a version shares with another one is a link to the same file: nothing here, and nothing of Zarr's, writes to a file
that has its place, so that none sees a change through the other, and a removed version takes only its own names along.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import icechunk
from typing_extensions import override

from schemas.errors import ConfigError, CorruptionError, StoreError
from storage.files import STAGING, fsync, link, locked, place, sha256_file, staging, write_atomic
from storage.stores import MANIFEST, Document, Shared, Store


@dataclass(frozen=True)
class LocalStore(Store):
    """A folder; see `storage.stores.Store`.

    Attributes
    ----------
    root : Path
        It need not exist yet, and may itself be a symbolic link.
    """

    root: Path
    conditional = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root).expanduser().absolute())

    @override
    def locate(self, key: str) -> str:
        return str(self.path(key))

    @override
    def path(self, key: str) -> Path:
        path = self.root / key
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise ConfigError(f"{path}: a symbolic link leads outside the root {self.root}; remove the link")
        return path

    @override
    def read(self, key: str) -> bytes:
        return self.path(key).read_bytes()

    @override
    def files(self, key: str) -> list[str]:
        folder, found = str(self.path(key)), []
        for parent, folders, files in os.walk(folder):
            below = f"{parent.removeprefix(folder)}/"[1:]
            links = [name for name in folders if Path(parent, name).is_symlink()]
            found += [f"{below}{name}" for name in (*files, *links)]
        return sorted(found)

    @override
    def tags(self, key: str) -> dict[str, str]:
        folder = self.path(key)
        found = {name: (folder / name).lstat() for name in self.files(key)}
        return {name: f"{one.st_dev}-{one.st_ino}" for name, one in found.items()}

    @override
    def folders(self, key: str) -> list[str]:
        parent = self.path(key)
        if not parent.is_dir():
            return []
        try:
            with os.scandir(parent) as inner:
                return sorted(
                    one.name for one in inner if one.is_dir(follow_symlinks=False) and not one.name.startswith(".")
                )
        except PermissionError as error:  # to pass it over would make it look empty to upkeep
            raise StoreError(
                f"{parent}: cannot be read ({error.strerror}); mend its permissions, or move it away if it is not "
                "factorcube's"
            ) from None

    @override
    def links(self, key: str) -> dict[str, str]:
        try:
            with os.scandir(self.path(key)) as inner:
                return {one.name: str(Path(one.path).readlink()) for one in inner if one.is_symlink()}
        except (FileNotFoundError, PermissionError):
            return {}

    @override
    def complete(self, key: str) -> bool:
        return not self._link(key).is_symlink() and self.path(key).is_dir()

    @override
    def group(self, key: str) -> str:
        return str(self.path(key))

    @override
    def cube(self, key: str) -> icechunk.Storage:
        return icechunk.local_filesystem_storage(str(self.path(key)))

    @override
    def exclusive(self, key: str) -> AbstractContextManager[None]:
        return locked(self.path(key))

    @override
    def staging(self, key: str) -> AbstractContextManager[Path]:
        return staging(self.path(key))

    @override
    def place(self, folder: Path, key: str, agree: Callable[[bytes], None], shared: Shared | None = None) -> bool:
        if shared is not None:
            self._share(folder, shared)
        placed = place(folder, self.path(key))
        if not placed:
            agree(self.read(f"{key}/{MANIFEST}"))
        return placed

    @override
    def remove(self, key: str) -> None:
        folder = self.path(key)
        if self.complete(key):
            hidden = folder.with_name(f"{STAGING}{uuid.uuid4().hex}")
            folder.rename(hidden)
            fsync(hidden.parent)
            shutil.rmtree(hidden)

    @override
    def load(self, key: str) -> Document:
        try:
            content = self.read(key)
        except FileNotFoundError:
            return Document(None, None)
        except OSError as error:
            raise StoreError(f"{self.path(key)}: cannot be read: {error.strerror}; mend that and run again") from None
        return Document(content, hashlib.sha256(content).hexdigest())

    @override
    def swap(self, key: str, content: bytes, tag: str | None) -> bool:
        """Replace a document; the caller holds the lock."""
        if self.load(key).tag != tag:
            return False
        path = self.path(key)
        for abandoned in path.parent.glob(f".{path.name}.*.tmp"):
            abandoned.unlink(missing_ok=True)
        write_atomic(path, content)
        return True

    @override
    def discard(self, key: str) -> None:
        self.path(key).unlink(missing_ok=True)

    @override
    def pointed(self, key: str) -> str | None:
        link = self._link(key)
        return str(link.readlink()) if link.is_symlink() else None

    @override
    def point(self, key: str, target: str) -> None:
        link = self._link(key)
        fresh = link.with_name(f".{link.name}.new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(target)
        fresh.replace(link)
        fsync(link.parent)

    def _share(self, folder: Path, shared: Shared) -> None:
        """Give a staged version the files that it shares, as links, or as copies where there can be none.

        A file that was written to since its version was sealed is read, and so is what is copied: damage is not passed
        on in silence. A bit that a disk turned by itself is met as in any version, by its readers and by `verify`.
        """
        home = self.path(shared.key)
        try:
            sealed = (home / MANIFEST).lstat().st_mtime_ns
            for inner in sorted({(folder / name).parent for name in shared.checksums}):
                inner.mkdir(parents=True, exist_ok=True)
            for name, checksum in shared.checksums.items():
                if not _taken(home / name, folder / name, checksum, sealed):
                    raise CorruptionError(
                        f"{home / name} does not match its checksum; restore it from a copy and run again"
                    )
        except FileNotFoundError:
            raise FileNotFoundError(f"{home}: has gone, or a file of it, while it was continued") from None

    def _link(self, key: str) -> Path:
        """Return the path of what may be a link itself."""
        folder, _, name = key.rpartition("/")
        return self.path(folder) / name


def _taken(source: Path, target: Path, checksum: str, sealed: int) -> bool:
    """Link or copy a file of a version that was sealed at a time (ns); False if it is seen to be damaged."""
    found = source.lstat()
    if not stat.S_ISREG(found.st_mode) or (found.st_mtime_ns > sealed and sha256_file(source) != checksum):
        return False
    if link(source, target):
        return True
    shutil.copy2(source, target)
    return sha256_file(target) == checksum
