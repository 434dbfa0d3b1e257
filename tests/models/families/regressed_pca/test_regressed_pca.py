"""RegressedPCA: additive loadings that are known, its two steps by hand, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_worlds import simulate

from models.families.ipca import IPCA
from models.families.regressed_pca import RegressedPCA
from models.panel import Panel
from schemas.errors import ModelError


def additive(noise: float, seed: int = 0) -> tuple[Panel, np.ndarray, np.ndarray]:
    """Panel, loadings (date, ticker, 2) and factors (date, 2): a quadratic and a cubic function of one each."""
    rng = np.random.default_rng(seed)
    c = rng.uniform(-1.0, 1.0, (80, 150, 3)).astype(np.float32)
    truth = np.stack([3.0 * c[..., 0] ** 2 - 1.0, 5.0 * c[..., 1] ** 3 - 3.0 * c[..., 1]], axis=2).astype(np.float64)
    f = 0.02 + 0.05 * rng.standard_normal((80, 2)) * (1.0, 0.5)
    returns = (truth * f[:, None, :]).sum(axis=2) + noise * rng.standard_normal(c.shape[:2])
    returns[rng.random(returns.shape) < 0.1] = np.nan
    return Panel.from_arrays(returns, c), truth, f


def test_without_noise_additive_loadings_are_found_exactly() -> None:
    panel, truth, _ = additive(0.0)
    model = RegressedPCA(2, degree=3).fit(panel)
    X = model.loadings(panel).values[panel.mask.values]
    true = truth[panel.mask.values]
    np.testing.assert_allclose(X @ np.linalg.lstsq(X, true, rcond=None)[0], true, atol=1e-5)  # returns are float32
    assert model.explained_ == pytest.approx(1.0, abs=1e-10)
    np.testing.assert_allclose(model.residuals(panel).values[panel.mask.values], 0.0, atol=1e-7)
    np.testing.assert_allclose(X.T @ X / len(X), np.eye(2), atol=2e-3)  # dates count alike, not rows


def test_it_is_principal_components_of_slopes_on_legendre_polynomials() -> None:
    panel, _, _ = additive(0.05)
    model = RegressedPCA(2, degree=2).fit(panel)
    grams, slopes = [], []
    low, high = (getattr(panel.characteristics.values[panel.mask.values], name)(axis=0) for name in ("min", "max"))
    for date in range(80):
        inside = panel.mask.values[date]
        u = 2.0 * (panel.characteristics.values[date, inside].astype(float) - low) / (high - low) - 1.0
        phi = np.column_stack([np.ones(len(u)), u, 1.5 * u**2 - 0.5])
        grams.append(phi.T @ phi / len(phi))
        slopes.append(np.linalg.lstsq(phi, panel.returns.values[date, inside].astype(float), rcond=None)[0])
    root = np.linalg.cholesky(np.mean(grams, axis=0))
    y = np.array(slopes) @ root
    leading = np.linalg.svd(y, full_matrices=False)[2][:2].T
    gamma = np.linalg.solve(root.T, leading)
    np.testing.assert_allclose(np.abs(model._gamma), np.abs(gamma), atol=1e-6)
    assert (model.premia_ > 0.0).all()


def test_it_finds_what_linear_loadings_miss_and_nothing_that_is_not_additive() -> None:
    panel, _, _ = additive(0.1)
    held = Panel(panel.data.isel(date=slice(50, None)))
    train = Panel(panel.data.isel(date=slice(0, 50)))
    linear = IPCA(2).fit(train).score(held)["total_r2"]
    assert RegressedPCA(2, degree=3).fit(train).score(held)["total_r2"] > linear + 0.1
    world = simulate("a", 0, 8)
    additive_r2 = RegressedPCA(3, degree=1).fit(world.train).score(world.test)["total_r2"]
    assert additive_r2 == pytest.approx(IPCA(3).fit(world.train).score(world.test)["total_r2"], abs=0.03)


def test_what_cannot_be_is_refused() -> None:
    panel, _, _ = additive(0.1)
    few = Panel(panel.data.isel(ticker=slice(0, 12)))
    with pytest.raises(ModelError, match=r"On 0 of \d+ dates 25 functions"):
        RegressedPCA(2, degree=8, min_stocks=5).fit(few)
    with pytest.raises(ModelError, match="are 4 functions"):
        RegressedPCA(5, degree=1).fit(panel)
    with pytest.raises(ModelError, match="min_stocks=200"):
        RegressedPCA(1, min_stocks=200).fit(panel)
