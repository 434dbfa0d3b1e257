"""Folds along time, errors from cross-products, the rules by which a penalty is chosen, and the stability of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import ElasticNet, Ridge
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from models.families.penalised import PenalisedModel
from models.families.penalised.cross_validation import BlockedFolds, average_error, choose_penalty
from models.families.penalised.estimation import bootstrap_weights
from models.families.penalised.moments import pooled_moments
from models.panel import Panel
from models.statistics.gram import gram_statistics
from schemas.errors import ConfigError, ModelError

N_DATES, N_STOCKS, N_CHARS = 60, 12, 5


def arrays(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Simulate returns with gaps on characteristics of which two matter; fewer stocks at first."""
    rng = np.random.default_rng(seed)
    Z = rng.standard_normal((N_DATES, N_STOCKS, N_CHARS)).astype(np.float32)
    returns = 0.01 + Z @ np.array([0.02, 0.0, -0.01, 0.0, 0.0]) + 0.05 * rng.standard_normal((N_DATES, N_STOCKS))
    returns[rng.random(returns.shape) < 0.1] = np.nan
    returns[:20, :4] = np.nan
    return returns, Z


@settings(max_examples=50, deadline=None)
@given(n_dates=st.integers(30, 90), n_folds=st.integers(2, 7), purge=st.integers(0, 3), embargo=st.integers(0, 4))
def test_folds_test_every_date_once_and_keep_their_distance(
    n_dates: int, n_folds: int, purge: int, embargo: int
) -> None:
    train, test = BlockedFolds(n_folds, purge, embargo).masks(n_dates)
    assert (test.sum(axis=0) == 1).all()
    assert np.ptp(test.sum(axis=1)) <= 1
    for fold_train, fold_test in zip(train, test, strict=True):
        tested = np.flatnonzero(fold_test)
        assert (np.diff(tested) == 1).all()
        first, last = tested[0], tested[-1]
        expected = [t for t in range(n_dates) if t < first - purge or t > last + purge + embargo]
        assert np.flatnonzero(fold_train).tolist() == expected


@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize("penalty", ["ridge", "lasso", "elastic_net"])
def test_errors_are_those_of_scikit_learn_on_the_rows_of_the_same_folds(penalty: str, standardise: bool) -> None:
    panel = Panel.from_arrays(*arrays())
    model = PenalisedModel(
        penalty=penalty, standardise=standardise, n_lambdas=8, n_folds=4, purge=2, embargo=1, n_bootstraps=0
    ).fit(panel)
    date, stock = np.nonzero(panel.mask.values)
    X, y = panel.characteristics.values[date, stock].astype(float), panel.returns.values[date, stock]
    train, test = BlockedFolds(4, 2, 1).masks(N_DATES)
    weight = np.array([mask[date].sum() for mask in test])
    for position, strength in enumerate(model.lambdas_.values):
        errors = []
        for fold_train, fold_test in zip(train, test, strict=True):
            rows, held_out = fold_train[date], fold_test[date]
            scale = y[rows].std() if standardise else 1.0
            if penalty == "ridge":
                peer = Ridge(alpha=strength * rows.sum())
            else:
                l1_ratio = {"lasso": 1.0, "elastic_net": 0.5}[penalty]
                peer = ElasticNet(alpha=strength, l1_ratio=l1_ratio, tol=1e-13, max_iter=1_000_000)
            fitted = make_pipeline(StandardScaler(with_std=standardise), peer).fit(X[rows], y[rows] / scale)
            errors.append(np.square(y[held_out] - scale * fitted.predict(X[held_out])).mean())
        mean = np.average(errors, weights=weight)
        stderr = np.sqrt(np.average(np.square(errors - mean), weights=weight) / 3)
        assert model.cv_error_.values[position] == pytest.approx(mean, rel=1e-8)
        assert model.cv_error_stderr_.values[position] == pytest.approx(stderr, rel=1e-6)


def test_the_folds_serve_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    scores = cross_val_score(Ridge(), rng.standard_normal((50, 3)), rng.standard_normal(50), cv=BlockedFolds(5, 2, 1))
    assert scores.shape == (5,)
    assert BlockedFolds(5).get_n_splits() == 5


