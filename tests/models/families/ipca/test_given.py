"""IPCA with an intercept and observed factors: what follows from the definition."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from instrumented import given_panel, instrumented

from models.families.ipca import IPCA, walk_forward
from models.families.rotation import align
from models.panel import Panel
from models.statistics.gram import gram_statistics
from schemas.errors import ModelError


def test_scores_and_factors_come_from_statistics_alone() -> None:
    panel = given_panel()
    model = IPCA(2, intercept=True, observed=("mkt",), tol=1e-10).fit(panel)
    gram = gram_statistics(panel)
    other = IPCA(2, intercept=True, observed=("mkt",), tol=1e-10).fit_gram(gram, panel.factors)
    np.testing.assert_array_equal(model.gamma_.values, other.gamma_.values)
    np.testing.assert_array_equal(model.factor_returns(panel).values, other.gram_factor_returns(gram, panel.factors))
    assert other.score_gram(gram, panel.factors) == pytest.approx(model.score(panel), abs=1e-10)


def test_normalisation_and_the_split_into_risk_and_alpha() -> None:
    panel = given_panel()
    model = IPCA(2, intercept=True, observed=("mkt",), tol=1e-10).fit(panel)
    assert model.factors_ == ["factor_1", "factor_2", "mkt"]
    beta = model.gamma_.values[:, :2]
    np.testing.assert_allclose(beta.T @ beta, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(beta.T @ model.gamma_.values[:, 2], 0.0, atol=1e-10)
    np.testing.assert_allclose(beta.T @ model.gamma_alpha_.values, 0.0, atol=1e-10)
    factors = model.factor_returns(panel)
    np.testing.assert_array_equal(factors.sel(factor="mkt").values, panel.factors.values[:, 0])
    systematic = (model.loadings(panel) * factors).sum("factor", skipna=False)
    np.testing.assert_allclose(model.fitted_returns(panel), systematic + model.alpha(panel), atol=1e-12)
    assert model.first_order_residual_ < 1e-8
    turned = model.rotate(np.block([[np.array([[0.6, -0.8], [0.8, 0.6]]), np.zeros((2, 1))], [np.zeros(2), 1.0]]))
    np.testing.assert_allclose(turned.fitted_returns(panel), model.fitted_returns(panel), atol=1e-12)
    with pytest.raises(ModelError, match=r"\['mkt'\] cannot be rotated"):
        model.rotate(np.eye(3)[::-1])
    both = align(factors.values @ np.diag([-1.0, 1.0, 1.0]), factors.values)
    np.testing.assert_allclose(both, np.diag([-1.0, 1.0, 1.0]), atol=1e-12)


def test_the_true_alpha_is_found_and_tested_and_none_is_not_invented() -> None:
    sizes = {"n_dates": 120, "n_stocks": 60}
    found = {}
    for alpha in (0.01, 0.0):
        panel = given_panel(alpha=alpha, **sizes)
        model = IPCA(2, intercept=True, observed=("mkt",), bootstrap=99).fit(panel)
        found[alpha] = model
        assert model.statistics()["observed_p_value"].item() == pytest.approx(0.01)
    assert found[0.01].statistics()["alpha_p_value"].item() == pytest.approx(0.01)
    assert found[0.0].statistics()["alpha_p_value"].item() > 0.05


@pytest.mark.slow
def test_bootstrap_tells_a_needless_characteristic_from_the_others() -> None:
    returns, characteristics, _ = instrumented(n_dates=120, n_stocks=60)
    noise = np.random.default_rng(5).uniform(-0.5, 0.5, (*returns.shape, 1))
    panel = Panel.from_arrays(returns, np.concatenate([characteristics, noise], axis=2))
    gram = gram_statistics(panel)
    model = IPCA(2).fit_gram(gram)
    tests = model.hypothesis_tests(gram, n_draws=99)
    p_value = tests["characteristics"].p_value
    assert p_value[:5] == pytest.approx(0.01)
    assert p_value[5] > 0.05
    again = model.hypothesis_tests(gram, n_draws=99)["characteristics"]
    np.testing.assert_array_equal(again.draws, tests["characteristics"].draws)


def test_warm_starts_reach_the_same_estimate_sooner_also_with_observed_factors() -> None:
    panel = given_panel(n_dates=120)
    options = {"intercept": True, "observed": ("mkt",), "tol": 1e-9}
    earlier = IPCA(2, **options).fit(panel.sel(end=panel.dates[110]))
    cold, warm = IPCA(2, **options).fit(panel), IPCA(2, **options).fit(panel, warm_start=earlier)
    np.testing.assert_allclose(warm.gamma_.values, cold.gamma_.values, atol=1e-7)
    assert warm.n_iter_ < cold.n_iter_
    for k in (1, 3):  # other numbers of factors
        np.testing.assert_allclose(
            IPCA(k, **options).fit(panel, warm_start=earlier).gamma_.values,
            IPCA(k, **options).fit(panel).gamma_.values,
            atol=1e-6,
        )


def test_walk_forward_is_each_fit_on_its_own_window() -> None:
    panel = given_panel(n_dates=120)
    gram, ends = gram_statistics(panel), panel.dates[[79, 99, 119]]
    for window in (None, 60):
        found = walk_forward(gram, ends, n_factors=(1, 2), window=window, tol=1e-10)
        for (end, k), model in found.items():
            stop = int(panel.dates.get_loc(end)) + 1
            part = panel.sel(panel.dates[0 if window is None else stop - window], end)
            alone = IPCA(k, tol=1e-10).fit(part)
            np.testing.assert_allclose(model.gamma_.values, alone.gamma_.values, atol=1e-7)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), memory=st.integers(1, 12), n_factors=st.integers(1, 3))
def test_acceleration_ends_where_plain_steps_end_and_never_below(seed: int, memory: int, n_factors: int) -> None:
    gram = gram_statistics(Panel.from_arrays(*instrumented(noise=0.1, seed=seed)[:2]))
    plain = IPCA(n_factors, memory=0, tol=1e-10, max_iter=20_000).fit_gram(gram)
    fast = IPCA(n_factors, memory=memory, tol=1e-10, max_iter=20_000).fit_gram(gram)
    assert fast.converged_
    assert fast.objectives_[0] >= plain.objectives_[0] - 1e-9 or fast.first_order_residual_ < 1e-8


def test_several_starts_keep_the_best_and_say_what_the_others_found() -> None:
    panel = Panel.from_arrays(*instrumented(noise=0.1)[:2])
    model = IPCA(2, n_starts=4, tol=1e-9).fit(panel)
    assert len(model.objectives_) == 4
    assert max(model.objectives_) == pytest.approx(model.score(panel)["total_r2"], abs=1e-9)


def test_only_observed_factors_is_one_regression() -> None:
    panel = given_panel()
    model = IPCA(0, observed=("mkt",)).fit(panel)
    date, stock = np.nonzero(panel.mask.values)
    design = panel.characteristics.values[date, stock] * panel.factors.values[date]
    expected = np.linalg.lstsq(design.astype(float), panel.returns.values[date, stock], rcond=None)[0]
    np.testing.assert_allclose(model.gamma_.values[:, 0], expected, atol=1e-8)
    with pytest.raises(ModelError, match="n_factors=0"):
        IPCA(0).fit(panel)


def test_what_is_not_given_is_refused_and_missing_dates_are_counted() -> None:
    panel = given_panel()
    with pytest.raises(ModelError, match=r"\['smb'\] are not given"):
        IPCA(1, observed=("mkt", "smb")).fit(panel)
    gap = panel.factors.copy()
    gap[3] = np.nan
    some = Panel(panel.data.assign(factors=gap))
    model = IPCA(1, observed=("mkt",)).fit(some)
    assert model.n_dropped_ == 1
    assert np.isnan(model.factor_returns(some).values[3]).all()
    constant = Panel(panel.data.assign(factors=panel.factors * 0.0 + 1.0))
    with pytest.raises(ModelError, match=r"\['mkt', 'intercept'\] are zero or collinear"):
        IPCA(1, intercept=True, observed=("mkt",)).fit(constant)
    with pytest.raises(ModelError, match="works on the rows"):
        IPCA(1, mode="panel").fit_gram(gram_statistics(panel))


def test_fits_with_an_intercept_run_side_by_side() -> None:
    panel = given_panel()
    gram = gram_statistics(panel)
    with ThreadPoolExecutor(4) as pool:
        fits = list(pool.map(lambda _: IPCA(2, intercept=True).fit_gram(gram), range(4)))
    for model in fits[1:]:
        np.testing.assert_array_equal(model.gamma_.values, fits[0].gamma_.values)


def test_out_of_sample_predictions_are_one_per_row_on_any_dates() -> None:
    panel = given_panel()
    model = IPCA(2, intercept=True).fit(panel.sel(end=panel.dates[39]))
    test = panel.sel(start=panel.dates[40])
    expected, fitted = model.expected_returns(test), model.fitted_returns(test)
    assert expected.shape == fitted.shape == test.returns.shape
    assert np.isfinite(expected.values[test.coverage.values]).all()
    assert np.isfinite(fitted.values[test.coverage.values]).all()


def test_dates_on_which_nobody_has_a_characteristic_enter_no_estimate() -> None:
    """Else the little that the others say there gives the factor returns of any size, and the bootstrap no end."""
    rng = np.random.default_rng(0)
    characteristics = rng.uniform(-1.0, 1.0, (120, 40, 4)).astype(np.float32)
    characteristics[:40, :, 2:] = 0.0
    gamma = np.array([[0.01], [0.01], [0.7], [0.7]])
    factors = 0.01 + 0.04 * rng.standard_normal((120, 1))
    returns = (characteristics @ gamma)[..., 0] * factors + 0.02 * rng.standard_normal((120, 40))
    panel = Panel.from_arrays(returns, characteristics)
    model = IPCA(1, intercept=True, bootstrap=5).fit(panel)
    later = IPCA(1, intercept=True, bootstrap=5).fit(panel.sel(start=panel.dates[40]))
    assert model.n_dropped_ == 40
    np.testing.assert_allclose(model.gamma_.values, later.gamma_.values, atol=1e-5)
    np.testing.assert_allclose(model.premia_, later.premia_, rtol=1e-4)
    assert np.isfinite(model.p_values_["alpha"]).all()
