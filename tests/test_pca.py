from __future__ import annotations

import warnings

import numpy as np
import pytest
import sklearn.decomposition
import statsmodels.api as sm
from sklearn.exceptions import ConvergenceWarning

from models.panel import Panel
from models.pca import PCA
from schemas.errors import ModelError


def factor_panel(
    n_dates: int, n_stocks: int, n_factors: int = 3, noise: float = 0.01, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Simulate returns with factors of unequal strength; give the true loadings too."""
    rng = np.random.default_rng(seed)
    loadings = rng.standard_normal((n_stocks, n_factors)) + np.eye(1, n_factors)
    factors = 0.001 + 0.02 * rng.standard_normal((n_dates, n_factors)) / np.arange(1, n_factors + 1)
    return factors @ loadings.T + noise * rng.standard_normal((n_dates, n_stocks)), loadings


def projection(loadings: np.ndarray) -> np.ndarray:
    return loadings @ np.linalg.pinv(loadings)


@pytest.mark.parametrize(("n_dates", "n_stocks"), [(80, 30), (40, 100)], ids=["long", "wide"])
def test_a_complete_panel_agrees_with_scikit_learn(n_dates: int, n_stocks: int) -> None:
    returns, _ = factor_panel(n_dates, n_stocks)
    panel = Panel.from_arrays(returns)
    model = PCA(n_factors=3).fit(panel)
    peer = sklearn.decomposition.PCA(3, svd_solver="full").fit(returns)
    loadings = model.loadings_.values
    signs = np.sign(peer.components_.sum(axis=1))
    np.testing.assert_allclose(loadings, (peer.components_.T * signs) * np.sqrt(n_stocks), atol=1e-8)
    np.testing.assert_allclose(loadings.T @ loadings / n_stocks, np.eye(3), atol=1e-10)
    factors = model.factor_returns(panel).values
    scores = peer.transform(returns) * signs / np.sqrt(n_stocks)
    np.testing.assert_allclose(factors - factors.mean(axis=0), scores, atol=1e-8)
    np.testing.assert_allclose(model.premia_, factors.mean(axis=0), atol=1e-12)
    assert (np.diff(factors.var(axis=0)) < 0).all()
    assert (model.converged_, model.n_iter_) == (True, 0)


def reference_least_squares(returns: np.ndarray, n_factors: int) -> np.ndarray:
    """Minimise the squared error of mean + X f over known cells by plain alternating regressions."""
    rng = np.random.default_rng(0)
    known = np.isfinite(returns)
    X = rng.standard_normal((returns.shape[1], n_factors + 1))
    for _ in range(3000):
        F = np.array([np.linalg.lstsq(X[k, 1:], r[k] - X[k, 0])[0] for r, k in zip(returns, known, strict=True)])
        design = np.column_stack([np.ones(len(F)), F])
        update = np.array([np.linalg.lstsq(design[k], r[k])[0] for r, k in zip(returns.T, known.T, strict=True)])
        if np.abs(projection(update[:, 1:]) - projection(X[:, 1:])).max() < 1e-10:
            return update[:, 1:]
        X = update
    raise AssertionError("the reference did not converge")


def test_gaps_are_filled_to_the_least_squares_solution() -> None:
    returns, _ = factor_panel(40, 12, n_factors=2, noise=0.005, seed=1)
    rng = np.random.default_rng(1)
    returns[rng.random(returns.shape) < 0.15] = np.nan
    model = PCA(n_factors=2, tol=1e-11, max_iter=5000).fit(Panel.from_arrays(returns))
    assert model.converged_
    assert model.n_iter_ > 1
    reference = reference_least_squares(returns, 2)
    np.testing.assert_allclose(projection(model.loadings_.values), projection(reference), atol=1e-7)


def test_short_histories_get_time_series_slopes_and_shorter_ones_none() -> None:
    returns, true_loadings = factor_panel(200, 40, noise=0.004)
    returns[:120, 0] = np.nan
    returns[:195, 1] = np.nan
    panel = Panel.from_arrays(returns)
    model = PCA(n_factors=3).fit(panel)
    assert np.flatnonzero(~model.estimation_).tolist() == [0, 1]
    assert np.isnan(model.loadings_.values[1]).all()
    settled = PCA(n_factors=3).fit(Panel.from_arrays(returns[:, 2:]))
    np.testing.assert_allclose(model.loadings_.values[2:], settled.loadings_.values, rtol=1e-12)
    factors = settled.factor_returns(Panel.from_arrays(returns[:, 2:])).values
    peer = sm.OLS(returns[120:, 0], sm.add_constant(factors[120:])).fit()
    np.testing.assert_allclose(model.loadings_.values[0], peer.params[1:], rtol=1e-8)
    # The slopes are near the truth in the coordinates of the fit
    rotation = np.linalg.lstsq(true_loadings[2:], settled.loadings_.values)[0]
    np.testing.assert_allclose(model.loadings_.values[0], true_loadings[0] @ rotation, atol=0.1)


def test_factor_returns_regress_on_the_stocks_at_hand() -> None:
    returns, _ = factor_panel(60, 20)
    model = PCA(n_factors=3).fit(Panel.from_arrays(returns))
    new = factor_panel(5, 20, seed=7)[0]
    new[0, 5:] = np.nan
    new[1, 2:] = np.nan  # two stocks do not carry three factors
    new[2] = np.nan
    factors = model.factor_returns(Panel.from_arrays(new)).values
    X = model.loadings_.values
    np.testing.assert_allclose(factors[0], np.linalg.lstsq(X[:5], new[0, :5])[0], atol=1e-10)
    np.testing.assert_allclose(factors[3], X.T @ new[3] / 20, atol=1e-12)
    assert np.isnan(factors[1:3]).all()


def test_next_session_without_returns_changes_nothing() -> None:
    returns, _ = factor_panel(60, 20)
    longer = np.vstack([returns, np.full((1, 20), np.nan)])
    np.testing.assert_array_equal(
        PCA(n_factors=3).fit(Panel.from_arrays(longer)).loadings_.values,
        PCA(n_factors=3).fit(Panel.from_arrays(returns)).loadings_.values,
    )


def test_too_many_factors_are_refused_with_what_the_data_carry() -> None:
    returns, _ = factor_panel(10, 30, n_factors=2, noise=0.0)
    with pytest.raises(ModelError, match=r"n_factors=10 must be from 1 to 9.*10 dates.*30 stocks"):
        PCA(n_factors=10).fit(Panel.from_arrays(returns))
    with pytest.raises(ModelError, match="n_factors=3 exceeds the rank of the returns, 2"):
        PCA(n_factors=3).fit(Panel.from_arrays(returns))
    with pytest.raises(ModelError, match="n_factors=0"):
        PCA(n_factors=0).fit(Panel.from_arrays(returns))


def test_an_unsettled_fill_is_never_called_converged() -> None:
    returns, _ = factor_panel(60, 20)
    returns[np.random.default_rng(0).random(returns.shape) < 0.3] = np.nan
    with pytest.warns(ConvergenceWarning, match="max_iter=2"):
        model = PCA(n_factors=3, max_iter=2, tol=1e-12).fit(Panel.from_arrays(returns))
    assert (model.converged_, model.n_iter_) == (False, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert PCA(n_factors=3).fit(Panel.from_arrays(returns)).converged_
