"""The catalog of what is published: STAC, plain JSON that a reader needs no library for.

Here belongs writing it; why it is STAC, and what a reader does with it, is in docs/adr/0009-stac-catalog.md. It lies
beside the versions (`published/catalog.json`, `<universe>/<model>/collection.json`, one `<version>.json` beside each
version's folder), and every link in it is relative, so that the folder can be served, copied or moved.

The same content gives the same bytes: nothing here says when the catalog was written. An item never changes, like the
version that it describes; what can change (the champion, pins) stands in the collection.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from schemas.contracts import Manifest
from schemas.errors import ConflictError, CorruptionError, PublishError
from schemas.refs import VersionRef
from storage import pointer
from storage.arrays import read_labels
from storage.checksums import key_of, read_checked
from storage.layout import VERSIONS, Layout
from storage.stores import MANIFEST, ROOT, SEAL
from storage.versions import STATE, find, guard_of, read_whole_manifest

CATALOG, COLLECTION = "catalog.json", "collection.json"
_VERSION = "1.1.0"
_HOST = "https://stac-extensions.github.io"
_EXTENSIONS = [
    f"{_HOST}/{name}/schema.json"
    for name in ("datacube/v2.2.0", "file/v2.1.0", "version/v1.2.0", "xarray-assets/v1.0.0")
]
_LOCK = f"{VERSIONS}/.catalog.lock"
_ATTEMPTS = 5
_TOLD = ("version", "start_datetime", "end_datetime")
"""What a collection says of its items."""
_JSON, _GEOJSON = "application/json", "application/geo+json"
Document = dict[str, Any]


@dataclass(frozen=True)
class Catalog:
    """What was written.

    Attributes
    ----------
    location : str
        Path or URL of the root document.
    versions : int
        How many versions it describes.
    left_out : tuple[str, ...]
        One line for each version or model that cannot be read and is therefore not described.
    """

    location: str
    versions: int
    left_out: tuple[str, ...]


def refresh_catalog(layout: Layout, *, anew: bool = False) -> Catalog:
    """Bring the catalog up to date; cheap if it nearly is, so that it can follow every promotion.

    Parameters
    ----------
    layout : Layout
        Where.
    anew : bool
        Describe every version anew instead of only those that are not described yet.

    Raises
    ------
    PublishError
        If it cannot be written, or, in an object store, others kept changing it meanwhile.
    """
    store = layout.store
    for _ in range(_ATTEMPTS):
        left_out: list[str] = []
        labels = _Labels(layout)
        try:
            with store.exclusive(_LOCK):
                key = f"{VERSIONS}/{CATALOG}"
                before = store.load(key).tag
                described = {
                    (universe, model): count
                    for universe in layout.universes()
                    for model in layout.models(universe)
                    if (count := _refresh_model(layout, universe, model, labels, left_out, anew=anew))
                }
                _swap(layout, key, _root(list(described)), before)
        except OSError as error:
            raise PublishError(f"{store.locate(VERSIONS)}: the catalog cannot be written: {error}") from error
        except ConflictError:
            continue
        return Catalog(store.locate(key), sum(described.values()), tuple(left_out))
    raise ConflictError(f"{store.locate(VERSIONS)}: the catalog was changed by others {_ATTEMPTS} times; run again")


def _refresh_model(
    layout: Layout, universe: str, model: str, labels: _Labels, left_out: list[str], *, anew: bool
) -> int:
    """Describe the versions of one model; return how many."""
    store, home = layout.store, layout.home(universe, model)
    before = store.load(f"{home}/{COLLECTION}")
    try:
        state = pointer.read(layout, universe, model)
    except CorruptionError as error:
        left_out.append(str(error))
        return 0
    refs = [ref for name in store.folders(home) if (ref := find(layout, universe, model, name))]
    items: list[Document] = []
    for ref in refs:
        try:
            properties = _item(layout, ref, labels, anew=anew)["properties"]
            items.append({name: properties[name] for name in _TOLD})
        except (PublishError, OSError) as error:
            left_out.append(str(error))
    listed = {f"./{item['version']}.json" for item in items}
    for link in _links(before.content):
        if link.get("rel") == "item" and link["href"] not in listed and _is_item(link["href"]):
            store.discard(f"{home}/{link['href'].removeprefix('./')}")
    if items or before.content is not None:
        _swap(layout, f"{home}/{COLLECTION}", _collection(universe, model, items, state), before.tag)
    return len(items)


def _item(layout: Layout, ref: VersionRef, labels: _Labels, *, anew: bool) -> Document:
    """Return the item of a version: as it is stored, if it is of this version's manifest, or made and stored now."""
    store = layout.store
    home = layout.home(ref.universe, ref.model)
    key = f"{home}/{ref.version}.json"
    known = store.load(key)
    sealed = store.read(f"{home}/{ref.version}/{SEAL}").split()[0].decode("ascii", "replace")
    if known.content is not None and not anew:
        item = _parsed(known.content)
        if item.get("assets", {}).get("manifest", {}).get("file:checksum") == _multihash(sealed):
            return item
    item = _described(layout, ref, labels, sealed)
    content = _encoded(item)
    if content != known.content:
        store.swap(key, content, known.tag)  # whoever was faster wrote the same
    return item


