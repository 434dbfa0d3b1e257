"""Which folder holds what. Paths only: nothing here creates, reads or writes.

Every name that becomes a folder is validated, so that no universe, model or kind leads out of the root, and a
symbolic link inside the root that leads outside is refused. What lies inside the folders belongs to the
module that writes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from schemas.base import Name
from schemas.errors import ConfigError

_NAME: TypeAdapter[str] = TypeAdapter(Name)


@dataclass(frozen=True)
class Layout:
    """The folders of one installation.

    Attributes
    ----------
    root : Path
        Folder of everything that is written; made absolute. It need not exist yet, and may itself be a
        symbolic link.

    Raises
    ------
    ConfigError
        From every method, if a name is not valid or a symbolic link leads outside the root.
    """

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root).expanduser().absolute())

    @property
    def cubes(self) -> Path:
        """Folder of all cubes and their locks."""
        return self._at("cubes")

    @property
    def versions(self) -> Path:
        """Folder of all published versions, as universe/model/version."""
        return self._at("published")

    @property
    def reports(self) -> Path:
        """Folder of the reports of runs."""
        return self._at("reports")

    def cube(self, universe: str) -> Path:
        """Icechunk repository of a universe."""
        return self._at("cubes", _name("universe", universe))

    def published(self, universe: str, model: str | None = None) -> Path:
        """Folder of the published models of a universe, or of the versions of one model."""
        parts = [_name("universe", universe)] + ([] if model is None else [_name("model", model)])
        return self._at("published", *parts)

    def work(self, kind: str) -> Path:
        """Folder of the intermediate results of one kind."""
        return self._at("work", _name("kind", kind))

    def quarantine(self, universe: str) -> Path:
        """Folder of the rows of a universe that a blocking check kept out of its cube."""
        return self._at("quarantine", _name("universe", universe))

    def data_docs(self, universe: str) -> Path:
        """Folder of the Data Docs of a universe."""
        return self._at("data_docs", _name("universe", universe))

    def _at(self, *parts: str) -> Path:
        path = self.root.joinpath(*parts)
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise ConfigError(f"{path}: a symbolic link leads outside the root {self.root}; remove the link")
        return path


def _name(what: str, name: str) -> str:
    try:
        return _NAME.validate_python(name, strict=True)
    except ValidationError:
        rule = "lower-case letters, digits, '-' and '_', first a letter or digit, at most 64 characters"
        raise ConfigError(f"{what} {name!r} is not a valid name: use {rule}") from None
