"""Models that state their own covariance, averaged."""

from models.families.mean_of_models.model import MeanOfModels

__all__ = ["MeanOfModels"]
