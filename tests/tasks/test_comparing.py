"""What `factorcube diff` says: known differences, rotated factors, other axes, and nothing at all."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from fixtures_versions import make_versions
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group
from storing import STATE
from typer.testing import CliRunner

from deploy.cli import app
from models.evaluation.differences import Spread, covariance_distance, spread
from schemas.contracts import Manifest
from schemas.differences import ArrayDifference, VersionDifference
from schemas.refs import VersionRef
from storage import published
from storage.layout import Layout
from tasks.comparing import compare_versions

BASE = make_versions(("ipca",), n_dates=300, n_tickers=10)[0]
TURN = ortho_group.rvs(3, random_state=0)


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setenv("FACTORCUBE_ROOT", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    return Layout(tmp_path)


def publish(layout: Layout, dataset: xr.Dataset, tag: str, **changes: object) -> VersionRef:
    as_of = dataset.indexes["date"][-1].date()
    facts = {"as_of": as_of, "version": f"{as_of}-{tag * 8}", "created_at": datetime.now(UTC), **changes}
    manifest = Manifest.model_validate({**BASE.manifest.model_dump(), **facts})
    return published.publish(layout, dataset, manifest, STATE)


def compared(layout: Layout, other: xr.Dataset, one: xr.Dataset = BASE.dataset, **changes: object) -> VersionDifference:
    return compare_versions(layout, publish(layout, one, "a"), publish(layout, other, "b", **changes))


def found(arrays: tuple[ArrayDifference, ...], name: str) -> ArrayDifference:
    return next(array for array in arrays if array.name == name)


def turned(dataset: xr.Dataset) -> xr.Dataset:
    """Return the same model in other coordinates: X R, R'f, R' Omega R."""
    loadings = np.einsum("tnk,kl->tnl", dataset["loadings"].values.astype(float), TURN).astype(np.float32)
    return dataset.assign(
        loadings=(("date", "ticker", "factor"), loadings),
        factor_returns=(("date", "factor"), dataset["factor_returns"].values @ TURN),
        omega=(("date", "factor", "factor_"), TURN.T @ dataset["omega"].values @ TURN),
    )


def test_the_same_numbers_are_identical_and_one_line(layout: Layout) -> None:
    difference = compared(layout, BASE.dataset)
    assert difference.identical
    assert all(array.identical and array.maximum == 0.0 for array in difference.arrays)
    assert not difference.inputs
    shown = CliRunner().invoke(app, ["diff", difference.one, difference.other]).output
    assert "identical: the same axes and the same numbers, bit for bit" in shown
    assert "inputs: the same" in shown
    assert "largest difference" not in shown
    assert compare_versions(layout, *[published.find(layout, *difference.one.split("/"))] * 2).identical


def test_one_bit_is_not_identical(layout: Layout) -> None:
    omega = BASE.dataset["omega"].copy(deep=True)
    omega[-1, 0, 0] = np.nextafter(float(omega[-1, 0, 0]), np.inf)
    difference = compared(layout, BASE.dataset.assign(omega=omega))
    assert not difference.identical
    assert not difference.identical_where_common
    changed = [array.name for array in difference.arrays if not array.identical]
    assert changed == ["omega"]
    assert 0.0 < found(difference.arrays, "omega").maximum < 1e-15


def test_known_differences_are_measured(layout: Layout) -> None:
    shift = BASE.dataset["loadings"] + np.float32(0.5)
    other = BASE.dataset.assign(
        loadings=shift.where(BASE.dataset["ticker"] != "T009"),
        specific_variance=2.0 * BASE.dataset["specific_variance"],
        portfolio_variance=1.25 * BASE.dataset["portfolio_variance"],
    )
    difference = compared(layout, other)
    loadings = found(difference.arrays, "loadings")
    assert loadings.maximum == pytest.approx(0.5, abs=1e-6)
    assert loadings.rms == pytest.approx(0.5, abs=1e-6)
    assert loadings.unmatched == int(np.isfinite(BASE.dataset["loadings"].sel(ticker="T009")).sum())
    assert found(difference.arrays, "specific_variance").relative == pytest.approx(1.0, rel=1e-6)
    assert difference.portfolio_variance == pytest.approx(dict.fromkeys(BASE.portfolios, 0.25))


def test_rotated_latent_factors_are_the_same_model(layout: Layout) -> None:
    difference = compared(layout, turned(BASE.dataset))
    assert found(difference.arrays, "loadings").relative > 0.1
    assert found(difference.arrays, "omega").relative > 0.1
    assert difference.alignment == "latent factors aligned by rotation over 300 common dates"
    for name in ("loadings", "factor_returns", "omega"):
        assert found(difference.aligned, name).relative < 1e-6
    assert difference.covariance.dates > 0
    assert difference.covariance.maximum < 1e-6
    renamed = turned(BASE.dataset).assign_coords(factor=["x", "y", "z"], factor_=["x", "y", "z"])
    difference = compare_versions(layout, publish(layout, BASE.dataset, "a"), publish(layout, renamed, "c"))
    assert found(difference.aligned, "omega").relative < 1e-6
    assert difference.axes["factor"].common == 0


def test_omega_is_compared_in_risk_terms(layout: Layout) -> None:
    difference = compared(layout, BASE.dataset.assign(omega=1.5 * BASE.dataset["omega"]))
    assert difference.covariance.mean == pytest.approx(0.5, rel=1e-9)
    assert found(difference.arrays, "omega").relative == pytest.approx(0.5, rel=1e-9)
    assert difference.alignment == "not aligned: the factor returns are identical"
    difference = compare_versions(
        layout,
        publish(layout, BASE.dataset, "c"),
        publish(layout, turned(BASE.dataset.assign(omega=2 * BASE.dataset["omega"])), "d"),
    )
    assert found(difference.aligned, "omega").relative == pytest.approx(1.0, rel=1e-6)
    assert difference.covariance.mean == pytest.approx(1.0, rel=1e-6)


@pytest.mark.slow
def test_observed_factors_are_compared_by_name(layout: Layout) -> None:
    observed = {"kind": "fama_macbeth"}
    one = publish(layout, BASE.dataset, "a", **observed)
    fewer = BASE.dataset.isel(factor=[0, 2], factor_=[0, 2])
    difference = compare_versions(layout, one, publish(layout, fewer, "b", **observed))
    assert difference.alignment == "not aligned: factors are compared by name"
    assert not difference.aligned
    assert found(difference.arrays, "loadings").maximum == 0.0
    assert difference.axes["factor"].removed == ("f2",)
    assert difference.covariance.mean > 0.01
    latent = compare_versions(layout, publish(layout, BASE.dataset, "c"), publish(layout, fewer, "d"))
    assert latent.alignment == "not aligned: 3 factors against 2"


def test_added_and_removed_labels_are_named_and_common_ones_compared(layout: Layout) -> None:
    """Another order of tickers, one more and one less, fewer dates, another portfolio."""
    one = BASE.dataset.isel(ticker=slice(0, 9))
    order = np.random.default_rng(0).permutation(9) + 1
    other = BASE.dataset.isel(ticker=order, date=slice(10, None), portfolio=[2, 0])
    other = other.assign_coords(portfolio=["new", "equal_weight"])
    difference = compared(layout, other, one)
    assert (difference.axes["ticker"].added, difference.axes["ticker"].removed) == (("T009",), ("T000",))
    assert len(difference.axes["date"].removed) == 10
    assert difference.axes["date"].removed[0] == "2017-01-02"
    assert difference.axes["portfolio"].added == ("new",)
    assert not difference.identical
    assert found(difference.arrays, "loadings").identical
    assert found(difference.arrays, "weights").identical
    assert found(difference.arrays, "loadings").compared == int(
        np.isfinite(BASE.dataset["loadings"].isel(ticker=slice(1, 9), date=slice(10, None))).sum()
    )
    assert list(difference.portfolio_variance) == ["equal_weight"]


def test_an_update_is_identical_where_common(layout: Layout) -> None:
    parent = BASE.dataset.isel(date=slice(0, 290))
    one, other = publish(layout, parent, "a"), publish(layout, BASE.dataset, "b", made_by="update", parent="x")
    difference = compare_versions(layout, one, other)
    assert not difference.identical
    assert difference.identical_where_common
    shown = CliRunner().invoke(app, ["diff", difference.one, difference.other]).output
    assert "identical where both have rows" in shown
    assert "date: 290 in common, 10 added in B: " in shown


def test_nothing_in_common_is_no_failure(layout: Layout) -> None:
    one = BASE.dataset.isel(date=slice(0, 100), ticker=slice(0, 5))
    other = BASE.dataset.isel(date=slice(150, 300), ticker=slice(5, 10)).assign_coords(portfolio=["a", "b", "c"])
    difference = compared(layout, other, one)
    assert difference.covariance.dates == 0
    assert found(difference.arrays, "loadings").compared == 0
    assert found(difference.arrays, "loadings").rms is None
    assert difference.alignment.startswith("not aligned: 0 common dates")
    result = CliRunner().invoke(app, ["diff", difference.one, difference.other])
    assert result.exit_code == 0


def test_inputs_and_metrics_that_differ_are_named(layout: Layout) -> None:
    config = {**BASE.manifest.config, "models": [{"kind": "ipca", "n_factors": 4}], "new": {"[key]": None}}
    metrics = {**BASE.manifest.metrics, "total_r2_out_of_sample": None, "extra": 1.0}
    difference = compared(
        layout,
        BASE.dataset,
        config=config,
        metrics=metrics,
        packages={**BASE.manifest.packages, "numpy": "2.5.0"},
        arithmetic={**BASE.manifest.arithmetic, "processor": "another"},
        snapshot_id="OTHER",
        input_digest="ff" * 32,
        code_version="abc",
    )
    named = {one.name: (one.one, one.other) for one in difference.inputs}
    assert named == {
        "snapshot_id": (BASE.manifest.snapshot_id, "OTHER"),
        "input_digest": ("7b" * 32, "ff" * 32),
        "code_version": (BASE.manifest.code_version, "abc"),
        "config.models.0.n_factors": ("absent", "4"),
        "config.new.[key]": ("absent", "None"),
        "packages.numpy": ("2.4.0", "2.5.0"),
        "arithmetic.processor": (BASE.manifest.arithmetic["processor"], "another"),
    }
    assert difference.metrics["extra"] == (None, 1.0)
    assert difference.metrics["total_r2_out_of_sample"][1] is None
    assert difference.identical, "the numbers are the same whatever they were made from"
    result = CliRunner().invoke(app, ["diff", difference.one, difference.other, "--json"])
    assert VersionDifference.model_validate(json.loads(result.output)) == difference
    shown = CliRunner().invoke(app, ["diff", difference.one, difference.other]).output
    assert "config.new.[key]" in shown
    assert "2.5.0" in shown


def test_a_damaged_version_is_named(layout: Layout) -> None:
    one, other = publish(layout, BASE.dataset, "a"), publish(layout, BASE.dataset, "b")
    (layout.home_folder("us_large", "ipca") / other.version / "omega" / "zarr.json").unlink()
    result = CliRunner().invoke(app, ["diff", *(f"us_large/ipca/{ref.version}" for ref in (one, other))])
    assert "omega/zarr.json is missing" in str(result.exception)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 12), factors=st.tuples(st.integers(1, 4), st.integers(1, 4)))
def test_covariance_distance_is_that_of_the_stock_matrices(seed: int, n: int, factors: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    loadings = tuple(rng.normal(size=(3, n, k)) for k in factors)
    loadings[1][0, 0] = np.nan
    omegas = tuple(np.einsum("tij,tkj->tik", *[rng.normal(size=(3, k, k))] * 2) for k in factors)
    distance = covariance_distance(loadings, omegas)
    covered = np.isfinite(loadings[1]).all(axis=2)
    for t in range(3):
        known = [x[t][covered[t]] for x in loadings]
        one, other = (x @ omega[t] @ x.T for x, omega in zip(known, omegas, strict=True))
        if covered[t].any():
            assert distance[t] == pytest.approx(np.linalg.norm(one - other) / np.linalg.norm(one), rel=1e-8)
        else:
            assert np.isnan(distance[t])


def test_spreads_of_parts_add_up() -> None:
    rng = np.random.default_rng(3)
    one, other = rng.normal(size=(2, 40, 3))
    one[5], other[6] = np.nan, np.nan
    one[7] = other[7] = np.nan
    whole = spread(one, other)
    parts = spread(one[:13], other[:13]) + spread(one[13:], other[13:])
    assert whole.compared == parts.compared == 37 * 3
    assert whole.unmatched == parts.unmatched == 6
    assert whole.rms == pytest.approx(parts.rms)
    assert whole.rms == pytest.approx(np.sqrt(np.nanmean((one - other) ** 2)))
    assert Spread().rms is None
