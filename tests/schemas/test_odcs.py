"""The data contract of what is published is one by the standard's own JSON schema, and leaves nothing out."""

from __future__ import annotations

import json
from importlib.resources import files

import yaml
from jsonschema import Draft201909Validator
from typer.testing import CliRunner

from deploy.cli import app
from schemas.allocated import ALLOCATION
from schemas.contracts import VERSION
from schemas.odcs import published_contract

RULES = json.loads((files("open_data_contract_standard") / "schema.json").read_text(encoding="utf-8"))


def test_the_contract_of_what_is_published_keeps_to_the_standard_and_to_the_declarations() -> None:
    contract = published_contract()
    assert yaml.safe_load(CliRunner().invoke(app, ["schema", "--published"]).stdout) == contract
    assert not [error.message for error in Draft201909Validator(RULES).iter_errors(contract)]
    for group, declared in zip(contract["schema"], (VERSION, ALLOCATION), strict=True):
        said = {one["name"]: one for one in group["properties"]}
        assert list(said) == list(declared)
        for name, variable in declared.items():
            more = {one["property"]: one["value"] for one in said[name]["customProperties"]}
            assert more == {"dimensions": list(variable.dims), "units": variable.units}
            assert (said[name]["items"]["physicalType"], said[name]["required"]) == (variable.dtype, variable.required)
            assert said[name]["description"].endswith(variable.comment)
