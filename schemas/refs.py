"""The small references that flows pass from step to step, instead of arrays.

A reference names something that is stored for ever under that name; it can be resolved by any process that has the same
settings. What is referred to belongs in `storage`.
"""

from __future__ import annotations

from datetime import date

from pydantic import Field

from schemas.base import Frozen, Name, digest

Key = str
"""Content address of an intermediate result: the hash of everything it was made from."""


class SnapshotRef(Frozen):
    """An immutable committed state of a cube."""

    universe: Name
    snapshot_id: str
    ingest_key: Key = Field(description="Hash of the source bytes, the ingest part of the spec and the code.")
    changed: bool = Field(default=True, description="Whether this run committed it; False if it was there already.")
    checks_key: Key = Field(description="Where the check report of the ingest is kept.")


class RawRef(Frozen):
    """Raw data as they were read from the sources, kept for checking; not yet in a cube."""

    universe: Name
    key: Key = Field(description="Names the ingest: source, the ingest part of the spec, and the code.")
    source: Key = Field(description="Where what was read is kept.")
    start: date | None = Field(default=None, description="First date to commit; all from the first on if left out.")
    end: date | None = None

    @property
    def span(self) -> tuple[date | None, date | None] | None:
        """The dates to commit; None for all of them."""
        return None if self.start is None and self.end is None else (self.start, self.end)

    @property
    def ingest_key(self) -> Key:
        """Names what an ingest commits: these data, over this span."""
        return self.key if self.span is None else digest([self.key, f"{self.start}", f"{self.end}"])[:32]


class PanelRef(Frozen):
    """What was known of a snapshot as of a date, in a panel that may hold more."""

    universe: Name
    key: Key
    inputs: Key = Field(description="Where the digests of the data behind it are kept.")
    snapshot: SnapshotRef
    as_of: date
    next_date: date = Field(description="The session after it: the label of the row with what is known at its close.")


class FitRef(Frozen):
    """One model fitted as of one date, and what its factors returned up to the next refit."""

    model: Name
    as_of: date
    until: date = Field(description="Last date that this fit serves.")
    key: Key
    realised: Key = Field(description="Where the returns of its latent factors up to that date are kept.")
    changed: bool = Field(default=True, description="Whether it was made now; False if it was there already.")
    n_dropped: int = Field(default=0, description="Dates that could not be estimated on, of a fit that was made now.")


class RiskRef(Frozen):
    """The assembled risk model of one model over all dates: loadings, factors, Omega, specific and portfolio risk."""

    model: Name
    key: Key
    fits: tuple[FitRef, ...]


class AllocationRef(Frozen):
    """Weights that were published under a name, as of one date."""

    universe: Name
    name: Name
    as_of: date
    changed: bool = Field(
        default=True, description="Whether this run published them; False if they were there already."
    )

    def __str__(self) -> str:
        """Name the weights as users do: ``universe/name/date``."""
        return f"{self.universe}/{self.name}/{self.as_of}"


class VersionRef(Frozen):
    """One immutable published version."""

    universe: Name
    model: Name
    version: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}-[0-9a-f]{8}$")
    promoted: bool = False
    changed: bool = Field(default=True, description="Whether this run published it; False if it was there already.")

    @property
    def qualified_model(self) -> str:
        """The model that it is a version of, as users name it: ``universe/model``."""
        return f"{self.universe}/{self.model}"

    @property
    def as_of(self) -> date:
        """The last date that it knows, which its name begins with."""
        return date.fromisoformat(self.version[:10])

    def __str__(self) -> str:
        """Name the version as users do: ``universe/model/version``."""
        return f"{self.qualified_model}/{self.version}"
