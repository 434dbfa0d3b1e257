"""The cube of a universe: every committed state of its data, in one Icechunk repository.

Here belongs opening, committing and the history. Which cell an upsert changes belongs to `storage.upsert`,
chunks and compression to `storage.arrays`.

Beside what readers open lies the record: all that deliveries have said, from which an ingest derives the cube anew
(ADR 0016). Both change in one commit.

Whatever an upsert changes becomes visible in one commit; readers keep the snapshot they opened, for ever. On
a local disk Icechunk does not notice that another commit has slipped in between reading and committing, and
drops one of the two in silence. A file lock therefore spans the whole of reading, merging and committing, and
no other code may write to the repository without `Cube.exclusive`. In an object store the commit itself is
conditional: whoever comes too late merges anew into what the other committed. A process that dies leaves unreferenced
chunks and no commit.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

import icechunk
import pandas as pd
import xarray as xr
import zarr

from schemas.contracts import CUBE, FORMAT_VERSION, RECORD
from schemas.errors import ConflictError, CubeError
from storage.arrays import read_dataset
from storage.damage import Guard, GuardedStore, metadata_seal, naming, panicked
from storage.files import user
from storage.layout import Layout
from storage.upsert import Labels, Merge, apply, checked

BRANCH = "main"
_RECORD = "record"
_SEAL, _COMMIT = "seal", "commit"
_REMEMBERED = 32
"""Newest commits among which a writer looks for its own."""
_ATTEMPTS = 8
"""How often an upsert is merged anew because another writer committed first; only where nothing is locked."""


@dataclass(frozen=True)
class Commit:
    """The state of a cube after an upsert.

    Attributes
    ----------
    snapshot_id : str
        The snapshot that holds what was asked for.
    changed : bool
        Whether this upsert committed it; False if the cube already held every bit.
    """

    snapshot_id: str
    changed: bool


@dataclass(frozen=True)
class SnapshotInfo:
    """One committed state of a cube.

    Attributes
    ----------
    id : str
        What `Cube.open_dataset` takes.
    written_at : datetime
        When it was committed (UTC).
    message : str
        Why.
    metadata : dict[str, Any]
        Who (`user`), what (`first_date`, `last_date`, `new_dates`, `new_tickers`) and whatever the writer
        added.
    """

    id: str
    written_at: datetime
    message: str
    metadata: dict[str, Any] = field(default_factory=dict)


class Cube:
    """Open one with `Cube.open` or `Cube.open_or_create`.

    Attributes
    ----------
    universe : str
        Name of the universe.
    repository : icechunk.Repository
        For maintenance, within `exclusive`.
    layout : Layout
        Where it lies.
    """

    def __init__(self, layout: Layout, universe: str, repository: icechunk.Repository) -> None:
        self.universe = universe
        self.repository = repository
        self._what = f"cube '{universe}'"
        self.layout = layout
        self._sound: set[str] = set()

    @classmethod
    def open(cls, layout: Layout, universe: str) -> Cube:
        """Open the cube of a universe.

        Raises
        ------
        CubeError
            If there is none.
        """
        with told(f"cube '{universe}'"):
            there = universe in layout.store.folders(layout.cube(universe).rpartition("/")[0])
            if not there or not _exists(layout, universe):
                where = layout.store.locate(layout.cube(universe))
                raise CubeError(f"cube '{universe}' does not exist at {where}; ingest the universe first")
            return cls(layout, universe, icechunk.Repository.open(_storage(layout, universe)))

    @classmethod
    def open_or_create(cls, layout: Layout, universe: str) -> Cube:
        """Open the cube of a universe, and create an empty one if there is none."""
        with told(f"cube '{universe}'"), _exclusive(layout, universe):
            _exists(layout, universe)
            return cls(layout, universe, icechunk.Repository.open_or_create(_storage(layout, universe)))

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold the writers' lock of this cube; in an object store, whose commits are conditional, it holds nothing."""
        return _exclusive(self.layout, self.universe)

    def upsert(self, ds: xr.Dataset, *, message: str, metadata: dict[str, Any]) -> Commit:
        """Write a dataset over a span of dates, in one commit.

        The cells (date, ticker) that `ds` covers take its values, all others keep theirs; see
        `storage.upsert`. Labels decide, never positions: permuted tickers or characteristics end up where
        they belong. New dates are put in order; if that is before the last date of the cube, all later dates
        are rewritten. New tickers and portfolios are added at the end of their axes.

        Parameters
        ----------
        ds : xarray.Dataset
            As `schemas.contracts.CUBE` says, with labels along every axis. It may be lazy: about 4 MiB of
            each variable are in memory at a time.
        message : str
            Why, for the history.
        metadata : dict[str, Any]
            Further JSON facts for the history, such as `ingest_key`.

        Returns
        -------
        Commit
            With `changed=False` and the present head if no bit of the cube would change.

        Raises
        ------
        AlignmentError
            If the dataset does not align with the cube; nothing was written.
        ConflictError
            If another process held the cube for ten minutes, or other writers committed first time and again.
        CubeError
            If storing fails.
        """
        ds = checked(ds, self._what)
        new = _labels_of(ds)
        mine = uuid.uuid4().hex
        for attempt in range(_ATTEMPTS):
            time.sleep(random.uniform(0, 0.1 * attempt))  # noqa: S311
            with self.exclusive(), told(self._what), suppress(icechunk.ConflictError):
                landed = self._committed(mine) if attempt else None
                return landed or self._merge(ds, new, message, {**metadata, _COMMIT: mine})
        raise ConflictError(
            f"{self._what}: other writers committed first {_ATTEMPTS} times; nothing was written, run again"
        )

    def replace(
        self, ds: xr.Dataset, record: xr.Dataset, *, onto: str | None, message: str, metadata: dict[str, Any]
    ) -> Commit:
        """Make a cube and its record what two datasets say, in one commit; only tickers stay that they do not have.

        Parameters
        ----------
        ds, record : xarray.Dataset
            As `schemas.contracts.CUBE` and `RECORD` say, with labels along every axis; may be lazy.
        onto : str or None
            The snapshot that they were made from; None for an empty cube.
        message, metadata
            As for `upsert`. Metadata that differ from those of `onto` in `recipe` are a change of their own.

        Returns
        -------
        Commit
            With `changed=False` and the present head if nothing of the cube would change.

        Raises
        ------
        ConflictError
            If the newest snapshot is another one: somebody else has committed meanwhile, and nothing was written.
        AlignmentError, CubeError
            As for `upsert`.
        """
        return self._commit(ds, record, onto=onto, message=message, metadata=metadata, whole=True)

    def extend(
        self, ds: xr.Dataset, record: xr.Dataset, *, onto: str | None, message: str, metadata: dict[str, Any]
    ) -> Commit:
        """Write the end of a cube and of its record, in one commit; the cells of all other dates stay.

        Parameters
        ----------
        ds, record : xarray.Dataset
            As for `replace`, of all tickers on some dates each.
        onto, message, metadata
            As for `replace`; raises as that does.
        """
        return self._commit(ds, record, onto=onto, message=message, metadata=metadata, whole=False)

    def _commit(
        self,
        ds: xr.Dataset,
        record: xr.Dataset,
        *,
        onto: str | None,
        message: str,
        metadata: dict[str, Any],
        whole: bool,
    ) -> Commit:
        """Bring cube and record up to date if the newest snapshot is the one that they were made from."""
        ds, record = checked(ds, self._what), checked(record, f"record of {self._what}", RECORD)
        mine = {**metadata, _COMMIT: uuid.uuid4().hex}
        late = ConflictError(f"{self._what}: another writer committed first; nothing was written, run again")
        with self.exclusive(), told(self._what):
            head = self.head()
            if (head.id if head else None) != onto:
                raise late
            recipe = head is not None and head.metadata.get("recipe") != metadata.get("recipe")
            try:
                return self._merge(ds, _labels_of(ds), message, mine, record=record, whole=whole, changed=recipe)
            except icechunk.ConflictError:
                landed = self._committed(mine[_COMMIT])
                if landed is None:
                    raise late from None
                return landed

    def _merge(
        self,
        ds: xr.Dataset,
        new: Labels,
        message: str,
        metadata: dict[str, Any],
        *,
        record: xr.Dataset | None = None,
        whole: bool = False,
        changed: bool = False,
    ) -> Commit:
        """Merge into the head and commit; `icechunk.ConflictError` if another writer committed meanwhile."""
        session = self.repository.writable_session(BRANCH)
        base = session.snapshot_id  # and never the branch, which may have moved on since
        empty = self.repository.lookup_snapshot(base).parent_id is None
        old_group = zarr.create_group({}) if empty else self.open_group(base)
        merge = Merge.of({} if empty else _labels(old_group), new, self._what, whole=whole)
        target = zarr.open_group(session.store, mode="a", zarr_format=3)
        if empty:
            target.attrs.update({"universe": self.universe, "format_version": FORMAT_VERSION})
        changed |= apply(merge, ds, old_group, target)
        if record is not None:
            changed |= self._keep(record, old_group, target, whole)
        if not changed:
            session.discard_changes()
            return Commit(base, changed=False)
        facts = {"user": user(), **_summary(merge), **metadata}
        facts[_SEAL] = metadata_seal(session.store, facts)
        return Commit(session.commit(message, metadata=facts), changed=True)

    def _keep(self, record: xr.Dataset, old_group: zarr.Group, target: zarr.Group, whole: bool) -> bool:
        """Bring the record up to date; return whether any bit of it changes."""
        with naming():
            held = old_group.get(_RECORD)
        old = held if isinstance(held, zarr.Group) else None
        labels = {} if old is None else _labels(old_group, _RECORD)
        merge = Merge.of(labels, _labels_of(record), f"record of {self._what}", whole=whole)
        return apply(merge, record, old, target.require_group(_RECORD), RECORD)

    def open_record(self, snapshot_id: str) -> xr.Dataset | None:
        """Open lazily all that deliveries had said by a snapshot; None if it has no record.

        Raises
        ------
        CubeError
            As for `open_dataset`.
        """
        group = self.open_group(snapshot_id)
        with naming(), told(f"{self._what}, snapshot {snapshot_id}"):
            there = group.get(_RECORD) is not None
        return read_dataset(group.store, group=_RECORD) if there else None

    def facts(self, snapshot_id: str) -> dict[str, Any]:
        """Return the metadata of the commit that made a snapshot; raises as `open_dataset` does."""
        with told(f"{self._what}, snapshot {snapshot_id}"):
            return dict(self.repository.lookup_snapshot(snapshot_id).metadata)

    def _committed(self, mine: str) -> Commit | None:
        """Return the commit that was refused although it had landed: its answer was lost, and it was sent again."""
        newest = islice(self._ancestry(), _REMEMBERED)
        return next((Commit(info.id, changed=True) for info in newest if info.metadata.get(_COMMIT) == mine), None)

    def open_dataset(self, snapshot_id: str | None = None) -> xr.Dataset:
        """Open one state of the cube lazily; later writes do not show in it.

        Parameters
        ----------
        snapshot_id : str, optional
            Which one; the newest if left out.

        Raises
        ------
        CubeError
            If there is no such snapshot, the cube is still empty, or its metadata are damaged. A damaged chunk raises
            when it is read.
        """
        with told(f"{self._what}, snapshot {snapshot_id or 'newest'}"):
            if snapshot_id is None:
                snapshot_id = self.repository.lookup_branch(BRANCH)
            if self.repository.lookup_snapshot(snapshot_id).parent_id is None:
                raise CubeError(f"{self._what} is empty at snapshot {snapshot_id}; ingest the universe first")
            return read_dataset(self._store(snapshot_id), guard=self._guard(snapshot_id))

    def open_group(self, snapshot_id: str) -> zarr.Group:
        """Open one state of the cube as Zarr sees it, for reading; raises as `open_dataset` does."""
        guard = self._guard(snapshot_id)
        with told(f"{self._what}, snapshot {snapshot_id}"), guard.told():
            return zarr.open_group(GuardedStore(self._store(snapshot_id), guard), mode="r")

    def before(self, snapshot_id: str) -> Iterator[str]:
        """Yield the snapshots from which one was made, the last one first."""
        with told(f"{self._what}, snapshot {snapshot_id}"):
            for item in islice(self.repository.ancestry(snapshot_id=snapshot_id), 1, None):
                if item.parent_id is not None:
                    yield item.id

    def dates_in_common(self, before: str, after: str) -> pd.DatetimeIndex:
        """Return the dates, from the first on, that surely have the same cells in a snapshot and in one made from it.

        It is known by the chunks that the commits between them wrote, and nothing is read; none, if labels of the
        earlier one stand elsewhere. Tickers that came later have nothing on these dates.
        """
        with told(f"{self._what}, snapshots {before} and {after}"):
            written = self.repository.diff(from_snapshot_id=before, to_snapshot_id=after)
        group = self.open_group(after)
        old, new = _labels(self.open_group(before)), _labels(group)
        kept = all(dim in new and new[dim][: len(index)].equals(index) for dim, index in old.items() if dim != "date")
        if not kept or _outermost(written.new_arrays) or _outermost(written.deleted_arrays):
            return pd.DatetimeIndex([])
        size = min(len(old["date"]), len(new["date"]))
        same = old["date"][:size] == new["date"][:size]
        count = size if same.all() else int(same.argmin())
        for name in _outermost(written.updated_chunks) - set(new):
            at, array = CUBE[name].dims.index("date"), group[name]
            dates = array.chunks[at] if isinstance(array, zarr.Array) else 0
            count = min(count, *(chunk[at] * dates for chunk in written.updated_chunks[f"/{name}"]))
        return pd.DatetimeIndex(old["date"][:count])

    def head(self) -> SnapshotInfo | None:
        """Return the newest state; None while the cube is empty."""
        return next(self._ancestry(), None)

    def history(self) -> list[SnapshotInfo]:
        """Return all states, newest first."""
        return list(self._ancestry())

    def _guard(self, snapshot_id: str) -> Guard:
        remedy = "restore the cube from a copy, or read another snapshot"
        return Guard(f"{self._what}, snapshot {snapshot_id}", remedy, CubeError)

    def _store(self, snapshot_id: str) -> icechunk.IcechunkStore:
        """Return what Zarr opens, after its metadata have been compared, once, with the seal of the commit."""
        store = self.repository.readonly_session(snapshot_id=snapshot_id).store
        if snapshot_id in self._sound:
            return store
        facts = dict(self.repository.lookup_snapshot(snapshot_id).metadata)
        sealed = facts.pop(_SEAL, None)
        guard = self._guard(snapshot_id)
        with guard.told():
            found = None if sealed is None else metadata_seal(store, facts)
        if found != sealed:
            raise guard.damaged("its metadata", "are not what was committed")
        self._sound.add(snapshot_id)
        return store

    def _ancestry(self) -> Iterator[SnapshotInfo]:
        """Yield the states from the newest, without the empty one that every repository starts with."""
        with told(self._what):
            for item in self.repository.ancestry(branch=BRANCH):
                if item.parent_id is not None:
                    yield SnapshotInfo(item.id, item.written_at, item.message, dict(item.metadata))


