"""A notebook makes in three lines what a retrain publishes, bit for bit."""

from __future__ import annotations

from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from running import Inline, deliver, ingested, listing_market
from small_market import SMALL, write_config

from models import Panel, WalkForward, forecast
from models.families.registry import build
from schemas.families import ModelSpec
from schemas.refs import VersionRef
from schemas.settings import Settings
from schemas.spec import RunSpec
from storage import published
from storage.configs import load_spec
from storage.cube import Cube
from tasks.fitting import fit_key
from tasks.panels import Sample, build_panel
from tasks.training import train
from tasks.updating import update_version
from tasks.workspace import Workspace

SLOW = ("market", "fama_macbeth", "pca", "autoencoder", "mixed", "mean", "clustered", "learnt")
MODELS = ("ipca", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW))
OF_CHARACTERISTICS = ("fama_macbeth", "ipca", "autoencoder")
"""Those whose loadings are functions of characteristics alone."""
REFITS: dict[str, Any] = {"first": "2016-09-30", "every": "quarter"}
BENCHMARKS = {"pair": "equal_weight"}
OF_OTHERS: list[dict[str, Any]] = [
    {"kind": "mean_of_models", "name": "mean", "of": ["few", "many"]},
    {"kind": "hybrid", "name": "mixed", "of": "pca", "n_factors": 2},
    {"kind": "residual_som", "name": "clustered", "of": "market", "rows": 1, "columns": 2, "adds": True},
    {"kind": "residual_network", "name": "learnt", "of": "pca", "hidden": [4], "max_epochs": 2, "seeds": [0, 1]},
    {"kind": "factor_analysis", "name": "few", "n_factors": 2},
    {"kind": "factor_analysis", "name": "many", "n_factors": 4, "halflives": [120.0], "shares": [1.0]},
]


class Retrained:
    """The versions of models, and of models of models, on a market in which a stock is listed late."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(root=folder / "out")
        deliver(folder, listing_market())
        equal, pair = SMALL["portfolios"]
        portfolios = [equal, pair | {"benchmark": BENCHMARKS["pair"]}]
        changes = {"models": [*OF_OTHERS, *SMALL["models"]], "portfolios": portfolios, "walk_forward": REFITS}
        self.spec: RunSpec = load_spec(write_config(folder, changes))
        self.snapshot = ingested(self.spec, self.settings)

    @cache  # noqa: B019  # one object for all tests
    def ref(self, name: str) -> VersionRef:
        """Retrain a model, with those that it is fitted on, when a test asks for it first."""
        asked = [one for one in self.spec.models if one.name == name]
        (ref,) = train(self.spec, asked, self.snapshot, None, Inline(), self.settings)
        return ref

    def opened(self, ref: VersionRef) -> xr.Dataset:
        return published.open_version(Workspace.of(self.settings).layout, ref).load()

    def cube(self) -> xr.Dataset:
        return Cube.open(Workspace.of(self.settings).layout, "small").open_dataset(self.snapshot.snapshot_id)


@pytest.fixture(scope="module")
def retrained(tmp_path_factory: pytest.TempPathFactory) -> Retrained:
    return Retrained(tmp_path_factory.mktemp("retrained"))


@pytest.mark.parametrize("name", MODELS)
def test_three_lines_make_the_published_bits(name: str, retrained: Retrained) -> None:
    by_name = {one.name: one for one in retrained.spec.models}
    model = build(by_name[name])
    bases = [build(by_name[base]) for base in model.bases]
    cube = retrained.cube()
    panel = Panel.from_cube(cube, next_date="2017-01-03")
    schedule = WalkForward(**REFITS)
    version = forecast(model, panel, cube, schedule, bases=bases, benchmarks=BENCHMARKS)
    stored = retrained.opened(retrained.ref(name))
    assert set(version) == set(stored)
    assert ("response" in stored) == (name in OF_CHARACTERISTICS)
    for variable, array in stored.data_vars.items():
        mine = version[variable].transpose(*array.dims)
        assert mine.dtype == array.dtype
        np.testing.assert_array_equal(mine.values, array.values, err_msg=f"{name}: {variable}")


@pytest.mark.slow
def test_a_hybrid_has_the_published_factors_of_its_model(retrained: Retrained) -> None:
    mixed, pca = (retrained.opened(retrained.ref(name)) for name in ("mixed", "pca"))
    assert mixed["factor"].values.tolist() == ["factor_1", "factor_2", "residual_3", "residual_4", "budget"]
    one, other = (each["loadings"] / each["loading_scale"] for each in (mixed, pca))
    np.testing.assert_allclose(one[..., :2], other[..., :2], rtol=1e-5, atol=1e-7)


def test_what_factors_brought_and_what_is_specific_make_the_return_of_a_portfolio(retrained: Retrained) -> None:
    version = retrained.opened(retrained.ref("ipca"))
    brought, rest = version["attribution_factor"], version["attribution_specific"]
    known = rest.notnull()
    assert known.sum() > 120
    np.testing.assert_allclose((brought.sum("factor") + rest).where(known), version["portfolio_return"].where(known))
    loadings = (version["loadings"] / version["loading_scale"]).astype(np.float64).fillna(0.0)
    exposure = xr.dot(version["weights"].astype(np.float64), loadings, dim="ticker").shift(date=1)
    moved = version["factor_returns"].fillna(0.0)
    np.testing.assert_allclose(
        brought.where(known), (exposure * moved).where(known).transpose(*brought.dims), atol=1e-8
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mixed", "mean"])
def test_an_update_of_a_model_of_models_is_the_retrain(name: str, retrained: Retrained) -> None:
    spec = next(one for one in retrained.spec.models if one.name == name)
    known, until = date(2016, 12, 20), date(2016, 12, 28)
    (early,) = train(retrained.spec, [spec], retrained.snapshot, known, Inline(), retrained.settings)
    updated = retrained.opened(
        update_version("small", name, retrained.snapshot, until, retrained.settings, parent=early)
    )
    whole, days = retrained.opened(retrained.ref(name)), updated.indexes["date"][-5:]
    assert days[0].date() > known
    for variable in ("loadings", "factor_returns", "omega", "specific_variance", "portfolio_variance"):
        mine, stored = (each[variable].sel(date=days[:-1]) for each in (updated, whole))
        np.testing.assert_array_equal(mine, stored, err_msg=variable)


def test_the_name_of_a_fit_holds_those_of_all_models_that_it_is_fitted_on(retrained: Retrained) -> None:
    spec = retrained.spec
    panel = build_panel(spec, retrained.snapshot, None, retrained.settings)
    others = {name: [_other(one, name) for one in spec.models] for name in ("few", "many", "pca")}
    changed = {name: spec.model_copy(update={"models": tuple(models)}) for name, models in others.items()}
    mean, mixed = (next(one for one in spec.models if one.name == name) for name in ("mean", "mixed"))
    as_of = pd.Timestamp("2016-09-30")

    def named(spec: RunSpec, model: ModelSpec) -> str:
        return fit_key(Sample(Workspace.of(retrained.settings), panel, spec), model, as_of)

    for model, below in ((mean, {"few", "many"}), (mixed, {"pca"})):
        assert {name for name, other in changed.items() if named(other, model) != named(spec, model)} == below


def _other(model: ModelSpec, name: str) -> ModelSpec:
    return model.model_copy(update={"n_factors": 3}) if model.name == name else model
