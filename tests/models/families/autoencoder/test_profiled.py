"""Profiled factors: the loss is that of a regression by date, its gradient is right, and it finds what it should."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from autoencoder_worlds import SETTINGS, scores
from kernel_worlds import simulate, slopes, true_scores, with_constant

from models.families.autoencoder import ConditionalAutoencoder
from models.families.autoencoder.networks import LoadingsNetwork
from models.families.autoencoder.profiling import profiled_errors
from models.families.autoencoder.training import _Dates
from models.families.ipca import IPCA
from models.panel import Panel
from schemas.errors import ModelError

DATES = torch.tensor([4] * 9 + [1] * 5 + [7] * 6)  # of unequal length, and in any order


def canonical_correlations(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    bases = [np.linalg.qr(values - values.mean(axis=0))[0] for values in (left, right)]
    return np.linalg.svd(bases[0].T @ bases[1])[1]


def rows(n_factors: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(len(DATES), *size, dtype=torch.float64, generator=generator) for size in ((n_factors,), ())
    )


def test_errors_are_those_of_least_squares_by_date() -> None:
    loadings, returns = rows()
    errors = profiled_errors(loadings, returns, DATES).numpy()
    for date in (1, 4, 7):
        inside = DATES.numpy() == date
        x, r = loadings.numpy()[inside], returns.numpy()[inside]
        solution, squares, *_ = np.linalg.lstsq(x, r, rcond=None)
        np.testing.assert_allclose(errors[inside], r - x @ solution, atol=1e-7)
        assert np.square(errors[inside]).sum() == pytest.approx(float(squares[0]), rel=1e-10)


def test_the_gradient_is_that_of_finite_differences() -> None:
    """Of every error, and of their sum of squares, through the solution of the normal equations."""
    loadings, returns = rows()
    loadings.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: profiled_errors(x, returns, DATES), loadings, atol=1e-7, rtol=1e-6)
    assert torch.autograd.gradcheck(
        lambda x: profiled_errors(x, returns, DATES).square().sum(), loadings, atol=1e-7, rtol=1e-6
    )


def test_collinear_and_vanishing_loadings_have_finite_errors_and_gradients() -> None:
    loadings, returns = rows()
    loadings[:, 2] = loadings[:, 1]
    loadings[DATES == 7] = 0.0
    loadings.requires_grad_()
    errors = profiled_errors(loadings, returns, DATES)
    torch.testing.assert_close(errors, profiled_errors(loadings[:, :2], returns, DATES), atol=1e-6, rtol=0.0)
    errors.square().sum().backward()
    assert torch.isfinite(loadings.grad).all()


@pytest.mark.slow
def test_linear_loadings_are_those_of_ipca() -> None:
    """The same criterion: total R2 on the dates that are learnt from within .0005, and the same factors."""
    panel = simulate("a", 0, 8).train
    model = ConditionalAutoencoder(
        3, hidden=(), l1=0.0, max_epochs=32, validation_fraction=0.05, patience=20, seeds=(0,), factors="profiled"
    ).fit(panel)
    learnt = panel.sel(end=panel.dates[113])
    peer = IPCA(3).fit(with_constant(learnt))
    best = peer.score(with_constant(learnt))["total_r2"]
    assert best - 5e-4 < model.score(learnt)["total_r2"] < best + 1e-6
    found = canonical_correlations(
        model.factor_returns(learnt).values, peer.factor_returns(with_constant(learnt)).values
    )
    assert found.min() > 0.99


def test_factors_that_no_managed_portfolio_holds_are_found() -> None:
    world = simulate("b", 0, 8)
    options = {"n_factors": 3, "hidden": (32, 16), "seeds": (0,)}
    ours = ConditionalAutoencoder(**options, factors="profiled").fit(world.train)
    published = ConditionalAutoencoder(**options).fit(world.train)
    found, true = ours.score(world.test)["total_r2"], true_scores(world)[0]
    assert found > true - 0.015
    assert published.score(world.test)["total_r2"] < found - 0.15
    factors = slopes(world.beta_test, world.test.returns.values)
    assert canonical_correlations(ours.factor_returns(world.test).values, factors).min() > 0.95


def test_factor_returns_are_the_cross_sectional_regression(panel: Panel) -> None:
    model = small().fit(panel)
    loadings, returns = model.loadings(panel).values, panel.returns.values
    for date in (7, 33):
        mask = panel.mask.values[date]
        expected, *_ = np.linalg.lstsq(
            loadings[date, mask].astype(float), returns[date, mask].astype(float), rcond=None
        )
        np.testing.assert_allclose(model.factor_returns(panel).values[date], expected, rtol=1e-5)


def test_batches_are_all_stocks_of_some_dates(panel: Panel) -> None:
    data = small()._training_data(panel)
    dates, counts = np.unique(data.dates[: data.n_train].numpy(), return_counts=True)
    batches = list(_Dates(LoadingsNetwork(3, 2, (4,)), data).batches(torch.Generator().manual_seed(0)))
    assert len(batches) > 1
    drawn = [np.unique(data.dates[rows].numpy(), return_counts=True) for rows in batches]
    assert len({len(inside) for inside, _ in drawn}) == 1
    seen = np.concatenate([inside for inside, _ in drawn])
    assert len(np.unique(seen)) == len(seen) > len(dates) - len(drawn[0][0])
    for inside, many in drawn:
        np.testing.assert_array_equal(many, counts[np.searchsorted(dates, inside)])
    assert all(len(np.unique(rows.numpy())) == len(rows) for rows in batches)


def test_dates_with_no_more_stocks_than_factors_teach_nothing(panel: Panel) -> None:
    returns = panel.returns.values.copy()
    returns[12, np.flatnonzero(panel.mask.values[12])[2:]] = np.nan
    two, none = returns.copy(), returns.copy()
    none[12] = np.nan
    panels = [Panel.from_arrays(one, panel.characteristics.values) for one in (two, none)]
    few, gone = (small().fit(one) for one in panels)
    assert few.history_ == gone.history_
    found = few.factor_returns(panels[0]).values
    assert np.isnan(found[12]).all()
    np.testing.assert_array_equal(np.isnan(found), np.isnan(gone.factor_returns(panels[1]).values))


def test_errors_say_what_to_do(panel: Panel) -> None:
    with pytest.raises(ModelError, match="use factors='portfolios'"):
        small(target="one_ahead").fit(panel)
    with pytest.raises(ModelError, match=r"loadings of 1 to 5 factors; lower it"):
        small(n_factors=6, hidden=()).fit(panel)
    with pytest.raises(ModelError, match=r"seed 0 is not finite at epoch 1.*lower learning_rate"):
        small(learning_rate=1e30).fit(panel)
    with pytest.raises(ModelError, match="for validation"):
        small(n_factors=3, hidden=(8,)).fit(Panel(panel.data.isel(ticker=slice(3))))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "bound"), [("a", 39.0), ("b", 38.5)])
def test_the_monte_carlo_of_gu_kelly_and_xiu(kind: str, bound: float) -> None:
    """Total R2 out of sample of the best setting, means over 5 draws; docs/nonlinear.md has the table."""
    found = np.mean([scores(kind, seed, settings=SETTINGS[:1]) for seed in range(5)], axis=0)
    assert found[0, 0] > bound


@pytest.fixture(scope="module")
def panel() -> Panel:
    """Return a small panel with uncovered stocks, missing returns, an empty date, and a row for the next session."""
    drawn = simulate("a", 3, 4).train
    rng = np.random.default_rng(1)
    returns, z = drawn.returns.values[:61, :40].copy(), drawn.characteristics.values[:61, :40].copy()
    z[rng.random(returns.shape) < 0.1] = np.nan
    returns[rng.random(returns.shape) < 0.1] = np.nan
    returns[20] = returns[-1] = np.nan
    return Panel.from_arrays(returns, z)


def small(**params: object) -> ConditionalAutoencoder:
    defaults = {"n_factors": 2, "hidden": (8,), "max_epochs": 4, "seeds": (0, 1), "factors": "profiled"}
    return ConditionalAutoencoder(**{**defaults, **params})
