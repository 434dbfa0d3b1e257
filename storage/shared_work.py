"""Intermediate results in an object store, for machines that share no disk.

Here belongs how an entry of `storage.work` gets there whole, is fetched and is removed. What an entry holds belongs to
`storage.work`, whose folders are copies of what lies here; which entries may go is decided in `tasks.maintaining`.

Every upload of an entry has a folder of its own, so that no two writers touch the same object. The entry is there once
its document names one of these uploads with the size and checksum of every file: it is written last, and only if there
is none. A writer that comes too late removes its own upload. What a killed upload leaves is named by no document.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, ValidationError

from schemas.base import Frozen, Name
from schemas.errors import CorruptionError, StoreError
from schemas.refs import Key
from storage.files import sha256_file
from storage.layout import is_name

if TYPE_CHECKING:
    from storage.stores.objects import Object, ObjectStore

WORK = "work"
"""Key of all entries, as kind/key below it."""
_DOCUMENT = "entry.json"
_NOTED = timedelta(days=1)


class _File(Frozen):
    size: int
    sha256: str


def _inside(name: str) -> str:
    if not {"", ".", ".."}.isdisjoint(name.split("/")):
        raise ValueError("leads out of its folder")
    return name


class _Entry(Frozen):
    """The document of an entry."""

    upload: Name
    files: dict[Annotated[str, AfterValidator(_inside)], _File]


@dataclass(frozen=True)
class SharedLeftover:
    """An entry, or an upload that no document names, that may be removed.

    Attributes
    ----------
    name : str
        Key of the entry, ``work/<kind>/<key>``, or of the upload below it.
    used_at : datetime
        When an entry was uploaded or last asked for, to the day, or an upload last went on (UTC).
    size_bytes : int
        Size of all its files.
    entry : str
        Key of the entry.
    """

    name: str
    used_at: datetime
    size_bytes: int
    entry: str

    @property
    def whole(self) -> bool:
        """Whether it is an entry."""
        return self.name == self.entry


class SharedWork:
    """The entries of all machines of an installation; safe to use from many of them at once.

    Failures are `StoreError`, which names the object.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def locate(self, name: str = WORK) -> str:
        """Return the URL of an entry, or of all of them."""
        return self._store.locate(name)

    def check(self) -> None:
        """Raise `StoreError` unless the store answers."""
        self._store.folders(WORK)

    def has(self, kind: str, key: Key) -> bool:
        """Whether there is such an entry; asking counts as using it, once a day."""
        document = f"{_entry(kind, key)}/{_DOCUMENT}"
        written = self._store.written_at(document)
        if written is None or written > datetime.now(UTC) - _NOTED:
            return written is not None
        content, tag = self._store.load(document)
        if content is None:
            return False
        with suppress(StoreError):  # a reader may not write
            if not self._store.swap(document, content, tag):  # noted by somebody else, or removed
                return self._store.written_at(document) is not None
        return True

    def put(self, kind: str, key: Key, folder: Path) -> bool:
        """Upload the files of an entry; return whether the entry has these files, now or before.

        False says that another writer was faster, and that its files differ: they count.
        """
        entry, upload = _entry(kind, key), uuid.uuid4().hex
        files = {
            path.relative_to(folder).as_posix(): _File(size=path.stat().st_size, sha256=sha256_file(path))
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        self._store.upload(folder, f"{entry}/{upload}")
        document = _Entry(upload=upload, files=files)
        if self._store.swap(f"{entry}/{_DOCUMENT}", document.model_dump_json().encode(), None):
            return True
        there = self._read(entry)
        if there is not None and there.upload == upload:  # the answer to our own document was lost
            return True
        self._store.remove(f"{entry}/{upload}")
        return there is not None and there.files == files

    def fetch(self, kind: str, key: Key, folder: Path) -> bool:
        """Copy the files of an entry into an empty folder; False if there is no such entry.

        Raises
        ------
        CorruptionError
            If a file is missing, or is not what was uploaded.
        """
        entry = _entry(kind, key)
        document = self._read(entry)
        if document is None:
            return False
        try:
            self._store.download(f"{entry}/{document.upload}", document.files, folder)
        except FileNotFoundError as error:
            raise self._damaged(entry, str(error)) from None
        for name, file in document.files.items():
            if (folder / name).stat().st_size != file.size or sha256_file(folder / name) != file.sha256:
                url = self.locate(f"{entry}/{document.upload}/{name}")
                raise self._damaged(entry, f"{url}: does not match its checksum")
        return True

    def leftovers(self) -> Iterator[SharedLeftover]:
        """Yield every entry, and every upload that no document names."""
        objects = (item for item in self._store.listed(WORK) if item.name.count("/") > 1)
        for (kind, key), group in groupby(objects, lambda item: tuple(item.name.split("/")[:2])):
            if is_name(kind) and is_name(key):
                yield from self._leftovers(_entry(kind, key), list(group))

    def remove(self, leftover: SharedLeftover) -> bool:
        """Remove an entry, its document first, or an upload; False if it was used since, or has gone."""
        entry = leftover.entry
        document = self._read(entry)
        if not leftover.whole:
            if document is not None and leftover.name == f"{entry}/{document.upload}":
                return False
            self._store.remove(leftover.name)
            return True
        written = self._store.written_at(f"{entry}/{_DOCUMENT}")
        if document is None or written is None or written > leftover.used_at:
            return False
        self._store.discard(f"{entry}/{_DOCUMENT}")
        self._store.remove(f"{entry}/{document.upload}")
        return True

    def _leftovers(self, entry: str, objects: list[Object]) -> Iterator[SharedLeftover]:
        uploads: dict[str, list[Object]] = {}
        for item in objects:
            uploads.setdefault(item.name.split("/")[2], []).append(item)
        documents = uploads.pop(_DOCUMENT, [])
        named = None
        if documents:
            named = next(iter(uploads), None) if len(uploads) == 1 else self._named(entry)
            size = sum(item.size for item in (*documents, *uploads.get(named or "", ())))
            yield SharedLeftover(entry, documents[0].written_at, size, entry)
        for upload, files in uploads.items():
            if upload != named:
                written = max(item.written_at for item in files)
                yield SharedLeftover(f"{entry}/{upload}", written, sum(item.size for item in files), entry)

    def _named(self, entry: str) -> str | None:
        document = self._read(entry)
        return None if document is None else document.upload

    def _read(self, entry: str) -> _Entry | None:
        """Read the document of an entry; None if there is none."""
        content, _ = self._store.load(f"{entry}/{_DOCUMENT}")
        if content is None:
            return None
        try:
            document = _Entry.model_validate_json(content)
        except ValidationError:
            raise self._damaged(entry, f"{self.locate(entry)}/{_DOCUMENT}: cannot be read") from None
        return document

    def _damaged(self, entry: str, what: str) -> CorruptionError:
        return CorruptionError(f"{what}; remove all objects below {self.locate(entry)} and run again")


def _entry(kind: str, key: Key) -> str:
    return f"{WORK}/{kind}/{key}"
