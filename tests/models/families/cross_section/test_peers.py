"""The cross-sectional model against other implementations: a constrained solve, statsmodels and skfolio."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from cross_sections import CAP_POWER, N_INDUSTRIES, dense, simulate
from skfolio.containers import AssetPanel
from skfolio.descriptor import Passthrough
from skfolio.factor_exposure import FixedWeightedFactor, GlobalFactor, OneHotCategoricalFactors
from skfolio.prior import CharacteristicsFactorModel, EmpiricalPrior
from statsmodels.stats.outliers_influence import variance_inflation_factor

from models import CrossSectionalModel, Panel

pytestmark = pytest.mark.filterwarnings("ignore:3 times an industry has no stock")

EVERY_FIT = [
    (weighting, constraint) for weighting in ("sqrt_cap", "cap", "equal") for constraint in ("cap", "regression")
]


@pytest.mark.parametrize(("weighting", "constraint"), EVERY_FIT)
def test_factor_returns_solve_the_constrained_normal_equations(weighting: str, constraint: str) -> None:
    """The Karush-Kuhn-Tucker system of each date: X'WX f + c lambda = X'Wr and c'f = 0."""
    panel = simulate()
    model = CrossSectionalModel(weighting, constraint, missing_industries="market").fit(panel)
    found = model.factor_returns(panel).values
    assert model.n_missing_ == 3
    for date in range(len(panel.dates)):
        X, r, cap = dense(panel, date)
        w = cap ** CAP_POWER[weighting]
        c = np.zeros(X.shape[1])
        c[1 : 1 + N_INDUSTRIES] = X[:, 1 : 1 + N_INDUSTRIES].T @ (cap if constraint == "cap" else w)
        there = X.any(axis=0)
        X, c = X[:, there], c[there] / c.sum()
        gram = X.T @ (w[:, None] * X)
        system = np.block([[gram, c[:, None]], [c[None], np.zeros((1, 1))]])
        solved = np.linalg.solve(system, np.append(X.T @ (w * r), 0.0))[:-1]
        np.testing.assert_allclose(found[date, there], solved, atol=1e-10)
        np.testing.assert_array_equal(found[date, ~there], 0.0)


