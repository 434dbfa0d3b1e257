"""The errors a user may meet. Each carries one clear message that names the thing and says what to do.

A foreseeable mistake raises one of these, and the command line prints its message without a traceback. Anything else
that escapes is a bug. No error class belongs anywhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from schemas.backfill import BackfillSummary
    from schemas.refs import VersionRef


class FactorcubeError(Exception):
    """Base of all foreseeable failures; ``str(error)`` is fit to be shown to a user as it is."""


class ConfigError(FactorcubeError):
    """A value cannot be, whatever the data: of a config file, a setting, an option, or an argument of any function.

    An unknown key, a choice that there is not, a number out of its bounds, values that contradict each other. Where the
    same value could be had from other data, it is a `ModelError`; where the data themselves are wrong, a `DataError`.
    """


class SourceError(FactorcubeError):
    """A source cannot be read as declared: a missing file or column, text in a numeric column, wrong units."""


class DataError(FactorcubeError):
    """Data cannot be used, whatever for: duplicate keys, impossible dates, axes that do not fit together."""


class CheckError(FactorcubeError):
    """A blocking data-quality check rejected the whole ingest; nothing was written to the cube."""


class CubeError(FactorcubeError):
    """A cube cannot be opened or written as asked."""


class AlignmentError(CubeError):
    """A write does not align with the cube: reordered, duplicated or unsorted dates or tickers, another char axis."""


class ModelError(FactorcubeError):
    """These data cannot carry the model or the estimate that was asked for, or it is used before it was fitted."""


class NotFittedError(ModelError, AttributeError):
    """A model is used before it was fitted; an `AttributeError` too, so that ``hasattr`` and ``dir`` go on."""


class ExecutionError(FactorcubeError):
    """A step could not be run: the cluster cannot be reached, or a worker runs another version of the code."""


class BackfillError(ExecutionError):
    """A backfill ended with partitions that failed or were not reached; `summary` says what became of each."""

    def __init__(self, message: str, summary: BackfillSummary | None = None) -> None:
        super().__init__(message)
        self.summary = summary


class ModelsError(FactorcubeError):
    """Some models of a run failed, or all; `failures` says why, by model, `versions` is what the others have become."""

    def __init__(self, failures: Mapping[str, str], versions: Sequence[VersionRef] = ()) -> None:
        reasons = "; ".join(f"{name}: {why}" for name, why in failures.items())
        others = "the other one is published" if len(versions) == 1 else f"the other {len(versions)} are published"
        done = others if versions else "nothing is published"
        super().__init__(
            f"{len(failures)} of {len(failures) + len(versions)} models failed, {done}; run again to make what is "
            f"missing: {reasons}"
        )
        self.failures, self.versions = dict(failures), list(versions)

    def __reduce__(self) -> tuple[type[ModelsError], tuple[dict[str, str], list[VersionRef]]]:
        """Travel between processes with what it carries."""
        return type(self), (self.failures, self.versions)


class PublishError(FactorcubeError):
    """A version cannot be published, found or read."""


class StoreError(FactorcubeError, OSError):
    """An object store cannot be reached, or refuses what was asked; an `OSError`, as those of a disk are."""


class ConflictError(PublishError):
    """Another writer of the same thing won; nothing of this one became visible."""


class HeldError(ConflictError):
    """Another run works on the same model already; this one ends before it changes anything."""


class ClosedError(FactorcubeError):
    """The exchange was closed on the day that a run was scheduled for: there is nothing to bring in."""


class CorruptionError(PublishError):
    """Stored bytes do not match their checksum; the message names the file."""
