"""What the command line prints about two versions that differ."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from deploy.console_tables import Column, print_table
from deploy.console_versions import number
from schemas.differences import ArrayDifference, VersionDifference
from tasks.rebuilding import Rebuilt

_MOST_LABELS = 8


def print_difference(console: Console, found: VersionDifference) -> None:
    """Print what differs between two versions; one line if nothing does."""
    console.print(f"[bold]A[/] {found.one}\n[bold]B[/] {found.other}", highlight=False, soft_wrap=True)
    if found.identical:
        console.print("identical: the same axes and the same numbers, bit for bit")
    elif found.identical_where_common:
        console.print("identical where both have rows: the same numbers, bit for bit, on all common labels")
    _print_axes(console, found)
    if not found.identical_where_common:
        _print_arrays(console, found.arrays, "Numbers on common labels")
        console.print(escape(found.alignment), highlight=False)
        if found.aligned:
            _print_arrays(console, found.aligned, "After the rotation")
        _print_risk(console, found)
    _print_metrics(console, found)
    _print_inputs(console, found)


def print_rebuilt(console: Console, found: Rebuilt) -> None:
    """Print what came of making a version again: one line if it is the same, what differs otherwise."""
    if not found.identical:
        print_difference(console, found.difference)
        if found.state:
            _print_arrays(console, found.state, "State of the model")
    outcome = "the same, bit for bit" if found.identical else "not the same (A was published, B was made now)"
    other = f"; this installation is not the one that made it: {found.other_code}" if found.other_code else ""
    console.print(f"{found.version} was made again: {outcome}{other}", markup=False, highlight=False, soft_wrap=True)


def _print_axes(console: Console, found: VersionDifference) -> None:
    for name, axis in found.axes.items():
        for word, labels in (("added in B", axis.added), ("removed in B", axis.removed)):
            if labels:
                more = "" if len(labels) <= _MOST_LABELS else ", ..."
                listed = ", ".join(labels[:_MOST_LABELS]) + more
                console.print(
                    f"{name}: {axis.common} in common, {len(labels)} {word}: {listed}",
                    markup=False, highlight=False, soft_wrap=True,
                )  # fmt: skip


def _print_arrays(console: Console, arrays: tuple[ArrayDifference, ...], title: str) -> None:
    columns = (
        "variable",
        Column("entries", drop=2),
        Column("in one only", drop=1),
        "largest difference",
        Column("RMS", drop=3),
        "relative",
        "",
    )
    rows = [
        (
            one.name,
            f"{one.compared:,}",
            f"{one.unmatched:,}",
            number(one.maximum, ".3g"),
            number(one.rms, ".3g"),
            number(one.relative, ".3g"),
            "identical" if one.identical else "",
        )
        for one in arrays
    ]
    print_table(console, columns, rows, title)


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
    rows = []
    for name, (one, other) in changed.items():
        apart = None if one is None or other is None else other - one
        rows.append((name, number(one, ".4f"), number(other, ".4f"), number(apart, "+.4f")))
    print_table(console, ("metric", "A", "B", "B - A"), rows, "Metrics that differ")


def _print_inputs(console: Console, found: VersionDifference) -> None:
    if not found.inputs:
        console.print("inputs: the same")
        return
    rows = []
    for one in found.inputs:
        rows += [(one.name, "A", one.one), ("", "B", one.other)]
    print_table(console, (Column("input", text=True), "", Column("value", text=True)), rows, "Inputs that differ")
