"""Instrumented principal components (IPCA) of Kelly, Pruitt and Su (2019)."""

from models.families.ipca.bootstrap import BootstrapTest
from models.families.ipca.model import IPCA
from models.families.ipca.walk_forward import walk_forward

__all__ = ["IPCA", "BootstrapTest", "walk_forward"]
