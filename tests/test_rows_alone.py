"""A row of a panel alone is the row in the panel, bit for bit, whatever family of models looks at it.

On that rests that a retrain, which makes rows in blocks, and an update, which makes one a day, agree.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
from test_model_protocol import CASES, Case

from models.families.base import FactorModel
from models.panel import Panel

N_DATES, N_STOCKS, TRAINED = 90, 61, 70
CHARS = [f"char_{n}" for n in range(7)]


@cache
def wide_panel() -> Panel:
    """Panel of enough stocks that a product over them is rounded by its shape; listings come, go and pause."""
    rng = np.random.default_rng(5)
    dates = pd.bdate_range("2019-01-01", periods=N_DATES)
    index = pd.MultiIndex.from_product([dates, [f"S{i:02d}" for i in range(N_STOCKS)]], names=["date", "ticker"])
    characteristics = rng.standard_normal((N_DATES, N_STOCKS, len(CHARS)))
    factors = 0.01 * rng.standard_normal((N_DATES, 3))
    returns = factors[:, :1] + 0.5 * np.einsum("tnl,tl->tn", np.roll(characteristics[..., :3], 1, axis=0), factors)
    returns += 0.01 * rng.standard_normal(returns.shape)
    returns[rng.random(returns.shape) < 0.03] = np.nan
    for stock, begin in enumerate(rng.integers(0, N_DATES, 12)):
        returns[:begin, 3 * stock] = characteristics[:begin, 3 * stock] = np.nan
    returns[75:, 1] = characteristics[75:, 1] = np.nan
    frame = pd.DataFrame(
        {"ret": returns.ravel(), **dict(zip(CHARS, characteristics.reshape(-1, len(CHARS)).T, strict=True))},
        index=index,
    ).reset_index()
    frame["industry"] = frame["ticker"].str[-1].map(lambda digit: f"industry {int(digit) % 4}")
    means = frame.assign(average=frame["ret"], early=frame["ret"].where(frame["ticker"] < "S05"))
    return Panel.from_long(
        frame,
        characteristics=CHARS,
        lag=1,
        min_coverage=0.5,
        factors=means.groupby("date")[["average", "early"]].mean(),
        industry="industry",
    )


@cache
def fitted(case: Case) -> FactorModel:
    panel = wide_panel()
    return case.build().fit(panel.sel(end=panel.dates[TRAINED - 1]))


def answers(model: FactorModel, panel: Panel) -> dict[str, np.ndarray]:
    return {
        "loadings": model.loadings(panel).values,
        "factor_returns": model.factor_returns(panel).values,
        "expected_returns": model.expected_returns(panel).values,
        "fitted_returns": model.fitted_returns(panel).values,
    }


@cache
def whole(case: Case) -> dict[str, np.ndarray]:
    return answers(fitted(case), wide_panel())


every_model = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@every_model
@pytest.mark.parametrize("date", [12, 69, 70, 84, N_DATES - 1])
def test_a_row_alone_is_the_row_in_the_panel(case: Case, date: int) -> None:
    """With its memory before it, and without the stocks that appear later."""
    model, panel = fitted(case), wide_panel()
    seen = np.flatnonzero(panel.coverage.values[: date + 1].any(axis=0))
    rows = Panel(panel.data.isel(date=slice(date - model.row_memory, date + 1), ticker=seen)).load()
    for name, values in answers(model, rows).items():
        known = whole(case)[name][date]
        np.testing.assert_array_equal(values[-1], known if name == "factor_returns" else known[seen], err_msg=name)


@every_model
def test_rows_do_not_depend_on_the_block_that_they_are_made_in(case: Case) -> None:
    model, panel = fitted(case), wide_panel()
    for begin, end in ((20, 31), (31, 80)):
        part = Panel(panel.data.isel(date=slice(begin - model.row_memory, end))).load()
        for name, values in answers(model, part).items():
            np.testing.assert_array_equal(values[model.row_memory :], whole(case)[name][begin:end], err_msg=name)
