"""Ways to damage a file, and what a reader may then see: the truth or an error, never other numbers."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from schemas.errors import FactorcubeError


def damages(path: Path, flips: int, seed: int = 0) -> Iterator[str]:
    """Damage a file in one way after the other, say how, and mend it: flipped bits, cut short, emptied, removed."""
    sound = path.read_bytes()
    draw = random.Random(f"{seed} {path.name}")
    for _ in range(flips):
        position, bit = draw.randrange(len(sound)), draw.randrange(8)
        broken = bytearray(sound)
        broken[position] ^= 1 << bit
        path.write_bytes(broken)
        yield f"bit {bit} of byte {position} of {path} flipped"
    for length in (len(sound) - 1, len(sound) // 2, 0):
        path.write_bytes(sound[:length])
        yield f"{path} cut to {length} bytes"
    path.unlink()
    yield f"{path} removed"
    path.write_bytes(sound)


def outcomes(
    files: list[Path], read: Callable[[], Any], same: Callable[[Any], bool], *, flips: int, names: tuple[str, ...]
) -> Counter[str]:
    """Count what a reader met; fail at once if it met other numbers, an untyped error, or one that names nothing."""
    met: Counter[str] = Counter()
    for path in files:
        for how in damages(path, flips):
            try:
                found = read()
            except FactorcubeError as error:
                message = str(error)
                assert "\n" not in message, message
                assert any(name in message for name in names), f"{how}: {message}"
                met[type(error).__name__] += 1
            else:
                assert same(found), f"{how}: read without a word, but not what was written"
                met["harmless"] += 1
    return met
