"""The stages of a run, and the modules whose lines can change what each of them makes.

Here belongs the one table of what a key's code is made of; how modules are followed is in `storage.codehash`. Every
call of `tasks.provenance.key` names its stage: ``key(Stage.PANELS.code(), ...)``, and where a model family has a say
also the family: ``key(Stage.FITS.code(family_code(kind)), ...)``.

A new step is a row here. Its `roots` are the modules that do it; all that they import is followed, so that what is
forgotten here makes too much anew and never too little. What is left out is named, with the reason:

- `_BESIDE`, in every stage: what says, draws, schedules or finds, and passes numbers on as they are. Fields of a
  config count by their values, which stand in the key. The registry hands out the class of a family, which the
  caller names.
- `without`, in one stage: what its modules import for other steps than this one, and what another part of the key
  already names by the code that made it. A family that is named is followed without these cuts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path

from models.families.registry import family
from storage.codehash import hash_of, modules_of
from storage.source_modules import HOME

_BESIDE = (
    "reporting",
    "schemas.errors",
    "models.families.registry",
    "schemas.families",
    "schemas.settings",
    "tasks.artifacts",
    "tasks.assets",
    "tasks.checking.datadocs",
    "storage.codehash",
    "storage.source_modules",
    "tasks.events",
    "tasks.logs",
    "tasks.provenance",
    "tasks.runs",
    "tasks.scheduler",
    "tasks.stages",
    "tasks.steps",
    "tasks.workspace",
)
_KEPT = "storage.work"
"""How every intermediate result is written and read back."""
_INGESTED = ("tasks.committing", "tasks.delivering", "tasks.describing")
"""What becomes of a delivery after it was read."""
_POINTER = ("storage.pointer", "storage.published", "tasks.promoting")
"""What finds versions and moves `latest`; the files of a version are written by `storage.version_files`."""
_SHOWN = "storage.allocations"
"""What the report shows beside a version."""


@dataclass(frozen=True)
class _Steps:
    roots: tuple[str, ...]
    without: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    """Names of the stages whose results are not part of the key, so that their code is."""


def family_code(kind: str) -> str:
    """Name the class of a model family, as `Stage.code` asks for it."""
    found = family(kind)
    return f"{found.__module__}:{found.__name__}"


class Stage(Enum):
    """What a run makes, in the order of making."""

    READING = _Steps(
        ("tasks.ingesting", "storage.sources", _KEPT),
        without=(
            "models",
            "storage.cube",
            "tasks.checking",
            "tasks.committing",
            "tasks.delivering",
            "tasks.describing",
            "tasks.following",
        ),
    )
    """What was read of the sources."""
    INGEST = _Steps(("tasks.ingesting", "tasks.checking", _KEPT), behind=("READING",))
    """Checks, quarantine, and what is derived and committed."""
    DIGESTS = _Steps(("tasks.digests", _KEPT))
    """Hashes of the rows of a cube."""
    PANELS = _Steps(("tasks.panels", _KEPT))
    GRAMS = _Steps(("tasks.grams", _KEPT), behind=("PANELS",))
    """Statistics of a panel, which are named by its data and not by its key."""
    FITS = _Steps(
        ("tasks.fitting", _KEPT),
        without=("models.forecasting.joining", "tasks.naming"),
        behind=("GRAMS",),
    )
    """Fits and their pieces, of a family; their dates stand in the key, and so do other fits that they need."""
    STATES = _Steps(("tasks.checkpoints", _KEPT), behind=("PANELS",))
    """States of risk behind the rows of a family; the fit's own state stands in the key."""
    ROWS = _Steps(
        ("tasks.assembling", "models.forecasting.joining", _KEPT),
        without=("models.evaluation", "models.forecasting.metrics", "tasks.fitting", "tasks.naming"),
    )
    """What factors returned, rows and risk models; their fits stand in the key, and so do those fits' panels."""
    EVALUATION = _Steps(
        ("tasks.assembling", _KEPT),
        without=(
            "models.forecasting.following",
            "models.forecasting.forecast",
            "models.forecasting.joining",
            "models.risk",
            "tasks.checkpoints",
            "tasks.fitting",
            "tasks.naming",
        ),
    )
    """Series and metrics of a risk model, which stands in the key."""
    VERSIONS = _Steps(
        ("tasks.naming", "tasks.publishing", "storage.version_files"),
        without=(*_POINTER, _SHOWN, "tasks.committing", "tasks.fitting", "tasks.ingesting"),
        behind=("FITS", "ROWS", "EVALUATION"),
    )
    """Versions of a family, which are named before anything behind them is made."""
    UPDATES = _Steps(
        ("tasks.naming", "tasks.updating", "storage.version_files"),
        without=(*_POINTER, _SHOWN, "tasks.committing", "tasks.fitting", "tasks.ingesting"),
        behind=("STATES",),
    )
    """Versions that continue another one of a family, which stands in the key."""

    ALLOCATIONS = _Steps(("tasks.allocating", "storage.allocations"), without=(*_POINTER, "tasks.holdings"))
    """Weights made from a version, which the manifest of the weights names."""

    @property
    def named(self) -> tuple[str, ...]:
        """All modules that the table names for a stage, to be followed or left out."""
        steps: _Steps = self.value
        return (*steps.roots, *_BESIDE, *steps.without)

    def code(self, *families: str, home: Path = HOME) -> str:
        """Hash the code of a stage, and of the families that have a say in it (`family_code`)."""
        return _code(self, families, home)

    def modules(self, *families: str, home: Path = HOME) -> frozenset[str]:
        """Return the names of the modules that count; see `storage.codehash.modules_of`."""
        steps: _Steps = self.value
        found = modules_of(*steps.roots, without=(*_BESIDE, *steps.without), home=home)
        if families:
            found |= modules_of(*families, without=_BESIDE, home=home)
        return found.union(*(Stage[name].modules(home=home) for name in steps.behind))


@cache
def _code(stage: Stage, families: tuple[str, ...], home: Path) -> str:
    return hash_of(stage.modules(*families, home=home), home=home)
