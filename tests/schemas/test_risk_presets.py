"""Presets of risk: keys that are given go over them, and what is dumped is read again to the same."""

from __future__ import annotations

import pytest
import yaml

from models.forecasting.following import RiskEstimators
from schemas.errors import ConfigError
from schemas.risk import CovarianceSpec, RiskSpec, SpecificSpec
from schemas.risk_presets import PRESETS


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_dumped_with_all_its_values_and_read_to_the_same(preset: str) -> None:
    risk = RiskSpec(preset=preset)
    dumped = risk.model_dump(mode="json")
    assert RiskSpec.parse(yaml.safe_load(yaml.safe_dump(dumped)), origin="dump") == risk
    assert RiskSpec.model_validate(risk.model_dump()).digest() == risk.digest()
    estimators = RiskEstimators.of(risk)
    assert estimators.covariance.model_dump() == risk.covariance.model_dump()
    assert estimators.specific.model_dump() == risk.specific.model_dump()
    # A dump says each value: what a preset comes to mean later does not change it.
    dumped["preset"] = "medium"
    assert RiskSpec(**dumped).covariance == risk.covariance


def test_given_keys_go_over_a_preset_at_any_depth() -> None:
    given = {"covariance": {"correlation": {"halflives": [300]}, "regime": None, "floor": 1e-8}}
    risk = RiskSpec.parse({"preset": "barra_use4l", **given}, origin="config")
    assert risk.covariance.correlation.halflives == (300.0,)
    assert risk.covariance.correlation.newey_west_lags == 2
    assert risk.covariance.regime is None
    assert risk.covariance.halflife == 252.0
    assert risk.covariance.eigenfactor.scale == 1.4
    assert risk.specific.shrinkage.strength == 0.1
    assert risk.specific.regime.halflife == 168.0
    with pytest.raises(ConfigError, match=r"unknown key 'covariance.regime.half'"):
        RiskSpec.parse({"preset": "short", "covariance": {"regime": {"half": 3}}}, origin="config")
    with pytest.raises(ConfigError, match=r"'preset': .*medium"):
        RiskSpec.parse({"preset": "mid"}, origin="config")


def test_a_method_that_forgets_otherwise_may_go_over_a_preset() -> None:
    off = {"method": "qis", "newey_west_lags": 0, "correlation": None}
    assert RiskSpec(preset="barra_use4s", covariance=off).covariance.method == "qis"


def test_medium_is_the_default_and_has_the_defaults_of_every_key() -> None:
    assert RiskSpec() == RiskSpec(preset="medium") == RiskSpec(covariance={"halflife": 90.0})
    assert RiskSpec().covariance == CovarianceSpec()
    assert RiskSpec().specific == SpecificSpec()
    assert RiskSpec(preset="long", covariance=CovarianceSpec(halflife=99.0)).covariance.halflife == 99.0
