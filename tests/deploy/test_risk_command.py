"""`factorcube risk`: a book in a file, by a published version, as a user asks for it and reads it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from fixtures_versions import make_versions
from storing import STATE
from typer.testing import CliRunner

from deploy.cli import app
from models import RiskModel
from schemas.errors import ConfigError, DataError, FactorcubeError, SourceError
from storage import published
from storage.layout import Layout

VERSION = "us_large/ipca/latest"
VALUES = "ticker,value\nT003,600\nT007,300\nT011,50\nGONE,50\n"
DATED = """date,ticker,weight,portfolio
2018-02-01,T003,0.5,growth
2018-02-01,T007,0.4,growth
2018-03-01,T003,0.9,growth
2018-02-01,T003,0.1,value
2019-12-31,T003,0.2,growth
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("published")
    made = make_versions(("ipca",), n_dates=300)[0]
    ref = published.publish(Layout(root), made.dataset, made.manifest, STATE)
    published.promote(Layout(root), ref.universe, ref.model, ref.version, reason="test")
    return root


@pytest.fixture(autouse=True)
def installed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORCUBE_ROOT", str(root))
    monkeypatch.setenv("COLUMNS", "120")


def asked(tmp_path: Path, text: str, *options: str) -> str:
    file = tmp_path / "book.csv"
    file.write_text(text)
    return CliRunner().invoke(app, ["risk", VERSION, str(file), *options], catch_exceptions=False).output


def test_a_person_reads_what_the_book_risks_and_what_is_not_covered(root: Path, tmp_path: Path) -> None:
    said = asked(tmp_path, VALUES, "--benchmark", "equal_weight")
    assert "not covered: 5.00% of the book, in GONE; the covered ones stand for them" in said
    for expected in (
        "volatility % a year",
        "value at risk 99%, 1 day",
        "beta to equal_weight",
        "by factor",
        "by ticker",
    ):
        assert expected in said
    weights = {"T003": 0.6, "T007": 0.3, "T011": 0.05, "GONE": 0.05}
    opened = RiskModel.open(root / "published" / "us_large" / "ipca" / "latest")
    found = opened.risk(weights, benchmark="equal_weight")
    assert f"{100.0 * found.annual_volatility:.2f}" in said
    told = json.loads(asked(tmp_path, VALUES, "--benchmark", "equal_weight", "--format", "json"))
    assert told["summary"] == pytest.approx(found.summary()["value"].to_dict(), rel=1e-12)
    assert told["uncovered"] == pytest.approx({"GONE": 0.05})
    assert told["active"]["summary"]["volatility"] == pytest.approx(found.tracking_error)
    for name, read in (("risk.csv", pd.read_csv), ("risk.parquet", pd.read_parquet)):
        assert name in asked(tmp_path, VALUES, "--benchmark", "equal_weight", "--out", str(tmp_path / name))
        pd.testing.assert_frame_equal(read(tmp_path / name), found.table(), check_dtype=False, rtol=1e-12)


def test_the_page_of_a_book_is_written_beside_what_is_said(tmp_path: Path) -> None:
    page = tmp_path / "book.html"
    said = asked(tmp_path, VALUES, "--benchmark", "equal_weight", "--html", str(page))
    assert "volatility % a year" in said
    assert str(page) in said.replace("\n", "")
    text = page.read_text(encoding="utf-8")
    assert "Tracking error to equal_weight a year" in text
    assert "Content-Security-Policy" in text


def test_of_many_dates_and_books_the_last_that_is_known_of_the_one_that_is_named(tmp_path: Path) -> None:
    said = asked(tmp_path, DATED, "--portfolio", "growth")
    assert "holdings of 2018-02-01: 2 tickers" in said
    assert "the weights sum to 0.9: the rest, 10.0%, is cash" in said
    assert "1 tickers" in asked(tmp_path, DATED, "--portfolio", "value")


@pytest.mark.parametrize(
    ("text", "options", "error", "message"),
    [
        (
            "ticker,size\nT003,1\n",
            (),
            SourceError,
            "one column of weight, value, shares; the file has only ticker, size",
        ),
        ("ticker,weight,value\nT003,1,1\n", (), SourceError, "the file has weight and value"),
        ("name,weight\nT003,1\n", (), SourceError, "no column 'ticker'"),
        ("ticker,shares\nT003,100\n", (), DataError, "no prices to value shares with; give a column `value`"),
        ("ticker,weight\nT003,1\nT003,1\n", (), DataError, "(T003) has more than one row; add them up"),
        ("ticker,weight\nT003,\n", (), DataError, "(T003) has no weight"),
        ("ticker,value\nT003,100\nT007,-100\n", (), DataError, "which is no size to take weights of"),
        (DATED, (), DataError, "holds 2 portfolios (growth, value); say which one is meant"),
        (DATED, ("--portfolio", "income"), DataError, "no portfolio 'income'; there is growth, value"),
        (DATED.replace("2018", "2020"), ("--portfolio", "value"), DataError, "its first date is after 2018-02-23"),
        (VALUES, ("--format", "parquet"), ConfigError, "name a file with --out"),
        (VALUES, ("--out", "risk.xlsx"), ConfigError, "end the name with .json, .csv or .parquet"),
    ],
)
def test_a_mistake_is_one_sentence(
    tmp_path: Path, text: str, options: tuple[str, ...], error: type[FactorcubeError], message: str
) -> None:
    with pytest.raises(error) as caught:
        asked(tmp_path, text, *options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_neither_the_command_nor_the_notebook_waits_for_what_it_does_not_need() -> None:
    code = (
        "import sys, deploy.cli, deploy.console_book, tasks.books, tasks.promoting, models; models.RiskModel.open;"
        "print([name for name in ('torch', 'prefect', 'distributed', 'sklearn') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
