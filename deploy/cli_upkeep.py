"""Commands of upkeep: verify what is stored, make a version again, remove what nobody needs, write the catalog."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from deploy.api import send_no_telemetry
from deploy.console_tables import Column, print_table
from deploy.terminal import Terminal, say
from schemas.retention import DEFAULT, Item, Plan, RetentionRule
from schemas.settings import load_settings

_AS_JSON = "Print JSON."


def _help(field: str) -> str:
    return RetentionRule.model_fields[field].description or ""


def register(app: typer.Typer) -> None:
    """Add the commands of this area."""
    for command in (verify, rebuild, maintain, catalog):
        app.command()(command)


def verify(
    what: Annotated[
        str | None,
        typer.Argument(help="A universe with its cube, a model such as us/ipca, or a version; everything if left out."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=_AS_JSON)] = False,
) -> None:
    """Read everything that is stored against its checksums, and list all that is damaged; exit code 1 if any is."""
    from tasks.verifying import verify_stores
    from tasks.workspace import Workspace

    layout = Workspace.of(load_settings()).layout
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Terminal(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=None)
        found = verify_stores(
            layout,
            what,
            lambda label, done, total: progress.update(bar, description=label, completed=done, total=total),
        )
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        for damage in found.damages:
            say(f"{damage.what}: {damage.problem}")
        typer.echo(
            f"read {found.versions} version(s), {found.cubes} cube(s) with {found.snapshots} snapshot(s): "
            f"{len(found.damages) or 'nothing'} damaged"
        )
    if found.damages:
        raise typer.Exit(1)


def rebuild(
    version: Annotated[str, typer.Argument(help="A version such as us_demo/ipca/2024-06-28-3f2a91bc.")],
    as_json: Annotated[bool, typer.Option("--json", help=_AS_JSON)] = False,
) -> None:
    """Make a version again from its manifest, and say whether it is the same bit for bit; exit code 1 if it is not.

    From the snapshot, config and as-of date that the manifest names. Nothing is published or replaced.
    """
    send_no_telemetry()
    from deploy.console_difference import print_rebuilt
    from tasks.cluster import open_cluster
    from tasks.promoting import find_version
    from tasks.rebuilding import beside_shared_work, rebuild_version
    from tasks.workspace import Workspace

    settings = load_settings()
    ref = find_version(Workspace.of(settings).layout, version)
    with open_cluster(beside_shared_work(settings), lambda line: typer.echo(line, err=True)) as cluster:
        found = rebuild_version(ref, cluster, settings)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        print_rebuilt(Terminal(), found)
    if not found.identical:
        raise typer.Exit(1)


def maintain(
    apply: Annotated[bool, typer.Option("--apply/--dry-run", help="Remove, or only show what would go.")] = False,
    keep_days: Annotated[int, typer.Option(help=_help("keep_days"))] = DEFAULT.keep_days,
    keep_last: Annotated[int, typer.Option(help=_help("keep_last"))] = DEFAULT.keep_last,
    keep_every: Annotated[
        str, typer.Option(help="Keep the last version of every month, quarter or year; none.")
    ] = "month",
    keep_champions: Annotated[bool, typer.Option(help=_help("keep_champions"))] = DEFAULT.keep_champions,
    grace_days: Annotated[int, typer.Option(help=_help("grace_days"))] = DEFAULT.grace_days,
    snapshot_days: Annotated[int, typer.Option(help=_help("snapshot_days"))] = DEFAULT.snapshot_days,
    work_days: Annotated[int, typer.Option(help=_help("work_days"))] = DEFAULT.work_days,
    report_days: Annotated[int, typer.Option(help=_help("report_days"))] = DEFAULT.report_days,
    abandoned_hours: Annotated[int, typer.Option(help=_help("abandoned_hours"))] = DEFAULT.abandoned_hours,
    as_json: Annotated[bool, typer.Option("--json", help=_AS_JSON)] = False,
) -> None:
    """Show what the retention rule lets go, and with --apply remove it.

    Never the champion, a pinned version, or anything that the manifest of a version that stays names.
    """
    from tasks.maintaining import carry_out, plan
    from tasks.workspace import Workspace

    rule = RetentionRule.parse(
        {
            "keep_days": keep_days,
            "keep_last": keep_last,
            "keep_every": None if keep_every == "none" else keep_every,
            "keep_champions": keep_champions,
            "grace_days": grace_days,
            "snapshot_days": snapshot_days,
            "work_days": work_days,
            "report_days": report_days,
            "abandoned_hours": abandoned_hours,
        },
        origin="maintain",
    )
    space = Workspace.of(load_settings())
    made = plan(space, rule)
    done = carry_out(space, made) if apply else made
    if as_json:
        typer.echo(done.model_dump_json(indent=2))
    else:
        _print_plan(Terminal(), done, "removed" if apply else "would go")


def catalog(
    anew: Annotated[
        bool, typer.Option("--anew", help="Describe every version anew, also those that are described.")
    ] = False,
) -> None:
    """Write the catalog of what is published: STAC, which readers open without factorcube."""
    from storage.catalog import refresh_catalog
    from tasks.workspace import Workspace

    written = refresh_catalog(Workspace.of(load_settings()).layout, anew=anew)
    for line in written.left_out:
        say(f"left out: {line}", to_stderr=True)
    typer.echo(f"{written.location}\n{written.versions} version(s)")
    if written.left_out:
        raise typer.Exit(1)


def _print_plan(console: Terminal, made: Plan, outcome: str) -> None:
    for items, title in ((made.keep, "kept"), (made.remove, outcome)):
        if items:
            columns = ("kind", "name", Column("size", drop=1), Column("why", text=True))
            print_table(console, columns, [(item.kind, item.name, _size(item), item.why) for item in items], title)
    counts = Counter(item.kind for item in made.remove)
    listed = ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "nothing"
    console.print(f"{outcome}: {listed}; {made.size_bytes / 1e6:.1f} MB", highlight=False)


def _size(item: Item) -> str:
    return "" if item.size_bytes is None else f"{item.size_bytes / 1e6:.2f} MB"
