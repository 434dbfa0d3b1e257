"""Parquet, CSV and Arrow files as an origin: which there are, their hashes, and lazy scans of them.

Formats and paths belong here; what the columns mean does not. CSV is scanned as text, in `text`: `frames` turns it into
dates and numbers, so that a bad cell can be named.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import polars as pl

from schemas import sources as specs
from schemas.base import nearest
from schemas.contracts import SourceFile
from schemas.errors import SourceError
from storage.sources.text import scan_text


def _scan_ipc(path: Path) -> pl.LazyFrame:
    return pl.scan_ipc(path, glob=False)


def _scan_parquet(path: Path) -> pl.LazyFrame:
    return pl.scan_parquet(path, glob=False)


_TEXTS = (".csv", ".csv.gz")
_SCANS: dict[str, Callable[[Path], pl.LazyFrame]] = {
    ".parquet": _scan_parquet,
    ".pq": _scan_parquet,
    ".arrow": _scan_ipc,
    ".feather": _scan_ipc,
    ".ipc": _scan_ipc,
}
_SUFFIXES = (*_TEXTS, *_SCANS)


class FilesOrigin:
    """Files, globs of files and folders of files.

    Parameters
    ----------
    spec : schemas.sources.FilesOrigin
        Its paths are files, globs (``prices/*.parquet``) and folders, whose data files are read in the order of
        their names. Relative paths are taken from the working directory.
    max_cells : int
        Most cells that a file may declare.

    Raises
    ------
    SourceError
        If a path matches nothing, or a file has a suffix that is not read.
    """

    def __init__(self, spec: specs.FilesOrigin, max_cells: int) -> None:
        self._spec = spec
        self._max_cells = max_cells
        self.files = list(dict.fromkeys(file.absolute() for path in spec.paths for file in _expand(path)))

    def read(self) -> dict[str, pl.LazyFrame]:
        """Return one lazy scan per file; CSV columns are text.

        Raises
        ------
        SourceError
            If a CSV file is not text as the spec says it is, or has a row that is not whole.
        """
        return {str(file): self._scan(file) for file in self.files}

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

    def _scan(self, file: Path) -> pl.LazyFrame:
        scan = _SCANS.get(_suffix(file))
        rows = scan_text(file, self._spec, self._max_cells) if scan is None else scan(file)
        added = self._spec.file_name_as
        if added is None:
            return rows
        return rows.select(pl.all(), pl.lit(file.name[: -len(_suffix(file))]).alias(added))  # twice is refused


def _expand(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.is_file() and _suffix(file) in _SUFFIXES)
        if not found:
            raise SourceError(f"{path}: the folder holds no data file ({', '.join(_SUFFIXES)})")
        return found
    if path.is_file():
        if _suffix(path) not in _SUFFIXES:
            raise SourceError(f"{path}: files of this kind are not read; give one of {', '.join(_SUFFIXES)}")
        return [path]
    if glob.has_magic(str(path)):
        matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207  # absolute
        if not matches:
            raise SourceError(f"{path}: no file matches this pattern")
        return [file for match in matches for file in _expand(match)]
    beside = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = f" ({nearest(path.name, beside)})" if 0 < len(beside) <= 20 else ""
    raise SourceError(f"{path}: no such file or folder{hint}")


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return ".csv.gz" if name.endswith(".csv.gz") else Path(name).suffix


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise SourceError(f"{file}: cannot be read: {error.strerror}") from None
