"""The factor form gives what the n x n matrix gives, and never makes it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from models.evaluation.covariances import Dense, FactorForm
from models.evaluation.likelihood import gaussian, gaussian_by_date
from schemas.errors import DataError


def made(n: int = 30, k: int = 4, seed: int = 0) -> tuple[FactorForm, Dense]:
    rng = np.random.default_rng(seed)
    half = rng.normal(size=(k, k))
    form = FactorForm(rng.normal(size=(n, k)), half @ half.T * 1e-4, rng.uniform(1e-5, 4e-4, n))
    return form, Dense(form.loadings @ form.omega @ form.loadings.T + np.diag(form.specific_variance))


def test_every_operation_is_that_of_the_dense_matrix() -> None:
    form, dense = made()
    b = np.random.default_rng(1).normal(size=(30, 3))
    kept, added = np.array([3, 0, 17]), np.linspace(0.0, 1e-3, 30)
    for one, other in (
        (form, dense),
        (form.restricted(kept), dense.restricted(kept)),
        (form.plus_diagonal(added), dense.plus_diagonal(added)),
    ):
        some = b[: one.n_stocks]
        np.testing.assert_allclose(one.variance(some.T), other.variance(some.T), rtol=1e-12)
        np.testing.assert_allclose(one.times(some), other.times(some), rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(one.solve(some), np.linalg.solve(other.covariance, some), rtol=1e-8)
        np.testing.assert_allclose(other.solve(some), np.linalg.solve(other.covariance, some), rtol=1e-8)
        np.testing.assert_allclose(one.diagonal, np.diag(other.covariance), rtol=1e-12)
        expected = np.linalg.slogdet(other.covariance)[1]
        assert one.log_determinant() == pytest.approx(expected, rel=1e-12)
        assert other.log_determinant() == pytest.approx(expected, rel=1e-12)


def test_eigenvectors_are_those_of_the_whitened_matrix_also_with_a_singular_omega() -> None:
    form, _ = made()
    form = FactorForm(form.loadings, np.diag([2e-4, 1e-4, 5e-5, 0.0]), form.specific_variance)
    values, vectors = form.eigen()
    whole = form.loadings @ form.omega @ form.loadings.T + np.diag(form.specific_variance)
    expected = np.linalg.eigvalsh(whole / np.outer(form.scale, form.scale))[::-1]
    np.testing.assert_allclose(values, expected[:3], rtol=1e-10)
    np.testing.assert_allclose(expected[3:], 1.0, rtol=1e-10)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-10)
    np.testing.assert_allclose(form.variance((vectors / form.scale[:, None]).T), values, rtol=1e-10)


def test_what_is_no_covariance_is_refused() -> None:
    form, dense = made()
    with pytest.raises(DataError, match="specific variance of stock 2 is not positive"):
        FactorForm(form.loadings, form.omega, np.where(np.arange(30) == 2, 0.0, form.specific_variance))
    with pytest.raises(DataError, match="needs \\(4, 4\\)"):
        FactorForm(form.loadings, form.omega[:3, :3], form.specific_variance)
    with pytest.raises(DataError, match="not finite"):
        FactorForm(form.loadings * np.nan, form.omega, form.specific_variance)
    with pytest.raises(DataError, match="omega is not a covariance"):
        FactorForm(form.loadings, -form.omega, form.specific_variance).variance(np.ones((1, 30)))
    with pytest.raises(DataError, match="not positive definite"):
        Dense(dense.covariance - 1e-2 * np.eye(30)).solve(np.ones((30, 1)))


def test_the_likelihood_is_scipys_and_leaves_unknown_returns_out() -> None:
    form, dense = made()
    rng = np.random.default_rng(2)
    returns = rng.multivariate_normal(np.zeros(30), dense.covariance, size=7)
    returns[2, [0, 5]], returns[4, 5], returns[6] = np.nan, np.nan, np.nan
    for covariance in (form, dense):
        found = gaussian(covariance, returns)
        for day, r in enumerate(returns[:6]):
            known = np.isfinite(r)
            part = dense.covariance[known][:, known]
            density = stats.multivariate_normal(np.zeros(known.sum()), part).logpdf(r[known])
            assert found.log_likelihood[day] == pytest.approx(density, rel=1e-9)
            assert found.mahalanobis[day] == pytest.approx(r[known] @ np.linalg.solve(part, r[known]), rel=1e-9)
        assert np.isnan(found.log_likelihood[6])
        assert found.n_stocks.tolist() == [30, 30, 28, 30, 29, 30, 0]


def test_many_dates_at_once_are_each_date_by_itself() -> None:
    rng = np.random.default_rng(3)
    forms = [made(seed=seed)[0] for seed in range(5)]
    loadings, omega, specific = (
        np.stack([getattr(form, name) for form in forms]) for name in ("loadings", "omega", "specific_variance")
    )
    returns = rng.normal(0.0, 0.02, (5, 30))
    returns[1, 3], loadings[2, 4, 1], specific[3, 7], omega[4] = np.nan, np.nan, np.nan, np.nan
    found = gaussian_by_date(loadings, omega, specific, returns)
    for day, gone in enumerate(([], [3], [4], [7])):
        kept = np.setdiff1d(np.arange(30), gone)
        one = gaussian(forms[day].restricted(kept), returns[day : day + 1, kept])
        assert found.log_likelihood[day] == pytest.approx(one.log_likelihood[0], rel=1e-10)
        assert found.mahalanobis[day] == pytest.approx(one.mahalanobis[0], rel=1e-10)
    assert np.isnan(found.log_likelihood[4])
    assert found.n_stocks.tolist() == [30, 29, 29, 29, 0]
