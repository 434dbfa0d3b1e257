"""A version before anybody sees it: checked against the contract, written to a staging folder and read back.

Here belongs what becomes the files of one version. Making them visible belongs to `storage.published`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy.typing as npt
import xarray as xr
from pydantic import ValidationError

from schemas.contracts import Manifest, validate
from schemas.errors import CorruptionError, PublishError
from schemas.refs import VersionRef
from schemas.statistics import version_contract
from storage.arrays import LABEL_ATTRS, date_blocks, read_dataset, same_bits, write_dataset
from storage.checksums import manifest_in, manifest_seal
from storage.continuing import Overlay, Parent, append, require_kept
from storage.damage import Guard
from storage.files import write_atomic
from storage.stores import MANIFEST, SEAL, Shared
from storage.stores.local import LocalStore
from storage.versions import STATE
from storage.weights import save_state

_BROUGHT = ("frequency", "periods_per_year")
"""Attributes that a dataset must bring along; the others come from the manifest."""


def reference(manifest: Manifest) -> VersionRef:
    """Return the version that a manifest describes; `PublishError` if its name does not say its as-of date."""
    try:
        ref = VersionRef(universe=manifest.universe, model=manifest.model, version=manifest.version)
    except ValidationError:
        raise PublishError(
            f"version '{manifest.version}' of {manifest.universe}/{manifest.model} is not named as the as-of "
            "date, a dash and 8 hexadecimal digits"
        ) from None
    if ref.version[:10] != manifest.as_of.isoformat():
        raise PublishError(f"{ref}: the manifest is as of {manifest.as_of}, which its name hides")
    return ref


def completed(dataset: xr.Dataset, manifest: Manifest) -> xr.Dataset:
    """Check a dataset against the contract, and give it and its variables all attributes."""
    what = str(manifest)
    contract = version_contract(dataset)
    validate(dataset, contract, PublishError, what)
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
        variable.attrs = contract[str(name)].attrs if name in contract else LABEL_ATTRS.get(str(name), {})
    return complete


def write(
    folder: Path,
    dataset: xr.Dataset,
    manifest: Manifest,
    state: dict[str, npt.NDArray[Any]],
    parent: Parent | None = None,
) -> Shared | None:
    """Write the files of a version, the manifest with the checksums of all, and its seal.

    Behind a parent only the files that it does not have are written; those that it has are returned.
    """
    if parent is None:
        write_dataset(folder, date_blocks(dataset), consolidated=True)
    else:
        append(Overlay.over(folder, parent), dataset)
    save_state(folder / STATE, state)
    files = LocalStore(folder)
    own = {name: hashlib.sha256(files.read(name)).hexdigest() for name in files.files("")}
    shared = None if parent is None else parent.shared(own)
    checksums = own if shared is None else dict(sorted({**shared.checksums, **own}.items()))
    content = manifest.model_copy(update={"checksums": checksums}).model_dump_json(indent=2) + "\n"
    write_atomic(folder / MANIFEST, content)
    write_atomic(folder / SEAL, manifest_seal(content.encode()))
    return shared


def read_back(folder: Path, written: xr.Dataset, parent: Parent | None = None) -> Manifest:
    """Compare what a reader will see with what was to be written, bit for bit; return the manifest.

    Behind a parent these are the rows after it, and those of its own that lie in chunks which were written anew.
    """
    manifest = manifest_in(LocalStore(folder.parent), folder.name)
    store = folder if parent is None else Overlay.over(folder, parent)
    stored = read_dataset(store, guard=Guard(str(folder), "is the disk sound?"), consolidated=True)
    validate(stored, version_contract(stored), CorruptionError, str(folder))
    if parent is not None:
        require_kept(stored, parent)
        stored = stored.isel(date=slice(parent.dataset.sizes["date"], None))
    for dim, index in written.indexes.items():
        if not index.equals(stored.indexes[dim]):
            raise CorruptionError(f"{folder}: axis '{dim}' was not stored as it was given; is the disk sound?")
    for one, other in zip(date_blocks(written), date_blocks(stored), strict=True):
        for name in written.data_vars:
            if not same_bits(one[name].values, other[name].values):
                raise CorruptionError(f"{folder}: '{name}' was not stored as it was given; is the disk sound?")
    return manifest
