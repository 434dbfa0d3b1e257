"""The types of the parameters that deployed flows take: what Prefect stores, shows as a form, and checks.

Here belong parameters that a person fills in. The one that names a config file reads it: `tasks.parameters`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Annotated

from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from schemas.allocation import AllocationSpec
from schemas.base import Name
from schemas.refs import SnapshotRef


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

VersionName = Annotated[
    str, Shown("The version to allocate by, such as us_demo/ipca/latest or us_demo/ipca/2024-06-28-3f2a91bc.")
]

Allocation = Annotated[AllocationSpec, Shown("What to allocate by, within which limits, and under which name.")]
