"""Published versions: what readers see, what a second publisher is told, what damage is noticed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from storing import STATE, manifest_of, publish_one, version_data

from schemas.contracts import VERSION
from schemas.errors import ConfigError, ConflictError, CorruptionError, PublishError
from storage import published
from storage.cube import Cube
from storage.layout import Layout
from storage.weights import load_state, save_state


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def publish(layout, *, end="2024-06-28", seed=0, promote=True, **facts):
    dataset = version_data(end=end, seed=seed)
    ref = published.publish(layout, dataset, manifest_of(dataset, **facts), STATE)
    if promote:
        done = published.promote(layout, ref.universe, ref.model, ref.version, reason="test", forward_only=True)
        ref = ref.model_copy(update={"promoted": done.promoted})
    return ref


READER = """
import sys, warnings
warnings.simplefilter("error")
import xarray, zarr, json
dataset = xarray.open_zarr(sys.argv[1])
dataset.load().to_netcdf(sys.argv[2], engine="scipy") if len(sys.argv) > 2 else None
assert not {"storage", "schemas", "models", "icechunk"} & set(sys.modules)
print(json.dumps({
    "attrs": dataset.attrs,
    "described": all(v.attrs["long_name"] for v in dataset.variables.values()),
    "tickers": dataset["ticker"].values.tolist(),
    "loadings": float(dataset["loadings"].sum()),
    "missing": int(dataset["loadings"].isnull().sum()),
}))
"""


def test_anybody_opens_latest_with_xarray_alone_and_without_a_warning(layout, tmp_path):
    dataset = version_data(periods=300)
    published.publish(layout, dataset, manifest_of(dataset), STATE)
    published.promote(layout, "us", "ipca", "2024-06-28-0123abcd", reason="test")
    path = layout.home_folder("us", "ipca") / "latest"
    command = [sys.executable, "-c", READER, str(path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    seen = json.loads(done.stdout)
    assert done.stderr == ""
    assert seen["tickers"] == ["A", "<script>", "Ünïcode", "T0"]
    assert seen["described"]
    assert seen["missing"] == int(dataset["loadings"].isnull().sum()) > 0
    assert seen["loadings"] == pytest.approx(float(dataset["loadings"].sum()), rel=1e-6)
    expected = {"universe": "us", "model": "ipca", "as_of": "2024-06-28", "frequency": "daily", "periods_per_year": 252}
    assert expected.items() <= seen["attrs"].items()
    assert seen["attrs"]["version"] == "2024-06-28-0123abcd"
    assert seen["attrs"]["snapshot_id"]


def test_a_version_gives_back_every_bit_and_leaves_its_source_alone(layout):
    dataset = version_data(periods=300)
    ref = published.publish(layout, dataset, manifest_of(dataset), STATE)
    stored = published.open_version(layout, ref)
    assert not stored["loadings"].variable._in_memory
    assert stored.equals(dataset)
    assert dataset["loadings"].attrs == {}
    for name, variable in VERSION.items():
        assert stored[name].attrs == variable.attrs
        assert stored[name].dtype == variable.dtype
    state = published.read_state(layout, ref)
    assert sorted(state) == sorted(STATE)
    np.testing.assert_array_equal(state["gamma"], STATE["gamma"])
    assert state["count"].shape == ()
    manifest = published.read_manifest(layout, ref)
    assert manifest.config == {"nested": {"list": [1, 2]}}
    assert manifest.metrics == {"total_r2": 0.25, "unknown": None}
    assert "state.safetensors" in manifest.checksums
    published.verify(layout, ref)


def test_publishing_again_changes_nothing_and_other_content_is_refused(layout, tmp_path):
    first = publish(layout)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "published").rglob("*") if path.is_file()}
    again = publish(layout, created_at=datetime(2030, 1, 1, tzinfo=UTC))
    assert first.changed
    assert first.promoted
    assert (again.changed, again.promoted) == (False, True)
    with pytest.raises(ConflictError, match=r"already published with other content \(different: checksums"):
        publish(layout, seed=1)
    with pytest.raises(ConflictError, match=r"different: checksums, code_version, kind\)"):
        publish(layout, kind="pca", code_version="0.2.0")
    unlocked = {path: at for path, at in files.items() if path.name != ".lock"}
    assert {path: path.stat().st_mtime_ns for path in unlocked} == unlocked
    assert not list((tmp_path / "published").rglob(".staging*"))


def test_latest_moves_when_told_and_never_back_by_itself(layout):
    assert published.latest(layout, "us", "ipca") is None
    june = publish(layout, end="2024-06-28")
    july = publish(layout, end="2024-07-31", promote=False)
    assert published.latest(layout, "us", "ipca").version == june.version
    assert not july.promoted
    assert publish(layout, end="2024-07-31").promoted
    may = publish(layout, end="2024-05-31")
    assert may.changed
    assert not may.promoted
    assert published.latest(layout, "us", "ipca").version == july.version
    assert published.promote(layout, "us", "ipca", may.version, reason="back").promoted
    assert published.latest(layout, "us", "ipca").version == may.version
    assert (layout.home_folder("us", "ipca") / "latest").readlink() == Path(may.version)
    with pytest.raises(PublishError, match=r"2024-01-31-00000000.*known: us/ipca/2024-05-31-0123abcd, us/ipca/2024-06"):
        published.promote(layout, "us", "ipca", "2024-01-31-00000000", reason="no")


def test_versions_are_found_by_name_by_latest_and_by_path(layout, tmp_path):
    assert published.list_versions(layout) == []
    with pytest.raises(PublishError, match="nothing is published"):
        published.resolve(layout, "us/ipca/latest")
    publish(layout, end="2024-06-28")
    publish(layout, end="2024-05-31", promote=False)
    publish(layout, model="pca", promote=False)
    home = layout.home_folder("us", "ipca")
    for text in ("us/ipca/latest", "us/ipca/2024-06-28-0123abcd", str(home / "latest"), f"{home}/2024-06-28-0123abcd/"):
        assert published.resolve(layout, text).version == "2024-06-28-0123abcd"
    refs = published.list_versions(layout)
    assert [(ref.model, ref.version[:10], ref.promoted) for ref in refs] == [
        ("ipca", "2024-05-31", False),
        ("ipca", "2024-06-28", True),
        ("pca", "2024-06-28", False),
    ]
    assert published.list_versions(layout, "us", "pca") == refs[2:]
    assert published.list_versions(layout, model="pca") == refs[2:]
    assert published.list_versions(layout, "us") == refs
    for unknown in ("us/pca/latest", "us/ipca", "us/ipca/2024-06-28", "../../../etc", "eu/ipca/latest", ""):
        with pytest.raises(PublishError, match="known: us/ipca/2024-05-31-0123abcd"):
            published.resolve(layout, unknown)


@pytest.mark.parametrize(
    ("message", "spoil"),
    [
        ("surprise are not in the contract", lambda ds: ds.assign(surprise=ds["r_squared"].drop_attrs())),
        ("omega", lambda ds: ds.drop_vars("omega")),
        ("axes ticker have no labels", lambda ds: ds.drop_vars("ticker")),
        ("axes ticker have labels that are given twice", lambda ds: ds.isel(ticker=[0, 0, 1])),
        ("end on 2024-06-28", lambda ds: ds.isel(date=slice(None, -1))),
        ("dates must be in order", lambda ds: ds.isel(date=slice(None, None, -1))),
        ("lacks the attributes frequency, periods_per_year", lambda ds: ds.drop_attrs(deep=False)),
    ],
)
def test_a_dataset_that_breaks_the_contract_is_not_published(layout, message, spoil):
    dataset = version_data()
    with pytest.raises(PublishError, match=message):
        published.publish(layout, spoil(dataset), manifest_of(dataset), STATE)
    assert published.list_versions(layout) == []
    assert published.latest(layout, "us", "ipca") is None


@pytest.mark.parametrize("version", ["../../escaped", "2024-06-28", "2024-06-28-XYZ", "latest", "2024-05-31-0123abcd"])
def test_a_version_is_named_after_its_as_of_date(layout, tmp_path, version):
    with pytest.raises(PublishError, match=r"not named as|name hides"):
        publish(layout, version=version)
    assert not list(tmp_path.rglob("*escaped*"))
    dataset = version_data()
    with pytest.raises(PublishError, match="object"):
        published.publish(layout, dataset, manifest_of(dataset), {"x": np.array([{}])})
    assert published.list_versions(layout) == []


def test_every_damaged_file_is_named(layout):
    ref = publish(layout)
    folder = layout.home_folder("us", "ipca") / ref.version
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert len(files) > 50
    for path in files:
        sound = path.read_bytes()
        path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
        named = "manifest.json" if path.name == "manifest.sha256" else path.name
        with pytest.raises(CorruptionError, match=f"{named}.*(checksum|match|read)"):
            published.verify(layout, ref)
        path.unlink()
        with pytest.raises(CorruptionError, match=f"{named}.*(missing|read)"):
            published.verify(layout, ref)
        with pytest.raises(CorruptionError):
            published.open_version(layout, ref)
        path.write_bytes(sound)
    published.verify(layout, ref)
    (folder / "loadings" / "c.9.0").write_bytes(b"foreign")
    with pytest.raises(CorruptionError, match=r"loadings/c\.9\.0 was not published"):
        published.verify(layout, ref)


def test_a_flipped_bit_in_a_chunk_raises_when_it_is_read(layout):
    dataset = version_data(periods=250)
    ref = published.publish(layout, dataset, manifest_of(dataset), STATE)
    chunk = layout.home_folder("us", "ipca") / ref.version / "loadings" / "c.0.0.0"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(RuntimeError, match=r"(?i)checksum|corrupt|decompress"):
        xr.open_zarr(chunk.parents[1], chunks=None)["loadings"].load()


def test_a_version_moved_to_another_name_is_noticed(layout):
    ref = publish(layout)
    folder = layout.home_folder("us", "ipca") / ref.version
    other = ref.model_copy(update={"version": "2024-07-31-0123abcd"})
    folder.rename(folder.with_name(other.version))
    with pytest.raises(CorruptionError, match="describes us/ipca/2024-06-28-0123abcd"):
        published.open_version(layout, other)
    with pytest.raises(PublishError, match=r"latest leads to 2024-06-28-0123abcd.*promote a version again"):
        published.latest(layout, "us", "ipca")
    with pytest.raises(PublishError, match="no such published version"):
        published.open_version(layout, ref)


def test_no_name_and_no_link_leads_out_of_the_root(tmp_path):
    layout, outside = Layout(tmp_path / "root"), tmp_path / "outside"
    publish_one(tmp_path / "root")
    for bad in ("..", "../x", "a/b", "/etc", "A", "", "x.y", "a\n", "é", "a" * 65, ".hidden"):
        for path in (layout.cube, layout.work, layout.quarantine, layout.data_docs, layout.home_folder):
            with pytest.raises(ConfigError, match="not a valid name"):
                path(bad)
        with pytest.raises(ConfigError, match="not a valid name"):
            layout.home_folder("us", bad)
    outside.mkdir()
    (tmp_path / "root" / "cubes").symlink_to(outside)
    (layout.home_folder("us") / "linked").symlink_to(outside)
    for path in (lambda: Cube.open_or_create(layout, "us"), lambda: layout.home_folder("us", "linked")):
        with pytest.raises(ConfigError, match="leads outside the root"):
            path()
    assert len(published.list_versions(layout)) == 1
    link = layout.home_folder("us", "ipca") / "latest"
    link.unlink()
    link.symlink_to(outside)
    assert published.resolve(layout, "us/ipca/latest").version == link.readlink().name, "the document is the truth"
    link.with_name("latest.json").unlink()
    link.unlink()
    link.symlink_to(outside)
    assert published.latest(layout, "us", "ipca") is None, "a link by itself says nothing"


def test_states_are_the_same_bytes_whatever_their_order_and_never_pickled(tmp_path):
    arrays = {"b": np.arange(6.0).reshape(2, 3).T, "a": np.arange(3, dtype=">f4"), "empty": np.zeros((0, 2), "i8")}
    digests = set()
    for order in (arrays, dict(reversed(arrays.items()))):
        save_state(tmp_path / "state.safetensors", order)
        digests.add(hashlib.sha256((tmp_path / "state.safetensors").read_bytes()).hexdigest())
    assert len(digests) == 1
    for name, array in load_state(tmp_path / "state.safetensors").items():
        np.testing.assert_array_equal(array, arrays[name])
    for bad in (np.array(["text"]), np.array([{}]), np.array([1j]), np.array(["2024-01-01"], "M8[D]")):
        with pytest.raises(PublishError, match="'x' has dtype"):
            save_state(tmp_path / "other", {"x": bad})
    sound = (tmp_path / "state.safetensors").read_bytes()
    for broken in (b"", sound[:7], sound[:-1], b"\xff" * 40, b"\x80\x04cos\nsystem\n" + sound):
        (tmp_path / "state.safetensors").write_bytes(broken)
        with pytest.raises(CorruptionError, match=r"state\.safetensors"):
            load_state(tmp_path / "state.safetensors")
    with pytest.raises(PublishError, match="no such file"):
        load_state(tmp_path / "nothing")
