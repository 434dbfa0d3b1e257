"""The mean of models: its variance of any portfolio is the mean of theirs."""

from __future__ import annotations

import numpy as np
import pytest

from models import PCA, FactorAnalysis, FactorModel, MeanOfModels, Panel
from schemas.errors import ConfigError, ModelError


@pytest.fixture(scope="module")
def panel() -> Panel:
    rng = np.random.default_rng(0)
    returns = 0.01 * (rng.normal(size=(300, 5)) @ rng.normal(size=(5, 40)) + rng.normal(size=(300, 40)))
    returns[:260, 7] = np.nan  # only one of the two knows it
    return Panel.from_arrays(returns)


@pytest.fixture(scope="module")
def two(panel: Panel) -> tuple[FactorModel, FactorModel]:
    return FactorAnalysis(4, min_observations=20).fit(panel), FactorAnalysis(2, halflives=(90.0,), shares=(1.0,)).fit(
        panel
    )


def variances(model: FactorModel, panel: Panel, weights: np.ndarray) -> np.ndarray:
    x, d = model.loadings(panel).values[-1], model.own_specific_variance(panel)[-1]
    held = weights[:, np.isfinite(d)]
    exposure = held @ x[np.isfinite(d)]
    return ((exposure @ model.own_omega()) * exposure).sum(axis=1) + np.square(held) @ d[np.isfinite(d)]


def test_the_variance_of_a_portfolio_is_the_mean_of_the_models(panel: Panel, two: tuple[FactorModel, ...]) -> None:
    mean = MeanOfModels(("slow", "fast")).on(*two).fit(panel)
    assert mean.factors_ == [*(f"slow:factor_{k}" for k in (1, 2, 3, 4)), "fast:factor_1", "fast:factor_2"]
    weights = np.random.default_rng(1).normal(size=(100, 40))
    weights[:, 7] = 0.0
    expected = np.mean([variances(one, panel, weights) for one in two], axis=0)
    np.testing.assert_allclose(variances(mean, panel, weights), expected, rtol=1e-12)
    explained = np.mean([one.fitted_returns(panel).values for one in two], axis=0)
    np.testing.assert_allclose(mean.fitted_returns(panel).values, explained, atol=1e-15)
    assert np.isfinite(two[0].loadings(panel).values[-1, 7]).all()
    assert np.isnan(mean.loadings(panel).values[:, 7]).all(), "covered where all cover it"

    nested = MeanOfModels(("mean", "slow")).on(mean, two[0]).fit(panel)
    thirds = np.mean([variances(one, panel, weights) for one in (mean, two[0])], axis=0)
    np.testing.assert_allclose(variances(nested, panel, weights), thirds, rtol=1e-12)
    assert nested.latent_blocks == (slice(0, 4), slice(4, 6), slice(6, 10))
    turn = np.eye(10)
    turn[4:6, 4:6] = [[0.6, 0.8], [-0.8, 0.6]]
    turned = MeanOfModels.from_state(nested.get_params(), nested.rotate(turn).state())
    np.testing.assert_allclose(turned.loadings(panel).values, nested.loadings(panel).values @ turn, atol=1e-14)


def test_only_models_with_a_covariance_of_their_own_are_averaged(panel: Panel, two: tuple[FactorModel, ...]) -> None:
    with pytest.raises(ModelError, match=r"^'components' \(PCA\) states no Omega"):
        MeanOfModels(("slow", "components")).on(two[0], PCA(n_factors=2).fit(panel))
    for wrong in (("slow",), ("slow", "slow")):
        with pytest.raises(ConfigError, match="two or more, each named once"):
            MeanOfModels(wrong).on(*two[: len(wrong)])
    with pytest.raises(ModelError, match="is fitted on slow and fast: hand them"):
        MeanOfModels(("slow", "fast")).fit(panel)
