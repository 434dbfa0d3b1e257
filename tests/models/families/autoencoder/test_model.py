"""The conditional autoencoder: does it find factors that are known, and does it keep its promises on time and state."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from models.families.autoencoder import ConditionalAutoencoder, EpochReport, Member
from models.families.autoencoder.data import TrainingData
from models.families.autoencoder.networks import Autoencoder
from models.families.base import ModelState
from models.families.ipca import IPCA
from models.families.neural import SideBySide
from models.panel import Panel
from models.panel.transforms import rank_to_unit_interval
from schemas.errors import ConfigError, ModelError

N_TRAIN = 120


def simulate(
    kind: str, *, dates: int = 180, stocks: int = 150, chars: int = 10, seed: int = 0, persistence: float = 0.0
) -> tuple[Panel, np.ndarray, np.ndarray]:
    """Gu, Kelly and Xiu (2021), section 3: ranked AR(1) characteristics, three factors, Student-t noise.

    Returns the panel, the factors (date, factor) and the systematic returns (date, ticker).
    """
    rng = np.random.default_rng(seed)
    rho = rng.uniform(0.9, 1.0, chars)
    level = np.empty((dates, stocks, chars))
    level[0] = rng.normal(size=(stocks, chars))
    for t in range(1, dates):
        level[t] = rho * level[t - 1] + np.sqrt(1.0 - rho**2) * rng.normal(size=(stocks, chars))
    z = rank_to_unit_interval(level, np.ones(level.shape[:2], dtype=bool)).astype(np.float64)
    first, second, third = z[..., 0], z[..., 1], z[..., 2]
    if kind == "linear":
        beta = np.stack([1.2 * first, second, 0.8 * third], axis=-1)
    else:
        beta = np.stack([first**2, 2.0 * first * second, 0.6 * np.sign(third)], axis=-1)
    factors = rng.normal(0.0, 0.1, (dates, 3))
    for t in range(1, dates):
        factors[t] += persistence * factors[t - 1]
    factors += 0.03 + rng.normal(0.0, 0.01, (dates, 3))
    systematic = np.einsum("tnk,tk->tn", beta, factors)
    returns = systematic + 0.1 * rng.standard_t(5, (dates, stocks))
    return Panel.from_arrays(returns.astype(np.float32), z.astype(np.float32)), factors, systematic


def split(panel: Panel) -> tuple[Panel, Panel]:
    return panel.sel(end=panel.dates[N_TRAIN - 1]), panel.sel(start=panel.dates[N_TRAIN])


def canonical_correlations(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    bases = [np.linalg.qr(values - values.mean(axis=0))[0] for values in (left, right)]
    return np.linalg.svd(bases[0].T @ bases[1])[1]


def uncentred_r2(returns: np.ndarray, explained: np.ndarray) -> float:
    return 1.0 - float(np.square(returns - explained).sum() / np.square(returns).sum())


@pytest.fixture(scope="module")
def linear() -> tuple[Panel, np.ndarray, np.ndarray]:
    return simulate("linear")


@pytest.fixture(scope="module")
def fitted(linear) -> ConditionalAutoencoder:
    return ConditionalAutoencoder(n_factors=3).fit(split(linear[0])[0])


@pytest.fixture(scope="module")
def holed() -> Panel:
    """Return a small panel with uncovered stocks, missing returns, an empty date, and a row for the next session."""
    panel, _, _ = simulate("linear", dates=61, stocks=40, chars=4, seed=5)
    rng = np.random.default_rng(1)
    returns, z = panel.returns.values.copy(), panel.characteristics.values.copy()
    z[rng.random(returns.shape) < 0.1] = np.nan
    returns[rng.random(returns.shape) < 0.1] = np.nan
    returns[20] = returns[-1] = np.nan
    return Panel.from_arrays(returns, z)


def small(**params) -> ConditionalAutoencoder:
    defaults = {"n_factors": 2, "hidden": (8,), "max_epochs": 4, "seeds": (0, 1)}
    return ConditionalAutoencoder(**{**defaults, **params})


# What is known in advance


def test_finds_the_factors_of_a_linear_model_out_of_sample(linear, fitted):
    panel, factors, systematic = linear
    _, test = split(panel)
    found = fitted.factor_returns(test).values
    assert canonical_correlations(found, factors[N_TRAIN:]).min() > 0.95
    oracle = uncentred_r2(test.returns.values, systematic[N_TRAIN:])
    assert fitted.score(test)["total_r2"] > oracle - 0.02


def test_without_hidden_layers_it_explains_what_ipca_does(linear):
    train, test = split(linear[0])
    ours, peer = ConditionalAutoencoder(n_factors=3, hidden=()).fit(train), IPCA(n_factors=3).fit(train)
    for part in (train, test):
        assert ours.score(part)["total_r2"] == pytest.approx(peer.score(part)["total_r2"], abs=0.01)


def test_beats_linear_loadings_where_loadings_are_not_linear():
    """Total R2 out of sample. The factor of c1 c2 is in no linear portfolio: neither model can have it."""
    train, test = split(simulate("nonlinear", seed=1)[0])
    constant = [
        Panel.from_arrays(
            part.returns.values,
            np.concatenate([part.characteristics.values, np.ones((*part.returns.shape, 1), np.float32)], axis=2),
            dates=part.dates,
        )
        for part in (train, test)
    ]
    ours = ConditionalAutoencoder(n_factors=3).fit(train).score(test)["total_r2"]
    peer = IPCA(n_factors=3).fit(constant[0]).score(constant[1])["total_r2"]
    assert ours > peer + 0.05


@pytest.mark.slow
def test_one_ahead_predicts_persistent_factors():
    train, test = split(simulate("linear", seed=2, persistence=0.7)[0])
    ahead = ConditionalAutoencoder(n_factors=3, target="one_ahead").fit(train)
    same = ConditionalAutoencoder(n_factors=3).fit(train)
    assert ahead.score(test)["predictive_r2"] > same.score(test)["predictive_r2"] + 0.05
    assert ahead.score(test)["total_r2"] > 0.9 * same.score(test)["total_r2"]
    assert np.isnan(ahead.expected_returns(test).values[0]).all()
    assert np.isfinite(ahead.expected_returns(test).values[1:]).all()


@pytest.mark.slow
def test_real_daily_returns_of_twenty_stocks():
    """Volatility, beta-like and momentum ranks explain about a third of daily variance out of sample, mostly market."""
    datasets = pytest.importorskip("skfolio.datasets")
    prices = datasets.load_sp500_dataset().iloc[-1500:]
    returns = prices.pct_change(fill_method=None)
    market = returns.mean(axis=1)
    known = [
        returns.rolling(63).std(),
        returns.rolling(126).cov(market),
        np.log(prices).diff(126),
        returns.rolling(5).sum(),
    ]
    z = np.stack([frame.shift(1).to_numpy() for frame in known], axis=-1)
    covered = np.isfinite(z).all(axis=-1)
    dates = pd.DatetimeIndex(prices.index, name="date")
    panel = Panel.from_arrays(returns.to_numpy(), rank_to_unit_interval(z, covered), dates=dates)
    model = ConditionalAutoencoder(n_factors=2).fit(panel.sel(end=dates[1099]))
    assert model.score(panel.sel(start=dates[1100]))["total_r2"] > 0.3


# The ensemble


def test_members_that_differ_only_in_coordinates_give_back_their_common_model(linear):
    train, _ = split(linear[0])
    model = ConditionalAutoencoder(n_factors=3, max_epochs=3)
    member = model.fit_seed(train, 0)
    rng = np.random.default_rng(3)
    members = [member]
    for _ in range(3):
        change = rng.normal(size=(3, 3))
        inverse = np.linalg.inv(change).T
        members.append(
            replace(
                member,
                weights=(*member.weights[:-1], (member.weights[-1] @ change).astype(np.float32)),
                biases=(*member.biases[:-1], (member.biases[-1] @ change).astype(np.float32)),
                factor_weight=member.factor_weight @ inverse,
            )
        )
    alone = model.clone().combine(train, [member])
    together = model.clone().combine(train, members)
    np.testing.assert_allclose(together.loadings(train), alone.loadings(train), atol=2e-4)
    np.testing.assert_allclose(together.factor_returns(train), alone.factor_returns(train), atol=2e-5)


def test_the_ensemble_is_no_worse_than_its_members_on_average(linear, fitted):
    train, test = split(linear[0])
    members = [fitted.fit_seed(train, seed) for seed in fitted.seeds]
    single = [fitted.clone().combine(train, [member]).score(test)["total_r2"] for member in members]
    assert fitted.score(test)["total_r2"] > np.mean(single)


def test_factors_are_normalised(linear, fitted):
    train, _ = split(linear[0])
    loadings = fitted.loadings(train).values.astype(np.float64)
    gram = np.einsum("tnk,tnl->kl", loadings, loadings) / loadings.shape[0] / loadings.shape[1]
    np.testing.assert_allclose(gram, np.eye(3), atol=1e-5)
    returns = fitted.factor_returns(train).values
    covariance = np.cov(returns.T)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-6 * covariance[0, 0])
    assert (np.diff(np.diag(covariance)) < 0).all()
    assert (fitted.premia_ > 0).all()
    np.testing.assert_allclose(fitted.premia_, returns.mean(axis=0), rtol=1e-5)


def test_a_collapsed_member_is_dropped_and_none_left_is_an_error(linear):
    train, _ = split(linear[0])
    model = ConditionalAutoencoder(n_factors=3, max_epochs=2)
    good = model.fit_seed(train, 0)
    dead = replace(
        good, factor_weight=good.factor_weight * [1.0, 1.0, 0.0], history=(replace(good.history[0], seed=7),)
    )
    with pytest.warns(UserWarning, match=r"Seeds \[7\] are left out"):
        kept = model.clone().combine(train, [dead, good])
    np.testing.assert_array_equal(kept.loadings(train), model.clone().combine(train, [good]).loadings(train))
    with pytest.raises(ModelError, match="fewer than 3 distinct factors"):
        model.clone().combine(train, [dead, dead])


# Reproducibility and state


def test_seeds_trained_apart_give_the_same_bits_whatever_the_process_did_before(holed):
    reports: list[EpochReport] = []
    together = small().fit(holed, callback=reports.append)
    threads = torch.get_num_threads()
    torch.manual_seed(99)
    torch.set_num_threads(2)
    try:
        before = torch.get_rng_state()
        sent = [pickle.dumps(small().fit_seed(holed, seed)) for seed in (0, 1)]
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    members: list[Member] = [pickle.loads(member) for member in sent]  # noqa: S301  # made above, as Dask does
    apart = small().combine(holed, members)
    assert reports == apart.history_ == together.history_
    assert [(report.seed, report.epoch) for report in reports] == [(s, e) for s in (0, 1) for e in range(1, 5)]
    for name, array in together.state().arrays.items():
        np.testing.assert_array_equal(array, apart.state().arrays[name])


def test_early_stopping_keeps_the_best_epoch(linear):
    train, _ = split(linear[0])
    model = ConditionalAutoencoder(n_factors=3, max_epochs=60, patience=3, learning_rate=0.02, seeds=(0,))
    member = model.fit_seed(train, 0)
    best = min(member.history, key=lambda report: report.validation_loss)
    assert len(member.history) == best.epoch + 3 < 60
    assert [report.epoch for report in member.history if report.best][-1] == best.epoch
    data = model._training_data(train)
    factors = data.portfolios.numpy().astype(np.float64) * data.scales.portfolios @ member.factor_weight
    rows = slice(data.n_train, None)
    z = data.characteristics[rows].numpy() * data.scales.char_scale + data.scales.char_mean
    loadings = SideBySide.stack([member])(z.astype(np.float32))
    explained = (loadings * factors[data.dates[rows].numpy()]).sum(axis=1)
    loss = 1.0 - uncentred_r2(data.returns[rows].numpy() * data.scales.returns, explained)
    assert loss == pytest.approx(best.validation_loss, rel=1e-4)


@pytest.mark.parametrize("options", [{}, {"target": "one_ahead"}, {"factors": "profiled"}])
def test_state_survives_storage_bit_for_bit(holed, options):
    model = small(**options).fit(holed)
    state = model.state()
    stored = load(save({name: np.ascontiguousarray(array, np.float32) for name, array in state.arrays.items()}))
    params = json.loads(json.dumps(model.get_params()))
    again = ConditionalAutoencoder.from_state(params, ModelState(stored, json.loads(json.dumps(state.meta))))
    for method in ("loadings", "factor_returns", "expected_returns"):
        xr.testing.assert_identical(getattr(model, method)(holed), getattr(again, method)(holed))
    np.testing.assert_array_equal(model.premia_, again.premia_)
    assert model.history_ == again.history_


@pytest.mark.parametrize("options", [{}, {"target": "one_ahead"}, {"factors": "profiled"}])
def test_a_rotation_changes_coordinates_and_nothing_else(holed, options):
    model = small(**options).fit(holed)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    rotated = model.rotate(turn)
    np.testing.assert_allclose(rotated.loadings(holed), model.loadings(holed).values @ turn, atol=1e-5)
    np.testing.assert_allclose(rotated.factor_returns(holed), model.factor_returns(holed).values @ turn, atol=1e-6)
    np.testing.assert_allclose(rotated.expected_returns(holed), model.expected_returns(holed), atol=1e-6)
    np.testing.assert_allclose(rotated.premia_, model.premia_.values @ turn, rtol=1e-5)


def test_folded_weights_are_the_network_in_evaluation_mode(holed):
    model = small(hidden=(8, 4))
    data = model._training_data(holed)
    network = Autoencoder(4, 5, 2, (8, 4), intercept=True).initialise(torch.Generator().manual_seed(0))
    for _ in range(20):
        network(data.characteristics, data.portfolios[data.dates])  # moves the running statistics
    member = network.eval().folded(data.scales, ())
    z = holed.characteristics.values[holed.mask.values]
    with torch.no_grad():
        expected = network.beta(data.characteristics).numpy()
        factors = network.factor(data.portfolios).numpy() * data.scales.returns
    np.testing.assert_allclose(SideBySide.stack([member])(z), expected, atol=1e-5)
    portfolios = data.portfolios.numpy() * data.scales.portfolios
    np.testing.assert_allclose(portfolios @ member.factor_weight + member.factor_bias, factors, atol=1e-6)


def test_the_model_of_a_fixed_set_of_stocks_is_its_formula(holed):
    """Loadings Dense(relu), batch normalisation, Dense; factors one Dense of the returns of all stocks."""
    model = small(hidden=(8, 4), factors="returns").fit(holed)
    data = model._training_data(holed)
    network = Autoencoder(4, len(model.tickers_), 2, (8, 4), intercept=True, relu_first=True)
    network.initialise(torch.Generator().manual_seed(0))
    for _ in range(20):
        network(data.characteristics, data.portfolios[data.dates])
    member = network.eval().folded(data.scales, ())
    p = {name: value.numpy().astype(np.float64) for name, value in network.state_dict().items()}
    h = data.characteristics.numpy().astype(np.float64)
    for dense, norm in ((0, 2), (3, 5)):
        h = np.maximum(h @ p[f"beta.{dense}.weight"].T + p[f"beta.{dense}.bias"], 0.0)
        deviation = np.sqrt(p[f"beta.{norm}.running_var"] + 1e-5)
        h = (h - p[f"beta.{norm}.running_mean"]) / deviation * p[f"beta.{norm}.weight"] + p[f"beta.{norm}.bias"]
    beta = h @ p["beta.6.weight"].T + p["beta.6.bias"]
    z = holed.characteristics.values[holed.mask.values]
    np.testing.assert_allclose(SideBySide.stack([member])(z), beta, atol=1e-5)

    returns = holed.returns.where(holed.mask, 0.0).sel(ticker=model.tickers_).values.astype(np.float64)
    returns[~holed.mask.any("ticker").values] = np.nan
    seen = data.portfolios.numpy().astype(np.float64)
    np.testing.assert_allclose(seen * data.scales.portfolios, returns, atol=1e-7)
    factors = (seen @ p["factor.weight"].T + p["factor.bias"]) * data.scales.returns
    np.testing.assert_allclose(returns @ member.factor_weight + member.factor_bias, factors, atol=1e-5)


def test_stocks_that_keep_their_characteristics_carry_the_factors_themselves():
    rng = np.random.default_rng(0)
    z = np.broadcast_to(rng.uniform(-1.0, 1.0, (20, 3)), (400, 20, 3)).astype(np.float32)
    returns = np.einsum("tnk,tk->tn", z, rng.normal(0.0, 0.1, (400, 3))) + rng.normal(0.0, 0.05, (400, 20))
    panel = Panel.from_arrays(returns.astype(np.float32), z)
    train, test = panel.sel(end=panel.dates[299]), panel.sel(start=panel.dates[300])
    model = ConditionalAutoencoder(n_factors=3, factors="returns", seeds=(0, 1)).fit(train)
    assert model.score(test)["total_r2"] > IPCA(n_factors=3).fit(train).score(test)["total_r2"] - 0.03

    expected = model.factor_returns(test)
    newcomer = test.data.isel(ticker=[0]).assign_coords(ticker=["a newcomer"])
    wider = Panel(xr.concat([newcomer, test.data.isel(ticker=slice(None, None, -1))], "ticker"))
    np.testing.assert_array_equal(model.factor_returns(wider).values, expected.values)
    assert model.loadings(wider).sel(ticker="a newcomer").notnull().all()


# Invariance, timing and missing values


@pytest.mark.slow
def test_parameters_have_no_units(linear):
    """In float64: rounding returns to float32 differently is a perturbation, which training amplifies."""
    train, _ = split(linear[0])
    returns = train.returns.astype(np.float64)
    decimals, percent = (Panel(train.data.assign(returns=returns * factor)) for factor in (1.0, 100.0))
    eighths = Panel(decimals.data.assign(characteristics=train.characteristics * np.float32(8.0)))
    model = ConditionalAutoencoder(n_factors=3, max_epochs=8, seeds=(0, 1))
    base, in_percent, in_eighths = (model.clone().fit(part) for part in (decimals, percent, eighths))
    expected = base.factor_returns(decimals).values
    np.testing.assert_allclose(in_percent.factor_returns(percent) / 100.0, expected, atol=1e-4 * expected.std())
    np.testing.assert_allclose(in_eighths.factor_returns(eighths), expected, atol=1e-4 * expected.std())
    np.testing.assert_allclose(in_percent.loadings(percent), base.loadings(decimals), atol=1e-4)
    np.testing.assert_allclose(in_eighths.loadings(eighths), base.loadings(decimals), atol=1e-4)


@pytest.mark.parametrize("target", ["contemporaneous", "one_ahead"])
def test_the_future_does_not_reach_the_past(holed, target):
    model = small(target=target).fit(holed)
    before = {name: getattr(model, name)(holed) for name in ("loadings", "factor_returns", "expected_returns")}

    @settings(max_examples=15, deadline=None)
    @given(cut=st.integers(1, 59), seed=st.integers(0, 2**16))
    def check(cut: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        returns, z = holed.returns.values.copy(), holed.characteristics.values.copy()
        returns[cut:] = rng.normal(size=returns[cut:].shape)
        z[cut + 1 :] = rng.normal(size=z[cut + 1 :].shape)
        changed = Panel.from_arrays(returns, z)
        # r[cut] is new, Z of the row `cut` (known before it) is not: loadings and expectations there must stand.
        for name, last in (("loadings", cut + 1), ("expected_returns", cut + 1), ("factor_returns", cut)):
            after = getattr(model, name)(changed).values[:last]
            np.testing.assert_allclose(after, before[name].values[:last], rtol=1e-5, atol=1e-7)

    check()


def test_training_does_not_see_what_lies_outside_the_mask(holed):
    noise = np.random.default_rng(0).normal(size=holed.returns.shape).astype(np.float32)
    polluted = Panel(holed.data.assign(returns=holed.returns.where(holed.mask, noise)))
    np.testing.assert_array_equal(small().fit(holed).loadings(holed), small().fit(polluted).loadings(holed))


def test_missing_values(holed):
    model = small().fit(holed)
    loadings, factors = model.loadings(holed), model.factor_returns(holed)
    assert loadings.dims == ("date", "ticker", "factor")
    assert loadings.dtype == np.float32
    assert factors.dtype == np.float64
    np.testing.assert_array_equal(np.isfinite(loadings.values).all(axis=2), holed.coverage.values)
    np.testing.assert_array_equal(np.isfinite(factors.values).all(axis=1), holed.mask.values.any(axis=1))
    assert np.isfinite(loadings.values[-1]).any()  # the next session, as of the last close
    assert np.isfinite(model.expected_returns(holed).values[-1]).any()


def test_blocks_join_without_a_seam():
    panel, _, _ = simulate("linear", dates=530, stocks=20, chars=3)
    model = small(target="one_ahead").fit(panel)
    pieces = [panel.sel(end=panel.dates[299]), panel.sel(start=panel.dates[300])]
    for name in ("loadings", "factor_returns"):
        joined = xr.concat([getattr(model, name)(piece) for piece in pieces], "date")
        np.testing.assert_allclose(getattr(model, name)(panel), joined, atol=1e-5)


def test_factor_returns_of_one_ahead_are_the_cross_sectional_regression(holed):
    model = small(target="one_ahead").fit(holed)
    mask = holed.mask.values[7]
    loadings = model.loadings(holed).values[7][mask].astype(np.float64)
    expected, *_ = np.linalg.lstsq(loadings, holed.returns.values[7][mask].astype(np.float64))
    np.testing.assert_allclose(model.factor_returns(holed).values[7], expected, rtol=1e-6)


# Errors


def test_errors_say_what_to_do(holed):
    with pytest.raises(ModelError, match="5 managed portfolios carry 1 to 5 factors"):
        small(n_factors=6).fit(holed)
    with pytest.raises(ModelError, match="for validation"):
        small().fit(holed.sel(end=holed.dates[2]))
    with pytest.raises(ModelError, match=r"seed 0 is not finite at epoch 1.*lower learning_rate"):
        small(learning_rate=1e30).fit(holed)
    with pytest.raises(ModelError, match="not fitted"):
        small().loadings(holed)
    model = small().fit(holed)
    with pytest.raises(ModelError, match="char"):
        model.loadings(Panel(holed.data.isel(char=[0, 1])))
    with pytest.raises(ConfigError, match="orthogonal"):
        model.rotate(np.ones((2, 2)))


def test_validation_dates_are_the_last_and_train_nothing(linear):
    train, _ = split(linear[0])
    data = TrainingData.of(train, target="contemporaneous", validation_fraction=0.25, n_factors=3)
    assert data.dates[data.n_train - 1] == 89
    assert data.dates[data.n_train] == 90
    returns = train.returns.values.copy()
    returns[90:] *= -3.0
    other = Panel.from_arrays(returns, train.characteristics.values, dates=train.dates)
    reports = [
        ConditionalAutoencoder(n_factors=3, max_epochs=2, validation_fraction=0.25).fit_seed(part, 0).history
        for part in (train, other)
    ]
    assert [report.train_loss for report in reports[0]] == [report.train_loss for report in reports[1]]
    assert reports[0][0].validation_loss != reports[1][0].validation_loss
