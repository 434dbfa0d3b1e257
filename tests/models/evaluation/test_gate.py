"""The gate: what a challenger may lose against the champion, and that both are scored on the same ground."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import xarray as xr
from fixtures_versions import make_versions
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from models import RiskModel
from models.evaluation import forecasts
from models.evaluation.comparison import compare, held_out_dates
from models.evaluation.gate import decide
from models.evaluation.superiority import model_confidence_set
from schemas.contracts import Criterion, GateDecision
from schemas.spec import GateSpec

METRICS = {"total_r2_out_of_sample": 0.3, "bias_statistic.equal_weight": 1.1, "bias_statistic.long_short": None}
CRITERIA = GateSpec(window=100)
CHAMPION = "2022-09-30-0123abcd"


def world() -> tuple[xr.Dataset, xr.DataArray, xr.DataArray]:
    """One version of a known factor model, and the returns and mask that it was evaluated on."""
    version = make_versions(("ipca",), n_dates=400, n_tickers=12)[0].dataset
    rng = np.random.default_rng(7)
    explained = xr.dot(version["loadings"].astype(float), version["factor_returns"].shift(date=-1), dim="factor")
    noise = rng.normal(0.0, 0.01, (version.sizes["date"], version.sizes["ticker"]))
    returns = explained.shift(date=1).fillna(0.0) + noise
    mask = xr.DataArray(rng.random(returns.shape) > 0.05, dims=returns.dims, coords=returns.coords)
    model = RiskModel(version["loadings"], version["omega"], version["specific_variance"])
    own = version.drop_vars("portfolio_variance_factor").merge(model.decompose(version["weights"]), compat="override")
    own["qlike"] = forecasts.evaluate(own, returns)["qlike"]
    return own, returns, mask


VERSION, RETURNS, MASK = world()


def decided(challenger: xr.Dataset, champion: xr.Dataset = VERSION, **changes: object) -> GateDecision:
    return decide(CRITERIA.model_copy(update=changes), METRICS, challenger, (CHAMPION, champion), RETURNS, MASK)


def found(decision: GateDecision, word: str) -> Criterion:
    (one,) = [criterion for criterion in decision.criteria if criterion.name.startswith(word)]
    return one


R2, QLIKE, COVERAGE = "total R2 against", "QLIKE against", "coverage against"
TESTED, IN_SET = "Diebold-Mariano p-value", "model confidence set"
UNTESTED: dict[str, object] = {"significance": None, "confidence": None}
FORECASTS = "portfolios with a forecast"


def failed(decision: GateDecision) -> list[str]:
    return [criterion.name for criterion in decision.criteria if not criterion.passed]


def test_without_a_champion_the_absolute_criteria_decide() -> None:
    passed = decide(GateSpec(), METRICS, VERSION, None, RETURNS, MASK)
    assert passed.passed
    assert passed.champion is None
    assert len(passed.criteria) == len(passed.reasons) == 3
    for metrics in (
        {"total_r2_out_of_sample": -0.1, "bias_statistic.a": 1.0},
        {"total_r2_out_of_sample": None, "bias_statistic.a": 1.0},
        {"total_r2_out_of_sample": float("nan"), "bias_statistic.a": 1.0},
        {"bias_statistic.a": 1.0},
    ):
        refused = decide(GateSpec(), metrics, VERSION, None, RETURNS, MASK)
        assert failed(refused) == ["out-of-sample total R2"]
        assert refused.reasons[0].endswith("at least 0 is asked for")
    for biases in ({"bias_statistic.a": 2.5}, {"bias_statistic.a": 0.1}, {"bias_statistic.a": None}, {}):
        assert failed(decide(GateSpec(), {"total_r2_out_of_sample": 0.2, **biases}, VERSION, None, RETURNS, MASK)) == [
            "mean bias statistic"
        ]


def test_the_gate_says_whether_suspected_returns_counted() -> None:
    metrics = {"total_r2_out_of_sample": 0.3, "bias_statistic.a": 3.0, "bias_statistic_without_suspects.a": 1.0}
    prudent = decide(GateSpec(), metrics, VERSION, (CHAMPION, VERSION), RETURNS, MASK)
    assert failed(prudent) == ["mean bias statistic"]
    lenient = GateSpec(suspected_returns="left_out")
    passed = decide(lenient, metrics, VERSION, (CHAMPION, VERSION), RETURNS, MASK)
    assert passed.passed
    for decision, said in ((prudent, "counted"), (passed, "left_out")):
        assert decision.suspected_returns == said
        for word in ("mean bias", QLIKE):
            assert found(decision, word).limit.endswith(f"(suspected returns {said.replace('_', ' ')})")


def test_equal_ones_pass_and_say_on_which_dates() -> None:
    decision = decided(VERSION, max_total_r2_loss=0.0, max_qlike_loss=0.0, max_coverage_loss=0.0)
    assert decision.passed
    assert len(decision.reasons) == len(decision.criteria) == 8
    assert (decision.champion, decision.dates) == (CHAMPION, 100)
    dates = VERSION.indexes["date"][-100:]
    assert (decision.first_date, decision.last_date) == (dates[0].date(), dates[-1].date())
    for word in (R2, QLIKE):
        assert found(decision, word).value == found(decision, word).champion is not None


def test_scores_are_those_of_a_plain_evaluation_on_the_held_out_dates() -> None:
    decision = decided(VERSION)
    held = xr.DataArray(np.arange(400) >= 300, dims="date", coords={"date": VERSION["date"]})
    totals = forecasts.summary(forecasts.evaluate(VERSION, RETURNS, MASK), held)
    assert found(decision, R2).value == pytest.approx(float(totals["total_r2"]), abs=1e-12)
    assert found(decision, QLIKE).value == pytest.approx(float(totals["qlike"].mean()), rel=1e-9)
    everything = decided(VERSION, window=None)
    assert everything.dates == int(VERSION["out_of_sample"].sum())


def test_doubled_omega_loses_by_qlike_only() -> None:
    decision = decided(VERSION.assign(omega=4.0 * VERSION["omega"]), **UNTESTED)
    assert failed(decision) == ["QLIKE against the champion"]
    assert len(decision.reasons) == 1
    assert "(champion: " in decision.reasons[0]
    value, champion = found(decision, QLIKE).value, found(decision, QLIKE).champion
    assert value is not None
    assert champion is not None
    assert value > champion + 0.05


def test_a_loss_within_the_tolerance_is_refused_if_it_is_significant_and_says_by_which_test() -> None:
    """The statistic is that of statsmodels' regression of the difference on a constant, times its correction."""
    worse = VERSION.assign(specific_variance=2.0 * VERSION["specific_variance"], omega=1.4 * VERSION["omega"])
    decision = decided(worse, max_qlike_loss=1.0)
    assert failed(decision) == [
        "Diebold-Mariano p-value against the champion",
        "model confidence set p-value beside the champion",
    ]
    one, losses = found(decision, TESTED), []
    for version in (worse, VERSION):
        variance = RiskModel(version["loadings"], version["omega"], version["specific_variance"])
        judged = version.assign(portfolio_variance=variance.variance(version["weights"]))
        losses.append(forecasts.evaluate(judged, RETURNS)["qlike"][..., -100:].mean("portfolio").values)
    apart = losses[0] - losses[1]
    peer = sm.OLS(apart, np.ones(100)).fit(cov_type="HAC", cov_kwds={"maxlags": 4})
    assert one.statistic == pytest.approx(float(peer.tvalues[0]) * np.sqrt(0.99), rel=1e-6)
    assert one.value == pytest.approx(stats.t.sf(one.statistic, 99), rel=1e-6)
    assert one.note == f"its QLIKE exceeds the champion's by {apart.mean():.4f} on average of 100 dates"
    members = model_confidence_set(np.stack(losses, axis=1), confidence=0.99)
    in_set = found(decision, IN_SET)
    assert (in_set.value, in_set.champion) == pytest.approx(tuple(members.p_values))
    assert decided(worse, max_qlike_loss=1.0, **UNTESTED).passed
    assert found(decided(VERSION, worse), IN_SET).value == 1.0
    assert decided(VERSION, worse).passed, "to be better is no loss"
    assert found(decided(VERSION), TESTED).value == 0.5


