"""Cubes, published versions and the files of intermediate results in an S3 object store.

Here belong conditional puts and the order of uploads. There are no locks, links or renames: S3 itself refuses a write
that comes too late (``If-Match``, ``If-None-Match``).

A version is uploaded so that it shows whole or not at all. Its manifest goes first, and only if there is none: it names
the checksum of every other file, so that of two publishers with other content one is refused before it has written a
byte, and two with the same content write the same bytes. What it shares with another version is copied inside the
store, which checks what it copies. The metadata of the group follow all arrays, because xarray
opens a version by them, and the seal comes last: without it no version is visible here. What a killed upload leaves is
completed by publishing again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn, cast

import icechunk
import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import S3Store
from typing_extensions import override
from zarr.storage import ObjectStore as ZarrObjectStore

from schemas.errors import ConfigError, ExecutionError, StoreError
from schemas.stores import S3Access, S3Place
from storage.files import staging, write_atomic
from storage.stores import MANIFEST, ROOT, SEAL, Document, Shared, Store

if TYPE_CHECKING:
    from obstore.store import RetryConfig, S3Config

_TRANSFERS = 8
_RETRY: RetryConfig = {"max_retries": 5, "retry_timeout": timedelta(seconds=60)}


class Object(NamedTuple):
    """An object as a listing names it: its size in bytes, and when it was last written (UTC)."""

    name: str
    size: int
    written_at: datetime


class ObjectStore(Store):
    """A bucket and a prefix; see `storage.stores.Store`. It never leaves its process: it holds credentials.

    Parameters
    ----------
    place : S3Place
        Bucket and prefix.
    access : S3Access
        Server and credentials.
    scratch : Path
        Local folder for staging.
    """

    conditional = True

    def __init__(self, place: S3Place, access: S3Access, scratch: Path) -> None:
        self._place, self._access, self._scratch = place, access, scratch
        self._objects = self._open(place.prefix)

    def __repr__(self) -> str:
        return f"ObjectStore({self.locate('')!r})"

    def __reduce__(self) -> NoReturn:
        raise ExecutionError(f"{self!r} holds credentials and is not sent to other processes; open it in the flow")

    @override
    def locate(self, key: str) -> str:
        return "/".join(part for part in (f"s3://{self._place.bucket}", self._place.prefix, key) if part)

    @override
    def path(self, key: str) -> Path:
        raise ConfigError(f"{self.locate(key)} is no folder of this machine; open it as an object store")

    @override
    def read(self, key: str) -> bytes:
        with self._told(key):
            return bytes(obstore.get(self._objects, key).bytes())

    @override
    def files(self, key: str) -> list[str]:
        return sorted(self.tags(key))

    @override
    def tags(self, key: str) -> dict[str, str]:
        with self._told(key):
            found = [item for batch in obstore.list(self._objects, f"{key}/", chunk_size=1000) for item in batch]
        return {item["path"].removeprefix(f"{key}/"): item["e_tag"] or item["path"] for item in found}

    @override
    def folders(self, key: str) -> list[str]:
        with self._told(key):
            found = obstore.list_with_delimiter(self._objects, f"{key}/")["common_prefixes"]
        return sorted(prefix.rpartition("/")[2] for prefix in found)

    @override
    def links(self, key: str) -> dict[str, str]:
        return {}

    @override
    def complete(self, key: str) -> bool:
        try:
            with self._told(key):
                obstore.head(self._objects, f"{key}/{SEAL}")
        except FileNotFoundError:
            return False
        return True

    @override
    def group(self, key: str) -> ZarrObjectStore[S3Store]:
        return ZarrObjectStore(self._open(self._below(key)), read_only=True)

    @override
    def cube(self, key: str) -> icechunk.Storage:
        keys = self._access.keys
        return icechunk.s3_storage(
            bucket=self._place.bucket,
            prefix=self._below(key),
            region=self._access.region,
            endpoint_url=self._access.endpoint,
            allow_http=self._access.plain,
            force_path_style=self._access.endpoint is not None,
            from_env=None if keys else True,
            access_key_id=keys.get("access_key_id"),
            secret_access_key=keys.get("secret_access_key"),
            session_token=keys.get("session_token"),
        )

    @override
    def exclusive(self, key: str) -> AbstractContextManager[None]:
        return nullcontext()

    @override
    def staging(self, key: str) -> AbstractContextManager[Path]:
        return staging(self._scratch)

    @override
    def place(self, folder: Path, key: str, agree: Callable[[bytes], None], shared: Shared | None = None) -> bool:
        if not self._create(f"{key}/{MANIFEST}", (folder / MANIFEST).read_bytes()):
            theirs = self.read(f"{key}/{MANIFEST}")
            agree(theirs)
            if self.complete(key):
                return False
            write_atomic(folder / SEAL, f"{hashlib.sha256(theirs).hexdigest()}  {MANIFEST}\n")
        names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        with ThreadPoolExecutor(_TRANSFERS) as pool:
            list(pool.map(lambda name: self._put(folder, key, name), set(names) - {MANIFEST, ROOT, SEAL}))
            if shared is not None:
                list(pool.map(lambda name: self._copy(shared.key, key, name), shared.checksums))
        self._put(folder, key, ROOT)
        return self._create(f"{key}/{SEAL}", (folder / SEAL).read_bytes())

    @override
    def remove(self, key: str) -> None:
        names = self.files(key)
        first = [name for name in (SEAL, ROOT) if name in names]
        last = [MANIFEST] if MANIFEST in names else []
        for group in (first[:1], first[1:], [name for name in names if name not in {SEAL, ROOT, MANIFEST}], last):
            if group:
                with self._told(key), suppress(FileNotFoundError):
                    obstore.delete(self._objects, [f"{key}/{name}" for name in group])

    @override
    def load(self, key: str) -> Document:
        try:
            with self._told(key):
                found = obstore.get(self._objects, key)
                return Document(bytes(found.bytes()), found.meta["e_tag"])
        except FileNotFoundError:
            return Document(None, None)

    @override
    def swap(self, key: str, content: bytes, tag: str | None) -> bool:
        if tag is None:
            return self._create(key, content)
        try:
            with self._told(key):
                obstore.put(self._objects, key, content, mode={"e_tag": tag}, use_multipart=False)
        except (_TooLateError, FileNotFoundError):
            return False
        return True

    @override
    def discard(self, key: str) -> None:
        with suppress(FileNotFoundError), self._told(key):
            obstore.delete(self._objects, key)

    @override
    def pointed(self, key: str) -> str | None:
        return None

    @override
    def point(self, key: str, target: str) -> None:
        """Do nothing: readers ask the pointer document."""

    # Beyond the port: what `storage.shared_work` needs.

    def listed(self, key: str) -> Iterator[Object]:
        """Yield the objects below a key in the order of their names, which are relative to it."""
        with self._told(key):
            for batch in obstore.list(self._objects, f"{key}/", chunk_size=1000):
                for item in batch:
                    yield Object(item["path"].removeprefix(f"{key}/"), item["size"], item["last_modified"])

    def written_at(self, key: str) -> datetime | None:
        """Return when an object was last written (UTC); None if there is none."""
        try:
            with self._told(key):
                return obstore.head(self._objects, key)["last_modified"]
        except FileNotFoundError:
            return None

    def upload(self, folder: Path, key: str) -> None:
        """Copy all files of a folder to objects below a key, in no order."""
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        with ThreadPoolExecutor(_TRANSFERS) as pool:
            list(pool.map(lambda name: self._put(folder, key, name), names))

    def download(self, key: str, names: Iterable[str], folder: Path) -> None:
        """Copy objects below a key to files of a folder, which are new; `FileNotFoundError` if one is missing."""
        with ThreadPoolExecutor(_TRANSFERS) as pool:
            list(pool.map(lambda name: self._get(key, name, folder / name), names))

    def _open(self, prefix: str) -> S3Store:
        config: dict[str, str] = {"region": self._access.region, "checksum_algorithm": "SHA256", **self._access.keys}
        if self._access.endpoint is not None:
            config["endpoint"] = self._access.endpoint
        return S3Store(
            self._place.bucket,
            prefix=prefix or None,
            config=cast("S3Config", config),
            client_options={"allow_http": self._access.plain},
            retry_config=_RETRY,
        )

    def _below(self, key: str) -> str:
        return f"{self._place.prefix}/{key}".lstrip("/")

    def _create(self, key: str, content: bytes) -> bool:
        """Write an object unless there is one."""
        try:
            with self._told(key):
                obstore.put(self._objects, key, content, mode="create", use_multipart=False)
        except _TooLateError:
            return False
        return True

    def _put(self, folder: Path, key: str, name: str) -> None:
        with self._told(f"{key}/{name}"):
            obstore.put(self._objects, f"{key}/{name}", folder / name)

    def _copy(self, source: str, key: str, name: str) -> None:
        with self._told(f"{source}/{name}"):
            obstore.copy(self._objects, f"{source}/{name}", f"{key}/{name}")

    def _get(self, key: str, name: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file, self._told(f"{key}/{name}"):
            for part in obstore.get(self._objects, f"{key}/{name}"):
                file.write(part)

    @contextmanager
    def _told(self, key: str) -> Iterator[None]:
        """Turn what the client raises into `StoreError`: one line that names the object and shows no credentials."""
        try:
            yield
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.locate(key)}: there is no such object") from None
        except (AlreadyExistsError, PreconditionError):
            raise _TooLateError(f"{self.locate(key)}: another writer was faster") from None
        except (BaseError, ValueError) as error:
            reason = self._access.masked(str(error).splitlines()[0] if str(error) else type(error).__name__)
            raise StoreError(f"{self.locate(key)}: {reason[:300]}") from None


class _TooLateError(OSError):
    """A conditional put met another state than it was made for."""
