from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import sklearn.decomposition
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st

from models.families.pca import PCA, RPPCA, matrices
from models.panel import Panel
from schemas.errors import ConfigError, ModelError


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
    np.testing.assert_allclose(loadings, (peer.components_.T * signs) * np.sqrt(n_stocks), atol=1e-10)
    np.testing.assert_allclose(loadings.T @ loadings / n_stocks, np.eye(3), atol=1e-10)
    factors = model.factor_returns(panel).values
    scores = peer.transform(returns) * signs / np.sqrt(n_stocks)
    np.testing.assert_allclose(factors - factors.mean(axis=0), scores, atol=1e-10)
    np.testing.assert_allclose(model.premia_, factors.mean(axis=0), atol=1e-12)
    assert (np.diff(factors.var(axis=0)) < 0).all()
    assert model.n_iter_ == 0


def reference(returns: np.ndarray, n_factors: int, rounds: int = 2000) -> tuple[np.ndarray, np.ndarray, int]:
    """Mean and covariance of the panel completed by conditional moments, date by date from the whole covariance."""
    n_dates, n_stocks = returns.shape
    known = np.isfinite(returns)
    mean, systematic, specific = np.nanmean(returns, axis=0), np.zeros((n_stocks, n_stocks)), np.nanvar(returns, axis=0)
    before = np.zeros((n_stocks, n_stocks))
    for count in range(rounds):
        sigma, filled, spread = systematic + np.diag(specific), returns.copy(), np.zeros((n_stocks, n_stocks))
        for row, o in zip(filled, known, strict=True):
            slopes = sigma[np.ix_(~o, o)] @ np.linalg.inv(sigma[np.ix_(o, o)])
            row[~o] = mean[~o] + slopes @ (row[o] - mean[o])
            spread[np.ix_(~o, ~o)] += sigma[np.ix_(~o, ~o)] - slopes @ sigma[np.ix_(o, ~o)]
        mean = filled.mean(axis=0)
        covariance = ((filled - mean).T @ (filled - mean) + spread) / n_dates
        if np.abs(covariance - before).max() <= 1e-10 * covariance.max():
            return mean, covariance, count
        before = covariance
        values, vectors = np.linalg.eigh(covariance)
        vectors = vectors[:, -n_factors:]
        systematic = vectors * (values[-n_factors:] - values[-n_factors - 1]) @ vectors.T
        specific = np.diag(covariance - systematic)
    raise AssertionError("the reference did not settle")


@pytest.mark.parametrize(
    ("n_dates", "n_stocks", "blocks"), [(50, 30, True), (30, 40, False)], ids=["late listings", "wide"]
)
def test_gaps_settle_where_the_conditional_moments_agree_with_the_factors(
    n_dates: int, n_stocks: int, blocks: bool
) -> None:
    returns = with_gaps(factor_panel(n_dates, n_stocks, n_factors=2, noise=0.008, seed=1)[0], 0.15)
    if blocks:
        returns[:20, :10] = np.nan
    model = PCA(n_factors=2, tol=1e-9, min_observed=0.3).fit(Panel.from_arrays(returns))
    mean, covariance, plain = reference(returns, 2)
    assert 1 < model.n_iter_ <= 40
    assert plain > model.n_iter_ + 10  # what the acceleration saves
    values, vectors = np.linalg.eigh(covariance)
    np.testing.assert_allclose(model.eigenvalues_, values[:-3:-1], rtol=1e-6)
    np.testing.assert_allclose(projection(model.loadings_.values), projection(vectors[:, -2:]), atol=1e-5)
    np.testing.assert_allclose(model.explained_share_.sum(), values[-2:].sum() / values.sum(), rtol=1e-6)
    np.testing.assert_allclose(model.expected_.mean, mean, atol=1e-7)


def volatile_market() -> tuple[np.ndarray, np.ndarray]:
    """Three factors, and five volatile stocks that lack ten dates each; complete and with these gaps."""
    rng = np.random.default_rng(0)
    loadings = rng.normal(1.0, 0.5, (100, 3))
    deviations = np.full(100, 0.015)
    deviations[:5] = [0.10, 0.09, 0.08, 0.10, 0.07]
    factors = rng.standard_normal((480, 3)) * [0.010, 0.006, 0.004]
    returns = factors @ loadings.T + deviations * rng.standard_normal((480, 100)) + 0.0005
    gaps = returns.copy()
    for stock in range(5):
        gaps[rng.choice(480, 10, replace=False), stock] = np.nan
    return returns, gaps


