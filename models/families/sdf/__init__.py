"""Stochastic discount factors as factor models.

Here belong what they share (`pricing`, and `spanned` where weights are linear in features), that of random features
(`model`), and that of a network (`network`).
"""

from models.families.sdf.model import RandomFeatureSDF
from models.families.sdf.network import SDFNetwork

__all__ = ["RandomFeatureSDF", "SDFNetwork"]
