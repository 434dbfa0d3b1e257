"""The report: what it says is right, it loads nothing, runs its own scripts alone; equal inputs give equal bytes."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from fixtures_versions import make_checks, make_versions
from pages import Page as Live

from reporting import PublishedVersion, render_report
from reporting.canvas import HALF, WIDE, curves, drawing, legend, over_dates, thin
from reporting.figures_explaining import beside_linear, importance, responses
from reporting.readings import (
    bends,
    bias_by_rank,
    frontier,
    in_sample_spans,
    leading_factors,
    realised_volatility,
    specific_volatility,
    trailing_bias,
)
from schemas.checks import CheckReport, FlaggedRow
from schemas.contracts import GateDecision, validate
from schemas.errors import DataError
from schemas.statistics import version_contract

NASTY = ["<script>alert(1)</script>", "$x^{$", "_under", "A&B", "\"q' onload='x", "C\x01D", "]]>", "A" * 60]


class Page(HTMLParser):
    """Tags, ids, attribute names and links of a page, its texts with the tag they stand in, and its table rows."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.attributes, self.ids, self.links = set(), set(), [], []
        self.texts, self.rows, self.within = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.within.append(tag)
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.ids += [value for name, value in attrs if name == "id"]
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href", "srcset", "data")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.within.pop()

    def handle_endtag(self, tag):
        while tag in self.within and self.within.pop() != tag:
            pass

    def handle_data(self, data):
        tag = self.within[-1] if self.within else ""
        self.texts.append((tag, data))
        if tag in ("td", "th"):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def versions():
    return make_versions(("market", "ipca"), n_dates=600)


@pytest.fixture(scope="module")
def html(versions):
    return render_report(versions, make_checks(), title="us_large", tickers=["T001", "T015", "NOPE"])


@pytest.fixture
def no_panels(html, monkeypatch):
    """Leave the first part out where a test is about what comes after it."""
    monkeypatch.setattr("reporting.render.choice_of", lambda *_: None)


def test_the_page_loads_nothing_and_runs_its_own_scripts_alone(html):
    page = Page(html)
    assert Live(html).live == []
    html = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    assert not page.tags & {"link", "img", "image", "iframe", "object", "embed", "base", "form"}
    assert not [name for name in page.attributes if name.startswith("on")]
    assert all(link.startswith("#") for link in page.links)
    targets = {link[1:] for link in page.links} | set(re.findall(r"url\(#([^)]*)\)", html))
    assert len(re.findall(r"url\(", html)) == len(re.findall(r"url\(#", html))
    assert "@import" not in html
    assert len(page.ids) == len(set(page.ids))
    assert len(re.findall(r'role="img" aria-label="[^"]{20,}"><svg', html)) == html.count("<svg") > 10
    assert len(targets) > 20
    assert targets <= set(page.ids)


def test_whatever_comes_from_data_stays_text():
    names = ["<i>f1$", "f_2", "&f3"]
    made = make_versions(("ipca",), n_dates=300, tickers=NASTY)[0]
    dataset = made.dataset.assign_coords(factor=names, factor_=names, portfolio=["</svg><i>", "$p$", "_p"])
    config = {"note": "</pre><script>alert(3)</script>", "odd": (1, 2)}
    version = PublishedVersion(dataset, made.manifest.model_copy(update={"config": config}))
    flagged = FlaggedRow(
        date="2018-01-02", ticker=NASTY[0], check="<i>c", severity="block", detail="<img src=x onerror=y>"
    )
    checks = CheckReport(results=make_checks().results, flagged_rows=(flagged,), data_docs="javascript:alert(1)")
    text = render_report([version], checks, title="</title><script>alert(2)</script>", tickers=NASTY)
    page = Page(text)
    assert Live(text).live == []
    assert "img" not in page.tags
    assert not [name for name in page.attributes if name.startswith("on")]
    assert all(link.startswith("#") for link in page.links)
    in_pictures = {text for tag, text in page.texts if tag == "text"}
    assert {
        "<script>alert(1)</script>"[:23] + "…",
        "$x^{$",
        "_under",
        "A&B",
        "C\N{REPLACEMENT CHARACTER}D",
    } <= in_pictures
    assert {"</svg><i>", "$p$", "_p", "<i>f1$", "f_2", "&f3"} <= in_pictures
    assert {*NASTY[:5], "A" * 60} <= in_pictures, "the legend cuts nothing so short"
    assert ("td", "<img src=x onerror=y>") in page.texts
    assert ("h1", "</title><script>alert(2)</script>") in page.texts
    assert any(tag == "pre" and "</pre><script>" in text for tag, text in page.texts)


