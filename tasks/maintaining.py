"""Upkeep: what may go by the retention rule, and its removal.

Here belongs deciding, over all stores of an installation. The rule itself is `schemas.retention`; how a version, a
snapshot or a folder is removed so that a kill leaves nothing half, is in `storage`.

A plan is made, shown, and carried out later or never. Carrying it out plans anew and removes what both plans name, so
that a version that was promoted, pinned or continued in between stays. A model whose manifests or pointer cannot be
read keeps everything, and so does the cube of its universe: what it names is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Literal

from prefect.artifacts import create_table_artifact
from prefect.logging import get_run_logger

from schemas.contracts import Manifest
from schemas.errors import ConfigError, FactorcubeError
from schemas.refs import SnapshotRef, VersionRef
from schemas.retention import Candidate, Item, Plan, RetentionRule, kept_versions
from schemas.settings import Settings
from storage import cube_upkeep, leftovers, pointer, published
from storage.catalog import refresh_catalog
from storage.cube import Cube
from storage.files import size_of
from storage.layout import Layout
from storage.leftovers import Leftover
from storage.shared_work import WORK, SharedLeftover, SharedWork
from storage.work import Kind
from tasks.committing import ingest_record
from tasks.steps import step
from tasks.workspace import Workspace


@dataclass
class _Planned:
    """A plan in the making, with what its removal needs to know."""

    remove: list[Item] = field(default_factory=list)
    keep: list[Item] = field(default_factory=list)
    removals: dict[Item, Callable[[], bool | None]] = field(default_factory=dict)
    """How versions and leftovers are removed; False says that one was not."""
    manifests: dict[str, list[Manifest]] = field(default_factory=dict)
    """Of the versions that stay, by universe."""
    unknown: dict[str, str] = field(default_factory=dict)
    """Universes of which not all manifests could be read, with the reason."""

    @property
    def living(self) -> list[Manifest]:
        """Manifests of the versions that stay, of all universes."""
        return [one for several in self.manifests.values() for one in several]


@step("plan upkeep", "plan upkeep")
def plan_upkeep(rule: RetentionRule, settings: Settings) -> Plan:
    """Decide what may go, and show it as a table artifact of the run."""
    made = plan(Workspace.of(settings), rule)
    _show(made, "planned")
    get_run_logger().info("upkeep: %d thing(s) may go, %.1f MB", len(made.remove), made.size_bytes / 1e6)
    return made


@step("carry out upkeep", "carry out upkeep")
def carry_out_upkeep(made: Plan, settings: Settings) -> Plan:
    """Remove what the plan names and may still go; show what was removed."""
    done = carry_out(Workspace.of(settings), made)
    _show(done, "removed")
    get_run_logger().info("upkeep: removed %d thing(s), %.1f MB", len(done.remove), done.size_bytes / 1e6)
    return done


def plan(space: Workspace, rule: RetentionRule, now: datetime | None = None) -> Plan:
    """Return what the rule lets go and what stays, with the reasons; nothing is changed."""
    moment = now or datetime.now(UTC)
    planned = _plan(space, rule, moment)
    return Plan(rule=rule, planned_at=moment, remove=tuple(planned.remove), keep=tuple(planned.keep))


def carry_out(space: Workspace, made: Plan) -> Plan:
    """Remove what a plan names, unless something has come to need it since.

    Returns
    -------
    Plan
        What was removed, and as `keep` what the plan named and was not removed, with the reason.
    """
    fresh = _plan(space, made.rule, made.planned_at, sizes=False)
    removed: list[Item] = []
    kept: list[Item] = []
    still = {(one.kind, one.name): one for one in fresh.remove}
    for item in made.remove:
        same = still.get((item.kind, item.name))
        if same is None:
            kept.append(item.model_copy(update={"why": "needed or gone since this was planned"}))
        elif same in fresh.removals:
            try:
                (kept if fresh.removals[same]() is False else removed).append(item)
            except FactorcubeError as error:
                kept.append(item.model_copy(update={"why": str(error)}))
    universes = {item.name.partition("/")[0] for item in made.remove if item.kind in {"snapshot", "unreferenced data"}}
    for universe in sorted(universes):
        try:
            removed += _expire(space.layout, universe, made)
        except FactorcubeError as error:
            kept.append(Item(kind="snapshot", name=universe, why=f"nothing was removed: {error}"))
    refresh_catalog(space.layout)
    return made.model_copy(update={"remove": tuple(removed), "keep": tuple(kept)})


def _expire(layout: Layout, universe: str, made: Plan) -> list[Item]:
    freed = cube_upkeep.expire(
        Cube.open(layout, universe),
        lambda: _named(_manifests(layout, universe)),
        before=_snapshots_before(made.rule, made.planned_at),
        abandoned=_abandoned_before(made.rule, made.planned_at),
    )
    gone = [item for item in made.remove if item.kind == "snapshot" and item.name.startswith(f"{universe}/")]
    why = f"{freed.snapshots} snapshot(s) and what only they held, and what killed writers left"
    return [*gone, Item(kind="unreferenced data", name=universe, size_bytes=freed.size_bytes, why=why)]


def _plan(space: Workspace, rule: RetentionRule, now: datetime, *, sizes: bool = True) -> _Planned:
    planned = _Planned()
    for universe in space.layout.universes():
        for model in space.layout.models(universe):
            try:
                _plan_versions(space.layout, universe, model, rule, now, planned)
            except FactorcubeError as error:
                planned.unknown[universe] = str(error)
                why = f"nothing is removed: {error}"
                planned.keep.append(Item(kind="version", name=f"{universe}/{model}", why=why))
    for universe in space.layout.cubes():
        _plan_snapshots(space.layout, universe, rule, now, planned, sizes=sizes)
    needed = _records(space, planned.living)
    for item, leftover in _old_files(space, rule, now, planned, needed):
        planned.remove.append(item)
        planned.removals[item] = partial(leftovers.remove, leftover)
    if space.shared is not None:
        for item, shared in _old_shared_work(space.shared, rule, now, needed):
            planned.remove.append(item)
            planned.removals[item] = partial(space.shared.remove, shared)
    return planned


def _plan_versions(
    layout: Layout, universe: str, model: str, rule: RetentionRule, now: datetime, planned: _Planned
) -> None:
    state = pointer.read(layout, universe, model)
    published.latest(layout, universe, model)  # raises if it leads nowhere
    refs = {ref.version: ref for ref in published.list_versions(layout, universe, model)}
    lost = sorted(set(state.pins) - set(refs))
    if lost:
        raise ConfigError(f"{universe}/{model}: pinned version {lost[0]} does not exist; unpin it, or restore it")
    manifests = {version: published.read_manifest(layout, ref) for version, ref in refs.items()}
    until = {one.previous: one.promoted_at for one in state.promotions if one.previous}
    candidates = [
        Candidate(version, one.as_of, one.created_at, one.parent, until.get(version))
        for version, one in manifests.items()
    ]
    reasons = kept_versions(rule, candidates, champion=state.champion, pins=state.pins, now=now)
    for version, ref in refs.items():
        name, size = str(ref), _size(layout, ref)
        if version in reasons:
            planned.keep.append(Item(kind="version", name=name, size_bytes=size, why=reasons[version]))
            planned.manifests.setdefault(universe, []).append(manifests[version])
        else:
            item = Item(kind="version", name=name, size_bytes=size, why="nothing in the rule keeps it")
            planned.remove.append(item)
            planned.removals[item] = partial(published.remove, layout, ref)


def _plan_snapshots(
    layout: Layout, universe: str, rule: RetentionRule, now: datetime, planned: _Planned, *, sizes: bool
) -> None:
    if universe in planned.unknown:
        why = f"nothing is removed: {planned.unknown[universe]}"
        planned.keep.append(Item(kind="snapshot", name=universe, why=why))
        return
    try:
        cube = Cube.open(layout, universe)
        snapshots, head = cube_upkeep.living(cube), cube.head()
    except FactorcubeError as error:
        planned.keep.append(Item(kind="snapshot", name=universe, why=f"nothing is removed: {error}"))
        return
    named = _named(planned.manifests.get(universe, []))
    before = _snapshots_before(rule, now)
    for one in snapshots:
        reason = named.get(one.id)
        if head is not None and one.id == head.id:
            reason = "newest state of the cube"
        elif one.written_at >= before:
            reason = f"committed in the last {rule.snapshot_days} days"
        items = planned.remove if reason is None else planned.keep
        items.append(Item(kind="snapshot", name=f"{universe}/{one.id}", why=reason or "old, and no version names it"))
    freed = None
    if sizes:
        abandoned = _abandoned_before(rule, now)
        freed = cube_upkeep.would_free(layout, cube, lambda: named, before=before, abandoned=abandoned)
    if freed is None or freed.size_bytes:
        why = "what only the snapshots that may go hold, and what killed writers left"
        size = None if freed is None else freed.size_bytes
        planned.remove.append(Item(kind="unreferenced data", name=universe, size_bytes=size, why=why))


def _old_files(
    space: Workspace, rule: RetentionRule, now: datetime, planned: _Planned, needed: set[str]
) -> Iterator[tuple[Item, Leftover]]:
    """Yield what may go from the folders below the root."""
    unused, old = now - timedelta(days=rule.work_days), now - timedelta(days=rule.report_days)
    for one in leftovers.work_entries(space.layout):
        if one.used_at < unused and one.path.relative_to(space.root).as_posix() not in needed:
            yield _item(space, "work", one, f"not used in the last {rule.work_days} days"), one
    for one in leftovers.abandoned(space.layout):
        if one.used_at < _abandoned_before(rule, now):
            yield _item(space, "staging", one, "left by a writer that died"), one
    if planned.unknown:
        return
    living = {one.ingest_key for one in planned.living}
    for one in leftovers.quarantined(space.layout):
        if one.used_at < old and one.path.stem not in living:
            yield _item(space, "quarantine", one, f"older than {rule.report_days} days"), one
    paths = [f"published/{one}" for one in planned.living]
    for one in leftovers.reports(space.layout):
        if one.used_at < old and not _mentions(one.path, paths):
            yield _item(space, "report", one, f"older than {rule.report_days} days, of no version that is kept"), one


def _old_shared_work(
    shared: SharedWork, rule: RetentionRule, now: datetime, needed: set[str]
) -> Iterator[tuple[Item, SharedLeftover]]:
    """Yield what may go of the intermediate results that machines share."""
    for one in shared.leftovers():
        old = now - timedelta(days=rule.work_days) if one.whole else _abandoned_before(rule, now)
        if one.used_at < old and one.name not in needed:
            kind: Literal["work", "staging"] = "work" if one.whole else "staging"
            why = f"not used in the last {rule.work_days} days" if one.whole else "left by an upload that died"
            yield Item(kind=kind, name=shared.locate(one.name), size_bytes=one.size_bytes, why=why), one


def _records(space: Workspace, manifests: list[Manifest]) -> set[str]:
    """Name the entries that say how the data of living versions were checked: small, and shown by reports."""
    found: set[str] = set()
    for one in manifests:
        record = ingest_record(one.ingest_key, one.snapshot_id)
        found.add(f"{WORK}/{Kind.INGESTS}/{record}")
        try:
            snapshot = SnapshotRef.model_validate(space.work.get_json(Kind.INGESTS, record))
        except (FactorcubeError, ValueError):
            continue
        found.add(f"{WORK}/{Kind.CHECKS}/{snapshot.checks_key}")
    return found


def _manifests(layout: Layout, universe: str) -> list[Manifest]:
    return [published.read_manifest(layout, ref) for ref in published.list_versions(layout, universe)]


def _named(manifests: list[Manifest]) -> Mapping[str, str]:
    """Return the snapshots that manifests name, with the first version that does."""
    named: dict[str, str] = {}
    for one in manifests:
        named.setdefault(one.snapshot_id, f"named by {one}")
    return named


def _mentions(path: Path, names: list[str]) -> bool:
    text = path.read_text(encoding="utf-8", errors="replace")
    return any(name in text for name in names)


def _item(space: Workspace, kind: str, one: Leftover, why: str) -> Item:
    name = one.path.relative_to(space.root).as_posix()
    return Item.model_validate({"kind": kind, "name": name, "size_bytes": one.size_bytes, "why": why})


def _size(layout: Layout, ref: VersionRef) -> int | None:
    """Return the size of a version on a disk; None in an object store."""
    try:
        folder = layout.home_folder(ref.universe, ref.model) / ref.version
    except ConfigError:
        return None
    return size_of(folder)


def _snapshots_before(rule: RetentionRule, now: datetime) -> datetime:
    return now - timedelta(days=rule.snapshot_days)


def _abandoned_before(rule: RetentionRule, now: datetime) -> datetime:
    return now - timedelta(hours=rule.abandoned_hours)


def _show(made: Plan, what: str) -> None:
    outcomes = [(what, item) for item in made.remove] + [("kept", item) for item in made.keep]
    rows = [{"outcome": outcome, **item.model_dump()} for outcome, item in outcomes]
    create_table_artifact(key="upkeep", table=rows, description=f"Upkeep, {what}: {made.size_bytes / 1e6:.1f} MB")
