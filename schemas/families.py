"""The families of factor models that are installed, and the part of a run spec that chooses among them.

Here belong how a family is found, what it must be, and how its constructor becomes a spec: names, types, bounds and
defaults are those of the signature, descriptions those of the docstring. A family itself belongs in a package of its
own, ours in `models.families`; it is imported when a spec that names it is read, and never by importing this module.

A family is an entry point of the group ``factorcube.models``, whose name is the `kind` of its class. Other packages
add theirs in the same way.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any, Literal, Union, get_type_hints

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter, create_model
from pydantic.errors import PydanticUserError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, SchemaValidator, core_schema

from schemas.base import Frozen, Name, nearest
from schemas.contracts import VERSION
from schemas.docstrings import parameter_descriptions, summary
from schemas.errors import ConfigError
from schemas.statistics import STATISTIC_DIMS, declared

GROUP = "factorcube.models"

_METHODS = (
    "fit", "pieces", "fit_piece", "join", "refit", "on", "loadings", "factor_returns", "expected_returns",
    "fitted_returns", "residuals", "score", "statistics", "state", "from_state", "rotate", "get_params", "clone",
)  # fmt: skip
_FACTS = ("kind", "latent", "effort", "row_memory", "bases", "latent_blocks", "STATISTICS")
_TAKEN = {*STATISTIC_DIMS, *VERSION, *(dim for variable in VERSION.values() for dim in variable.dims)} - {"premia"}


class ModelSpec(Frozen):
    """A model of a run, with its parameters; what each family makes of it is `spec_class`."""

    kind: str = Field(description="Family of the model.")
    name: Name = Field(description="Name of the model in this universe, under which its versions are published.")

    def params(self) -> dict[str, Any]:
        """Return the constructor arguments of the family's class."""
        return {key: value for key, value in self.model_dump().items() if key not in ("kind", "name")}

    @classmethod
    def alternatives(cls) -> list[type[Frozen]]:
        """Return the specs of all families."""
        return [spec_class(kind) for kind in kinds()] if cls is ModelSpec else [cls]

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes as plain values: the class is made anew where they arrive."""
        return model_spec, (dict(self),)


class _OfAnyFamily:
    """Validates a model by its `kind`; a family that no config names is not imported for it."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        del source, handler
        return core_schema.no_info_plain_validator_function(self._validated)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        del schema
        return handler(_adapter().core_schema)

    @staticmethod
    def _validated(value: Any) -> Any:
        kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
        if isinstance(kind, str) and kind in _points():
            return _of_kind(kind).validate_python(value)
        return _adapter().validate_python(value)  # which says what there is


AnyModel = Annotated[ModelSpec, _OfAnyFamily()]
"""A model of any family that is installed."""


class _One(Frozen):
    model: AnyModel


def model_spec(values: Mapping[str, Any]) -> ModelSpec:
    """Return the spec that plain values describe, such as the `params` of a manifest.

    Raises
    ------
    ConfigError
        If there is no such family here, or it refuses them.
    """
    return _One.parse({"model": values}, origin="spec").model


def with_bases(models: Sequence[ModelSpec], among: Sequence[ModelSpec]) -> list[ModelSpec]:
    """Return models and those that they are fitted on, each once, before those that need it.

    Parameters
    ----------
    models : sequence of ModelSpec
        Some models of a run.
    among : sequence of ModelSpec
        All models of the run.

    Raises
    ------
    ConfigError
        If a model names one twice, or one that the run does not have, or that needs it in turn.
    """
    by_name = {model.name: model for model in among}
    found: dict[str, ModelSpec] = {}

    def add(model: ModelSpec, waiting: tuple[str, ...]) -> None:
        bases = family(model.kind)(**model.params()).bases
        for base in bases:
            if base not in by_name:
                hint = nearest(base, [*by_name])
                raise ConfigError(f"model '{model.name}' is fitted on '{base}', which is not there ({hint})")
            if base in (*waiting, model.name):
                raise ConfigError(f"models '{model.name}' and '{base}' are each fitted on the other")
            if bases.count(base) > 1:
                raise ConfigError(f"model '{model.name}' names '{base}' {bases.count(base)} times: name it once")
            add(by_name[base], (*waiting, model.name))
        found.setdefault(model.name, model)

    for model in models:
        add(model, ())
    return [*found.values()]


def kinds() -> list[str]:
    """Return what a config may write as the `kind` of a model."""
    return sorted(_points())


@cache
def family(kind: str) -> type[Any]:
    """Import the class of a family, and check that it is one.

    Raises
    ------
    ConfigError
        If there is no such family, two packages bring it, or it does not keep to what every family promises.
    """
    points = _points()
    if kind not in points:
        hint = nearest(kind, kinds()) if points else "none is installed: install factorcube again"
        raise ConfigError(f"there is no model of kind '{kind}' in the entry points '{GROUP}' ({hint})")
    point = points[kind]
    what = f"model family '{kind}' of {_package(point)}"
    try:
        found: type[Any] = point.load()
    except Exception as error:
        raise ConfigError(f"{what} cannot be imported: {type(error).__name__}: {error}") from error
    for mistake in _mistakes(found, kind):
        raise ConfigError(f"{what}: {mistake}")
    return found


