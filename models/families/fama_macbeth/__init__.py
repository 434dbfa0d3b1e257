"""Fama and MacBeth's cross-sectional regressions on characteristics."""

from models.families.fama_macbeth.model import FamaMacBeth

__all__ = ["FamaMacBeth"]
