"""Conditional autoencoders: factor models whose loadings are a neural network of the characteristics.

Here belongs everything of Gu, Kelly and Xiu (2021): `data` (what is trained on, and its timing), `networks`,
`training` (one seed), `ensemble` (several), `model` (the class). Other neural models have modules of their
own.
"""

from __future__ import annotations

from models.families.autoencoder.model import ConditionalAutoencoder
from models.families.autoencoder.networks import EpochReport, Member

__all__ = ["ConditionalAutoencoder", "EpochReport", "Member"]
