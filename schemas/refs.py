"""The small references that flows pass from step to step, instead of arrays.

A reference names something that is stored for ever under that name; it can be resolved by any process that has the same
settings. What is referred to belongs in `storage`.
"""

from __future__ import annotations

from datetime import date

from pydantic import Field

from schemas.base import Frozen, Name

Key = str
"""Content address of an intermediate result: the hash of everything it was made from."""


class SnapshotRef(Frozen):
    """An immutable committed state of a cube."""

    universe: Name
    snapshot_id: str
    ingest_key: Key = Field(description="Hash of the source bytes, the ingest part of the spec and the code.")
    changed: bool = Field(default=True, description="Whether this run committed it; False if it was there already.")
    checks_key: Key = Field(description="Where the check report of the ingest is kept.")


class StagedRef(Frozen):
    """Raw data read from the sources and staged for checking; not yet in a cube."""

    universe: Name
    key: Key


class PanelRef(Frozen):
    """A panel built from a snapshot."""

    universe: Name
    key: Key
    snapshot: SnapshotRef
    periods: int
    tickers: int
    characteristics: int


class FitRef(Frozen):
    """One model fitted as of one date, with its projections up to the next refit."""

    model: Name
    as_of: date
    until: date = Field(description="Last date that this fit serves.")
    key: Key


class RiskRef(Frozen):
    """The assembled risk model of one model over all dates: loadings, factors, Omega, specific and portfolio risk."""

    model: Name
    key: Key
    fits: tuple[FitRef, ...]


class VersionRef(Frozen):
    """One immutable published version."""

    universe: Name
    model: Name
    version: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}-[0-9a-f]{8}$")
    promoted: bool = False
    changed: bool = Field(default=True, description="Whether this run published it; False if it was there already.")