def test_a_criterion_of_an_old_manifest_has_no_statistic() -> None:
    old = '{"name": "QLIKE", "passed": true, "value": 1.0, "champion": null, "limit": "at most 2", "note": null}'
    assert Criterion.model_validate_json(old).statistic is None


def test_shuffled_loadings_lose_by_r2() -> None:
    shuffled = VERSION.assign(loadings=VERSION["loadings"].roll(ticker=5, roll_coords=False))
    decision = decided(shuffled, max_qlike_loss=10.0, max_coverage_loss=1.0, **UNTESTED)
    assert failed(decision) == ["total R2 against the champion"]


def test_the_tolerance_is_what_it_says() -> None:
    worse = VERSION.assign(factor_returns=0.8 * VERSION["factor_returns"])
    one = found(decided(worse), R2)
    assert one.value is not None
    assert one.champion is not None
    lost = one.champion - one.value
    assert lost > 0.001
    assert found(decided(worse, max_total_r2_loss=lost * 1.001), R2).passed
    assert not found(decided(worse, max_total_r2_loss=lost * 0.999), R2).passed
    assert found(decided(VERSION, worse, max_total_r2_loss=0.0), R2).passed, "to be better is no loss"


@pytest.mark.parametrize(
    ("broken", "names"),
    [
        ("loadings", [R2, COVERAGE, QLIKE]),
        ("factor_returns", [R2, COVERAGE]),
        ("omega", [QLIKE]),
        ("specific_variance", [R2, COVERAGE, QLIKE]),
        ("weights", [QLIKE]),
    ],
)
def test_what_a_broken_challenger_leaves_without_a_number_fails(broken: str, names: list[str]) -> None:
    decision = decided(VERSION.assign({broken: VERSION[broken] * np.nan}))
    assert sorted(failed(decision)) == sorted(f"{name} the champion" for name in names)
    for name in names:
        assert found(decision, name).value in (None, 0.0)
    late = VERSION["date"] == VERSION["date"][-10]
    if broken == "omega":
        assert failed(decided(VERSION.assign(omega=VERSION["omega"].where(~late)))) == ["QLIKE against the champion"]


