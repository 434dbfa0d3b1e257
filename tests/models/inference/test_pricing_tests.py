"""Joint tests of alpha and premia from two passes, beside linearmodels, direct formulas and simulations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from linearmodels.asset_pricing import LinearFactorModel, LinearFactorModelGMM, TradedFactorModel
from linearmodels.datasets import french
from scipy import stats

from models import two_pass
from models.inference.pricing_tests import alpha_test, grs_test
from schemas.errors import ConfigError, ModelError

FACTORS = ["MktRF", "SMB", "HML"]


@pytest.fixture(scope="module")
def sorted_portfolios() -> tuple[np.ndarray, np.ndarray]:
    """Excess returns of size and value portfolios, and the three factors, monthly 1949 to 2017."""
    data = french.load()
    names = [f"S{size}V{value}" for size in (1, 3, 5) for value in (1, 3, 5)]
    return data[names].to_numpy() - data[["RF"]].to_numpy(), data[FACTORS].to_numpy()


COVARIANCES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"cov_type": "HC0"}, {"cov_type": "robust"}),
    ({"cov_type": "HC0", "debiased": False}, {"cov_type": "robust", "debiased": False}),
    ({"cov_type": "HAC", "newey_west_lags": 7}, {"cov_type": "kernel", "bandwidth": 7}),
]


@pytest.mark.parametrize(("ours", "theirs"), COVARIANCES)
def test_alpha_test_is_the_j_statistic_of_the_traded_factor_model(
    ours: dict[str, Any], theirs: dict[str, Any], sorted_portfolios: tuple[np.ndarray, np.ndarray]
) -> None:
    returns, factors = sorted_portfolios
    peer = TradedFactorModel(returns, factors).fit(**theirs).j_statistic
    test = alpha_test(returns, factors, **ours)
    np.testing.assert_allclose([test.statistic, test.pvalue], [peer.stat, peer.pval], rtol=1e-9)
    assert test.df == (9,)


@pytest.mark.parametrize(("ours", "theirs"), COVARIANCES)
@pytest.mark.parametrize("weighting", ["ols", "gls"])
@pytest.mark.parametrize("zero_beta", [False, True])
def test_two_passes_agree_with_the_linear_factor_model(
    ours: dict[str, Any],
    theirs: dict[str, Any],
    weighting: Any,
    zero_beta: bool,
    sorted_portfolios: tuple[np.ndarray, np.ndarray],
) -> None:
    returns, factors = sorted_portfolios
    sigma = None
    if weighting == "gls":
        design = np.column_stack([np.ones(len(factors)), factors])
        residuals = returns - design @ np.linalg.lstsq(design, returns)[0]
        sigma = residuals.T @ residuals / len(factors)
    peer = LinearFactorModel(returns, factors, risk_free=zero_beta, sigma=sigma).fit(**theirs)
    result = two_pass(returns, factors, weighting=weighting, zero_beta=zero_beta, **ours)
    np.testing.assert_allclose(result.premia, peer.risk_premia, rtol=1e-9)
    np.testing.assert_allclose(result.premia_stderr, peer.risk_premia_se, rtol=1e-9)
    np.testing.assert_allclose(result.alpha, peer.alphas, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(result.alpha_stderr, peer.std_errors.iloc[:, 0], rtol=1e-9)
    test = result.pricing_test()
    np.testing.assert_allclose([test.statistic, test.pvalue], [peer.j_statistic.stat, peer.j_statistic.pval], rtol=1e-7)
    assert test.df == (peer.j_statistic.df,)


def test_grs_is_the_f_test_of_the_multivariate_regression(sorted_portfolios: tuple[np.ndarray, np.ndarray]) -> None:
    """Two direct forms: the paper's, with Sharpe ratios, and the ratio of residual determinants (Wilks)."""
    returns, factors = sorted_portfolios
    n_dates, n_assets, n_factors = len(returns), returns.shape[1], factors.shape[1]
    test = grs_test(returns, factors)
    everything = np.column_stack([factors, returns])

    def squared_sharpe(assets: np.ndarray) -> float:
        mean = assets.mean(axis=0)
        return float(mean @ np.linalg.solve(np.cov(assets.T, ddof=0), mean))

    gain = (squared_sharpe(everything) - squared_sharpe(factors)) / (1.0 + squared_sharpe(factors))
    freedom = n_dates - n_assets - n_factors
    assert test.statistic == pytest.approx(freedom / n_assets * gain, rel=1e-9)
    design = np.column_stack([np.ones(n_dates), factors])
    free, bound = (returns - x @ np.linalg.lstsq(x, returns)[0] for x in (design, factors))
    wilks = np.exp(np.linalg.slogdet(bound.T @ bound)[1] - np.linalg.slogdet(free.T @ free)[1])
    assert test.statistic == pytest.approx(freedom / n_assets * (wilks - 1.0), rel=1e-9)
    assert test.df == (n_assets, freedom)
    assert test.pvalue == pytest.approx(stats.f.sf(test.statistic, n_assets, freedom))
    one = grs_test(returns[:, :1], factors)
    own = alpha_test(returns[:, :1], factors, cov_type="nonrobust")
    assert one.statistic == pytest.approx(own.statistic, rel=1e-10)  # one asset: the squared t-statistic


