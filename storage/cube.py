"""The cube of a universe: every committed state of its data, in one Icechunk repository.

Here belongs opening, committing and the history. Which cell an upsert changes belongs to `storage.upsert`,
chunks and compression to `storage.arrays`.

Whatever an upsert changes becomes visible in one commit; readers keep the snapshot they opened, for ever. On
a local disk Icechunk does not notice that another commit has slipped in between reading and committing, and
drops one of the two in silence. A file lock therefore spans the whole of reading, merging and committing, and
no other code may write to the repository. A process that dies leaves unreferenced chunks and no commit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import icechunk
import pandas as pd
import xarray as xr
import zarr

from schemas.contracts import FORMAT_VERSION
from schemas.errors import CubeError
from storage.arrays import read_dataset
from storage.files import locked, user
from storage.layout import Layout
from storage.upsert import Labels, Merge, apply, checked

BRANCH = "main"


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
    """

    def __init__(self, layout: Layout, universe: str, repository: icechunk.Repository) -> None:
        self.universe = universe
        self._what = f"cube '{universe}'"
        self._lock = layout.cube(universe).with_suffix(".lock")
        self._repository = repository

    @classmethod
    def open(cls, layout: Layout, universe: str) -> Cube:
        """Open the cube of a universe.

        Raises
        ------
        CubeError
            If there is none.
        """
        storage = _storage(layout, universe)
        with _told(f"cube '{universe}'"):
            if not layout.cube(universe).is_dir() or not icechunk.Repository.exists(storage):
                raise CubeError(f"cube '{universe}' does not exist under {layout.cubes}; ingest the universe first")
            return cls(layout, universe, icechunk.Repository.open(storage))

    @classmethod
    def open_or_create(cls, layout: Layout, universe: str) -> Cube:
        """Open the cube of a universe, and create an empty one if there is none."""
        path = layout.cube(universe)
        with _told(f"cube '{universe}'"), locked(path.with_suffix(".lock")):
            path.mkdir(parents=True, exist_ok=True)
            return cls(layout, universe, icechunk.Repository.open_or_create(_storage(layout, universe)))

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
            If another process held the cube for ten minutes.
        CubeError
            If storing fails.
        """
        ds = checked(ds, self._what)
        new = {str(dim): ds.indexes[str(dim)] for dim in ds.dims}
        with locked(self._lock), _told(self._what):
            base = self._repository.readonly_session(BRANCH)
            session = self._repository.writable_session(BRANCH)
            empty = self.head() is None
            old_group = zarr.create_group({}) if empty else zarr.open_group(base.store, mode="r")
            merge = Merge.of(_labels(old_group), new, self._what)
            target = zarr.open_group(session.store, mode="a", zarr_format=3)
            if empty:
                target.attrs.update({"universe": self.universe, "format_version": FORMAT_VERSION})
            if not apply(merge, ds, old_group, target):
                session.discard_changes()
                return Commit(base.snapshot_id, changed=False)
            facts = {"user": user(), **_summary(merge), **metadata}
            return Commit(session.commit(message, metadata=facts), changed=True)

    def open_dataset(self, snapshot_id: str | None = None) -> xr.Dataset:
        """Open one state of the cube lazily; later writes do not show in it.

        Parameters
        ----------
        snapshot_id : str, optional
            Which one; the newest if left out.

        Raises
        ------
        CubeError
            If there is no such snapshot, or the cube is still empty.
        """
        with _told(f"{self._what}, snapshot {snapshot_id or 'newest'}"):
            if snapshot_id is None:
                snapshot_id = self._repository.lookup_branch(BRANCH)
            if self._repository.lookup_snapshot(snapshot_id).parent_id is None:
                raise CubeError(f"{self._what} is empty at snapshot {snapshot_id}; ingest the universe first")
            return read_dataset(self._repository.readonly_session(snapshot_id=snapshot_id).store)

    def head(self) -> SnapshotInfo | None:
        """Return the newest state; None while the cube is empty."""
        return next(self._ancestry(), None)

    def history(self) -> list[SnapshotInfo]:
        """Return all states, newest first."""
        return list(self._ancestry())

    def _ancestry(self) -> Iterator[SnapshotInfo]:
        """Yield the states from the newest, without the empty one that every repository starts with."""
        with _told(self._what):
            for item in self._repository.ancestry(branch=BRANCH):
                if item.parent_id is not None:
                    yield SnapshotInfo(item.id, item.written_at, item.message, dict(item.metadata))


def _storage(layout: Layout, universe: str) -> icechunk.Storage:
    icechunk.set_logs_filter("icechunk=error")  # it warns of concurrent commits, which the lock rules out
    return icechunk.local_filesystem_storage(str(layout.cube(universe)))


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn the errors of storing into one line that names the cube."""
    try:
        yield
    except (icechunk.IcechunkError, OSError) as error:
        first = next((line.strip(" x×") for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise CubeError(f"{what}: {first}") from error


def _labels(group: zarr.Group) -> Labels:
    dataset = read_dataset(group.store)
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