def test_a_portfolio_that_the_challenger_alone_leaves_without_a_forecast_is_not_averaged_away() -> None:
    undefined = VERSION["portfolio"] == VERSION["portfolio"][0]
    decision = decided(VERSION.assign(weights=VERSION["weights"].where(~undefined)))
    assert failed(decision) == ["QLIKE against the champion"]
    assert found(decision, QLIKE).value is None


def test_a_portfolio_without_a_variance_fails_by_name_and_date_and_what_is_not_defined_does_not() -> None:
    """Weights may overflow; a portfolio may be undefined on some dates, and Omega unknown on the first ones."""
    name, day = VERSION["portfolio"].values[1], VERSION.indexes["date"][-2]
    one, before = (VERSION["portfolio"] == name) & (VERSION["date"] >= day), VERSION["date"] < VERSION["date"][60]
    for absurd in (np.inf, np.nan):
        spoilt = VERSION.assign(portfolio_variance=VERSION["portfolio_variance"].where(~one, absurd))
        decision = decide(CRITERIA, METRICS, spoilt, None, RETURNS, MASK)
        (reason,) = decision.reasons
        assert reason.startswith(f"{FORECASTS} 0.998, all that are defined is asked for: ")
        assert reason.endswith(f"there is none of {name} on {day:%Y-%m-%d} and 1 time(s) more")
        away = spoilt.assign(weights=spoilt["weights"].where(~one))
        assert decide(CRITERIA, METRICS, away, None, RETURNS, MASK).passed
    mine = VERSION["portfolio"] == name
    never = VERSION.assign({each: VERSION[each].where(~mine) for each in ("weights", "portfolio_variance")})
    assert (
        decide(CRITERIA, METRICS, never, None, RETURNS, MASK)
        .reasons[0]
        .endswith(f"there is none of {name} on {VERSION.indexes['date'][-1]:%Y-%m-%d}")
    )
    late = VERSION.assign({each: VERSION[each].where(~before) for each in ("omega", "portfolio_variance")})
    assert decide(CRITERIA, METRICS, late, None, RETURNS, MASK).passed


def test_a_challenger_does_not_win_by_leaving_stocks_out() -> None:
    hard = VERSION["ticker"].isin(["T011", "T010"])
    decision = decided(VERSION.assign(loadings=VERSION["loadings"].where(~hard)))
    assert failed(decision) == ["coverage against the champion"]
    dropped = decided(VERSION.isel(ticker=slice(0, 10)))
    assert failed(dropped) == ["coverage against the champion"]
    value = found(dropped, COVERAGE).value
    assert value == pytest.approx(10 / 12, abs=0.02)


