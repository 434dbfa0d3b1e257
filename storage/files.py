"""Files and folders that appear whole or not at all, locks between processes, checksums.

Here belongs what every writer needs and what knows nothing of arrays. What is written belongs to the callers.

A folder is staged under a hidden name beside its final place, synced to disk and renamed. The stager holds a
`flock` on the staging folder, which the kernel drops when the process dies: a staging folder whose lock can
be taken has no owner left and is removed by the next writer, whatever process ids or containers are involved.
"""

from __future__ import annotations

import errno
import fcntl
import getpass
import hashlib
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from schemas.errors import ConflictError, ExecutionError

STAGING = ".staging-"
_SYNCERS = 8
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS}
"""What is answered where a file can have no second name: other file system, not allowed, too many, not known."""
LOCK_SECONDS = 600.0
"""How long a writer waits for another writer of the same thing before it gives up."""


def user() -> str:
    """Name of the user this process runs as; its number where the system knows none, as in containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def sha256_file(path: Path) -> str:
    """SHA-256 (hex) of the content of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_of(folder: Path) -> int:
    """Size in bytes of all files below a folder; links count as nothing."""
    total = 0
    with os.scandir(folder) as inner:
        for one in inner:
            if one.is_dir(follow_symlinks=False):
                total += size_of(Path(one.path))
            elif one.is_file(follow_symlinks=False):
                total += one.stat(follow_symlinks=False).st_size
    return total


def write_atomic(path: Path, content: bytes | str, *, private: bool = False) -> None:
    """Write a file so that a reader, or a power cut, finds the old content or the new one, whole.

    Parameters
    ----------
    path : Path
        Where to; its folder is created if it is missing.
    content : bytes or str
        What; text is encoded as UTF-8.
    private : bool
        Whether only its owner may read it, from its first byte on.

    Raises
    ------
    ExecutionError
        If it cannot be written, as on a full disk; the old content stays.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb", opener=_private if private else None) as file:  # a Path takes no opener
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def private_folder(path: Path) -> None:
    """Make a folder that is closed to other users, with all files that lie in it; what is open already is closed.

    Raises
    ------
    ExecutionError
        If that cannot be, as where it belongs to somebody else.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.stat().st_uid != os.geteuid():  # the superuser could close it, and its owner open it again
            raise ExecutionError(f"{path}: belongs to another user, who can read what is kept there; remove it")
        path.chmod(0o700)
        for file in path.iterdir():
            if file.is_file() and not file.is_symlink():
                file.chmod(0o600)
    except OSError as error:
        raise ExecutionError(f"{path}: cannot be closed to other users: {error.strerror or error}") from error


@contextmanager
def locked(path: Path, *, timeout_seconds: float = LOCK_SECONDS, note: str = "") -> Iterator[None]:
    """Hold an exclusive lock between processes and threads; the kernel releases it if the holder dies.

    Parameters
    ----------
    path : Path
        The lock file; it stays where it is, and names its holder while it is held.
    timeout_seconds : float
        How long to wait for another holder.
    note : str
        What the holder is doing; named beside its process.

    Raises
    ------
    ConflictError
        If the lock is still held after that time; the message names the holder.
    ExecutionError
        If there can be no lock file, as on a full disk.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=timeout_seconds)
    except Timeout:
        holder = path.read_text(encoding="utf-8").strip() or "another process"
        raise ConflictError(
            f"{path}: still held by {holder} after {timeout_seconds:g} s; wait for it to end and run again"
        ) from None
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        holder = f"process {os.getpid()} of {user()} on {socket.gethostname()} since {now}"
        with suppress(OSError):  # the name is a courtesy: a full disk must not keep anybody from removing things
            path.write_text(f"{holder}, {note}\n" if note else f"{holder}\n", encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            path.write_text("", encoding="utf-8")
        lock.release()


@contextmanager
def staging(parent: Path) -> Iterator[Path]:
    """Give a fresh hidden folder inside `parent`, to be filled and then moved away with `place`.

    Whatever is left under its hidden name at the end is removed, and so is what writers that died have left
    in `parent`.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f"{STAGING}*"):
        remove_abandoned(left)
    folder, descriptor = _owned_folder(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def remove_abandoned(folder: Path) -> bool:
    """Remove a staging folder if its owner has died; return whether it did."""
    with suppress(FileNotFoundError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            if _lock(descriptor):
                shutil.rmtree(folder, ignore_errors=True)
                return True
        finally:
            os.close(descriptor)
    return False


def place(folder: Path, target: Path) -> bool:
    """Sync a staged folder to disk and rename it to its final name.

    Returns
    -------
    bool
        False if something is there already: it is left as it is.
    """
    with ThreadPoolExecutor(_SYNCERS) as pool:  # the file system commits what waits together in one go
        list(pool.map(fsync, folder.rglob("*")))
    fsync(folder)
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            return False
        raise
    fsync(target.parent)
    return True


def link(source: Path, target: Path) -> bool:
    """Give a file a second name; return False where the file system, or whose file it is, does not allow it."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno in _NO_LINK:
            return False
        raise
    return True


def fsync(path: Path) -> None:
    """Flush a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _unwritable(path: Path, error: OSError) -> ExecutionError:
    return ExecutionError(f"{path}: cannot be written: {error.strerror or error}; mend that and run again")


def _owned_folder(parent: Path) -> tuple[Path, int]:
    """Create a staging folder and lock it; once more if a cleaner took it between the two."""
    while True:
        folder = parent / f"{STAGING}{uuid.uuid4().hex}"
        folder.mkdir()
        with suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY)
            if _lock(descriptor) is not False and folder.exists():
                return folder, descriptor
            os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    """Try to lock an open folder: True if it was free, False if held, None where folders cannot be locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a network file system without locks on folders: own it unlocked, and never clean there
        return None
    return True
