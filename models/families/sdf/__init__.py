"""Stochastic discount factors as factor models: what they share (`pricing`), and that of random features (`model`)."""

from models.families.sdf.model import RandomFeatureSDF

__all__ = ["RandomFeatureSDF"]
