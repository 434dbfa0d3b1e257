"""What the cross-sectional model promises by itself: invariances, pure portfolios, weights, coverage and counts."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from cross_sections import N_INDUSTRIES, STYLES, simulate
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning

from models import CrossSectionalModel, Panel
from models.families.base import ModelState
from models.statistics.gram import Design, gram_of
from schemas.errors import ConfigError, ModelError

pytestmark = pytest.mark.filterwarnings("ignore:.*an industry has no stock")

KINDS = {
    "sqrt_cap": CrossSectionalModel(),
    "equal": CrossSectionalModel("equal"),
    "cap": CrossSectionalModel("cap"),
    "regression": CrossSectionalModel(constraint="regression"),
    "huber": CrossSectionalModel(huber=1.345),
    "specific": CrossSectionalModel("inverse_specific_variance", refresh=5, min_observations=5),
    "orthogonal": CrossSectionalModel(orthogonalise=(("momentum", ("size", "value")),)),
}
FROM_STATISTICS = ("sqrt_cap", "equal", "cap", "regression")
every_kind = pytest.mark.parametrize("kind", KINDS)
INDUSTRIES = slice(1, 1 + N_INDUSTRIES)


def caps(panel: Panel) -> np.ndarray:
    """Capitalisation (date, industry) in the estimation universe."""
    code = panel.industry.values[..., None] == np.arange(N_INDUSTRIES)
    weight = np.where(panel.mask.values, panel.market_weight.values, 0.0).astype(np.float64)
    return (weight[..., None] * code).sum(axis=1)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10_000))
@every_kind
def test_capitalisation_weighted_returns_of_industries_sum_to_zero(kind: str, seed: int) -> None:
    panel = simulate(seed)
    model = KINDS[kind].clone().fit(panel)
    found = model.factor_returns(panel).values
    if kind != "regression":
        np.testing.assert_allclose(np.nansum(caps(panel) * found[:, INDUSTRIES], axis=1), 0.0, atol=1e-15)
    assert np.isnan(found[3:6, 1 + 2]).all()
    assert np.isnan(found).sum() == model.n_missing_ == 3


@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 10_000))
@every_kind
def test_pure_portfolios_earn_the_factor_return_and_are_exposed_to_nothing_else(kind: str, seed: int) -> None:
    panel = simulate(seed)
    model = KINDS[kind].clone().fit(panel)
    weights = model.pure_portfolios(panel).values
    earned = (weights * np.nan_to_num(panel.returns.values)[:, None]).sum(axis=2)
    np.testing.assert_allclose(earned, model.factor_returns(panel).values, rtol=1e-9, atol=1e-13)
    assert (weights.transpose(0, 2, 1)[~panel.mask.values] == 0.0).sum() > 0
    exposures = weights @ np.nan_to_num(model.loadings(panel).values.astype(np.float64))
    share = caps(panel) if kind != "regression" else None
    for date in (0, 10, 29):
        np.testing.assert_allclose(exposures[date, -3:, -3:], np.eye(3), atol=1e-9)
        np.testing.assert_allclose(exposures[date, :-3, -3:], 0.0, atol=1e-9)
        np.testing.assert_allclose(exposures[date, :, 0], [1.0, *[0.0] * (N_INDUSTRIES + 3)], atol=1e-9)
        if share is not None:  # p'f = f[k] for every f with sum c f = 0: industries up to a multiple of c
            c = share[date] / share[date].sum()
            np.testing.assert_allclose(exposures[date, 0, INDUSTRIES], c, atol=1e-9)
            np.testing.assert_allclose(exposures[date, INDUSTRIES, INDUSTRIES], np.eye(N_INDUSTRIES) - c, atol=1e-9)
    some = model.pure_portfolios(panel, ["momentum", "market"]).values
    np.testing.assert_array_equal(some, weights[:, [-1, 0]])


@settings(max_examples=5, deadline=None)
@given(scale=st.sampled_from([1e-3, 7.0, 1e4]), order=st.permutations(range(80)))
@every_kind
def test_units_of_styles_and_order_of_tickers_do_not_matter(kind: str, scale: float, order: list[int]) -> None:
    panel = simulate()
    factor = np.array([1.0, scale, 1.0], dtype=np.float32)
    other = Panel(panel.data.assign(characteristics=panel.characteristics * factor).isel(ticker=list(order)))
    expected = KINDS[kind].clone().fit(panel).factor_returns(panel).values
    found = KINDS[kind].clone().fit(other).factor_returns(other).values
    tolerance = 1e-4 if kind == "huber" else 1e-7  # what its iteration leaves; float32 characteristics
    np.testing.assert_allclose(found[:, :-3], expected[:, :-3], atol=tolerance)
    np.testing.assert_allclose(found[:, -3:] * factor, expected[:, -3:], atol=tolerance)


@every_kind
def test_state_round_trips_and_industries_of_other_panels_are_found_by_name(kind: str) -> None:
    panel = simulate()
    train, test = panel.sel(end=panel.dates[19]), panel.sel(start=panel.dates[20])
    model = KINDS[kind].clone().fit(train)
    state = model.state()
    restored = CrossSectionalModel.from_state(
        model.get_params(), ModelState(state.arrays, json.loads(json.dumps(state.meta)))
    )
    swapped = test.data.assign(industry=test.industry.copy(data=[4, 3, 2, 1, 0, -1] @ _one_hot(test)))
    swapped = swapped.assign_coords(industry_name=panel.industries[::-1])
    for held in (test, Panel(swapped)):
        np.testing.assert_array_equal(restored.loadings(held).values, model.loadings(test).values)
        np.testing.assert_allclose(
            restored.factor_returns(held).values, model.factor_returns(test).values, rtol=1e-6, atol=1e-12
        )
    for name, array in model.statistics().items():
        np.testing.assert_array_equal(restored.statistics()[name].values, array.values)


def _one_hot(panel: Panel) -> np.ndarray:
    """(date, code, ticker) of codes 0 to 4 and -1."""
    code = panel.industry.values
    return np.stack([code == position for position in (*range(N_INDUSTRIES), -1)], axis=1).astype(np.int16)


def test_coverage_is_wider_than_estimation_and_ends_where_the_industry_is_unknown() -> None:
    panel = simulate()
    model = CrossSectionalModel().fit(panel)
    loadings, residuals = model.loadings(panel), model.residuals(panel)
    classified = panel.coverage.values & (panel.industry.values >= 0)
    np.testing.assert_array_equal(np.isfinite(loadings.values).all(axis=2), classified)
    np.testing.assert_array_equal(loadings.values[classified][:, 0], 1.0)
    np.testing.assert_array_equal(loadings.values[classified][:, INDUSTRIES].sum(axis=1), 1.0)
    outside = classified & ~panel.mask.values
    assert outside.sum() > 100
    unknown = np.isnan(residuals.values) & classified & np.isfinite(panel.returns.values)
    dates, stocks = np.nonzero(unknown)
    assert set(dates) <= {3, 4, 5}
    assert (panel.industry.values[dates, stocks] == 2).all()
    unclassified = model.diagnostics(panel)["n_unclassified"].values
    np.testing.assert_array_equal(unclassified, (panel.mask.values & (panel.industry.values < 0)).sum(axis=1))
    assert unclassified.sum() > 0
    filled = CrossSectionalModel(missing_industries="market").fit(panel)
    assert np.isfinite(filled.residuals(panel).values[unknown]).all()
    np.testing.assert_array_equal(filled.factor_returns(panel)[3:6, 3], 0.0)


def test_a_later_industry_is_not_covered_and_has_no_share_in_the_market() -> None:
    panel = simulate()
    late = Panel(panel.data.assign(industry=panel.industry.where(panel.industry != 4, -1)))
    model = CrossSectionalModel().fit(Panel(late.data.isel(date=slice(0, 15))))
    assert model.factors_ == ["market", *(f"industry:0{code}" for code in range(4)), *STYLES]
    assert np.isnan(model.loadings(panel).values[panel.industry.values == 4]).all()
    found = model.factor_returns(panel).values
    np.testing.assert_allclose(np.nansum(caps(panel)[:, :4] * found[:, 1:5], axis=1), 0.0, atol=1e-15)
    earned = model.pure_portfolios(panel).values @ np.nan_to_num(panel.returns.values)[..., None]
    np.testing.assert_allclose(earned[..., 0], found, atol=1e-13)


def test_orthogonal_styles_are_so_by_the_weights_of_the_regression_and_span_the_same_returns() -> None:
    panel = simulate()
    plain = CrossSectionalModel().fit(panel)
    model = CrossSectionalModel(orthogonalise=(("momentum", ("size", "value")), ("value", ("size",)))).fit(panel)
    styles = model.loadings(panel).values[..., -3:].astype(np.float64)
    classified = np.isfinite(styles).all(axis=2)
    weight = np.where(classified, np.sqrt(panel.market_weight.values), 0.0)[..., None]
    joint = np.concatenate([np.ones((*weight.shape[:2], 1)), np.where(classified[..., None], styles, 0.0)], axis=2)
    moments = (joint * weight).transpose(0, 2, 1) @ joint
    ratio = moments / np.sqrt(np.einsum("tii,tjj->tij", moments, moments))
    for left, right in ((0, 2), (0, 3), (1, 2), (1, 3), (2, 3)):  # constant, size, value, momentum
        np.testing.assert_allclose(ratio[:, left, right], 0.0, atol=1e-6)
    np.testing.assert_allclose(model.fitted_returns(panel).values, plain.fitted_returns(panel).values, atol=1e-6)


def test_specific_variance_weights_are_those_known_before_the_date() -> None:
    panel = simulate(balanced=True)
    model = CrossSectionalModel("inverse_specific_variance", refresh=7, min_observations=3, halflife=5.0).fit(panel)
    residuals = CrossSectionalModel().fit(panel).residuals(panel).to_pandas()
    variance = residuals.pow(2).ewm(halflife=5.0).mean()
    held = model.specific_weights_
    assert held is not None
    assert [*held.as_of] == [*panel.dates[[6, 13, 20, 27, 29]]]
    weights = held.at(panel)
    assert np.isnan(weights[:7]).all()
    for date, known in ((7, 6), (13, 6), (14, 13), (29, 27)):
        row = variance.iloc[known].to_numpy()
        np.testing.assert_allclose(1.0 / weights[date], np.maximum(row, 0.1 * np.median(row)), rtol=1e-5)
    cut = panel.sel(end=panel.dates[20])
    shorter = model.clone().fit(cut)
    np.testing.assert_array_equal(shorter.factor_returns(cut).values, model.factor_returns(cut).values)
    newcomer = Panel(panel.data.assign_coords(ticker=["new", *panel.tickers[1:]]))
    np.testing.assert_allclose(held.at(newcomer)[29, 0], 1.0 / np.median(held.variance[3]), rtol=1e-6)


def test_huber_resists_bad_prints_and_says_when_it_has_not_converged() -> None:
    clean, dirty = simulate(balanced=True), simulate(balanced=True, outliers=True)
    truth = CrossSectionalModel().fit(clean).factor_returns(clean).values
    squares, huber = (
        np.square(CrossSectionalModel(huber=threshold).fit(dirty).factor_returns(dirty).values - truth).mean()
        for threshold in (None, 1.345)
    )
    assert huber < 0.2 * squares
    with pytest.warns(ConvergenceWarning, match=r"did not converge on \d+ dates after 2 steps"):
        assert CrossSectionalModel(huber=1.345, max_iter=2).fit(dirty).n_unfinished_ > 20


@pytest.mark.parametrize("kind", FROM_STATISTICS)
def test_a_fit_from_the_statistics_alone_gives_the_same_bits(kind: str) -> None:
    panel = simulate()
    model = KINDS[kind].clone()
    design = model.design(panel)
    weighting = {"regression": "sqrt_cap"}.get(kind, kind)
    caps = kind in {"sqrt_cap", "equal"}
    assert design == Design(tuple(STYLES), intercept=True, industries=True, weighting=weighting, caps=caps)
    gram = gram_of(panel, design)
    alone = model.clone().fit_gram(gram)
    model.fit(panel)
    for name in ("premia_", "premia_stderr_"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(model, name))
    np.testing.assert_array_equal(alone.gram_factor_returns(gram), model.factor_returns(panel).values)
    equal = gram_of(panel, replace(design, weighting="equal", caps=False))
    assert alone.score_gram(gram, over=equal) == pytest.approx(model.score(panel), abs=1e-9)


def test_statistics_may_hold_industries_that_the_fitted_dates_lack() -> None:
    panel = simulate()
    design = CrossSectionalModel().design(panel)
    assert design is not None
    dates = [panel.dates[3], panel.dates[5]]
    gram, cut = gram_of(panel, design).sel(*dates), panel.sel(*dates)
    model = CrossSectionalModel().fit_gram(gram)
    assert len(model.industries_) == N_INDUSTRIES - 1
    assert model.score_gram(gram, over=gram_of(cut, replace(design, weighting="equal"))) == pytest.approx(
        model.score(cut), abs=1e-9
    )


def test_what_needs_the_rows_or_the_caps_of_industries_says_so() -> None:
    panel = simulate()
    gram = gram_of(panel, Design(tuple(STYLES), intercept=True, industries=True, weighting="sqrt_cap"))
    for kind in ("huber", "specific", "orthogonal"):
        assert KINDS[kind].design(panel) is None
        with pytest.raises(ModelError, match="needs the rows of the panel"):
            KINDS[kind].clone().fit_gram(gram)
    with pytest.raises(ModelError, match="with the capitalisation of industries"):
        CrossSectionalModel().fit_gram(gram)


def test_without_industries_it_is_market_and_styles_and_the_constant_is_left_out() -> None:
    full = simulate()
    ones = np.where(full.coverage.values, 1.0, np.nan)[..., None].astype(np.float32)
    panel = Panel.from_arrays(
        full.returns.values,
        np.concatenate([full.characteristics.values, ones], axis=2),
        mask=full.mask.values,
        market_weight=full.market_weight.values,
        chars=[*STYLES, "constant"],
    )
    model = CrossSectionalModel().fit(panel)
    assert model.factors_ == ["market", *STYLES]
    assert model.industries_ == ()
    assert model.design(panel) is not None
    date = 8
    held = panel.mask.values[date]
    root = panel.market_weight.values[date, held].astype(np.float64) ** 0.25
    X = np.column_stack([np.ones(held.sum()), panel.characteristics.values[date, held, :3]])
    expected = np.linalg.lstsq(root[:, None] * X, root * panel.returns.values[date, held])[0]
    np.testing.assert_allclose(model.factor_returns(panel).values[date], expected, atol=1e-12)
    with pytest.raises(ModelError, match="no industries"):
        CrossSectionalModel().fit(full).loadings(panel)


@pytest.mark.filterwarnings("error")
def test_an_only_industry_moves_with_the_market_and_has_no_t_statistic() -> None:
    panel = simulate()
    alone = Panel(panel.data.assign(industry=panel.industry * 0))
    model = CrossSectionalModel().fit(alone)
    found = model.diagnostics(alone)
    assert (found["factor_returns"][:, 1] == 0.0).all()
    assert found["t_statistic"].isnull().any("date").values.tolist() == [False, True, *[False] * len(STYLES)]
    np.testing.assert_allclose(model.mean_abs_t_[0], np.abs(found["t_statistic"][:, 0]).mean())


def test_dates_that_identify_nothing_are_dropped_and_counted() -> None:
    panel = simulate()
    values = panel.characteristics.values.copy()
    values[10, :, 1] = 0.3 * panel.industry.values[10] + 0.1  # constant within every industry
    values[11, :, 1] = 2.0 * values[11, :, 0] - 0.5
    values[~panel.coverage.values] = np.nan
    mask = panel.mask.copy()
    mask[12] &= np.arange(80) < 8  # as many stocks as regressors, or fewer
    broken = Panel(panel.data.assign(characteristics=panel.characteristics.copy(data=values), mask=mask))
    model = CrossSectionalModel().fit(broken)
    found = model.factor_returns(broken).values
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(found).all(axis=1)), [10, 11, 12])
    assert (model.n_dropped_, model.n_dates_) == (3, 27)
    assert np.isnan(model.pure_portfolios(broken).values[10:13]).all()
    with pytest.raises(ModelError, match=r"Only 1 of 4 dates can be regressed on market, 5 industries and 3 styles"):
        CrossSectionalModel().fit(Panel(broken.data.isel(date=slice(9, 13))))


def test_stability_is_the_correlation_of_exposures_across_dates() -> None:
    panel = simulate(balanced=True)
    found = CrossSectionalModel("equal").fit(panel).diagnostics(panel, lag=2)["stability"].values
    assert np.isnan(found[:2]).all()
    styles = panel.characteristics.values.astype(np.float64)
    for style in range(3):
        expected = np.corrcoef(styles[9, :, style], styles[7, :, style])[0, 1]
        assert found[9, style] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (CrossSectionalModel("sqrtcap"), "weighting='sqrtcap' is none of"),  # type: ignore[arg-type]  # a mistake
        (CrossSectionalModel(huber=-1.0), "huber=-1.0 must be positive"),
        (CrossSectionalModel(refresh=0), "at least 1"),
        (CrossSectionalModel(orthogonalise=(("size", ("size",)),)), "styles other than 'size'"),
    ],
)
def test_mistakes_are_named(model: CrossSectionalModel, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        model.fit(simulate())


def test_unknown_factors_and_lags_are_refused() -> None:
    panel = simulate()
    model = CrossSectionalModel().fit(panel)
    with pytest.raises(ModelError, match=r"no factors \['beta'\]"):
        model.pure_portfolios(panel, ["beta"])
    with pytest.raises(ModelError, match=r"names \['beta'\], which the panel lacks"):
        CrossSectionalModel(orthogonalise=(("beta", ("size",)),)).fit(panel)
    with pytest.raises(ConfigError, match="lag=0 must be at least 1"):
        model.diagnostics(panel, lag=0)
