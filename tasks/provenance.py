"""Which code and which libraries make the numbers, and the keys that follow from them.

A key names a result by everything it was made from, so that the same inputs, code and config find it again (P2, P4).
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from schemas.base import digest

_PACKAGES = ("schemas", "storage", "models", "tasks", "flows")
_LIBRARIES = (
    "numpy",
    "scipy",
    "scikit-learn",
    "torch",
    "xarray",
    "zarr",
    "icechunk",
    "polars",
    "pandas",
    "prefect",
    "distributed",
)


@cache
def code_version() -> str:
    """First 16 hex digits of the SHA-256 of all source files that can change a number or a stored byte."""
    root = Path(__file__).resolve().parents[1]
    digester = hashlib.sha256()
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.suffix in {".py", ".j2", ".css"}:
                digester.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digester.hexdigest()[:16]


def library_versions() -> dict[str, str]:
    """Versions of the libraries that take part in making the numbers."""
    return {name: version(name) for name in _LIBRARIES}


def key(**parts: Any) -> str:
    """Content address of a result made from these parts by this version of the code."""
    return digest({"code": code_version(), **parts})[:32]
