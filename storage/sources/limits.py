"""How much a source may declare: it is refused by what it says of itself, before memory is.

A file of a few kilobytes can declare billions of rows, or unpack to terabytes. Here belongs finding that out from
metadata, or by unpacking in small pieces that are thrown away. One cell is one date of one ticker of one column.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from schemas.errors import SourceError

_GZIP_AT_MOST = 1032
"""Most bytes that deflate unpacks from one."""

_BYTES_PER_CELL = 32
_PIECE = 2**20
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")


def check_cells(what: str, cells: int, max_cells: int) -> None:
    """Refuse more cells than the settings allow.

    Raises
    ------
    SourceError
        Naming what declares them.
    """
    if cells > max_cells:
        raise SourceError(
            f"{what}: declares {cells:.2g} cells, more than the {max_cells:.2g} that FACTORCUBE_MAX_CELLS allows; "
            "is the file what it should be? raise the setting if it is"
        )


def check_text(file: Path, max_cells: int) -> None:
    """Refuse a text file that unpacks to more than so many cells could take.

    Raises
    ------
    SourceError
        If it is too large, is packed in a way that is not read, or is broken.
    """
    limit = max_cells * _BYTES_PER_CELL
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            head = stream.read(4)
        if head == _ZSTD or head[:2] in _ZLIB:
            raise SourceError(f"{file}: is packed in a way that is not read; give plain CSV or CSV packed with gzip")
        if head[:2] == _GZIP and size * _GZIP_AT_MOST > limit:
            size = _unpacked_size(file, limit)
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{file}: cannot be read: {error}; is it complete?") from None
    check_cells(str(file), size // _BYTES_PER_CELL, max_cells)


def _unpacked_size(file: Path, limit: int) -> int:
    """Count unpacked bytes piece by piece, and stop past the limit."""
    size = 0
    with gzip.open(file) as stream:
        while size <= limit + _BYTES_PER_CELL and (piece := stream.read(_PIECE)):
            size += len(piece)
    return size
