"""In which order torch's BLAS sums, so that bits depend neither on the number of cores nor on where memory lies.

Here belong the settings of the libraries that multiply matrices, and what they are found to be. MKL, torch's BLAS on
x86, chooses its way by the alignment of memory, unless it is told to be reproducible before its first product; on
Intel's processors the two are hard to tell apart, on others they differ in the last bit. Why, and which bits are
promised where, is in `docs/adr/0012-which-bits-are-promised.md`.
"""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

MKL_VARIABLE, MKL_BRANCH = "MKL_CBWR", "AVX2"
"""Conditional numerical reproducibility by vectors of 256 bits: as fast as MKL's own choice where it was measured."""
_CELLS_TO_SHIFT = 16
"""Twice the cells of float64 in a cache line."""


def fix_order_of_sums() -> None:
    """Tell MKL to be reproducible, unless the environment says how; MKL looks at its first product and never again."""
    if not os.environ.get(MKL_VARIABLE):
        os.environ[MKL_VARIABLE] = MKL_BRANCH


@dataclass
class _Users:
    """Who is inside `one_thread`: the number that the first one found comes back when the last one leaves."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    inside: int = 0
    before: int = 1


_USERS = _Users()


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread, so that sums are taken in one order; put the caller's number back afterwards.

    The number is the whole process's: while one Python thread is inside, another one that leaves does not raise it.
    """
    import torch

    with _USERS.lock:
        if not _USERS.inside:
            _USERS.before = torch.get_num_threads()
        _USERS.inside += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _USERS.lock:
            _USERS.inside -= 1
            if not _USERS.inside:
                torch.set_num_threads(_USERS.before)


def arithmetic() -> dict[str, str]:
    """Say what decides the last bits on this machine: the processor, the BLAS of torch and numpy, the order of sums."""
    import numpy as np
    import torch

    built = next((line.strip(" -") for line in torch.__config__.show().splitlines() if "Math Kernel" in line), "none")
    numpy_blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "processor": f"{_processor()} ({torch.backends.cpu.get_cpu_capability()})",
        "torch_blas": built.split(" for ")[0],
        "numpy_blas": f"{numpy_blas['name']} {numpy_blas['version']}",
        MKL_VARIABLE: os.environ.get(MKL_VARIABLE, "not set"),
    }


def sums_are_reproducible() -> bool:
    """Whether products have the same bits wherever their factors lie in memory: tried out, not looked up.

    Tried are sums along the rows of a matrix, which MKL left to itself takes by alignment on AMD's processors: a matrix
    with itself in float64, and with a vector in float32.
    """
    import torch

    width, length = 21, 509
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(width, length, dtype=torch.float64, generator=generator)
    found: list[list[bytes]] = []
    with one_thread():
        for shift in range(_CELLS_TO_SHIFT):
            double, single = (_moved(each, shift) for each in (values, values.float()))
            products = torch.mm(double, double.T), torch.mv(single, single[0].clone())
            found.append([product.numpy().tobytes() for product in products])
    return all(found[0] == other for other in found)


def _moved(values: torch.Tensor, shift: int) -> torch.Tensor:
    """Copy a matrix to memory that begins so many cells after that of another copy."""
    import torch

    room = torch.empty(values.numel() + shift, dtype=values.dtype)
    return room[shift:].copy_(values.ravel()).view_as(values)


def _processor() -> str:
    """Name of the processor as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
