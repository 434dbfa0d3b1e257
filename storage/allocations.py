"""Published weights: one immutable folder for each name and as-of date, `allocations/<universe>/<name>/<date>`.

Here belong publishing them, finding them and reading them back. What they hold is declared in `schemas.allocated`, how
a store makes a folder visible in `storage.stores`. The folder is a consolidated Zarr v3 group, as a version's is, with
`manifest.json` and its seal beside the arrays: ``xr.open_zarr`` opens it without factorcube.

There is one set of weights for a name and a date, for ever: whoever held them held these. A second one of other
content is refused, and takes another name.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from datetime import date

import xarray as xr
from pydantic import ValidationError

from schemas.allocated import ALLOCATION, AllocationManifest
from schemas.contracts import differing_fields, validate
from schemas.errors import ConflictError, CorruptionError, PublishError, StoreError
from schemas.refs import AllocationRef, VersionRef
from storage.arrays import LABEL_ATTRS, read_dataset, same_bits, write_dataset
from storage.checksums import manifest_seal
from storage.damage import Guard
from storage.files import write_atomic
from storage.layout import Layout
from storage.stores import MANIFEST, SEAL
from storage.stores.local import LocalStore

_REMEDY = "restore the weights from a copy, or remove their folder and allocate again"


def publish_allocation(layout: Layout, dataset: xr.Dataset, manifest: AllocationManifest) -> AllocationRef:
    """Publish weights whole, or nothing.

    Parameters
    ----------
    layout : Layout
        Where.
    dataset : xarray.Dataset
        As `schemas.allocated.ALLOCATION` says.
    manifest : AllocationManifest
        What they were made from; its checksums are filled in here.

    Returns
    -------
    AllocationRef
        With `changed=False` if the same weights were there already; `created_at` does not count.

    Raises
    ------
    ConflictError
        If other weights were published under this name as of this date.
    PublishError
        If the dataset breaks the contract, or storing fails; nothing became visible.
    CorruptionError
        If what was read back is not what was written.
    """
    validate(dataset, ALLOCATION, PublishError, str(manifest))
    complete = dataset.assign_attrs(title=f"weights {manifest}", version=manifest.version, as_of=f"{manifest.as_of}")
    for name, variable in complete.variables.items():
        variable.attrs = ALLOCATION[str(name)].attrs if name in ALLOCATION else LABEL_ATTRS.get(str(name), {})
    ref = AllocationRef(universe=manifest.universe, name=manifest.name, as_of=manifest.as_of)
    home = layout.allocations(ref.universe, ref.name)
    try:
        with layout.store.staging(home) as folder:
            write_dataset(folder, [complete], consolidated=True)
            files = LocalStore(folder)
            sums = {name: hashlib.sha256(files.read(name)).hexdigest() for name in files.files("")}
            mine = manifest.model_copy(update={"checksums": sums})
            content = mine.model_dump_json(indent=2) + "\n"
            write_atomic(folder / MANIFEST, content)
            write_atomic(folder / SEAL, manifest_seal(content.encode()))
            _require_same(read_dataset(folder, consolidated=True, guard=_guard(str(folder))), complete, str(folder))
            changed = layout.store.place(folder, _key(layout, ref), lambda there: _refuse_other(there, mine))
    except OSError as error:
        raise PublishError(f"{ref}: cannot be written: {error}; nothing became visible, run again") from error
    return ref.model_copy(update={"changed": changed})


def find_allocation(layout: Layout, universe: str, name: str, as_of: date) -> AllocationRef | None:
    """Return the weights of a name as of a date; None if there are none."""
    ref = AllocationRef(universe=universe, name=name, as_of=as_of, changed=False)
    return ref if layout.store.complete(_key(layout, ref)) else None


def list_allocations(layout: Layout, universe: str, name: str) -> list[AllocationRef]:
    """Return all weights that were published under a name, oldest first."""
    found = []
    for folder in layout.store.folders(layout.allocations(universe, name)):
        with suppress(ValueError):  # what is no date is not ours
            found.append(find_allocation(layout, universe, name, date.fromisoformat(folder)))
    return sorted((ref for ref in found if ref is not None), key=lambda ref: ref.as_of)


def allocations_of(layout: Layout, version: VersionRef) -> list[AllocationRef]:
    """Return all weights that were made from a version, in the order of their names."""
    found = [
        find_allocation(layout, version.universe, name, version.as_of) for name in layout.allocated(version.universe)
    ]
    made = [ref for ref in found if ref is not None]
    return [ref for ref in made if read_allocation(layout, ref)[1].version == str(version)]


def read_allocation(layout: Layout, ref: AllocationRef) -> tuple[xr.Dataset, AllocationManifest]:
    """Read weights and their manifest, every file checked against its checksum.

    Raises
    ------
    PublishError
        If there are no such weights.
    CorruptionError
        If a file is damaged or missing, or describes others.
    """
    store, key = layout.store, _key(layout, ref)
    if not store.complete(key):
        raise PublishError(f"{store.locate(key)}: no such published weights")
    guard = _guard(store.locate(key))
    try:
        content = store.read(f"{key}/{MANIFEST}")
        if store.read(f"{key}/{SEAL}") != manifest_seal(content):
            raise guard.damaged(MANIFEST, f"does not match {SEAL}")
        manifest = AllocationManifest.model_validate_json(content)
        for name, expected in manifest.checksums.items():
            if hashlib.sha256(store.read(f"{key}/{name}")).hexdigest() != expected:
                raise guard.damaged(name, "does not match its checksum")
    except StoreError:
        raise
    except (OSError, ValidationError) as error:
        raise guard.damaged(MANIFEST, f"or a file that it names cannot be read ({type(error).__name__})") from error
    if (manifest.universe, manifest.name, manifest.as_of) != (ref.universe, ref.name, ref.as_of):
        raise guard.damaged(MANIFEST, f"describes {manifest}")
    dataset = read_dataset(store.group(key), guard=guard, consolidated=True).load()
    return dataset, manifest


def locate_allocation(layout: Layout, ref: AllocationRef) -> str:
    """Return the path or URL of weights, as readers without factorcube open them."""
    return layout.store.locate(_key(layout, ref))


def _key(layout: Layout, ref: AllocationRef) -> str:
    return f"{layout.allocations(ref.universe, ref.name)}/{ref.as_of}"


def _guard(what: str) -> Guard:
    return Guard(what, _REMEDY)


def _require_same(stored: xr.Dataset, written: xr.Dataset, where: str) -> None:
    for name in written.data_vars:
        same = same_bits(written[name].values, stored[name].values)
        if not (same and all(index.equals(stored.indexes[dim]) for dim, index in written[name].indexes.items())):
            raise CorruptionError(f"{where}: '{name}' was not stored as it was given; is the disk sound?")


def _refuse_other(there: bytes, mine: AllocationManifest) -> None:
    try:
        theirs = AllocationManifest.model_validate_json(there)
    except ValidationError:
        raise CorruptionError(f"{mine} is already published, but its manifest cannot be read; {_REMEDY}") from None
    if different := differing_fields(theirs, mine):
        raise ConflictError(
            f"{mine} is already published with other content (different: {', '.join(different)}), made from "
            f"{theirs.version}; weights of a date never change, allocate under another name"
        )
