"""What a step needs to find its inputs and to keep its results, made from the settings alone.

Here belongs the opening of stores. In the process of the flow, `Workspace.of` opens all of them. What travels to Dask
workers is the path of the root, or, where machines share no disk, the URL of the object store of intermediate results:
a worker opens it by its own settings and credentials, and keeps copies in its own root.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import ConfigError, ExecutionError
from schemas.settings import Settings, load_settings
from schemas.stores import S3Access
from storage.files import user
from storage.layout import Layout
from storage.stores import Store
from storage.stores.opening import open_store, open_work
from storage.work import WorkStore

if TYPE_CHECKING:
    from storage.shared_work import SharedWork


@dataclass(frozen=True)
class Workspace:
    """The stores of one installation.

    Attributes
    ----------
    root : Path
        Folder of everything but, maybe, cubes and published versions.
    store : Store or None
        Where those lie, if not in the root. One that holds credentials refuses to be pickled, and so does this.
    shared : SharedWork or None
        Where intermediate results lie that machines share.
    away : str or None
        URL of `shared`, in another process that this was sent to. `work` opens it by the settings there, with the root
        there, and raises `ConfigError` if they name another one; what only passes this on needs no settings.
    """

    root: Path
    store: Store | None = field(default=None, repr=False, compare=False)
    shared: SharedWork | None = field(default=None, repr=False, compare=False)
    away: str | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, settings: Settings) -> Workspace:
        """Open the stores that the settings name.

        Raises
        ------
        ConfigError
            If the root is no folder that can be read, or the credentials of the store are not what it needs.
        ExecutionError
            If Prefect's server does not give them.
        """
        _require_folder(settings.root)
        access = cache(lambda: _access(settings))
        store = None if settings.store is None else open_store(settings, access)
        return cls(settings.root, store, open_work(settings, access))

    @classmethod
    def of_workers(cls, settings: Settings) -> Workspace:
        """Open intermediate results alone, which is what Dask workers look at: it may travel. Raises as `of` does."""
        return cls(settings.root, shared=open_work(settings, lambda: _access(settings)))

    @cached_property
    def layout(self) -> Layout:
        """Where everything lies."""
        return Layout(self.root, self.store)

    @cached_property
    def work(self) -> WorkStore:
        """The store of intermediate results."""
        return WorkStore(self.layout, self.shared) if self.away is None else _on_worker(self.away).work

    def __reduce__(self) -> tuple[Any, ...]:
        away = self.away if self.shared is None else self.shared.locate("")
        return Workspace, (self.root, self.store, None, away)


def reach_work(url: str) -> None:
    """Find the intermediate results that a run keeps at a URL, from a process of another machine.

    Raises
    ------
    ConfigError
        If the settings of this process name another place, or none.
    StoreError
        If it does not answer, or refuses the credentials of this process.
    """
    shared = _on_worker(url).shared
    if shared is not None:
        shared.check()


@cache
def _on_worker(url: str) -> Workspace:
    space = Workspace.of_workers(load_settings())
    found = None if space.shared is None else space.shared.locate("")
    if found != url:
        raise ConfigError(
            f"FACTORCUBE_WORK is {found or 'not set'} there and {url} in the run; set it alike on every Dask worker, "
            "with AWS_... variables that may use it"
        )
    return space


def _require_folder(root: Path) -> None:
    try:
        is_folder = stat.S_ISDIR(root.stat().st_mode)
    except FileNotFoundError:  # the first run makes it
        return
    except OSError as error:
        raise ConfigError(f"FACTORCUBE_ROOT: {root} cannot be reached: {error.strerror}") from None
    if not is_folder:
        raise ConfigError(f"FACTORCUBE_ROOT: {root} is not a folder; name one, or remove what is there")
    if not os.access(root, os.R_OK | os.X_OK):
        raise ConfigError(f"FACTORCUBE_ROOT: {root} cannot be read by {user()}; see its owner and permissions")


def _access(settings: Settings) -> S3Access:
    """Return who may use the object store: from the block that the settings name, else from the environment."""
    name = settings.store_block
    if name is None:
        return S3Access.of(os.environ, "environment", strict=False)
    from prefect.blocks.system import Secret

    try:
        block: Any = Secret.load(name)
        value = block.get()
    except ValueError:
        raise ConfigError(f"there is no Secret block '{name}'; create it, or unset FACTORCUBE_STORE_BLOCK") from None
    except Exception as error:  # noqa: BLE001  # whatever Prefect's client raises, it may repeat what it was told
        raise ExecutionError(
            f"block '{name}' could not be loaded ({type(error).__name__}); is the server up?"
        ) from None
    if not isinstance(value, dict):
        raise ConfigError(f"block '{name}' is not a mapping of AWS_... variables")
    return S3Access.of(value, f"block '{name}'", strict=True)
