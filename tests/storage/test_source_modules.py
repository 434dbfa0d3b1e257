"""What is kept of source files for other processes: the facts of exactly their bytes, or nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from storage.source_modules import HOME, Modules, facts_of

NAMES = ["models", "models.panel.panel", "storage.codehash", "schemas.spec"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("sys.dont_write_bytecode", False)
    for package in ("models", "storage", "schemas"):
        shutil.copytree(HOME / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def kept(home: Path) -> Path:
    (found,) = (home / "storage" / "__pycache__").glob("source_modules.*.json")
    return found


def read(home: Path) -> list[object]:
    modules = Modules(home)
    found = [modules.read(name) for name in NAMES]
    modules.keep()
    return found


def test_kept_facts_are_those_of_the_files_as_they_are_now(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read(home)
    assert all(first)
    with monkeypatch.context() as patch:
        patch.setattr("storage.source_modules.facts_of", None)
        assert read(home) == first, "nothing is parsed again"
    edited = home / "models" / "panel" / "panel.py"
    edited.write_text(edited.read_text() + "\nimport models.blas\n")
    later = read(home)
    assert later[1] == facts_of(NAMES[1], edited.read_bytes(), package=False) != first[1]
    assert [later[0], *later[2:]] == [first[0], *first[2:]]


def test_what_is_kept_may_be_damaged_or_of_another_version(home: Path) -> None:
    first = read(home)
    whole = kept(home).read_bytes()
    seal, _, content = whole.partition(b"\n")
    for damaged in (b"", b"\n{}", b"\xff" + whole[1:], seal + b"\n" + content.replace(b"panel", b"pamel", 1)):
        kept(home).write_bytes(damaged)
        assert read(home) == first
        assert kept(home).read_bytes() == whole, "it is written anew"


def test_nothing_is_kept_where_no_bytecode_may_be(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("sys.dont_write_bytecode", True)
        read(home)
    assert not (home / "storage" / "__pycache__").exists()
    (home / "storage" / "__pycache__").write_text("in the way")
    assert all(read(home)), "a folder that cannot be written is no error"
