"""The base of every declared thing: frozen, closed to unknown keys, and with errors that a user understands.

Here belongs what all specs, settings and references share. Fields and rules of one spec belong in its own module.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Self, get_args

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from schemas.errors import ConfigError

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
"""A name that becomes a folder: lower case, no dots, no slashes, so that it cannot leave its folder."""


class Frozen(BaseModel):
    """An immutable model that refuses unknown keys and validates its own defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    def digest(self) -> str:
        """SHA-256 of the canonical JSON form: equal specs have equal digests whatever the order of their keys."""
        return digest(self.model_dump(mode="json"))

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
            lines = [_describe(cls, item) for item in error.errors(include_url=False, include_context=False)]
            raise ConfigError(f"{origin}: " + "; ".join(lines)) from None


def digest(value: Any) -> str:
    """SHA-256 (hex) of a JSON-serialisable value in canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def nearest(word: str, known: list[str]) -> str:
    """Return a hint for a misspelt word: the nearest known one, or all of them."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(sorted(known))}"


def _describe(model: type[BaseModel], item: Any) -> str:
    path = [part for part in item["loc"] if part is not None]
    where = ".".join(str(part) for part in path) or "the document"
    if item["type"] == "extra_forbidden":
        return f"unknown key '{where}' ({nearest(str(path[-1]), _known_keys(model, path[:-1]))})"
    if item["type"] == "missing":
        return f"key '{where}' is missing"
    message = item["msg"].removeprefix("Value error, ")
    given = item.get("input")
    shown = f" (given: {given!r})" if isinstance(given, str | int | float | bool) else ""
    return f"'{where}': {message}{shown}"


def _known_keys(model: type[BaseModel], path: list[Any]) -> list[str]:
    """Return the keys allowed at a path of a validation error, following lists and tagged unions."""
    candidates: list[type[BaseModel]] = [model]
    for part in path:
        if not isinstance(part, str):
            continue
        nested = [found for one in candidates if part in one.model_fields for found in _models_in(one.model_fields[part])]
        if nested:
            candidates = nested
        else:
            candidates = [one for one in candidates if part in _tags(one)] or candidates
    return sorted({key for one in candidates for key in one.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    inner = getattr(annotation, "annotation", annotation)
    if isinstance(inner, type) and issubclass(inner, BaseModel):
        return [inner]
    return [found for part in get_args(inner) for found in _models_in(part)]


def _tags(model: type[BaseModel]) -> tuple[str, ...]:
    kind = model.model_fields.get("kind")
    return tuple(str(tag) for tag in get_args(kind.annotation)) if kind else ()
