"""Scores by which scikit-learn chooses parameters of a model over a panel, whose samples are dates.

Here belong scorers for ``GridSearchCV`` and its kin. Splits of dates are `models.families.penalised.cross_validation`'s
and scikit-learn's own; what is published of a model's forecasts belongs in `forecasts` and `scoring`.

>>> from sklearn.model_selection import GridSearchCV
>>> from models import IPCA, BlockedFolds, total_r2_scorer
>>> from models.panel import example_panel
>>> search = GridSearchCV(IPCA(), {"n_factors": [1, 2]}, scoring=total_r2_scorer, cv=BlockedFolds(n_folds=3, purge=1))
>>> search.fit(example_panel()).best_params_
{'n_factors': 2}
"""

from __future__ import annotations

from models.families.base import FactorModel
from models.panel import Panel


def total_r2_scorer(model: FactorModel, panel: Panel, y: None = None) -> float:  # noqa: ARG001  # scikit-learn passes y
    """Total R2 of a fitted model over the estimation universe of a panel, as ``scoring`` of scikit-learn.

    Uncentred, with the factor returns of the dates that are scored: see `FactorModel.score`. More factors explain more
    on any dates, whether or not they are real; `predictive_r2_scorer` does not favour them.

    Parameters
    ----------
    model : FactorModel
        Fitted.
    panel : Panel
        Of other dates than those of the fit.
    y : None
        Ignored.

    Examples
    --------
    >>> from sklearn.model_selection import TimeSeriesSplit, cross_val_score
    >>> from models import IPCA, total_r2_scorer
    >>> from models.panel import example_panel
    >>> splits = TimeSeriesSplit(n_splits=3, gap=1)
    >>> cross_val_score(IPCA(n_factors=2), example_panel(), scoring=total_r2_scorer, cv=splits).shape
    (3,)
    """
    return model.score(panel)["total_r2"]


def predictive_r2_scorer(model: FactorModel, panel: Panel, y: None = None) -> float:  # noqa: ARG001  # scikit-learn's y
    """Predictive R2 of a fitted model over the estimation universe of a panel, as ``scoring`` of scikit-learn.

    Uncentred, of the expected returns, which know nothing of the dates that are scored: see `FactorModel.score`.

    Parameters
    ----------
    model, panel, y
        As in `total_r2_scorer`.

    Examples
    --------
    >>> from models import IPCA, predictive_r2_scorer
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> model = IPCA(n_factors=2).fit(panel)
    >>> predictive_r2_scorer(model, panel) == model.score(panel)["predictive_r2"]
    True
    """
    return model.score(panel)["predictive_r2"]