@pytest.mark.slow
def test_equal_inputs_give_equal_bytes_whatever_the_settings_of_the_caller():
    versions = make_versions(("market",), n_dates=120, n_portfolios=1)
    html = render_report(versions, make_checks(), title="us_large", tickers=["T001"])
    with mpl.rc_context({"font.size": 30.0, "svg.fonttype": "path", "axes.grid": False}):
        again = render_report(versions, make_checks(), title="us_large", tickers=["T001"])
        assert mpl.rcParams["font.size"] == 30.0
    assert again == html
    lazy = [replace(version, dataset=version.dataset.chunk({"date": 100})) for version in versions]
    assert render_report(lazy, make_checks(), title="us_large", tickers=["T001"]) == html


def test_tables_say_what_the_version_holds(versions, html):
    rows = Page(html).rows
    ipca = versions[1]
    metrics = ipca.manifest.metrics
    summary = next(row for row in rows if row[0] == "ipca" and len(row) == 9)
    biases = [metrics[f"bias_statistic.{portfolio}"] for portfolio in ipca.portfolios]
    assert summary[3:5] == [f"{metrics[name] * 100:.2f}%" for name in ("total_r2_in_sample", "total_r2_out_of_sample")]
    assert summary[6] == f"{np.mean(biases):.2f}"
    assert [row[-1] for row in rows if len(row) == 9 and row[0] in ("market", "ipca")] == ["passed", "held back"]
    last = ipca.dataset.sel(portfolio="concentrated").isel(date=-1)
    total = float(last["portfolio_variance"])
    share = float(last["portfolio_variance_specific"]) / total * 100.0
    risk = [row for row in rows if len(row) == 8 and row[1] == "ipca" and row[2] == str(ipca.manifest.as_of)]
    assert risk[2][3] == f"{np.sqrt(total * 252) * 100:.1f}%"
    assert risk[2][5] == f"{share:.1f}%"
    half = np.sqrt(2.0 / 449)
    band = [row for row in rows if len(row) == 9 and row[5] == f"{1 - half:.2f} to {1 + half:.2f}"]
    assert [row[6] for row in band] == ["449"] * 6
    for row, (portfolio, version) in zip(band, [(p, v) for p in ipca.portfolios for v in versions], strict=True):
        statistic = version.manifest.metrics[f"bias_statistic.{portfolio}"]
        below, above = statistic < 1 - half, statistic > 1 + half
        assert row[7] == ("risk overstated" if below else "risk understated" if above else "within")


@pytest.mark.usefixtures("no_panels")
def test_what_judges_risk_is_shown_with_and_without_suspected_returns(versions, html):
    rows = [row for row in Page(html).rows if len(row) == 9 and row[8] in ("counted", "left out")]
    assert [row[8] for row in rows] == ["counted", "left out"] * 3
    for row, (portfolio, version) in zip(
        rows, [(name, version) for name in versions[1].portfolios for version in versions], strict=True
    ):
        metrics = version.manifest.metrics
        bias, without = (metrics[f"bias_statistic{suffix}.{portfolio}"] for suffix in ("", "_without_suspects"))
        assert row[4:6] == [f"{bias:.2f}", f"{without:.2f}"]
        assert bias != without
    old = replace(versions[0], manifest=versions[0].manifest.model_copy(update={"metrics": {}}))
    assert "suspected returns</h3>" not in render_report([old], None, title="of a version that lacks them")


