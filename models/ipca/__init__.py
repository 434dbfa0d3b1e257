"""Instrumented principal components (IPCA) of Kelly, Pruitt and Su (2019)."""

from models.ipca.bootstrap import BootstrapTest
from models.ipca.model import IPCA
from models.ipca.walk_forward import walk_forward

__all__ = ["IPCA", "BootstrapTest", "walk_forward"]
