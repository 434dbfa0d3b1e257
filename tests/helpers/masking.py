"""What the tests of one promise share: what a check flags, and what lies outside the mask, moves no number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import xarray as xr

ABSURD = (1e6, -0.999, float("nan"))
"""Returns that no fit should learn from: a wrong price, a total loss, nothing at all."""


def numbers(value: Any, name: str = "") -> dict[str, np.ndarray]:
    """Return all numbers of a result by path, whatever it is made of."""
    if isinstance(value, xr.Dataset):
        value = dict(value.data_vars)
    if isinstance(value, Mapping):
        parts = {str(key): part for key, part in value.items()}
    elif is_dataclass(value):
        parts = {field.name: getattr(value, field.name) for field in fields(value)}
    elif isinstance(value, tuple | list):
        parts = {str(place): part for place, part in enumerate(value)}
    else:
        array = np.asarray(value)
        return {name: array} if array.dtype.kind in "fiub" else {}
    return {path: array for key, part in parts.items() for path, array in numbers(part, f"{name}.{key}").items()}


def assert_unmoved(before: Any, after: Any) -> None:
    """Every number is the same, bit for bit."""
    old, new = numbers(before), numbers(after)
    assert old.keys() == new.keys()
    assert old
    for name, values in old.items():
        np.testing.assert_array_equal(new[name], values, err_msg=name)
