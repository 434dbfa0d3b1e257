"""Rows made in blocks are the rows made at once: of joined fits, and of a history that stocks have left."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from models.families.pca.model import PCA
from models.families.time_series.market import MarketModel
from models.forecasting.answers import answers
from models.forecasting.following import Served
from models.forecasting.joining import Realised, join, join_blocks
from models.panel import Panel, row_blocks

DATES = pd.bdate_range("2020-01-01", periods=20, name="date")
TICKERS = pd.Index(["A", "B", "C"], name="ticker")


def fits() -> list[Served]:
    """Four fits of as many lengths, of which the first ones do not know a ticker."""
    rng, made = np.random.default_rng(0), []
    for begin, end in pairwise((0, 3, 5, 12, len(DATES))):
        fit = Served.empty(begin, end, ("A", "C") if begin < 5 else tuple(TICKERS), 2)
        for name in ("loadings", "expected_returns", "factor_returns", "omega", "specific_variance"):
            values = getattr(fit, name)
            values[...] = rng.normal(size=values.shape)
        made.append(fit)
    return made


@pytest.mark.parametrize("size", [1, 4, 20])
def test_fits_joined_in_blocks_are_the_fits_joined(size: int) -> None:
    blocks = [*join_blocks(iter(fits()), DATES, TICKERS, ["f", "g"], size)]
    assert [block.sizes["date"] for block in blocks] == {1: [3, 2, 7, 8], 4: [5, 7, 8], 20: [20]}[size]
    xr.testing.assert_identical(xr.concat(blocks, "date"), join(fits(), DATES, TICKERS, ["f", "g"]))


def panel() -> Panel:
    """Panel of stocks of which some are delisted early, listed late, or never there."""
    rng = np.random.default_rng(1)
    returns = 0.01 * rng.standard_normal((90, 1)) + 0.01 * rng.standard_normal((90, 40))
    returns[30:, :10] = returns[:70, 10:15] = returns[:, 15] = np.nan
    characteristics = rng.standard_normal((90, 40, 2))
    characteristics[np.isnan(returns)] = np.nan
    return Panel.from_arrays(returns, characteristics)


@pytest.mark.parametrize("model", [PCA(n_factors=2, min_observations=20), MarketModel(min_observations=20)])
def test_a_history_is_the_same_without_the_stocks_that_are_not_there(
    model: PCA | MarketModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is shown is asked of all stocks: a beta outlives its stock."""
    monkeypatch.setattr(row_blocks, "_BLOCK_ROWS", 16)
    rows, fitted, asked = panel(), model.fit(panel()), []
    loadings = type(model).loadings
    monkeypatch.setattr(
        type(model), "loadings", lambda self, part: asked.append(len(part.tickers)) or loadings(self, part)
    )
    history = [*answers(fitted, rows, 0, 90, expected_from=80)]
    assert {24, 29, 34} <= set(asked)
    asked.clear()
    for part, whole in zip(history, answers(fitted, rows, 0, 90), strict=True):
        for name in ("factor_returns", "residuals", "market_weight"):
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name), err_msg=name)
        if part.first + 16 > 80:
            np.testing.assert_array_equal(part.loadings, whole.loadings)
            np.testing.assert_array_equal(part.expected_returns, whole.expected_returns)
    assert set(asked) == {40}


def test_given_factors_are_not_asked_again() -> None:
    found = Realised.of(MarketModel(min_observations=20).fit(panel()), panel())
    assert (found.dates.shape, found.factor_returns.shape) == ((0,), (0, 1))
    assert len(Realised.of(PCA(n_factors=2, min_observations=20).fit(panel()), panel()).dates) == 90
