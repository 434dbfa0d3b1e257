"""Opening the stores that the settings name. Where credentials come from is decided by the caller."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.settings import Settings
from schemas.stores import Folder, S3Access, S3Place, parse_store, parse_work
from storage.stores import Store
from storage.stores.local import LocalStore

if TYPE_CHECKING:
    from storage.shared_work import SharedWork
    from storage.stores.objects import ObjectStore


def open_store(settings: Settings, access: Callable[[], S3Access]) -> Store:
    """Open the store of cubes and published versions.

    Parameters
    ----------
    settings : Settings
        Where it is, and the root for what is staged on the way to it.
    access : callable
        Gives the credentials; called only for an object store.
    """
    if settings.store is None:
        return LocalStore(settings.root)
    place = parse_store(settings.store, settings.allowed_schemes)
    if isinstance(place, Folder):
        return LocalStore(place.path)
    return _objects(place, access(), settings)


def open_work(settings: Settings, access: Callable[[], S3Access]) -> SharedWork | None:
    """Open the object store of intermediate results; None if they lie in the root. Parameters as in `open_store`."""
    if settings.work is None:
        return None
    from storage.shared_work import SharedWork

    return SharedWork(_objects(parse_work(settings.work, settings.allowed_schemes), access(), settings))


def _objects(place: S3Place, access: S3Access, settings: Settings) -> ObjectStore:
    from storage.stores.objects import ObjectStore

    return ObjectStore(place, access, Path(settings.root) / "staging")
