"""Factor analysis: against scikit-learn's maximum likelihood, a known truth and plain sums."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.decomposition

from models.arrays import Float64Array
from models.families.factor_analysis import FactorAnalysis
from models.families.factor_analysis import estimation as fa
from models.panel import Panel

FLOOR = 0.1


def truth(n_stocks: int, n_factors: int, rng: np.random.Generator) -> fa.Factors:
    """Make a market and weaker factors, psi between .3 and .7, unit variances."""
    loadings = rng.normal(size=(n_stocks, n_factors)) * np.linspace(0.6, 0.25, n_factors)
    loadings[:, 0] = np.abs(loadings[:, 0]) + 0.2
    specific = rng.uniform(0.3, 0.7, n_stocks)
    loadings *= np.sqrt((1.0 - specific) / np.square(loadings).sum(axis=1))[:, None]
    return fa.Factors(loadings, specific, np.zeros(n_factors))


def sampled(found: fa.Factors, n_dates: int, rng: np.random.Generator) -> Float64Array:
    n_stocks, n_factors = found.loadings.shape
    z = rng.normal(size=(n_dates, n_factors)) @ found.loadings.T
    z += rng.normal(size=(n_dates, n_stocks)) * np.sqrt(found.specific)
    return z - z.mean(axis=0)


def covariance(found: fa.Factors) -> Float64Array:
    return found.loadings @ found.loadings.T + np.diag(found.specific)


def log_likelihood(s: Float64Array, z: Float64Array) -> float:
    """Per cell, without constants."""
    distance = float((np.linalg.solve(s, z.T) * z.T).sum()) / len(z)
    return -0.5 * (float(np.linalg.slogdet(s)[1]) + distance) / len(s)


def error(one: Float64Array, other: Float64Array) -> float:
    return float(np.sqrt(np.square(one - other).mean()))


def even(z: Float64Array) -> Float64Array:
    return np.full(len(z), 1.0 / len(z))


@pytest.mark.parametrize(("n_stocks", "n_factors"), [(100, 5), (120, 10)])
def test_two_steps_come_near_the_maximum_of_the_likelihood(n_stocks: int, n_factors: int) -> None:
    """Near beside what a factor adds to the likelihood, and beside the error that its maximum has itself."""
    rng = np.random.default_rng(1)
    true = truth(n_stocks, n_factors, rng)
    z = sampled(true, 800, rng)
    found = covariance(fa.factor_analysis(z, even(z), n_factors, FLOOR))
    peers = [
        sklearn.decomposition.FactorAnalysis(k, tol=1e-6, max_iter=1000, svd_method="lapack").fit(z).get_covariance()
        for k in (n_factors, n_factors - 1)
    ]
    np.testing.assert_allclose(found, peers[0], atol=0.01)
    assert error(found, peers[0]) < 0.04 * error(peers[0], covariance(true))
    gap, factor = (log_likelihood(peers[0], z) - log_likelihood(other, z) for other in (found, peers[1]))
    assert -1e-7 < gap < 0.02 * factor


def test_gaps_cost_little_and_cover_what_zeros_in_their_place_would_spoil() -> None:
    rng = np.random.default_rng(1)
    true = truth(100, 5, rng)
    z = sampled(true, 800, rng)
    holed = np.where(rng.random(z.shape) < 0.1, np.nan, z)
    holed[:250, :20] = np.nan
    found = [fa.factor_analysis(part, even(z), 5, FLOOR) for part in (z, holed, np.nan_to_num(holed))]
    complete, gaps, zeros = (error(covariance(one), covariance(true)) for one in found)
    assert gaps < 1.1 * complete
    assert zeros > 2.0 * complete
    late = slice(0, 20)  # what is expected of a missing cell varies less than the cell
    assert found[1].specific[late].mean() == pytest.approx(true.specific[late].mean(), rel=0.05)


@pytest.mark.parametrize("whole", [1000, 10])
@pytest.mark.parametrize("extra", [0.0, 0.3])
def test_the_tall_path_is_the_dense_eigenproblem_and_the_wide_one_agrees(
    extra: float, whole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(2)
    wide = sampled(truth(150, 4, rng), 90, rng) / np.sqrt(90)
    tall = np.concatenate([wide, np.zeros((80, 150))])  # the same products, decomposed the other way
    product = wide.T @ wide + extra * np.eye(150)
    values, vectors = np.linalg.eigh(product)
    vectors = vectors[:, :-7:-1] * np.sign(vectors[:, :-7:-1].sum(axis=0))
    monkeypatch.setattr(fa, "_WHOLLY", whole)
    for found in (fa._leading(product, 6), *([fa._of_dates(wide, 6)] if extra == 0.0 else [])):
        np.testing.assert_allclose(found[0], values[:-7:-1], rtol=1e-10)
        np.testing.assert_allclose(fa._signed(found[1]), vectors, atol=1e-9)
    one, other = (fa._decomposed(rows, np.zeros(150), np.ones(len(rows)), 6, FLOOR) for rows in (tall, wide))
    np.testing.assert_allclose(one.loadings, other.loadings, atol=1e-9)
    np.testing.assert_allclose(one.specific, other.specific, rtol=1e-9)


def test_twins_have_the_floor_and_no_riskless_bet() -> None:
    rng = np.random.default_rng(3)
    z = sampled(truth(60, 3, rng), 600, rng)
    z[:, 1] = z[:, 0] + 0.02 * rng.normal(size=600)
    variance = np.square(z).mean(axis=0)
    for floor in (0.15, 0.25):
        found = fa.factor_analysis(z, even(z), 5, floor)
        np.testing.assert_allclose(found.specific[:2], floor * variance[:2], rtol=1e-9)
        assert (found.specific[2:] > 1.05 * floor * variance[2:]).all()
    free = fa.factor_analysis(z, even(z), 5, 1e-6)
    assert free.specific[:2].max() < 0.14, "the floor is what holds it"


@pytest.mark.parametrize("n_known", [6, 30, 4000])
def test_a_late_stock_gets_the_slopes_that_its_returns_suggest(n_known: int) -> None:
    """Of 40 late stocks: better than least squares and than the mean with few returns, and the truth with many.

    Only 30 stocks make the factors, so that those are known badly: errors in variables would leave a tenth of a
    loading out. With many returns least squares errs by sampling alone.
    """
    rng = np.random.default_rng(4)
    true = truth(70, 4, rng)
    z = sampled(true, 4000, rng)
    own, late = fa.Factors(true.loadings[:30], true.specific[:30], true.eigenvalues), z[:, 30:].copy()
    scores = fa.posterior(own, z[:, :30], np.ones((4000, 30), dtype=bool))
    assert np.diag(scores.variance[0]).max() > 0.1
    late[:-n_known] = np.nan
    found, total = fa.slopes_of_others(late, scores, own)
    mean, expected = own.loadings.mean(axis=0), true.loadings[30:]
    plain = np.linalg.lstsq(scores.mean[-n_known:], late[-n_known:], rcond=None)[0].T
    np.testing.assert_allclose(total, np.square(late[-n_known:]).mean(axis=0), rtol=1e-12)
    assert error(found, expected) < error(np.broadcast_to(mean, expected.shape), expected)
    kept = np.linalg.norm(found - mean) / np.linalg.norm(plain - mean)
    if n_known == 4000:
        assert error(found, expected) < 1.05 * error(plain, expected) < 0.02
        assert (found * expected).sum() / np.square(expected).sum() == pytest.approx(1.0, abs=0.01)
        assert kept > 0.99
    else:
        assert error(found, expected) < 0.9 * error(plain, expected)
        assert kept < {6: 0.5, 30: 0.9}[n_known]


def test_scores_are_the_conditional_moments_of_the_joint_normal() -> None:
    rng = np.random.default_rng(5)
    true = truth(20, 3, rng)
    z = sampled(true, 3, rng)
    known = rng.random(z.shape) < 0.7
    scores = fa.posterior(true, np.where(known, z, 0.0), known)
    for t, o in enumerate(known):
        slopes = np.linalg.solve(covariance(true)[np.ix_(o, o)], true.loadings[o]).T
        np.testing.assert_allclose(scores.mean[t], slopes @ z[t, o], atol=1e-12)
        np.testing.assert_allclose(
            scores.variance[scores.pattern[t]], np.eye(3) - slopes @ true.loadings[o], atol=1e-12
        )


def test_volatility_is_a_weighted_mean_of_the_512_squares_before() -> None:
    rng = np.random.default_rng(6)
    returns = 0.01 * rng.normal(size=(700, 4))
    returns[rng.random(returns.shape) < 0.2] = np.nan
    returns[:300, 2] = np.nan
    returns[:, 3] = 0.0
    returns[100, 0] = 5.0  # seen by 612 rows before it is forgotten
    found = FactorAnalysis(volatility_halflife=42.0)._volatility(returns)
    for t in (5, 80, 304, 306, 612, 613, 699):
        past = returns[max(t - 512, 0) : t]
        weights = np.where(np.isfinite(past), 0.5 ** (np.arange(len(past))[::-1, None] / 42.0), 0.0)
        enough = (np.isfinite(past).sum(axis=0) >= 5) & (np.nansum(past**2, axis=0) > 0.0)
        expected = np.sqrt(np.nansum(weights * past**2, axis=0) / np.maximum(weights.sum(axis=0), 1e-300))
        np.testing.assert_allclose(found[t], np.where(enough, expected, np.nan), rtol=1e-10)
    assert np.isnan(found[:, 3]).all()
    assert found[612, 0] > 1.1 * found[613, 0], "the truncation shows"


def test_a_model_states_the_covariance_of_returns_that_its_parts_make() -> None:
    """On returns with volatilities of their own, in the units of returns: to a tenth of the variance of a stock."""
    rng = np.random.default_rng(7)
    true = truth(80, 4, rng)
    deviation = 0.01 * np.exp(0.4 * rng.normal(size=80))
    panel = Panel.from_arrays(sampled(true, 1000, rng) * deviation)
    model = FactorAnalysis(4, volatility_halflife=63.0, halflives=(1e6,), shares=(1.0,)).fit(panel)
    x, d = model.loadings(panel).values[-1], model.own_specific_variance(panel)[-1]
    s = x @ model.own_omega() @ x.T + np.diag(d)
    volatility = model._volatility(panel.returns.values)[-1]
    given = fa.Factors(model.loadings_.values, model.specific_, model.eigenvalues_)
    np.testing.assert_allclose(s, np.outer(volatility, volatility) * covariance(given), rtol=1e-10)
    correlations = s / np.outer(volatility, volatility)
    assert error(correlations, covariance(true)) < 0.045
    factors = model.factor_returns(panel).values
    assert np.nanmean(np.square(factors)) == pytest.approx(model.unit_**2, rel=0.15)