@pytest.mark.parametrize(
    ("date", "moves"), [(14, False), (13, False), (12, True), (31, False), (34, False), (35, True)]
)
def test_purged_dates_do_not_reach_a_fold(date: int, moves: bool) -> None:
    """Block 2 of 4 is dates 15 to 29 of 60; with purge 2 and embargo 3 its fit knows neither 13, 14 nor 30 to 34."""
    returns, Z = arrays()
    gram = gram_statistics(Panel.from_arrays(returns, Z), intercept=True)
    returns[date] += 1.0
    other = gram_statistics(Panel.from_arrays(returns, Z), intercept=True)
    train, _ = BlockedFolds(4, 2, 3).masks(N_DATES)
    sums, changed = (pooled_moments(part, train[[1]].astype(float)) for part in (gram, other))
    assert np.array_equal(sums.zr, changed.zr) is not moves


def test_rules_choose_by_the_definition() -> None:
    error = np.array([[5.0, 4.1, 4.0, 3.0, 3.5], [2.0, 2.0, 2.0, 2.0, 2.0], [np.nan] * 5])
    stderr = np.array([[9.0, 9.0, 0.0, 1.0, 0.1], [0.1] * 5, [np.nan] * 5])
    assert choose_penalty(error, stderr, "min").tolist() == [3, 0, -1]
    assert choose_penalty(error, stderr, "one_se").tolist() == [2, 0, -1]  # 4.0 is just within 3 + 1
    with pytest.raises(ConfigError, match="rule 'best' is none of min, one_se"):
        choose_penalty(error, stderr, "best")  # type: ignore[arg-type]  # what is tested


def test_the_standard_error_is_that_of_a_mean_over_folds() -> None:
    errors = np.random.default_rng(0).uniform(1.0, 2.0, (6, 3))
    mean, stderr = average_error(errors, np.full(6, 50.0))
    np.testing.assert_allclose(mean, errors.mean(axis=0))
    np.testing.assert_allclose(stderr, errors.std(axis=0, ddof=1) / np.sqrt(6))
    errors[0] = 1e9
    weight = np.array([0.0, 50.0, 50.0, 50.0, 50.0, 50.0])
    np.testing.assert_allclose(average_error(errors, weight)[0], errors[1:].mean(axis=0))
    assert np.isnan(average_error(errors, np.array([0.0, 0, 0, 0, 0, 9.0]))[0]).all()


def test_one_standard_error_selects_no_more_than_the_minimum() -> None:
    panel = Panel.from_arrays(*arrays())
    least, sparing = (PenalisedModel(rule=rule, n_bootstraps=0).fit(panel) for rule in ("min", "one_se"))
    assert sparing.chosen_lambda_ > least.chosen_lambda_
    assert sparing.selected_.sum() <= least.selected_.sum()
    error, stderr = least.cv_error_.values, least.cv_error_stderr_.values
    bound = error.min() + stderr[error.argmin()]
    position = np.flatnonzero(least.lambdas_.values == sparing.chosen_lambda_.item())[0]
    assert error[position] <= bound
    assert (error[:position] > bound).all()


def test_draws_by_date_are_sums_over_the_dates_taken() -> None:
    gram = gram_statistics(Panel.from_arrays(*arrays()), intercept=True)
    weights = bootstrap_weights(N_DATES, 3, seed=7)
    positions = np.random.default_rng(7).integers(N_DATES, size=(3, N_DATES))
    drawn = pooled_moments(gram, weights)
    for draw in range(3):
        taken = gram.take(positions[draw])
        np.testing.assert_allclose(drawn.zz[draw, 0], taken.zz.sum(axis=0), rtol=1e-10)
        np.testing.assert_allclose(drawn.zr[draw, 0], taken.zr.sum(axis=0), rtol=1e-10)


@pytest.mark.parametrize(
    ("folds", "error", "message"),
    [
        ({"n_folds": 1}, ConfigError, "n_folds of at least 2"),
        ({"purge": -1}, ConfigError, "0 or more"),
        ({"n_folds": 5, "purge": 60}, ModelError, "60 dates are too few for n_folds=5 with purge=60"),
    ],
)
def test_folds_that_cannot_be_are_refused(folds: dict[str, int], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        BlockedFolds(**folds).masks(N_DATES)
