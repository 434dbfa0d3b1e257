"""Diagnostics of loadings, beside their peers."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.outliers_influence import variance_inflation_factor

from models.evaluation import structure
from models.evaluation.covariances import Dense, FactorForm


def test_variance_inflation_is_statsmodels_and_infinite_for_sectors_with_a_constant() -> None:
    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(80, 4)) * [1.0, 2.0, 0.1, 1.0] + [0.0, 5.0, 1.0, 0.0]
    loadings[:, 3] += loadings[:, 0]
    design = np.column_stack([np.ones(80), loadings])
    peer = [variance_inflation_factor(design, place) for place in range(1, 5)]
    np.testing.assert_allclose(structure.variance_inflation(loadings), peer, rtol=1e-9)
    sector = (np.arange(80) % 3)[:, None] == np.arange(3)
    found = structure.variance_inflation(np.column_stack([np.ones(80), sector, loadings]))
    assert np.isnan(found[0])
    assert np.isinf(found[1:4]).all()
    assert np.isfinite(found[4:]).all()


def test_stability_sees_drift_and_the_overlap_does_not_see_rotation() -> None:
    rng = np.random.default_rng(1)
    one = rng.normal(size=(400, 3))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    assert structure.subspace_overlap(one, one @ turn) == pytest.approx(1.0)
    assert structure.subspace_overlap(one, rng.normal(size=(400, 3))) < 0.05
    drifted = 0.9 * one + np.sqrt(1 - 0.81) * rng.normal(size=(400, 3))
    np.testing.assert_allclose(structure.factor_stability(one, drifted), 0.9, atol=0.04)
    expected = [np.corrcoef(one[:, k], drifted[:, k])[0, 1] for k in range(3)]
    np.testing.assert_allclose(structure.factor_stability(one, drifted), expected, rtol=1e-12)


def test_explanatory_power_is_the_share_of_a_weighted_regression_and_dispersion_its_expectation() -> None:
    rng = np.random.default_rng(2)
    form = FactorForm(rng.normal(size=(60, 3)), np.diag([3e-4, 1e-4, 5e-5]), rng.uniform(1e-4, 4e-4, 60))
    dense = Dense(form.times(np.eye(60)))
    returns = rng.multivariate_normal(np.zeros(60), dense.covariance, size=20_000)
    y, design = returns[0] / form.scale, form.loadings / form.scale[:, None]
    residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    found = structure.explanatory_power(form, returns[:2])
    assert found[0] == pytest.approx(1.0 - residual @ residual / (y @ y), rel=1e-9)
    spread = structure.dispersion(returns)
    assert spread[0] == pytest.approx(returns[0].var(ddof=1), rel=1e-12)
    assert spread.mean() == pytest.approx(structure.expected_dispersion(form), rel=0.01)
    assert structure.expected_dispersion(form) == pytest.approx(structure.expected_dispersion(dense), rel=1e-12)
    returns[1, :3] = np.nan
    assert structure.dispersion(returns[1:2])[0] == pytest.approx(np.nanvar(returns[1], ddof=1), rel=1e-12)
