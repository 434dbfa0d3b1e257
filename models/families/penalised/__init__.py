"""Penalised regressions: ridge, lasso and elastic net along a path, from sufficient statistics alone."""

from models.families.penalised.model import PenalisedModel
from models.families.penalised.moments import Moments, Quadratic
from models.families.penalised.path import Path, lambda_grid, penalised_path

__all__ = ["Moments", "Path", "PenalisedModel", "Quadratic", "lambda_grid", "penalised_path"]
