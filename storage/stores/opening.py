"""Opening the store that the settings name. Where credentials come from is decided by the caller."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from schemas.settings import Settings
from schemas.stores import Folder, S3Access, parse_store
from storage.stores import Store
from storage.stores.local import LocalStore


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
    from storage.stores.objects import ObjectStore

    return ObjectStore(place, access(), Path(settings.root) / "staging")
