"""The hash of the code that a few modules can reach: what a key holds, so that it changes when a number can.

Here belong reading, cutting and following source files, and nothing that knows what the modules do: which ones make
which number is in `tasks.stages`. Why, and what is not seen, is in `docs/adr/0013-keys-by-reachable-code.md`.

A module counts by its syntax tree without docstrings, comments and what only type checkers see. It reaches every
module that it imports, anywhere in it, if that lies in one of `PACKAGES` or in the top-level package of a root. Names
are followed to where they are defined: ``from models.panel import Panel`` reaches `models.panel.panel`, and not what
else `models.panel` offers. The ``__init__`` of a package counts by what it does when it is imported, besides
importing and defining, and reaches what it needs for that.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path

from schemas.errors import ConfigError

PACKAGES = ("schemas", "storage", "models", "reporting", "tasks", "flows")
"""The packages of the repository that a run may import."""
HOME = Path(__file__).resolve().parents[1]
_DOES = "__init__"
"""Last part of the name that stands for what a package does when it is imported."""


@cache
def code_of(*roots: str, without: tuple[str, ...] = (), home: Path = HOME) -> str:
    """First 16 hex digits of the SHA-256 of everything that roots can reach.

    Parameters
    ----------
    *roots : str
        Dotted names of modules, or ``module:attribute`` for the module that defines one class or function.
    without : tuple of str
        Modules, and packages with all in them, that neither count nor are followed.
    home : pathlib.Path
        Folder of `PACKAGES`.

    Raises
    ------
    ConfigError
        If a root has no source that can be read.
    """
    return hash_of(modules_of(*roots, without=without, home=home), home=home)


def hash_of(modules: Iterable[str], *, home: Path = HOME) -> str:
    """Hash modules as `modules_of` names them."""
    digester = hashlib.sha256()
    for name in sorted(modules):
        digester.update(f"{name}\0{_syntax(name, home)}\0".encode())
    return digester.hexdigest()[:16]


@cache
def modules_of(*roots: str, without: tuple[str, ...] = (), home: Path = HOME) -> frozenset[str]:
    """Return the names of what roots can reach; ``package.__init__`` for what a package does when imported.

    Parameters and errors are those of `code_of`.
    """
    tree = _Tree(home, frozenset(PACKAGES) | {root.partition(":")[0].partition(".")[0] for root in roots})
    waiting: list[str] = []
    for root in roots:
        module, _, attribute = root.partition(":")
        start = list(tree.target(module, attribute or None))
        if not start:
            raise ConfigError(f"the source of {root} cannot be read, so that what it makes cannot be named")
        waiting += start
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in found or any(name == one or name.startswith(f"{one}.") for one in without):
            continue
        found.add(name)
        waiting += tree.reached(name)
    return frozenset(found)


@dataclass(frozen=True)
class _Module:
    """One source file without docstrings and what only type checkers see."""

    name: str
    package: bool
    tree: ast.Module

    @cached_property
    def syntax(self) -> str:
        """The tree written out, without positions."""
        return ast.dump(self.tree)

    @cached_property
    def defined(self) -> frozenset[str]:
        """Names of functions and classes at the top level."""
        return frozenset(node.name for node in self.tree.body if isinstance(node, _DEFINITIONS))

    @cached_property
    def done(self) -> list[ast.stmt]:
        """What happens on import besides importing, defining and listing what is offered."""
        return [
            node for node in self.tree.body if not isinstance(node, (*_IMPORTS, *_DEFINITIONS)) and not _lists(node)
        ]

    @cached_property
    def imported(self) -> tuple[tuple[str, str, str | None], ...]:
        """Name that is given, module, and the attribute that is taken from it, of every import."""
        found: list[tuple[str, str, str | None]] = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found += [(one.asname or one.name.partition(".")[0], one.name, None) for one in node.names]
            elif isinstance(node, ast.ImportFrom):
                found += [(one.asname or one.name, self._absolute(node), one.name) for one in node.names]
        return tuple(found)

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.name.split(".")
        base = parts[: len(parts) - node.level + self.package]
        return ".".join([*base, *([node.module] if node.module else [])])


@dataclass(frozen=True)
class _Tree:
    """The source files that are followed."""

    home: Path
    tops: frozenset[str]

    def reached(self, name: str) -> Iterator[str]:
        """Yield what a module reaches by itself."""
        package, _, last = name.rpartition(".")
        if last == _DOES:
            yield from self._reached_by_import(package)
            return
        module = _read(name, self.home)
        parts = name.split(".")
        for end in range(1, len(parts)):
            yield f"{'.'.join(parts[:end])}.{_DOES}"
        if module is not None:
            for _, source, attribute in module.imported:
                yield from self.target(source, attribute)

    def target(self, source: str, attribute: str | None, seen: frozenset[str] = frozenset()) -> Iterator[str]:
        """Yield the module in which something that is imported is defined; nothing if it is not followed."""
        if source.partition(".")[0] not in self.tops:
            return
        module, inner = _read(source, self.home), f"{source}.{attribute}"
        if attribute is None or (module is not None and not module.package):
            if module is not None:
                yield source
            return
        if module is not None and source not in seen and attribute not in module.defined:
            given = [(where, what) for name, where, what in module.imported if name == attribute]
            if given:  # a package that hands on what a module of its own defines
                yield f"{source}.{_DOES}"
                for where, what in given:
                    yield from self.target(where, what, seen | {source})
                return
        if _path(inner, self.home) is not None:
            yield inner
        elif module is not None:
            yield source

    def _reached_by_import(self, package: str) -> Iterator[str]:
        module = _read(package, self.home)
        if module is None:
            return
        used = {one.id for node in module.done for one in ast.walk(node) if isinstance(one, ast.Name)}
        if used & module.defined:
            yield package
            return
        for name, source, attribute in module.imported:
            if name in used:
                yield from self.target(source, attribute)


@cache
def _syntax(name: str, home: Path) -> str:
    package, _, last = name.rpartition(".")
    if last == _DOES:
        module = _read(package, home)
        return "" if module is None else "".join(ast.dump(node) for node in module.done)
    module = _read(name, home)
    return "" if module is None else module.syntax


@cache
def _read(name: str, home: Path) -> _Module | None:
    """Read the source of a module; None if there is none."""
    path = _path(name, home)
    if path is None:
        return None
    return _parsed(name, path.read_bytes(), package=path.name == "__init__.py")


@cache
def _parsed(name: str, source: bytes, *, package: bool) -> _Module:
    return _Module(name, package, _Bare(package=package).visit(ast.parse(source, filename=name)))


@cache
def _path(name: str, home: Path) -> Path | None:
    top = name.partition(".")[0]
    folder = home if top in PACKAGES else _installed(top)
    if folder is None:
        return None
    stem = folder.joinpath(*name.split("."))
    return next((path for path in (stem / "__init__.py", stem.with_name(f"{stem.name}.py")) if path.is_file()), None)


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
