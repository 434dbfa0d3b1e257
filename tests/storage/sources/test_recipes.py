"""Every recipe of `examples/recipes.md` as it is written, on made-up files of its kind."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import recipe_files
import xarray as xr
from typer.testing import CliRunner

from deploy.cli import app
from schemas.settings import Settings
from schemas.spec import RunSpec
from storage.configs import load_spec
from storage.sources import read_factors, read_market

PAGE = (Path(__file__).parents[3] / "examples/recipes.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
FILE = re.compile(r"^`([^`\n]+)`:\n\n```(csv|yaml)\n(.*?)^```", re.MULTILINE | re.DOTALL)
MADE = {
    "yfinance, one file per ticker": recipe_files.yfinance_histories,
    "yfinance, several tickers in one file": recipe_files.yfinance_download,
    "A folder from Kaggle, one CSV per ticker": recipe_files.kaggle,
    "CRSP monthly": recipe_files.crsp,
    "Ken French's library": recipe_files.ken_french,
    "Compustat and other reports with a publication lag": recipe_files.compustat,
    "Anything, by a query of DuckDB": recipe_files.anything,
}


def written(title: str, folder: Path) -> RunSpec:
    """Write the files of a recipe, which begin as the page shows, and its config; return what the config says."""
    files = MADE[title]()
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    for name, kind, shown in FILE.findall(SECTIONS[title]):
        if kind == "csv":
            assert files[name].startswith(shown), name
        else:
            (folder / name).write_text(shown, encoding="utf-8")
            config = folder / name
    return load_spec(config)


def read(title: str, folder: Path) -> xr.Dataset:
    spec = written(title, folder)
    return read_market(spec.data, settings=Settings(), frequency=spec.frequency, calendar=spec.calendar)


@pytest.mark.slow
@pytest.mark.parametrize("title", SECTIONS)
def test_the_command_of_every_recipe_runs_as_written(title, tmp_path, monkeypatch):
    spec = written(title, tmp_path)
    monkeypatch.chdir(tmp_path)
    (command,) = re.findall(r"^```bash\nfactorcube (.*?)\n```", SECTIONS[title], re.MULTILINE)
    said = CliRunner().invoke(app, command.split(), catch_exceptions=False)
    assert said.exit_code == 0, said.output
    assert f"{spec.universe}: {spec.frequency}" in said.output
    assert "│ block" not in said.output


@pytest.mark.parametrize("title", list(MADE)[:3])
def test_bars_are_those_of_the_file(title, tmp_path):
    market = read(title, tmp_path)
    assert market["ticker"].values.tolist() == list(recipe_files.TICKERS)
    np.testing.assert_array_equal(market["close"], recipe_files.closes())
    np.testing.assert_array_equal(market.indexes["date"], recipe_files.DAYS)
    assert bool((market["high"] > market["low"]).all())
    assert bool((market["volume"] == 1e6).all())


def test_crsp_has_letters_as_missing_prices_without_their_sign_and_delistings(tmp_path):
    market = read("CRSP monthly", tmp_path)
    expected = recipe_files.returns(["10001", "10002", "10003"]).set_axis(market.indexes["date"])
    expected.iloc[0] = expected.loc["2017-08-31", "10002"] = np.nan
    expected.loc["2020-06-01":, "10003"] = np.nan
    np.testing.assert_array_equal(market["returns"], expected)
    equity = market["characteristics"].sel(char="me")
    january = equity.sel(ticker="10002", date="2019-01-31")
    price = 20.0 * np.prod(1.0 + recipe_files.returns(["10001", "10002", "10003"]).loc[:"2019-01-31", "10002"])
    assert float(january) == pytest.approx(price * 3019 * 1000, rel=1e-3)
    paid = market["delisting_return"].to_series().dropna()
    assert paid.to_dict() == {(pd.Timestamp("2020-06-30"), "10003"): -0.3}


def test_ken_french_is_its_monthly_table_in_decimals(tmp_path):
    spec = written("Ken French's library", tmp_path)
    market = read_market(spec.data, settings=Settings(), frequency="monthly", calendar="none")
    dates = market.indexes["date"]
    expected = recipe_files.returns(["NoDur", "Durbl", "Manuf", "Enrgy"]).set_axis(dates)
    expected.iloc[0, 0] = np.nan
    np.testing.assert_allclose(market["returns"].sel(ticker=list(expected)), expected, atol=1e-12)
    factors = read_factors(spec.factors, dates=dates, settings=Settings(), frequency="monthly", calendar="none")
    assert factors is not None
    np.testing.assert_allclose(factors["risk_free"], 0.001)
    np.testing.assert_allclose(factors["factors"][-1, 0], recipe_files.returns(["Mkt-RF"] * 4).iloc[-1, 0], atol=1e-12)


def test_no_report_is_used_before_it_was_published_or_when_it_is_old(tmp_path):
    market = read("Compustat and other reports with a publication lag", tmp_path)
    assets = market["characteristics"].sel(char="assets", ticker="10001").to_series()
    assert assets[:"2017-05-31"].isna().all()
    assert (assets["2017-06-30":"2018-05-31"] == 101).all()
    assert (assets["2018-06-30":"2019-05-31"] == 102).all()
    last = (tmp_path / "funda.csv").read_text().replace("10001,2019-12-31,104,10\n", "")
    (tmp_path / "funda.csv").write_text(last)
    again = load_spec(tmp_path / "compustat.yaml").data
    assets = read_market(again, settings=Settings(), frequency="monthly", calendar="none")["characteristics"]
    assert assets.sel(char="assets", ticker="10001", date=slice("2020-06-30", None)).isnull().all()  # noqa: PD003  # of xarray


def test_a_query_joins_and_filters(tmp_path):
    market = read("Anything, by a query of DuckDB", tmp_path)
    assert market["ticker"].values.tolist() == ["AAPL", "JPM"]
    np.testing.assert_array_equal(market["close"], recipe_files.closes()[["AAPL", "JPM"]])
