"""The catalog: valid STAC, read with json and xarray alone, the same content in the same bytes."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from jsonschema_specifications import REGISTRY
from referencing import Resource
from storing import ONE, STATE, TWO, manifest_of, version_data
from typer.testing import CliRunner

from deploy.cli import app
from storage import published
from storage.catalog import refresh_catalog
from storage.layout import Layout

STAC = "https://schemas.stacspec.org/v1.1.0"
SCHEMAS = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (Path(__file__).parent / "stac").glob("*.json")
}
"""The core of STAC 1.1.0 and of GeoJSON, as their projects publish them (Apache-2.0)."""
ADDRESSES = {
    name: document["$id"] if name in {"Feature", "Geometry", "catalog", "collection"}
    else f"{STAC}/item-spec/json-schema/{name}.json"
    for name, document in SCHEMAS.items()
}  # fmt: skip
BY_TYPE = {"Catalog": "catalog", "Collection": "collection", "Feature": "item"}


def publish(root: Path, end: str, model: str = "ipca", **facts: Any) -> str:
    dataset = version_data(end=end)
    return published.publish(Layout(root), dataset, manifest_of(dataset, model=model, **facts), STATE).version


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make two versions of one model, the first its champion, and one of another that has none."""
    folder = tmp_path / "root"
    monkeypatch.setenv("FACTORCUBE_ROOT", str(folder))
    for end in (ONE, TWO):
        publish(folder, end)
    publish(folder, TWO, model="pca")
    published.promote(Layout(folder), "us", "ipca", f"{ONE}-0123abcd", reason="test")
    published.pin(Layout(folder), "us", "ipca", f"{TWO}-0123abcd", reason="filed")
    return folder


def documents(root: Path) -> dict[str, bytes]:
    folder = root / "published"
    named = [folder / "catalog.json", *folder.glob("*/*/collection.json"), *folder.glob("*/*/????-??-??-????????.json")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in named}


def test_every_document_is_valid_stac_and_every_link_leads_to_one(root):
    written = refresh_catalog(Layout(root))
    assert (written.location, written.versions, written.left_out) == (str(root / "published/catalog.json"), 3, ())
    resources = [(ADDRESSES[name], Resource.from_contents(one)) for name, one in SCHEMAS.items()]
    registry = REGISTRY.with_resources(resources)
    found = documents(root)
    assert len(found) == 1 + 2 + 3
    for name, content in found.items():
        document = json.loads(content)
        validator = Draft7Validator(SCHEMAS[BY_TYPE[document["type"]]], registry=registry)
        errors = [error.message for error in validator.iter_errors(document)]
        assert not errors, (name, errors)
        folder = (root / "published" / name).parent
        for link in document["links"]:
            assert (folder / link["href"]).resolve().relative_to(root / "published").as_posix() in found
        for asset in document.get("assets", {}).values():
            target = folder / asset["href"]
            assert target.exists()
            if "file:checksum" in asset:
                assert asset["file:checksum"] == "1220" + hashlib.sha256(target.read_bytes()).hexdigest()
    assert not refresh_catalog(Layout(tmp := root.parent / "empty")).versions
    assert json.loads((tmp / "published/catalog.json").read_bytes())["links"]


READER = """
import json, os, sys, xarray as xr

def follow(path, relation):
    with open(path) as file:
        links = json.load(file)["links"]
    return [os.path.join(os.path.dirname(path), link["href"]) for link in links if link["rel"] == relation]

(collection,) = [one for one in follow(sys.argv[1], "child") if "/ipca/" in one]
(item,) = follow(collection, "latest-version")
with open(item) as file:
    found = json.load(file)
asset = found["assets"]["zarr"]
dataset = xr.open_dataset(os.path.join(os.path.dirname(item), asset["href"]), **asset["xarray:open_kwargs"])
assert "storage" not in sys.modules
assert list(dataset.factor.values) == found["properties"]["cube:dimensions"]["factor"]["values"]
assert set(dataset.data_vars) == set(found["properties"]["cube:variables"])
print(found["properties"]["version"], dataset.attrs["version"], float(dataset.portfolio_variance.sum()))
"""


