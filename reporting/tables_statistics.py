"""Tables of what a model's last fit says beside its premia: tests, errors, selections, eigenvalues, by their axes.

The tables know axes, not models: one number, one per factor or characteristic, spread over stocks, or along a path of
penalties. What a statistic means and its units the version says itself, in `long_name`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from reporting.published import PublishedVersion
from reporting.tables import MISSING, Cell, Table, heads, num
from schemas.statistics import statistics_of

MOST_ROWS = 60
PATH_POINTS = 12
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_IN_FACTORS = ("premia", "premia_stderr")
"""What the table of factors shows already."""


def statistics(version: PublishedVersion) -> list[Table]:
    """Return the tables of one version; none if its model offers no inference."""
    dataset = version.dataset
    found = {str(name): dataset[name].load() for name in statistics_of(dataset)}
    axes = {name: set(map(str, array.dims)) for name, array in found.items()}
    made = [
        _scalars({name: array for name, array in found.items() if not axes[name]}),
        _path({name: array for name, array in found.items() if "penalty" in axes[name]}),
        _spread({name: array for name, array in found.items() if "ticker" in axes[name]}),
    ]
    for axis in ("factor", "char", "observed_factor"):
        own = {n: a for n, a in found.items() if axes[n] == {axis} and n not in _IN_FACTORS}
        made.append(_columns(own, axis))
    made += [_matrix(name, array) for name, array in found.items() if axes[name] == {"char", "factor"}]
    return [table for table in made if table is not None]


def _scalars(found: dict[str, xr.DataArray]) -> Table | None:
    if not found:
        return None
    rows = [(Cell(name, "key"), num(_plain(float(array))), Cell(_meaning(array))) for name, array in found.items()]
    return Table(heads("Statistic", num("Value"), "Meaning"), tuple(rows), "")


def _columns(found: dict[str, xr.DataArray], axis: str) -> Table | None:
    """One row per label of an axis, one column per statistic."""
    if not found:
        return None
    labels = next(iter(found.values()))[axis].values
    rows = [
        (Cell(str(label), "key"), *[num(_plain(float(array[row]))) for array in found.values()])
        for row, label in enumerate(labels[:MOST_ROWS])
    ]
    return Table(
        heads(axis.replace("_", " ").capitalize(), *[num(name) for name in found]),
        tuple(rows),
        _meanings(found) + _left_out(len(labels)),
    )


def _matrix(name: str, array: xr.DataArray) -> Table:
    """Characteristics down, factors across."""
    values = array.transpose("char", "factor").values
    chars, factors = array["char"].values, array["factor"].values[:10]
    rows = [
        (Cell(str(char), "key"), *[num(_plain(float(value))) for value in line[: len(factors)]])
        for char, line in zip(chars[:MOST_ROWS], values, strict=False)
    ]
    return Table(
        heads(name, *[num(str(factor)) for factor in factors]),
        tuple(rows),
        _meanings({name: array}) + _left_out(len(chars)),
    )


def _spread(found: dict[str, xr.DataArray]) -> Table | None:
    """Mean and quantiles over the stocks, of each factor apart where the statistic has factors."""
    rows = []
    for name, array in found.items():
        parts = [("", array)] if array.dims == ("ticker",) else []
        if set(array.dims) == {"ticker", "factor"}:
            parts = [(str(label), array.sel(factor=label)) for label in array["factor"].values]
        for label, part in parts:
            values = part.values[np.isfinite(part.values)]
            marks = (
                [values.mean(), *np.quantile(values, _QUANTILES)] if len(values) else [np.nan] * (1 + len(_QUANTILES))
            )
            rows.append(
                (Cell(name, "key"), Cell(label), *[num(_plain(float(mark))) for mark in marks], num(f"{len(values):,}"))
            )
    if not rows:
        return None
    return Table(
        heads("Over stocks", "Factor", num("Mean"), *[num(f"{level:.0%}") for level in _QUANTILES], num("Stocks")),
        tuple(rows[:MOST_ROWS]),
        "Mean and quantiles over the stocks that have one. " + _meanings(found) + _left_out(len(rows)),
    )


def _path(found: dict[str, xr.DataArray]) -> Table | None:
    """Show some points of a path of penalties: how many factors are in, and the other statistics along it."""
    if not found:
        return None
    along = {name: array for name, array in found.items() if array.dims == ("penalty",)}
    size = next(iter(found.values())).sizes["penalty"]
    points = np.unique(np.linspace(0, size - 1, min(size, PATH_POINTS)).round().astype(int))
    active = (
        (abs(found["path"]) > 0.0).sum("factor").values if "path" in found and "factor" in found["path"].dims else None
    )
    rows = [
        (
            Cell(str(point + 1), "key"),
            *([] if active is None else [num(str(int(active[point])))]),
            *[num(_plain(float(array[point]))) for array in along.values()],
        )
        for point in points
    ]
    return Table(
        heads("Point of the path", *([] if active is None else [num("Factors in")]), *[num(name) for name in along]),
        tuple(rows),
        f"{len(points)} of {size} points. {_meanings(found)}",
    )


def _plain(value: float) -> str:
    """Write a number of unknown size with four digits; whole ones as they are."""
    if not np.isfinite(value):
        return MISSING
    return (f"{value:,.0f}" if value == round(value) and abs(value) < 1e9 else f"{value:.4g}").replace("-", "−")


def _meaning(array: xr.DataArray) -> str:
    return str(array.attrs["long_name"])


def _meanings(found: Mapping[str, xr.DataArray]) -> str:
    return " ".join(f"{name}: {_meaning(array)}." for name, array in found.items())


def _left_out(rows: int) -> str:
    return f" The first {MOST_ROWS} of {rows} rows." if rows > MOST_ROWS else ""
