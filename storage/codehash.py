"""The hash of the code that a few modules can reach: what a key holds, so that it changes when a number can.

Here belongs following source files, and nothing that knows what the modules do: which ones make which number is in
`tasks.stages`; what one file says and imports is in `storage.source_modules`. Why, and what is not seen, is in
`docs/adr/0013-keys-by-reachable-code.md`.

A module counts by its syntax tree without docstrings, comments and what only type checkers see. It reaches every
module that it imports, anywhere in it, if that lies in one of `PACKAGES` or in the top-level package of a root. Names
are followed to where they are defined: ``from models.panel import Panel`` reaches `models.panel.panel`, and not what
else `models.panel` offers. The ``__init__`` of a package counts by what it does when it is imported, besides
importing and defining, and reaches what it needs for that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from schemas.errors import ConfigError
from storage.source_modules import HOME, PACKAGES, Modules

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
        digester.update(f"{name}\0{_syntax(name, _modules(home))}\0".encode())
    return digester.hexdigest()[:16]


@cache
def modules_of(*roots: str, without: tuple[str, ...] = (), home: Path = HOME) -> frozenset[str]:
    """Return the names of what roots can reach; ``package.__init__`` for what a package does when imported.

    Parameters and errors are those of `code_of`.
    """
    read = _modules(home)
    tree = _Tree(read, frozenset(PACKAGES) | {root.partition(":")[0].partition(".")[0] for root in roots})
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
    read.keep()
    return frozenset(found)


@cache
def _modules(home: Path) -> Modules:
    return Modules(home)


@dataclass(frozen=True)
class _Tree:
    """The source files that are followed."""

    modules: Modules
    tops: frozenset[str]

    def reached(self, name: str) -> Iterator[str]:
        """Yield what a module reaches by itself."""
        package, _, last = name.rpartition(".")
        if last == _DOES:
            yield from self._reached_by_import(package)
            return
        module = self.modules.read(name)
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
        module, inner = self.modules.read(source), f"{source}.{attribute}"
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
        if self.modules.has(inner):
            yield inner
        elif module is not None:
            yield source

    def _reached_by_import(self, package: str) -> Iterator[str]:
        module = self.modules.read(package)
        if module is None:
            return
        used = set(module.used)
        if used & set(module.defined):
            yield package
            return
        for name, source, attribute in module.imported:
            if name in used:
                yield from self.target(source, attribute)


def _syntax(name: str, modules: Modules) -> str:
    package, _, last = name.rpartition(".")
    module = modules.read(package if last == _DOES else name)
    return "" if module is None else module.done if last == _DOES else module.syntax
