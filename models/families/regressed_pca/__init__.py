"""Principal components of the slopes on functions of characteristics: `model`."""

from models.families.regressed_pca.model import RegressedPCA

__all__ = ["RegressedPCA"]
