"""The SDF network: a known truth, the loss in plain sums, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sdf_worlds import judge, linear, mean_outcome, product, simulate

from models.families.sdf import SDFNetwork
from models.families.sdf.network import networks, training
from models.families.sdf.network.data import Rows
from models.families.sdf.network.moments import MomentLoss, conditioned, normalised
from models.families.sdf.network.networks import Hidden, Member, Players
from models.panel import Panel
from models.statistics.features import Section, Units
from schemas.errors import ModelError

SMALL = {"n_stocks": 150, "n_train": 120, "n_test": 100}


def sections(n_dates: int = 30, n_stocks: int = 12) -> list[Section]:
    """Dates of which each lacks some stocks, and one stock is on none."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(n_dates):
        stocks = np.setdiff1d(np.flatnonzero(rng.random(n_stocks) < 0.8), [3])
        found.append(Section(rng.standard_normal((len(stocks), 2)), rng.standard_normal(len(stocks)), stocks))
    return found


def flat(n_dates: int = 30) -> Rows:
    return Rows.of(sections(n_dates), Units(np.zeros(2), np.ones(2)), 1.0)


def written_out(rows: Rows, kernel: np.ndarray, conditions: np.ndarray) -> float:
    """Sum the loss of the paper stock by stock."""
    dates, stocks, returns = rows.dates.numpy(), rows.stocks.numpy(), rows.returns.numpy()
    total = 0.0
    for stock in np.unique(stocks):
        own = stocks == stock
        error = (kernel[dates[own], None] * returns[own, None] * conditions[own]).mean(axis=0)
        total += own.sum() / len(rows.counts) * np.square(error).sum()
    return total / len(np.unique(stocks))


def test_both_views_of_the_loss_are_the_equation_written_out() -> None:
    rows = flat()
    rng = np.random.default_rng(1)
    factor = rng.standard_normal(30)
    conditions = rng.standard_normal((len(rows.returns), 3))
    tensors = torch.from_numpy(factor), torch.from_numpy(conditions)
    loss = MomentLoss.of(rows, tensors[1])
    nothing = written_out(rows, np.ones(30), conditions)
    assert loss.at(tensors[0]).item() == pytest.approx(written_out(rows, 1.0 - factor, conditions) / nothing)
    k = loss.scale(tensors[0])
    values = [loss.at((k + step) * tensors[0]).item() for step in (-1e-3, 0.0, 1e-3)]
    assert min(values) == values[1]
    for turned in (tensors[0], -3.0 * tensors[0]):
        assert loss.best(turned).item() == pytest.approx(values[1])
    sized = conditions / np.sqrt(np.square(conditions).mean(axis=0))
    expected = written_out(rows, 1.0 - factor, sized)
    assert conditioned(rows, 1.0 - tensors[0], tensors[1]).item() == pytest.approx(expected)
    np.testing.assert_allclose(normalised(tensors[1], tensors[1]).numpy(), sized)


