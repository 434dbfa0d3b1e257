"""Any model and statistical factors of what it leaves."""

from models.families.hybrid.model import Hybrid

__all__ = ["Hybrid"]
