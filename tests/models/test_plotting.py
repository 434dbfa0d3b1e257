"""Pictures in a notebook show the numbers that the model has, under their names."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest

from models import IPCA, FamaMacBeth, RiskModel
from models.panel import example_panel
from models.risk.contributions import volatility_by_factor
from models.risk.example import example_risk
from schemas.errors import ConfigError, DataError

mpl.use("Agg")


def test_bars_of_premia_have_their_errors_where_there_are_any() -> None:
    panel = example_panel()
    model = FamaMacBeth().fit(panel)
    ax = model.plot.premia()
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches], model.premia_)
    assert [label.get_text() for label in ax.get_xticklabels()] == model.factors_
    low, high = np.array([path.vertices[:, 1] for path in ax.collections[0].get_paths()]).T
    np.testing.assert_allclose(high - low, 2 * 1.96 * model.premia_stderr_)
    assert not IPCA(n_factors=1).fit(panel).plot.premia().collections


def test_lines_are_of_the_factor_and_the_tickers_that_were_named() -> None:
    panel = example_panel()
    model = IPCA(n_factors=2).fit(panel)
    ax = model.plot.loadings(panel, factor="factor_2", tickers=["S03", "S01"])
    assert [line.get_label() for line in ax.lines] == ["S03", "S01"]
    expected = model.loadings(panel).sel(factor="factor_2", ticker="S01")
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), expected)
    summed = model.plot.factor_returns(panel).lines[0].get_ydata()
    np.testing.assert_allclose(np.diff(summed), model.factor_returns(panel).fillna(0.0).values[1:, 0], atol=1e-12)
    with pytest.raises(ConfigError, match="the panel has no ticker 'nobody'; it has S00"):
        model.plot.loadings(panel, tickers=["nobody"])


def test_bars_of_risk_sum_to_the_volatility() -> None:
    model, weights = example_risk(), {"A": 0.5, "B": 0.7, "D": -0.2}
    by_factor, by_ticker = model.plot.by_factor(weights), model.plot.by_ticker(weights)
    volatility = float(volatility_by_factor(model, weights)["volatility"])
    for ax in (by_factor, by_ticker):
        assert sum(bar.get_width() for bar in ax.patches) == pytest.approx(volatility)
    assert [label.get_text() for label in by_factor.get_yticklabels()] == ["market", "style", "specific"]
    dated = RiskModel(model.loadings.expand_dims(date=[0]), model.omega, model.specific_variance)
    with pytest.raises(DataError, match="a picture shows one date"):
        dated.plot.by_factor(weights)
