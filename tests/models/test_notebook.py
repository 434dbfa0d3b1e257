"""What a notebook hands over as it comes, and what it is told: mistakes in a sentence."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pandas as pd
import pytest

from models import FactorModel, Panel
from models.families.registry import family
from schemas.errors import ConfigError, NotFittedError
from schemas.families import kinds

REQUIRED: dict[str, dict[str, Any]] = {
    **{kind: {"of": "pca"} for kind in ("hybrid", "residual_network", "residual_som")},
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
