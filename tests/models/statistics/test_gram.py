"""Gram statistics against plain products, and what may not have a say in their bits."""

from __future__ import annotations

from dataclasses import replace
from threading import Barrier, Event, Thread

import numpy as np
import pytest
import torch
from gram_bits import same_bits
from hypothesis import given, settings
from hypothesis import strategies as st

from models.blas import one_thread
from models.families.linear import gram_r2
from models.panel import Panel
from models.statistics.gram import Design, GramStatistics, gram_of, gram_statistics
from schemas.errors import DataError, ModelError

N_DATES, N_STOCKS, N_CHARS = 9, 40, 3
INDUSTRIES = ["banks", "oil", "shops", "empty"]
Weighting = str


def make_panel(seed: int = 0, *, industries: bool = True, stocks: int = N_STOCKS, chars: int = N_CHARS) -> Panel:
    """Simulate an unbalanced panel: gaps, a date without returns, a date with one stock, unknown industries."""
    rng = np.random.default_rng(seed)
    shape = (N_DATES, stocks)
    characteristics = rng.standard_normal((*shape, chars)).astype(np.float32)
    characteristics[rng.random(shape) < 0.1] = np.nan
    returns = 0.02 * rng.standard_normal(shape).astype(np.float32)
    returns[rng.random(shape) < 0.1] = np.nan
    returns[3] = np.nan
    returns[5, 1:] = np.nan
    cap = rng.lognormal(size=shape) * (rng.random(shape) < 0.95)
    codes = rng.integers(-1, 3, shape).astype(np.int16) if industries else None
    return Panel.from_arrays(
        returns, characteristics, market_weight=cap, industry=codes, industries=INDUSTRIES if industries else None
    )


