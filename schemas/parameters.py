"""The types of the parameters that deployed flows take: what Prefect stores, shows as a form, and checks.

Here belong parameters that a person fills in. In Python a flow takes a `RunSpec`; a deployment, which can only store
JSON, names a config file of the installation's folder of configs instead (`Settings.configs`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from schemas.base import Name, nearest
from schemas.errors import ConfigError
from schemas.refs import SnapshotRef
from schemas.settings import load_settings
from schemas.spec import RunSpec, load_spec

_SUFFIX = ".yaml"
_CONFIG_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def config_names(folder: Path) -> list[str]:
    """Names of the config files of a folder, without their suffix; none if there is no such folder."""
    return sorted(path.stem for path in folder.glob(f"*{_SUFFIX}") if _CONFIG_NAME.fullmatch(path.stem))


def load_config(name: str, folder: Path) -> RunSpec:
    """Read the spec that a name stands for, from the folder of configs and nowhere else.

    Parameters
    ----------
    name : str
        Name of a config file, with or without ``.yaml``.
    folder : Path
        `Settings.configs`.

    Raises
    ------
    ConfigError
        If the name is a path, leads out of the folder through a symbolic link, or there is no such file.
    """
    stem = name.removesuffix(_SUFFIX)
    if not _CONFIG_NAME.fullmatch(stem):
        raise ConfigError(f"config {name!r} is not a name: give the name of a file in {folder}, without its folder")
    path = folder / f"{stem}{_SUFFIX}"
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"config '{stem}': a symbolic link leads outside {folder}; put the file itself there")
    if not path.exists():
        raise ConfigError(
            f"there is no config '{stem}' in {folder} (FACTORCUBE_CONFIGS); {nearest(stem, config_names(folder))}"
        )
    return load_spec(path)


def _read(value: Any) -> Any:
    """Turn what a caller gives into a spec: a name is looked up, plain data are validated, a spec passes."""
    if isinstance(value, str):
        return load_config(value, load_settings().configs)
    return RunSpec.parse(value, origin="spec") if isinstance(value, dict) else value


@dataclass(frozen=True)
class Shown:
    """How Prefect's form shows a parameter; it takes no description from a `Field`, nor from a numpy docstring.

    A parameter that may be left out is shown as what it is when it is given, not as a choice of types.

    Attributes
    ----------
    description : str
        What to enter, and what happens if it is left out.
    """

    description: str

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        shown = handler(schema)
        given = [option for option in shown.get("anyOf", ()) if option != {"type": "null"}]
        if len(given) == 1:
            shown = {key: value for key, value in shown.items() if key != "anyOf"} | given[0]
        return shown | {"description": self.description}


class _NameOfConfig:
    """Show a spec as the name of a config: a choice among those that are there when the flow is deployed."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        names = config_names(load_settings().configs)
        return {"type": "string"} | ({"enum": names} if names else {})


Config = Annotated[
    RunSpec,
    BeforeValidator(_read),
    _NameOfConfig(),
    Shown("Which config: the name of a file of the folder of configs (FACTORCUBE_CONFIGS), without .yaml."),
]
"""A run spec; in a deployment the name of its config file."""

ModelNames = Annotated[
    list[Name] | None, Shown("Names of the models of the config to work on; all of them if left out.")
]

AsOf = Annotated[date | None, Shown("Last date whose data may be used; the newest date of the cube if left out.")]

Start = Annotated[date | None, Shown("First date to take from the source; its first if left out.")]

End = Annotated[date | None, Shown("Last date to take from the source; its last if left out.")]

Snapshot = Annotated[
    SnapshotRef | None, Shown("Snapshot of the cube to read, as an ingest returns it; the newest if left out.")
]

PromoteFirst = Annotated[
    bool, Shown("Whether a version that passes the gate becomes `latest` where a model has no champion yet.")
]

OnSession = Annotated[
    bool, Shown("For schedules: end at once if the exchange was closed on the day that the run was scheduled for.")
]

Apply = Annotated[bool, Shown("Whether to remove what may go; a dry run, which only shows it, otherwise.")]
