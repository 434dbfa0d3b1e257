"""Whatever is read may have been made by an enemy: each plants a payload that would leave a file if it ran (P6)."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from small_market import SMALL
from storing import manifest_of, version_data

from schemas.errors import ConfigError, CorruptionError, FactorcubeError, PublishError, SourceError
from schemas.settings import Settings
from schemas.sources import FilesOrigin, LongPrices
from storage import published
from storage.configs import load_spec
from storage.layout import Layout
from storage.sources import read_market
from storage.weights import load_state
from storage.work import WorkStore


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.canary,)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """Return where a payload would leave its mark; it is shown to work, and nothing may have run at the end."""
    path = tmp_path / "executed"
    pickle.loads(pickle.dumps(Payload(path)))  # noqa: S301  # the proof that the payload works
    assert path.exists()
    path.unlink()
    yield path
    assert not path.exists(), "what was read was executed"


def pickled(path: Path, canary: Path) -> None:
    path.write_bytes(pickle.dumps(Payload(canary)))


def numpy_file(path: Path, canary: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([Payload(canary)], dtype=object), allow_pickle=True)


def torch_file(path: Path, canary: Path) -> None:
    torch.save({"weights": Payload(canary)}, path)


def huge_header(path: Path, _: Path) -> None:
    path.write_bytes((2**60).to_bytes(8, "little") + b"{}")


def header_beyond_the_end(path: Path, _: Path) -> None:
    header = json.dumps({"gamma": {"dtype": "F64", "shape": [2**40, 2**20], "data_offsets": [0, 2**63]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)


def header_of_no_json(path: Path, _: Path) -> None:
    path.write_bytes((4).to_bytes(8, "little") + b"\x80\x04N.")


STATES = [pickled, numpy_file, torch_file, huge_header, header_beyond_the_end, header_of_no_json]


@pytest.mark.parametrize("plant", STATES)
def test_a_foreign_file_of_weights_is_refused_and_not_executed(plant, tmp_path: Path, canary: Path) -> None:
    plant(tmp_path / "state.safetensors", canary)
    with pytest.raises(CorruptionError, match=r"state\.safetensors") as told:
        load_state(tmp_path / "state.safetensors")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("plant", STATES[:3])
@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".feather", ".arrow", ".csv.gz", ".pkl", ".npy", ".pt"])
def test_a_foreign_file_of_prices_is_refused_and_not_executed(plant, suffix: str, tmp_path: Path, canary: Path) -> None:
    path = tmp_path / f"prices{suffix}"
    plant(path, canary)
    source = LongPrices(origin=FilesOrigin(paths=(path,)))
    with pytest.raises(SourceError, match="prices") as told:
        read_market(source, settings=Settings(), frequency="daily", calendar="XNYS")
    assert "\n" not in str(told.value)


def plant_objects(folder: Path, canary: Path) -> None:
    """Leave a Zarr v2 array of objects, whose codec unpickles what it reads."""
    folder.mkdir(parents=True)
    (folder / ".zgroup").write_text('{"zarr_format": 2}')
    (folder / ".zattrs").write_text("{}")
    (folder / "loadings").mkdir()
    array = {
        "zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "compressor": None, "fill_value": None,
        "order": "C", "filters": [{"id": "pickle", "protocol": 5}],
    }  # fmt: skip
    (folder / "loadings/.zarray").write_text(json.dumps(array))
    (folder / "loadings/.zattrs").write_text('{"_ARRAY_DIMENSIONS": ["date"]}')
    (folder / "loadings/0").write_bytes(pickle.dumps([np.array([Payload(canary)], dtype=object)]))


def test_an_array_of_objects_is_not_unpickled(tmp_path: Path, canary: Path) -> None:
    store, folder = WorkStore(Layout(tmp_path)), tmp_path / "work/panels/planted"
    plant_objects(folder, canary)
    with pytest.raises(FactorcubeError):
        store.open_dataset("panels", "planted")
    (folder / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    with pytest.raises(FactorcubeError):
        store.open_dataset("panels", "planted").load()


def test_a_codec_that_unpickles_is_unknown_in_a_version(tmp_path: Path, canary: Path) -> None:
    dataset = version_data()
    ref = published.publish(Layout(tmp_path), dataset, manifest_of(dataset), {"gamma": np.zeros(1)})
    folder = tmp_path / "published/us/ipca" / ref.version
    document = json.loads((folder / "loadings/zarr.json").read_text())
    document["codecs"] = [{"name": "numcodecs.pickle", "configuration": {"protocol": 5}}]
    (folder / "loadings/zarr.json").write_text(json.dumps(document))
    for chunk in (folder / "loadings").glob("c.*"):
        chunk.write_bytes(pickle.dumps(Payload(canary)))
    with pytest.raises(CorruptionError):
        published.verify(Layout(tmp_path), ref)
    with pytest.raises((CorruptionError, ValueError, KeyError, TypeError)):
        xr.open_zarr(folder, consolidated=False).load()


TAGS = [
    "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path [{canary}]]",
    "!!python/object/new:os.system ['touch {canary}']",
    "!!python/name:os.system",
    "!!python/module:antigravity",
]


@pytest.mark.parametrize("tag", TAGS)
def test_a_tag_in_a_config_is_refused_and_not_executed(tag: str, tmp_path: Path, canary: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"universe: {tag.format(canary=canary)}\n")
    with pytest.raises(ConfigError, match="not valid YAML") as told:
        load_spec(tmp_path / "config.yaml")
    assert "\n" not in str(told.value)


OUTSIDE = ["../../outside", "..", "/etc", "a/../../b", "a\\..\\b", "a%2f..%2fb", "a\0b", ".hidden", "a" * 100, "ｅvil"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_cannot_leave_its_folder(name: str, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "root")
    for folder in (layout.cube, layout.home_folder, layout.work, layout.quarantine, layout.data_docs):
        with pytest.raises(ConfigError):
            folder(name)
    for attempt in (
        lambda: published.latest(layout, "us", name),
        lambda: published.resolve(layout, f"us/ipca/{name}"),
        lambda: published.promote(layout, "us", "ipca", name, reason="no"),
    ):
        with pytest.raises((ConfigError, PublishError)):
            attempt()
    assert published.find(layout, "us", "ipca", name) is None


@pytest.mark.parametrize("arguments", [["show", "{name}"], ["report", "us/{name}/latest"]])
def test_a_name_on_the_command_line_cannot_leave_the_root(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/manifest.json").write_text("{}")
    given = [argument.format(name="../../outside") for argument in arguments]
    ended = subprocess.run(
        [sys.executable, "-m", "deploy.cli", *given],
        env={"FACTORCUBE_ROOT": str(tmp_path / "root"), "PYTHONPATH": ":".join(sys.path), "HOME": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 1, ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stderr.startswith("error: ")


def test_a_link_to_outside_is_not_followed(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    dataset = version_data()
    ref = published.publish(Layout(outside), dataset, manifest_of(dataset), {"gamma": np.zeros(1)})
    (root / "published").mkdir(parents=True)
    (root / "published/us").symlink_to(outside / "published/us")
    with pytest.raises(ConfigError, match="symbolic link leads outside"):
        published.open_version(Layout(root), ref)
    (root / "published/us").unlink()
    (root / "published/us/ipca").mkdir(parents=True)
    (root / "published/us/ipca" / ref.version).symlink_to(outside / "published/us/ipca" / ref.version)
    with pytest.raises(FactorcubeError):
        published.open_version(Layout(root), ref)


def test_a_spec_takes_no_name_that_is_a_path() -> None:
    from schemas.spec import RunSpec

    for name in OUTSIDE:
        for changes in ({"universe": name}, {"models": [{"kind": "market", "name": name}]}):
            with pytest.raises(ConfigError):
                RunSpec.parse({**SMALL, **changes}, origin="a test")
