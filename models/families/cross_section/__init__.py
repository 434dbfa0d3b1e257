"""Cross-sectional factor models in Barra's style: market, industries and styles, regressed anew at every date.

Here belong the regression under the constraint on industries (`regression`), what it needs of the rows of a panel
(`rows`), pure factor portfolios (`portfolios`), diagnostics by date (`diagnostics`) and the model (`model`). The
regression on characteristics alone, averaged into premia, is `models.families.fama_macbeth.model`.
"""

from models.families.cross_section.model import CrossSectionalModel

__all__ = ["CrossSectionalModel"]
