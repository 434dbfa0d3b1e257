"""Finding, reading and verifying published versions. Nothing here writes; that is `storage.published`.

A version is one folder, `published/<universe>/<model>/<version>`. The folder itself is a consolidated Zarr v3
group, so that ``xr.open_zarr`` opens it by its path. Beside the arrays lie `manifest.json` (everything the
version was made from, and the checksum of every other file), `manifest.sha256` for the manifest itself
(``sha256sum -c`` reads it), and `state.safetensors`. `latest` is a symbolic link to one of the versions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt
import xarray as xr
from pydantic import ValidationError

from schemas.contracts import Manifest
from schemas.errors import CorruptionError, PublishError
from schemas.refs import VersionRef
from storage.arrays import read_dataset
from storage.files import sha256_file
from storage.layout import Layout
from storage.weights import load_state

LATEST, MANIFEST, SEAL, STATE = "latest", "manifest.json", "manifest.sha256", "state.safetensors"
_METADATA = "zarr.json"


def find(layout: Layout, universe: str, model: str, version: str) -> VersionRef | None:
    """Return the version of exactly this name; None if there is none."""
    try:
        ref = VersionRef(universe=universe, model=model, version=version, changed=False)
    except ValidationError:
        return None
    folder = version_path(layout, ref)
    return ref if folder.is_dir() and not folder.is_symlink() else None


def latest(layout: Layout, universe: str, model: str) -> VersionRef | None:
    """Return the version that `latest` names; None if none was promoted yet.

    Raises
    ------
    PublishError
        If `latest` does not lead to a version of this model.
    """
    link = layout.published(universe, model) / LATEST
    if not link.is_symlink():
        return None
    target = str(link.readlink())
    ref = find(layout, universe, model, target)
    if ref is None:
        raise PublishError(f"{link} leads to {target}, which is not a version beside it; promote a version again")
    return ref.model_copy(update={"promoted": True})


def list_versions(layout: Layout, universe: str | None = None, model: str | None = None) -> list[VersionRef]:
    """Return all published versions, of one universe or one model name if asked, in the order of their names.

    `changed` is False, and `promoted` says which ones `latest` names.
    """
    found: list[VersionRef] = []
    for one in _folders(layout.versions) if universe is None else [universe]:
        for each in _folders(layout.published(one)) if model is None else [model]:
            champion = latest(layout, one, each)
            refs = (find(layout, one, each, name) for name in _folders(layout.published(one, each)))
            found += [champion if champion and champion.version == ref.version else ref for ref in refs if ref]
    return found


def resolve(layout: Layout, text: str) -> VersionRef:
    """Find the version that a user means.

    Parameters
    ----------
    layout : Layout
        Where.
    text : str
        `universe/model/latest`, `universe/model/version`, or the path of a version's folder.

    Raises
    ------
    PublishError
        If there is no such version; the message lists those there are.
    """
    path = Path(text).expanduser().absolute()
    inside = path.is_relative_to(layout.versions)
    parts = path.relative_to(layout.versions).parts if inside else tuple(text.strip("/").split("/"))
    ref = None
    if len(parts) == 3:
        ref = latest(layout, *parts[:2]) if parts[2] == LATEST else find(layout, *parts)
    if ref is None:
        names = [f"{one.universe}/{one.model}/{one.version}" for one in list_versions(layout)]
        known = ", ".join(names) or f"nothing is published under {layout.root} yet"
        raise PublishError(f"there is no published version '{text}'; known: {known}")
    return ref


def version_path(layout: Layout, ref: VersionRef) -> Path:
    """Folder of a version, whether it exists or not."""
    return layout.published(ref.universe, ref.model) / ref.version


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
    folder = version_path(layout, ref)
    checksums = read_manifest(layout, ref).checksums
    gone = [name for name in checksums if not (folder / name).is_file()]
    if gone:
        raise _damaged(folder / gone[0], "is missing")
    _check_file(folder, _METADATA, checksums)
    return read_dataset(folder, consolidated=True)


def read_manifest(layout: Layout, ref: VersionRef) -> Manifest:
    """Return the manifest of a version; raises as `open_version` does."""
    folder = version_path(layout, ref)
    if not folder.is_dir():
        raise PublishError(f"{folder}: no such published version")
    manifest = manifest_in(folder)
    if (manifest.universe, manifest.model, manifest.version) != (ref.universe, ref.model, ref.version):
        raise _damaged(folder / MANIFEST, f"describes {manifest.universe}/{manifest.model}/{manifest.version}")
    return manifest


def read_state(layout: Layout, ref: VersionRef) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of the model's state; raises as `open_version` does."""
    folder = version_path(layout, ref)
    _check_file(folder, STATE, read_manifest(layout, ref).checksums)
    return load_state(folder / STATE)


def verify(layout: Layout, ref: VersionRef) -> None:
    """Check every byte of a version against its checksums.

    Raises
    ------
    PublishError
        If there is no such version.
    CorruptionError
        If a file is damaged, missing, or was not published; the message names the first.
    """
    folder = version_path(layout, ref)
    checksums = read_manifest(layout, ref).checksums
    for name in checksums:
        _check_file(folder, name, checksums)
    for name in sorted(set(files_in(folder)) - set(checksums)):
        raise _damaged(folder / name, "was not published with this version")


def manifest_in(folder: Path) -> Manifest:
    """Return the manifest in a folder, checked against its seal."""
    path = folder / MANIFEST
    try:
        if (folder / SEAL).read_text(encoding="ascii") != seal(path):
            raise _damaged(path, f"does not match {SEAL}")
        return Manifest.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged(path, f"cannot be read ({type(error).__name__})") from error


def seal(manifest: Path) -> str:
    """Return the line of the seal of a manifest, as ``sha256sum`` writes it."""
    return f"{sha256_file(manifest)}  {MANIFEST}\n"


def files_in(folder: Path) -> list[str]:
    """Return the files of a version but for the manifest and its seal, as relative paths in order."""
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    return sorted(path for path in paths if path not in (MANIFEST, SEAL))


def _check_file(folder: Path, name: str, checksums: dict[str, str]) -> None:
    try:
        if sha256_file(folder / name) != checksums[name]:
            raise _damaged(folder / name, "does not match its checksum")
    except (OSError, KeyError) as error:
        raise _damaged(folder / name, "is missing or cannot be read") from error


def _damaged(path: Path, how: str) -> CorruptionError:
    return CorruptionError(f"{path} {how}; restore the version from a copy, or remove its folder and publish it again")


def _folders(parent: Path) -> list[str]:
    """Return the names of the folders in a folder, without hidden ones and links."""
    if not parent.is_dir():
        return []
    inner = (path for path in parent.iterdir() if path.is_dir() and not path.is_symlink())
    return sorted(path.name for path in inner if not path.name.startswith("."))
