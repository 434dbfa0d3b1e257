"""What the command line prints about two versions that differ."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from deploy.console_versions import number
from schemas.differences import ArrayDifference, VersionDifference

_MOST_LABELS = 8


def print_difference(console: Console, found: VersionDifference) -> None:
    """Print what differs between two versions; one line if nothing does."""
    console.print(f"[bold]A[/] {found.one}\n[bold]B[/] {found.other}", highlight=False)
    if found.identical:
        console.print("identical: the same axes and the same numbers, bit for bit")
    elif found.identical_where_common:
        console.print("identical where both have rows: the same numbers, bit for bit, on all common labels")
    _print_axes(console, found)
    if not found.identical_where_common:
        console.print(_arrays(found.arrays, "Numbers on common labels"))
        console.print(escape(found.alignment), highlight=False)
        if found.aligned:
            console.print(_arrays(found.aligned, "After the rotation"))
        _print_risk(console, found)
    _print_metrics(console, found)
    _print_inputs(console, found)


def _print_axes(console: Console, found: VersionDifference) -> None:
    for name, axis in found.axes.items():
        for word, labels in (("added in B", axis.added), ("removed in B", axis.removed)):
            if labels:
                more = "" if len(labels) <= _MOST_LABELS else ", ..."
                listed = ", ".join(labels[:_MOST_LABELS]) + more
                console.print(
                    f"{name}: {len(labels)} {word}, {axis.common} in common: {listed}",
                    markup=False, highlight=False, soft_wrap=True,
                )  # fmt: skip


def _arrays(arrays: tuple[ArrayDifference, ...], title: str) -> Table:
    table = Table(
        "variable", "entries", "in one only", "largest difference", "RMS", "relative", "",
        title=title, title_justify="left",
    )  # fmt: skip
    for one in arrays:
        alike = "identical" if one.identical else ""
        table.add_row(
            one.name,
            f"{one.compared:,}",
            f"{one.unmatched:,}",
            number(one.maximum, ".3g"),
            number(one.rms, ".3g"),
            number(one.relative, ".3g"),
            alike,
        )
    return table


def _print_risk(console: Console, found: VersionDifference) -> None:
    covariance = found.covariance
    console.print(
        f"systematic covariance of stocks X Omega X', relative distance (Frobenius) over {covariance.dates} dates: "
        f"mean {number(covariance.mean, '.3g')}, largest {number(covariance.maximum, '.3g')}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    for portfolio, largest in found.portfolio_variance.items():
        console.print(
            f"portfolio variance of {portfolio}: largest relative difference {number(largest, '.3g')}",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip


def _print_metrics(console: Console, found: VersionDifference) -> None:
    changed = {name: pair for name, pair in found.metrics.items() if pair[0] != pair[1]}
    if not changed:
        console.print("metrics: the same")
        return
    table = Table("metric", "A", "B", "B - A", title="Metrics that differ", title_justify="left")
    for name, (one, other) in changed.items():
        apart = None if one is None or other is None else other - one
        table.add_row(escape(name), number(one, ".4f"), number(other, ".4f"), number(apart, "+.4f"))
    console.print(table)


def _print_inputs(console: Console, found: VersionDifference) -> None:
    if not found.inputs:
        console.print("inputs: the same")
        return
    table = Table(
        Column("input", overflow="fold"), Column("A", overflow="fold"), Column("B", overflow="fold"),
        title="Inputs that differ", title_justify="left",
    )  # fmt: skip
    for one in found.inputs:
        table.add_row(escape(one.name), escape(one.one), escape(one.other))
    console.print(table)
