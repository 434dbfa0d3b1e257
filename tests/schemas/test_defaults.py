"""A notebook and a config have the same defaults: whatever a spec and a class both name."""

from __future__ import annotations

import inspect

import pytest

from models import FactorCovariance, Panel, SpecificRisk
from models.panel.assembly import panel_blocks
from schemas.errors import ConfigError
from schemas.risk import CovarianceSpec, SpecificSpec
from schemas.spec import PanelSpec


@pytest.mark.parametrize(("estimator", "spec"), [(FactorCovariance, CovarianceSpec), (SpecificRisk, SpecificSpec)])
def test_an_estimator_of_risk_is_its_spec(estimator, spec):
    assert list(estimator.model_fields) == list(spec.model_fields)
    assert estimator().model_dump() == spec().model_dump()
    given = {name: field.default for name, field in spec.model_fields.items()} | {"halflife": 7.0}
    assert estimator(**given).model_dump() == spec(**given).model_dump()
    with pytest.raises(ConfigError, match=rf"^{estimator.__name__}: unknown key 'halflive' \(did you mean 'halflife'"):
        estimator(halflive=3.0)


@pytest.mark.parametrize("function", [Panel.from_long, Panel.from_wide, Panel.from_xarray, panel_blocks])
def test_a_panel_has_the_defaults_of_a_config(function):
    found = {name: one.default for name, one in inspect.signature(function).parameters.items()}
    shared = ["transform", "lag", "constant", "min_coverage"]
    if function is panel_blocks:
        shared += ["characteristics", "market_portfolio"]
        assert set(PanelSpec.model_fields) == {*shared, "start", "end"}
    assert {name: found[name] for name in shared} == {name: PanelSpec.model_fields[name].default for name in shared}