def reduced(panel: Panel, date: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Regressors with the last industry written by the constraint, returns, weights, and the map to all factors."""
    X, r, cap = dense(panel, date)
    there = X.any(axis=0)
    share = np.where(there, X.T @ cap, 0.0)[1 : 1 + N_INDUSTRIES]
    last = np.flatnonzero(share)[-1]
    basis = np.delete(np.eye(len(there)), [*(np.flatnonzero(~there)), 1 + last], axis=1)
    basis[1 + last, 1:-3] = -np.delete(share, [*np.flatnonzero(share == 0.0), last]) / share[last]
    return X @ basis, r, np.sqrt(cap), basis


def test_inference_equals_statsmodels() -> None:
    panel = simulate()
    model = CrossSectionalModel().fit(panel)
    found = model.diagnostics(panel)
    for date in (0, 4, 20):
        X, r, w, basis = reduced(panel, date)
        fit = sm.WLS(r, X, weights=w).fit()
        error = np.sqrt(np.diag(basis @ fit.cov_params() @ basis.T))
        t = np.divide(basis @ fit.params, error, out=np.full(len(error), np.nan), where=error > 0.0)
        np.testing.assert_allclose(found["t_statistic"].values[date], t, rtol=1e-9)
        assert found["r_squared"].values[date] == pytest.approx(fit.rsquared, abs=1e-10)
        assert found["n_stocks"].values[date] == len(r)
        assert found["n_missing_industries"].values[date] == (date == 4)
    X, _, _, _ = reduced(panel, 7)
    vif = CrossSectionalModel("equal").fit(panel).diagnostics(panel)["vif"].values[7]
    expected = [variance_inflation_factor(X, column) for column in range(X.shape[1] - 3, X.shape[1])]
    np.testing.assert_allclose(vif, expected, rtol=1e-9)
    held = model.statistics()
    np.testing.assert_allclose(held["mean_abs_t"], np.abs(found["t_statistic"]).mean("date"))
    np.testing.assert_allclose(held["share_significant"][0], (np.abs(found["t_statistic"][:, 0]) > 2).mean())
    np.testing.assert_allclose(held["mean_vif"][-3:], found["vif"].mean("date"))
    assert held["mean_r_squared"] == pytest.approx(float(found["r_squared"].mean()))


def test_premia_errors_equal_statsmodels_newey_west() -> None:
    panel = simulate()
    model = CrossSectionalModel(newey_west_lags=3).fit(panel)
    series = model.factor_returns(panel).values
    for factor, name in enumerate(model.factors_):
        own = series[np.isfinite(series[:, factor]), factor]
        fit = sm.OLS(own, np.ones(len(own))).fit(cov_type="HAC", cov_kwds={"maxlags": 3, "use_correction": False})
        assert model.premia_[factor] == pytest.approx(fit.params[0]), name
        assert model.premia_stderr_[factor] == pytest.approx(fit.bse[0]), name


def test_huber_regression_equals_statsmodels() -> None:
    """RLM on whitened rows, with its own iteration run to the same fixed point."""
    panel = simulate(outliers=True)
    model = CrossSectionalModel(huber=1.345, tol=1e-11, max_iter=500).fit(panel)
    found, plain = model.diagnostics(panel), CrossSectionalModel().fit(panel).factor_returns(panel).values
    assert model.n_unfinished_ == 0
    for date in (0, 4, 20):
        X, r, w, basis = reduced(panel, date)
        root = np.sqrt(w)
        rlm = sm.RLM(root * r, root[:, None] * X, M=sm.robust.norms.HuberT(1.345))
        fit = rlm.fit(maxiter=500, tol=1e-14, conv="coefs")
        returns = basis @ fit.params
        there = np.isfinite(found["factor_returns"].values[date])
        np.testing.assert_allclose(found["factor_returns"].values[date][there], returns[there], atol=1e-9)
        assert np.abs(returns[there] - plain[date][there]).max() > 1e-3
        error = np.sqrt(np.diag(basis @ fit.cov_params() @ basis.T))
        np.testing.assert_allclose(found["standard_error"].values[date][there], error[there], rtol=1e-6)


def test_factor_returns_equal_skfolio_where_definitions_coincide() -> None:
    """A balanced panel; skfolio lags exposures and capitalisation itself, by one date."""
    panel = simulate(n_dates=90, balanced=True)
    ours = CrossSectionalModel().fit(panel).factor_returns(panel).values
    ahead = Panel(panel.data.roll(date=-1))  # what was known before a date, labelled with the date before
    names = panel.industries
    fields = {name: ahead.characteristics.values[..., place] for place, name in enumerate(panel.chars)}
    assets = AssetPanel(
        fields={
            "returns": panel.returns.values,
            "market_cap": ahead.market_weight.values.astype(np.float64),
            **{name: values.astype(np.float64) for name, values in fields.items()},
        },
        observations=np.arange(90),
        asset_names=panel.tickers,
    )
    assets.add_categorical_field("industry", ahead.industry.values.astype(np.int64), levels=names)
    styles = [
        FixedWeightedFactor(
            descriptors=[(name, Passthrough(name))],
            outlier_transformer="passthrough",
            scoring_transformer="passthrough",
        )
        for name in panel.chars
    ]
    peer = CharacteristicsFactorModel(
        factors=[
            ("market", GlobalFactor()),
            ("industry", OneHotCategoricalFactors(category="industry", family="industry")),
            *zip(panel.chars, styles, strict=True),
        ],
        constrained_families=[("industry", None)],
        factor_prior_estimator=EmpiricalPrior(),
    ).fit(characteristics=assets)
    theirs = peer.factor_model_.factor_returns
    order = [[*peer.factor_model_.factor_names].index(name) for name in ("market", *names, *panel.chars)]
    np.testing.assert_allclose(ours[-len(theirs) :], theirs[:, order], atol=1e-10)
