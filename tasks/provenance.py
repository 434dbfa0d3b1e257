"""Which sources and which libraries are here, and the keys of results.

A key names a result by everything it was made from, so that the same inputs, code and config find it again (P2, P4). Of
the code only what can change the result counts: `tasks.stages`.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from typing import Any

from schemas.base import digest
from storage.source_modules import HOME, PACKAGES

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
def source_version() -> str:
    """First 16 hex digits of the SHA-256 of all source files that a run may use, letter by letter.

    It says whether two installations are the same; no key holds it.
    """
    digester = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((HOME / package).rglob("*")):
            if path.suffix in {".py", ".j2", ".css"}:
                digester.update(path.relative_to(HOME).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digester.hexdigest()[:16]


def library_versions() -> dict[str, str]:
    """Versions of the libraries that take part in making the numbers."""
    return {name: version(name) for name in _LIBRARIES}


def key(code: str, **parts: Any) -> str:
    """Content address of a result made from these parts by the code of a stage: `tasks.stages.Stage.code`."""
    return digest({"code": code, **parts})[:32]
