"""The learnt state of a model as safetensors: numbers only, nothing that reading could execute.

Here belongs the file of named arrays. The part of a state that is not arrays is JSON and belongs to the
manifest of a version or to the `meta` of a work entry.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from schemas.errors import CorruptionError, PublishError
from storage.files import write_atomic

_KINDS = "biuf"


def save_state(path: Path, arrays: dict[str, npt.NDArray[Any]]) -> None:
    """Write named numeric arrays; the same arrays give the same bytes, whatever their order or memory layout.

    Raises
    ------
    PublishError
        If an array does not hold booleans, integers or floats.
    """
    plain = {name: _plain(name, np.asarray(array)) for name, array in sorted(arrays.items())}
    write_atomic(path, save(plain))


def load_state(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read named arrays.

    Raises
    ------
    PublishError
        If there is no such file.
    CorruptionError
        If it is not a safetensors file or was cut short.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise PublishError(f"{path}: no such file of model weights") from None
    return parse_state(content, str(path))


def parse_state(content: bytes, where: str) -> dict[str, npt.NDArray[Any]]:
    """Return the named arrays in the content of a file; raises `CorruptionError` as `load_state` does."""
    try:
        arrays: dict[str, npt.NDArray[Any]] = load(content)
    except (SafetensorError, KeyError, ValueError) as error:
        raise CorruptionError(f"{where}: not a readable safetensors file: {error}; restore it or run again") from None
    return dict(sorted(arrays.items()))


def _plain(name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if array.dtype.kind not in _KINDS or array.dtype.itemsize > 8:
        raise PublishError(f"array '{name}' has dtype {array.dtype}; only booleans, integers and floats are stored")
    return np.require(array, dtype=array.dtype.newbyteorder("="), requirements="C")
