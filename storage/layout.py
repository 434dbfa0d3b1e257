"""Which folder holds what. Names only: nothing here creates, reads or writes.

Cubes and published versions lie in a `storage.stores.Store`, under the keys that are given here; everything else lies
in folders below the root. Every name that becomes a folder is validated, so that no universe, model or kind leads out
of the root, and a symbolic link inside the root that leads outside is refused. What lies inside the folders belongs to
the module that writes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from schemas.base import RESERVED, Name
from schemas.errors import ConfigError
from storage.stores import Store
from storage.stores.local import LocalStore

_NAME: TypeAdapter[str] = TypeAdapter(Name)
CUBES = "cubes"
"""Key of all cubes, as one repository per universe below it."""
VERSIONS = "published"
"""Key of all published versions, as universe/model/version below it."""
ALLOCATIONS = "allocations"
"""Key of all published weights, as universe/name/date below it."""


@dataclass(frozen=True, init=False)
class Layout:
    """The folders and keys of one installation.

    Attributes
    ----------
    root : Path
        Folder of everything that is written; made absolute. It need not exist yet, and may itself be a
        symbolic link.
    store : Store
        Where cubes and published versions lie; in the root if left out.

    Raises
    ------
    ConfigError
        From every method, if a name is not valid or a symbolic link leads outside the root.
    """

    root: Path
    store: Store

    def __init__(self, root: Path, store: Store | None = None) -> None:
        folder = Path(root).expanduser().absolute()
        object.__setattr__(self, "root", folder)
        object.__setattr__(self, "store", LocalStore(folder) if store is None else store)

    def cube(self, universe: str) -> str:
        """Key of the Icechunk repository of a universe."""
        return f"{CUBES}/{_name('universe', universe)}"

    def home(self, universe: str, model: str | None = None) -> str:
        """Key of the published models of a universe, or of the versions of one model and their pointer."""
        parts = [VERSIONS, _name("universe", universe)] + ([] if model is None else [_name("model", model)])
        return "/".join(parts)

    def allocations(self, universe: str, name: str) -> str:
        """Key of the weights that were published under a name, one folder per as-of date."""
        return "/".join([ALLOCATIONS, _name("universe", universe), _name("name", name)])

    def allocated(self, universe: str) -> list[str]:
        """Names under which weights of a universe are published, as `cubes`."""
        return _ours(self.store, "/".join([ALLOCATIONS, _name("universe", universe)]))

    def cubes(self) -> list[str]:
        """Names of the universes that have a cube; what lies beside them and cannot be one is passed over."""
        return _ours(self.store, CUBES)

    def universes(self) -> list[str]:
        """Names of the universes that have published something, as `cubes`."""
        return _ours(self.store, VERSIONS)

    def models(self, universe: str) -> list[str]:
        """Names of the published models of a universe, as `cubes`."""
        return _ours(self.store, self.home(universe))

    def home_folder(self, universe: str, model: str | None = None) -> Path:
        """Folder of `home`, where versions lie on a local disk; `published.locate` knows where they lie anywhere."""
        return self.store.path(self.home(universe, model))

    @property
    def reports(self) -> Path:
        """Folder of the reports of runs."""
        return self._at("reports")

    @property
    def rebuilds(self) -> Path:
        """Folder below which versions are made again to be compared; empty but while that goes on."""
        return self._at("rebuilds")

    def work(self, kind: str) -> Path:
        """Folder of the intermediate results of one kind."""
        return self._at("work", _name("kind", kind))

    def fetch_lock(self, kind: str) -> Path:
        """Lock that a process of this machine holds while it fetches an intermediate result that others made."""
        return self._at("locks", f"fetch.{_name('kind', kind)}")

    def retrain_lock(self, universe: str, model: str) -> Path:
        """Lock that a retrain of a model holds from its first step to its last."""
        return self._at("locks", f"retrain.{_name('universe', universe)}.{_name('model', model)}")

    def partitions(self, universe: str) -> Path:
        """Folder of the records of the partitions of a universe, which outlive the intermediate results."""
        return self._at("partitions", _name("universe", universe))

    def quarantine(self, universe: str) -> Path:
        """Folder of the rows of a universe that a blocking check kept out of its cube."""
        return self._at("quarantine", _name("universe", universe))

    def data_docs(self, universe: str) -> Path:
        """Folder of the Data Docs of a universe."""
        return self._at("data_docs", _name("universe", universe))

    def _at(self, *parts: str) -> Path:
        return LocalStore(self.root).path("/".join(parts))


def is_name(text: str) -> bool:
    """Whether a universe, a model or a kind can have this name: ``lost+found`` is nobody's."""
    try:
        return bool(_NAME.validate_python(text, strict=True))
    except ValidationError:
        return False


def _ours(store: Store, key: str) -> list[str]:
    return [name for name in store.folders(key) if is_name(name)]


def _name(what: str, name: str) -> str:
    try:
        return _NAME.validate_python(name, strict=True)
    except ValidationError:
        rule = (
            "lower-case letters, digits, '-' and '_', first a letter or digit, at most 64 characters, and not "
            f"{', '.join(RESERVED)}"
        )
        raise ConfigError(f"{what} {name!r} is not a valid name: use {rule}") from None
