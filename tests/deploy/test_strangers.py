"""What others have left where this installation looks: text that moves the cursor, folders that are none."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from storing import publish_one

from deploy.cli import obey
from schemas.base import CONTROL
from schemas.errors import ConfigError
from schemas.settings import Settings
from storage import published
from storage.layout import Layout
from tasks.workspace import Workspace

EVIL = "\x1b[2J\x1b]0;owned\x07\u202egnp.exe\x9b31m"
VERSION = "us/ipca/2024-06-27-00000000"


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command on a root with one published version; give all that it prints, and its status."""
    monkeypatch.setenv("FACTORCUBE_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("COLUMNS", "400")

    def told(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["factorcube", *arguments])
        with pytest.raises(SystemExit) as ended:
            obey()
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return int(ended.value.code or 0), shown.out + shown.err

    return told


def test_control_characters_are_shown_and_not_obeyed(told: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    root = tmp_path / "root"
    publish_one(root)
    document = root / "published/us/ipca/latest.json"
    pointer = json.loads(document.read_text())
    pointer["pins"] = {VERSION.rpartition("/")[2]: EVIL}
    pointer["promotions"][-1]["reason"] = EVIL
    document.write_text(json.dumps(pointer))
    for arguments in (["show"], ["show", VERSION], ["show", "--as-of", "2090-01-01"], ["show", f"us/{EVIL}/latest"]):
        _, shown = told(*arguments)
        assert r"\x1b[2J" in shown, arguments
        assert not CONTROL.search(shown.replace("\r", "")), arguments


def test_a_file_whose_name_is_a_trick_is_named_and_not_obeyed(
    told: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    publish_one(tmp_path / "root")
    (tmp_path / "root/published" / VERSION / "\x1b[2J.json").write_text("{}")
    code, shown = told("verify")
    assert code == 1
    assert r"\x1b[2J.json" in shown
    assert not CONTROL.search(shown.replace("\r", ""))


@pytest.mark.parametrize("reason", [EVIL, "two\nlines", "\x7f", "\u2066a"])
def test_a_reason_is_one_line_of_plain_text(told: Callable[..., tuple[int, str]], tmp_path: Path, reason: str) -> None:
    root = tmp_path / "root"
    publish_one(root)
    before = (root / "published/us/ipca/latest.json").read_bytes()
    code, shown = told("pin", VERSION, "--reason", reason)
    assert (code, shown.count("\n")) == (1, 1)
    assert "holds a control character or a new line" in shown
    with pytest.raises(ConfigError, match="control character"):
        published.promote(Layout(root), "us", "ipca", VERSION.rpartition("/")[2], reason=reason)
    assert (root / "published/us/ipca/latest.json").read_bytes() == before


@pytest.mark.parametrize("name", ["latest", "manifest", "catalog"])
def test_words_of_the_layout_are_no_names(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}' is not a valid name: .* and not catalog, latest, manifest"):
        Layout(Path("root")).home("us", name)


def a_file(root: Path) -> None:
    root.write_text("")


def below_a_file(root: Path) -> None:
    root.parent.joinpath("file").write_text("")
    root.symlink_to(root.parent / "file" / "root")


def a_folder_for_the_pointer(root: Path) -> None:
    publish_one(root)
    (root / "published/us/ipca/latest.json").unlink()
    (root / "published/us/ipca/latest.json").mkdir()


def a_file_for_published(root: Path) -> None:
    root.mkdir()
    (root / "published").write_text("")


COMMANDS = [
    ["show", "us/ipca/latest"], ["show", "us/ipca"], ["promote", VERSION], ["pin", VERSION, "--reason", "x"],
    ["rollback", "us/ipca"], ["report", "us/ipca/latest"],
]  # fmt: skip


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (a_file, r"FACTORCUBE_ROOT: \S+/root is not a folder"),
        (below_a_file, r"FACTORCUBE_ROOT: \S+/root cannot be reached: Not a directory"),
        (a_folder_for_the_pointer, r"\S+/latest\.json: cannot be read: Is a directory"),
        (a_file_for_published, r"\S+/latest\.json: cannot be read: Not a directory"),
    ],
)
def test_a_root_that_is_none_is_one_line(
    told: Callable[..., tuple[int, str]], tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(tmp_path / "root")
    for arguments in COMMANDS:
        code, shown = told(*arguments)
        assert (code, shown.count("\n")) == (1, 1), (arguments, shown)
        assert re.search(message, shown), (arguments, shown)


def test_a_root_without_permission_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # the owner of these tests may be root, whom nothing stops
    with pytest.raises(ConfigError, match=r"FACTORCUBE_ROOT: \S+ cannot be read by .*; see its owner and permissions"):
        Workspace.of(Settings(root=tmp_path))


def test_a_file_that_the_system_refuses_anywhere_is_one_line(
    told: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_one(tmp_path / "root")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/somewhere/below")

    monkeypatch.setattr("storage.catalog.refresh_catalog", refuse)
    assert told("promote", VERSION) == (1, "error: /somewhere/below: Permission denied; mend that and run again\n")