@cache
def spec_class(kind: str) -> type[ModelSpec]:
    """Return the spec of a family: its parameters as fields, in the order of its constructor.

    Raises
    ------
    ConfigError
        As `family`, and if a parameter has a type that a config cannot give.
    """
    cls = family(kind)
    described = parameter_descriptions(cls)
    fields: dict[str, Any] = {
        "kind": (Literal[kind], Field(default=kind, description=_described("kind"))),
        "name": (Name, Field(default=kind, description=_described("name"))),
    }
    hints = _hints(cls)
    for parameter in _parameters(cls):
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (hints[parameter.name], Field(default, description=described[parameter.name]))
    try:
        return create_model(
            f"{cls.__name__}Spec", __base__=ModelSpec, __module__=__name__, __doc__=summary(cls), **fields
        )
    except (PydanticUserError, TypeError) as error:
        why = str(error).split(". ")[0]
        raise ConfigError(
            f"model family '{kind}' of {_package(_points()[kind])}: a config cannot give its parameters: {why}"
        ) from error


@cache
def _points() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        if point.name in found:
            both = " and ".join(sorted({_package(found[point.name]), _package(point)}))
            raise ConfigError(f"model family '{point.name}' is claimed twice, by {both}: uninstall one")
        found[point.name] = point
    return found


@cache
def _of_kind(kind: str) -> SchemaValidator:
    """Validate models of one family, naming it where all would be told apart by it."""
    choices = {kind: spec_class(kind).__pydantic_core_schema__}
    return SchemaValidator(core_schema.tagged_union_schema(choices, "kind"))


@cache
def _adapter() -> TypeAdapter[ModelSpec]:
    specs: Any = Union[tuple(spec_class(kind) for kind in kinds())]  # noqa: UP007  # of a tuple
    return TypeAdapter(Annotated[specs, Field(discriminator="kind")])


def _package(point: EntryPoint) -> str:
    return "an unnamed package" if point.dist is None else point.dist.name


def _described(field: str) -> str:
    return str(ModelSpec.model_fields[field].description)


def _mistakes(found: Any, kind: str) -> Iterator[str]:
    """Say what a class lacks to be a family, the most telling thing first."""
    if not isinstance(found, type):
        yield f"its entry point is {found!r}, which is no class"
        return
    lacking = [name for name in _METHODS if not callable(getattr(found, name, None))]
    lacking += [name for name in _FACTS if not hasattr(found, name)]
    if lacking:
        yield f"{found.__name__} does not follow the protocol of models.FactorModel: it lacks {', '.join(lacking)}"
    if inspect.isabstract(found):
        yield f"{found.__name__} leaves abstract: {', '.join(sorted(getattr(found, '__abstractmethods__', ())))}"
    if getattr(found, "kind", None) != kind:
        yield f"{found.__name__} has another kind than its entry point is called: {getattr(found, 'kind', None)!r}"
    yield from _mistakes_of_statistics(found)
    yield from _mistakes_of_parameters(found)


def _mistakes_of_statistics(found: type[Any]) -> Iterator[str]:
    if sum("statistics" in vars(one) for one in found.__mro__) > 1:
        yield f"{found.__name__} overrides statistics(); what is declared in STATISTICS is offered without it"
    for name, meaning in declared(found).items():
        if not isinstance(meaning, str) or not meaning.strip():
            yield f"its statistic '{name}' has no meaning"
        if not name.isidentifier() or name in _TAKEN:
            yield f"its statistic '{name}' cannot be called so: a version has another variable or axis of this name"


def _mistakes_of_parameters(found: type[Any]) -> Iterator[str]:
    try:
        hints = _hints(found)
    except (NameError, TypeError, AttributeError) as error:
        yield f"the annotations of {found.__name__}.__init__ cannot be resolved: {error}"
        return
    described = parameter_descriptions(found)
    for parameter in _parameters(found):
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            yield f"its parameter '{parameter.name}' cannot be given by name"
        if hasattr(ModelSpec, parameter.name) or parameter.name in ModelSpec.model_fields:
            yield f"its parameter '{parameter.name}' cannot be called so: a spec has another meaning for it"
        if parameter.name not in hints:
            yield f"its parameter '{parameter.name}' has no annotation"
        if not described.get(parameter.name):
            yield f"its parameter '{parameter.name}' has no description under Parameters in the docstring of the class"


def _hints(cls: type[Any]) -> dict[str, Any]:
    return get_type_hints(cls.__init__, include_extras=True)


def _parameters(cls: type[Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(cls.__init__).parameters.values())[1:]