def direct(panel: Panel, design: Design, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Regressors, returns and weights of the stocks that enter at a date, the regressors written out."""
    held = panel.market_weight.values[row].astype(np.float64)
    weight = {"equal": np.ones_like(held), "cap": held, "sqrt_cap": np.sqrt(held)}[design.weighting]
    known = panel.mask.values[row] & (weight > 0.0)
    columns = [panel.characteristics.sel(char=[*design.chars]).values[row].astype(np.float64)]
    if design.industries:
        codes = panel.industry.values[row]
        known &= codes >= 0
        columns.insert(0, (codes[:, None] == np.arange(len(panel.industries))).astype(np.float64))
    if design.intercept:
        columns.insert(0, np.ones((len(held), 1)))
    return np.hstack(columns)[known], panel.returns.values[row].astype(np.float64)[known], weight[known]


@pytest.mark.parametrize("weighting", ["equal", "cap", "sqrt_cap"])
@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("industries", [False, True])
def test_statistics_are_the_plain_products(weighting: str, intercept: bool, industries: bool) -> None:
    panel = make_panel()
    design = Design(("char2", "char0"), intercept=intercept, industries=industries, weighting=weighting)
    gram = gram_of(panel, design)
    names = [f"industry:{name}" for name in INDUSTRIES] if industries else []
    assert gram.chars == (*(["intercept"] if intercept else []), *names, "char2", "char0")
    for row in range(N_DATES):
        Z, r, w = direct(panel, design, row)
        close = {"rtol": 1e-13, "atol": 1e-13}
        np.testing.assert_allclose(gram.zz[row], Z.T @ (w[:, None] * Z), **close)
        np.testing.assert_allclose(gram.zr[row], Z.T @ (w * r), **close)
        np.testing.assert_allclose(gram.rr[row], r @ (w * r), **close)
        np.testing.assert_allclose(gram.weight[row], w.sum(), **close)
        assert gram.n[row] == len(r)
    assert (gram.n == 0).any()
    assert (gram.zz == gram.zz.transpose(0, 2, 1)).all()


@given(st.lists(st.integers(0, N_DATES - 1), min_size=1, max_size=30), st.permutations(["char0", "char1", "char2"]))
@settings(max_examples=25, deadline=None)
def test_taking_dates_and_selecting_characteristics_is_indexing(positions: list[int], chars: list[str]) -> None:
    """And the selected ones are, to rounding, those computed for these characteristics alone."""
    gram = gram_statistics(make_panel(), intercept=True)
    drawn = gram.take(positions).select(chars[:2])
    assert drawn.chars == tuple(chars[:2])
    assert (drawn.dates == gram.dates[positions]).all()
    order = [gram.chars.index(name) for name in chars[:2]]
    np.testing.assert_array_equal(drawn.zz, gram.zz[np.ix_(positions, order, order)])
    np.testing.assert_array_equal(drawn.zr, gram.zr[np.ix_(positions, order)])
    for name in ("rr", "n", "weight"):
        np.testing.assert_array_equal(getattr(drawn, name), getattr(gram, name)[positions])
    alone = gram_statistics(make_panel(), chars=chars[:2])
    np.testing.assert_allclose(gram.select(chars[:2]).zz, alone.zz, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("weighting", ["equal", "sqrt_cap"])
def test_caps_of_industries_are_sums_over_the_stocks_that_enter(weighting: str) -> None:
    panel = make_panel()
    design = Design(("char1",), industries=True, weighting=weighting, caps=True)
    gram = gram_of(panel, design)
    code, cap = panel.industry.values, panel.market_weight.values.astype(np.float64)
    held = panel.mask.values & (code >= 0)
    for group in range(len(INDUSTRIES)):
        np.testing.assert_allclose(gram.caps[:, group], np.where(held & (code == group), cap, 0.0).sum(1), rtol=1e-13)
    chosen = gram.select(["industry:shops", "char1", "industry:banks"])
    np.testing.assert_array_equal(chosen.caps, gram.caps[:, [2, 0]])
    same_bits(GramStatistics.concat([gram.take(range(4)), gram.take(range(4, N_DATES))]), gram)
    with pytest.raises(DataError, match="cannot be joined"):
        GramStatistics.concat([gram.take(range(4)), replace(gram, caps=None).take(range(4, N_DATES))])


def test_what_is_not_there_is_refused() -> None:
    gram = gram_statistics(make_panel(industries=False))
    with pytest.raises(ModelError, match="lack \\['size'\\]"):
        gram.select(["char0", "size"])
    with pytest.raises(ModelError, match="lacks the characteristics"):
        gram_of(make_panel(), Design(("size",)))
    with pytest.raises(ModelError, match="no industries"):
        gram_of(make_panel(industries=False), Design(("char0",), industries=True))
    with pytest.raises(DataError, match="without overlap"):
        GramStatistics.concat([gram, gram])


@pytest.mark.parametrize("stocks", [40, 700])
def test_bits_of_a_date_depend_on_its_own_rows_alone(stocks: int) -> None:
    """Neither on stocks that are listed later, wherever they are on the axis, nor on other dates or other blocks."""
    panel = make_panel(stocks=stocks, chars=20)
    design = Design(tuple(panel.chars), intercept=True, industries=True, weighting="sqrt_cap")
    gram = gram_of(panel, design)
    rng = np.random.default_rng(1)
    for absent in (1, 3, 64):
        place = rng.integers(0, stocks, absent)
        data = panel.data
        wider = Panel.from_arrays(
            np.insert(data["returns"].values, place, np.nan, axis=1),
            np.insert(data["characteristics"].values, place, np.nan, axis=1),
            coverage=np.insert(data["coverage"].values, place, False, axis=1),
            market_weight=np.insert(data["market_weight"].values, place, 0.0, axis=1),
            industry=np.insert(data["industry"].values, place, -1, axis=1),
            industries=INDUSTRIES,
            tickers=[f"T{n}" for n in range(stocks + absent)],
        )
        wider = Panel(
            wider.data.assign(
                market_weight=(("date", "ticker"), np.insert(data["market_weight"].values, place, 0.0, axis=1))
            )
        )
        same_bits(gram, gram_of(wider, design))
    parts = [gram_of(panel.sel(day, day), design) for day in panel.dates]
    same_bits(gram, GramStatistics.concat(parts))


def test_r2_from_the_statistics_is_that_of_the_rows() -> None:
    panel = make_panel()
    gram = gram_statistics(panel)
    slopes = 0.01 * np.random.default_rng(2).standard_normal(gram.zr.shape)
    slopes[2] = np.nan
    explained = np.einsum("tnl,tl->tn", panel.characteristics.values.astype(np.float64), slopes)
    r = panel.returns.values.astype(np.float64)
    known = panel.mask.values & np.isfinite(explained)
    expected = 1.0 - np.square((r - explained)[known]).sum() / np.square(r[known]).sum()
    assert gram_r2(gram, slopes) == pytest.approx(expected, abs=1e-13)
    assert np.isnan(gram_r2(gram, np.full_like(slopes, np.nan)))


def test_bits_do_not_depend_on_the_threads_that_torch_may_use() -> None:
    panel = make_panel(stocks=2000, chars=30)
    design = Design(tuple(panel.chars), intercept=True)
    threads, found = torch.get_num_threads(), []
    try:
        for allowed in (1, 2, 3):
            torch.set_num_threads(allowed)
            found.append(gram_of(panel, design))
            assert torch.get_num_threads() == allowed
    finally:
        torch.set_num_threads(threads)
    assert len({gram.zz.tobytes() + gram.zr.tobytes() + gram.rr.tobytes() for gram in found}) == 1


def test_a_thread_that_has_finished_leaves_one_thread_to_those_that_have_not() -> None:
    threads, entered, left = torch.get_num_threads(), Barrier(2), Event()

    def short() -> None:
        with one_thread():
            entered.wait(timeout=30)
        left.set()

    try:
        torch.set_num_threads(2)
        other = Thread(target=short)
        with one_thread():
            other.start()
            entered.wait(timeout=30)
            assert left.wait(timeout=30)
            assert torch.get_num_threads() == 1
        other.join()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
