"""Commands about published versions: show, compare, promote, roll back, pin."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time
from typing import Annotated

import typer

from deploy.terminal import Terminal, say
from schemas.errors import ConfigError, PublishError
from schemas.settings import load_settings

_VERSION = "A version such as us_demo/ipca/2024-06-28-3f2a91bc."
_MODEL = "A model such as us_demo/ipca."
_AS_JSON = "Print JSON."


def register(app: typer.Typer) -> None:
    """Add the commands of this area."""
    for command in (show, diff, promote, rollback, pin, unpin):
        app.command()(command)


def show(
    version: Annotated[
        str | None,
        typer.Argument(
            help="A version such as us_demo/ipca/latest, a model such as us_demo/ipca, or a universe; all if left out."
        ),
    ] = None,
    as_of: Annotated[
        str | None,
        typer.Option(help="What `latest` was then: a date (its end, UTC), or a time such as 2024-06-28T18:00+02:00."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=_AS_JSON)] = False,
) -> None:
    """List the published versions, describe one, or say what `latest` was at an earlier time."""
    from deploy import console_versions as console
    from storage import published
    from tasks.promoting import find_model, find_version
    from tasks.workspace import Workspace

    layout = Workspace.of(load_settings()).layout
    moment = None if as_of is None else parse_moment(as_of)
    if moment is None and version is not None and version.strip("/").count("/") > 1:
        ref = find_version(layout, version)
        if as_json:
            typer.echo(published.read_manifest(layout, ref).model_dump_json(indent=2))
        else:
            console.print_version(Terminal(), layout, ref)
        return
    refs = published.list_versions(layout) if version is None else find_model(layout, version)
    if moment is None:
        if as_json:
            typer.echo(json.dumps(console.versions_listed(layout, refs), indent=2))
        else:
            console.print_versions(Terminal(), layout, refs)
        return
    found = console.champions_at(layout, sorted({(ref.universe, ref.model) for ref in refs}), moment)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        console.print_champions(Terminal(), found, moment)


def diff(
    one: Annotated[str, typer.Argument(metavar="A", help="A version such as us_demo/ipca/2024-06-28-3f2a91bc.")],
    other: Annotated[str, typer.Argument(metavar="B", help="Another, such as us_demo/ipca/latest.")],
    as_json: Annotated[bool, typer.Option("--json", help=_AS_JSON)] = False,
) -> None:
    """Say what differs between two versions: loadings, Omega, variance, metrics, inputs."""
    from deploy.console_difference import print_difference
    from tasks.comparing import compare_versions
    from tasks.promoting import find_version
    from tasks.workspace import Workspace

    layout = Workspace.of(load_settings()).layout
    found = compare_versions(layout, find_version(layout, one), find_version(layout, other))
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        print_difference(Terminal(), found)


def promote(
    version: Annotated[
        str, typer.Argument(help=f"{_VERSION[:-1]}; of a model its newest one, of a universe that of each model.")
    ],
    reason: Annotated[str | None, typer.Option(help="Why; kept in the history of `latest`.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Although the gate refused it; needs a reason.")] = False,
) -> None:
    """Make a version the champion, which `latest` names; also the first one, and also an earlier one."""
    from storage.catalog import refresh_catalog
    from tasks.promoting import newest, promote_version
    from tasks.workspace import Workspace

    layout = Workspace.of(load_settings()).layout
    whole = version.strip("/").count("/") > 1
    told, refused = [], []
    for one in [version] if whole else [str(ref) for ref in newest(layout, version)]:
        try:
            ref, before = promote_version(layout, one, reason=reason, force=force)
        except PublishError as error:
            refused.append(str(error))
            continue
        same = before == ref.version
        told.append(
            f"{ref} is latest " + ("already; nothing changed" if same else f"now; before it was {before or 'none'}")
        )
    refresh_catalog(layout)
    for line in told:
        say(line)
    if refused:
        raise PublishError("\n".join(refused))


def rollback(
    model: Annotated[str, typer.Argument(help=_MODEL)],
    reason: Annotated[str | None, typer.Option(help="Why; kept in the history of `latest`.")] = None,
) -> None:
    """Go back to the version that was the champion before the present one; again, to the one before that."""
    from storage.catalog import refresh_catalog
    from tasks.promoting import roll_back
    from tasks.workspace import Workspace

    layout = Workspace.of(load_settings()).layout
    ref, before = roll_back(layout, model, reason=reason)
    refresh_catalog(layout)
    say(f"{ref} is latest now; rolled back from {before}")


def pin(
    version: Annotated[str, typer.Argument(help=_VERSION)],
    reason: Annotated[str, typer.Option(help="Why it must be kept.")],
) -> None:
    """Keep a version, whatever the retention rule says."""
    from storage import published
    from storage.catalog import refresh_catalog
    from tasks.promoting import find_version
    from tasks.workspace import Workspace

    layout = Workspace.of(load_settings()).layout
    ref = find_version(layout, version)
    published.pin(layout, ref.universe, ref.model, ref.version, reason=_some(reason))
    refresh_catalog(layout)
    typer.echo(f"{ref} is pinned")


def unpin(
    version: Annotated[str, typer.Argument(help=_VERSION)],
) -> None:
    """Leave a version to the retention rule again."""
    from storage import published
    from storage.catalog import refresh_catalog
    from tasks.promoting import find_version
    from tasks.workspace import Workspace

    layout = Workspace.of(load_settings()).layout
    ref = find_version(layout, version)
    published.unpin(layout, ref.universe, ref.model, ref.version)
    refresh_catalog(layout)
    typer.echo(f"{ref} is no longer pinned")


def parse_moment(text: str) -> datetime:
    """Read a date as its end in UTC, or a time with its zone.

    Raises
    ------
    ConfigError
        If it is neither, or a time without a zone: it would mean another moment on another machine.
    """
    try:
        return datetime.combine(date.fromisoformat(text), time.max, UTC)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"--as-of '{text}' is neither a date such as 2024-06-28 nor a time such as 2024-06-28T18:00+02:00"
        ) from None
    if moment.tzinfo is None:
        raise ConfigError(f"--as-of '{text}' has no time zone; write {text}Z for UTC, or an offset such as +02:00")
    return moment


def _some(reason: str) -> str:
    if not reason.strip():
        raise ConfigError("--reason is empty; say why, for whoever reads it later")
    return reason
