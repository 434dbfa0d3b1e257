"""Principal components of an unbalanced panel of returns: PCA, and RP-PCA with the means of returns in it.

Here belong the two models (`model`, `rppca`), the decomposition (`matrices`), the filling of gaps (`filling`), the
order of the two (`estimation`), and the rules for the number of factors (`factor_number`).
"""

from models.families.pca.model import PCA
from models.families.pca.rppca import RPPCA

__all__ = ["PCA", "RPPCA"]
