"""KernelIPCA: loadings that are known, plain sums, the kernel trick, and what is refused."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from kernel_worlds import scores, simulate, true_scores
from sklearn.exceptions import ConvergenceWarning

from models.families.ipca import IPCA
from models.families.kernel import KernelIPCA, kernel_covariance
from models.families.kernel.estimation import Sample, Screen, penalised
from models.panel import Panel
from models.statistics.features import Features, Products, Section, Units, Waves, gram_of_features
from schemas.errors import ModelError

FEW = {"n_waves": 30, "bandwidths": (1.0,), "ridges": (0.1, 1.0)}


def test_loadings_that_no_linear_model_sees_are_found() -> None:
    world = simulate("b", 0, 8)
    model = KernelIPCA(3, **FEW).fit(world.train)
    found, true = model.score(world.test)["total_r2"], true_scores(world)[0]
    assert found > true - 0.012
    assert IPCA(3).fit(world.train).score(world.test)["total_r2"] < 0.2
    assert set(model.relevance_.to_series().nlargest(3).index) == {"char0", "char1", "char2"}
    assert model.relevance_.to_series().nsmallest(5).max() < 0.1
    assert model.n_functions_ > 0
    again = KernelIPCA(3, **FEW).fit(world.train)
    for name, array in model.state().arrays.items():
        np.testing.assert_array_equal(again.state().arrays[name], array)
    loadings, factors = model.loadings(world.test).values, model.factor_returns(world.test).values
    date = world.test.dates[7]
    alone = world.test.sel(start=date, end=date)
    np.testing.assert_array_equal(model.loadings(alone).values[0], loadings[7])
    np.testing.assert_array_equal(model.factor_returns(alone).values[0], factors[7])


def test_random_fourier_features_find_what_no_pair_shows() -> None:
    world = simulate("triple", 0, 6)
    options = FEW | {"n_waves": 60}
    model = KernelIPCA(1, **options).fit(world.train)
    found = model.score(world.test)["total_r2"]
    assert model.bandwidth_ == 1.0
    assert found > KernelIPCA(1, **options | {"n_waves": 0}).fit(world.train).score(world.test)["total_r2"] + 0.1
    assert found > true_scores(world)[0] - 0.03
    other = KernelIPCA(1, seed=1, **options).fit(world.train)
    assert not np.array_equal(other.loadings(world.test).values, model.loadings(world.test).values)


def test_linear_loadings_lose_nothing() -> None:
    world = simulate("a", 0, 20)
    model = KernelIPCA(3, **FEW).fit(world.train)
    assert model.n_functions_ == 0
    assert model.score(world.test)["total_r2"] > IPCA(3).fit(world.train).score(world.test)["total_r2"]


def sample(n_dates: int = 5, n_stocks: int = 12, n_chars: int = 3) -> Sample:
    rng = np.random.default_rng(3)
    sections = [
        Section(rng.standard_normal((n, n_chars)), rng.standard_normal(n), np.arange(n))
        for n in range(n_stocks, n_stocks + n_dates)
    ]
    return Sample(sections, pd.bdate_range("2020-01-01", periods=n_dates))


def features(of: Sample) -> Features:
    rng = np.random.default_rng(4)
    units = Units.of(of.sections)
    u = [units(section.rows) for section in of.sections]
    phases = rng.uniform(0.0, 6.0, 7)
    waves, _ = Waves.managed(rng.standard_normal((u[0].shape[1], 7)), phases, u, of.sections)
    return Features(units, Products.of(u), waves)


def test_the_screen_is_the_mean_over_pairs_of_different_stocks() -> None:
    drawn = sample()
    found = features(drawn)
    phis = [found(section.rows) for section in drawn.sections]
    square = np.mean(np.square(np.concatenate(phis)), axis=0)
    excess = []
    for phi, section in zip(phis, drawn.sections, strict=True):
        e = section.returns
        pairs = np.outer(e, e) * (1.0 - np.eye(len(e)))
        excess.append(np.einsum("ip,ij,jp->p", phi, pairs, phi) / (e @ e) / square)
    screen = Screen.of(found, drawn.sections, [section.returns for section in drawn.sections])
    np.testing.assert_allclose(screen.square, square, rtol=1e-10)
    np.testing.assert_allclose(screen.excess, np.mean(excess, axis=0), atol=1e-10)
    assert screen.noise == pytest.approx(np.sqrt(2.0 / 5))
    assert (screen.excess[screen.largest(4)] > screen.noise).all()


def test_the_ridge_is_a_stock_without_return_for_each_function() -> None:
    drawn = sample()
    found = features(drawn)
    gram = gram_of_features(found, drawn.sections, drawn.dates)
    penalty = np.linspace(0.1, 2.0, found.size)
    moments = penalised(gram, penalty, 2)
    upper = np.triu_indices(found.size)
    for date, section in enumerate(drawn.sections):
        phi = found(section.rows)
        more = np.concatenate([phi, np.diag(np.sqrt(len(phi) * penalty))])
        np.testing.assert_allclose(moments.packed[date], (more.T @ more)[upper], atol=1e-9)
        np.testing.assert_allclose(moments.zr[date], section.returns @ phi, atol=1e-9)


def test_the_kernel_alone_gives_the_covariance_of_explicit_features() -> None:
    drawn = sample(n_dates=9)
    found, ridge = features(drawn), 0.3
    phis = [found(section.rows) for section in drawn.sections]
    returns = [section.returns for section in drawn.sections]
    slopes = [
        np.linalg.solve(phi.T @ phi + ridge * len(phi) * np.eye(found.size), phi.T @ r)
        for phi, r in zip(phis, returns, strict=True)
    ]
    now = phis[4]
    explicit = now @ np.cov(np.transpose(slopes), bias=True) @ now.T
    implied = kernel_covariance([now @ phi.T for phi in phis], [phi @ phi.T for phi in phis], returns, ridge)
    np.testing.assert_allclose(implied, explicit, atol=1e-10)
    with pytest.raises(ModelError, match="at least one, and a positive ridge"):
        kernel_covariance([], [], [], ridge)


def test_what_cannot_be_fitted_is_refused_in_words() -> None:
    train = simulate("a", 0, 2).train
    with pytest.raises(ModelError, match="n_factors=4, but 2 characteristics vary"):
        KernelIPCA(4).fit(train)
    with pytest.raises(ModelError, match="3 dates with min_stocks=10 returns leave 2 to train 2 factors on"):
        KernelIPCA(2).fit(train.sel(end=train.dates[2]))
    still = Panel.from_arrays(train.returns.values, np.ones((*train.returns.shape, 1)), dates=train.dates)
    with pytest.raises(ModelError, match="0 characteristics vary"):
        KernelIPCA(1).fit(still)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ConvergenceWarning, match="stopped at max_iter=1"):
            KernelIPCA(2, max_iter=1, tol=1e-12, n_waves=0, n_features=0).fit(train)


@pytest.mark.slow
def test_the_monte_carlo_of_gu_kelly_and_xiu() -> None:
    """The numbers of docs/nonlinear.md; published are 31.8 at best for model b, and 40.7 by IPCA for model a."""
    b, a = (np.mean([scores(kind, seed) for seed in range(20)], axis=0) for kind in ("b", "a"))
    assert b[0, 0] > 39.8
    assert b[0, 1] > b[4, 1] - 0.2
    assert a[0, 0] > a[3, 0]
    assert a[0, 0] > 40.0
