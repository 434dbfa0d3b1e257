"""`factorcube init`: from files to a config that reads them, with everything that was assumed written beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import recipe_files
import yaml
from pydantic import TypeAdapter
from typer.testing import CliRunner

from deploy.cli import app
from schemas.errors import ConfigError, DataError, FactorcubeError, SourceError
from schemas.settings import Settings
from schemas.sources import MarketSource
from storage.sources import read_market


def spreadsheet() -> dict[str, str]:
    """Return closes as a German spreadsheet saves them."""
    text = recipe_files.closes().to_csv(sep=";", decimal=",", date_format="%d.%m.%Y", index_label="Datum")
    return {"kurse.csv": text}


def industries() -> dict[str, str]:
    return {"industries.csv": (100 * recipe_files.returns(["Food", "Cars"])).to_csv(index_label="month")}


def panel() -> dict[str, str]:
    rows = recipe_files.compustat()["monthly.csv"].splitlines()
    return {
        "panel.csv": "\n".join([f"{rows[0]},bm,sector", *(f"{row},{n % 7},Banks" for n, row in enumerate(rows[1:]))])
    }


GIVEN: dict[str, tuple[Callable[[], dict[str, str]], dict[str, object]]] = {
    "prices": (recipe_files.yfinance_histories, {"shape": "long_prices", "close": "Close", "volume": "Volume"}),
    "download.csv": (recipe_files.yfinance_download, {"shape": "long_prices", "ticker": "Ticker", "high": "High"}),
    "individual_stocks": (recipe_files.kaggle, {"shape": "long_prices", "ticker": "Name", "date": "date"}),
    "kurse.csv": (spreadsheet, {"shape": "wide_prices", "date_format": "%d.%m.%Y", "decimal": ","}),
    "industries.csv": (industries, {"shape": "wide_returns", "units": "percent"}),
    "panel.csv": (panel, {"shape": "long_panel", "ticker": "permno", "returns": "ret", "characteristics": ["bm"]}),
}


def init(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, *more: str) -> str:
    files = GIVEN[name][0]()
    for file, content in files.items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(content, encoding="utf-8")
    monkeypatch.chdir(folder)
    said = CliRunner().invoke(app, ["init", name, "--out", "mine.yaml", *more], catch_exceptions=False)
    assert said.exit_code == 0, said.output
    return said.output


@pytest.mark.parametrize("name", GIVEN)
def test_the_config_reads_the_files_and_says_what_was_assumed(tmp_path, monkeypatch, name):
    said = init(tmp_path, monkeypatch, name)
    text = (tmp_path / "mine.yaml").read_text(encoding="utf-8")
    config = yaml.safe_load(text)
    assert config["data"] | GIVEN[name][1] == config["data"]
    source = TypeAdapter(MarketSource).validate_python(config["data"]).resolved(tmp_path)
    how = {"frequency": config["frequency"], "calendar": config["calendar"], "settings": Settings()}
    market = read_market(source, **how)
    if "close" in market:
        np.testing.assert_array_equal(market["close"], recipe_files.closes())
        assert config["calendar"] == "XNYS"
    else:
        assert config["frequency"] == "monthly"
        expected = recipe_files.returns(list(map(str, market["ticker"].values)))
        known = {tuple(row) for row in np.round(market["returns"].values.T, 6)}
        assert known == {tuple(row) for row in np.round(expected.to_numpy().T, 6)}
    assumed = [line.strip().split(": ", 1) for line in said.splitlines() if line.startswith("  ")]
    assert {"calendar", "currency"} < {key for key, _ in assumed}
    assert all(f"# assumed: {why}" in text for _, why in assumed)


@pytest.mark.parametrize("missing", ["C", "-99.99"])
def test_what_stands_for_a_missing_return_is_listed(tmp_path, monkeypatch, missing):
    files = {"panel.csv": panel()["panel.csv"].replace(",0.0273,", f",{missing},")}
    monkeypatch.setitem(GIVEN, "panel.csv", (lambda: files, {}))
    assert "missing_values: " in init(tmp_path, monkeypatch, "panel.csv")
    (code,) = yaml.safe_load((tmp_path / "mine.yaml").read_text())["data"]["missing_values"]
    assert str(code) == missing


@pytest.mark.slow
@pytest.mark.parametrize("name", GIVEN)
def test_check_accepts_the_config_as_it_is(tmp_path, monkeypatch, name):
    init(tmp_path, monkeypatch, name, "--universe", "proposed")
    said = CliRunner().invoke(app, ["check", "mine.yaml"], catch_exceptions=False)
    assert said.exit_code == 0, said.output
    assert "proposed: " in said.output


def test_nothing_is_overwritten_and_what_cannot_be_told_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def refused(content: str, kind: type[FactorcubeError], *more: str) -> str:
        Path("a.csv").write_text(content)
        error = CliRunner().invoke(app, ["init", "a.csv", *more]).exception
        assert isinstance(error, kind), error
        assert not Path("config.yaml").exists()
        return str(error)

    days = [f"{day:%Y-%m-%d}" for day in recipe_files.DAYS[:20]]
    good = "date,A\n" + "".join(f"{day},{place + 5}.5\n" for place, day in enumerate(days))
    assert "no column holds dates only" in refused("day,A\nMonday,1\n", SourceError)
    assert "365 days apart" in refused("date,A\n2021-01-01,1\n2022-01-01,2\n2023-01-01,2\n", SourceError)
    assert "no column is called ticker" in refused("date,close\n2020-01-02,1\n2020-01-02,2\n", SourceError)
    assert "has 2 dates" in refused("date,A\n2020-01-02,1\n2020-01-03,2\n", DataError)
    assert "line 3 has 1 of 2 columns" in refused("date,A\n2020-01-02,1\n2020\n2020-01-03,1\n", SourceError)
    assert "--universe" in refused(good, ConfigError, "--universe", "../up")
    Path("mine.yaml").write_text("mine")
    assert "mine.yaml: is there already" in refused(good, ConfigError, "--out", "mine.yaml")
    assert Path("mine.yaml").read_text() == "mine"


@pytest.mark.slow
def test_it_imports_neither_torch_nor_prefect_nor_a_store(tmp_path):
    (tmp_path / "kurse.csv").write_text(spreadsheet()["kurse.csv"])
    program = (
        "import sys; from deploy.cli import app; app(['init', 'kurse.csv'], standalone_mode=False); "
        "print({'torch', 'prefect', 'distributed', 'zarr', 'icechunk'} & set(sys.modules))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.endswith("set()\n")
