"""The port through which cubes and published versions reach a disk or an object store.

Here belongs what differs between the two: how bytes are read and listed, how a staged folder becomes visible, how a
small document is swapped. What is stored, and when, belongs to `storage.published`, `storage.pointer` and
`storage.cube`, which are the same code for both. Keys are paths with '/' below the store, made of validated names by
`storage.layout`. Failures are `OSError` everywhere, a missing key is `FileNotFoundError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import icechunk

MANIFEST, SEAL, ROOT = "manifest.json", "manifest.sha256", "zarr.json"
"""Files of a version that decide when it becomes visible; see `Store.place`."""


class Document(NamedTuple):
    """The content of a document as it was read, and the tag of that state; both None if there is none yet."""

    content: bytes | None
    tag: str | None


class Shared(NamedTuple):
    """Files that a staged version has in common with one that is there already."""

    key: str
    """Where that one lies in the same store."""
    checksums: Mapping[str, str]
    """SHA-256 of the files, by path."""


class Store(Protocol):
    """Where cubes and published versions lie."""

    conditional: bool
    """Whether the store itself refuses a write that comes too late; if not, writers hold `exclusive`."""

    def locate(self, key: str) -> str:
        """Return the path or URL of a key, for readers."""

    def path(self, key: str) -> Path:
        """Return the path of a key; `ConfigError` if it lies on no file system or outside the store."""

    def read(self, key: str) -> bytes:
        """Return the content of a file."""

    def files(self, key: str) -> list[str]:
        """Return all files below a key, relative to it, in order."""

    def tags(self, key: str) -> dict[str, str]:
        """Return a tag for each file below a key: files of one tag are known to be the same without reading them."""

    def folders(self, key: str) -> list[str]:
        """Return the names of the visible folders in a folder, in order; none if it does not exist."""

    def links(self, key: str) -> dict[str, str]:
        """Return the links in a folder with what they lead to; none in stores that have no links."""

    def complete(self, key: str) -> bool:
        """Whether a version is visible."""

    def group(self, key: str) -> Any:
        """Return what Zarr opens read-only."""

    def cube(self, key: str) -> icechunk.Storage:
        """Return what Icechunk opens."""

    def exclusive(self, key: str) -> AbstractContextManager[None]:
        """Hold the lock of this key; where writes are conditional there is none, and none is needed."""

    def staging(self, key: str) -> AbstractContextManager[Path]:
        """Give a local folder from which `place` can make `key` and its neighbours; it is removed at the end."""

    def place(self, folder: Path, key: str, agree: Callable[[bytes], None], shared: Shared | None = None) -> bool:
        """Make a staged version visible, whole or not at all.

        Parameters
        ----------
        folder : Path
            The staged version with its manifest and seal.
        key : str
            Where to.
        agree : callable
            Called with the manifest that is there already, of a visible version or of an upload that another
            publisher began; raises if that is of other content.
        shared : Shared, optional
            Files that the version has and the folder lacks. They cost no bytes where a file can have two names.

        Returns
        -------
        bool
            False if the version was visible already.

        Raises
        ------
        FileNotFoundError
            If a shared file has gone, as where its version was removed meanwhile.
        CorruptionError
            If a shared file was changed since its version was published, and is damaged.
        """

    def remove(self, key: str) -> None:
        """Remove a version: invisible first, then its files; does nothing where there is none."""

    def load(self, key: str) -> Document:
        """Read a small document."""

    def swap(self, key: str, content: bytes, tag: str | None) -> bool:
        """Replace a document if it still is in the state of `tag`; return whether it was replaced.

        False, and any `OSError`, may also mean that it was replaced and the answer got lost.
        """

    def discard(self, key: str) -> None:
        """Remove a small document; nothing where there is none."""

    def pointed(self, key: str) -> str | None:
        """Return the target of a link; None if there is none, or stores like this have no links."""

    def point(self, key: str, target: str) -> None:
        """Let a link lead to its neighbour `target`, at once for all readers; nothing where there are no links."""
