"""Searches of the parameters of a model: `space` (where they may lie), `study` (the trials, and what they found)."""

from models.evaluation.search.study import SearchResult, search

__all__ = ["SearchResult", "search"]
