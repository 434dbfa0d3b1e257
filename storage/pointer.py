"""The pointer of a model: which version is the champion, which ones were before, which are pinned.

Here belongs the one document that decides what `latest` is, and its swap. What may be promoted is decided in `tasks`;
that a damaged version is neither promoted nor pinned is seen to here, whoever asks for it.

`latest.json` lies beside the versions of a model. Every change reads it, makes the next state, and swaps it only if it
still is what was read: under a lock on a local disk, by conditional put on an object store. Each swap leaves its
identifier in the document, so that a writer whose put succeeded while the answer got lost finds its own and knows that
it won. On a local disk the link `latest` follows the document under the same lock; a process killed between the two
leaves the link behind, and whoever reads or writes next mends it. A link without a document says nothing.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Literal

from pydantic import AwareDatetime, Field, ValidationError

from schemas.base import Frozen
from schemas.contracts import Promotion
from schemas.errors import ConflictError, CorruptionError, ExecutionError
from schemas.refs import VersionRef
from storage.checksums import verify
from storage.files import user
from storage.layout import Layout
from storage.stores import Store

LATEST = "latest"
_ATTEMPTS = 10
_PAUSE_SECONDS = 0.05
_REMEMBERED = 32
"""Swaps whose identifiers are kept: a writer recognises its own unless so many others came after it."""


class Pointer(Frozen):
    """The content of `latest.json`; the last promotion names the champion."""

    format_version: Literal[1] = 1
    promotions: tuple[Promotion, ...] = ()
    pins: dict[str, str] = Field(default_factory=dict, description="Versions that are kept, with the reason.")
    removing: dict[str, AwareDatetime] = Field(
        default_factory=dict, description="Versions that are being removed, and since when; never promoted."
    )
    swaps: tuple[str, ...] = Field(default=(), description="Identifiers of the last changes of this document.")

    @property
    def champion(self) -> str | None:
        """The version that `latest` names."""
        return self.promotions[-1].version if self.promotions else None

    def promoted(self, version: str, reason: str) -> Pointer:
        """Return the state after a promotion; times never run backwards, whatever the clocks of writers say."""
        now = max([datetime.now(UTC), *(entry.promoted_at for entry in self.promotions[-1:])])
        entry = Promotion(version=version, previous=self.champion, promoted_at=now, by=user(), reason=reason)
        return self.model_copy(update={"promotions": (*self.promotions, entry)})


def read(layout: Layout, universe: str, model: str) -> Pointer:
    """Return the pointer of a model, and mend a link that is behind it.

    Raises
    ------
    CorruptionError
        If the document is damaged.
    """
    home = layout.home(universe, model)
    pointer, _ = _load(layout.store, home)
    if _behind(layout.store, home, pointer):
        cannot = (OSError, ConflictError, ExecutionError)  # a reader may not be allowed to write
        with suppress(*cannot), layout.store.exclusive(f"{home}/.lock"):
            _follow(layout.store, home, _load(layout.store, home)[0])
    return pointer


def change(layout: Layout, universe: str, model: str, step: Callable[[Pointer], Pointer]) -> Pointer:
    """Change the pointer of a model by compare-and-swap.

    Parameters
    ----------
    layout : Layout
        Where.
    universe, model : str
        Whose.
    step : callable
        Makes the next state from the present one, or raises. It is called again if another writer was faster. What it
        returns unchanged is not written. Every byte of a version that it names anew is checked first; of one that
        continues the champion and takes its place, every byte that is not the champion's as well.

    Returns
    -------
    Pointer
        The state that this writer saw last.

    Raises
    ------
    CorruptionError
        If a version that the next state names anew is damaged; nothing was changed.
    ConflictError
        If other writers were faster time and again.
    """
    store, home, mine = layout.store, layout.home(universe, model), uuid.uuid4().hex
    sound: set[str] = set()
    failure: OSError | None = None
    for attempt in range(_ATTEMPTS):
        time.sleep(random.uniform(0, min(1.0, _PAUSE_SECONDS * 2**attempt)) if attempt else 0)  # noqa: S311
        with store.exclusive(f"{home}/.lock"):
            before, tag = _load(store, home)
            if mine in before.swaps:
                return before
            after = step(before)
            for version in sorted(_named_anew(before, after) - sound):
                champion = before.champion if version == after.champion else None
                verify(layout, VersionRef(universe=universe, model=model, version=version), champion=champion)
                sound.add(version)
            if after != before:
                after = after.model_copy(update={"swaps": (*before.swaps, mine)[-_REMEMBERED:]})
                try:
                    swapped = store.swap(_key(home), after.model_dump_json(indent=2).encode() + b"\n", tag)
                except OSError as error:
                    swapped, failure = False, error
                    if not store.conditional:
                        raise
            if after == before or swapped:
                _follow(store, home, after)
                return after
    last, _ = _load(store, home)
    if mine in last.swaps:
        return last
    if failure is not None:
        raise failure
    raise ConflictError(
        f"{store.locate(_key(home))}: other writers were faster {_ATTEMPTS} times; nothing was changed, run again"
    )


def _key(home: str) -> str:
    return f"{home}/{LATEST}.json"


def _named_anew(before: Pointer, after: Pointer) -> set[str]:
    """Return the versions that somebody comes to rely on: a new champion, and new pins."""
    champion = {after.champion} if after.champion is not None and after.champion != before.champion else set()
    return champion | set(after.pins) - set(before.pins)


def _load(store: Store, home: str) -> tuple[Pointer, str | None]:
    document = store.load(_key(home))
    if document.content is None:
        return Pointer(), None
    try:
        return Pointer.model_validate_json(document.content), document.tag
    except ValidationError:
        raise CorruptionError(
            f"{store.locate(_key(home))}: cannot be read as a pointer; restore it from a copy, or remove it and "
            "promote a version again"
        ) from None


def _behind(store: Store, home: str, pointer: Pointer) -> bool:
    champion = pointer.champion
    return not store.conditional and champion is not None and store.pointed(f"{home}/{LATEST}") != champion


def _follow(store: Store, home: str, pointer: Pointer) -> None:
    if _behind(store, home, pointer) and pointer.champion is not None:
        store.point(f"{home}/{LATEST}", pointer.champion)
