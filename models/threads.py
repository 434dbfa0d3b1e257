"""How many threads torch may use: one, wherever the order of a sum must not depend on the machine's cores.

Here belongs nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch


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