def test_grs_has_its_size_under_the_null_and_power_against_an_alpha() -> None:
    """T = 60 and N = 20: the exact test rejects in 5 % of samples, the asymptotic one in many more."""
    rng = np.random.default_rng(5)
    beta, root = rng.standard_normal((20, 2)), rng.standard_normal((20, 20)) / 5.0 + np.eye(20)
    grs, chi2, power = [], [], []
    for _ in range(600):
        factors = 0.2 + rng.standard_normal((60, 2))
        returns = factors @ beta.T + rng.standard_normal((60, 20)) @ root.T
        grs.append(grs_test(returns, factors).pvalue)
        chi2.append(alpha_test(returns, factors, cov_type="nonrobust").pvalue)
        power.append(grs_test(returns + 0.5 * (np.arange(20) < 5), factors).pvalue)
    assert stats.kstest(grs, "uniform").pvalue > 0.01
    assert np.mean(np.array(grs) < 0.05) == pytest.approx(0.05, abs=0.027)  # three standard errors
    assert np.mean(np.array(chi2) < 0.05) > 0.2
    assert np.mean(np.array(power) < 0.05) > 0.5


def test_shanken_errors_are_the_formula_and_cover_premia_of_factors_that_are_not_traded() -> None:
    rng = np.random.default_rng(7)
    beta, truth = np.column_stack([rng.uniform(0.5, 1.5, 12), rng.standard_normal(12)]), np.array([0.5, -0.4])
    inside = np.zeros(2)
    for draw in range(400):
        factors = rng.standard_normal((240, 2))  # means zero: premia are not in them
        returns = (truth + factors) @ beta.T + 0.8 * rng.standard_normal((240, 12))
        result = two_pass(returns, factors, weighting="ols", cov_type="nonrobust")
        if draw == 0:
            design = np.column_stack([np.ones(240), factors])
            b = np.linalg.lstsq(design, returns)[0]
            e = returns - design @ b
            x, s, o = b[1:].T, e.T @ e / 237, np.cov(factors.T)
            a = np.linalg.inv(x.T @ x) @ x.T
            c = result.premia @ np.linalg.inv(o) @ result.premia
            np.testing.assert_allclose(result.premia_covariance, ((1 + c) * a @ s @ a.T + o) / 240, rtol=1e-10)
            m = np.eye(12) - x @ a
            v = (1 + c) / 240 * m @ s @ m
            np.testing.assert_allclose(result.alpha_stderr, np.sqrt(np.diagonal(v)), rtol=1e-10)
            direct = result.alpha @ np.linalg.pinv(v, rtol=1e-10) @ result.alpha
            assert result.pricing_test().statistic == pytest.approx(direct, rel=1e-8)
        inside += np.abs(result.premia - truth) < 1.96 * result.premia_stderr
    np.testing.assert_allclose(inside / 400, 0.95, atol=0.035)


