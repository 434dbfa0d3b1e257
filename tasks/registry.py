"""From the risk part of a spec to its estimators."""

from __future__ import annotations

from typing import TYPE_CHECKING

import models

if TYPE_CHECKING:
    from schemas.spec import CovarianceSpec, SpecificSpec


def covariance_of(spec: CovarianceSpec) -> models.FactorCovariance:
    """Make the estimator of Omega that a spec describes."""
    return models.FactorCovariance(**spec.model_dump())


def specific_of(spec: SpecificSpec) -> models.SpecificRisk:
    """Make the estimator of specific variance that a spec describes."""
    return models.SpecificRisk(**spec.model_dump())
