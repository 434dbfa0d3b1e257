"""From a spec to a model: the class of a family, and models built or rebuilt from what a config or manifest says.

Here belongs what needs a family by its name. How families are found and checked belongs in `schemas.families`.
"""

from __future__ import annotations

from collections.abc import Sequence

from models.arrays import NamedArrays, under
from models.families.base import FactorModel, ModelState
from schemas import families
from schemas.families import ModelSpec, model_spec


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


def packed(models: Sequence[FactorModel]) -> ModelState:
    """Return the states of fitted models as one, to go into the state of a model that is fitted on them.

    The arrays of the model at a place are called ``place.name``; its kind, parameters and facts are in ``meta``.
    """
    arrays: NamedArrays = {}
    facts = []
    for place, model in enumerate(models):
        state = model.state()
        arrays |= {f"{place}.{name}": array for name, array in state.arrays.items()}
        facts.append({"params": {"kind": model.kind, **model.get_params()}, "state": state.meta})
    return ModelState(arrays, {"models": facts})


def unpacked(state: ModelState) -> tuple[FactorModel, ...]:
    """Rebuild the models whose states `packed` has put into this one, in their order."""
    models = []
    for place, facts in enumerate(state.meta["models"]):
        own = ModelState(under(f"{place}.", state.arrays), facts["state"])
        models.append(restore(model_spec(facts["params"]), own))
    return tuple(models)