def _storage(layout: Layout, universe: str) -> icechunk.Storage:
    icechunk.set_logs_filter("icechunk=error")  # it warns of concurrent commits, which the lock rules out
    return layout.store.cube(layout.cube(universe))


def _exists(layout: Layout, universe: str) -> bool:
    """Whether there is a cube; one that lost its branch is an error, not an empty place for a new one."""
    if icechunk.Repository.exists(_storage(layout, universe)):
        return True
    key = layout.cube(universe)
    if any(name.startswith(("chunks/", "manifests/")) for name in layout.store.files(key)):
        raise CubeError(f"{layout.store.locate(key)}: data without the branch '{BRANCH}'; restore refs/ from a copy")
    return False


def _exclusive(layout: Layout, universe: str) -> AbstractContextManager[None]:
    return layout.store.exclusive(f"{layout.cube(universe)}.lock")


@contextmanager
def told(what: str) -> Iterator[None]:
    """Turn the errors of storing into one line that names the cube."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, icechunk.IcechunkError | OSError) and not panicked(error):
            raise
        first = next((line.strip(" x×") for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise CubeError(f"{what}: {first}") from error


def _outermost(paths: Iterable[str]) -> set[str]:
    """Names of the arrays that readers see, without those of the record."""
    return {path[1:] for path in paths if "/" not in path[1:]}


def _labels(root: zarr.Group, group: str | None = None) -> Labels:
    return _labels_of(read_dataset(root.store, group=group))


def _labels_of(dataset: xr.Dataset) -> Labels:
    return {str(dim): dataset.indexes[dim] for dim in dataset.dims}


def _summary(merge: Merge) -> dict[str, Any]:
    dates = pd.DatetimeIndex(merge.new["date"])
    return {
        "first_date": f"{dates[0]:%Y-%m-%d}",
        "last_date": f"{dates[-1]:%Y-%m-%d}",
        **{
            f"new_{dim}s": len(merge.merged[dim]) - len(merge.old.get(dim, ()))
            for dim in ("date", "ticker", "portfolio")
        },
    }
