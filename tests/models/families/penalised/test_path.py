"""The solver: scikit-learn's solutions from rows, from cross-products alone; and the certificate of each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import ElasticNet, Ridge, enet_path, lasso_path

from models.families.penalised import Moments, Quadratic, lambda_grid, penalised_path


def rows(n: int = 300, k: int = 12, correlation: float = 0.6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Correlated regressors of very different units, a sparse truth, and means that are not zero."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((n, 1))
    X = np.sqrt(correlation) * common + np.sqrt(1.0 - correlation) * rng.standard_normal((n, k))
    X = 1.5 + X * np.geomspace(0.1, 10.0, k)
    y = 0.7 + X[:, ::4] @ np.array([1.0, -0.5, 0.2])[: len(X[0, ::4])] + 2.0 * rng.standard_normal(n)
    return X, y


def moments(X: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> Moments:
    """Cross-products of one problem, as a batch of one."""
    w = np.ones(len(y)) if weight is None else weight
    Z = np.column_stack([np.ones(len(y)), X])
    return Moments((Z.T @ (Z * w[:, None]))[None], (Z.T @ (w * y))[None], np.array([(w * y) @ y]))


@pytest.mark.parametrize("l1_ratio", [1.0, 0.5, 0.05])
@pytest.mark.parametrize("correlation", [0.0, 0.6, 0.999])
def test_the_path_is_that_of_scikit_learn_from_rows(l1_ratio: float, correlation: float) -> None:
    X, y = rows(correlation=correlation)
    quadratic = moments(X, y).quadratic(standardise=False)
    grid = lambda_grid(quadratic, l1_ratio, 60)
    path = penalised_path(quadratic, grid, l1_ratio)
    centred = X - X.mean(axis=0), y - y.mean()
    precise = {"tol": 1e-13, "max_iter": 2_000_000}
    if l1_ratio == 1.0:
        _, peer, _ = lasso_path(*centred, alphas=grid[0], **precise)
    else:
        _, peer, _ = enet_path(*centred, l1_ratio=l1_ratio, alphas=grid[0], **precise)
    np.testing.assert_allclose(path.coefficients[0].T, peer, atol=1e-6)
    assert path.converged.all()
    assert path.gap.max() < 1e-12
    assert not path.coefficients[0, 0].any()
    assert path.coefficients[0, 1].any()


@pytest.mark.parametrize("l1_ratio", [1.0, 0.5, 0.0])
def test_weights_and_the_intercept_are_those_of_scikit_learn(l1_ratio: float) -> None:
    X, y = rows()
    weight = np.random.default_rng(1).uniform(0.0, 3.0, len(y))
    quadratic = moments(X, y, weight).quadratic(standardise=False)
    grid = lambda_grid(quadratic, l1_ratio, 9)
    slopes = quadratic.slopes(penalised_path(quadratic, grid, l1_ratio).coefficients)
    for strength, found in zip(grid[0], slopes[0], strict=True):
        if l1_ratio == 0.0:
            peer = Ridge(alpha=strength * weight.sum())
        else:
            peer = ElasticNet(alpha=strength, l1_ratio=l1_ratio, tol=1e-14, max_iter=1_000_000)
        peer.fit(X, y, sample_weight=weight)
        np.testing.assert_allclose(found, [peer.intercept_, *peer.coef_], atol=1e-6)


@pytest.mark.parametrize("l1_ratio", [1.0, 0.5, 0.0])
def test_standardised_slopes_come_back_in_the_units_of_the_data(l1_ratio: float) -> None:
    X, y = rows()
    quadratic = moments(X, y).quadratic(standardise=True)
    grid = lambda_grid(quadratic, l1_ratio, 9)
    slopes = quadratic.slopes(penalised_path(quadratic, grid, l1_ratio).coefficients)
    scaled, response = (X - X.mean(axis=0)) / X.std(axis=0), y / y.std()
    for strength, found in zip(grid[0], slopes[0], strict=True):
        if l1_ratio == 0.0:
            peer = Ridge(alpha=strength * len(y)).fit(scaled, response)
        else:
            peer = ElasticNet(alpha=strength, l1_ratio=l1_ratio, tol=1e-14, max_iter=1_000_000).fit(scaled, response)
        np.testing.assert_allclose(found[1:], peer.coef_ * y.std() / X.std(axis=0), atol=1e-6)
        np.testing.assert_allclose(found[0] + X @ found[1:], peer.predict(scaled) * y.std(), atol=1e-6)


def test_collinear_and_constant_regressors_have_an_answer() -> None:
    X, y = rows(k=6)
    X = np.column_stack([X, X[:, 0] - 2.0 * X[:, 3], X[:, 4], np.full(len(y), 3.0)])
    quadratic = moments(X, y).quadratic(standardise=False)
    centred = X - X.mean(axis=0), y - y.mean()
    for l1_ratio in (1.0, 0.5):
        grid = lambda_grid(quadratic, l1_ratio, 30)
        path = penalised_path(quadratic, grid, l1_ratio)
        _, peer, _ = enet_path(*centred, l1_ratio=l1_ratio, alphas=grid[0], tol=1e-14, max_iter=1_000_000)
        assert path.converged.all()
        assert path.gap.max() < 1e-8
        assert not path.coefficients[0, :, -1].any()
        # A lasso on collinear columns has many solutions, all with the same fit; an elastic net has one.
        np.testing.assert_allclose(centred[0] @ path.coefficients[0].T, centred[0] @ peer, atol=1e-6)
        if l1_ratio < 1.0:
            np.testing.assert_allclose(path.coefficients[0].T, peer, atol=1e-6)
    grid = np.array([[10.0, 1e-3]])
    ridge = penalised_path(quadratic, grid, 0.0).coefficients[0]
    for strength, found in zip(grid[0], ridge, strict=True):
        np.testing.assert_allclose(found, Ridge(alpha=strength * len(y)).fit(X, y).coef_, atol=1e-6)


def test_a_penalty_of_zero_is_least_squares() -> None:
    X, y = rows()
    quadratic = moments(X, y).quadratic(standardise=True)
    least_squares = np.linalg.lstsq(np.column_stack([np.ones(len(y)), X]), y, rcond=None)[0]
    for l1_ratio in (1.0, 0.0):
        path = penalised_path(quadratic, np.zeros((1, 1)), l1_ratio)
        np.testing.assert_allclose(quadratic.slopes(path.coefficients)[0, 0], least_squares, atol=1e-8)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    size=st.integers(1, 8),
    rank=st.integers(1, 8),
    l1_ratio=st.sampled_from([0.1, 0.5, 1.0]),
    share=st.floats(1e-4, 1.2),
)
def test_every_solution_satisfies_its_optimality_conditions(
    seed: int, size: int, rank: int, l1_ratio: float, share: float
) -> None:
    """Of random problems of any rank, in one batch with an empty one, from any start."""
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((3, size, rank)) * rng.choice([1e-2, 1.0, 10.0], size=(3, size, 1))
    root[2] = 0.0  # no rows
    truth = rng.standard_normal((3, rank))
    gram, moment = root @ root.transpose(0, 2, 1), (root @ truth[..., None])[..., 0]
    ones = np.ones(3)
    variance = np.square(truth).sum(axis=1) + 1.0
    quadratic = Quadratic(gram, moment, variance, np.ones_like(moment), np.zeros_like(moment), 0.0 * ones, ones)
    largest = np.abs(moment).max(axis=1)
    grid = (share * largest / l1_ratio)[:, None]
    path = penalised_path(quadratic, grid, l1_ratio, start=rng.standard_normal(moment.shape))
    b, l1, l2 = path.coefficients[:, 0], grid * l1_ratio, grid * (1.0 - l1_ratio)
    pull = moment - (gram @ b[..., None])[..., 0] - l2 * b
    slack = 1e-9 * largest[:, None] + 1e-300
    assert path.converged.all()
    assert (np.abs(pull) <= l1 + slack).all()
    assert (np.abs(pull - l1 * np.sign(b))[b != 0.0] <= np.broadcast_to(slack, b.shape)[b != 0.0]).all()
    assert (path.gap < 1e-8).all()
    assert not b[2].any()
    if share >= 1.0:
        assert np.abs(b).max() < 1e-12


@settings(max_examples=20, deadline=None)
@given(
    units=st.lists(st.floats(1e-4, 1e4), min_size=12, max_size=12),
    response=st.sampled_from([0.01, 1.0, 100.0]),
    l1_ratio=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_units_have_no_say_once_standardised(units: list[float], response: float, l1_ratio: float) -> None:
    X, y = rows()
    scale = np.array(units)
    plain, scaled = (m.quadratic(standardise=True) for m in (moments(X, y), moments(X * scale, y * response)))
    grid, other = lambda_grid(plain, l1_ratio, 5), lambda_grid(scaled, l1_ratio, 5)
    np.testing.assert_allclose(other, grid, rtol=1e-9)
    slopes = plain.slopes(penalised_path(plain, grid, l1_ratio).coefficients)[..., 1:]
    found = scaled.slopes(penalised_path(scaled, other, l1_ratio).coefficients)[..., 1:]
    np.testing.assert_allclose(found * scale / response, slopes, atol=1e-8)


def test_a_batch_gives_what_each_of_its_problems_gives_alone() -> None:
    parts = [moments(*rows(seed=seed, correlation=0.1 * seed)) for seed in range(6)]
    batch = Moments(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("zz", "zr", "rr")))
    quadratic = batch.quadratic(standardise=True)
    grid = lambda_grid(quadratic, 1.0, 20)
    together = penalised_path(quadratic, grid, 1.0).coefficients
    for position, part in enumerate(parts):
        alone = penalised_path(part.quadratic(standardise=True), grid[[position]], 1.0).coefficients[0]
        np.testing.assert_allclose(together[position], alone, atol=1e-10)


def test_what_did_not_converge_is_said() -> None:
    X, y = rows(correlation=0.999)
    quadratic = moments(X, y).quadratic(standardise=True)
    path = penalised_path(quadratic, 1e-4 * lambda_grid(quadratic, 1.0, 2)[:, :1], 1.0, max_iter=1)
    assert not path.converged.any()
    assert path.gap.max() > 1e-12
