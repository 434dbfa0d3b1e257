"""The SDF as a network, trained against an adversary: everything of Chen, Pelger and Zhu (2024).

Here belong `data` (what is trained on), `moments` (the loss), `training` (one seed), `networks` (architectures and
their plain form) and `model` (the class).
"""

from models.families.sdf.network.model import SDFNetwork

__all__ = ["SDFNetwork"]
