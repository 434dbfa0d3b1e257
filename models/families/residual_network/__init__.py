"""Factors of residuals, with loadings by a network of characteristics: `training` (one seed), `model` (the class)."""

from models.families.residual_network.model import ResidualNetwork

__all__ = ["ResidualNetwork"]
