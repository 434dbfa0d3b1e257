"""Factors beyond variance: principal components, then what the residuals have in common in their third moments.

Here belong the model (`model`), and the co-skewness of residuals, its direction and its test (`estimation`).
"""

from models.families.coskewness.model import CoskewnessPCA

__all__ = ["CoskewnessPCA"]