def test_a_reader_finds_the_champion_by_the_catalog_alone_also_where_the_folder_was_moved(root, tmp_path):
    refresh_catalog(Layout(root))
    moved = tmp_path / "elsewhere"
    shutil.move(root / "published", moved)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", READER, str(moved / "catalog.json")],
        cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = float(version_data(end=ONE).portfolio_variance.sum())
    named, stored, total = done.stdout.split()
    assert named == stored == f"{ONE}-0123abcd"
    assert float(total) == pytest.approx(expected)


def test_the_same_content_gives_the_same_bytes_and_nothing_is_written_twice(root, tmp_path):
    refresh_catalog(Layout(root))
    first = documents(root)
    times = {path: path.stat().st_mtime_ns for path in (root / "published").rglob("*.json")}
    for anew in (False, True):
        refresh_catalog(Layout(root), anew=anew)
    assert {path: path.stat().st_mtime_ns for path in (root / "published").rglob("*.json")} == times
    for name in first:
        (root / "published" / name).unlink()
    copy = tmp_path / "copy"
    shutil.copytree(root, copy, symlinks=True)
    refresh_catalog(Layout(copy))
    assert documents(copy) == first
    for version in published.list_versions(Layout(root)):
        published.verify(Layout(root), version)


def test_it_follows_promotions_pins_and_removals(root):
    refresh_catalog(Layout(root))
    before = documents(root)
    published.unpin(Layout(root), "us", "ipca", f"{TWO}-0123abcd")
    published.promote(Layout(root), "us", "ipca", f"{TWO}-0123abcd", reason="better")
    published.remove(Layout(root), published.find(Layout(root), "us", "ipca", f"{ONE}-0123abcd"))
    refresh_catalog(Layout(root))
    after = documents(root)
    assert set(before) - set(after) == {f"us/ipca/{ONE}-0123abcd.json"}
    collection = json.loads(after["us/ipca/collection.json"])
    assert (collection["factorcube:champion"], collection["factorcube:pinned"]) == (f"{TWO}-0123abcd", {})
    links = {link["rel"]: link["href"] for link in collection["links"]}
    assert links["latest-version"] == links["item"] == f"./{TWO}-0123abcd.json"
    assert after[f"us/ipca/{TWO}-0123abcd.json"] == before[f"us/ipca/{TWO}-0123abcd.json"], "an item never changes"
    assert after["us/pca/collection.json"] == before["us/pca/collection.json"]


def test_what_is_damaged_is_left_out_and_told_and_a_damaged_or_planted_item_is_made_anew(root, tmp_path):
    outside = tmp_path / "precious.json"
    outside.write_text("precious", encoding="utf-8")
    refresh_catalog(Layout(root))
    sound = documents(root)
    item, collection = (root / "published/us/ipca" / name for name in (f"{ONE}-0123abcd.json", "collection.json"))
    item.write_text("{half", encoding="utf-8")
    planted = json.loads(collection.read_bytes())
    planted["links"] += [{"rel": "item", "href": "../../../../precious.json"}, {"rel": "item", "href": 1}, 3]
    collection.write_text(json.dumps(planted), encoding="utf-8")
    refresh_catalog(Layout(root))
    assert documents(root) == sound
    assert outside.read_text(encoding="utf-8") == "precious"
    seal = root / "published/us/ipca" / f"{TWO}-0123abcd" / "manifest.sha256"
    seal.unlink()
    done = CliRunner().invoke(app, ["catalog"])
    assert done.exit_code == 1
    assert f"{TWO}-0123abcd" in done.stderr
    assert "2 version(s)" in done.stdout
    assert f"us/ipca/{TWO}-0123abcd.json" not in documents(root)
