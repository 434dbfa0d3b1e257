"""Tests of superiority: their size, their power, and their peer."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from models.evaluation.superiority import model_confidence_set
from models.inference.diebold_mariano import diebold_mariano
from schemas.errors import DataError


def test_diebold_mariano_is_a_newey_west_mean_with_its_correction() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.standard_normal((2, 200)).cumsum(axis=1) * 0.1 + rng.standard_normal((2, 200))
    found = diebold_mariano(one, other, horizon=6)
    peer = sm.OLS(one - other, np.ones(200)).fit(cov_type="HAC", cov_kwds={"maxlags": 5})
    correction = np.sqrt((200 + 1 - 12 + 30 / 200) / 200)
    assert found.statistic == pytest.approx(float(peer.tvalues[0]) * correction, rel=1e-9)
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(found.statistic), 199), rel=1e-9)
    back = diebold_mariano(other, one, horizon=6)
    assert (back.statistic, back.p_value) == (-found.statistic, found.p_value)
    assert back.p_worse == pytest.approx(1.0 - found.p_worse)
    gaps = [np.insert(series, 50, value) for series, value in ((one, np.nan), (other, 3.0))]
    assert diebold_mariano(*gaps, horizon=6) == found


def test_diebold_mariano_has_its_size_on_dependent_losses() -> None:
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((600, 400))
    for t in range(1, 400):
        noise[:, t] += 0.3 * noise[:, t - 1]
    p_values = np.array([diebold_mariano(row, np.zeros(400)).p_worse for row in noise])
    assert np.mean(p_values < 0.05) == pytest.approx(0.06, abs=0.03)


def test_equal_losses_and_a_constant_difference_are_not_divided_by_zero() -> None:
    losses = np.linspace(0.0, 1.0, 50)
    same = diebold_mariano(losses, losses)
    assert (same.statistic, same.p_value, same.p_worse) == (0.0, 1.0, 0.5)
    worse = diebold_mariano(np.full(50, 2.0), np.full(50, 1.0))
    assert (worse.statistic, worse.p_value, worse.p_worse) == (np.inf, 0.0, 0.0)
    assert np.isnan(diebold_mariano(losses[:1], losses[:1]).p_value)
    with pytest.raises(DataError):
        diebold_mariano(losses, losses[:-1])


def test_the_confidence_set_keeps_the_best_and_drops_the_worse() -> None:
    """Three equally good and two worse models, 60 samples: all three stay in about 90 %, the bad ones almost never."""
    rng = np.random.default_rng(2)
    kept, bad = [], []
    for seed in range(60):
        common = rng.standard_normal((400, 1))
        losses = common + 0.5 * rng.standard_normal((400, 5)) + np.array([0.0, 0.0, 0.0, 0.15, 0.4])
        found = model_confidence_set(losses, mean_block=5.0, n_bootstrap=500, seed=seed)
        kept.append(found.included[:3].all())
        bad.append(found.included[3:])
    assert np.mean(kept) >= 0.8
    assert np.mean(bad) <= 0.05


def test_the_confidence_set_ignores_what_models_share_their_order_and_copies() -> None:
    rng = np.random.default_rng(3)
    losses = rng.standard_normal((300, 4)) + np.array([0.0, 0.05, 0.1, 0.5])
    found = model_confidence_set(losses, seed=4)
    assert found.p_values.max() == 1.0
    assert not found.included[3]
    order = np.array([2, 0, 3, 1])
    np.testing.assert_allclose(model_confidence_set(losses[:, order], seed=4).p_values, found.p_values[order])
    shifted = losses + 10.0 * rng.standard_normal((300, 1))
    np.testing.assert_allclose(model_confidence_set(shifted, seed=4).p_values, found.p_values)
    assert model_confidence_set(np.repeat(losses[:, :1], 3, axis=1)).included.all()
    assert model_confidence_set(losses[:, :1]).p_values.tolist() == [1.0]
    with pytest.raises(DataError, match="every loss"):
        model_confidence_set(np.where(losses > 2.0, np.nan, losses))


def test_a_model_dropped_after_one_that_was_not_rejected_stays_in_the_set() -> None:
    """A noisy model goes first, its test not rejected; what comes after keeps at least that p-value."""
    rng = np.random.default_rng(5)
    best = rng.standard_normal(300)
    losses = np.column_stack([best, best + 0.02 + 0.001 * rng.standard_normal(300), rng.standard_normal(300) * 3 + 0.1])
    found = model_confidence_set(losses, n_bootstrap=500, mean_block=2.0)
    assert found.p_values[1] == found.p_values[2] > 0.1
    assert model_confidence_set(losses[:, :2], n_bootstrap=500, mean_block=2.0).p_values[1] == 0.0