def test_nothing_in_common_is_said_and_the_absolute_criteria_decide() -> None:
    earlier = VERSION.isel(date=slice(0, 90))
    decision = decided(VERSION, earlier)
    assert decision.passed
    assert (decision.champion, decision.dates, decision.first_date) == (CHAMPION, 0, None)
    assert sum("no held-out date in common" in reason for reason in decision.reasons) == 5
    renamed = VERSION.assign_coords(portfolio=["a", "b", "c"])
    decision = decided(VERSION, renamed)
    assert decision.passed
    assert "no portfolio in common" in found(decision, QLIKE).limit
    assert found(decision, R2).champion is not None
    strangers = VERSION.assign_coords(ticker=[f"X{n}" for n in range(12)])
    assert [one.value for one in decided(VERSION, strangers).criteria[3:]] == [None] * 5
    refused = decide(CRITERIA, {"total_r2_out_of_sample": -1.0}, VERSION, (CHAMPION, earlier), RETURNS, MASK)
    assert not refused.passed


def test_what_only_the_champion_has_changes_no_score() -> None:
    """Extra dates after, extra dates before, extra tickers, another number of factors in the champion."""
    challenger = VERSION.isel(date=slice(50, 350), ticker=slice(0, 9))
    narrow = VERSION.isel(date=slice(50, 350), ticker=slice(0, 9))
    criteria = CRITERIA.model_copy(update={"max_coverage_loss": 1.0})
    one, other = (
        decide(criteria, METRICS, challenger, (CHAMPION, champion), RETURNS, MASK) for champion in (narrow, VERSION)
    )
    assert (one.first_date, one.last_date, one.dates) == (other.first_date, other.last_date, other.dates)
    for word in (R2, QLIKE):
        assert found(one, word).value == pytest.approx(found(other, word).value, rel=1e-12)
        assert found(one, word).champion == pytest.approx(found(other, word).champion, rel=1e-12)
    fewer = VERSION.isel(factor=[0], factor_=[0])
    assert found(decided(VERSION, fewer), R2).value == found(decided(VERSION), R2).value


def test_both_see_the_same_dates_and_none_that_one_lacks() -> None:
    """A date that came late into the cube is missing in the champion: neither it nor the next is scored."""
    late = VERSION["date"].values[350]
    champion = VERSION.drop_sel(date=late)
    dates = held_out_dates(VERSION, champion, RETURNS)
    assert not dates.isin(VERSION["date"].values[[350, 351]]).any()
    outside = VERSION.indexes["date"][VERSION["out_of_sample"].values]
    assert len(dates) == len(outside) - 2
    sees = VERSION.assign(out_of_sample=VERSION["date"] > VERSION["date"][380])
    assert len(held_out_dates(sees, VERSION, RETURNS)) == len(held_out_dates(VERSION, sees, RETURNS)) == 19
    scores = compare(VERSION, champion, RETURNS, MASK, dates)
    np.testing.assert_array_equal(scores["total_r2"][0], scores["total_r2"][1])
    np.testing.assert_array_equal(scores["qlike"][0], scores["qlike"][1])
    disturbed = champion.copy(deep=True)
    disturbed["factor_returns"][{"date": slice(0, 100)}] = 9.0
    assert found(decided(VERSION, disturbed), R2).champion == found(decided(VERSION, champion), R2).champion


def test_monthly_and_daily_have_no_date_in_common() -> None:
    assert len(held_out_dates(VERSION, VERSION.isel(date=slice(0, None, 21)), RETURNS)) == 0


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_order_of_tickers_factors_and_portfolios_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    challenger = VERSION.assign(omega=1.3 * VERSION["omega"])

    def mixed(version: xr.Dataset) -> xr.Dataset:
        order = rng.permutation(version.sizes["factor"])
        places = {dim: rng.permutation(version.sizes[dim]) for dim in ("ticker", "portfolio")}
        return version.isel(factor=order, factor_=order, **places)

    places = rng.permutation(RETURNS.sizes["ticker"])
    shuffled = decide(
        CRITERIA,
        METRICS,
        mixed(challenger),
        (CHAMPION, mixed(VERSION)),
        RETURNS.isel(ticker=places),
        MASK.isel(ticker=rng.permutation(places)),
    )
    straight = decided(challenger)
    assert shuffled.passed == straight.passed
    for one, other in zip(shuffled.criteria, straight.criteria, strict=True):
        assert (one.name, one.passed) == (other.name, other.passed)
        assert one.value == pytest.approx(other.value, rel=1e-9)
        if other.champion is not None:
            assert one.champion == pytest.approx(other.champion, rel=1e-9)


def test_a_decision_survives_the_manifest() -> None:
    decision = decided(VERSION)
    assert GateDecision.model_validate_json(decision.model_dump_json()) == decision
    assert isinstance(decision.dates, int)
    assert pd.Timestamp(decision.last_date) == VERSION.indexes["date"][-1]