@pytest.mark.usefixtures("no_panels")
def test_what_the_last_fit_says_is_shown_by_its_axes_and_stays_text(versions):
    ipca = versions[1]
    tickers, factors = ipca.dataset["ticker"], ipca.dataset["factor"]
    alpha = np.where(np.arange(len(tickers)) < 4, np.arange(1.0, len(tickers) + 1.0), np.nan)
    statistics = {
        "odd_test": xr.DataArray(2.5),
        "untold": xr.DataArray(np.nan, attrs={"comment": "Not made: too few dates"}),
        "alpha": xr.DataArray(alpha, {"ticker": tickers}),
        "n_slopes": xr.DataArray(np.full(len(factors), 1234.0), {"factor": factors}),
        "gamma": xr.DataArray(np.full((2, len(factors)), -0.25), {"char": ["<b>mom", "size"], "factor": factors}),
        "path": xr.DataArray(np.triu(np.ones((30, len(factors))), -1), {"penalty": np.arange(30), "factor": factors}),
        "lambdas": xr.DataArray(np.full(30, np.nan), {"penalty": np.arange(30)}),
        "own_axis": xr.DataArray([7.0, 8.0], {"cluster": ["near", "far"]}),
        "deep": xr.DataArray(np.full((2, 1, 2), 9.0), {"part": ["u", "v"], "side": ["w"], "regime": ["x", "y"]}),
    }
    for name, array in statistics.items():
        array.attrs["long_name"] = f"<i>meaning of {name}"
    page = Page(render_report([replace(ipca, dataset=ipca.dataset.assign(statistics))], None, title="inference"))
    assert ["odd_test", "2.5", "<i>meaning of odd_test"] in page.rows
    assert ["untold", "–", "<i>meaning of untold. Not made: too few dates"] in page.rows
    for name in set(statistics) - {"odd_test", "untold"}:
        assert any(f"{name}: <i>meaning of {name}." in text for tag, text in page.texts if tag == "p"), name
    assert ["alpha", "", "2.5", "1.15", "1.75", "2.5", "3.25", "3.85", "4"] in page.rows
    assert [str(factors.values[0]), "1,234"] in page.rows
    assert ["<b>mom", *["\N{MINUS SIGN}0.25"] * len(factors)] in page.rows
    assert [row for row in page.rows if row[0] in ("near", "far")] == [["near", "7"], ["far", "8"]]
    assert [row for row in page.rows if row[0] in ("deep", "u, w", "v, w")] == [
        ["deep", "x", "y"],
        ["u, w", "9", "9"],
        ["v, w", "9", "9"],
    ]
    path = [row for row in page.rows if len(row) == 3 and row[2] == "–"]
    assert (path[0], len(path)) == (["1", str(len(factors)), "–"], 12)


def explained(version: PublishedVersion, *, bent: bool) -> PublishedVersion:
    """Give a version importance and response curves, straight ones or not, of <b>size and 17 others."""
    chars = ["<b>size", *[f"c{number}" for number in range(17)]]
    values = np.tile(np.linspace(-0.5, 0.5, 21), (18, 1))
    values[1] = np.nan
    curves = np.stack([values + bent * values**2] * len(version.factors), axis=2).astype(np.float32)
    added = {
        "characteristic_importance": ("char", np.linspace(0.17, 0.0, 18)),
        "response": (("char", "level", "factor"), curves),
        "response_value": (("char", "level"), values),
    }
    dataset = version.dataset.assign(added).assign_coords(char=chars, level=np.linspace(0.0, 1.0, 21))
    validate(dataset, version_contract(dataset), DataError, "explained")
    return replace(version, dataset=dataset)


