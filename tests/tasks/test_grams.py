"""The Gram store: the same bits however it came about, invalid exactly when its data change, and enough for a fit."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from distributed import Client, LocalCluster
from gram_bits import same_bits
from small_market import SMALL
from storing import cube_data

from models.families.linear import GramModel
from models.families.registry import build
from models.forecasting.schedule import training
from models.statistics.gram import Design, GramStatistics, gram_of
from schemas.families import model_spec
from schemas.refs import SnapshotRef
from schemas.settings import Settings
from schemas.spec import RunSpec
from storage import work
from storage.cube import Cube
from tasks import fitting, grams
from tasks.panels import Sample, build_panel
from tasks.workspace import Workspace

DATES = pd.bdate_range("2023-01-02", periods=150)
TICKERS = [f"S{n:02d}" for n in range(20)]
CHARS = ("mom12m", "beta")
PLAIN = Design((*CHARS, "constant"))
WIDE = Design(CHARS, intercept=True, industries=True, weighting="sqrt_cap", caps=True)
SPEC = RunSpec.parse(
    {
        **SMALL,
        "universe": "us",
        "calendar": "none",
        "portfolios": [{"kind": "equal_weight", "name": "market"}],
        "panel": {"market_portfolio": "market", "constant": True},
    },
    origin="test",
)


@pytest.fixture(scope="module")
def data() -> xr.Dataset:
    """Make a cube in which the last industry is first named late."""
    cube = cube_data(DATES, TICKERS, chars=CHARS)
    cube["industry"][130:, 3] = 2
    cube["weights"] = abs(cube["weights"])
    cube["characteristics"][:, 5] = np.nan
    return cube.assign_coords(industry_name=["bank", "tech", "oil"])


class Store:
    """An installation, and the panel of the newest snapshot of its cube."""

    def __init__(self, root: Path, *parts: xr.Dataset, spec: RunSpec = SPEC) -> None:
        self.root, self.spec = root, spec
        self.space = Workspace(root)
        cube = Cube.open_or_create(self.space.layout, "us")
        for part in parts:
            commit = cube.upsert(part, message="test", metadata={})
        self.snapshot = SnapshotRef(universe="us", snapshot_id=commit.snapshot_id, ingest_key="i", checks_key="c")
        self.sample = self.known(None)

    def known(self, as_of: pd.Timestamp | None) -> Sample:
        day = None if as_of is None else as_of.date()
        return Sample(self.space, build_panel(self.spec, self.snapshot, day, Settings(root=self.root)), self.spec)

    def grams(self, design: Design = PLAIN, until: pd.Timestamp = DATES[-1]) -> GramStatistics:
        grams._assembled.cache_clear()
        return grams.dated_grams(self.sample, design, until).gram

    def missing(self, design: Design = PLAIN) -> list[tuple[int, int]]:
        return grams.missing_spans(self.sample, design)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Positions of the dates that were computed from rows of a panel."""
    seen: list[tuple[int, int]] = []
    original = grams.dated_gram

    def compute(rows: xr.Dataset, design: Design) -> grams.DatedGram:
        start = DATES.get_loc(rows.indexes["date"][0])
        seen.append((start, start + rows.sizes["date"]))
        return original(rows, design)

    monkeypatch.setattr(grams, "dated_gram", compute)
    return seen


def test_spans_are_aligned_and_cover_every_date_once() -> None:
    assert list(grams.spans(150)) == [(0, 64), (64, 128), (128, 144), (144, 148), (148, 150)]
    for n_dates in (0, 1, 63, 64, 65, 200):
        cover = list(grams.spans(n_dates))
        assert [day for start, stop in cover for day in range(start, stop)] == list(range(n_dates))
        assert all(start % (stop - start) == 0 for start, stop in cover)


@pytest.mark.parametrize("design", [PLAIN, WIDE], ids=["plain", "industries"])
def test_the_store_gives_the_bits_of_the_panel_as_of_any_date(design: Design, data: xr.Dataset, tmp_path: Path) -> None:
    store = Store(tmp_path, data)
    for until in DATES[[0, 1, 63, 64, 100, 130, 131, 149]]:
        same_bits(store.grams(design, until), gram_of(store.sample.past(until), design))
    assert "industry:oil" not in store.grams(WIDE, DATES[130]).chars, "the name comes with the lag of the panel"
    assert "industry:oil" in store.grams(WIDE, DATES[131]).chars


@pytest.mark.parametrize("design", [PLAIN, pytest.param(WIDE, marks=pytest.mark.slow)], ids=["plain", "industries"])
def test_extended_date_by_date_and_built_at_once_are_the_same_bits(
    design: Design, data: xr.Dataset, tmp_path: Path, computed: list[tuple[int, int]]
) -> None:
    """And a date is read from the panel once, whatever was appended: dates, and tickers with them."""
    grown = data.drop_sel(ticker="S19").isel(date=slice(0, 120))
    rest = data.isel(date=slice(120, None)).sel(ticker=[*TICKERS[:19], "S19"])
    extended = Store(tmp_path / "a", grown)
    for last in (10, 11, 40, 70, 119):
        extended.sample = extended.known(DATES[last])
        extended.grams(design, DATES[last])
    for last in (124, 149):
        extended = Store(tmp_path / "a", rest.isel(date=slice(0, last - 119)))
        assert "S19" in extended.sample.past(DATES[last]).tickers
        extended.grams(design, DATES[last])
    read = [day for start, stop in computed for day in range(start, stop)]
    assert sorted(read) == list(range(150))
    computed.clear()
    whole = Store(tmp_path / "b", grown, rest)
    same_bits(extended.grams(design), whole.grams(design))
    assert computed == list(grams.spans(150))


