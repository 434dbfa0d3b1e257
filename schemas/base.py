"""The base of every declared thing: frozen, closed to unknown keys, and with errors that a user understands.

Here belongs what all specs, settings and references share. Fields and rules of one spec belong in its own module.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError

from schemas.errors import ConfigError

RESERVED = ("catalog", "latest", "manifest")
"""What addresses and files beside the named folders are called."""


def _not_reserved(name: str) -> str:
    if name in RESERVED:
        raise ValueError(f"this word has a meaning of its own ({', '.join(RESERVED)}); choose another name")
    return name


Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$"), AfterValidator(_not_reserved)]
"""A name that becomes a folder: lower case, no dots, no slashes, so that it cannot leave its folder."""

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Characters that move a terminal's cursor, colour it, or turn the direction of text; not tab and new line."""


def first_of(names: Sequence[str], most: int) -> str:
    """List the first names for a message, and say how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


class Frozen(BaseModel):
    """An immutable model that refuses unknown keys and validates its own defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    def digest(self) -> str:
        """SHA-256 of the canonical JSON form: equal specs have equal digests whatever the order of their keys."""
        return digest(self.model_dump(mode="json"))

    @classmethod
    def alternatives(cls) -> list[type[Frozen]]:
        """Return what may stand where this class is asked for: itself, unless it stands for others."""
        return [cls]

    @classmethod
    def parse(cls, data: Mapping[str, Any], *, origin: str) -> Self:
        """Validate plain data, turning every mistake into one line of one `ConfigError`.

        Parameters
        ----------
        data : Mapping
            What was read from YAML, JSON or the environment.
        origin : str
            Where it was read from; named in the message.

        Raises
        ------
        ConfigError
            If a key is unknown (the nearest known one is named), missing, or has a bad value.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise ConfigError(f"{origin}: " + "; ".join(_described(cls, error))) from None


class Argued(Frozen):
    """A declared thing that people also make by hand, in Python: a bad argument is a `ConfigError`, in a line."""

    def __init__(self, **arguments: Any) -> None:
        try:
            super().__init__(**arguments)
        except ValidationError as error:
            mistakes = "; ".join(one.removeprefix("'the document': ") for one in _described(type(self), error))
            raise ConfigError(f"{type(self).__name__}: {mistakes}") from None


def digest(value: Any) -> str:
    """SHA-256 (hex) of a JSON-serialisable value in canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def printable(text: str) -> str:
    """Return text that shows its control characters, where a terminal would obey them."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def require_line(text: str, what: str) -> str:
    """Return a text that people write and others read, if it is one line of plain characters.

    Raises
    ------
    ConfigError
        If it holds a new line or a control character.
    """
    if CONTROL.search(text) or "\n" in text:
        raise ConfigError(f"{what} {text!r} holds a control character or a new line; write one line of plain text")
    return text


def nearest(word: str, known: list[str]) -> str:
    """Return a hint for a misspelt word: the nearest known one, or all of them."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(sorted(known))}"


def _described(model: type[BaseModel], error: ValidationError) -> Iterator[str]:
    """Describe each mistake once: a list is not called too short because an item of it is wrong."""
    items = error.errors(include_url=False)
    for item in items:
        place = item["loc"]
        inside = any(other["loc"][: len(place)] == place for other in items if other is not item)
        if item["type"] != "too_short" or not inside:
            yield _describe(model, item)


_SHOWN = 80
_PLAINER = {
    "model_type": "expected keys and values",
    "model_attributes_type": "expected keys and values",
    "dict_type": "expected keys and values",
    "tuple_type": "expected a list",
    "string_type": "expected text; put it in quotes",
    "too_short": "give at least one",
}


def _describe(model: type[BaseModel], item: Any) -> str:
    path, models = _place(model, item["loc"])
    where = ".".join(path) or "the document"
    if item["type"] == "extra_forbidden":
        return f"unknown key '{where}' ({nearest(path[-1], _keys(models))})"
    if item["type"] == "missing":
        return f"key '{where}' is missing"
    if item["type"].startswith("union_tag"):
        key, tags = item["ctx"]["discriminator"].strip("'"), sorted({tag for one in models for tag in _tags(one)})
        if item["type"] == "union_tag_not_found":
            return f"key '{where}.{key}' is missing (one of: {', '.join(tags)})"
        return f"'{where}.{key}': unknown {key} '{item['ctx']['tag']}' ({nearest(item['ctx']['tag'], tags)})"
    message = _PLAINER.get(item["type"], item["msg"].removeprefix("Value error, "))
    given = item.get("input")
    shown = f" (given: {_short(repr(given))})" if isinstance(given, str | int | float | bool) else ""
    return f"'{where}': {message}{shown}"


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _place(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[list[str], list[type[BaseModel]]]:
    """Return where an error lies in the keys that a user writes, and the models that could stand there.

    Pydantic's own path also names the chosen member of a tagged union (``data.wide_prices.origin``); it is left out.
    """
    path: list[str] = []
    models = [model]
    for part in loc:
        if len(models) > 1 and any(part in _tags(one) for one in models):
            models = [one for one in models if part in _tags(one)]
            continue
        fields = [one.model_fields[part] for one in models if isinstance(part, str) and part in one.model_fields]
        models = [found for field in fields for found in _models_in(field)] if fields else models
        path.append(str(part))
    return path, models


def _keys(models: list[type[BaseModel]]) -> list[str]:
    return sorted({key for one in models for key in one.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    inner = getattr(annotation, "annotation", annotation)
    if isinstance(inner, type) and issubclass(inner, BaseModel):
        return [*inner.alternatives()] if issubclass(inner, Frozen) else [inner]
    return [found for part in get_args(inner) for found in _models_in(part)]


def _tags(model: type[BaseModel]) -> tuple[str, ...]:
    """Return what a spec writes under ``kind`` or ``shape`` to choose this model."""
    fields = [model.model_fields[key] for key in ("kind", "shape") if key in model.model_fields]
    return tuple(str(tag) for field in fields for tag in get_args(field.annotation))
