"""What every benchmark shares: a row of the table, timing, peak memory, and how rows are printed.

A benchmark is a module of this package with ``run(*, quick: bool) -> list[Row]``: it simulates its data, times the
product and its peer in the same process, and says what agreed. How modules are chosen and run one by one belongs in
`__main__`.

Memory is the peak resident set while a function ran, less what was resident just before, so that its input does not
count; `scale` says that of all processes. It is read from the kernel's high-water mark (`/proc/self`), which misses
nothing in between, and is None where there is no such file.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import platform
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_LEAST_SECONDS = 1.0
_LIBRARIES = ("numpy", "scipy", "xarray", "zarr", "dask", "torch", "scikit-learn")


@dataclass(frozen=True)
class Measured(Generic[T]):
    """What a function returned, how long it took at best, and how much memory it took above what was there.

    Attributes
    ----------
    value : T
        The result of the last run.
    seconds : float
        Wall-clock time of the fastest run.
    peak_bytes : int or None
        Of the first run.
    """

    value: T
    seconds: float
    peak_bytes: int | None


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    work : str
        What was computed, with its sizes.
    ours_seconds : float
        Time of the product.
    peer : str
        The library compared with (its distribution name, so that its version is shown), or the other way of ours.
    peer_seconds : float or None
        Its time on the same input at the same tolerance; None where there is no peer.
    note : str
        How close the two results are, and what else must be known to read the line.
    target : float or None
        The ratio that is aimed at: peer over ours.
    ours_peak_bytes, peer_peak_bytes : int or None
        Memory above the input.
    """

    work: str
    ours_seconds: float
    peer: str
    peer_seconds: float | None = None
    note: str = ""
    target: float | None = None
    ours_peak_bytes: int | None = None
    peer_peak_bytes: int | None = None

    @property
    def ratio(self) -> float | None:
        """How many times faster the product is than its peer."""
        return None if self.peer_seconds is None else self.peer_seconds / self.ours_seconds

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the way between processes."""
        return asdict(self)


def measure(function: Callable[[], T], *, repeats: int = 1) -> Measured[T]:
    """Run a function without arguments, and take its time (the best run) and peak memory (of the first).

    It runs ``repeats`` times. If it is repeated at all, it goes on for a second: short runs are at the mercy of
    whatever else the machine does.
    """
    gc.collect()
    trim_heap()
    before = _reset_peak()
    peak, seconds = None, list[float]()
    while len(seconds) < repeats or (repeats > 1 and sum(seconds) < _LEAST_SECONDS):
        start = time.perf_counter()
        value = function()
        seconds.append(time.perf_counter() - start)
        if len(seconds) == 1 and before is not None:
            peak = max(0, _kernel_bytes("VmHWM") - before)
    return Measured(value, min(seconds), peak)


def environment(peers: Iterable[str] = ()) -> str:
    """Describe processor, interpreter and versions of the libraries and peers in one line."""
    names = [*_LIBRARIES, *sorted(set(peers) - set(_LIBRARIES))]
    found = [f"{name} {number}" for name in names if (number := _version(name))]
    return f"{_processor()}; Python {platform.python_version()}; {', '.join(found)}"


def table(rows: Iterable[Row]) -> str:
    """Rows as a Markdown table, without columns in which nothing stands."""
    rows = list(rows)
    columns = {
        "work": [row.work for row in rows],
        "ours": [_seconds(row.ours_seconds) for row in rows],
        "against": [f"{row.peer} {_version(row.peer)}".strip() for row in rows],
        "theirs": ["" if row.peer_seconds is None else _seconds(row.peer_seconds) for row in rows],
        "ratio": ["" if row.ratio is None else f"{row.ratio:.3g}x" for row in rows],
        "aim": ["" if row.target is None else f"{row.target:g}x" for row in rows],
        "memory (ours)": [_megabytes(row.ours_peak_bytes) for row in rows],
        "memory (theirs)": [_megabytes(row.peer_peak_bytes) for row in rows],
        "note": [row.note for row in rows],
    }
    shown = {title: cells for title, cells in columns.items() if any(cells)}
    lines = [[*shown], ["---"] * len(shown), *zip(*shown.values(), strict=True)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def trim_heap() -> None:
    """Give freed memory back to the kernel (glibc), or a function that takes it again would seem to need none."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _reset_peak() -> int | None:
    """Set the high-water mark back to what is resident now, and return that; None where it cannot be read."""
    try:
        _RESET.write_text("5", encoding="ascii")
        return _kernel_bytes("VmRSS")
    except OSError:
        return None


def _kernel_bytes(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", _STATUS.read_text(encoding="ascii"), re.MULTILINE)
    if found is None:
        raise OSError(f"{_STATUS} has no {field}")
    return 1024 * int(found[1])


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except Exception:  # noqa: BLE001  # not a distribution: the peer is another way of ours
        return ""


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 0.1 else f"{1000.0 * value:.3g} ms"


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.0f} MB"
