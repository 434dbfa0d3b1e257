"""Pure maths on numpy, xarray, torch and scikit-learn: all that a notebook needs, without a store or a server.

Here belong the panel, characteristics, factor models, covariance, risk, portfolios and evaluation. What schedules,
stores or draws does not.

Where do I go to ...?

=============================================  ==========================================
see what a model sees                           `models.panel`, `models.transforms`
compute characteristics from prices, volumes    `models.characteristics`
know what every model must do                   `models.base`
add per-date sufficient statistics              `models.gram`, `models.linear`
find errors, joint tests, premia along time     `models.inference`, `models.pricing_tests`, `models.factor_premia`
follow or shrink betas                          `models.betas`
choose the number of factors                    `models.factor_number`
split dates into folds, choose a penalty        `models.cross_validation`
change Omega or specific variance               `models.covariance`, `models.specific`
turn them into portfolio risk                   `models.risk`, `models.portfolios`
sort stocks on characteristics                  `models.sorts`
judge forecasts                                 `models.evaluation`
compare two risk models                         `models.comparison`, `models.differences`
find suspicious prices                          `models.quality`
=============================================  ==========================================
"""

from models.autoencoder import ConditionalAutoencoder
from models.base import FactorModel, ModelState
from models.covariance import FactorCovariance
from models.cross_section import CrossSectionalModel
from models.fama_macbeth import FamaMacBeth
from models.ipca import IPCA
from models.market import MarketModel
from models.panel import Panel
from models.pca import PCA
from models.penalised import PenalisedModel
from models.risk import RiskModel
from models.rppca import RPPCA
from models.sorts import SortedPortfolios, double_sort, managed_returns, managed_weights, quantile_sort
from models.specific import SpecificRisk
from models.time_series import TimeSeriesModel
from models.two_pass import full_sample_betas

__all__ = [
    "IPCA",
    "PCA",
    "RPPCA",
    "ConditionalAutoencoder",
    "CrossSectionalModel",
    "FactorCovariance",
    "FactorModel",
    "FamaMacBeth",
    "MarketModel",
    "ModelState",
    "Panel",
    "PenalisedModel",
    "RiskModel",
    "SortedPortfolios",
    "SpecificRisk",
    "TimeSeriesModel",
    "double_sort",
    "full_sample_betas",
    "managed_returns",
    "managed_weights",
    "quantile_sort",
]
