"""A common scale of residuals, against a known truth."""

from __future__ import annotations

import numpy as np
import pytest
from scaled_worlds import row, table

from models.risk.common_scale import robust_factors, scale_factor
from schemas.errors import ModelError


def test_the_scale_and_the_linear_factors_are_seen_in_any_units() -> None:
    found = row(3)
    assert found["scale"] > 0.92 > 0.3 > found["scale, 3 components"]
    assert found["first factor"] > 0.98
    assert row(3, unit=0.01) == pytest.approx(found, abs=1e-6)


def test_gaps_and_wild_cells_do_not_decide() -> None:
    rng = np.random.default_rng(0)
    factor, loadings = np.exp(0.5 * rng.standard_normal(300)), rng.uniform(0.5, 2.0, 80)
    residuals = np.outer(factor, loadings) * rng.standard_normal((300, 80))
    residuals[rng.random(residuals.shape) < 0.1] = np.nan
    residuals[5] = residuals[:, 7] = np.nan
    residuals[10, 11] = 1e6
    found = scale_factor(residuals)
    assert np.isnan(found.factor[5])
    assert np.isnan(found.loadings[7])
    assert np.corrcoef(np.log(np.delete(found.factor, 5)), np.log(np.delete(factor, 5)))[0, 1] > 0.97
    assert np.corrcoef(np.log(np.delete(found.loadings, 7)), np.log(np.delete(loadings, 7)))[0, 1] > 0.97


def test_nothing_to_see_is_refused() -> None:
    with pytest.raises(ModelError, match="no scale"):
        scale_factor(np.zeros((4, 3)))
    with pytest.raises(ModelError, match="n_factors=3: these are 4 dates of 3 stocks"):
        robust_factors(np.ones((4, 3)), 3)


@pytest.mark.slow
def test_twenty_four_worlds() -> None:
    found = table().mean()
    assert found["scale"] >= 0.92
    assert found["first factor"] >= 0.98