@pytest.mark.parametrize("model", [PCA(8), PCA(8, missing="pairwise"), RPPCA(8), PCA(8, scale="correlation")], ids=str)
def test_gaps_of_a_volatile_stock_do_not_move_what_complete_data_say(model: PCA) -> None:
    complete, returns = volatile_market()
    expected, panel = model.clone().fit(Panel.from_arrays(complete)), Panel.from_arrays(returns)
    found = model.clone().fit(panel)
    assert found.n_iter_ <= 15
    np.testing.assert_allclose(found.eigenvalues_, expected.eigenvalues_, rtol=0.04)
    factors = found.factor_returns(panel).values

    def volatility(loadings: np.ndarray, scores: np.ndarray) -> np.ndarray:
        return np.sqrt(((loadings @ np.cov(scores.T)) * loadings).sum(axis=1))

    truth = volatility(expected.loadings_.values, expected.factor_returns(Panel.from_arrays(complete)).values)
    np.testing.assert_allclose(volatility(found.loadings_.values, factors)[:5], truth[:5], rtol=0.12)
    hidden = np.isnan(returns)
    largest = np.abs((factors @ found.loadings_.values.T)[hidden]).max()
    assert largest < 0.2  # two deviations of the most volatile stock, whose largest return is .36
    # A date says the same by itself, and out of a model that was stored
    restored = type(found).from_state(found.get_params(), found.state())
    at = int(np.flatnonzero(hidden.any(axis=1))[0])
    alone = restored.factor_returns(panel.sel(panel.dates[at], panel.dates[at])).values
    np.testing.assert_array_equal(alone[0], factors[at])


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
    expected = model.expected_
    sigma = X @ expected.covariance @ X.T + np.diag(expected.specific)
    filled = new[0].copy()
    pulled = sigma[5:, :5] @ np.linalg.solve(sigma[:5, :5], new[0, :5] - expected.mean[:5])
    filled[5:] = expected.mean[5:] + pulled
    np.testing.assert_allclose(factors[0], np.linalg.lstsq(X, filled)[0], atol=1e-12)
    np.testing.assert_allclose(factors[3], X.T @ new[3] / 20, atol=1e-12)
    assert np.isnan(factors[1:3]).all()


def test_next_session_without_returns_changes_nothing() -> None:
    returns, _ = factor_panel(60, 20)
    longer = np.vstack([returns, np.full((1, 20), np.nan)])
    np.testing.assert_array_equal(
        PCA(n_factors=3).fit(Panel.from_arrays(longer)).loadings_.values,
        PCA(n_factors=3).fit(Panel.from_arrays(returns)).loadings_.values,
    )


@pytest.mark.parametrize("model", [PCA(2), RPPCA(2)], ids=["pca", "rp_pca"])
def test_a_window_looks_at_the_last_dates_that_have_returns(model: PCA) -> None:
    returns = np.vstack([factor_panel(60, 20)[0], np.full((1, 20), np.nan)])
    found = model.clone().set_params(window=40).fit(Panel.from_arrays(returns))
    last = model.clone().fit(Panel.from_arrays(returns[20:]))
    for name, expected in last.state().arrays.items():
        np.testing.assert_array_equal(found.state().arrays[name], expected, err_msg=name)


def test_too_many_factors_are_refused_with_what_the_data_carry() -> None:
    returns, _ = factor_panel(10, 30, n_factors=2, noise=0.0)
    with pytest.raises(ModelError, match=r"n_factors=10 must be from 1 to 9.*10 dates.*30 stocks"):
        PCA(n_factors=10).fit(Panel.from_arrays(returns))
    with pytest.raises(ModelError, match="n_factors=3 exceeds the rank of the returns, 2"):
        PCA(n_factors=3).fit(Panel.from_arrays(returns))
    with pytest.raises(ModelError, match="n_factors=0"):
        PCA(n_factors=0).fit(Panel.from_arrays(returns))


