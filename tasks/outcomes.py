"""What became of the models of a run: one that fails takes none of the others along, and none of them is forgotten.

Here belongs the one way to go on after a model has failed. What concerns all models (a store, a disk or a scheduler
that is lost) is no failure of one, and is raised where it happens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from schemas.errors import FactorcubeError, ModelsError
from schemas.refs import VersionRef
from tasks.logs import run_logger

Result = TypeVar("Result")


@dataclass
class Outcomes:
    """What is done, and what is not, model by model.

    Attributes
    ----------
    versions : list of VersionRef
        What is published, in the order of the models.
    failures : dict of str to Exception
        Why a model is not, by its name.
    """

    versions: list[VersionRef] = field(default_factory=list)
    failures: dict[str, Exception] = field(default_factory=dict)

    def fail(self, failures: dict[str, Exception]) -> None:
        """Note models that failed, and say so at once."""
        for name, error in failures.items():
            foreseeable = isinstance(error, FactorcubeError)
            run_logger().error("%s failed: %s", name, reason_of(error), exc_info=None if foreseeable else error)
        self.failures |= failures

    def attempt(self, names: Iterable[str], make: Callable[[str], Result]) -> dict[str, Result]:
        """Make something of each model that has not failed; an error of one is noted and the next is made.

        Raises
        ------
        OSError
            A store that does not answer or a full disk: the next model would meet it too.
        """
        made = {}
        for name in [name for name in names if name not in self.failures]:
            try:
                made[name] = make(name)
            except OSError:
                raise
            except Exception as error:  # noqa: BLE001  # whatever one model raises, the others are published
                self.fail({name: error})
        return made

    def conclude(self) -> list[VersionRef]:
        """Return the versions.

        Raises
        ------
        ModelsError
            If some models failed; it carries the versions of the others. If there was only one model, its own error.
        """
        if not self.failures:
            return self.versions
        if not self.versions and len(self.failures) == 1:
            raise next(iter(self.failures.values()))
        raise ModelsError({name: reason_of(error) for name, error in self.failures.items()}, self.versions)


def reason_of(error: BaseException) -> str:
    """Say in one line why something failed."""
    text = str(error) if isinstance(error, FactorcubeError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())