@pytest.mark.slow
@pytest.mark.usefixtures("no_panels")
def test_what_moves_nonlinear_loadings_is_drawn_and_linear_ones_are_not(versions, html):
    market, ipca = versions
    straight, curved = explained(market, bent=False), explained(ipca, bent=True)
    assert (bends(straight), bends(curved), bends(market)) == (False, True, False)
    page = render_report([straight, curved], None, title="explained")
    pictures = dict(re.findall(r'aria-label="([^"]*)"><svg(.*?)</svg>', page, re.DOTALL))
    bars = pictures["Importance of the characteristics in ipca"]
    assert "&lt;b&gt;size" in bars
    assert "c13" in bars
    assert "c14" not in bars
    assert "Loadings of ipca as functions of &lt;b&gt;size and c1" in pictures, "c0 does not vary"
    assert "Canonical correlations of the factors of ipca with those of market" in pictures
    assert "The 15 of 18 characteristics that count most." in page
    assert "No model has loadings that are nonlinear functions of characteristics." in html
    with drawing():
        assert beside_linear([curved]) is None
        assert importance([straight, market]) is responses([straight, market]) is None


@pytest.mark.usefixtures("no_panels")
def test_the_frontier_is_drawn_beside_portfolios_and_the_weights_made_from_the_version(versions):
    version = versions[1]
    tickers = version.dataset["ticker"].values
    half = xr.DataArray([0.5, 0.5], {"ticker": tickers[-2:]}, ("ticker",))
    gone = xr.DataArray([1.0], {"ticker": tickers[:1]}, ("ticker",))
    dataset = version.dataset.copy()
    dataset["expected_returns"] = dataset["expected_returns"].where(dataset["ticker"] != tickers[0])
    made = replace(version, dataset=dataset, allocations={"<i>half": half, "gone": gone})
    found = frontier(made)
    row = dataset.isel(date=-1).sel(ticker=half["ticker"])
    spread = row["loadings"].values[0].astype(float) + row["loadings"].values[1]
    variance = spread @ row["omega"].values @ spread / 4.0 + float(row["specific_variance"].sum()) / 4.0
    mean = float(row["expected_returns"].mean()) * 252 * 100.0
    np.testing.assert_allclose(found.allocations["<i>half"], [np.sqrt(variance * 252) * 100.0, mean], rtol=1e-5)
    assert list(found.allocations) == ["<i>half"], "what is held without an expected return has no place"
    assert list(found.portfolios) == ["concentrated"]
    reached = np.interp(found.allocations["<i>half"][1], found.expected, found.volatility)
    assert found.allocations["<i>half"][0] > reached
    page = render_report(
        [made, replace(versions[0], dataset=versions[0].dataset.drop_vars("expected_returns"))], None, title="t"
    )
    pictures = dict(re.findall(r'aria-label="([^"]*)"><svg(.*?)</svg>', page, re.DOTALL))
    assert "&lt;i&gt;half" in pictures["Efficient frontier by ipca, with portfolios as points"]
    assert "Efficient frontier by market, with portfolios as points" not in pictures


@pytest.mark.slow
def test_monthly_numbers_are_annualised_by_twelve(html):
    monthly = render_report(make_versions(("ipca",), n_dates=120, frequency="monthly"), None, title="monthly")
    assert "√12" in monthly
    assert "realised, last 12 periods" in monthly
    assert "252" not in re.sub(r"<(svg|script).*?</\1>", "", monthly, flags=re.DOTALL)
    assert "√252" in html
    assert "No check report was given" in monthly


@pytest.mark.slow
@pytest.mark.usefixtures("no_panels")
def test_what_is_missing_is_left_out_or_shown_as_missing(versions):
    full = versions[1]
    dataset = full.dataset.drop_vars(["expected_returns", "premia_stderr"])
    dataset["predictive_r2"] = dataset["predictive_r2"] * np.nan
    manifest = full.manifest.model_copy(update={"metrics": {}, "refits": (), "params": {}, "sources": ()})
    page = Page(render_report([PublishedVersion(dataset, manifest)], None, title="bare"))
    assert next(row for row in page.rows if row[0] == "ipca")[3:8] == ["–"] * 5
    no_portfolios = dataset.isel(portfolio=slice(0, 0))
    assert "No portfolio is declared" in render_report([PublishedVersion(no_portfolios, manifest)], None, title="none")


