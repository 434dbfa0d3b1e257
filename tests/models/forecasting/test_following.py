"""What a fit's risk follows: as many dates as its estimators remember, the same however the rows are come by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.families.pca.model import PCA
from models.forecasting.following import RiskEstimators, RiskState, Served, serve
from models.panel import Panel
from schemas.errors import ModelError
from schemas.risk import RiskSpec

N_DATES, FITTED, END = 600, 500, 580
SPEC = RiskSpec.model_validate({"covariance": {"halflife": 12.0}, "specific": {"halflife": 9.0}})
SINCE = FITTED + 1 - 240
"""Twenty half-lives of twelve dates, the last of them that of the fit."""


def market(seed: int = 0) -> Panel:
    """Two factors and a dozen stocks, some without a return now and then."""
    rng = np.random.default_rng(seed)
    loadings, factors = rng.normal(1.0, 0.5, (12, 2)), rng.normal(0.0, 0.01, (N_DATES, 2))
    returns = factors @ loadings.T + rng.normal(0.0, 0.01, (N_DATES, 12))
    returns[rng.random(returns.shape) < 0.02] = np.nan
    return Panel.from_arrays(returns, rng.standard_normal((N_DATES, 12, 1)))


def fitted() -> PCA:
    return PCA(n_factors=2, min_observations=20).fit(market().rows(0, FITTED + 1))


class InMemory:
    """States by position and where they begin."""

    def __init__(self) -> None:
        self.kept: dict[tuple[int, int], RiskState] = {}

    def find(self, n_dates: int, since: int) -> RiskState | None:
        there = [count for count, begin in self.kept if begin == since and count <= n_dates]
        return self.kept[max(there), since] if there else None

    def keep(self, state: RiskState) -> None:
        self.kept[state.n_dates, state.since] = state


def rows_of(panel: Panel, estimators: RiskEstimators) -> Served:
    return serve(fitted(), panel, FITTED, END, estimators)


def test_what_is_forgotten_is_less_than_a_millionth() -> None:
    estimators = RiskEstimators.of(SPEC)
    assert estimators.since(FITTED) == SINCE
    short, whole = rows_of(market(), estimators), rows_of(market(), replace(estimators, history=None))
    scale = np.abs(whole.omega).max()
    assert 0.0 < np.abs(short.omega - whole.omega).max() < 1e-6 * scale
    np.testing.assert_allclose(short.specific_variance, whole.specific_variance, rtol=1e-6)


def test_dates_before_those_have_no_say() -> None:
    panel = market()
    other = panel.data.copy(deep=True)
    other["returns"].values[:SINCE] *= 3.0
    for name in ("omega", "specific_variance", "factor_returns"):
        one, two = (getattr(rows_of(each, RiskEstimators.of(SPEC)), name) for each in (panel, Panel(other)))
        np.testing.assert_array_equal(one, two, err_msg=name)
    other["returns"].values[SINCE] *= 3.0
    moved = rows_of(Panel(other), RiskEstimators.of(SPEC)).omega
    assert (moved != rows_of(panel, RiskEstimators.of(SPEC)).omega).any()


@pytest.mark.parametrize("kept", [True, False])
def test_later_rows_are_the_same_bits_whether_states_were_kept_or_not(kept: bool) -> None:
    """An update follows from where the risk of its fit began, not from where it would begin itself."""
    whole, states = rows_of(market(), RiskEstimators.of(SPEC)), InMemory()
    middle = FITTED + 50
    if kept:
        serve(fitted(), market(), FITTED, middle, RiskEstimators.of(SPEC), checkpoints=states)
    assert all(count > FITTED and since == SINCE for count, since in states.kept)
    later = serve(fitted(), market(), middle, END, RiskEstimators.of(SPEC), fitted=FITTED, checkpoints=states)
    for name in ("omega", "specific_variance"):
        np.testing.assert_array_equal(getattr(later, name), getattr(whole, name)[50:], err_msg=name)


def without_recent_factors(from_: int) -> Panel:
    data = market().data.copy(deep=True)
    data["returns"].values[from_:FITTED] = np.nan
    return Panel(data)


def test_a_history_that_says_nothing_is_followed_from_its_start() -> None:
    """Dates without a return change nothing: Omega is that of the dates before them, which are out of sight."""
    quiet, estimators, states = without_recent_factors(SINCE - 50), RiskEstimators.of(SPEC), InMemory()
    found = serve(fitted(), quiet, FITTED, END, estimators, checkpoints=states)
    whole = rows_of(quiet, replace(estimators, history=None))
    np.testing.assert_array_equal(found.omega, whole.omega)
    later = serve(fitted(), quiet, FITTED + 50, END, estimators, fitted=FITTED, checkpoints=states)
    np.testing.assert_array_equal(later.omega, whole.omega[50:])
    with pytest.raises(ModelError, match="needs 24 dates"):
        serve(fitted(), without_recent_factors(0), FITTED, FITTED + 5, estimators)


@pytest.mark.parametrize(
    ("risk", "dates"),
    [
        ({}, 1800),
        ({"preset": "long"}, 20 * 504 + 2),
        ({"history": 100}, 100),
        ({"covariance": {"halflife": 30.0, "regime": {"halflife": 80.0}}}, 1600),
        ({"covariance": {"halflife": 30.0, "oracle": {}}}, None),
        ({"covariance": {"method": "oas"}}, None),
        ({"covariance": {"method": "qis", "window": 700}}, 1400),
        ({"covariance": {"method": "cm_iewma"}}, 20 * 250 + 10),
        ({"covariance": {"halflife": 5.0}, "specific": {"halflife": 100.0}}, 2000),
    ],
)
def test_how_many_dates_are_remembered(risk: dict[str, object], dates: int | None) -> None:
    assert RiskSpec.model_validate(risk).remembered == dates
