"""A fit and a score of many stocks over many dates take the memory of a block, not of all dates times stocks anew."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from models import PCA, FactorModel, MarketModel, Panel
from models.inference import regression
from models.panel import row_blocks

N_DATES, N_STOCKS = 2_000, 250


@pytest.fixture(scope="module")
def panel() -> Panel:
    """Make a panel in which stocks come and go."""
    rng = np.random.default_rng(0)
    market = 0.01 * rng.standard_normal((N_DATES, 1))
    returns = (market + 0.02 * rng.standard_normal((N_DATES, N_STOCKS))).astype(np.float32)
    first = rng.uniform(-0.5, 0.4, N_STOCKS) * N_DATES
    position = np.arange(N_DATES)[:, None]
    returns[(position < first) | (position >= first + 0.9 * N_DATES)] = np.nan
    return Panel.from_arrays(returns, np.zeros((N_DATES, N_STOCKS, 1), dtype=np.float32))


def peak_of(work: Callable[[], object]) -> int:
    """Return the bytes that something takes at most."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_regressions_take_the_memory_of_a_block_and_are_those_of_all_stocks(
    panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = MarketModel().fit(panel)
    monkeypatch.setattr(regression, "_CELLS_AT_ONCE", 20 * N_DATES)
    model = MarketModel()
    assert peak_of(lambda: model.fit(panel)) < 3 * panel.returns.values.nbytes
    for name, array in model.state().arrays.items():
        np.testing.assert_allclose(array, whole.state().arrays[name], rtol=1e-10, atol=1e-14, err_msg=name)


@pytest.mark.parametrize("model", [MarketModel(), PCA(n_factors=3, tol=1e-3)], ids=lambda model: model.kind)
def test_scores_take_the_memory_of_a_block_and_are_those_of_all_dates(
    model: FactorModel, panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.fit(panel)
    whole = model.score(panel)
    monkeypatch.setattr(row_blocks, "_BLOCK_ROWS", 200)
    assert model.score(panel) == pytest.approx(whole, rel=1e-10)
    assert peak_of(lambda: model.score(panel)) < 3 * panel.returns.values.nbytes
