"""The command line as a user meets it: another process, its exit status and what it prints."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml
from small_market import SMALL, make_market, write_config
from typer.testing import CliRunner

from deploy.cli import app

COMMAND = str(Path(sys.executable).with_name("factorcube"))


def factorcube(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments],
        cwd=folder,
        env={**os.environ, "FACTORCUBE_ROOT": str(folder / "out"), "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def said(*arguments: str) -> str:
    """Return what a command prints that starts no process, run in this one."""
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_help_explains_itself() -> None:
    shown = said("--help")
    for command in ("check", "run", "show", "report", "schema", "promote", "rollback", "pin", "unpin", "diff"):
        assert command in shown


def test_schema_is_a_json_schema_of_a_config() -> None:
    schema = json.loads(said("schema"))
    assert {"universe", "data", "models", "walk_forward"} <= set(schema["properties"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    make_market(stocks=12, start="2016-03-01").write_parquet(folder / "prices.parquet")
    some = {"models": [SMALL["models"][0], SMALL["models"][3]], "characteristics": ["mom1m", "maxret", "retvol"]}
    write_config(folder, {**some, "walk_forward": {"first": "2016-09-30", "every": "quarter"}})
    return folder


def test_run_show_and_report(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = factorcube(folder, "run", "config.yaml")
    assert first.returncode == 0, first.stderr[-2000:]
    for expected in ("Checks", "market", "ipca", "equal_weight", "realised", "xr.open_zarr(", ".html"):
        assert expected in first.stdout
    assert "No champion yet of ipca: factorcube promote small/ipca/" in first.stdout
    monkeypatch.setenv("FACTORCUBE_ROOT", str(folder / "out"))
    versions = re.findall(r"small/\w+/\d{4}-\d{2}-\d{2}-[0-9a-f]{8}", said("show"))
    assert len(versions) == 2
    early = factorcube(folder, "show", "small/ipca/latest")
    assert early.returncode == 1
    assert early.stderr.startswith("error: small/ipca has no champion yet; promote one of: ")
    assert "Traceback" not in early.stderr
    assert said("promote", "small").count(" is latest now; before it was none") == len(versions)
    described = said("show", versions[0])
    assert "snapshot" in described
    assert "portfolio_variance" in described
    manifest = json.loads(said("show", "small/ipca/latest", "--json"))
    assert manifest["kind"] == "ipca"
    assert str(folder) not in json.dumps(manifest), "a manifest names no folder of this machine"
    said("report", "small/ipca/latest", "--output", str(folder / "one.html"))
    assert "<html" in (folder / "one.html").read_text()


@pytest.mark.slow
def test_run_again_starts_no_cluster(folder: Path) -> None:
    assert factorcube(folder, "run", "config.yaml").returncode == 0
    again = factorcube(folder, "run", "config.yaml")
    assert again.returncode == 0
    assert "Nothing changed" in again.stdout
    assert "Dask" not in again.stdout + again.stderr, "a run with nothing to do starts no cluster"


BAD = {
    "no such file": ("nowhere.yaml", None, "nowhere.yaml: no such file"),
    "unknown key": ("config.yaml", {"modles": []}, "modles' (did you mean 'models'?)"),
    "missing column": ("config.yaml", {"data": {**SMALL["data"], "close": "Close"}}, "did you mean 'close'"),
    "percent as decimals": (
        "config.yaml",
        {"factors": [{"origin": {"kind": "files", "paths": ["factors.csv"]}, "columns": ["Mkt"], "units": "decimal"}]},
        "percent",
    ),
    "too many factors": ("config.yaml", {"models": [{"kind": "ipca", "n_factors": 20}]}, "n_factors"),
}

LONG = ("too many factors", "percent as decimals", "missing column", "unknown key")


@pytest.mark.parametrize("case", [pytest.param(case, marks=[pytest.mark.slow] * (case in LONG)) for case in BAD])
def test_a_mistake_is_one_message_without_a_traceback(case: str, tmp_path: Path) -> None:
    name, changes, message = BAD[case]
    market = make_market()
    market.write_parquet(tmp_path / "prices.parquet")
    days = market["date"].unique().sort().cast(pl.Date).to_list()
    pl.DataFrame({"date": days, "Mkt": [(-1.0) ** n * 0.9 for n in range(len(days))]}).write_csv(
        tmp_path / "factors.csv"
    )
    write_config(tmp_path, {})
    if changes is not None:
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({**SMALL, **changes}))
    shown = factorcube(tmp_path, "run", name)
    assert shown.returncode == 1
    assert message in shown.stderr.replace("\n", " "), shown.stderr[-1500:]
    assert "Traceback" not in shown.stderr + shown.stdout
    if case != "too many factors":  # whatever can be said before a server is started is said once
        assert len(shown.stderr.splitlines()) == 1, shown.stderr
        assert not shown.stdout
    assert not list((tmp_path / "out" / "published").rglob("manifest.json"))


@pytest.mark.slow
def test_an_unknown_setting_is_named(tmp_path: Path) -> None:
    make_market().write_parquet(tmp_path / "prices.parquet")
    write_config(tmp_path, {})
    shown = factorcube(tmp_path, "run", "config.yaml", FACTORCUBE_ROOTS="x")
    assert shown.returncode == 1
    assert "FACTORCUBE_ROOTS (did you mean 'FACTORCUBE_ROOT'?)" in shown.stderr.replace("\n", " ")
