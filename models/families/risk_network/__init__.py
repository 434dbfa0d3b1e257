"""A network of loadings trained for risk out of sample: `loss` (the term), `model` (the class)."""

from models.families.risk_network.model import RiskNetwork

__all__ = ["RiskNetwork"]
