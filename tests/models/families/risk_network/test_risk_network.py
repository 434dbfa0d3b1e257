"""A network trained for risk: the term is the dense one, looks back only, and finds what is risk and little else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from risk_worlds import judged, quiet, truth

from models import Panel, RiskNetwork
from models.families.autoencoder.networks import LoadingsNetwork
from models.families.autoencoder.training import DescentOptions
from models.families.profiled import ProfiledFactors, ProfiledRows, learn
from models.families.residuals import parts_of
from models.families.risk_network.loss import CLASSES, RiskLoss, RiskRows, Section, risk_losses, trial_weights
from schemas.errors import ModelError

N_STOCKS, WINDOW, AHEAD = 15, 20, 6
SMALL = {"n_stocks": N_STOCKS, "n_train": 40, "n_test": 5}
QUICK = {"n_factors": 2, "hidden": (6,), "window": WINDOW, "ahead": AHEAD, "n_portfolios": 3, "max_epochs": 4}


def network() -> LoadingsNetwork:
    return LoadingsNetwork(3, 2, (5,)).initialise(torch.Generator().manual_seed(0)).double().eval()


def loss_of_one_span() -> RiskLoss:
    """Its dates to learn from are one span, and those on which it stops are one block."""
    panel = quiet(0, **SMALL).train
    learning, stopping = Panel(panel.data.isel(date=slice(26))), Panel(panel.data.isel(date=slice(26, 31)))
    rows = RiskRows.of(learning, stopping)
    rows = replace(rows, characteristics=rows.characteristics.double())
    return RiskLoss(network(), rows, 0.5, WINDOW, AHEAD, 3)


def test_the_term_has_the_slope_of_finite_differences() -> None:
    loss = loss_of_one_span()

    def value() -> torch.Tensor:
        loss.generator.manual_seed(0)
        found = loss.further()
        assert found is not None
        return found

    torch.autograd.backward(value())
    for place, cell in ((0, (2, 1)), (3, (1, 4))):
        weight = loss.network.beta[place].weight
        step, sides = 1e-6, []
        with torch.no_grad():
            for move in (step, -2.0 * step):
                weight[cell] += move
                sides.append(value().item())
            weight[cell] += step
        assert abs(weight.grad[cell].item()) > 1e-4
        assert weight.grad[cell].item() == pytest.approx((sides[0] - sides[1]) / (2.0 * step), rel=1e-5)


def test_the_term_is_that_of_the_dense_covariance() -> None:
    rng = np.random.default_rng(0)
    n_dates, n_factors = WINDOW + AHEAD, 2
    inside = rng.random((n_dates, N_STOCKS)) < 0.9
    inside[:WINDOW, 0], inside[WINDOW:, 0] = False, True
    date, ticker = map(np.ascontiguousarray, np.nonzero(inside))
    cells = torch.from_numpy(ticker), torch.from_numpy(date)
    x, r, z = rng.normal(size=(len(date), n_factors)), rng.normal(size=len(date)), rng.normal(size=(len(date), 3))
    section = Section(*map(torch.from_numpy, (x, r, z)), *cells, n_dates)
    before, after = section.between(0, WINDOW), section.between(WINDOW, n_dates)
    found = risk_losses(before, after, N_STOCKS, 3, torch.Generator().manual_seed(5)).numpy()
    weights = trial_weights(after, 3, torch.Generator().manual_seed(5))

    factors = np.array([np.linalg.lstsq(x[date == t], r[date == t], rcond=None)[0] for t in range(WINDOW)])
    early = date < WINDOW
    squares = np.square(r[early] - (x[early] * factors[date[early]]).sum(axis=1))
    own = [squares[ticker[early] == stock] for stock in range(N_STOCKS)]
    specific = np.array([(one.sum() + 20.0 * squares.mean()) / (len(one) + 20.0) for one in own])
    losses: dict[str, list[float]] = {name: [] for name in CLASSES}
    for t in range(WINDOW, n_dates):
        rows = date == t
        sigma = x[rows] @ (factors.T @ factors / WINDOW) @ x[rows].T + np.diag(specific[ticker[rows]])
        least = np.linalg.inv(sigma) @ np.ones(len(sigma))
        held = {name: each[after.date == t - WINDOW].numpy().T for name, each in weights.items()}
        for name, each in (
            held | {"stocks": np.eye(len(sigma)), "minimum_variance": least[None] / least.sum()}
        ).items():
            variance, realised = ((each @ sigma) * each).sum(axis=1), np.square(each @ r[rows])
            losses[name] += list(np.log(variance) + realised / variance)
    np.testing.assert_allclose(found, [np.mean(losses[name]) for name in CLASSES], rtol=1e-6)


@pytest.mark.parametrize("where", ["further", "validation_risk"])
def test_returns_of_the_dates_after_enter_no_forecast(where: str) -> None:
    """QLIKE is a line in the squares of returns if these are in no variance, and in no weight of a portfolio."""
    loss = loss_of_one_span()
    after = int(loss.rows.begins[WINDOW if where == "further" else WINDOW + AHEAD])
    found = []
    for scale in (0.0, 1.0, 2.0):
        returns = loss.rows.returns.clone()
        returns[after:] *= scale**0.5
        moved = replace(loss, rows=replace(loss.rows, returns=returns), generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            found.append(float(getattr(moved, where)().mean()))
    assert abs(found[1] - found[0]) > 0.1
    assert found[2] - found[1] == pytest.approx(found[1] - found[0], rel=1e-9)


def test_without_a_weight_it_is_the_profiled_network_to_the_bit() -> None:
    world = quiet(1, **SMALL)
    model = RiskNetwork(**QUICK, risk_weights=(0.0,), seeds=(0, 1)).fit(world.train)
    rows = ProfiledRows.of(*parts_of(world.train, (0.2,)))
    options = DescentOptions(learning_rate=1e-2, l1=0.0, max_epochs=4, patience=10)
    members = [learn(rows, 2, (6,), options, seed) for seed in (0, 1)]
    profiled = ProfiledFactors.nearest(members, world.train)
    np.testing.assert_array_equal(model.loadings(world.test).values, profiled.loadings(world.test))
    np.testing.assert_array_equal(model.factor_returns(world.test).values, profiled.factor_returns(world.test))
    assert model.risk_gain_ == 0.0


def test_the_weight_is_chosen_that_did_best_on_the_last_dates() -> None:
    world, weights = quiet(1, **SMALL), (30.0, 3.0, 0.0)
    model = RiskNetwork(**QUICK, risk_weights=weights, seeds=(0, 1)).fit(world.train)
    losses = model.statistics()["validated_qlike"]
    assert losses["penalty"].values.tolist() == [*weights]
    assert model.risk_weight_ == weights[np.argmin(losses.values)] < 30.0
    alone = RiskNetwork(**QUICK, risk_weights=(model.risk_weight_,), seeds=(0, 1)).fit(world.train)
    np.testing.assert_array_equal(model.loadings(world.test).values, alone.loadings(world.test).values)
    other = RiskNetwork(risk_weights=weights)
    other._choose(np.array([2.0, 1.0, 1.5]))
    assert (other.risk_weight_, other.risk_gain_) == (3.0, 0.5)
    other = RiskNetwork(risk_weights=weights[:2])
    other._choose(np.array([2.0, 1.0]))
    assert other.risk_gain_ is None


def test_sorts_leave_out_a_characteristic_that_does_not_vary() -> None:
    loss = loss_of_one_span()
    loss.rows.characteristics[:, 1:] = 0.0
    with torch.no_grad():
        section = loss._span(0, AHEAD)
    weights = trial_weights(section, 3, torch.Generator().manual_seed(0))["sorts"]
    np.testing.assert_allclose(section.sums(weights.abs()), 1.0)
    assert torch.isfinite(loss.validation_risk()).all()


def test_what_cannot_be_fitted_is_said() -> None:
    train = quiet(0, **SMALL).train
    with pytest.raises(ModelError, match="needs characteristics, and the panel has none"):
        RiskNetwork(**QUICK).fit(Panel(train.data.isel(char=slice(0, 0))))
    with pytest.raises(ModelError, match="32 dates to learn from are fewer than window=63 and ahead=10 together"):
        RiskNetwork().fit(train)
    with pytest.raises(ModelError, match="learnt fewer than 4 distinct factors"):
        RiskNetwork(**QUICK | {"n_factors": 4, "hidden": (1,)}, risk_weights=(0.0,), seeds=(0,)).fit(train)


@pytest.mark.slow
def test_risk_that_explains_little_is_found_by_the_term_alone() -> None:
    world = quiet(0)
    blind, taught = (
        judged(
            RiskNetwork(3, risk_weights=(weight,), max_epochs=30, seeds=(0,)).fit(world.train), world.train, world.test
        )
        for weight in (0.0, 0.1)
    )
    least = truth(world)
    assert taught.volatility < 0.9 * blind.volatility
    assert taught.volatility < 1.12 * least.volatility
    assert taught.minimum_variance.mean() < blind.minimum_variance.mean() - 0.3