def test_what_cannot_be_tested_says_why(sorted_portfolios: tuple[np.ndarray, np.ndarray]) -> None:
    returns, factors = sorted_portfolios
    few = slice(0, 12)
    with pytest.raises(ModelError, match="12 dates do not suffice for 9 assets and 3 factors"):
        grs_test(returns[few], factors[few])
    with pytest.raises(ModelError, match="singular with 12 dates"):
        alpha_test(returns[few], factors[few])
    with pytest.raises(ModelError, match="GLS needs more dates"):
        two_pass(returns[few], factors[few], weighting="gls")
    with pytest.raises(ModelError, match="linearly dependent"):
        grs_test(np.column_stack([returns, returns[:, 0] + factors[:, 1]]), factors)
    with pytest.raises(ModelError, match="span the asset at position 9"):
        grs_test(np.column_stack([returns, factors[:, 0]]), factors)
    with pytest.raises(ModelError, match="collinear"):
        grs_test(returns, np.column_stack([factors, factors[:, 0] - factors[:, 1]]))
    with pytest.raises(ModelError, match="do not identify 3 premia"):
        two_pass(returns[:, :2], factors)
    with pytest.raises(ModelError, match="no pricing error to test"):
        two_pass(returns[:, :3], factors).pricing_test()
    with pytest.raises(ModelError, match=r"returns lack a value at position \(5, 2\)"):
        grs_test(np.where(np.arange(returns.size).reshape(returns.shape) == 47, np.nan, returns), factors)
    with pytest.raises(ConfigError, match="no joint form"):
        alpha_test(returns, factors, cov_type="HC3")
    with pytest.raises(ConfigError, match="needs cov_type='HAC'"):
        alpha_test(returns, factors, newey_west_lags=3)


def test_errors_of_sdf_loadings_with_gaps_are_those_of_the_stacked_moments() -> None:
    """All moments at once, with a numerical Jacobian: G^-1 S G^-T / T, as in Cochrane (2005, section 12.2)."""
    rng = np.random.default_rng(3)
    n_dates, n_assets, size = 150, 5, 2
    factors = rng.standard_normal((n_dates, size)) @ [[1.0, 0.5], [0.0, 0.8]] + [0.3, 0.1]
    returns = (factors + 0.2) @ rng.uniform(-0.5, 1.5, (size, n_assets)) + rng.standard_normal((n_dates, n_assets))
    returns[:, 1] *= 1.0 + np.abs(factors[:, 0])
    returns[:60, 0] = returns[rng.random(n_dates) < 0.2, 3] = np.nan
    result = two_pass(returns, factors, debiased=False)
    known, design = np.isfinite(returns), np.column_stack([np.ones(n_dates), factors])

    def moments(theta: np.ndarray) -> np.ndarray:
        sizes = np.cumsum([n_assets * (size + 1), size, size, size * size])
        ab, premia, mean, square, b = np.split(theta, sizes)
        ab, square = ab.reshape(n_assets, size + 1), square.reshape(size, size)
        errors = np.where(known, returns - design @ ab.T, 0.0)
        first = (errors[:, :, None] * design[:, None, :]).reshape(n_dates, -1)
        second = ab[:, 1:].T @ (ab[:, 0] + ab[:, 1:] @ (mean - premia))
        d = factors - mean
        spread = (d[:, :, None] * d[:, None, :] - square).reshape(n_dates, -1)
        fixed = np.tile(np.concatenate([second, square @ b - premia]), (n_dates, 1))
        return np.hstack([first, d, spread, fixed])

    fits = [np.linalg.lstsq(design[k], r[k])[0] for r, k in zip(returns.T, known.T, strict=True)]
    ab, mean, square = np.array(fits), factors.mean(axis=0), np.cov(factors.T, ddof=0)
    premia = np.linalg.lstsq(ab[:, 1:], ab[:, 0] + ab[:, 1:] @ mean)[0]
    theta = np.concatenate([ab.ravel(), premia, mean, square.ravel(), np.linalg.solve(square, premia)])
    np.testing.assert_allclose(moments(theta).mean(axis=0), 0.0, atol=1e-12)
    step = 1e-6 * np.eye(len(theta))
    jacobian = np.array([(moments(theta + h) - moments(theta - h)).mean(axis=0) / 2e-6 for h in step]).T
    inverse = np.linalg.inv(jacobian)
    covariance = inverse @ (moments(theta).T @ moments(theta) / n_dates) @ inverse.T / n_dates
    at = n_assets * (size + 1)
    np.testing.assert_allclose(result.premia, premia, rtol=1e-10)
    np.testing.assert_allclose(result.premia_covariance, covariance[at : at + size, at : at + size], rtol=1e-5)
    np.testing.assert_allclose(result.sdf_loadings, theta[-size:], rtol=1e-10)
    np.testing.assert_allclose(result.sdf_loadings_covariance, covariance[-size:, -size:], rtol=1e-5)


