"""Pure maths on numpy, xarray, torch and scikit-learn: all that a notebook needs, without a store or a server.

A name is imported when it is first asked for: torch alone takes seconds, and the risk of a portfolio needs none of it.

Where do I go to ...?

==========================================  ============================
see what a model sees                        `models.panel`
compute characteristics from prices          `models.characteristics`
find suspicious prices                       `models.quality`
gather what linear models need, once         `models.statistics`
choose, read or write a factor model         `models.families`
find errors, joint tests, premia over time   `models.inference`
form portfolios, sort stocks                 `models.portfolios`
estimate Omega, specific and portfolio risk  `models.risk`
make the rows of a version out of fits       `models.forecasting`
allocate by a risk model                     `models.allocation`
judge forecasts, compare two models          `models.evaluation`
search the parameters of a model             `models.evaluation.search`
name the type of an array                    `models.arrays`
know what decides the last bits              `models.blas`
==========================================  ============================
"""

from __future__ import annotations

import ast
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.blas import fix_order_of_sums

fix_order_of_sums()  # before anything here multiplies a matrix

if TYPE_CHECKING:
    from models.allocation import (
        Constraints,
        allocate,
        efficient_frontier,
        factor_risk_parity,
        hierarchical_risk_parity,
        maximum_diversification,
        mean_variance,
        minimum_variance,
        risk_parity,
    )
    from models.evaluation.attributed import earned
    from models.evaluation.explaining import (
        canonical_correlations,
        characteristic_importance,
        response_curves,
        response_surface,
    )
    from models.evaluation.protocol import Dense, FactorForm, Forecast, Rules, judge
    from models.evaluation.search import SearchResult, search
    from models.evaluation.selection import predictive_r2_scorer, total_r2_scorer
    from models.evaluation.superiority import model_confidence_set
    from models.families.autoencoder import ConditionalAutoencoder
    from models.families.base import FactorModel, ModelState
    from models.families.coskewness import CoskewnessPCA
    from models.families.cross_section import CrossSectionalModel
    from models.families.factor_analysis import FactorAnalysis
    from models.families.fama_macbeth import FamaMacBeth
    from models.families.hybrid import Hybrid
    from models.families.ipca import IPCA
    from models.families.kernel import KernelIPCA, kernel_covariance
    from models.families.mean_of_models import MeanOfModels
    from models.families.pca import PCA, RPPCA
    from models.families.penalised import PenalisedModel
    from models.families.penalised.cross_validation import BlockedFolds
    from models.families.regressed_pca import RegressedPCA
    from models.families.residual_network import ResidualNetwork
    from models.families.residual_pca import ResidualPCA
    from models.families.residual_som import ResidualSOM
    from models.families.risk_network import RiskNetwork
    from models.families.sdf import AttentionSDF, RandomFeatureSDF, SDFNetwork
    from models.families.time_series import MarketModel, TimeSeriesModel
    from models.forecasting.forecast import forecast
    from models.inference.diebold_mariano import diebold_mariano
    from models.inference.factor_premia import TwoPass, two_pass
    from models.inference.two_pass import full_sample_betas
    from models.panel import Panel
    from models.portfolios.sorts import (
        SortedPortfolios,
        double_sort,
        managed_returns,
        managed_weights,
        quantile_sort,
    )
    from models.risk.attribution import attribute, link
    from models.risk.benchmark import active_weights, beta, covariance, incremental_risk, tracking_error
    from models.risk.contributions import volatility_by_factor, volatility_by_group, volatility_by_ticker
    from models.risk.covariance import FactorCovariance
    from models.risk.many import portfolio_variances
    from models.risk.nonlinear import local_loadings, nonlinear_risk
    from models.risk.portfolio import RiskModel
    from models.risk.specific import SpecificRisk
    from models.risk.stress import historical_stress, scenario_stress
    from models.risk.tails import (
        filtered_historical,
        gaussian_es,
        gaussian_var,
        variance_at_horizon,
        volatility_at_horizon,
    )
    from schemas.spec import WalkForward

__all__ = [
    "IPCA",
    "PCA",
    "RPPCA",
    "AttentionSDF",
    "BlockedFolds",
    "ConditionalAutoencoder",
    "Constraints",
    "CoskewnessPCA",
    "CrossSectionalModel",
    "Dense",
    "FactorAnalysis",
    "FactorCovariance",
    "FactorForm",
    "FactorModel",
    "FamaMacBeth",
    "Forecast",
    "Hybrid",
    "KernelIPCA",
    "MarketModel",
    "MeanOfModels",
    "ModelState",
    "Panel",
    "PenalisedModel",
    "RandomFeatureSDF",
    "RegressedPCA",
    "ResidualNetwork",
    "ResidualPCA",
    "ResidualSOM",
    "RiskModel",
    "RiskNetwork",
    "Rules",
    "SDFNetwork",
    "SearchResult",
    "SortedPortfolios",
    "SpecificRisk",
    "TimeSeriesModel",
    "TwoPass",
    "WalkForward",
    "active_weights",
    "allocate",
    "attribute",
    "beta",
    "canonical_correlations",
    "characteristic_importance",
    "covariance",
    "diebold_mariano",
    "double_sort",
    "earned",
    "efficient_frontier",
    "factor_risk_parity",
    "filtered_historical",
    "forecast",
    "full_sample_betas",
    "gaussian_es",
    "gaussian_var",
    "hierarchical_risk_parity",
    "historical_stress",
    "incremental_risk",
    "judge",
    "kernel_covariance",
    "link",
    "local_loadings",
    "managed_returns",
    "managed_weights",
    "maximum_diversification",
    "mean_variance",
    "minimum_variance",
    "model_confidence_set",
    "nonlinear_risk",
    "portfolio_variances",
    "predictive_r2_scorer",
    "quantile_sort",
    "response_curves",
    "response_surface",
    "risk_parity",
    "scenario_stress",
    "search",
    "total_r2_scorer",
    "tracking_error",
    "two_pass",
    "variance_at_horizon",
    "volatility_at_horizon",
    "volatility_by_factor",
    "volatility_by_group",
    "volatility_by_ticker",
]


def __getattr__(name: str) -> Any:
    """Import a name from the module that the imports above name (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'models' has no attribute '{name}'")
    value = globals()[name] = getattr(import_module(_places()[name]), name)
    return value


@cache
def _places() -> dict[str, str]:
    """Return the module of each name that is offered, as type checkers are told above."""
    own = ast.parse(Path(__file__).read_text(encoding="utf-8"))
    told = next(node for node in own.body if isinstance(node, ast.If))
    found = [node for node in told.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in found for alias in node.names}
