"""A notebook makes in three lines what a retrain publishes, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from running import Inline, deliver, ingested, listing_market

from models import Panel, WalkForward, forecast
from models.families.registry import build
from schemas.refs import VersionRef
from schemas.settings import Settings
from schemas.spec import RunSpec
from storage import published
from storage.cube import Cube
from tasks.training import train
from tasks.workspace import Workspace

MODELS = ("market", "fama_macbeth", "pca", "ipca", "autoencoder")


class Retrained:
    """The versions of five models on a market in which a stock is listed late."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(root=folder / "out")
        self.spec: RunSpec = deliver(folder, listing_market())
        self.snapshot = ingested(self.spec, self.settings)
        refs = train(self.spec, self.spec.models, self.snapshot, None, Inline(), self.settings)
        self.refs: dict[str, VersionRef] = {ref.model: ref for ref in refs}

    def cube(self) -> xr.Dataset:
        return Cube.open(Workspace.of(self.settings).layout, "small").open_dataset(self.snapshot.snapshot_id)


@pytest.fixture(scope="module")
def retrained(tmp_path_factory: pytest.TempPathFactory) -> Retrained:
    return Retrained(tmp_path_factory.mktemp("retrained"))


@pytest.mark.parametrize("name", MODELS)
def test_three_lines_make_the_published_bits(name: str, retrained: Retrained) -> None:
    model = build(next(one for one in retrained.spec.models if one.name == name))
    cube = retrained.cube()
    panel = Panel.from_cube(cube, next_date="2017-01-03")
    version = forecast(model, panel, cube, WalkForward(first="2016-06-30", every="quarter"))
    ref = retrained.refs[name]
    stored = published.open_version(Workspace.of(retrained.settings).layout, ref).load()
    assert set(version) == set(stored)
    for variable, array in stored.data_vars.items():
        mine = version[variable].transpose(*array.dims)
        assert mine.dtype == array.dtype
        np.testing.assert_array_equal(mine.values, array.values, err_msg=f"{name}: {variable}")
