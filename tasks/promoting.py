"""Moving `latest` by hand: promotion, and the way back.

Here belong the rules that a person's decision is held to: a version that the gate refused is promoted only against its
word, and a rollback goes back. The swap itself, which no damaged version survives, is `storage.published`; what runs
decide by themselves is in `offering`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from schemas.contracts import Promotion
from schemas.errors import PublishError
from schemas.refs import VersionRef
from storage import published
from storage.layout import Layout
from storage.pointer import LATEST

_SHOWN = 5


def find_version(layout: Layout, text: str) -> VersionRef:
    """Find the version that a user names as universe/model/version or universe/model/latest.

    Raises
    ------
    PublishError
        If the text has another form, or there is no such version.
    """
    parts = text.strip("/").split("/")
    if len(parts) != 3 or not all(parts):
        raise PublishError(
            f"'{text}' does not name a version: write UNIVERSE/MODEL/VERSION, such as us_large/ipca/latest or "
            "us_large/ipca/2024-06-28-3f2a91bc; `factorcube show` lists them"
        )
    universe, model, version = parts
    ref = published.latest(layout, universe, model) if version == LATEST else None
    ref = ref or published.find(layout, universe, model, version)
    if ref is None:
        there = [one.version for one in find_model(layout, f"{universe}/{model}")]
        raise PublishError(
            f"{universe}/{model} has no champion yet; promote one of: {_few(there)}"
            if version == LATEST
            else f"{universe}/{model} has no version '{version}'; it has {_few(there)}"
        )
    return ref


def find_model(layout: Layout, text: str) -> list[VersionRef]:
    """Return the versions of a model that a user names as universe/model, or of all models of a universe, oldest first.

    Raises
    ------
    PublishError
        If the text has another form, or nothing is published under this name.
    """
    universe = text.strip("/")
    named = (universe,) if universe and "/" not in universe else _model_named(text)
    refs = published.list_versions(layout, *named)
    if not refs:
        models = sorted({ref.qualified_model for ref in published.list_versions(layout)})
        raise PublishError(f"nothing is published as {text}; there is {_few(models)}")
    return refs


def newest(layout: Layout, text: str) -> list[VersionRef]:
    """Return the version that was made last, of each model that a user names as universe/model or by its universe.

    Raises
    ------
    PublishError
        If nothing is published under this name.
    CorruptionError
        If the manifest of one of them is damaged.
    """
    last: dict[str, tuple[datetime, VersionRef]] = {}
    for ref in find_model(layout, text):
        made = published.read_manifest(layout, ref).created_at
        last[ref.model] = max(last.get(ref.model, (made, ref)), (made, ref), key=lambda one: one[0])
    return [ref for _, ref in last.values()]


def promote_version(layout: Layout, text: str, *, reason: str | None, force: bool) -> tuple[VersionRef, str | None]:
    """Promote a version because a person says so; return it and the champion until now.

    Parameters
    ----------
    layout : Layout
        Where.
    text : str
        universe/model/version.
    reason : str or None
        Why, for the history; needed to promote against the gate.
    force : bool
        Promote although the gate refused it.

    Raises
    ------
    PublishError
        If there is no such version, or the gate refused it and force or reason is missing.
    CorruptionError
        If a byte of it is damaged.
    ConflictError
        If another champion was promoted meanwhile.
    """
    ref = find_version(layout, text)
    line = lineage(published.promotions(layout, ref.universe, ref.model))
    gate = published.read_manifest(layout, ref).gate
    why = (reason or "").strip()
    if not gate.passed and not (force and why):
        raise PublishError(
            f"{ref} did not pass the gate ({'; '.join(gate.reasons)}); to promote it all the same give "
            "--force and a --reason"
        )
    before = line[-1] if line else None
    why = (why or "promoted by hand") if gate.passed else f"against the gate: {why}"
    promoted = published.promote(layout, ref.universe, ref.model, ref.version, reason=why, expected=before)
    return promoted, before


def roll_back(layout: Layout, text: str, *, reason: str | None) -> tuple[VersionRef, str]:
    """Make the champion before the present one `latest` again; return it and the champion until now.

    Raises
    ------
    PublishError
        If there is none, or it was removed since.
    CorruptionError
        If a byte of it is damaged.
    ConflictError
        If another champion was promoted meanwhile.
    """
    universe, model = _model_named(text)
    line = lineage(published.promotions(layout, universe, model))
    if len(line) < 2:
        now = f"{line[-1]} is the first champion" if line else "there is no champion yet"
        find_model(layout, text)
        raise PublishError(f"{text} cannot be rolled back: {now}; `factorcube promote` takes any version")
    *earlier, target, present = line
    ref = published.find(layout, universe, model, target)
    if ref is None:
        left = [version for version in earlier if published.find(layout, universe, model, version)]
        raise PublishError(
            f"{text} cannot be rolled back: {target}, the champion before {present}, was removed; promote another "
            f"version, champions before it: {_few(left)}"
        )
    why = f"rolled back from {present}" + (f": {reason}" if reason else "")
    return published.promote(layout, universe, model, target, reason=why, expected=present), present


def lineage(history: Sequence[Promotion]) -> list[str]:
    """Return the champions that led to the present one, which is last.

    Promoting a version that is in the line already goes back to it, and what came after it is out of the line: two
    rollbacks go two steps back, never forth.
    """
    line: list[str] = []
    for entry in history:
        if entry.version in line:
            del line[line.index(entry.version) + 1 :]
        else:
            line.append(entry.version)
    return line


def _model_named(text: str) -> tuple[str, str]:
    parts = text.strip("/").split("/")
    if len(parts) != 2 or not all(parts):
        raise PublishError(f"'{text}' does not name a model: write UNIVERSE/MODEL, such as us_large/ipca")
    return parts[0], parts[1]


def _few(names: Sequence[str]) -> str:
    """List the last names; how many more there are is said."""
    if not names:
        return "nothing yet"
    more = f" and {len(names) - _SHOWN} earlier" if len(names) > _SHOWN else ""
    return ", ".join(names[-_SHOWN:]) + more
