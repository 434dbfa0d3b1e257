"""The penalised factor model in both modes: truth recovered, rows and statistics alike, and nothing silent."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso

from models import PenalisedModel
from models.families.penalised.cross_validation import BlockedFolds
from models.families.penalised.path import penalised_path
from models.panel import Panel
from models.statistics.gram import Design, gram_of
from schemas.errors import ConfigError, ModelError

N_DATES, N_STOCKS = 240, 12
FACTORS = ["mkt", "smb", "hml", "mom", "rmw", "cma"]


def series(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Simulate returns (date, ticker) on six correlated factors, of which each stock has one to three, with gaps."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((N_DATES, 1))
    factors = 0.003 + 0.03 * (0.5 * common + rng.standard_normal((N_DATES, 6)))
    betas = np.zeros((N_STOCKS, 6))
    betas[:, 0] = rng.uniform(0.7, 1.3, N_STOCKS)
    betas[4:, 1] = rng.uniform(0.5, 1.0, N_STOCKS - 4)
    betas[8:, 3] = -0.8
    returns = 0.001 + factors @ betas.T + 0.03 * rng.standard_normal((N_DATES, N_STOCKS))
    returns[rng.random(returns.shape) < 0.05] = np.nan
    returns[:100, 2] = np.nan
    returns[:-30, 3] = np.nan  # too short a history
    factors[50, 2] = np.nan
    return returns, factors, betas


def series_panel(returns: np.ndarray, factors: np.ndarray) -> Panel:
    return Panel.from_arrays(returns, factors=factors, observed_factors=FACTORS)


def lasso(X: np.ndarray, y: np.ndarray, strength: float) -> tuple[np.ndarray, float]:
    """Give slopes and intercept of scikit-learn on standardised rows, in the units of the rows."""
    peer = Lasso(alpha=strength, tol=1e-13, max_iter=1_000_000).fit(X / X.std(axis=0), y / y.std())
    slopes = peer.coef_ * y.std() / X.std(axis=0)
    return slopes, y.mean() - X.mean(axis=0) @ slopes


@cache
def series_fit(penalty: str = "lasso", rule: str = "one_se") -> PenalisedModel:
    return PenalisedModel("time_series", penalty, rule=rule, n_bootstraps=30).fit(series_panel(*series()[:2]))


def characteristics(seed: int = 0, n_dates: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Simulate returns on ten correlated characteristics, of which 1 and 6 are priced at every date."""
    rng = np.random.default_rng(seed)
    Z = rng.standard_normal((n_dates, 40, 10)) + 0.7 * rng.standard_normal((n_dates, 40, 1))
    Z[..., 4] *= 100.0
    slopes = np.zeros((n_dates, 10))
    slopes[:, [1, 6]] = [0.02, -0.015] + 0.01 * rng.standard_normal((n_dates, 2))
    returns = 0.005 + np.einsum("tnl,tl->tn", Z, slopes) + 0.06 * rng.standard_normal(Z.shape[:2])
    returns[rng.random(returns.shape) < 0.1] = np.nan
    return returns, Z.astype(np.float32)


@pytest.mark.parametrize("ticker", [0, 2])  # the second has no return in the first two of the five blocks
def test_each_ticker_is_a_lasso_of_scikit_learn_on_its_own_history(ticker: int) -> None:
    returns, factors, _ = series()
    model = PenalisedModel("time_series", "lasso", n_lambdas=12, n_bootstraps=0).fit(series_panel(returns, factors))
    dated = np.isfinite(factors).all(axis=1)
    train, test = BlockedFolds(5, 1).masks(int(dated.sum()))
    known = np.isfinite(returns[dated, ticker])
    X, y = factors[dated][known], returns[dated, ticker][known]
    assert model.n_obs_.values[ticker] == len(y)
    errors, weight = np.zeros((5, 12)), test[:, known].sum(axis=1)
    for place, strength in enumerate(model.lambdas_.values[ticker]):
        slopes, intercept = lasso(X, y, strength)
        np.testing.assert_allclose(model.path_.values[ticker, place], slopes, atol=1e-6)
        for fold in np.flatnonzero(weight):
            slopes, intercept = lasso(X[train[fold, known]], y[train[fold, known]], strength)
            held_out = test[fold, known]
            errors[fold, place] = np.square(y[held_out] - intercept - X[held_out] @ slopes).mean()
    mean = np.average(errors, axis=0, weights=weight)
    assert (weight > 0).sum() == (5 if ticker == 0 else 3)
    np.testing.assert_allclose(model.cv_error_.values[ticker], mean, rtol=1e-7)
    stderr = np.sqrt(np.average(np.square(errors - mean), axis=0, weights=weight) / ((weight > 0).sum() - 1))
    np.testing.assert_allclose(model.cv_error_stderr_.values[ticker], stderr, rtol=1e-6)
    chosen = np.flatnonzero(mean <= mean.min() + stderr[mean.argmin()])[0]
    assert model.chosen_lambda_.values[ticker] == model.lambdas_.values[ticker, chosen]
    np.testing.assert_array_equal(model.coefficients_.values[ticker], model.path_.values[ticker, chosen])


