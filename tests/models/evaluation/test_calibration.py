"""Statistics of calibration against their peers, and against forecasts that are true."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from statsmodels.stats.diagnostic import acorr_ljungbox

from models.evaluation import calibration
from models.evaluation.resampling import stationary_bootstrap
from schemas.errors import ConfigError


@pytest.mark.parametrize("degrees", [None, 8.0])
def test_the_interval_of_the_bias_statistic_holds_what_it_says_also_for_fat_tails(degrees: float | None) -> None:
    """20,000 samples of 100: the normal interval covers 95 % of normal ones, and too few of a t with 8 degrees."""
    rng = np.random.default_rng(0)
    shape = (100, 20_000)
    z = rng.standard_normal(shape) if degrees is None else rng.standard_t(degrees, shape) * np.sqrt(1 - 2 / degrees)
    kurtosis = 3.0 if degrees is None else 3.0 + 6.0 / (degrees - 4.0)
    found = z.std(axis=0, ddof=1)

    def covered(low: float, high: float) -> float:
        return float(np.mean((found >= low) & (found <= high)))

    assert covered(*calibration.bias_interval(100, kurtosis=kurtosis)) == pytest.approx(0.95, abs=0.01)
    if degrees is not None:
        assert covered(*calibration.bias_interval(100)) < 0.90
    low, high = calibration.bias_interval(100)
    assert (low, high) == pytest.approx((0.8608, 1.1389), abs=2e-3)


def test_kurtosis_mrad_and_q_of_true_forecasts_are_at_their_floors() -> None:
    z = np.random.default_rng(1).standard_normal((252 * 4, 3000))
    assert calibration.kurtosis(z) == pytest.approx(3.0, abs=0.02)
    assert calibration.q_statistic(z) == pytest.approx(calibration.Q_FLOOR, abs=0.01)
    assert pytest.approx(2.2704, abs=1e-4) == calibration.Q_FLOOR
    for block in (21, 252):
        assert calibration.mrad(z, block) == pytest.approx(calibration.mrad_floor(block), rel=0.02)
    assert calibration.mrad_floor(252) == pytest.approx(0.0356, abs=1e-4)
    assert calibration.q_statistic(1.5 * z) > calibration.Q_FLOOR + 0.3
    assert calibration.pooled_bias_statistic(1.5 * z) == pytest.approx(1.5, abs=0.01)


def test_mrad_sees_errors_that_make_up_for_each_other_and_counts_half_blocks() -> None:
    rng = np.random.default_rng(2)
    z = rng.standard_normal((500, 40)) * np.where(np.arange(500) < 250, 0.6, np.sqrt(2 - 0.36))[:, None]
    assert calibration.pooled_bias_statistic(z) == pytest.approx(1.0, abs=0.02)
    assert calibration.mrad(z, 250) == pytest.approx((0.4 + 0.2806) / 2, abs=0.02)
    by_hand = np.mean([abs(part.std(axis=0, ddof=1) - 1) for part in (z[:200], z[200:400], z[400:])])
    assert calibration.mrad(z, 200) == pytest.approx(by_hand, rel=1e-10)
    short = np.mean([abs(part.std(axis=0, ddof=1) - 1) for part in (z[:220], z[220:440])])
    assert calibration.mrad(z, 220) == pytest.approx(short, rel=1e-10), "60 of 220 dates are no block"
    gaps = z.copy()
    gaps[:150, 0] = np.nan
    kept = np.r_[by_hand * 120 - abs(z[:200, 0].std(ddof=1) - 1)] / 119
    assert calibration.mrad(gaps, 200) == pytest.approx(kept[0], rel=1e-10)


@pytest.mark.parametrize("weighted", [True, False])
def test_mincer_zarnowitz_is_statsmodels_with_newey_west(weighted: bool) -> None:
    rng = np.random.default_rng(3)
    h = np.exp(rng.normal(size=700).cumsum() * 0.05) * 1e-4
    r = rng.standard_normal(700) * np.sqrt(0.2e-4 + 0.7 * h)
    found = calibration.mincer_zarnowitz(r, h, lags=5, weighted=weighted)
    weight = 1.0 / h if weighted else np.ones(700)
    design = np.column_stack([np.ones(700), h]) * weight[:, None]
    peer = sm.OLS(r**2 * weight, design).fit(cov_type="HAC", cov_kwds={"maxlags": 5, "use_correction": False})
    numbers = (found.intercept, found.slope, found.intercept_stderr, found.slope_stderr)
    assert numbers == pytest.approx((*peer.params, *peer.bse), rel=1e-6)
    test = peer.wald_test((np.eye(2), np.array([0.0, 1.0])), use_f=False, scalar=True)
    assert found.statistic == pytest.approx(float(test.statistic), rel=1e-6)
    assert found.p_value == pytest.approx(float(test.pvalue), rel=1e-5)
    gaps = np.insert(r, 10, np.nan), np.insert(h, 10, 1e-4)
    assert calibration.mincer_zarnowitz(*gaps, lags=5, weighted=weighted) == found
    assert np.isnan(calibration.mincer_zarnowitz(r, np.full(700, 1e-4)).slope)


def test_ljung_box_is_statsmodels() -> None:
    rng = np.random.default_rng(4)
    series = rng.standard_normal((300, 3)) ** 2
    series[:, 1] = np.convolve(series[:, 1], [1, 0.5, 0.2])[:300]
    series[:60, 2] = np.nan
    statistic, p_value = calibration.ljung_box(series, 8)
    for place in range(3):
        column = series[np.isfinite(series[:, place]), place]
        peer = acorr_ljungbox(column, lags=[8])
        assert statistic[place] == pytest.approx(float(peer["lb_stat"].iloc[0]), rel=1e-9)
        assert p_value[place] == pytest.approx(float(peer["lb_pvalue"].iloc[0]), rel=1e-7)
    with pytest.raises(ConfigError):
        calibration.ljung_box(series[:5], 8)


def test_the_bootstrap_of_a_dependent_mean_has_its_long_run_error() -> None:
    """AR(1) of .6: the standard error of the mean is 2.5 times that of independent draws."""
    rng = np.random.default_rng(5)
    x = np.zeros(20_000)
    for t in range(1, len(x)):
        x[t] = 0.6 * x[t - 1] + rng.standard_normal()
    draws = stationary_bootstrap(len(x), 100.0, 300, seed=1)
    assert x[draws].mean(axis=1).std() == pytest.approx(2.5 / np.sqrt(len(x)), rel=0.15)
    assert np.mean(np.diff(draws, axis=1) % len(x) != 1) == pytest.approx(1 / 100, rel=0.05)
    np.testing.assert_array_equal(draws, stationary_bootstrap(len(x), 100.0, 300, seed=1))
