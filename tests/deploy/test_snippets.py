"""What the documentation shows works as it is written.

Python blocks of the README and of the pages on what is published are executed one after the other, and so are the
lines of their shell blocks that only read or move what is published. Lines that start servers or fit models (`NOT_RUN`)
are held against the command line: command, options and the types of their values. `run` itself is run by `test_cli`,
`serve` by `test_serve`, `explore` by `test_explore`, SQL by `test_exports`.
"""

from __future__ import annotations

import inspect
import re
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import typer
import yaml
from running import Inline, ingested
from small_market import SMALL, make_market
from typer.testing import CliRunner

from deploy.cli import app
from models import FactorModel
from schemas.settings import Settings
from storage.configs import load_spec
from storage.cube import Cube
from tasks.training import train
from tasks.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "examples/README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "deploy").glob("*.md")),
]
READING = [ROOT / "docs" / name for name in ("start.md", "portfolio-risk.md", "reading.md")]
"""Pages that read the version which the demo makes."""

TICKERS = [
    "AAPL", "AMD", "BAC", "BBY", "CVX", "GE", "HD", "JNJ", "JPM", "KO", "LLY", "MRK", "MSFT", "PEP", "PFE", "PG", "RRC",
    "UNH", "WMT", "XOM",
]  # fmt: skip
"""The stocks of the demo."""

NOT_RUN = {"run", "backfill run", "serve", "deploy", "doctor", "share", "explore"}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
WORDS = {"CONFIG": "CONFIG.yaml", "...": "2016-06-30"}
COMMANDS: Any = typer.main.get_command(app)


def blocks(page: Path, *languages: str) -> list[str]:
    return [text for language, text in BLOCK.findall(page.read_text(encoding="utf-8")) if language in languages]


def lines_of(page: Path) -> list[list[str]]:
    """Commands of the shell blocks of a page, without the program's folder and what a comment says."""
    lines = "\n".join(blocks(page, "", "sh", "bash")).replace("\\\n", " ").splitlines()
    return [
        shlex.split(line, comments=True)
        for line in lines
        if re.match(r"(\.venv/bin/)?(factorcube|make|prefect) ", line)
    ]


def command_of(words: list[str]) -> tuple[Any, str, list[str]]:
    """Return the command that words name, its name, and its arguments."""
    command, path = COMMANDS, []
    while hasattr(command, "commands"):
        assert words, path
        path.append(words[0])
        assert path[-1] in command.commands, f"there is no command {' '.join(path)}"
        command, words = command.commands[path[-1]], words[1:]
    return command, " ".join(path), words


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder in which the demo has been run, on a market of its stocks; files lie where pages name them."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "examples").mkdir()
    named = {f"S{place:03d}": ticker for place, ticker in enumerate(TICKERS)}
    market = make_market(len(TICKERS)).with_columns(pl.col("ticker").replace_strict(named))
    market.write_parquet(folder / "prices.parquet")
    data = {**SMALL["data"], "origin": {"kind": "files", "paths": [str(folder / "prices.parquet")]}}
    changes = {"universe": "us_demo", "data": data, "portfolios": [{"kind": "equal_weight"}]}
    config = {**SMALL, **changes, "models": [SMALL["models"][0], SMALL["models"][3]]}
    for name in ("CONFIG.yaml", "examples/demo.yaml", "my.yaml"):
        (folder / name).write_text(yaml.safe_dump(config))
    (folder / "my_book.csv").write_text("ticker,value\nAAPL,500000\nXOM,300000\nJNJ,200000\n")
    settings, spec = Settings(root=folder / "data"), load_spec(folder / "CONFIG.yaml")
    train(spec, spec.models, ingested(spec, settings), None, Inline(), settings, promote_first=True)
    return folder


