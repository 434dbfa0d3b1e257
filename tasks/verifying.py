"""Re-reading everything that is published, and every snapshot of the cubes, against what was written.

Here belongs walking over the stores of an installation and gathering what is damaged. How bytes are checked belongs
to `storage.versions` and `storage.cube_upkeep`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from schemas.base import Frozen, nearest
from schemas.errors import FactorcubeError, PublishError
from schemas.refs import VersionRef
from storage import cube_upkeep, pointer, published
from storage.checksums import Sound
from storage.cube import Cube
from storage.layout import CUBES, VERSIONS, Layout
from storage.pointer import LATEST

Note = Callable[[str, int, int], None]
"""Called with what is read now, how many things are done, and how many there are."""


class Damage(Frozen):
    """One thing that is not what was written."""

    what: str
    problem: str


class Verification(Frozen):
    """What was read, and what of it is damaged."""

    cubes: int
    snapshots: int
    versions: int
    damages: tuple[Damage, ...]


@dataclass
class _Scope:
    """What is to be read."""

    universes: list[str] = field(default_factory=list)
    models: list[tuple[str, str]] = field(default_factory=list)
    versions: list[VersionRef] = field(default_factory=list)


def verify_stores(layout: Layout, what: str | None = None, note: Note = lambda *_: None) -> Verification:
    """Read everything, or one universe, model or version, and list all that is damaged.

    Parameters
    ----------
    layout : Layout
        Where.
    what : str, optional
        `universe`, `universe/model` or `universe/model/version`; a universe includes its cube.
    note : callable, optional
        Told of progress.

    Raises
    ------
    PublishError
        If there is nothing of that name.
    """
    scope = _scope(layout, what)
    total = (what is None) + len(scope.universes) + len(scope.models) + len(scope.versions)
    damages: list[Damage] = []
    held: dict[str, set[str]] = {}
    sound: Sound = set()
    done = 0

    def gather(label: str, problems: Iterable[str]) -> None:
        nonlocal done
        note(label, done, total)
        damages.extend(Damage(what=label, problem=problem) for problem in problems)
        done += 1

    if what is None:
        gather("links", _links(layout))
    for universe in scope.universes:
        gather(f"cube {universe}", _cube(layout, universe, held, lambda array: note(array, done, total)))
    for universe, model in scope.models:
        gather(f"{universe}/{model}", _pointer(layout, universe, model))
    for ref in scope.versions:
        gather(str(ref), _version(layout, ref, held, sound))
    note("", done, total)
    return Verification(
        cubes=len(scope.universes),
        snapshots=sum(map(len, held.values())),
        versions=len(scope.versions),
        damages=tuple(damages),
    )


def _scope(layout: Layout, what: str | None) -> _Scope:
    cubes = layout.cubes()
    models = [(one, each) for one in layout.universes() for each in layout.models(one)]
    versions = [
        ref
        for universe, model in models
        for name in layout.store.folders(layout.home(universe, model))
        if (ref := published.find(layout, universe, model, name))
    ]
    if what is None:
        return _Scope(cubes, models, versions)
    parts = what.strip("/").split("/")
    if len(parts) == 3:
        return _Scope(versions=[published.resolve(layout, what)])
    scope = _Scope(
        universes=[one for one in cubes if parts == [one]],
        models=[one for one in models if parts == list(one[: len(parts)])],
        versions=[one for one in versions if parts == [one.universe, one.model][: len(parts)]],
    )
    if not (scope.universes or scope.models):
        known = sorted({*cubes, *("/".join(one) for one in models)})
        raise PublishError(f"there is no universe or model '{what}'; {nearest(what, known)}")
    return scope


def _cube(layout: Layout, universe: str, held: dict[str, set[str]], note: Callable[[str], None]) -> Iterator[str]:
    """Yield what is damaged in a cube; note which snapshots it holds."""
    try:
        cube = Cube.open(layout, universe)
        yield from cube_upkeep.damaged_parts(cube, note)
        held[universe] = {one.id for one in cube_upkeep.living(cube)}
    except FactorcubeError as error:
        yield str(error)


def _links(layout: Layout) -> Iterator[str]:
    """Yield the links above single models: nothing here makes any, and nothing that lies behind one is read."""
    for key in (CUBES, VERSIONS):
        try:
            yield from _strange(layout, key, None)
        except FactorcubeError as error:  # the folder is itself a link that leads outside
            yield str(error)
    for universe in layout.universes():
        yield from _strange(layout, layout.home(universe), None)


def _strange(layout: Layout, key: str, champion: str | None) -> Iterator[str]:
    """Yield the links in a folder that are not `latest` of a champion."""
    for name, target in layout.store.links(key).items():
        if champion is None or (name, target) != (LATEST, champion):
            where = layout.store.locate(key)
            yield f"{where}/{name} is a link that leads to {target}, and nothing here is read through it; remove it"


def _pointer(layout: Layout, universe: str, model: str) -> Iterator[str]:
    """Yield what is wrong with the pointer of a model: it must lead to versions that are there."""
    try:
        state = pointer.read(layout, universe, model)
        published.latest(layout, universe, model)
    except FactorcubeError as error:
        yield str(error)
        return
    home = layout.home(universe, model)
    yield from _strange(layout, home, state.champion)
    if LATEST in layout.store.folders(home):
        yield (
            f"{layout.store.locate(home)}/{LATEST} is a folder and no link, so that readers of it never see another "
            "version; move it away, and the next reader makes the link"
        )
    for version in sorted(state.pins):
        if published.find(layout, universe, model, version) is None:
            yield f"pinned version {version} does not exist; unpin it, or restore it from a copy"


def _version(layout: Layout, ref: VersionRef, held: dict[str, set[str]], sound: Sound) -> Iterator[str]:
    """Yield what is damaged in a version, and whether the snapshot that it was made from has gone."""
    try:
        yield from map(str, published.damages(layout, ref, sound))
        manifest = published.read_manifest(layout, ref)
    except FactorcubeError:
        return  # an unreadable manifest is named by the damages
    if ref.universe in held and manifest.snapshot_id not in held[ref.universe]:
        yield f"the cube no longer holds snapshot {manifest.snapshot_id}, which it was made from"
