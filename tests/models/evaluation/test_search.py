"""A search finds what is there within its budget, the same on any number of workers, and sees the panel alone."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pytest

from models import IPCA, PCA, BlockedFolds, FactorModel, Hybrid, KernelIPCA, Panel, search
from schemas.errors import ConfigError, ModelError

pytest.importorskip("optuna")

N_FACTORS, N_TRAIN = 2, 100


def world(seed: int = 0) -> Panel:
    """Draw returns of 40 stocks on eight characteristics through two factors, with 20 dates after the training span."""
    rng = np.random.default_rng(seed)
    n_dates = N_TRAIN + 20
    characteristics = rng.standard_normal((n_dates, 40, 8))
    gamma = np.linalg.qr(rng.standard_normal((8, N_FACTORS)))[0]
    factors = 0.02 * (0.5 + rng.standard_normal((n_dates, N_FACTORS)))
    returns = np.einsum("tnl,lk,tk->tn", characteristics, gamma, factors)
    returns += 0.03 * rng.standard_normal(returns.shape)
    dates = pd.bdate_range("2000-01-03", periods=n_dates)
    return Panel.from_arrays(returns, characteristics.astype(np.float32), dates=dates)


def train(panel: Panel) -> Panel:
    return panel.sel(end=panel.dates[N_TRAIN - 1])


def of_other_stocks(model: FactorModel, panel: Panel) -> float:
    """Total R2 of every second stock by the factor returns of the others: a factor too many lowers it."""
    known, asked = (Panel(panel.data.isel(ticker=slice(first, None, 2))) for first in (0, 1))
    explained = (model.loadings(asked).values * model.factor_returns(known).values[:, None]).sum(axis=2)
    returns = asked.returns.values
    return float(1.0 - np.square(returns - explained).sum() / np.square(returns).sum())


def counting(score: Callable[[Any], float]) -> tuple[list[PCA], Callable[[PCA, Panel], float]]:
    """Give a scorer of parameters alone, and the list of the models that it was asked about."""
    seen: list[PCA] = []

    def scoring(model: PCA, panel: Panel) -> float:
        seen.append(model)
        return score(model)

    return seen, scoring


def test_the_number_of_factors_is_found_the_same_on_any_number_of_workers() -> None:
    panel, space = world(), {"n_factors": range(1, 5)}
    alone = search(IPCA(), space, train(panel), budget=12, seed=3, scoring=of_other_stocks)
    assert alone.parameters == {"n_factors": N_FACTORS}
    assert sorted(alone.trials["n_factors"]) == [1, 2, 3, 4]
    assert alone.score == alone.trials["score"].max()
    by_hand = [
        of_other_stocks(IPCA(N_FACTORS).fit(panel.take(learnt)), panel.take(tested))
        for learnt, tested in BlockedFolds().split(range(N_TRAIN))
    ]
    assert alone.score == np.mean(by_hand)
    np.testing.assert_array_equal(alone.model.gamma_, IPCA(N_FACTORS).fit(train(panel)).gamma_)
    later = world(1)
    changed = panel.data.copy(deep=True)
    for name in ("returns", "characteristics"):
        changed[name].values[N_TRAIN:] = later.data[name].values[N_TRAIN:]
    with ThreadPoolExecutor(2) as pool:
        other = search(IPCA(), space, train(Panel(changed)), budget=12, seed=3, scoring=of_other_stocks, executor=pool)
    pd.testing.assert_frame_equal(alone.trials, other.trials)
    np.testing.assert_array_equal(alone.model.gamma_, other.model.gamma_)


def test_trials_go_where_scores_are_high_and_hopeless_ones_cost_one_fold() -> None:
    panel, space = train(world()), {"tol": (1e-12, 1.0, "log"), "scale": ["covariance", "correlation"]}
    seen, scoring = counting(lambda model: -np.square(np.log10(model.tol) + 6.0) - (model.scale == "covariance"))
    found = search(PCA(1), space, panel, budget=40, seed=0, scoring=scoring, batch=2)
    assert len(seen) == found.trials["folds"].sum() < 0.7 * 40 * 5
    pruned = found.trials["state"] == "pruned"
    assert (found.trials.loc[pruned, "folds"] < 5).all()
    assert (found.trials.loc[~pruned, "folds"] == 5).all()
    assert found.trials["score"].idxmax() not in found.trials.index[pruned]
    assert found.parameters["scale"] == "correlation"
    assert abs(np.log10(found.parameters["tol"]) + 6.0) < 0.5
    distance = np.abs(np.log10(found.trials["tol"]) + 6.0)
    assert distance[20:].median() < 0.5 * distance[:10].median()
    _, scoring = counting(lambda model: -model.tol)
    unpruned = search(PCA(1), space, panel, budget=8, seed=0, scoring=scoring, prune=False)
    assert (unpruned.trials["state"] == "complete").all()


def test_a_model_on_another_is_fitted_on_that_of_the_fold() -> None:
    panel = train(world())
    model = Hybrid("components", halflives=(60.0,), shares=(1.0,)).on(PCA(1).fit(panel))
    bases: list[int] = []

    def scoring(fitted: Hybrid, tested: Panel) -> float:
        bases.append(len(fitted._base.factor_returns(panel)) if fitted._base is not model._base else 0)
        return -float(np.abs(fitted._base.premia_ - model._base.premia_)[0])

    found = search(model, {"n_factors": [1, 2]}, panel, budget=2, seed=0, scoring=scoring, cv=BlockedFolds(2))
    assert all(bases)
    assert found.score < 0.0
    np.testing.assert_array_equal(found.model._base.premia_, model._base.premia_)
    assert not hasattr(model, "factors_")


def test_what_cannot_be_fitted_is_a_failed_trial_and_a_sentence_if_all_are() -> None:
    panel, folds = train(world()), BlockedFolds(2)
    found = search(PCA(), {"n_factors": [2, 41]}, panel, budget=2, seed=0, cv=folds, scoring=lambda *_: 1.0)
    by_number = found.trials.set_index("n_factors")
    assert by_number["state"].to_dict() == {2: "complete", 41: "failed"}
    assert "41" in by_number.loc[41, "reason"]
    with pytest.raises(ModelError, match="None of 2 trials could be fitted on all folds: The score of a fold is nan"):
        search(PCA(), {"n_factors": [1, 2]}, panel, budget=2, seed=0, cv=folds, scoring=lambda *_: float("nan"))


def test_time_ends_a_search_after_a_batch() -> None:
    space = {"n_factors": range(1, 7)}
    found = search(PCA(), space, train(world()), budget=6, seed=0, seconds=1e-9, batch=2, cv=BlockedFolds(2))
    assert len(found.trials) == 2


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "names no parameter of KernelIPCA"),
        ({"n_factor": [1]}, "no parameter 'n_factor' to search .did you mean 'n_factors'"),
        ({"n_factors": range(3, 3)}, r"'n_factors' is range\(3, 3\): give"),
        ({"n_factors": []}, r"'n_factors' is \[\]: give"),
        ({"n_factors": 3}, "'n_factors' is 3: give"),
        ({"tol": (1e-3, 1e-3)}, "give a range"),
        ({"tol": (0.0, 1e-3, "log")}, "give a range"),
        ({"tol": (1e-9, float("inf"))}, "give a range"),
        ({"tol": (1e-9, 1e-3, "ln")}, "give a range"),
        ({"n_factors": range(3)}, "'n_factors' has 0, which the model refuses: Input should be greater than"),
        ({"n_factors": (1.5, 3.0)}, "has 1.5, which the model refuses: Input should be a valid integer"),
        ({"n_factors": [1, "many"]}, "has 'many', which the model refuses"),
    ],
)
def test_a_space_that_cannot_be_is_refused_before_a_fit(space: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        search(KernelIPCA(), space, train(world()), budget=2, seed=0)


def test_an_interval_is_of_whole_numbers_where_the_parameter_is() -> None:
    found = search(
        KernelIPCA(1, n_features=0),
        {"n_waves": (0, 4), "tol": (1, 2)},
        train(world()),
        budget=2,
        seed=0,
        cv=BlockedFolds(2),
        scoring=lambda *_: 0.0,
    )
    assert {type(value) for value in found.trials["n_waves"].tolist()} == {int}
    assert {type(value) for value in found.trials["tol"].tolist()} == {float}


def test_numbers_that_bound_nothing_and_no_panel_are_refused() -> None:
    for wrong in ({"budget": 0}, {"batch": 0}, {"seconds": 0.0}):
        with pytest.raises(ConfigError, match=f"needs {next(iter(wrong))} above zero"):
            search(PCA(), {"n_factors": [1]}, train(world()), **({"budget": 1, "seed": 0} | wrong))
    with pytest.raises(ConfigError, match=r"takes a models\.Panel to learn from, not a Dataset"):
        search(PCA(), {"n_factors": [1]}, world().data, budget=1, seed=0)
