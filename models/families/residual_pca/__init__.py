"""Nonlinear principal components of residuals: `estimation` (a principal curve of stocks), `model` (the class)."""

from models.families.residual_pca.model import ResidualPCA

__all__ = ["ResidualPCA"]
