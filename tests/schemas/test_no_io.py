"""`schemas` does no I/O: its modules import nothing that does (import-linter), and call nothing that does (here)."""

import ast
from pathlib import Path

import pytest

import schemas

FILES = sorted(Path(schemas.__file__).parent.glob("*.py"))
TOUCHES_A_DISK = {
    "open", "read_text", "read_bytes", "write_text", "write_bytes", "glob", "rglob", "iterdir", "exists", "is_file",
    "is_dir", "is_symlink", "stat", "resolve", "mkdir", "touch", "unlink", "rename",
}  # fmt: skip


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_schemas_calls_nothing_that_touches_a_disk(file):
    calls = [node.func for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    names = {call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls}
    assert not names & TOUCHES_A_DISK