def test_the_factor_of_rows_and_of_features_is_the_mean_of_weights_times_returns() -> None:
    found, units = sections(), Units(np.array([0.2, 0.0]), np.array([1.0, 2.0]))
    players = [Players(2, (6, 4), 3, torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    members = [Member.of(one.sdf) for one in players]
    features = Hidden.of(units, members)
    portfolios, rows = features.portfolios(found), Rows.of(found, units, 1.0)
    for one, theta in zip(players, features.thetas(members), strict=True):
        weights = one.weights(rows.inputs).detach()
        np.testing.assert_allclose(rows.factor(weights).numpy(), portfolios @ theta, atol=1e-6)
        by_hand = [np.mean(weights.numpy()[rows.dates == date] * day.returns) for date, day in enumerate(found)]
        np.testing.assert_allclose(rows.factor(weights).numpy(), by_hand, atol=1e-6)


def test_the_adversary_makes_the_loss_larger_and_patience_counts_from_the_best_epoch() -> None:
    world = simulate(linear, 0, n_stocks=60, n_train=100, n_test=10)
    model = SDFNetwork(hidden=(8,), patience=5, max_epochs=60)
    data = model._training_data(model._sampled(world.train))
    assert (len(data.learnt.counts), len(data.held.counts)) == (80, 20)
    told: list[str] = []
    training.train(data, model._options(), 0, told.append)
    adversary = [float(line.rsplit(" ", 1)[1]) for line in told if "adversary" in line]
    assert len(adversary) == 20
    assert adversary[-1] > 1.03 * adversary[0]
    for step in ("without conditions", "with conditions"):
        lines = [line for line in told if step in line]
        losses = [float(line.split(" in training, ")[1].split()[0]) for line in lines]
        assert len(losses) == min(int(np.argmin(losses)) + 5, 60) + 1


def test_every_network_has_the_sign_that_earns() -> None:
    """Also those that were drawn with the other one."""
    world = simulate(linear, 0, n_stocks=60, n_train=100, n_test=10)
    data = SDFNetwork()._training_data(SDFNetwork()._sampled(world.train))
    for seed in range(4):
        options = SDFNetwork(hidden=(8,), patience=3, max_epochs=5, adversary_epochs=1)._options()
        member = training.train(data, options, seed)
        features = Hidden.of(Units(np.zeros(2), np.ones(2)), [member])
        weights = features(data.learnt.inputs.numpy()) @ features.thetas([member])[0]
        assert data.learnt.factor(torch.from_numpy(weights)).mean() > 0.0


def test_many_rows_give_the_gradient_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = flat()
    gradients = []
    for chunk, kept in ((10_000, 64), (50, 2)):
        monkeypatch.setattr(networks, "CHUNK", chunk)
        monkeypatch.setattr(networks, "_CHUNKS_IN_MEMORY", kept)
        players = Players(2, (6,), 3, torch.Generator().manual_seed(0))
        torch.autograd.backward(rows.factor(players.weights(rows.inputs)).square().sum())
        gradients.append(players.sdf[0].weight.grad.numpy())
    np.testing.assert_allclose(gradients[1], gradients[0], rtol=1e-4, atol=1e-7)


def test_a_product_of_two_characteristics_is_found() -> None:
    world = simulate(product, 1, irrelevant=2, n_stocks=200, n_train=150, n_test=100)
    model = SDFNetwork(seeds=(0,)).fit(world.train)
    outcome = judge(model, world)
    assert outcome.relative > 0.95
    assert outcome.xs_r2 > 0.04
    assert np.square(model.weights(world.train).values[..., 0]).mean() == pytest.approx(1.0, abs=1e-6)
    held = model.factor_returns(world.train).values[-30:, 0]
    assert model.validated_sharpe_ratio_ == pytest.approx(held.mean() / held.std())


def test_what_cannot_be_fitted_is_refused() -> None:
    train = simulate(linear, 0, **SMALL).train
    with pytest.raises(ModelError, match=r"SDFNetwork needs 24 dates .* or lower min_stocks"):
        SDFNetwork().fit(train.sel(end=train.dates[22]))
    with pytest.raises(ModelError, match="earn nothing"):
        SDFNetwork().fit(Panel(train.data.assign(returns=0.0 * train.returns)))
    with pytest.raises(ModelError, match=r"The loss of seed 0 is not finite .* lower learning_rate"):
        SDFNetwork(learning_rate=1e30).fit(train)


@pytest.mark.slow
@pytest.mark.parametrize(("irrelevant", "least"), [(0, 0.95), (8, 0.95)])
def test_the_simulation_of_chen_pelger_and_zhu(irrelevant: int, least: float) -> None:
    """Two worlds and two networks; the table of `docs/nonlinear.md` has eight, and the defaults."""
    mean = mean_outcome("product", irrelevant, range(2), lambda: SDFNetwork(seeds=(0, 1)))
    assert mean.relative > least
    assert mean.xs_r2 > 0.12
