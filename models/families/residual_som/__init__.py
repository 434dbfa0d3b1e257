"""Clusters of residuals on a self-organising map: `estimation` (the map), `model` (the class)."""

from models.families.residual_som.model import ResidualSOM

__all__ = ["ResidualSOM"]