def test_sdf_loadings_cover_the_truth_and_premia_are_those_of_gmm() -> None:
    """The second factor has a premium by its covariance with the first alone: its SDF loading is zero."""
    rng = np.random.default_rng(11)
    beta, mixing = rng.uniform(-0.5, 1.5, (12, 2)), np.array([[1.0, 0.6], [0.0, 0.8]])
    truth = np.array([0.3, 0.0])
    premia = mixing.T @ mixing @ truth
    inside = {"HC0": np.zeros(2), "nonrobust": np.zeros(2)}
    for _ in range(300):
        factors = rng.standard_normal((200, 2)) @ mixing
        returns = (premia + factors) @ beta.T + 0.8 * rng.standard_normal((200, 12))
        returns[rng.random(returns.shape) < 0.2] = np.nan
        for cov_type, count in inside.items():
            found = two_pass(returns, factors, cov_type=cov_type)
            inside[cov_type] = count + (np.abs(found.sdf_loadings - truth) < 1.96 * found.sdf_loadings_stderr)
    for count in inside.values():
        np.testing.assert_allclose(count / 300, 0.95, atol=0.04)
    factors = rng.standard_normal((5000, 2)) @ mixing
    returns = (premia + factors) @ beta[:6].T + 0.8 * rng.standard_normal((5000, 6))
    peer = LinearFactorModelGMM(returns, factors).fit(disp=0)
    for weighting, tolerance in (("ols", 0.1), ("gls", 0.03)):
        found = two_pass(returns, factors, weighting=weighting)
        np.testing.assert_allclose(found.premia, peer.risk_premia, atol=0.3 * float(found.premia_stderr.min()))
        np.testing.assert_allclose(found.premia_stderr, peer.risk_premia_se, rtol=tolerance)
    normal = two_pass(returns, factors, cov_type="nonrobust")
    np.testing.assert_allclose(two_pass(returns, factors).sdf_loadings_stderr, normal.sdf_loadings_stderr, rtol=0.05)


def test_two_passes_of_gaps_say_what_they_cannot_do() -> None:
    rng = np.random.default_rng(0)
    factors = rng.standard_normal((40, 2))
    returns = factors @ rng.standard_normal((2, 5)) + rng.standard_normal((40, 5))
    returns[0, 1] = np.nan
    with pytest.raises(ModelError, match="GLS needs complete histories"):
        two_pass(returns, factors, weighting="gls")
    returns[3:, 1] = np.nan
    with pytest.raises(ModelError, match="asset at position 1 has 2 returns"):
        two_pass(returns, factors)
    with pytest.raises(ModelError, match="collinear"):
        two_pass(returns, factors[:, [0, 0]])
