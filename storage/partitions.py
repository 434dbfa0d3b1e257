"""What is remembered of the partitions of backfills: one sealed document per step and model.

Here belong the documents and their locks; what a record says is `schemas.backfill`, what follows from it is planned in
`tasks.backfilling`. The documents lie under ``partitions/<universe>/`` beside the intermediate results, not among them:
what may be made again may be deleted, and how often something failed cannot be made again.

A document is replaced as a whole and atomically, under a lock of its own that is held for milliseconds: a process may
die anywhere. 1,259 records are half a megabyte, read in 12 ms and replaced in 30 ms, twice per batch; a file per
partition takes 27 ms to read them all, but 9.5 s to write.

A batch is made under a lock that its process holds all the while, and that the kernel frees when it dies: a record that
says `running` while nobody holds its lock is one of a backfill that was killed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from schemas.backfill import PartitionRecord, Step
from schemas.base import Name
from schemas.errors import ConfigError, CorruptionError, ExecutionError
from storage.files import locked, write_atomic
from storage.layout import Layout

Records = dict[str, PartitionRecord]
"""Records by period."""

_RECORDS: TypeAdapter[Records] = TypeAdapter(Records)
_NAME: TypeAdapter[str] = TypeAdapter(Name)
_LOCK = re.compile(r"[a-z0-9][a-z0-9_.-]{0,160}")


class PartitionStore:
    """The records of one universe; safe to use from many processes at once."""

    def __init__(self, layout: Layout, universe: str) -> None:
        self._home = layout.partitions(universe)

    def read(self, step: Step, model: str = "") -> Records:
        """Return the records of one step and model, empty if there are none.

        Raises
        ------
        CorruptionError
            If the document is not the one that was written.
        """
        path = self._document(step, model)
        try:
            return _unsealed(path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise CorruptionError(
                f"{path}: cannot be read ({type(error).__name__}); restore it, or remove it: what is published is "
                "found again, only failures and durations are forgotten"
            ) from None

    def write(self, step: Step, model: str, records: Mapping[str, PartitionRecord]) -> None:
        """Replace the records of some periods at once; those of all others stay.

        Raises
        ------
        ExecutionError
            If they cannot be stored; the old ones stay whole.
        """
        path = self._document(step, model)
        with locked(path.with_suffix(".lock")):
            merged = self.read(step, model) | dict(records)
            try:
                write_atomic(path, _sealed(merged))
            except OSError as error:
                raise ExecutionError(f"{path}: cannot be written: {error}; mend that and run again") from error

    @contextmanager
    def hold(self, lock: str, *, timeout_seconds: float) -> Iterator[None]:
        """Hold the lock of a batch; raises `ConflictError` if another process holds it for longer than that."""
        with locked(self._lock(lock), timeout_seconds=timeout_seconds):
            yield

    def held(self, lock: str) -> bool:
        """Whether a living process holds the lock of a batch."""
        try:
            descriptor = os.open(self._lock(lock), os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _document(self, step: Step, model: str) -> Path:
        return self._home / step / f"{_valid(model) if model else '.universe'}.json"

    def _lock(self, lock: str) -> Path:
        if not _LOCK.fullmatch(lock) or ".." in lock:
            raise ConfigError(f"lock {lock!r} is not a valid name")
        return self._home / "locks" / f"{lock}.lock"


def _valid(model: str) -> str:
    try:
        return _NAME.validate_python(model, strict=True)
    except ValidationError:
        raise ConfigError(f"model {model!r} is not a valid name") from None


def _sealed(records: Records) -> bytes:
    content = _RECORDS.dump_json(dict(sorted(records.items())), exclude_none=True)
    return _seal(content) + content


def _seal(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode() + b"\n"


def _unsealed(document: bytes) -> Records:
    content = document[65:]
    if document[:65] != _seal(content):
        raise ValueError("the seal does not match")
    return _RECORDS.validate_json(content)
