"""From a spec to a model: the class of a family, and models built or rebuilt from what a config or manifest says.

Here belongs what needs a family by its name. How families are found and checked belongs in `schemas.families`.
"""

from __future__ import annotations

from models.families.base import FactorModel, ModelState
from schemas import families
from schemas.families import ModelSpec


def family(kind: str) -> type[FactorModel]:
    """Return the class of a family; `schemas.families.family` says what is refused."""
    found: type[FactorModel] = families.family(kind)
    return found


def build(spec: ModelSpec) -> FactorModel:
    """Make the unfitted model that a spec describes."""
    return family(spec.kind)(**spec.params())


def restore(spec: ModelSpec, state: ModelState) -> FactorModel:
    """Rebuild the fitted model of a spec; that of a manifest is `schemas.families.model_spec` of its `params`."""
    return family(spec.kind).from_state(spec.params(), state)
