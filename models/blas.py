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

MKL_VARIABLE, MKL_BRANCH = "MKL_CBWR", "AVX2"
"""Conditional numerical reproducibility by vectors of 256 bits: as fast as MKL's own choice where it was measured."""


def fix_order_of_sums() -> None:
    """Tell MKL to be reproducible, unless the environment says how; it takes effect until MKL's first product."""
    os.environ.setdefault(MKL_VARIABLE, MKL_BRANCH)


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
    """Whether a product has the same bits wherever its factors lie in memory: tried out, not looked up."""
    import torch

    generator = torch.Generator().manual_seed(0)
    rows, width = 509, 21
    values = torch.randn(rows * width, dtype=torch.float64, generator=generator)
    room = torch.empty(rows * width + 16, dtype=torch.float64)
    found = []
    with one_thread():
        for shift in range(16):
            shifted = room[shift : shift + rows * width].copy_(values).view(rows, width)
            found.append(torch.mm(shifted.T, shifted))
    return all(torch.equal(found[0], other) for other in found)


def _processor() -> str:
    """Name of the processor as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
