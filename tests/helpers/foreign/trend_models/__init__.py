"""A package of another house that brings a family of factor models to factorcube: see `docs/families.md`."""

from trend_models.trend import ResidualTrend

__all__ = ["ResidualTrend"]
