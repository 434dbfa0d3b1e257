"""YAML of strangers: plain values only, no key twice, bounded, and each mistake named by its line.

Here belongs what YAML may hold in any document. What a config may say belongs in `schemas.spec`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, Event, ScalarEvent
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from schemas.base import CONTROL
from schemas.errors import ConfigError

MAX_DEPTH = 32
MAX_VALUES = 250_000
"""Most values in a document, what an alias repeats counted each time: ten lines of aliases can stand for 10^10."""
_LARGEST = 2**63
_TAG = "tag:yaml.org,2002:"
_PLAIN: dict[str, type[Node]] = {
    **{f"{_TAG}{name}": ScalarNode for name in ("null", "bool", "int", "float", "timestamp", "str")},
    f"{_TAG}seq": SequenceNode,
    f"{_TAG}map": MappingNode,
}
_NAMES = {f"{_TAG}timestamp": "date", f"{_TAG}int": "number", f"{_TAG}float": "number", f"{_TAG}bool": "true or false"}
_KEYS = {f"{_TAG}str", f"{_TAG}merge"}


def read_document(path: Path) -> Any:
    """Read the one YAML document of a file.

    Raises
    ------
    ConfigError
        If the file is missing or unreadable, or is not YAML of plain values; the message names file and line.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give the path of a config file, see examples/") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        text.decode("utf-8")
        _require_bounded(text)
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506  # a SafeLoader
    except UnicodeDecodeError as error:
        where, problem = _line(text, error.start), "it is not UTF-8 text"
    except yaml.reader.ReaderError as error:
        where, problem = _line(text, error.position), error.reason
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = 1 if mark is None else mark.line + 1
        problem = " ".join(part for part in (error.context, error.problem) if part)
    raise ConfigError(f"{path}, line {where}: not valid YAML: {problem}") from None


def _line(text: bytes, position: int) -> int:
    return text[:position].count(b"\n") + 1


def _require_bounded(text: bytes) -> None:
    """Refuse what is nested too deep, or stands for too much, before anything is made of it."""
    values, opened, weights = 0, [], {}
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, CollectionStartEvent):
            opened.append((event.anchor, values))
            values += 1
            if len(opened) > MAX_DEPTH:
                raise _problem(f"nested more than {MAX_DEPTH} deep", event)
        elif isinstance(event, CollectionEndEvent):
            anchor, before = opened.pop()
            weights[anchor] = values - before
        elif isinstance(event, ScalarEvent):
            values += 1
            weights[event.anchor] = 1
        elif isinstance(event, AliasEvent):
            if any(anchor == event.anchor for anchor, _ in opened):
                raise _problem(f"'*{event.anchor}' is a part of itself", event)
            values += weights.get(event.anchor, 0)
        if values > MAX_VALUES:
            raise _problem(f"more than {MAX_VALUES:,} values", event)


class _StrictLoader(yaml.CSafeLoader):
    """YAML itself keeps the last of two equal keys, and takes the key ``NO`` for false."""

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self._flattened: set[int] = set()

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        kind = _PLAIN.get(node.tag)
        if kind is None or not isinstance(node, kind):
            raise _problem(f"the tag {node.tag} is not read here", node)
        try:
            value = super().construct_object(node, deep=deep)
        except (ValueError, TypeError, KeyError, AttributeError):  # each constructor has its own
            raise _problem(f"{_shown(node)} is no {_NAMES.get(node.tag, 'value')}", node) from None
        if isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
            raise _problem(f"the number {_shown(node)} is too large", node)
        if isinstance(value, str) and CONTROL.search(value):
            raise _problem(f"{_shown(node)} holds a control character", node)
        return value

    def flatten_mapping(self, node: MappingNode) -> None:
        """Look at the keys before a merge (``<<``) adds those that may be given again."""
        if id(node) not in self._flattened:
            self._flattened.add(id(node))
            seen = set()
            for key, _ in node.value:
                if not isinstance(key, ScalarNode) or key.tag not in _KEYS:
                    raise _problem(f"the key {_shown(key)} is not text; put it in quotes", key)
                if key.value in seen:
                    raise _problem(f"the key {_shown(key)} is given twice", key)
                seen.add(key.value)
        super().flatten_mapping(node)


def _problem(problem: str, where: Event | Node) -> ConstructorError:
    mark: Any = where.start_mark  # libyaml's own kind
    return ConstructorError(None, None, problem, mark)


def _shown(node: Node) -> str:
    text = str(node.value) if isinstance(node, ScalarNode) else "[...]"
    return repr(re.sub(r"(?s)^(.{40}).+", r"\1...", text))