def test_a_restated_date_leaves_what_is_before_it_and_nothing_after(
    data: xr.Dataset, tmp_path: Path, computed: list[tuple[int, int]]
) -> None:
    before = Store(tmp_path, data).grams()
    computed.clear()
    late = data.isel(date=[100]).copy(deep=True)
    late["returns"][0] += 0.5
    store = Store(tmp_path, late)
    after = store.grams()
    assert computed == list(grams.spans(150))[1:]
    np.testing.assert_array_equal(after.zr[:100], before.zr[:100])
    assert (after.zr[100] != before.zr[100]).any()
    assert not store.missing()
    same_bits(before, Store(tmp_path, data.isel(date=[100])).grams())
    assert len(computed) == 4, "what was there before the restatement is found again"


def test_what_a_model_sees_names_an_entry_and_what_it_does_not_see_does_not(data: xr.Dataset, tmp_path: Path) -> None:
    store = Store(tmp_path, data)
    store.grams()
    assert store.missing(WIDE) == list(grams.spans(150))
    models = (model_spec({"kind": "fama_macbeth", "name": "other"}),)
    store.spec = SPEC.model_copy(update={"models": models, "seed": 7} if hasattr(SPEC, "seed") else {"models": models})
    assert not store.missing()
    ranked = SPEC.panel.model_copy(update={"transform": "standardise"})
    other = Store(tmp_path, data, spec=SPEC.model_copy(update={"panel": ranked}))
    assert other.missing() == list(grams.spans(150))


@pytest.mark.filterwarnings("ignore:.*an industry has no stock")
@pytest.mark.parametrize("window", [None, 60])
def test_a_fit_from_the_store_is_that_of_the_panel_and_a_second_model_reads_no_panel(
    window: int | None, data: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SPEC.model_copy(update={"walk_forward": SPEC.walk_forward.model_copy(update={"window": window})})
    store = Store(tmp_path, data, spec=spec)
    specs = [
        model_spec({"kind": "fama_macbeth"}),
        model_spec({"kind": "fama_macbeth", "newey_west_lags": 2}),
        model_spec({"kind": "fama_macbeth", "weighting": "cap"}),
        model_spec({"kind": "cross_section"}),
        model_spec({"kind": "ipca", "n_factors": 1}),
    ]
    models = [build(each) for each in specs]
    for as_of in DATES[[90, 149]]:
        train = training(store.sample.past(as_of), window)
        for model in models:
            assert isinstance(model, GramModel)
            fitting._learn(model, store.sample, as_of, [])
            score = fitting.scores_in_sample(store.sample, model, as_of)
            expected = model.clone().fit(train)
            assert score == pytest.approx(expected.score(train), abs=1e-6)
            for name, array in expected.state().arrays.items():
                assert np.asarray(model.state().arrays[name]).tobytes() == np.asarray(array).tobytes(), name
            assert model.state().meta == expected.state().meta

    def refuse(*arguments: object) -> None:
        raise AssertionError(f"the panel was read: {arguments}")

    monkeypatch.setattr(grams, "dated_gram", refuse)
    monkeypatch.setattr(fitting, "training", refuse)
    grams._assembled.cache_clear()
    for as_of in DATES[70:150:20]:
        for lags in (0, 1):
            for each in (
                model_spec({"kind": kind, "newey_west_lags": lags}) for kind in ("fama_macbeth", "cross_section")
            ):
                fitting._learn(build(each), store.sample, as_of, [])


@pytest.mark.slow
def test_a_worker_that_is_killed_leaves_no_half_entry_and_its_span_is_made_again(
    data: xr.Dataset, tmp_path: Path
) -> None:
    store = Store(tmp_path / "root", data)
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, security=True, silence_logs=50) as cluster,
        Client(cluster, security=cluster.security) as client,
    ):
        arguments = (store.sample, WIDE, 64, 128)
        name = client.submit(killed_once, tmp_path / "died", *arguments).result(timeout=300)
    assert (tmp_path / "died").exists()
    assert [path.name for path in (store.root / "work" / "grams").iterdir() if path.is_dir()] == [name]
    same_bits(store.grams(WIDE), Store(tmp_path / "other", data).grams(WIDE))


def killed_once(died: Path, *arguments: object) -> str:
    """Make a span, and die the first time between writing it and giving it its name. Runs on a worker."""
    if not died.exists():
        died.touch()
        work.place = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    return grams.make_span(*arguments)
