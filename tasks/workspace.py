"""What a step needs to find its inputs and to keep its results, made from the settings alone.

Here belongs the opening of stores. In the process of the flow, `Workspace.of` opens all of them. What travels to Dask
workers is the path of the root: ``Workspace(root)`` reaches intermediate results there, and no object store.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from schemas.errors import ConfigError, ExecutionError
from schemas.settings import Settings
from schemas.stores import S3Access
from storage.files import user
from storage.layout import Layout
from storage.stores import Store
from storage.stores.opening import open_store
from storage.work import WorkStore


@dataclass(frozen=True)
class Workspace:
    """The stores of one installation.

    Attributes
    ----------
    root : Path
        Folder of everything but, maybe, cubes and published versions.
    store : Store or None
        Where those lie, if not in the root. One that holds credentials refuses to be pickled, and so does this.
    """

    root: Path
    store: Store | None = field(default=None, repr=False, compare=False)

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
        return cls(settings.root, None if settings.store is None else open_store(settings, lambda: _access(settings)))

    @cached_property
    def layout(self) -> Layout:
        """Where everything lies."""
        return Layout(self.root, self.store)

    @cached_property
    def work(self) -> WorkStore:
        """The store of intermediate results."""
        return WorkStore(self.layout)


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