def test_before_the_first_refit_there_is_a_report_without_forecasts(versions):
    early = [replace(version, dataset=version.dataset.isel(date=slice(0, 100))) for version in versions]
    html = render_report(early, make_checks(), title="early")
    assert "no model has made a forecast yet" in html
    assert "No model has made a forecast yet" in html


def test_versions_that_cannot_be_compared_are_refused(versions):
    with pytest.raises(DataError, match="at least one"):
        render_report([], None, title="x")
    monthly = make_versions(("pca",), n_dates=60, frequency="monthly")
    with pytest.raises(DataError, match=r"us_large \(12 periods a year\), us_large \(252 periods a year\)"):
        render_report([versions[0], *monthly], None, title="x")


@pytest.mark.slow
def test_long_histories_stay_small():
    short, long = (make_versions(n_dates=n, n_factors=5, n_tickers=10) for n in (1200, 8300))
    sizes = [len(render_report(made, make_checks(), title="size").encode()) for made in (short, long)]
    assert sizes[1] < 3_000_000
    assert sizes[1] < 1.6 * sizes[0]


@pytest.mark.parametrize("width", [WIDE, HALF])
@pytest.mark.parametrize("names", [["f1", "f2"], ["W" * 24] * 7, ["_f", "many words " * 14]])
def test_a_legend_lies_above_the_panels_and_takes_no_room_from_them(width, names):
    dates = pd.date_range("2020-01-01", periods=50)
    with drawing():
        figure, axes = over_dates(4, dates, ("date", "share, %"), columns=3, width=width)
        lines = curves(axes[0], dates, np.zeros((len(names), 50)))
        figure.draw_without_rendering()
        alone = axes[0].get_window_extent().height
        legend(figure, list(zip(lines, names, strict=True)))
        figure.draw_without_rendering()
        (written,) = figure.legends
        box, panels = written.get_window_extent(), [ax.get_tightbbox() for ax in axes]
    assert [text.get_text().replace("\n", " ") for text in written.get_texts()] == [name.strip() for name in names]
    assert all(box.y0 >= panel.y1 for panel in panels)
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1
    assert box.y1 <= figure.bbox.y1
    assert axes[0].get_window_extent().height > 0.9 * alone


@pytest.mark.parametrize(("length", "points"), [(1, 700), (700, 700), (701, 700), (8300, 700), (8300, 250)])
def test_thinning_keeps_the_last_date_and_even_steps(length, points):
    kept = np.arange(length)[thin(length, points)]
    assert kept[-1] == length - 1
    assert kept[0] >= 0
    assert len(kept) <= points
    assert len(set(np.diff(kept))) <= 1


def test_series_match_pandas(versions):
    version = versions[1]
    returns = version.dataset["portfolio_return"].transpose("date", "portfolio").to_pandas()
    expected = np.sqrt((returns**2).rolling(63, min_periods=32).mean() * 252) * 100
    for portfolio in version.portfolios:
        np.testing.assert_allclose(realised_volatility(version, portfolio), expected[portfolio], rtol=1e-9)
        z = version.dataset["standardised_return"].sel(portfolio=portfolio).where(version.dataset["out_of_sample"])
        bias = z.to_pandas().rolling(252, min_periods=126).std()
        np.testing.assert_allclose(trailing_bias(version, portfolio), bias, rtol=1e-9)
    specific, stamp = specific_volatility(version)
    assert stamp == version.dates[-1]
    variance = version.dataset["specific_variance"].isel(date=-1).to_pandas().dropna()
    np.testing.assert_allclose(specific.to_numpy(), np.sqrt(variance.astype(float) * 252) * 100, rtol=1e-6)
    flags = xr.zeros_like(version.dataset["out_of_sample"])
    flags[3:5] = True
    flags[7:] = True
    spans = in_sample_spans(replace(version, dataset=version.dataset.assign(out_of_sample=flags)))
    assert spans == [(version.dates[0], version.dates[2]), (version.dates[5], version.dates[6])]


