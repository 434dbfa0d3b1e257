"""Regressions of each stock on given factors: the market model, and several factors at once."""

from models.families.time_series.market import MarketModel
from models.families.time_series.model import TimeSeriesModel

__all__ = ["MarketModel", "TimeSeriesModel"]
