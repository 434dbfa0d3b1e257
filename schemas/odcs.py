"""What is published, in the words of the Open Data Contract Standard, for catalogs and tools that know nothing of ours.

Here belongs how the declared variables read in that standard. What they are belongs in `schemas.contracts` and
`schemas.allocated`; nothing is declared here a second time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.allocated import ALLOCATION
from schemas.contracts import FORMAT_VERSION, VERSION, Variable

STANDARD = "v3.0.2"
"""Version of the standard; its later ones read it too."""

_LOGICAL = {"bool": "boolean", "int16": "integer", "float32": "number", "float64": "number"}


def published_contract() -> dict[str, Any]:
    """Return the data contract of everything that is published.

    One object of its schema is one Zarr group, a property of it one array: `required` says that every group has it, and
    the custom properties `dimensions` and `units` what its axes and its numbers are.

    Returns
    -------
    dict
        Plain data, ready for YAML, valid by the JSON schema of the standard.

    References
    ----------
    Open Data Contract Standard, version 3.0.2. https://bitol-io.github.io/open-data-contract-standard/v3.0.2/
    """
    return {
        "apiVersion": STANDARD,
        "kind": "DataContract",
        "id": "factorcube-published",
        "name": "factorcube: published factor risk models",
        "version": str(FORMAT_VERSION),
        "status": "active",
        "description": {
            "purpose": "Loadings, factor covariance, specific and portfolio variance of equity factor risk models, and "
            "portfolio weights made from them.",
            "usage": "Open with xarray.open_zarr. A row is labelled by the date at whose close it was known; returns "
            "are decimals, variances are per period.",
            "limitations": "A version never changes once it is visible. It may hold more than is listed here: "
            "statistics of its last fit, each of which says in its attributes what it is.",
        },
        "schema": [
            _group("version", "universe, model and version", "Forecasts of one factor risk model.", VERSION),
            _group("allocation", "universe, name and as-of date", "Weights made from one version.", ALLOCATION),
        ],
    }


def described(variable: Variable) -> str:
    """Say what a variable is, then what its comment says."""
    return f"{variable.long_name[:1].upper()}{variable.long_name[1:]}. {variable.comment}"


def _group(name: str, named_by: str, description: str, variables: Mapping[str, Variable]) -> dict[str, Any]:
    return {
        "name": name,
        "logicalType": "object",
        "physicalType": "Zarr group",
        "description": description,
        "dataGranularityDescription": f"one for each {named_by}",
        "properties": [_array(*item) for item in variables.items()],
    }


def _array(name: str, variable: Variable) -> dict[str, Any]:
    return {
        "name": name,
        "logicalType": "array",
        "physicalType": f"{variable.dtype} array",
        "description": described(variable),
        "required": variable.required,
        "items": {"logicalType": _LOGICAL[variable.dtype], "physicalType": variable.dtype},
        "customProperties": [
            {"property": "dimensions", "value": list(variable.dims)},
            {"property": "units", "value": variable.units},
        ],
    }