def test_leading_factors_do_not_depend_on_scale():
    version = make_versions(("ipca",), n_dates=300, n_factors=8)[0]
    rng = np.random.default_rng(1)
    scale = xr.DataArray(rng.uniform(1e-3, 1e3, 8), dims="factor", coords={"factor": version.factors})
    rescaled = version.dataset.assign(
        loadings=version.dataset["loadings"] * scale, factor_returns=version.dataset["factor_returns"] / scale
    )
    leading = leading_factors(version, 3)
    assert leading == leading_factors(replace(version, dataset=rescaled), 3)
    assert 0 in leading


@pytest.mark.usefixtures("no_panels")
def test_the_gate_section_shows_criteria_champion_and_held_out_dates(versions, html):
    rows = [[cell.strip() for cell in row] for row in Page(html).rows]
    gate = versions[1].manifest.gate
    assert gate.champion is not None
    compared = next(row for row in rows if gate.champion in row)
    assert f"{gate.first_date} to {gate.last_date} (252)" in compared
    assert "bias statistic 2.31 is above 2.00" in compared
    alone = next(row for row in rows if "none yet" in row)
    assert "–" in alone
    assert ["", "mean bias statistic", "2.3100", "–", "between 0.5 and 2", "failed"] in rows
    assert ["", "total R2", "0.4213", "0.4101", "at least the champion less 0.02", "passed"] in rows
    assert ["", "QLIKE", "–", "–", "not applicable, no portfolio in common", "not applicable"] in rows
    without = [replace(one, manifest=one.manifest.model_copy(update={"gate": _bare(one)})) for one in versions]
    assert "Criteria" not in render_report(without, None, title="t")


@pytest.mark.slow
def test_active_risk_is_shown_as_of_the_last_forecast_of_portfolios_that_have_a_benchmark(versions, html):
    assert "Beside a benchmark" not in html
    dataset = versions[1].dataset
    beta = xr.full_like(dataset["portfolio_variance"], np.nan)
    beta[1, :-2] = np.linspace(0.0, 0.52, dataset.sizes["date"] - 2)
    added = dataset.assign(portfolio_beta=beta, tracking_error=beta / 100)
    declared = {"portfolios": [{"name": "equal_weight"}, {"name": "long_short", "benchmark": "equal_weight"}]}
    manifest = versions[1].manifest.model_copy(update={"config": declared})
    page = Page(render_report([PublishedVersion(added, manifest)], None, title="t"))
    rows = [[cell.strip() for cell in row] for row in page.rows]
    last = f"{versions[1].dates[-3]:%Y-%m-%d}"
    assert ["long_short", "equal_weight", "ipca", last, "8.3%", "0.52"] in rows


@pytest.mark.slow
def test_bias_by_rank_is_drawn_of_the_dates_out_of_sample_with_its_interval(versions, html):
    assert "By rank of eigenportfolios" not in html
    version, rng = versions[1], np.random.default_rng(0)
    dates = version.dataset["date"]
    ratios = np.stack([rng.chisquare(1, dates.size), 4.0 * rng.chisquare(1, dates.size), np.full(dates.size, np.nan)])
    ratios[:, ~version.dataset["out_of_sample"].values] = 1e9
    coords = {"rank": ["1", "last 20", "201-"], "date": dates}
    added = version.dataset.assign(variance_ratio_by_rank=xr.DataArray(ratios, coords, ("rank", "date")))
    found = bias_by_rank(replace(version, dataset=added))
    assert list(found.index) == ["1", "last 20"]
    np.testing.assert_allclose(found["bias"], [1.0, 2.0], rtol=0.12)
    error = 0.5 * np.sqrt(2.0 / version.dataset["out_of_sample"].values.sum())  # of the root of a mean of chi-squares
    np.testing.assert_allclose(found["high"] - found["bias"], [1.96 * error, 3.92 * error], rtol=0.25)
    page = Page(render_report([replace(version, dataset=added)], None, title="t"))
    in_pictures = {text for tag, text in page.texts if tag == "text"}
    assert "last 20" in in_pictures
    assert "201-" not in in_pictures


def _bare(version: PublishedVersion) -> GateDecision:
    return version.manifest.gate.model_copy(update={"criteria": ()})
