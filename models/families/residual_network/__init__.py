"""Factors of residuals, with loadings by a network of characteristics: `leaving_out` (their test), `model`."""

from models.families.residual_network.model import ResidualNetwork

__all__ = ["ResidualNetwork"]
