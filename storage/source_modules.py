"""What one source file says and imports: its syntax tree, cut to what can change a number, as a few facts.

Here belong reading and cutting one file; following what modules reach is in `storage.codehash`. Parsing all files takes
a second or two of every process, so that facts are kept in one file beside Python's own bytecode, under the same rules:
they are those of exactly these bytes of a file, they are written whole or not at all, and not where
``PYTHONDONTWRITEBYTECODE`` is set or the folder cannot be written.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from schemas.errors import ExecutionError
from storage.files import write_atomic

PACKAGES = ("schemas", "storage", "models", "reporting", "tasks", "flows")
"""The packages of the repository that a run may import."""
HOME = Path(__file__).resolve().parents[1]


class Module(NamedTuple):
    """One source file without docstrings, comments and what only type checkers see.

    Attributes
    ----------
    package : bool
        Whether it is the ``__init__`` of one.
    syntax : str
        SHA-256 of the tree written out, without positions.
    done : str
        The same of what happens on import besides importing, defining and listing what is offered.
    used : tuple of str
        Names that are used there.
    defined : tuple of str
        Names of functions and classes at the top level.
    imported : tuple
        Name that is given, module, and the attribute that is taken from it, of every import, anywhere.
    """

    package: bool
    syntax: str
    done: str
    used: tuple[str, ...]
    defined: tuple[str, ...]
    imported: tuple[tuple[str, str, str | None], ...]


def path_of(name: str, home: Path) -> Path | None:
    """Return the source file of a module; None if there is none."""
    top = name.partition(".")[0]
    folder = home if top in PACKAGES else _installed(top)
    if folder is None:
        return None
    stem = folder.joinpath(*name.split("."))
    return next((path for path in (stem / "__init__.py", stem.with_name(f"{stem.name}.py")) if path.is_file()), None)


class Modules:
    """Facts about the modules below a folder, each read once; those of unchanged files come from the kept ones."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._kept = home / "storage" / "__pycache__" / f"source_modules.{sys.implementation.cache_tag}.json"
        self._known: dict[str, Any] = {}
        self._new = False
        with suppress(OSError):
            seal, _, content = self._kept.read_bytes().partition(b"\n")
            if seal.decode(errors="replace") == _seal(content):
                self._known = json.loads(content)
        self._read: dict[str, Module | None] = {}

    def read(self, name: str) -> Module | None:
        """Return the facts of a module; None if it has no source."""
        if name not in self._read:
            path = path_of(name, self._home)
            self._read[name] = None if path is None else self._facts(name, path)
        return self._read[name]

    def has(self, name: str) -> bool:
        """Whether a module has a source."""
        return self.read(name) is not None

    def keep(self) -> None:
        """Write the facts of files that were read anew, for other processes."""
        if self._new and not sys.dont_write_bytecode:
            content = json.dumps(self._known)
            with suppress(ExecutionError):
                write_atomic(self._kept, f"{_seal(content.encode())}\n{content}")
        self._new = False

    def _facts(self, name: str, path: Path) -> Module:
        text = path.read_bytes()
        digest = hashlib.sha256(text).hexdigest()
        of, facts = self._known.get(name, ("", None))
        if of == digest:
            package, syntax, done, used, defined, imported = facts
            return Module(package, syntax, done, tuple(used), tuple(defined), tuple((a, b, c) for a, b, c in imported))
        found = facts_of(name, text, package=path.name == "__init__.py")
        self._known[name] = [digest, found]
        self._new = True
        return found


@cache
def facts_of(name: str, text: bytes, *, package: bool) -> Module:
    """Parse one source file."""
    tree = _Bare(package=package).visit(ast.parse(text, filename=name))
    done = [node for node in tree.body if not isinstance(node, (*_IMPORTS, *_DEFINITIONS)) and not _lists(node)]
    imported: list[tuple[str, str, str | None]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported += [(one.asname or one.name.partition(".")[0], one.name, None) for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported += [
                (one.asname or one.name, _absolute(name, node, package=package), one.name) for one in node.names
            ]
    return Module(
        package=package,
        syntax=_digest(tree),
        done=_digest(*done),
        used=tuple(sorted({one.id for node in done for one in ast.walk(node) if isinstance(one, ast.Name)})),
        defined=tuple(node.name for node in tree.body if isinstance(node, _DEFINITIONS)),
        imported=tuple(imported),
    )


def _seal(content: bytes) -> str:
    """Hash of what is kept and of how files are cut: another version of this module has kept other facts."""
    return hashlib.sha256(Path(__file__).read_bytes() + content).hexdigest()


def _digest(*nodes: ast.AST) -> str:
    return hashlib.sha256("".join(ast.dump(node) for node in nodes).encode()).hexdigest()


def _absolute(name: str, node: ast.ImportFrom, *, package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = name.split(".")
    base = parts[: len(parts) - node.level + package]
    return ".".join([*base, *([node.module] if node.module else [])])


@cache
def _installed(top: str) -> Path | None:
    """Return the folder that holds a top-level package or module."""
    spec = find_spec(top)
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).parent
    return None if spec.origin is None else Path(spec.origin).parent


class _Bare(ast.NodeTransformer):
    """Takes out docstrings, of attributes too, and blocks that only type checkers see.

    Of a package these blocks stay: what it imports when it is asked for is named there.
    """

    def __init__(self, *, package: bool) -> None:
        self._package = package

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        """Drop an expression that is only a string."""
        return None if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else node

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        """Keep the other branch of ``if TYPE_CHECKING``."""
        self.generic_visit(node)
        name = node.test.attr if isinstance(node.test, ast.Attribute) else getattr(node.test, "id", None)
        if name != "TYPE_CHECKING":
            return node
        return node.body + node.orelse if self._package else node.orelse


_IMPORTS = (ast.Import, ast.ImportFrom)
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _lists(node: ast.stmt) -> bool:
    """Whether a statement says what a package offers."""
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets)
