"""Principal components of an unbalanced panel of returns: the numerics that PCA and RP-PCA share.

`matrices` has the second moments and their eigenvectors, `filling` the estimation of missing returns, `estimation`
the order of the two and the choice of the number of factors. What a model makes of the components belongs in
`models.pca` and `models.rppca`; criteria for the number of factors, in `models.factor_number`.
"""

from models.components.estimation import Estimate, Recipe, estimate
from models.components.filling import Fill, fill, mean_filled
from models.components.matrices import Components, FilledPanel, filled_components, pairwise_components

__all__ = [
    "Components",
    "Estimate",
    "Fill",
    "FilledPanel",
    "Recipe",
    "estimate",
    "fill",
    "filled_components",
    "mean_filled",
    "pairwise_components",
]