def test_time_series_select_the_factors_that_made_the_returns() -> None:
    _, factors, betas = series()
    model = series_fit()
    covered = np.arange(N_STOCKS) != 3
    true = betas[covered] != 0.0
    selected = model.selected_.values[covered]
    assert selected[true].all()
    assert selected[~true].mean() < 0.15
    for stability in (model.selection_frequency_folds_, model.selection_frequency_bootstrap_):
        frequency = stability.values[covered]
        assert frequency[true].mean() > 0.95
        assert frequency[~true].mean() < 0.4
    ridge = series_fit("ridge", "min")
    np.testing.assert_allclose(ridge.coefficients_.values[covered], betas[covered], atol=0.25)
    np.testing.assert_allclose(model.premia_, factors[np.isfinite(factors).all(axis=1)].mean(axis=0))


def test_short_histories_have_no_loadings_and_others_do() -> None:
    model, panel = series_fit(), series_panel(*series()[:2])
    loadings = model.loadings(panel)
    assert np.isnan(loadings.values[:, 3]).all()
    assert np.isfinite(np.delete(loadings.values, 3, axis=1)).all()
    assert (loadings.values[:, 0, 3:] == 0.0).any()
    assert not model.selected_.values[3].any()
    assert np.isnan(model.chosen_lambda_.values[3])
    assert np.isnan(model.factor_returns(panel).values[50, 2])
    assert model.factor_returns(panel)["factor"].values.tolist() == FACTORS


def test_tickers_computed_in_spans_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.families.penalised.tickers._CELLS_IN_FLIGHT", 20_000)
    again = PenalisedModel("time_series", "lasso", n_bootstraps=30).fit(series_panel(*series()[:2]))
    for name, array in series_fit().statistics().items():
        np.testing.assert_allclose(again.statistics()[name].values, array.values, atol=1e-9)


@pytest.mark.parametrize("mode", ["time_series", "cross_section"])
def test_the_future_moves_nothing_and_the_state_keeps_everything(mode: str) -> None:
    if mode == "time_series":
        (returns, factors, _), (other, others, _) = series(), series(1)
        panels = [series_panel(returns, factors)]
        panels.append(series_panel(np.r_[returns[:200], other[200:]], np.r_[factors[:200], others[200:]]))
    else:
        first, second = characteristics(), characteristics(1)
        panels = [Panel.from_arrays(*first)]
        panels.append(Panel.from_arrays(*(np.r_[a[:100], b[100:]] for a, b in zip(first, second, strict=True))))
    known = panels[0].dates[199 if mode == "time_series" else 99]
    model, same = (PenalisedModel(mode, rule="min", n_bootstraps=5).fit(panel.sel(end=known)) for panel in panels)
    state = model.state()
    assert all(array.dtype.kind in "fib" for array in state.arrays.values())
    restored = PenalisedModel.from_state(
        model.get_params(), type(state)(state.arrays, json.loads(json.dumps(state.meta)))
    )
    for name, array in model.statistics().items():
        assert array.identical(same.statistics()[name]), name
        assert array.identical(restored.statistics()[name]), name
    assert model.loadings(panels[0]).identical(restored.loadings(panels[0]))


