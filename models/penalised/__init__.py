"""Penalised regressions: ridge, lasso and elastic net along a path, from sufficient statistics alone."""

from models.penalised.model import PenalisedModel
from models.penalised.moments import Moments, Quadratic
from models.penalised.path import Path, lambda_grid, penalised_path

__all__ = ["Moments", "Path", "PenalisedModel", "Quadratic", "lambda_grid", "penalised_path"]
