"""Finding and reading published versions. Nothing here writes; that is `storage.published`.

A version is one folder, `published/<universe>/<model>/<version>`, on a disk or in an object store. The folder itself is
a consolidated Zarr v3 group, so that ``xr.open_zarr`` opens it. Beside the arrays lie `manifest.json` (everything the
version was made from, and the checksum of every other file), `manifest.sha256` for the manifest itself
(``sha256sum -c`` reads it), and `state.safetensors`. `latest.json` beside the versions names the champion; on a disk
`latest` is a symbolic link to it.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy.typing as npt
import xarray as xr
from pydantic import ValidationError

from schemas.contracts import Manifest, Promotion
from schemas.errors import PublishError
from schemas.refs import VersionRef
from storage import pointer
from storage.arrays import read_dataset
from storage.checksums import REMEDY, damaged, key_of, read_checked, read_manifest
from storage.damage import Guard
from storage.layout import VERSIONS, Layout
from storage.pointer import LATEST
from storage.stores import ROOT
from storage.weights import parse_state

STATE = "state.safetensors"


def find(layout: Layout, universe: str, model: str, version: str) -> VersionRef | None:
    """Return the version of exactly this name; None if there is none."""
    try:
        ref = VersionRef(universe=universe, model=model, version=version, changed=False)
    except ValidationError:
        return None
    return ref if layout.store.complete(key_of(layout, ref)) else None


def latest(layout: Layout, universe: str, model: str) -> VersionRef | None:
    """Return the champion; None if none was promoted yet.

    Raises
    ------
    PublishError
        If the pointer does not lead to a version of this model.
    """
    champion = pointer.read(layout, universe, model).champion
    if champion is None:
        return None
    ref = find(layout, universe, model, champion)
    if ref is None:
        where = f"{layout.store.locate(layout.home(universe, model))}/{LATEST}"
        raise PublishError(f"{where} leads to {champion}, which is not a version beside it; promote a version again")
    return ref.model_copy(update={"promoted": True})


def latest_at(layout: Layout, universe: str, model: str, moment: datetime) -> VersionRef | None:
    """Return what `latest` was at a moment; None if nothing was promoted before it. It may have been removed since.

    Raises
    ------
    PublishError
        If the moment has no time zone.
    """
    if moment.tzinfo is None:
        raise PublishError(f"{moment.isoformat()} has no time zone; say in which time zone it is meant")
    history = pointer.read(layout, universe, model).promotions
    known = [entry.version for entry in history if entry.promoted_at <= moment]
    if not known:
        return None
    promoted = known[-1] == history[-1].version
    return VersionRef(universe=universe, model=model, version=known[-1], changed=False, promoted=promoted)


def promotions(layout: Layout, universe: str, model: str) -> tuple[Promotion, ...]:
    """Return the history of `latest`, oldest first."""
    return pointer.read(layout, universe, model).promotions


def pins(layout: Layout, universe: str, model: str) -> dict[str, str]:
    """Return the versions that are kept whatever the retention rule says, with the reasons."""
    return dict(pointer.read(layout, universe, model).pins)


def list_versions(layout: Layout, universe: str | None = None, model: str | None = None) -> list[VersionRef]:
    """Return all published versions, of one universe or one model name if asked, in the order of their names.

    `changed` is False, and `promoted` says which ones `latest` names.
    """
    found: list[VersionRef] = []
    for one in layout.universes() if universe is None else [universe]:
        for each in layout.models(one) if model is None else [model]:
            champion = latest(layout, one, each)
            refs = (find(layout, one, each, name) for name in layout.store.folders(layout.home(one, each)))
            found += [champion if champion and champion.version == ref.version else ref for ref in refs if ref]
    return found


def resolve(layout: Layout, text: str) -> VersionRef:
    """Find the version that a user means.

    Parameters
    ----------
    layout : Layout
        Where.
    text : str
        `universe/model/latest`, `universe/model/version`, or the path or URL of a version.

    Raises
    ------
    PublishError
        If there is no such version; the message lists those there are.
    """
    everything = layout.store.locate(VERSIONS)
    whole = text if "://" in text else str(Path(text).expanduser().absolute())
    inside = whole.startswith(f"{everything}/")
    parts = (whole.removeprefix(everything) if inside else text).strip("/").split("/")
    ref = None
    if len(parts) == 3:
        universe, model, version = parts
        ref = latest(layout, universe, model) if version == LATEST else find(layout, universe, model, version)
    if ref is None:
        names = [str(one) for one in list_versions(layout)]
        known = ", ".join(names) or f"nothing is published under {everything} yet"
        raise PublishError(f"there is no published version '{text}'; known: {known}")
    return ref


def locate(layout: Layout, ref: VersionRef) -> str:
    """Return the path or URL of a version, as readers without factorcube open it."""
    return layout.store.locate(key_of(layout, ref))


def locate_latest(layout: Layout, universe: str, model: str) -> str:
    """Return where readers find the champion: the link `latest` on a disk, the champion itself in an object store.

    Raises
    ------
    PublishError
        If no version was promoted yet.
    """
    champion = latest(layout, universe, model)
    if champion is None:
        raise PublishError(f"{universe}/{model} has no champion yet; promote a version")
    link = f"{layout.home(universe, model)}/{LATEST}"
    return layout.store.locate(link if layout.store.pointed(link) else key_of(layout, champion))


def open_version(layout: Layout, ref: VersionRef) -> xr.Dataset:
    """Open the dataset of a version lazily; what `latest` names later does not show in it.

    A flipped bit in a chunk raises when that chunk is read; `verify` checks everything at once.

    Raises
    ------
    PublishError
        If there is no such version.
    CorruptionError
        If its metadata are damaged or a file is missing (a missing chunk would read as NaN).
    """
    store, key, manifest = layout.store, key_of(layout, ref), read_whole_manifest(layout, ref)
    read_checked(store, key, ROOT, manifest.checksums)
    return read_dataset(store.group(key), guard=guard_of(layout, ref, manifest), consolidated=True)


def read_whole_manifest(layout: Layout, ref: VersionRef) -> Manifest:
    """Return the manifest of a version of which no file is missing; raises as `open_version` does."""
    store, key, manifest = layout.store, key_of(layout, ref), read_manifest(layout, ref)
    gone = sorted(set(manifest.checksums) - set(store.files(key)))
    if gone:
        raise damaged(store, f"{key}/{gone[0]}", "is missing")
    return manifest


def guard_of(layout: Layout, ref: VersionRef, manifest: Manifest) -> Guard:
    """Return what is said of a version that is found damaged while it is read."""
    return Guard(layout.store.locate(key_of(layout, ref)), REMEDY, expected=frozenset(manifest.checksums))


def read_state(layout: Layout, ref: VersionRef) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of the model's state; raises as `open_version` does."""
    key, checksums = key_of(layout, ref), read_manifest(layout, ref).checksums
    return parse_state(read_checked(layout.store, key, STATE, checksums), layout.store.locate(f"{key}/{STATE}"))
