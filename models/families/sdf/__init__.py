"""Stochastic discount factors as factor models.

Here belong what they share (`pricing`, `spanned` where weights are linear in features, and `screened` where these begin
with products of characteristics), that of random features (`model`), that of attention among stocks (`attention`), and
that of a network (`network`).
"""

from models.families.sdf.attention import AttentionSDF
from models.families.sdf.model import RandomFeatureSDF
from models.families.sdf.network import SDFNetwork

__all__ = ["AttentionSDF", "RandomFeatureSDF", "SDFNetwork"]
