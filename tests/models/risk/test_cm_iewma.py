"""CM-IEWMA: its weights against the conditions of an optimum, its predictors against a direct computation."""

from __future__ import annotations

import numpy as np
import pytest
from factor_histories import correlated, history
from hypothesis import given, settings
from hypothesis import strategies as st

from models.risk.cm_iewma import likeliest_weights
from models.risk.covariance import FactorCovariance


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 7), n_rows=st.integers(1, 60), spread=st.sampled_from([0.01, 0.5]))
def test_weights_are_those_of_the_greatest_likelihood(seed: int, k: int, n_rows: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    scale = np.exp(spread * rng.normal(size=(n_rows, k))) * 100.0
    z = scale * rng.normal(size=(n_rows, 1)) * 0.01
    weights = likeliest_weights(scale, z.T @ z)
    assert weights.min() >= 0.0
    assert weights.sum() == pytest.approx(1.0)
    gradient = (scale / (scale @ weights)[:, None]).sum(axis=0) - z.T @ z @ weights
    # No move within the simplex gains, to first order: a certificate of the optimum of a concave problem.
    assert gradient.max() - gradient @ weights < 1e-6 * n_rows


def test_a_likelihood_that_one_pair_wins_gives_it_the_weight() -> None:
    """Volatility jumps sixfold: within a few days the fastest pair has all of it, and long after a slow one most."""
    x = np.random.default_rng(0).normal(size=(900, 3)) * 0.01
    x[400:] *= 6.0
    estimator = FactorCovariance(method="cm_iewma", combination={"halflives": ((5.0, 10.0), (250.0, 250.0))})
    state, fast = estimator.start(3), []
    for row in x:
        state = estimator.step(state, row)
        fast.append(estimator._base.weights(state)[0])
    assert min(fast[408:450]) > 0.9
    assert np.mean(fast[200:400]) < 0.35


def test_one_pair_is_an_iterated_ewma() -> None:
    x = correlated(300, 3)
    spec = {"halflives": ((10.0, 30.0),), "ridge": 0.0, "min_observations": 2}
    omega = FactorCovariance(method="cm_iewma", combination=spec).estimate(history(x))
    weight = 0.5 ** (np.arange(300)[::-1] / 10.0)
    volatility = np.sqrt([weight[-t:] @ np.square(x[:t]) / weight[-t:].sum() for t in range(1, 301)])
    z = (x / volatility)[2:]
    slow = 0.5 ** (np.arange(298)[::-1] / 30.0)
    moment = (z * slow[:, None]).T @ z / slow.sum()
    scale = volatility[-1] / np.sqrt(np.diagonal(moment))
    np.testing.assert_allclose(omega, moment * np.outer(scale, scale), rtol=1e-10)
