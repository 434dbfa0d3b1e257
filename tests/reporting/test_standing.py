"""Where a portfolio stands: its numbers against plain pandas, and the words made from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fixtures_versions import make_versions

from models.risk.book import VersionRisk
from reporting import render_book
from reporting.panels import choice_of
from reporting.standing import Standing, earned_over, falls, standing_of_book, standings, worst_episodes
from reporting.verdict import verdict


@pytest.fixture(scope="module")
def version():
    return make_versions(("ipca",), n_dates=500, n_portfolios=2)[0]


@pytest.fixture(scope="module")
def standing(version) -> Standing:
    return standings(version, ["equal_weight"])["equal_weight"]


def test_numbers_are_those_of_the_version_and_begin_with_its_forecasts(version, standing):
    rows = version.dataset.sel(portfolio="equal_weight")
    variance = rows["portfolio_variance"].to_series()
    forecasts = variance[variance > 0.0]
    assert list(standing.dates) == list(forecasts.index)
    np.testing.assert_allclose(standing.volatility, np.sqrt(forecasts * 252), rtol=1e-12)
    assert standing.now.annual_volatility == pytest.approx(standing.volatility[-1], rel=1e-6)
    assert standing.percentile == pytest.approx((forecasts[:-1] < forecasts.iloc[-1]).mean())
    returns = rows["portfolio_return"].to_series().loc[forecasts.index]
    earned = earned_over(standing, 252)
    assert float(earned["portfolio_return"]) == pytest.approx(float(np.prod(1.0 + returns.iloc[-252:]) - 1.0))
    parts = float(earned["factor"].sum()) + float(earned["specific"])
    assert parts == pytest.approx(float(earned["portfolio_return"]), abs=1e-12)
    wealth = np.concatenate([[1.0], (1.0 + returns.fillna(0.0)).cumprod()])
    deepest = min(now / wealth[: at + 1].max() - 1.0 for at, now in enumerate(wealth))
    assert falls(standing)[0].depth == pytest.approx(deepest)
    realised, low, high = standing.realised()
    last = slice(-63, None)
    expected = np.sqrt((pd.Series(standing.volatility).shift(1) ** 2).iloc[last].mean())
    assert low[-1] < expected < high[-1]
    assert realised[-1] == pytest.approx(np.sqrt((returns.iloc[last] ** 2).mean() * 252))


def test_episodes_are_the_worst_spans_and_do_not_overlap(version, standing):
    returns = version.dataset["portfolio_return"].sel(portfolio="equal_weight").to_series().dropna()
    spans = (1.0 + returns).rolling(21).apply(np.prod, raw=True) - 1.0
    found = worst_episodes(standing)
    assert found[0].earned == pytest.approx(spans.min())
    assert found[0].end == spans.idxmin()
    assert all(a.end < b.start or b.end < a.start for n, a in enumerate(found) for b in found[n + 1 :])
    events = version.dataset["factor_returns"].sel(date=slice(found[0].start, found[0].end)).values
    row = version.dataset.sel(portfolio="equal_weight").isel(date=-1)
    exposure = row["weights"].values.astype(float) @ np.nan_to_num(row["loadings"].values.astype(float))
    assert found[0].again == pytest.approx(np.prod(1.0 + events @ exposure) - 1.0)


@pytest.mark.parametrize(
    ("statistic", "words"),
    [
        (1.0, "forecasts held (bias 1.00, band 0.93 to 1.07)"),
        (1.3, "forecasts were too low: returns varied 30% more than forecast (bias 1.30,"),
        (0.8, "forecasts were too high: returns varied 20% less than forecast (bias 0.80,"),
        (None, "whether its forecasts held is not known, for no return lies out of sample yet"),
    ],
)
def test_the_verdict_says_how_much_from_where_and_whether_to_believe_it(standing, statistic, words):
    said = verdict(replace(standing, bias_statistic=statistic))
    assert words in said
    now = standing.now
    of = f"equal_weight by {standing.model}"
    assert said.startswith(f"{of}: {now.annual_volatility:.1%} a year as of {now.date:%Y-%m-%d}, ")
    assert f"{1.0 - now.specific_share:.0%} of its variance from factors" in said


def test_a_book_stands_as_its_weights_would_have_and_is_not_judged(version):
    opened = VersionRisk(version.dataset)
    found = opened.risk({"T003": 0.5, "T007": 0.3, "GONE": 0.2}, "equal_weight")
    book = standing_of_book(version, found, "book")
    assert book.volatility[-1] == pytest.approx(found.annual_volatility, rel=1e-9)
    early = version.dates[300]
    then = opened.risk({"T003": 0.5, "T007": 0.3, "GONE": 0.2}, date=early)
    at = book.dates.get_loc(early)
    assert book.volatility[at] == pytest.approx(then.annual_volatility, rel=1e-9)
    assert "is not known, for a version has no returns of tickers" in verdict(book)
    page = render_book(version, found, "<i>book")
    assert f"&lt;i&gt;book by {version.model}: " in page
    assert "Not covered: 20.0% of it, in GONE" in page
    assert "Forecast risk against realised risk" not in page, "what factors brought is not what was earned"


def test_the_page_begins_with_a_model_that_the_gate_let_pass(version):
    gate = version.manifest.gate
    held_back = replace(
        version,
        manifest=version.manifest.model_copy(
            update={"model": "weak", "gate": gate.model_copy(update={"passed": False})}
        ),
    )
    one = replace(version, dataset=version.dataset.isel(portfolio=slice(0, 1)))
    held_back = replace(held_back, dataset=one.dataset)
    good = replace(one, manifest=one.manifest.model_copy(update={"gate": gate.model_copy(update={"passed": True})}))
    choice = choice_of([held_back, good])
    assert choice.first == (0, 1)
    early = replace(good, dataset=good.dataset.isel(date=slice(0, 50)))
    assert choice_of([early]) is None
