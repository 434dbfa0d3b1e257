from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from instrumented import instrumented
from scipy.linalg import orthogonal_procrustes

from models.families.base import FactorModel
from models.families.ipca import IPCA
from models.families.pca.model import PCA
from models.families.rotation import align, check_rotation
from models.panel import Panel
from schemas.errors import ConfigError, DataError, ModelError


def random_rotation(n_factors: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((n_factors, n_factors)))[0]


@pytest.fixture(scope="module")
def panel() -> Panel:
    returns, characteristics, _ = instrumented(n_factors=3)
    returns[np.random.default_rng(0).random(returns.shape) < 0.05] = np.nan
    return Panel.from_arrays(returns, characteristics)


@pytest.fixture(scope="module", params=[PCA(3), IPCA(3)], ids=["pca", "ipca"])
def fitted(request: pytest.FixtureRequest, panel: Panel) -> FactorModel:
    return request.param.clone().fit(panel)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_a_rotation_leaves_fits_and_covariances_unchanged(fitted: FactorModel, panel: Panel, seed: int) -> None:
    R = random_rotation(3, seed)
    rotated = fitted.rotate(R)
    X, f = fitted.loadings(panel).values, fitted.factor_returns(panel).values
    XR, fR = rotated.loadings(panel).values, rotated.factor_returns(panel).values
    np.testing.assert_allclose(XR, X @ R, atol=1e-12)
    np.testing.assert_allclose(fR, f @ R, atol=1e-10)
    np.testing.assert_allclose(rotated.premia_, fitted.premia_.values @ R, atol=1e-12)
    for name in ("fitted_returns", "expected_returns"):
        ours, theirs = (getattr(model, name)(panel).values for model in (rotated, fitted))
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
    omega, omega_rotated = np.cov(f.T), np.cov(fR.T)
    np.testing.assert_allclose(XR[-1] @ omega_rotated @ XR[-1].T, X[-1] @ omega @ X[-1].T, atol=1e-12)


def test_rotating_back_by_alignment_restores_the_factors(fitted: FactorModel, panel: Panel) -> None:
    reference = fitted.factor_returns(panel)
    other = fitted.rotate(random_rotation(3, 5))
    restored = other.rotate(align(other.factor_returns(panel).values, reference.values))
    np.testing.assert_allclose(restored.factor_returns(panel), reference, atol=1e-12)
    np.testing.assert_array_equal(fitted.factor_returns(panel), reference)  # the original is untouched


def test_alignment_solves_the_procrustes_problem_over_common_dates() -> None:
    rng = np.random.default_rng(0)
    factors = rng.standard_normal((50, 4))
    reference = factors @ random_rotation(4, 1) + 0.3 * rng.standard_normal((50, 4))
    expected, _ = orthogonal_procrustes(factors[5:45], reference[5:45])
    factors[:5], reference[45:, 2] = np.nan, np.nan
    rotation = align(factors, reference)
    np.testing.assert_allclose(rotation, expected, atol=1e-12)
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(4), atol=1e-12)


def test_what_is_not_a_rotation_is_refused(fitted: FactorModel) -> None:
    with pytest.raises(ConfigError, match="orthogonal"):
        fitted.rotate(2.0 * np.eye(3))
    with pytest.raises(ConfigError, match="3 x 3"):
        fitted.rotate(np.eye(2))
    with pytest.raises(ConfigError, match="may not mix"):
        check_rotation(random_rotation(3, 0), 3, [slice(0, 2)])
    with pytest.raises(ConfigError, match="may not mix"):
        check_rotation(np.diag([1.0, 1.0, -1.0]), 3, [slice(0, 2)])
    with pytest.raises(DataError, match="one shape"):
        align(np.zeros((5, 2)), np.zeros((5, 3)))
    with pytest.raises(ModelError, match="at least 2 common dates; there are 1"):
        align(np.array([[1.0, 2.0], [np.nan, 1.0]]), np.ones((2, 2)))
