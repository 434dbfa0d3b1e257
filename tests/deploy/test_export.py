"""`factorcube export`: a published version for people without Python."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from storing import publish_one
from typer.testing import CliRunner

from deploy.cli import app
from schemas.errors import PublishError


def test_it_writes_the_version_that_is_asked_for_and_says_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORCUBE_ROOT", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    publish_one(tmp_path / "data")
    words = ["export", "us/ipca/latest", "--to", "parquet", "--out", "export"]
    said = CliRunner().invoke(app, words, catch_exceptions=False)
    assert said.exit_code == 0
    assert said.output.startswith("us/ipca/2024-")
    assert " is in export: loadings, " in said.output.replace("\n", " ")
    facts = dict(pl.read_parquet("export/version.parquet").rows())
    assert facts["version"] in said.output
    assert isinstance(CliRunner().invoke(app, words).exception, PublishError)
    assert CliRunner().invoke(app, [*words, "--force"]).exit_code == 0
