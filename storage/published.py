"""Publishing: the transaction that makes a version visible, and what moves or guards the pointer `latest`.

Here belongs everything that writes to published versions; finding and reading them is `storage.versions`, and
is offered here under the same names. What a version must hold is declared in `schemas.contracts`; whether it
may become `latest` is decided in `tasks`. The pointer document and its swap are `storage.pointer`, what a disk and
an object store do differently is `storage.stores`.

Publishing stages the folder locally, reads it back, and makes it visible in one step; a version that continues another
one shares with it all files that stay as they are (`storage.continuing`). Promoting swaps a small document. A process
may die anywhere and readers see the old state whole; running again completes what is missing. A version that exists is
never written to again.

A known hole: ``xr.open_zarr(".../latest")`` on a disk follows the link at every chunk that it reads. A reader that
stays open while a new version is promoted mixes the two, and nothing on the side of the writer can prevent it. Whoever
reads lazily asks the pointer first; it needs no factorcube, and works alike on an object store::

    version = json.load(fsspec.open(".../us_large/ipca/latest.json").open())["promotions"][-1]["version"]
    dataset = xr.open_zarr(f".../us_large/ipca/{version}")

`open_version` always opens the version itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy.typing as npt
import xarray as xr
from pydantic import ValidationError

from schemas.base import require_line
from schemas.contracts import Manifest, differing_fields
from schemas.errors import ConflictError, CorruptionError, ExecutionError, PublishError
from schemas.refs import VersionRef
from storage import pointer, version_files
from storage.checksums import damages, manifest_in, read_manifest, verify
from storage.continuing import Parent
from storage.layout import Layout
from storage.pointer import Pointer
from storage.versions import (
    find,
    latest,
    latest_at,
    list_versions,
    locate,
    locate_latest,
    open_version,
    pins,
    promotions,
    read_state,
    resolve,
)

__all__ = [
    "damages",
    "find",
    "latest",
    "latest_at",
    "list_versions",
    "locate",
    "locate_latest",
    "open_version",
    "pin",
    "pins",
    "promote",
    "promotions",
    "publish",
    "read_manifest",
    "read_state",
    "remove",
    "resolve",
    "unpin",
    "verify",
]

ANY: Final = "<any>"
"""Whatever the champion is now."""
_REMOVAL = timedelta(hours=1)
"""After this time whoever removes a version has died."""


def publish(
    layout: Layout,
    dataset: xr.Dataset,
    manifest: Manifest,
    state: dict[str, npt.NDArray[Any]],
    *,
    parent: VersionRef | None = None,
) -> VersionRef:
    """Publish one version whole, or nothing; `latest` stays where it is.

    Parameters
    ----------
    layout : Layout
        Where.
    dataset : xarray.Dataset
        As `schemas.contracts.VERSION` says, with the attributes `frequency` and `periods_per_year`. It may be
        lazy: 256 dates are in memory at a time. Behind a parent only the rows after it, in memory.
    manifest : Manifest
        What the version was made from; its checksums are filled in here.
    state : dict[str, numpy.ndarray]
        Arrays of the model's state.
    parent : VersionRef, optional
        A version of the same model that this one continues: its rows come first, and its files are shared. New
        tickers stand after its own; before they joined they have no numbers, and a weight of 0 where one is defined.

    Returns
    -------
    VersionRef
        With `changed=False` if the same version was there already; `created_at` does not count. `promoted`
        says whether `latest` names it.

    Raises
    ------
    ConflictError
        If other content was published under this version, or it is being removed.
    PublishError
        If the dataset or the manifest breaks the contract, the rows do not continue the parent, or storing fails;
        nothing became visible.
    CorruptionError
        If what was read back is not what was written, or a file of the parent that is read or was changed is damaged.
    """
    ref = version_files.reference(manifest)
    complete = version_files.completed(dataset, manifest)
    store, home = layout.store, layout.home(ref.universe, ref.model)
    with _told(ref):
        _finish_removals(layout, ref)
        before = None if parent is None else Parent.of(layout, parent)
        if before is not None:
            before.require_continued(complete)
        with store.staging(home) as folder:
            shared = version_files.write(folder, complete, manifest, state, before)
            mine = version_files.read_back(folder, complete, before)
            key = f"{home}/{ref.version}"
            changed = store.place(folder, key, lambda there: _refuse_other(there, mine), shared)
        if not changed:
            manifest_in(store, key)
        champion = pointer.read(layout, ref.universe, ref.model).champion
    return ref.model_copy(update={"changed": changed, "promoted": champion == ref.version})


def promote(
    layout: Layout,
    universe: str,
    model: str,
    version: str,
    *,
    reason: str,
    expected: str | None = ANY,
    forward_only: bool = False,
) -> VersionRef:
    """Make `latest` name a published version, at once for all readers; also an earlier one, to roll back.

    Parameters
    ----------
    layout : Layout
        Where.
    universe, model, version : str
        Which version.
    reason : str
        Why, for the history.
    expected : str, optional
        The champion that the decision was based on; None if there was none. Any if left out.
    forward_only : bool
        Leave a champion of a later as-of date where it is: a backfill that ends late would otherwise unseat it.

    Returns
    -------
    VersionRef
        `promoted` says whether `latest` names it now. Promoting the champion changes nothing.

    Raises
    ------
    PublishError
        If there is no such version.
    CorruptionError
        If a byte of it is damaged.
    ConfigError
        If the reason is not one line of plain text.
    ConflictError
        If the champion is neither this version nor `expected`; the message says who promoted it, when and why.
    """
    require_line(reason, "the reason")
    ref = find(layout, universe, model, version) or resolve(layout, f"{universe}/{model}/{version}")

    def step(now: Pointer) -> Pointer:
        champion = now.champion
        if champion == version:
            return now
        if expected not in (ANY, champion):
            raise ConflictError(f"{ref} is not promoted: {_told_champion(now)}, expected {expected or 'none'}")
        if version in now.removing or find(layout, universe, model, version) is None:
            raise PublishError(f"{ref} is being removed; publish it again first")
        if forward_only and champion is not None and champion[:10] > version[:10]:
            return now
        return now.promoted(version, reason)

    with _told(ref):
        after = pointer.change(layout, universe, model, step)
    return ref.model_copy(update={"promoted": after.champion == version})


def pin(layout: Layout, universe: str, model: str, version: str, *, reason: str) -> None:
    """Keep a version whatever the retention rule says; raises as `promote` does, also if it is damaged."""
    require_line(reason, "the reason")
    ref = find(layout, universe, model, version) or resolve(layout, f"{universe}/{model}/{version}")

    def step(now: Pointer) -> Pointer:
        if version in now.removing:
            raise PublishError(f"{ref} is being removed; publish it again first")
        return now.model_copy(update={"pins": {**now.pins, version: reason}})

    with _told(ref):
        pointer.change(layout, universe, model, step)


def unpin(layout: Layout, universe: str, model: str, version: str) -> None:
    """Leave a version to the retention rule again.

    Raises
    ------
    PublishError
        If it is not pinned.
    """

    def step(now: Pointer) -> Pointer:
        if version not in now.pins:
            raise PublishError(
                f"{universe}/{model}/{version} is not pinned; pinned: {', '.join(sorted(now.pins)) or 'none'}"
            )
        return now.model_copy(update={"pins": {one: why for one, why in now.pins.items() if one != version}})

    with _told(f"{universe}/{model}/{version}"):
        pointer.change(layout, universe, model, step)


def remove(layout: Layout, ref: VersionRef) -> None:
    """Remove a version for ever: invisible first, then its files.

    Also removes what an interrupted upload or removal of it has left. A reader that has it open meets missing files.

    Raises
    ------
    PublishError
        If it is the champion or pinned.
    """

    def begin(now: Pointer) -> Pointer:
        if now.champion == ref.version:
            raise PublishError(f"{ref} is the champion; promote another version first")
        if ref.version in now.pins:
            raise PublishError(f"{ref} is pinned ({now.pins[ref.version]}); unpin it first")
        return now.model_copy(update={"removing": {**now.removing, ref.version: datetime.now(UTC)}})

    def end(now: Pointer) -> Pointer:
        left = {one: since for one, since in now.removing.items() if one != ref.version}
        return now.model_copy(update={"removing": left})

    with _told(ref):
        pointer.change(layout, ref.universe, ref.model, begin)
        layout.store.remove(f"{layout.home(ref.universe, ref.model)}/{ref.version}")
        pointer.change(layout, ref.universe, ref.model, end)


def _finish_removals(layout: Layout, ref: VersionRef) -> None:
    """Remove what died while it removed this version; refuse while another process may still be at it."""
    since = pointer.read(layout, ref.universe, ref.model).removing.get(ref.version)
    if since is None:
        return
    if datetime.now(UTC) - since < _REMOVAL:
        raise ConflictError(
            f"{ref} is being removed since {since:%Y-%m-%d %H:%M} UTC; run again when that has ended, or "
            f"{_REMOVAL} after it began if it has died"
        )
    remove(layout, ref)


def _refuse_other(there: bytes, mine: Manifest) -> None:
    what = str(mine)
    try:
        theirs = Manifest.model_validate_json(there)
    except ValidationError:
        raise CorruptionError(f"{what} is already published, but its manifest cannot be read; remove it") from None
    if different := differing_fields(theirs, mine):
        raise ConflictError(
            f"{what} is already published with other content (different: {', '.join(different)}); it stays as it is, "
            "publish under another version"
        )


@contextmanager
def _told(what: object) -> Iterator[None]:
    """Turn the errors of writing into one line that names the version."""
    try:
        yield
    except (OSError, ExecutionError) as error:
        raise PublishError(f"{what}: cannot be written: {error}; nothing became visible, run again") from error


def _told_champion(now: Pointer) -> str:
    if not now.promotions:
        return "there is no champion"
    last = now.promotions[-1]
    return f"the champion is {last.version}, promoted by {last.by} at {last.promoted_at:%F %T} UTC ({last.reason})"
