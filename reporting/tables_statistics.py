"""Tables of what a model's last fit says beside its premia: tests, errors, selections, eigenvalues, by their axes.

The tables know axes, not models. A statistic is a variable that the contract of versions does not name, and says itself
what it means: `long_name` among its attributes.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Mapping

import numpy as np
import xarray as xr

from reporting.readings import PublishedVersion
from reporting.tables import MISSING, Cell, Table, heads, num
from schemas.contracts import VERSION
from schemas.statistics import NOT_MADE

MOST_ROWS = 60
MOST_COLUMNS = 10
PATH_POINTS = 12
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

Statistics = Mapping[str, xr.DataArray]


def statistics(version: PublishedVersion) -> list[Table]:
    """Return the tables of one version; none if its model says nothing but its premia and their errors."""
    groups: dict[tuple[Hashable, ...], dict[str, xr.DataArray]] = {}
    for name, array in version.dataset.data_vars.items():
        if name not in VERSION and name != "premia_stderr":
            ruling = [axis for axis in ("penalty", "ticker") if axis in array.dims]
            groups.setdefault(tuple(ruling[:1]) or array.dims, {})[str(name)] = array.load()
    made = []
    for axes, found in sorted(groups.items(), key=lambda group: len(group[0])):
        match axes:
            case ():
                made.append(_scalars(found))
            case ("penalty",):
                made.append(_path(found))
            case ("ticker",):
                made.append(_spread(found))
            case (axis,):
                made.append(_columns(found, str(axis)))
            case _:
                made += [_matrix(name, array) for name, array in found.items()]
    return made


def _scalars(found: Statistics) -> Table:
    rows = [(Cell(name, "key"), _number(array.item()), Cell(_meaning(array))) for name, array in found.items()]
    return Table(heads("Statistic", num("Value"), "Meaning"), tuple(rows), "")


def _columns(found: Statistics, axis: str) -> Table:
    """One row per label of an axis, one column per statistic."""
    labels = _labels(next(iter(found.values())), [axis])
    columns = [array.values for array in found.values()]
    rows = [(Cell(label, "key"), *map(_number, line)) for label, *line in zip(labels, *columns, strict=True)]
    return Table(
        heads(axis.replace("_", " ").capitalize(), *map(num, found)),
        tuple(rows[:MOST_ROWS]),
        _meanings(found) + _left_out(len(rows)),
    )


def _matrix(name: str, array: xr.DataArray) -> Table:
    """Labels of the last axis across, those of the others down."""
    *down, across = array.dims
    lines = array.values.reshape(-1, array.sizes[across])[:, :MOST_COLUMNS]
    rows = [(Cell(label, "key"), *map(_number, line)) for label, line in zip(_labels(array, down), lines, strict=True)]
    return Table(
        heads(name, *map(num, _labels(array, [across])[:MOST_COLUMNS])),
        tuple(rows[:MOST_ROWS]),
        _meanings({name: array}) + _left_out(len(rows)),
    )


def _spread(found: Statistics) -> Table:
    """Mean and quantiles over the stocks, apart for each label of the other axes."""
    rows = []
    for name, array in found.items():
        others = [axis for axis in array.dims if axis != "ticker"]
        lines = array.transpose(*others, "ticker").values.reshape(-1, array.sizes["ticker"])
        for label, line in zip(_labels(array, others), lines, strict=True):
            values = line[np.isfinite(line)]
            marks = [values.mean(), *np.quantile(values, _QUANTILES)] if len(values) else [np.nan] * 6
            rows.append((Cell(name, "key"), Cell(label), *map(_number, marks), num(f"{len(values):,}")))
    return Table(
        heads("Over stocks", "Of", num("Mean"), *[num(f"{level:.0%}") for level in _QUANTILES], num("Stocks")),
        tuple(rows[:MOST_ROWS]),
        f"Mean and quantiles over the stocks that have one. {_meanings(found)}{_left_out(len(rows))}",
    )


def _path(found: Statistics) -> Table:
    """Show some points of a path of penalties; of a statistic with more axes, how many numbers are not zero there."""
    columns = {}
    for name, array in found.items():
        others = [axis for axis in array.dims if axis != "penalty"]
        columns[f"{name}, not zero" if others else name] = (abs(array) > 0.0).sum(others) if others else array
    size = next(iter(found.values())).sizes["penalty"]
    points = np.unique(np.linspace(0, size - 1, min(size, PATH_POINTS)).round().astype(int))
    rows = [(Cell(str(at + 1), "key"), *[_number(column[at].item()) for column in columns.values()]) for at in points]
    return Table(
        heads("Point of the path", *map(num, columns)),
        tuple(rows),
        f"{len(points)} of {size} points. {_meanings(found)}",
    )


def _labels(array: xr.DataArray, axes: Iterable[Hashable]) -> list[str]:
    """Labels of every place along some axes, the last one fastest."""
    return [", ".join(map(str, place)) for place in itertools.product(*(array[axis].values for axis in axes))]


def _number(value: float) -> Cell:
    """Write a number of unknown size with four digits; whole ones as they are."""
    if not np.isfinite(value):
        return num(MISSING)
    return num((f"{value:,.0f}" if value == round(value) and abs(value) < 1e9 else f"{value:.4g}").replace("-", "−"))


def _meaning(array: xr.DataArray) -> str:
    """Say what a statistic is, and why it is missing if the fit said so."""
    meaning, comment = str(array.attrs.get("long_name", "")), str(array.attrs.get("comment", ""))
    return f"{meaning}. {comment}" if comment.startswith(NOT_MADE) else meaning


def _meanings(found: Statistics) -> str:
    return " ".join(f"{name}: {_meaning(array)}." for name, array in found.items())


def _left_out(rows: int) -> str:
    return f" The first {MOST_ROWS} of {rows} rows." if rows > MOST_ROWS else ""
