"""How much a source may declare: it is refused by what it says of itself, before memory is.

A file of a few kilobytes can declare billions of rows, or unpack to terabytes. Here belongs finding that out from
metadata, or by unpacking in small pieces that are thrown away. One cell is one date of one ticker of one column.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import BinaryIO

from schemas.errors import SourceError

_GZIP_AT_MOST = 1032
"""Most bytes that deflate unpacks from one."""

_BYTES_PER_CELL = 32
"""More than any number or date takes: a text of so many bytes counts as one more cell."""

_SEPARATORS = (b",", b";", b"\t", b"|")
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
            "is it what it should be? raise the setting if it is"
        )


def check_text(file: Path, max_cells: int) -> None:
    """Refuse a text file of more cells than the settings allow, packed or not.

    Every cell takes a byte at least: what its separator is. A file that could hold too many is unpacked in pieces and
    its separators are counted, up to the limit.

    Raises
    ------
    SourceError
        If it is too large, is packed in a way that is not read, or is broken.
    """
    try:
        with file.open("rb") as stream:
            head = stream.read(4)
        if head == _ZSTD or head[:2] in _ZLIB:
            raise SourceError(f"{file}: is packed in a way that is not read; give plain CSV or CSV packed with gzip")
        packed = head[:2] == _GZIP
        if file.stat().st_size * (_GZIP_AT_MOST if packed else 1) > max_cells:
            with gzip.open(file) if packed else file.open("rb") as stream:
                check_cells(str(file), _cells(stream, max_cells), max_cells)
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{file}: cannot be read: {error}; is it complete?") from None


def _cells(stream: BinaryIO | gzip.GzipFile, limit: int) -> int:
    """Count cells piece by piece, and stop past the limit; a long text counts as several."""
    size = lines = 0
    separators = dict.fromkeys(_SEPARATORS, 0)
    while piece := stream.read(_PIECE):
        size += len(piece)
        lines += piece.count(b"\n")
        for each in _SEPARATORS:
            separators[each] += piece.count(each)
        cells = max(lines + max(separators.values()), size // _BYTES_PER_CELL)
        if cells > limit:
            return cells
    return 0
