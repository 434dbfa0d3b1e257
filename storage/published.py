"""Publishing: the transaction that makes a version visible, and the pointer `latest`.

Here belongs everything that writes to published versions; finding and reading them is `storage.versions`, and
is offered here under the same names. What a version must hold is declared in `schemas.contracts`; whether it
may become `latest` is decided in `tasks`.

Publishing stages the folder under a hidden name, reads it back, syncs it, renames it, and only then moves
`latest`; each step is atomic, so that a process may die anywhere and readers see the old state whole. Running
again completes what is missing. A version that exists is never written to again.

``xr.open_zarr(".../latest")`` follows the link at every chunk that it reads. A reader that stays open while a
new version is promoted would mix the two; it should resolve the link first
(``Path(".../latest").resolve()``), or load at once. `open_version` always opens the version itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy.typing as npt
import xarray as xr
from pydantic import ValidationError

from schemas.contracts import VERSION, Manifest, validate
from schemas.errors import ConflictError, CorruptionError, PublishError
from schemas.refs import VersionRef
from storage.arrays import LABEL_ATTRS, date_blocks, read_dataset, same_bits, write_dataset
from storage.files import fsync, locked, place, sha256_file, staging, write_atomic
from storage.layout import Layout
from storage.versions import (
    LATEST,
    MANIFEST,
    SEAL,
    STATE,
    files_in,
    find,
    latest,
    list_versions,
    manifest_in,
    open_version,
    read_manifest,
    read_state,
    resolve,
    seal,
    verify,
)
from storage.weights import save_state

__all__ = [
    "latest",
    "list_versions",
    "open_version",
    "promote",
    "publish",
    "read_manifest",
    "read_state",
    "resolve",
    "verify",
]

_LOCK = ".lock"
_BROUGHT = ("frequency", "periods_per_year")
"""Attributes that a dataset must bring along; the others come from the manifest."""


def publish(
    layout: Layout,
    dataset: xr.Dataset,
    manifest: Manifest,
    state: dict[str, npt.NDArray[Any]],
    *,
    promote: bool,
) -> VersionRef:
    """Publish one version whole, or nothing.

    Parameters
    ----------
    layout : Layout
        Where.
    dataset : xarray.Dataset
        As `schemas.contracts.VERSION` says, with the attributes `frequency` and `periods_per_year`. It may be
        lazy: 256 dates are in memory at a time.
    manifest : Manifest
        What the version was made from; its checksums are filled in here.
    state : dict[str, numpy.ndarray]
        Arrays of the model's state.
    promote : bool
        Whether the version is to become `latest`. Publishing never moves `latest` to an earlier as-of date (a
        backfill that ends late would otherwise unseat the champion); the function `promote` does.

    Returns
    -------
    VersionRef
        With `changed=False` if the same version was there already; `created_at` does not count. `promoted`
        says whether `latest` names it now.

    Raises
    ------
    ConflictError
        If other content was published under this version, or another process held the lock for ten minutes.
    PublishError
        If the dataset or the manifest breaks the contract, or storing fails; nothing became visible.
    CorruptionError
        If what was read back is not what was written.
    """
    ref = _reference(manifest)
    complete = _complete(dataset, manifest)
    home = layout.published(ref.universe, ref.model)
    with _told(_shown(ref)), staging(home) as folder:
        _write(folder, complete, manifest, state)
        _read_back(folder, complete)
        with locked(home / _LOCK):
            changed = place(folder, home / ref.version)
            if not changed:
                _refuse_other(manifest_in(home / ref.version), manifest_in(folder))
            champion = latest(layout, ref.universe, ref.model)
            if promote and (champion is None or champion.version[:10] <= ref.version[:10]):
                champion = _point_latest(home, ref)
    promoted = champion is not None and champion.version == ref.version
    return ref.model_copy(update={"changed": changed, "promoted": promoted})


def promote(layout: Layout, universe: str, model: str, version: str) -> VersionRef:
    """Make `latest` name a published version, at once for all readers; also an earlier one, to roll back.

    Raises
    ------
    PublishError
        If there is no such version.
    """
    ref = find(layout, universe, model, version) or resolve(layout, f"{universe}/{model}/{version}")
    home = layout.published(universe, model)
    with _told(_shown(ref)), locked(home / _LOCK):
        return _point_latest(home, ref)


def _reference(manifest: Manifest) -> VersionRef:
    try:
        ref = VersionRef(universe=manifest.universe, model=manifest.model, version=manifest.version)
    except ValidationError:
        raise PublishError(
            f"version '{manifest.version}' of {manifest.universe}/{manifest.model} is not named as the as-of "
            "date, a dash and 8 hexadecimal digits"
        ) from None
    if ref.version[:10] != manifest.as_of.isoformat():
        raise PublishError(f"{_shown(ref)}: the manifest is as of {manifest.as_of}, which its name does not say")
    return ref


def _complete(dataset: xr.Dataset, manifest: Manifest) -> xr.Dataset:
    """Check a dataset against the contract, and give it and its variables all attributes."""
    what = f"{manifest.universe}/{manifest.model}/{manifest.version}"
    validate(dataset, VERSION, PublishError, what)
    bare = sorted(str(dim) for dim in dataset.dims if dim not in dataset.indexes)
    if bare:
        raise PublishError(f"{what}: axes {', '.join(bare)} have no labels")
    doubled = sorted(str(dim) for dim, index in dataset.indexes.items() if index.has_duplicates)
    if doubled:
        raise PublishError(f"{what}: axes {', '.join(doubled)} have labels that are given twice")
    dates = dataset.indexes["date"]
    if not dates.is_monotonic_increasing or dates[-1].date() != manifest.as_of:
        raise PublishError(f"{what}: dates must be in order and end on {manifest.as_of}, the as-of date")
    missing = [name for name in _BROUGHT if name not in dataset.attrs]
    if missing:
        raise PublishError(f"{what}: the dataset lacks the attributes {', '.join(missing)}")
    facts = manifest.model_dump(
        mode="json",
        include={
            "universe",
            "model",
            "version",
            "as_of",
            "snapshot_id",
            "code_version",
            "config_digest",
            "format_version",
        },
    )
    complete = dataset.assign_attrs(facts)
    for name, variable in complete.variables.items():
        variable.attrs = VERSION[str(name)].attrs if name in VERSION else LABEL_ATTRS.get(str(name), {})
    return complete


def _write(folder: Path, dataset: xr.Dataset, manifest: Manifest, state: dict[str, npt.NDArray[Any]]) -> None:
    write_dataset(folder, date_blocks(dataset), consolidated=True)
    save_state(folder / STATE, state)
    checksums = {name: sha256_file(folder / name) for name in files_in(folder)}
    complete = manifest.model_copy(update={"checksums": checksums})
    write_atomic(folder / MANIFEST, complete.model_dump_json(indent=2) + "\n")
    write_atomic(folder / SEAL, seal(folder / MANIFEST))


def _read_back(folder: Path, written: xr.Dataset) -> None:
    """Compare what a reader will see with what was to be written, bit for bit."""
    manifest_in(folder)
    stored = read_dataset(folder, consolidated=True)
    validate(stored, VERSION, CorruptionError, str(folder))
    for dim, index in written.indexes.items():
        if not index.equals(stored.indexes[dim]):
            raise CorruptionError(f"{folder}: axis '{dim}' was not stored as it was given; is the disk sound?")
    for one, other in zip(date_blocks(written), date_blocks(stored), strict=True):
        for name in written.data_vars:
            if not same_bits(one[name].values, other[name].values):
                raise CorruptionError(f"{folder}: '{name}' was not stored as it was given; is the disk sound?")


def _refuse_other(there: Manifest, mine: Manifest) -> None:
    before, after = (one.model_dump(mode="json", exclude={"created_at"}) for one in (there, mine))
    different = sorted(field for field in before if before[field] != after[field])
    if different:
        raise ConflictError(
            f"{mine.universe}/{mine.model}/{mine.version} is already published with other content (different: "
            f"{', '.join(different)}); it stays as it is, publish under another version"
        )


def _point_latest(home: Path, ref: VersionRef) -> VersionRef:
    """Swap the link in one step; the caller holds the lock."""
    link, fresh = home / LATEST, home / f".{LATEST}.new"
    if not link.is_symlink() or str(link.readlink()) != ref.version:
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(ref.version)
        fresh.replace(link)
        fsync(home)
    return ref.model_copy(update={"promoted": True})


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn the errors of writing into one line that names the version."""
    try:
        yield
    except OSError as error:
        raise PublishError(f"{what}: cannot be written: {error}; nothing became visible, run again") from error


def _shown(ref: VersionRef) -> str:
    return f"{ref.universe}/{ref.model}/{ref.version}"