def test_gaps_that_do_not_settle_are_refused() -> None:
    returns = with_gaps(factor_panel(60, 20)[0], 0.3)
    with pytest.raises(ModelError, match=r"not settled after max_iter=2 rounds: .*tol=1e-12.*missing='pairwise'"):
        PCA(n_factors=3, max_iter=2, tol=1e-12).fit(Panel.from_arrays(returns))


def with_gaps(returns: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    return np.where(np.random.default_rng(seed).random(returns.shape) < share, np.nan, returns)


@pytest.mark.parametrize(("n_dates", "n_stocks"), [(80, 30), (40, 100)], ids=["long", "wide"])
def test_correlations_agree_with_statsmodels(n_dates: int, n_stocks: int) -> None:
    returns = factor_panel(n_dates, n_stocks)[0] * np.linspace(0.5, 3.0, n_stocks)
    panel = Panel.from_arrays(returns)
    model = PCA(n_factors=3, scale="correlation").fit(panel)
    peer = sm.PCA(returns, ncomp=3, standardize=True, normalize=False)
    deviations = returns.std(axis=0)
    loadings = model.loadings_.values / deviations[:, None]
    np.testing.assert_allclose(projection(loadings), projection(peer.eigenvecs[:, :3]), atol=1e-10)
    signs = np.sign(peer.eigenvecs[:, :3].sum(axis=0))
    factors = model.factor_returns(panel).values
    scores = factors - factors.mean(axis=0)
    np.testing.assert_allclose(scores / scores.std(), signs * peer.scores / peer.scores.std(), atol=1e-10)
    statistics = model.statistics()
    np.testing.assert_allclose(statistics["eigenvalues"].values, peer.eigenvals[:3] / n_dates, rtol=1e-10)
    np.testing.assert_allclose(
        statistics["explained_share"].values, peer.eigenvals[:3] / n_dates / n_stocks, rtol=1e-10
    )
    # What the factors explain is the same as in the units of the peer
    explained = model.fitted_returns(panel).values - model.fitted_returns(panel).values.mean(axis=0)
    np.testing.assert_allclose(explained, peer.projection - returns.mean(axis=0), atol=1e-10)


def test_pairwise_covariances_agree_with_pandas() -> None:
    returns = with_gaps(factor_panel(60, 25)[0], 0.3)
    model = PCA(n_factors=3, missing="pairwise").fit(Panel.from_arrays(returns))
    known = np.isfinite(returns).astype(float)
    count = known.T @ known
    peer = pd.DataFrame(returns).cov().to_numpy() * (count - 1.0) / count  # pandas divides by one date less
    values, vectors = np.linalg.eigh(peer)
    loadings = vectors[:, :-4:-1] * np.sqrt(25)
    np.testing.assert_allclose(model.loadings_.values, loadings * np.sign(loadings.sum(axis=0)), atol=1e-10)
    np.testing.assert_allclose(model.statistics()["eigenvalues"].values, values[:-4:-1], rtol=1e-10)
    assert values[0] < 0.0
    assert model.clipped_share_ == pytest.approx(-values[values < 0].sum() / values[values > 0].sum(), rel=1e-8)
    returns[:30, 0] = np.nan
    returns[30:, 1] = np.nan
    with pytest.raises(ModelError, match="stock0 and stock1 share 0 dates"):
        PCA(n_factors=3, missing="pairwise", min_observed=0.1).fit(Panel.from_arrays(returns))


@pytest.mark.parametrize(("missing", "least"), [("em", 0.98), ("pairwise", 0.95)])
def test_factors_behind_gaps_at_random_are_found(missing: str, least: float) -> None:
    returns, truth = factor_panel(240, 80, noise=0.01)
    panel = Panel.from_arrays(with_gaps(returns, 0.3))
    model = PCA(n_factors=3, missing=missing).fit(panel)
    cosines = np.linalg.svd(np.linalg.qr(truth)[0].T @ np.linalg.qr(model.loadings_.values)[0], compute_uv=False)
    assert cosines.min() > least  # of the third factor, whose variance per stock is half that of the noise


def test_gaps_of_returns_without_noise_and_of_as_many_factors_as_stocks() -> None:
    exact, _ = factor_panel(80, 20, n_factors=2, noise=0.0)
    found, expected = (PCA(2).fit(Panel.from_arrays(values)) for values in (with_gaps(exact, 0.1), exact))
    np.testing.assert_allclose(found.eigenvalues_, expected.eigenvalues_, rtol=1e-5)
    few = PCA(n_factors=5, max_factors=3).fit(Panel.from_arrays(with_gaps(factor_panel(60, 5)[0], 0.1)))
    assert np.isfinite(few.premia_).all()
    nothing = with_gaps(np.zeros((60, 5)), 0.1)
    with pytest.raises(ModelError, match="Every return is zero"):
        PCA(n_factors=1, max_factors=3).fit(Panel.from_arrays(nothing))


def test_many_stocks_have_the_components_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    panel = Panel.from_arrays(with_gaps(factor_panel(50, 70)[0], 0.2))
    few = RPPCA(3).fit(panel)
    monkeypatch.setattr(matrices, "_FEW_STOCKS", 0)
    many = RPPCA(3).fit(panel)
    np.testing.assert_allclose(many.spectrum_.eigenvalues, few.spectrum_.eigenvalues, rtol=1e-9)
    np.testing.assert_allclose(many.loadings_.values, few.loadings_.values, atol=1e-8)


@pytest.mark.parametrize("rule", ["bai_ng", "onatski", "ahn_horenstein"])
def test_a_rule_chooses_the_number_of_factors(rule: str) -> None:
    returns = factor_panel(120, 60, noise=0.01)[0]
    assert PCA(rule).fit(Panel.from_arrays(returns)).factors_ == ["factor_1", "factor_2", "factor_3"]
    model = PCA(rule, scale="correlation").fit(Panel.from_arrays(with_gaps(returns, 0.2)))
    assert len(model.factors_) == len(model.premia_) == 3
    assert model.statistics()[f"n_factors_{rule}"] == 3.0
    noise = 0.02 * np.random.default_rng(0).standard_normal((120, 60))
    with pytest.raises(ModelError, match=f"n_factors='{rule}' finds no factor"):
        PCA(rule).fit(Panel.from_arrays(noise))


def test_late_listings_are_not_counted_as_a_factor() -> None:
    returns = factor_panel(150, 120, noise=0.02)[0]
    first = np.random.default_rng(0).integers(0, 75, 120)
    returns[np.arange(150)[:, None] < first] = np.nan
    assert len(PCA("bai_ng").fit(Panel.from_arrays(returns)).factors_) == 3


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), missing=st.sampled_from(["em", "pairwise"]), mirrored=st.booleans())
def test_means_do_not_move_components_and_mirrored_returns_only_turn_factors(
    seed: int, missing: str, mirrored: bool
) -> None:
    returns = with_gaps(factor_panel(60, 20, seed=seed)[0], 0.1, seed)
    shift = np.random.default_rng(seed).standard_normal(20)
    model = PCA(n_factors=2, missing=missing, tol=1e-11)
    expected = model.clone().fit(Panel.from_arrays(returns)).loadings_.values
    moved = model.fit(Panel.from_arrays((-returns if mirrored else returns) + shift)).loadings_.values
    np.testing.assert_allclose(moved, expected, atol=1e-5)


def test_unknown_parameters_and_constant_returns_are_refused() -> None:
    returns = factor_panel(60, 20)[0]
    refused = {
        "scale='beta' must be one of covariance, correlation": {"scale": "beta"},
        "missing='drop' must be one of em, pairwise": {"missing": "drop"},
        "n_factors='kaiser' must be a number or one of bai_ng": {"n_factors": "kaiser"},
    }
    for message, wrong in refused.items():
        with pytest.raises(ConfigError, match=message):
            PCA(**wrong).fit(Panel.from_arrays(returns))
    returns[:, 3] = 0.001
    with pytest.raises(ModelError, match="returns of stock3 are constant"):
        PCA(n_factors=2, scale="correlation").fit(Panel.from_arrays(returns))
