"""What a notebook hands over as it comes, and what it is told: mistakes in a sentence, and scikit-learn over dates."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit, cross_val_score
from sklearn.pipeline import Pipeline

from models import (
    IPCA,
    BlockedFolds,
    FactorModel,
    FamaMacBeth,
    Panel,
    full_sample_betas,
    predictive_r2_scorer,
    total_r2_scorer,
)
from models.families.registry import family
from models.families.summary import Summary
from models.panel import example_panel
from schemas.errors import ConfigError, DataError, NotFittedError
from schemas.families import kinds

REQUIRED: dict[str, dict[str, Any]] = {
    **{kind: {"of": "pca"} for kind in ("hybrid", "residual_network", "residual_pca", "residual_som")},
    "mean_of_models": {"of": ("one", "other")},
}


def of_a_panel(model: FactorModel) -> list[str]:
    """Names of the public methods that need a panel and nothing else."""
    found = []
    for name, method in inspect.getmembers(model, inspect.ismethod):
        needed = [key for key, one in inspect.signature(method).parameters.items() if one.default is one.empty]
        if needed == ["panel"] and not name.startswith("_") and name != "own_specific_variance":
            found.append(name)
    return found


@pytest.mark.parametrize("kind", kinds())
def test_a_model_says_what_it_takes_and_when(kind: str) -> None:
    model = family(kind)(**REQUIRED.get(kind, {}))
    assert clone(model).get_params() == model.get_params()
    methods = of_a_panel(model)
    assert {"fit", "loadings", "factor_returns", "expected_returns", "residuals", "score"} <= {*methods}
    panel = Panel.from_arrays(np.full((3, 2), 0.01), np.ones((3, 2, 1)))
    for name in methods:
        for other in (pd.DataFrame({"ret": [0.01]}), np.ones((3, 2)), panel.data, None):
            with pytest.raises(ConfigError, match=r"takes a models\.Panel, not a .*; build one with Panel\.from_long"):
                getattr(model, name)(other)
        if name not in {"fit", "design", "beta_path"}:
            with pytest.raises(NotFittedError, match=r"is not fitted yet; call fit|hand them, fitted, to on\(\)"):
                getattr(model, name)(panel)


def test_scikit_learn_chooses_parameters_over_the_dates_of_a_panel() -> None:
    panel, folds = example_panel(), BlockedFolds(n_folds=3, purge=2)
    search = GridSearchCV(
        Pipeline([("model", IPCA(max_iter=2000))]), {"model__n_factors": [1, 2]}, scoring=_of_pipeline, cv=folds
    ).fit(panel)
    alone = GridSearchCV(IPCA(max_iter=2000), {"n_factors": [1, 2]}, scoring=total_r2_scorer, cv=folds).fit(panel)
    for place, n_factors in enumerate((1, 2)):
        by_hand = [
            IPCA(n_factors, max_iter=2000)
            .fit(Panel(panel.data.isel(date=train)))
            .score(Panel(panel.data.isel(date=test)))["total_r2"]
            for train, test in folds.split(panel)
        ]
        for found in (search, alone):
            assert found.cv_results_["mean_test_score"][place] == np.mean(by_hand)
    assert clone(alone.best_estimator_).get_params() == IPCA(2, max_iter=2000).get_params()
    np.testing.assert_array_equal(alone.best_estimator_.gamma_, IPCA(2, max_iter=2000).fit(panel).gamma_)
    assert cross_val_score(IPCA(2), panel, scoring=predictive_r2_scorer, cv=TimeSeriesSplit(3, gap=1)).shape == (3,)


def _of_pipeline(pipeline: Pipeline, panel: Panel) -> float:
    return total_r2_scorer(pipeline[-1], panel)


def test_dates_are_taken_by_position_and_in_order() -> None:
    panel = example_panel()
    assert len(panel) == len(panel.dates)
    assert panel.iloc[:3].dates.equals(panel.dates[:3])
    assert panel.take(np.array([0, 5])).dates.equals(panel.dates[[0, 5]])
    with pytest.raises(DataError, match="Dates must strictly increase"):
        panel.take(np.array([5, 0]))
    with pytest.raises(DataError, match="not along axis 1"):
        panel.take(np.array([0]), axis=1)


def test_a_summary_has_the_errors_of_the_model() -> None:
    panel = full_sample_betas(example_panel())
    model = FamaMacBeth(estimated_betas={"beta_market": "market"}).fit(panel)
    table = model.summary().premia
    np.testing.assert_array_equal(table["stderr"], model.shanken_stderr_)
    np.testing.assert_array_equal(table["t"], model.t_statistics_)
    np.testing.assert_allclose(table["p_value"], stats.chi2.sf(np.square(model.t_statistics_), 1), rtol=1e-12)
    np.testing.assert_array_equal(table["n_obs"], model.n_slopes_)


def test_pages_of_a_notebook_show_names_as_text() -> None:
    returns = pd.DataFrame(np.full((4, 2), 0.01), pd.bdate_range("2024-01-01", periods=4), ["A", "B"])
    returns.iloc[2, 0] = np.nan
    panel = Panel.from_wide(returns, {"<b>": returns.notna().astype(float)}, lag=0)
    facts = panel.facts()
    assert facts["dates"] == "4 dates from 2024-01-01 to 2024-01-04"
    assert facts["covered"] == "100.0% of 8 cells"
    assert facts["in the estimation universe"] == "87.5%"
    assert facts["covered without a usable return"] == "12.5%"
    assert "&lt;b&gt;" in panel._repr_html_()
    assert "<b>," not in panel._repr_html_()
    summary = Summary("<i>", {"<u>": "<u>"}, pd.DataFrame({"estimate": [0.1]}, index=["<s>"]))
    assert not [tag for tag in ("<i>", "<u>", "<s>") if tag in summary._repr_html_()]