def test_the_cross_section_selects_what_is_priced() -> None:
    panel = Panel.from_arrays(*characteristics())
    model = PenalisedModel(penalty="lasso").fit(panel)
    selected = [name for name, used in zip(model.factors_, model.selected_.values, strict=True) if used]
    assert selected == ["intercept", "char1", "char6"]
    stable = model.selection_frequency_bootstrap_
    assert stable.sel(factor=["char1", "char6"]).values.min() == 1.0
    assert stable.drop_sel(factor=selected).values.max() < 0.6
    unselected = ~model.selected_.values
    assert not model.premia_[unselected].any()
    assert not model.factor_returns(panel).values[:, unselected].any()
    assert not model.loadings(panel).values[..., unselected].any()
    full = PenalisedModel(lambda_=0.0, n_bootstraps=0).fit(panel)  # pooled least squares
    date, stock = np.nonzero(panel.mask.values)
    Z = np.column_stack([np.ones(len(date)), panel.characteristics.values[date, stock].astype(float)])
    pooled = np.linalg.lstsq(Z, panel.returns.values[date, stock], rcond=None)[0]
    np.testing.assert_allclose(full.premia_, pooled, atol=1e-9)


def test_factor_returns_are_least_squares_on_what_is_selected() -> None:
    panel = Panel.from_arrays(*characteristics())
    model = PenalisedModel(penalty="lasso").fit(panel)
    found = model.factor_returns(panel).values[:, model.selected_.values]
    for date in (0, 57):
        rows = panel.mask.values[date]
        Z = np.column_stack([np.ones(rows.sum()), panel.characteristics.values[date, rows][:, [1, 6]].astype(float)])
        expected = np.linalg.lstsq(Z, panel.returns.values[date, rows], rcond=None)[0]
        np.testing.assert_allclose(found[date], expected, atol=1e-10)


def test_statistics_alone_give_the_same_model_and_scores() -> None:
    panel = Panel.from_arrays(*characteristics())
    model = PenalisedModel(weighting="equal", n_bootstraps=3)
    gram = gram_of(panel, model.design(panel))
    again = model.clone().fit_gram(gram)
    model.fit(panel)
    for name, array in model.statistics().items():
        assert array.identical(again.statistics()[name]), name
    for name, score in model.score(panel).items():
        assert again.score_gram(gram)[name] == pytest.approx(score, abs=1e-6)


def test_a_constant_of_the_panel_is_the_intercept_wherever_it_stands() -> None:
    returns, Z = characteristics()
    known = np.ones((*returns.shape, 1), dtype=np.float32)
    names = [*(f"char{j}" for j in range(10)), "constant"]
    last = Panel.from_arrays(returns, np.concatenate([Z, known], axis=2), chars=names)
    model, plain = (PenalisedModel(n_bootstraps=3).fit(panel) for panel in (last, Panel.from_arrays(returns, Z)))
    assert model.factors_ == names
    assert model.design(last) == Design(tuple(names))
    np.testing.assert_allclose(np.roll(model.premia_, 1), plain.premia_, atol=1e-12)
    np.testing.assert_allclose(
        np.roll(model.factor_returns(last).values, 1, axis=1),
        plain.factor_returns(Panel.from_arrays(returns, Z)).values,
        atol=1e-10,
    )


def test_weights_are_those_of_the_design() -> None:
    returns, Z = characteristics()
    caps = np.random.default_rng(3).uniform(0.1, 10.0, returns.shape)
    panel = Panel.from_arrays(returns, Z, market_weight=caps)
    model = PenalisedModel(weighting="cap", lambda_=0.0, n_bootstraps=0).fit(panel)
    date, stock = np.nonzero(panel.mask.values)
    root = np.sqrt(panel.market_weight.values[date, stock])
    X = np.column_stack([np.ones(len(date)), panel.characteristics.values[date, stock].astype(float)])
    expected = np.linalg.lstsq(X * root[:, None], panel.returns.values[date, stock] * root, rcond=None)[0]
    np.testing.assert_allclose(model.premia_, expected, atol=1e-8)


def test_deficient_dates_are_ridged_and_counted() -> None:
    returns, Z = characteristics()
    Z[10, :, 6] = 2.0 * Z[10, :, 1]
    returns[11, 2:] = np.nan  # two stocks, three regressors
    returns[12] = np.nan  # nobody
    panel = Panel.from_arrays(returns, Z)
    model = PenalisedModel(penalty="lasso").fit(panel)
    assert model.n_ridged_ == 2
    found = model.factor_returns(panel).values
    assert np.isfinite(np.delete(found, 12, axis=0)).all()
    assert np.isnan(found[12]).all()
    rows = panel.mask.values[10]
    X = np.column_stack([np.ones(rows.sum()), Z[10, rows][:, [1, 6]].astype(float)])
    gram = X.T @ X
    gram[[1, 2], [1, 2]] *= 1.001
    expected = np.linalg.solve(gram, X.T @ panel.returns.values[10, rows])
    np.testing.assert_allclose(found[10, model.selected_.values], expected, rtol=1e-6)