class _Labels:
    """The labels of versions, read where they are not those of the version before: one model's have most in common."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._before: dict[str, tuple[dict[str, str], list[str]]] = {}

    def of(self, ref: VersionRef, manifest: Manifest, dim: str) -> list[str]:
        """Return the labels along an axis of a version, as text."""
        files = {name: checksum for name, checksum in manifest.checksums.items() if name.startswith(f"{dim}/")}
        known, labels = self._before.get(dim, ({}, []))
        if files != known:
            group, guard = self._layout.store.group(key_of(self._layout, ref)), guard_of(self._layout, ref, manifest)
            labels = read_labels(group, dim, guard=guard)
            self._before[dim] = files, labels
        return labels


def _described(layout: Layout, ref: VersionRef, labels: _Labels, sealed: str) -> Document:
    manifest = read_whole_manifest(layout, ref)
    group = json.loads(read_checked(layout.store, key_of(layout, ref), ROOT, manifest.checksums))
    arrays: Document = group["consolidated_metadata"]["metadata"]
    axes = {dim: labels.of(ref, manifest, dim) for one in arrays.values() for dim in _dims(one)}
    dates = axes["date"]
    properties: Document = {
        "datetime": f"{manifest.as_of}T00:00:00Z",
        "start_datetime": f"{dates[0]}T00:00:00Z",
        "end_datetime": f"{dates[-1]}T00:00:00Z",
        "created": f"{manifest.created_at:%Y-%m-%dT%H:%M:%S.%fZ}",
        "title": f"{ref.model} factor risk model of {ref.universe}, as of {manifest.as_of}",
        "version": ref.version,
        "cube:dimensions": {dim: _dimension(dim, along) for dim, along in axes.items()},
        "cube:variables": {
            name: {
                "dimensions": _dims(array),
                "type": "data",
                "unit": array["attributes"]["units"],
                "description": f"{array['attributes']['long_name']}. {array['attributes']['comment']}",
            }
            for name, array in arrays.items()
            if name not in axes
        },
        **{
            f"factorcube:{name}": value
            for name, value in manifest.model_dump(mode="json").items()
            if name
            in {
                "universe",
                "model",
                "kind",
                "made_by",
                "parent",
                "snapshot_id",
                "code_version",
                "config_digest",
                "metrics",
            }
        },
        "factorcube:gate_passed": manifest.gate.passed,
        "factorcube:frequency": group["attributes"]["frequency"],
        "factorcube:periods_per_year": int(group["attributes"]["periods_per_year"]),
    }
    return {
        "type": "Feature",
        "stac_version": _VERSION,
        "stac_extensions": _EXTENSIONS,
        "id": f"{ref.universe}.{ref.model}.{ref.version}",
        "collection": f"{ref.universe}.{ref.model}",
        "geometry": None,
        "properties": properties,
        "links": [
            _link("root", f"../../{CATALOG}"),
            _link("parent", f"./{COLLECTION}"),
            _link("collection", f"./{COLLECTION}"),
        ],
        "assets": _assets(ref.version, manifest, sealed),
    }


def _assets(version: str, manifest: Manifest, sealed: str) -> Document:
    folder = f"./{version}"
    return {
        "zarr": {
            "href": folder,
            "type": "application/vnd.zarr; version=3",
            "title": "all arrays, as one group",
            "roles": ["data"],
            "xarray:open_kwargs": {"engine": "zarr", "consolidated": True},
        },
        "metadata": _file(f"{folder}/{ROOT}", _JSON, "metadata of the group", manifest.checksums[ROOT]),
        "manifest": _file(f"{folder}/{MANIFEST}", _JSON, "inputs, code, config, checksums of all files", sealed),
        "state": _file(
            f"{folder}/{STATE}", "application/vnd.safetensors", "learnt state of the model", manifest.checksums[STATE]
        ),
    }


def _file(href: str, kind: str, title: str, sha256: str) -> Document:
    return {"href": href, "type": kind, "title": title, "roles": ["metadata"], "file:checksum": _multihash(sha256)}


def _dims(array: Document) -> list[str]:
    """Return the dimensions of an array, given its metadata, which name none for a single number."""
    dims: list[str] = array.get("dimension_names", [])
    return dims


def _dimension(name: str, labels: list[str]) -> Document:
    if name == "date":
        return {
            "type": "temporal",
            "extent": [f"{labels[0]}T00:00:00Z", f"{labels[-1]}T00:00:00Z"],
            "step": None,
        }
    return {"type": name, "values": labels}


def _collection(universe: str, model: str, items: Sequence[Document], state: pointer.Pointer) -> Document:
    spans = [(item["start_datetime"], item["end_datetime"]) for item in items]
    known = {item["version"] for item in items}
    links = [_link("root", f"../../{CATALOG}"), _link("parent", f"../../{CATALOG}")]
    if state.champion in known:
        links.append(_link("latest-version", f"./{state.champion}.json", _GEOJSON))
    links += [_link("item", f"./{version}.json", _GEOJSON) for version in sorted(known)]
    return {
        "type": "Collection",
        "stac_version": _VERSION,
        "stac_extensions": [extension for extension in _EXTENSIONS if "/version/" in extension],
        "id": f"{universe}.{model}",
        "title": f"{model} factor risk model of {universe}",
        "description": "Versions of one factor risk model. The link latest-version leads to the champion; pin what you "
        "read by its version, which never changes.",
        "license": "other",
        "extent": {
            "spatial": {"bbox": [[-180.0, -90.0, 180.0, 90.0]]},
            "temporal": {
                "interval": [[min((a for a, _ in spans), default=None), max((b for _, b in spans), default=None)]]
            },
        },
        "factorcube:universe": universe,
        "factorcube:model": model,
        "factorcube:champion": state.champion,
        "factorcube:pinned": {version: why for version, why in sorted(state.pins.items()) if version in known},
        "links": links,
    }


def _root(models: Sequence[tuple[str, str]]) -> Document:
    return {
        "type": "Catalog",
        "stac_version": _VERSION,
        "id": "factorcube",
        "title": "Published factor risk models",
        "description": "One collection per universe and model, one item per published version.",
        "links": [
            _link("root", f"./{CATALOG}"),
            *(_link("child", f"./{universe}/{model}/{COLLECTION}") for universe, model in sorted(models)),
        ],
    }


def _link(relation: str, href: str, kind: str = _JSON) -> Document:
    return {"rel": relation, "href": href, "type": kind}


def _multihash(sha256: str) -> str:
    """Return a SHA-256 as the multihash that STAC's file extension asks for: its code, its length, itself."""
    return f"1220{sha256}"


def _swap(layout: Layout, key: str, document: Document, tag: str | None) -> None:
    content = _encoded(document)
    if layout.store.load(key).content != content and not layout.store.swap(key, content, tag):
        raise ConflictError(f"{layout.store.locate(key)} was changed meanwhile")


def _encoded(document: Document) -> bytes:
    return (json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _links(content: bytes | None) -> list[Document]:
    links = _parsed(content or b"{}").get("links", [])
    return [link for link in links if isinstance(link, dict) and isinstance(link.get("href"), str)]


def _parsed(content: bytes) -> Document:
    try:
        document = json.loads(content)
    except ValueError:
        return {}  # damaged: made anew
    return document if isinstance(document, dict) else {}


def _is_item(href: str) -> bool:
    """Whether a link is to an item in this folder: the catalog is read back, and may have been tampered with."""
    try:
        VersionRef(universe="u", model="m", version=href.removeprefix("./").removesuffix(".json"))
    except ValueError:
        return False
    return True
