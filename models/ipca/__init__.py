"""Instrumented principal components (IPCA) of Kelly, Pruitt and Su (2019)."""

from models.ipca.model import IPCA

__all__ = ["IPCA"]
