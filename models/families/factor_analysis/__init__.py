"""Maximum-likelihood factors of standardised returns: the model (`model`) and its estimation (`estimation`)."""

from models.families.factor_analysis.model import FactorAnalysis

__all__ = ["FactorAnalysis"]