@pytest.fixture
def here(demo: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("FACTORCUBE_ROOT", raising=False)
    monkeypatch.chdir(demo)
    return demo


def test_the_shell_lines_of_the_readme_and_of_the_pages_on_reading_run_in_their_order(here: Path) -> None:
    ran = []
    for words in [words for page in (ROOT / "README.md", *READING) for words in lines_of(page)]:
        if not words[0].endswith("factorcube") or command_of(words[1:])[1] in NOT_RUN:
            continue
        done = CliRunner().invoke(app, words[1:], catch_exceptions=False)
        assert done.exit_code == 0, (words, done.output)
        ran.append(command_of(words[1:])[1])
    assert {"check", "show", "promote", "judge", "report", "schema", "backfill plan", "maintain", "verify"} <= set(ran)
    assert {"risk", "allocate", "export"} <= set(ran)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_a_page_shows_is_one(page: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    deployments = [one["name"] for one in yaml.safe_load((ROOT / "deploy/prefect.yaml").read_text())["deployments"]]
    for words in lines_of(page):
        if words[0] == "make":
            assert {word for word in words[1:] if "=" not in word} <= set(targets), words
        elif words[0].endswith("prefect"):
            assert words[1:3] != ["deployment", "run"] or words[3].split("/")[0] in deployments, words
        else:
            command, path, arguments = command_of(words[1:])
            command.make_context(path, [WORDS.get(word, word) for word in arguments])
    spans = re.findall(r"`factorcube ([^`\n]+)`", page.read_text(encoding="utf-8"))
    for span in spans:
        command, path, arguments = command_of([word for word in span.replace(" | ", " ").split() if word != "..."])
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in arguments if word.startswith("--")} <= known, (path, arguments)


def test_the_python_blocks_of_the_readme_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {
        "frame": notebook_frame(),
        "cube": Cube.open(Workspace(here / "data").layout, "us_demo").open_dataset(),
    }
    found = blocks(ROOT / "README.md", "python")
    for block in found:
        exec(compile(block, "README.md", "exec"), names)  # noqa: S102  # our own README
    assert len(found) == 3
    assert np.isfinite(names["ds"].portfolio_variance.sel(portfolio="equal_weight").values[-1])
    assert set(names["model"].score(names["test"])) >= {"total_r2", "predictive_r2"}
    assert {"loadings", "omega", "portfolio_variance"} <= set(names["version"])


@pytest.mark.parametrize("page", [page for page in READING if blocks(page, "python")], ids=lambda page: page.stem)
def test_the_python_blocks_of_the_pages_on_reading_run(here: Path, page: Path) -> None:
    names: dict[str, Any] = {}
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), names)  # noqa: S102  # our own page


def notebook_frame() -> pd.DataFrame:
    """Make the long frame of a notebook: monthly returns of thirty stocks beside two characteristics."""
    rng, dates = np.random.default_rng(0), pd.date_range("2010-01-31", "2016-12-31", freq="ME")
    rows = pd.MultiIndex.from_product([dates, [f"S{place:03d}" for place in range(30)]], names=["date", "ticker"])
    values = rng.normal(size=(len(rows), 3)) * [0.05, 0.2, 0.3] + [0.01, 0.0, 1.0]
    return pd.DataFrame(values, rows, ["ret", "mom12m", "beta"]).reset_index()


def test_the_python_blocks_of_the_other_pages_are_those_of_working_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """The family is the head of the one that the tests install; a plugin's defines what it promises."""
    (family,) = blocks(ROOT / "docs/families.md", "python")
    known: dict[str, Any] = {}
    exec("from collections.abc import Mapping; from typing import *; from annotated_types import *", known)  # noqa: S102
    exec(compile(family, "docs/families.md", "exec"), {**known, "FactorModel": FactorModel}, known)  # noqa: S102
    monkeypatch.syspath_prepend(ROOT / "tests/helpers/foreign")
    shown, installed = known["ResidualTrend"], import_module("trend_models").ResidualTrend
    assert (
        inspect.signature(shown.__init__).parameters.keys() == inspect.signature(installed.__init__).parameters.keys()
    )
    assert (shown.kind, shown.STATISTICS) == (installed.kind, installed.STATISTICS)
    (plugin,) = blocks(ROOT / "examples/README.md", "python")
    names: dict[str, Any] = {"checksum": lambda text: f"{len(text):064x}"}
    exec(compile(plugin, "examples/README.md", "exec"), names)  # noqa: S102  # our own page
    (file,) = names["open_origin"]({"dataset": "bars"}).fingerprint()
    assert file.name == "acme-bars"
