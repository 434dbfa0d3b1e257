"""CSV text: its encoding, and whether every row has as many cells as the header.

polars fills a short row with missing values, so that a price stands under another ticker and nobody is told. Here rows
are counted before they are scanned, piece by piece, and nothing is kept. What cells mean belongs in `cells`; headers of
two rows in `levels`; which files there are in `files`.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from itertools import islice, takewhile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from schemas.errors import SourceError
from schemas.sources import FilesOrigin
from storage.sources.levels import has_levels, stacked
from storage.sources.limits import check_text

_PIECE = 2**20
_LONGEST_ROW = 2**26
_SEPARATORS = ",;\t|"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_NEWLINE, _RETURN, _QUOTE = ord("\n"), ord("\r"), ord('"')


def scan_text(file: Path, spec: FilesOrigin, max_cells: int) -> pl.LazyFrame:
    """Return a lazy scan of a CSV file, plain or packed with gzip, whose rows are whole; all columns are text.

    Parameters
    ----------
    file : Path
        The file.
    spec : schemas.sources.FilesOrigin
        Its encoding, separator, and where its table begins and ends. A byte order mark of UTF-16 is believed; what is
        neither UTF-8 nor said is never guessed.
    max_cells : int
        Most cells that the file may declare.

    Raises
    ------
    SourceError
        If the file cannot be read, declares too much, has another encoding, separator or line end, or has a row with
        more or fewer cells than its header; the message names the line.
    """
    check_text(file, max_cells)
    separator = spec.separator
    try:
        source = _table(file, _utf8(file, spec.encoding), spec)
        with _opened(source) as stream:
            head = list(islice(csv.reader(_lines(stream, file), delimiter=separator), 3))
        if head:
            _check_header(file, head, separator)
            with _opened(source) as stream:
                suspect = _is_ragged(stream, file, ord(separator), len(head[0]))
            if suspect:
                _refuse_ragged(source, file, spec, len(head[0]))
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{file}: cannot be read: {error}; is it complete?") from None
    except csv.Error as error:
        raise SourceError(f"{file}: cannot be read: {error}; is there a quote that is never closed?") from None
    if has_levels(head):
        rows = pl.scan_csv(source, infer_schema=False, glob=False, separator=separator, has_header=False, skip_rows=3)
        return stacked(str(file), head, rows)
    return pl.scan_csv(source, infer_schema=False, glob=False, separator=separator)


def _utf8(file: Path, encoding: str) -> Path | bytes:
    """Return the file itself if its text is UTF-8, else its text as UTF-8."""
    with _opened(file) as stream:
        head = stream.read(_PIECE)
        if head[:2] in _UTF_16:
            encoding = "utf-16"
        if encoding == "utf-8":
            if b"\0" in head:
                raise SourceError(f"{file}: is not text, or UTF-16 without its mark; set `encoding: utf-16` if it is")
            return file
        content = head + stream.read()
    try:
        return content.decode(encoding).encode()
    except UnicodeError as error:
        raise SourceError(f"{file}: its text is not {encoding}: {error}; correct `encoding`") from None


def _table(file: Path, source: Path | bytes, spec: FilesOrigin) -> Path | bytes:
    """Return the part of the text that is the table: all of it, unless the spec says where it begins or ends."""
    if spec.header_line == 1 and spec.until == "end":
        return source
    with _opened(source) as stream:
        content = stream.read()
    _check_utf8(file, content, 1)
    lines = content.splitlines(keepends=True)[spec.header_line - 1 :]
    if not lines or not lines[0].strip():
        raise SourceError(f"{file}: line {spec.header_line} holds no names of columns; correct `header_line`")
    if spec.until == "blank_line":
        lines = list(takewhile(bytes.strip, lines))
    return b"".join(lines)


def _opened(source: Path | bytes) -> io.BufferedIOBase:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    with source.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    return gzip.open(source) if packed else source.open("rb")


def _lines(stream: io.BufferedIOBase, file: Path) -> Iterator[str]:
    number = 0
    while line := stream.readline(_LONGEST_ROW):
        number += 1
        _check_length(file, number, len(line))
        _check_utf8(file, line, number)
        if number == 1 and b"\r" in line.rstrip(b"\r\n"):
            raise SourceError(f"{file}: its lines end as on old Macs, with \\r alone; save it with other line ends")
        yield line.decode().removeprefix("\ufeff")


def _check_length(file: Path, line: int, size: int) -> None:
    if size >= _LONGEST_ROW:
        raise SourceError(
            f"{file}: line {line} is longer than {_LONGEST_ROW >> 20} MiB; is the file what it should be?"
        )


def _check_utf8(file: Path, block: bytes, line: int) -> None:
    """Refuse bytes that are not UTF-8; `line` is the number of the first line of the block."""
    if block.isascii():
        return
    try:
        block.decode()
    except UnicodeDecodeError as error:
        line += block.count(b"\n", 0, error.start)
        raise SourceError(
            f"{file}: line {line} is not UTF-8 text; set `encoding` in the origin (such as cp1252 or latin-1), "
            "or save the file as UTF-8"
        ) from None


def _check_header(file: Path, head: list[list[str]], separator: str) -> None:
    names = head[0]
    if len(names) == 1:
        other = next((mark for mark in _SEPARATORS if mark != separator and mark in names[0]), None)
        if other is not None:
            by = "commas" if separator == "," else repr(separator)
            also = "; and `decimal: ','` beside the origin if its numbers have decimal commas" if other != "," else ""
            raise SourceError(
                f"{file}: the header is one column, {names[0][:40]!r}, if separated by {by}: "
                f"set `separator: {other!r}` in the origin{also}"
            )


def _is_ragged(stream: io.BufferedIOBase, file: Path, separator: int, width: int) -> bool:
    """Whether a row seems to have another number of cells than the header: quick, and wrong only about odd quotes."""
    rest, line = b"", 1
    while piece := stream.read(_PIECE):
        block = rest + piece
        whole, ragged = _count(np.frombuffer(block, np.uint8), separator, width, quoted=b'"' in block)
        if ragged:
            return True
        _check_utf8(file, block[:whole], line)
        line += block.count(b"\n", 0, whole)
        rest = block[whole:]
        _check_length(file, line, len(rest))
    _check_utf8(file, rest, line)
    return bool(rest.strip()) and _count(np.frombuffer(rest + b"\n", np.uint8), separator, width, b'"' in rest) != (
        len(rest) + 1,
        False,
    )


def _count(text: npt.NDArray[np.uint8], separator: int, width: int, quoted: bool) -> tuple[int, bool]:
    """Return how many bytes the whole rows of a block take, and whether one of them has not `width` cells."""
    marks = (text == _NEWLINE) | (text == separator)
    if quoted:
        marks &= np.cumsum(text == _QUOTE, dtype=np.uint8) % 2 == 0
    at = np.flatnonzero(marks)
    last_of_row = np.flatnonzero(text[at] == _NEWLINE)
    if last_of_row.size == 0:
        return 0, False
    ends = at[last_of_row]
    odd = np.flatnonzero(np.diff(last_of_row, prepend=-1) != width)
    lengths = ends[odd] - np.where(odd > 0, ends[odd - 1], -1) - 1
    empty = (lengths == 0) | ((lengths == 1) & (text[ends[odd] - 1] == _RETURN))
    return int(ends[-1]) + 1, not empty.all()


def _refuse_ragged(source: Path | bytes, file: Path, spec: FilesOrigin, width: int) -> None:
    """Name the first row that has not `width` cells, reading as slowly as it takes; none, if quotes only misled."""
    with _opened(source) as stream:
        rows = csv.reader(_lines(stream, file), delimiter=spec.separator)
        for row in rows:
            if row and len(row) != width:
                line, given = rows.line_num + spec.header_line - 1, len(row)
                break
        else:
            return
        last = not any(rows)
    if given < width:
        which = "its last row" if last else f"line {line}"
        advice = "run again when it is whole" if last else "correct that line: what is missing in it cannot be told"
        raise SourceError(f"{file}: {which} has {given} of {width} columns; is it complete? {advice}")
    raise SourceError(
        f"{file}: cannot be read: line {line} has {given} cells for {width} columns; "
        f"put what holds a {spec.separator!r} in quotes, or set `header_line` and `until` if the table is not all of it"
    )
