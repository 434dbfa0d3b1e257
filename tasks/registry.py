"""Which class a kind of the run spec means. A new model is added here, in `schemas.modelspecs` and in `models`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import models

if TYPE_CHECKING:
    from models.families.base import FactorModel
    from schemas.modelspecs import ModelSpec
    from schemas.spec import CovarianceSpec, SpecificSpec

MODELS: dict[str, type[FactorModel]] = {
    "market": models.MarketModel,
    "time_series": models.TimeSeriesModel,
    "fama_macbeth": models.FamaMacBeth,
    "cross_section": models.CrossSectionalModel,
    "penalised": models.PenalisedModel,
    "pca": models.PCA,
    "rp_pca": models.RPPCA,
    "ipca": models.IPCA,
    "autoencoder": models.ConditionalAutoencoder,
}


def family_code(kind: str) -> str:
    """Name the class of a kind for `tasks.stages.Stage.code`."""
    family = MODELS[kind]
    return f"{family.__module__}:{family.__name__}"


def build(spec: ModelSpec) -> FactorModel:
    """Make the unfitted model that a spec describes."""
    return MODELS[spec.kind](**spec.params())


def covariance_of(spec: CovarianceSpec) -> models.FactorCovariance:
    """Make the estimator of Omega that a spec describes."""
    return models.FactorCovariance(**spec.model_dump())


def specific_of(spec: SpecificSpec) -> models.SpecificRisk:
    """Make the estimator of specific variance that a spec describes."""
    return models.SpecificRisk(**spec.model_dump())