@pytest.mark.parametrize("mode", ["time_series", "cross_section"])
def test_nothing_selected_is_an_intercept_and_said_so(mode: str) -> None:
    panel = series_panel(*series()[:2]) if mode == "time_series" else Panel.from_arrays(*characteristics())
    with pytest.warns(UserWarning, match="selected none of its factors"):
        model = PenalisedModel(mode, lambda_=1e6, n_bootstraps=2).fit(panel)
    if mode == "cross_section":
        assert model.selected_.values.tolist() == [True] + 10 * [False]
        mean = panel.returns.where(panel.mask).mean("ticker").values
        np.testing.assert_allclose(model.factor_returns(panel).values[:, 0], mean, atol=1e-12)
    else:
        assert not model.selected_.values.any()
        assert model.n_obs_.values[0] > 200


@pytest.mark.filterwarnings("ignore:PenalisedModel selected none")
def test_what_does_not_converge_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def hasty(*args, **kwargs):
        return penalised_path(*args, **kwargs, max_iter=0)

    monkeypatch.setattr("models.families.penalised.estimation.penalised_path", hasty)
    model = PenalisedModel(n_bootstraps=0)
    with pytest.warns(ConvergenceWarning, match=r"\d+ penalised solution\(s\) did not reach"):
        model.fit(Panel.from_arrays(*characteristics()))
    assert model.n_unconverged_ > 0


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"mode": "pooled"}, "mode 'pooled' is none of time_series, cross_section"),
        ({"penalty": "l0"}, "penalty 'l0' is none of"),
        ({"l1_ratio": 0.0}, "for 0 take penalty='ridge'"),
        ({"lambda_": -1.0}, "lambda_=-1.0"),
        ({"n_lambdas": 1}, "n_lambdas=1"),
        ({"rule": "max"}, "rule 'max'"),
    ],
)
def test_parameters_out_of_bounds_are_refused(params: dict[str, object], message: str) -> None:
    panel = Panel.from_arrays(*characteristics(n_dates=60))
    with pytest.raises(ConfigError, match=message):
        PenalisedModel(**params).fit(panel)


def test_panels_that_cannot_be_fitted_are_refused() -> None:
    returns, factors, _ = series()
    panel = series_panel(returns, factors)
    with pytest.raises(ModelError, match="needs characteristics"):
        PenalisedModel().fit(panel)
    with pytest.raises(ModelError, match=r"lacks the observed factors \['umd'\]"):
        PenalisedModel("time_series", factors=("mkt", "umd")).fit(panel)
    with pytest.raises(ModelError, match="no observed factors"):
        PenalisedModel("time_series").fit(Panel.from_arrays(*characteristics(n_dates=60)))
    with pytest.raises(ModelError, match="too few for n_folds=80"):
        PenalisedModel(n_folds=80).fit(Panel.from_arrays(*characteristics(n_dates=60)))
    with pytest.raises(ModelError, match=r"No ticker has min_observations=500 .* longest history has 2\d\d"):
        PenalisedModel("time_series", min_observations=500).fit(panel)
    with pytest.raises(ModelError, match=r"call fit\(panel\)"):
        PenalisedModel("time_series").fit_gram(gram_of(Panel.from_arrays(*characteristics()), Design(("char0",))))
    with pytest.raises(ModelError, match="needs a column of ones among"):
        PenalisedModel().fit_gram(gram_of(Panel.from_arrays(*characteristics()), Design(("char0",))))
    empty = Panel.from_arrays(np.full((60, 5), np.nan), np.ones((60, 5, 2)))
    with pytest.raises(ModelError, match="No stock is in the estimation universe"):
        PenalisedModel().fit(empty)


def test_given_factors_are_used_in_the_order_given() -> None:
    panel = series_panel(*series()[:2])
    model = PenalisedModel("time_series", "ridge", factors=("smb", "mkt"), n_bootstraps=0).fit(panel)
    assert model.factors_ == ["smb", "mkt"]
    np.testing.assert_array_equal(
        model.factor_returns(panel).values, panel.factors.sel(observed_factor=["smb", "mkt"]).values
    )
    assert model.coefficients_.sel(ticker="stock0", factor="mkt") > model.coefficients_.sel(
        ticker="stock0", factor="smb"
    )
