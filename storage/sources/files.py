"""Parquet, CSV and Arrow files as an origin: which there are, their hashes, and lazy scans of them.

Formats and paths belong here; what the columns mean does not. CSV is scanned as text: `frames` turns it into
dates and numbers, so that a bad cell can be named.
"""

from __future__ import annotations

import csv
import glob
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from schemas.base import nearest
from schemas.contracts import SourceFile
from schemas.errors import SourceError
from storage.sources.limits import check_text


def _scan_csv(path: Path) -> pl.LazyFrame:
    return pl.scan_csv(path, infer_schema=False, glob=False)


def _scan_ipc(path: Path) -> pl.LazyFrame:
    return pl.scan_ipc(path, glob=False)


def _scan_parquet(path: Path) -> pl.LazyFrame:
    return pl.scan_parquet(path, glob=False)


_TAIL_BYTES = 2**16

_SCANS: dict[str, Callable[[Path], pl.LazyFrame]] = {
    ".parquet": _scan_parquet,
    ".pq": _scan_parquet,
    ".csv": _scan_csv,
    ".csv.gz": _scan_csv,
    ".arrow": _scan_ipc,
    ".feather": _scan_ipc,
    ".ipc": _scan_ipc,
}


class FilesOrigin:
    """Files, globs of files and folders of files.

    Parameters
    ----------
    paths : sequence of Path
        Each is a file, a glob (``prices/*.parquet``) or a folder, whose data files are read in the order of
        their names. Relative paths are taken from the working directory.

    max_cells : int
        Most cells that a file may declare.

    Raises
    ------
    SourceError
        If a path matches nothing, or a file has a suffix that is not read.
    """

    def __init__(self, paths: Sequence[Path], max_cells: int) -> None:
        self._max_cells = max_cells
        self.files = list(dict.fromkeys(file.absolute() for path in paths for file in _expand(path)))

    def read(self) -> dict[str, pl.LazyFrame]:
        """Return one lazy scan per file; CSV columns are text."""
        for file in self.files:
            if _SCANS[_suffix(file)] is _scan_csv:
                check_text(file, self._max_cells)
                _check_end(file)
        return {str(file): _SCANS[_suffix(file)](file) for file in self.files}

    def fingerprint(self) -> tuple[SourceFile, ...]:
        """Return the SHA-256 of each file's bytes; names are relative to the folder they have in common.

        Raises
        ------
        SourceError
            If two files hold the same bytes, as when a delivery came twice.
        """
        folder = os.path.commonpath([file.parent for file in self.files])
        found: dict[str, SourceFile] = {}
        for file in self.files:
            source = SourceFile(name=file.relative_to(folder).as_posix(), sha256=_sha256(file))
            twin = found.setdefault(source.sha256, source)
            if twin is not source:
                raise SourceError(f"{file}: holds the same bytes as {twin.name}; was it delivered twice? remove one")
        return tuple(found.values())


def _expand(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.is_file() and _suffix(file) in _SCANS)
        if not found:
            raise SourceError(f"{path}: the folder holds no data file ({', '.join(_SCANS)})")
        return found
    if path.is_file():
        if _suffix(path) not in _SCANS:
            raise SourceError(f"{path}: files of this kind are not read; give one of {', '.join(_SCANS)}")
        return [path]
    if glob.has_magic(str(path)):
        matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207  # absolute
        if not matches:
            raise SourceError(f"{path}: no file matches this pattern")
        return [file for match in matches for file in _expand(match)]
    beside = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = f" ({nearest(path.name, beside)})" if 0 < len(beside) <= 20 else ""
    raise SourceError(f"{path}: no such file or folder{hint}")


def _check_end(file: Path) -> None:
    """Refuse a CSV that ends within a row: the reader would take what is cut off for missing values.

    A compressed one that is cut short cannot be read at all.
    """
    if _suffix(file) != ".csv":
        return
    with file.open("rb") as stream:
        header = stream.readline()
        stream.seek(max(len(header), stream.seek(0, os.SEEK_END) - _TAIL_BYTES))
        rows = [line for line in stream.read().splitlines() if line.strip()]
    if rows:
        given, expected = (len(next(csv.reader([line.decode("utf-8", "replace")]))) for line in (rows[-1], header))
        if given < expected:
            raise SourceError(
                f"{file}: its last row has {given} of {expected} columns; is it complete? run again when it is whole"
            )


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return ".csv.gz" if name.endswith(".csv.gz") else Path(name).suffix


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise SourceError(f"{file}: cannot be read: {error.strerror}") from None
