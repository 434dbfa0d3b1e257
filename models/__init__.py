"""Pure maths on numpy, xarray, torch and scikit-learn: all that a notebook needs, without a store or a server.

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
name the type of an array                    `models.arrays`
know what decides the last bits              `models.blas`
==========================================  ============================
"""

from models.blas import fix_order_of_sums

fix_order_of_sums()  # before any of the following multiplies a matrix

from models.allocation import (  # noqa: E402
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
from models.evaluation.explaining import (  # noqa: E402
    canonical_correlations,
    characteristic_importance,
    response_curves,
    response_surface,
)
from models.evaluation.protocol import Dense, FactorForm, Forecast, Rules, judge  # noqa: E402
from models.evaluation.selection import predictive_r2_scorer, total_r2_scorer  # noqa: E402
from models.evaluation.superiority import model_confidence_set  # noqa: E402
from models.families.autoencoder import ConditionalAutoencoder  # noqa: E402
from models.families.base import FactorModel, ModelState  # noqa: E402
from models.families.coskewness import CoskewnessPCA  # noqa: E402
from models.families.cross_section import CrossSectionalModel  # noqa: E402
from models.families.factor_analysis import FactorAnalysis  # noqa: E402
from models.families.fama_macbeth import FamaMacBeth  # noqa: E402
from models.families.hybrid import Hybrid  # noqa: E402
from models.families.ipca import IPCA  # noqa: E402
from models.families.kernel import KernelIPCA, kernel_covariance  # noqa: E402
from models.families.mean_of_models import MeanOfModels  # noqa: E402
from models.families.pca import PCA, RPPCA  # noqa: E402
from models.families.penalised import PenalisedModel  # noqa: E402
from models.families.penalised.cross_validation import BlockedFolds  # noqa: E402
from models.families.regressed_pca import RegressedPCA  # noqa: E402
from models.families.residual_network import ResidualNetwork  # noqa: E402
from models.families.residual_som import ResidualSOM  # noqa: E402
from models.families.risk_network import RiskNetwork  # noqa: E402
from models.families.sdf import AttentionSDF, RandomFeatureSDF, SDFNetwork  # noqa: E402
from models.families.time_series import MarketModel, TimeSeriesModel  # noqa: E402
from models.forecasting.forecast import forecast  # noqa: E402
from models.inference.diebold_mariano import diebold_mariano  # noqa: E402
from models.inference.factor_premia import TwoPass, two_pass  # noqa: E402
from models.inference.two_pass import full_sample_betas  # noqa: E402
from models.panel import Panel  # noqa: E402
from models.portfolios.sorts import (  # noqa: E402
    SortedPortfolios,
    double_sort,
    managed_returns,
    managed_weights,
    quantile_sort,
)
from models.risk.attribution import attribute, link  # noqa: E402
from models.risk.benchmark import active_weights, beta, covariance, incremental_risk, tracking_error  # noqa: E402
from models.risk.contributions import volatility_by_factor, volatility_by_group, volatility_by_ticker  # noqa: E402
from models.risk.covariance import FactorCovariance  # noqa: E402
from models.risk.many import portfolio_variances  # noqa: E402
from models.risk.nonlinear import local_loadings, nonlinear_risk  # noqa: E402
from models.risk.portfolio import RiskModel  # noqa: E402
from models.risk.specific import SpecificRisk  # noqa: E402
from models.risk.stress import historical_stress, scenario_stress  # noqa: E402
from models.risk.tails import (  # noqa: E402
    filtered_historical,
    gaussian_es,
    gaussian_var,
    variance_at_horizon,
    volatility_at_horizon,
)
from schemas.spec import WalkForward  # noqa: E402

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
    "ResidualSOM",
    "RiskModel",
    "RiskNetwork",
    "Rules",
    "SDFNetwork",
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
    "total_r2_scorer",
    "tracking_error",
    "two_pass",
    "variance_at_horizon",
    "volatility_at_horizon",
    "volatility_by_factor",
    "volatility_by_group",
    "volatility_by_ticker",
]
