"""The parameter of flows that names a config: in Python a spec, in a deployment the name of a file.

A deployment, which can only store JSON, names a config file of the installation's folder of configs
(`Settings.configs`). Here belong parameters whose value is read from somewhere; all others in `schemas.parameters`.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from schemas.parameters import Shown
from schemas.settings import load_settings
from schemas.spec import RunSpec
from storage.configs import config_names, load_config


def _read(value: Any) -> Any:
    """Turn what a caller gives into a spec: a name is looked up, plain data are validated, a spec passes."""
    if isinstance(value, str):
        return load_config(value, load_settings().configs)
    return RunSpec.parse(value, origin="spec") if isinstance(value, dict) else value


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
