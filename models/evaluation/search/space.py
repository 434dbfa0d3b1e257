"""Where the parameters of a model may lie, checked by the family's own annotations before anything is fitted.

Here belongs what a user writes as a space, and what Optuna is asked for. Trials belong in `study`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from models.families.base import FactorModel
from schemas.base import nearest
from schemas.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Space = Mapping[str, range | tuple[float, float] | tuple[float, float, str] | list[Any]]
"""By parameter ``range(...)``, an interval ``(low, high)`` or ``(low, high, "log")``, or a list of choices."""


@dataclass(frozen=True)
class Dimension:
    """Where one parameter may lie.

    Attributes
    ----------
    distribution : optuna.distributions.BaseDistribution
        What Optuna is asked for: the parameter itself, or the position of a choice.
    choices : tuple or None
        None if the parameter is a number between two.
    """

    distribution: BaseDistribution
    choices: tuple[Any, ...] | None = None

    def value(self, asked: Any) -> Any:
        """Return the parameter that Optuna's answer stands for."""
        return asked if self.choices is None else self.choices[asked]


def dimensions(model: FactorModel, space: Space) -> dict[str, Dimension]:
    """Check a space against the constructor of a model.

    Raises
    ------
    ConfigError
        If the space is empty, names a parameter that the model does not have, or gives one nothing or what it refuses.
    """
    known, hints = sorted(model.get_params()), get_type_hints(type(model).__init__, include_extras=True)
    if not space:
        raise ConfigError(f"The space names no parameter of {type(model).__name__}: name some of {', '.join(known)}.")
    for name in space:
        if name not in known:
            raise ConfigError(f"{type(model).__name__} has no parameter '{name}' to search ({nearest(name, known)}).")
    return {name: _dimension(name, values, TypeAdapter(hints.get(name, Any))) for name, values in space.items()}


def _dimension(name: str, values: Any, annotation: TypeAdapter[Any]) -> Dimension:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(values, range) and values:
        low, high = (_checked(name, end, annotation) for end in (min(values), max(values)))
        return Dimension(IntDistribution(int(low), int(high), step=abs(values.step)))
    if isinstance(values, list) and values:
        choices = tuple(_checked(name, choice, annotation) for choice in values)
        return Dimension(CategoricalDistribution(range(len(choices))), choices)
    if isinstance(values, tuple) and _is_interval(values):
        low, high = (_checked(name, end, annotation) for end in values[:2])
        whole = isinstance(low, int) and isinstance(high, int)
        return Dimension((IntDistribution if whole else FloatDistribution)(low, high, log=len(values) == 3))
    raise ConfigError(
        f"The space of '{name}' is {values!r}: give a range(first, stop) or a list of choices that is not empty, or an "
        'interval (low, high) or (low, high, "log") of numbers with low < high, for "log" above zero.'
    )


def _is_interval(values: tuple[Any, ...]) -> bool:
    ends, scale = values[:2], values[2:]
    if len(ends) < 2 or scale not in ((), ("log",)):
        return False
    if not all(isinstance(end, Real) and not isinstance(end, bool) for end in ends):
        return False
    return bool(float("-inf") < ends[0] < ends[1] < float("inf") and (not scale or ends[0] > 0))


def _checked(name: str, value: Any, annotation: TypeAdapter[Any]) -> Any:
    """Return a value in the type of the parameter."""
    try:
        return annotation.validate_python(value)
    except ValidationError as error:
        why = error.errors(include_url=False)[0]["msg"]
        raise ConfigError(f"The space of '{name}' has {value!r}, which the model refuses: {why}.") from error
