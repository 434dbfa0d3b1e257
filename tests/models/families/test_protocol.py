"""What every factor model promises, tested alike for all of them. A new model is one more line in CASES."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from masking import ABSURD, assert_unmoved

from models.families.autoencoder import ConditionalAutoencoder
from models.families.base import FactorModel, ModelState, contributing
from models.families.coskewness import CoskewnessPCA
from models.families.cross_section import CrossSectionalModel
from models.families.factor_analysis import FactorAnalysis
from models.families.fama_macbeth.model import FamaMacBeth
from models.families.hybrid import Hybrid
from models.families.ipca import IPCA
from models.families.kernel import KernelIPCA
from models.families.mean_of_models import MeanOfModels
from models.families.pca.model import PCA
from models.families.pca.rppca import RPPCA
from models.families.penalised import PenalisedModel
from models.families.regressed_pca import RegressedPCA
from models.families.residual_network import ResidualNetwork
from models.families.residual_pca import ResidualPCA
from models.families.residual_som import ResidualSOM
from models.families.risk_network import RiskNetwork
from models.families.sdf import AttentionSDF, RandomFeatureSDF, SDFNetwork
from models.families.time_series.market import MarketModel
from models.families.time_series.model import TimeSeriesModel
from models.forecasting.answers import answers as rows_of
from models.panel import Panel
from schemas.errors import ModelError
from schemas.families import family, kinds
from schemas.statistics import STATISTIC_DIMS, declared


@dataclass(frozen=True)
class Case:
    """A model small enough for the panel below, and those that it is fitted on.

    ``invariant``: to rounding, a fit depends neither on the order of tickers nor on the units of returns
    (false for models that are trained by a stochastic method). ``alone``: a stock's loadings do not depend on which
    other stocks there are (false where they scale with residuals). ``variant``: a further way of a family that has a
    line of its own here; it is slow.
    """

    name: str
    build: Callable[[], FactorModel]
    invariant: bool = True
    bases: Callable[[], tuple[FactorModel, ...]] = tuple
    alone: bool = True
    variant: bool = False

    def fit(self, panel: Panel) -> FactorModel:
        """Fit the model to a panel, after those that it is fitted on."""
        return self.ready(panel).fit(panel)

    def ready(self, panel: Panel) -> FactorModel:
        """Fit those that the model is fitted on alone."""
        return self.build().on(*(base.fit(panel) for base in self.bases()))


CASES = [
    Case("market", lambda: MarketModel(min_observations=20)),
    Case("market_vasicek", lambda: MarketModel("average", 40, 20, shrinkage="vasicek"), variant=True),
    Case("market_blume", lambda: MarketModel(min_observations=20, cov_type="HC3", shrinkage="blume"), variant=True),
    Case("time_series", lambda: TimeSeriesModel(min_observations=20, cov_type="HAC")),
    Case(
        "time_series_premia", lambda: TimeSeriesModel(("early", "average"), 40, 20, "HC0", premia="ols"), variant=True
    ),
    Case("fama_macbeth", FamaMacBeth),
    Case("fama_macbeth_cap", lambda: FamaMacBeth(weighting="sqrt_cap", deficient="ridge", debiased=True), variant=True),
    Case("cross_section", CrossSectionalModel),
    Case("cross_section_huber", lambda: CrossSectionalModel(huber=1.345), variant=True),
    Case(
        "cross_section_specific",
        lambda: CrossSectionalModel("inverse_specific_variance", refresh=10, min_observations=10),
    ),
    Case("penalised", lambda: PenalisedModel(rule="min", n_bootstraps=5)),
    Case("pca", lambda: PCA(n_factors=2, min_observations=20, tol=1e-10, max_iter=5000)),
    Case("pca_correlation", lambda: PCA("bai_ng", max_factors=3, scale="correlation", tol=1e-10, max_iter=5000)),
    Case("pca_pairwise", lambda: PCA(n_factors=2, min_observations=20, missing="pairwise"), variant=True),
    Case("rp_pca", lambda: RPPCA(n_factors=2, min_observations=20, tol=1e-10, max_iter=5000)),
    Case("coskewness_pca", lambda: CoskewnessPCA(2, n_skewed=1, min_observations=20, tol=1e-10, max_iter=5000)),
    Case("factor_analysis", lambda: FactorAnalysis(n_factors=2, min_observations=20)),
    Case("random_feature_sdf", lambda: RandomFeatureSDF(n_waves=20)),
    Case("attention_sdf", AttentionSDF, alone=False),
    Case("kernel_ipca", lambda: KernelIPCA(n_factors=2, n_features=10, n_waves=20, tol=1e-10)),
    Case("regressed_pca", lambda: RegressedPCA(n_factors=2)),
    Case("sdf_network", lambda: SDFNetwork(hidden=(8,), max_epochs=30, seeds=(0, 1)), invariant=False),
    Case("ipca", lambda: IPCA(n_factors=2, tol=1e-10)),
    Case("ipca_intercept", lambda: IPCA(n_factors=2, intercept=True, tol=1e-10)),
    Case("ipca_observed", lambda: IPCA(n_factors=1, observed=("average",), tol=1e-10)),
    Case("ipca_rows", lambda: IPCA(n_factors=1, intercept=True, observed=("average",), mode="panel", tol=1e-10)),
    Case(
        "autoencoder",
        lambda: ConditionalAutoencoder(n_factors=2, hidden=(8,), max_epochs=20, seeds=(0,)),
        invariant=False,
    ),
    Case(
        "autoencoder_stocks",
        lambda: ConditionalAutoencoder(n_factors=2, hidden=(8,), max_epochs=20, seeds=(0,), factors="returns"),
        invariant=False,
    ),
    Case(
        "autoencoder_profiled",
        lambda: ConditionalAutoencoder(n_factors=2, hidden=(8,), max_epochs=20, seeds=(0, 1), factors="profiled"),
        invariant=False,
    ),
    Case(
        "hybrid",
        lambda: Hybrid("pca", n_factors=1),
        bases=lambda: (PCA(n_factors=2, min_observations=20, tol=1e-10, max_iter=5000),),
        alone=False,
    ),
    Case(
        "hybrid_given",
        lambda: Hybrid("market", n_factors=2),
        bases=lambda: (MarketModel(min_observations=20),),
        alone=False,
        variant=True,
    ),
    Case(
        "residual_som",
        lambda: ResidualSOM("market", rows=1, columns=2, min_observations=20, adds=True),
        bases=lambda: (MarketModel(min_observations=20),),
    ),
    Case(
        "residual_som_dropped",
        lambda: ResidualSOM("pca", rows=2, columns=2, min_observations=20, significance=1e-6),
        bases=lambda: (PCA(n_factors=2, min_observations=20, tol=1e-10, max_iter=5000),),
        variant=True,
    ),
    Case(
        "residual_pca",
        lambda: ResidualPCA("market", n_factors=2, degree=2, min_observations=20, adds=True),
        bases=lambda: (MarketModel(min_observations=20),),
    ),
    Case(
        "residual_pca_dropped",
        lambda: ResidualPCA("pca", 1, degree=2, min_observations=20, significance=1e-6),
        bases=lambda: (PCA(n_factors=2, min_observations=20, tol=1e-10, max_iter=5000),),
        variant=True,
    ),
    Case(
        "residual_network",
        lambda: ResidualNetwork("pca", n_factors=1, hidden=(4,), max_epochs=4, seeds=(0, 1), adds=True),
        invariant=False,
        bases=lambda: (PCA(n_factors=2, min_observations=20, tol=1e-10, max_iter=5000),),
    ),
    Case(
        "risk_network",
        lambda: RiskNetwork(2, (4,), (0.0, 0.3), window=12, ahead=4, n_portfolios=2, max_epochs=4, seeds=(0, 1)),
        invariant=False,
    ),
    Case(
        "mean_of_models",
        lambda: MeanOfModels(("one", "other")),
        bases=lambda: (FactorAnalysis(2, min_observations=20), FactorAnalysis(3, halflives=(40.0,), shares=(1.0,))),
    ),
]

N_DATES, N_STOCKS, CHARS = 60, 15, ["mom", "size", "beta"]
DATES = pd.bdate_range("2019-01-01", periods=N_DATES)


def long_frame(seed: int = 0) -> pd.DataFrame:
    """Simulate returns beside characteristics known at the close, with gaps and late or ended listings."""
    rng = np.random.default_rng(seed)
    shape = (N_DATES, N_STOCKS)
    characteristics = rng.standard_normal((1, N_STOCKS, 3)) + 0.3 * rng.standard_normal((*shape, 3))
    ranked = np.roll(characteristics.argsort(axis=1).argsort(axis=1) / (N_STOCKS - 1) - 0.5, 1, axis=0)
    factors = 0.005 + 0.04 * rng.standard_normal((N_DATES, 3)) * [1.0, 0.6, 0.3]
    returns = 0.3 * factors[:, :1] + np.einsum("tnl,tl->tn", ranked, factors)
    returns += 0.01 * rng.standard_normal(shape)
    returns[rng.random(shape) < 0.05] = np.nan
    returns[:8, 0] = characteristics[:8, 0] = np.nan
    returns[50:, 1] = characteristics[50:, 1] = np.nan
    index = pd.MultiIndex.from_product([DATES, [f"S{i:02d}" for i in range(N_STOCKS)]], names=["date", "ticker"])
    columns = dict(zip(CHARS, characteristics.reshape(-1, 3).T, strict=True))
    return pd.DataFrame({"ret": returns.ravel(), **columns}, index=index).reset_index()


def to_panel(frame: pd.DataFrame) -> Panel:
    """Panel with two observed factors: the average return of each date, and that of the first stocks."""
    early = frame["ret"].where(frame["ticker"] < "S05")
    factors = frame.assign(average=frame["ret"], early=early).groupby("date")[["average", "early"]].mean()
    return Panel.from_long(frame, characteristics=CHARS, lag=1, factors=factors, constant=False)


@cache
def base_panel() -> Panel:
    return to_panel(long_frame())


@cache
def fitted(case: Case) -> FactorModel:
    return case.fit(base_panel().sel(end=DATES[44]))


def assert_same(left: FactorModel, right: FactorModel, panel: Panel) -> None:
    """Bit for bit, on the panel's dates."""
    np.testing.assert_array_equal(left.premia_, right.premia_)
    np.testing.assert_array_equal(left.loadings(panel).values, right.loadings(panel).values)
    np.testing.assert_array_equal(left.factor_returns(panel).values, right.factor_returns(panel).values)


def each(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "case", [pytest.param(case, id=case.name, marks=[pytest.mark.slow] * case.variant) for case in cases]
    )


every_model = each(CASES)
invariant_models = each([case for case in CASES if case.invariant])


@every_model
def test_results_are_labelled_and_parameters_stay_untouched(case: Case) -> None:
    panel, model = base_panel(), case.build()
    params = model.get_params()
    with pytest.raises(ModelError, match=r"not fitted yet; call fit\(panel\)"):
        model.loadings(panel)
    model = fitted(case)
    assert model.get_params() == params
    assert not hasattr(model.clone(), "factors_")
    loadings, factors = model.loadings(panel), model.factor_returns(panel)
    assert loadings.dims == ("date", "ticker", "factor")
    assert factors.dims == ("date", "factor")
    assert loadings["ticker"].values.tolist() == panel.tickers
    for array in (loadings, factors):
        assert array["factor"].values.tolist() == model.factors_
        assert (array["date"].values == panel.dates.values).all()
    assert model.premia_.shape == (len(model.factors_),)


@every_model
def test_every_statistic_has_a_meaning_and_comes_back_from_the_state(case: Case) -> None:
    model = fitted(case)
    found = model.statistics()
    meanings = declared(type(model))
    assert "premia" in found
    assert all(array.attrs["long_name"] == meanings[name] for name, array in found.items())
    assert all(set(array.dims) <= set(STATISTIC_DIMS) for array in found.values())
    restored = type(model).from_state(model.get_params(), model.state()).statistics()
    assert set(restored) == set(found)
    for name, array in found.items():
        np.testing.assert_array_equal(restored[name].values, array.values)
        assert restored[name].dims == array.dims


@every_model
def test_a_model_of_pieces_is_the_join_of_them_in_whatever_process_they_were_made(case: Case) -> None:
    train, model = base_panel().sel(end=DATES[44]), case.build()
    if not model.pieces():
        with pytest.raises(ModelError, match="fitted at once"):
            model.fit_piece(train, "0")
        with pytest.raises(ModelError, match="fitted at once"):
            model.join(train, [])
        return
    told: list[str] = []
    pieces = [case.ready(train).fit_piece(train, piece, told.append) for piece in model.pieces()]
    sent = [ModelState(piece.arrays, json.loads(json.dumps(piece.meta))) for piece in pieces]
    assert_same(case.ready(train).join(train, sent), fitted(case), base_panel())
    assert told
    assert all("\n" not in line for line in told)


@pytest.mark.parametrize("family", [PCA, RPPCA])
def test_a_refit_keeps_the_number_of_factors_that_a_rule_chose(family: type[PCA]) -> None:
    first = family("bai_ng", max_factors=3, tol=1e-10, max_iter=5000).fit(base_panel().sel(end=DATES[44]))
    later = first.clone().refit(first)
    assert later.n_factors == len(first.factors_)
    assert later.get_params() == first.get_params() | {"n_factors": len(first.factors_)}
    assert family(n_factors=2).refit(first).n_factors == 2


class _Other(PCA):
    """A family whose statistic is given as a test wants it."""

    STATISTICS: ClassVar[dict[str, str]] = {"odd": "a statistic of the test"}
    odd_: object = None


@pytest.mark.parametrize("value", [np.ones(7), np.ones((2, 2)), xr.DataArray(np.ones(3), dims="date")])
def test_a_statistic_without_labels_or_along_another_axis_is_refused(value: object) -> None:
    model = _Other(n_factors=2, min_observations=20).fit(base_panel())
    assert "odd" not in model.statistics()
    model.odd_ = 1.5
    assert float(model.statistics()["odd"]) == 1.5
    model.odd_ = np.array([1.0, 2.0])
    assert model.statistics()["odd"].to_series().to_dict() == {"factor_1": 1.0, "factor_2": 2.0}
    model.odd_ = value
    with pytest.raises(ModelError, match="the statistic 'odd'"):
        model.statistics()


@every_model
def test_scores_are_those_of_the_definition(case: Case) -> None:
    panel, model = base_panel(), fitted(case)
    score = model.score(panel)
    r, X, f = panel.returns.values, model.loadings(panel).values, contributing(model.factor_returns(panel).values)
    alpha = model.alpha(panel).values if isinstance(model, IPCA) else 0.0
    explained = {"total_r2": (X * f[:, None]).sum(axis=2), "predictive_r2": X @ model.premia_.values}
    for name, fit in ((name, alpha + part) for name, part in explained.items()):
        known = panel.mask.values & np.isfinite(fit)
        assert known.sum() > 0.9 * panel.mask.values[2:].sum()
        expected = 1.0 - np.square((r - fit)[known]).sum() / np.square(r[known]).sum()
        assert score[name] == pytest.approx(expected, abs=1e-6)
    assert 0.1 < score["total_r2"] < 1.0


@every_model
def test_a_summary_has_the_premia_by_name_and_the_scores(case: Case) -> None:
    panel, model = base_panel(), fitted(case)
    summary = model.summary(panel)
    assert [*summary.premia.index] == model.factors_
    np.testing.assert_array_equal(summary.premia["estimate"], model.premia_)
    errors = model.statistics().get("premia_stderr")
    assert ("stderr" in summary.premia) == (errors is not None)
    assert summary.facts["total_r2"] == f"{model.score(panel)['total_r2']:.4f}"
    assert all(name in str(summary) for name in (type(model).__name__, *model.factors_, "total_r2"))


@every_model
def test_state_is_plain_and_gives_identical_loadings_for_new_dates(case: Case) -> None:
    model = fitted(case)
    state = model.state()
    meta = json.loads(json.dumps(state.meta))
    assert all(array.dtype.kind in "fiub" for array in state.arrays.values())
    restored = type(model).from_state(model.get_params(), type(state)(state.arrays, meta))
    new = base_panel().sel(start=DATES[45])
    assert_same(model, restored, new)
    np.testing.assert_array_equal(model.expected_returns(new).values, restored.expected_returns(new).values)
    again = restored.state()
    assert again.meta == state.meta
    for name, array in state.arrays.items():
        np.testing.assert_array_equal(again.arrays[name], array)


@every_model
def test_next_session_has_loadings_but_no_factor_returns(case: Case) -> None:
    frame = long_frame()
    frame.loc[frame["date"] == DATES[-1], "ret"] = np.nan  # characteristics of the day before are known
    panel, model = to_panel(frame), fitted(case)
    assert np.isnan(model.factor_returns(panel).values[-1]).all()
    covered = panel.coverage.values[-1]
    assert covered.sum() > 10
    loadings = model.loadings(panel).values
    assert np.isfinite(loadings[-1, covered]).all()
    np.testing.assert_array_equal(loadings, model.loadings(base_panel()).values)


@every_model
def test_loadings_follow_the_tickers_of_the_panel(case: Case) -> None:
    panel, model = base_panel(), fitted(case)
    chosen = [7, 3, 12, 4, 9, 2]
    if not case.alone:
        chosen += sorted({*range(N_STOCKS)} - {*chosen})
    some = Panel(panel.data.isel(ticker=chosen))
    np.testing.assert_allclose(model.loadings(some).values, model.loadings(panel).values[:, chosen], atol=1e-12)
    assert model.factor_returns(some).shape == (N_DATES, len(model.factors_))


@cache
def said(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Return loadings and factor returns on the panel of all tests."""
    model = fitted(case)
    return model.loadings(base_panel()).values, model.factor_returns(base_panel()).values


@settings(max_examples=6, deadline=None)
@given(cut=st.integers(5, N_DATES - 1), seed=st.integers(1, 1000))
@every_model
def test_the_future_does_not_reach_the_past(case: Case, cut: int, seed: int) -> None:
    """Everything at and after a date is replaced: before it nothing moves, and at it the loadings do not."""
    frame, other = long_frame(), long_frame(seed)
    later = frame["date"] >= DATES[cut]
    frame.loc[later, ["ret", *CHARS]] = other.loc[later, ["ret", *CHARS]]
    panel, model = to_panel(frame), fitted(case)
    loadings, factors = said(case)
    np.testing.assert_array_equal(model.loadings(panel).values[: cut + 1], loadings[: cut + 1])
    found = model.factor_returns(panel).values
    np.testing.assert_array_equal(found[:cut], factors[:cut])
    assert not np.array_equal(found[cut], factors[cut])


@every_model
def test_a_fit_up_to_a_date_knows_nothing_after_it(case: Case) -> None:
    frame, other = long_frame(), long_frame(1)
    later = frame["date"] > DATES[44]
    frame.loc[later, ["ret", *CHARS]] = other.loc[later, ["ret", *CHARS]]
    model = case.fit(to_panel(frame).sel(end=DATES[44]))
    assert_same(model, fitted(case), base_panel())


@settings(max_examples=5, deadline=None)
@given(order=st.permutations(range(N_STOCKS)))
@invariant_models
def test_the_order_of_tickers_does_not_matter(case: Case, order: list[int]) -> None:
    panel = base_panel()
    permuted = Panel(panel.data.isel(ticker=list(order)))
    model = case.fit(permuted.sel(end=DATES[44]))
    np.testing.assert_allclose(model.premia_, fitted(case).premia_, atol=1e-8)
    np.testing.assert_allclose(
        model.loadings(permuted).values, fitted(case).loadings(panel).values[:, list(order)], atol=1e-6
    )


@settings(max_examples=5, deadline=None)
@given(scale=st.sampled_from([1e-3, 0.5, 100.0]))
@invariant_models
def test_returns_in_other_units_scale_the_factors_alone(case: Case, scale: float) -> None:
    panel = base_panel()
    scaled = Panel(panel.data.assign(returns=panel.returns * scale, factors=panel.factors * scale))
    model = case.fit(scaled.sel(end=DATES[44]))
    np.testing.assert_allclose(model.loadings(scaled).values, fitted(case).loadings(panel).values, atol=1e-6)
    np.testing.assert_allclose(model.premia_, scale * fitted(case).premia_, rtol=1e-5)
    factors = scale * fitted(case).factor_returns(panel).values
    np.testing.assert_allclose(model.factor_returns(scaled).values, factors, atol=1e-6 * np.nanmax(np.abs(factors)))


MASKED = ((20, 4), (33, 7), (50, 9))
IN_ROWS = ("loadings", "expected_returns", "factor_returns", "residuals")
UNCOVERED = (8, 0)  # a first return, before which nothing is known of the stock


def masked_panel(values: tuple[float, ...] | None = None) -> Panel:
    """Panel in which a check suspects four returns, which are then what is given."""
    data = base_panel().data.copy(deep=True)
    cells = (*MASKED, UNCOVERED)
    assert [bool(data["mask"].values[cell]) for cell in cells] == [True, True, True, False]
    for place, cell in enumerate(cells):
        assert np.isfinite(data["returns"].values[cell])
        data["mask"].values[cell] = data["trusted"].values[cell] = False
        if values is not None:
            data["returns"].values[cell] = values[place]
    return Panel(data)


def everything(case: Case, panel: Panel) -> dict[str, object]:
    """All that a model says: of its fit, in the rows of a version, and by each other public method of a panel."""
    model = case.fit(panel.sel(end=DATES[44]))
    found: dict[str, object] = {"state": model.state().arrays, "statistics": model.statistics()}
    for name, method in inspect.getmembers(model, inspect.ismethod):
        needed = [
            key for key, one in inspect.signature(method).parameters.items() if one.default is inspect.Parameter.empty
        ]
        if needed == ["panel"] and not name.startswith(("_", "fit")) and name not in IN_ROWS:
            found[name] = method(panel)
    return found | {"rows": list(rows_of(model, panel, 0, N_DATES))}


@cache
def everything_masked(case: Case) -> dict[str, object]:
    return everything(case, masked_panel())


@settings(max_examples=2, deadline=None)
@given(values=st.tuples(*[st.sampled_from(ABSURD)] * 4))
@every_model
def test_a_masked_return_moves_no_number(case: Case, values: tuple[float, ...]) -> None:
    """Neither of the fit nor of any row, and no residual from which a specific variance is estimated."""
    assert_unmoved(everything_masked(case), everything(case, masked_panel(values)))


def test_every_family_is_tested() -> None:
    assert {type(case.build()) for case in CASES} >= {family(kind) for kind in kinds()}


WIDE_DATES, WIDE_STOCKS, TRAINED = 90, 61, 70
WIDE_CHARS = [f"char_{n}" for n in range(7)]


@cache
def wide_panel() -> Panel:
    """Panel of enough stocks that a product over them is rounded by its shape; listings come, go and pause."""
    rng = np.random.default_rng(5)
    dates = pd.bdate_range("2019-01-01", periods=WIDE_DATES)
    index = pd.MultiIndex.from_product([dates, [f"S{i:02d}" for i in range(WIDE_STOCKS)]], names=["date", "ticker"])
    characteristics = rng.standard_normal((WIDE_DATES, WIDE_STOCKS, len(WIDE_CHARS)))
    factors = 0.01 * rng.standard_normal((WIDE_DATES, 3))
    returns = factors[:, :1] + 0.5 * np.einsum("tnl,tl->tn", np.roll(characteristics[..., :3], 1, axis=0), factors)
    returns += 0.01 * rng.standard_normal(returns.shape)
    returns[rng.random(returns.shape) < 0.03] = np.nan
    for stock, begin in enumerate(rng.integers(0, WIDE_DATES, 12)):
        returns[:begin, 3 * stock] = characteristics[:begin, 3 * stock] = np.nan
    returns[75:, 1] = characteristics[75:, 1] = np.nan
    frame = pd.DataFrame(
        {"ret": returns.ravel(), **dict(zip(WIDE_CHARS, characteristics.reshape(-1, len(WIDE_CHARS)).T, strict=True))},
        index=index,
    ).reset_index()
    frame["industry"] = frame["ticker"].str[-1].map(lambda digit: f"industry {int(digit) % 4}")
    means = frame.assign(average=frame["ret"], early=frame["ret"].where(frame["ticker"] < "S05"))
    return Panel.from_long(
        frame,
        characteristics=WIDE_CHARS,
        lag=1,
        constant=False,
        factors=means.groupby("date")[["average", "early"]].mean(),
        industry="industry",
    )


@cache
def fitted_wide(case: Case) -> FactorModel:
    panel = wide_panel()
    return case.fit(panel.sel(end=panel.dates[TRAINED - 1]))


def answers(model: FactorModel, panel: Panel) -> dict[str, np.ndarray]:
    stated = model.own_specific_variance(panel)
    return {
        "loadings": model.loadings(panel).values,
        "factor_returns": model.factor_returns(panel).values,
        "expected_returns": model.expected_returns(panel).values,
        "fitted_returns": model.fitted_returns(panel).values,
        **({} if stated is None else {"own_specific_variance": stated}),
    }


@cache
def whole(case: Case) -> dict[str, np.ndarray]:
    return answers(fitted_wide(case), wide_panel())


@every_model
@pytest.mark.parametrize("date", [12, 70, WIDE_DATES - 1])
def test_a_row_alone_is_the_row_in_the_panel(case: Case, date: int) -> None:
    """With its memory before it, and without the stocks that appear later."""
    model, panel = fitted_wide(case), wide_panel()
    seen = np.flatnonzero(panel.coverage.values[: date + 1].any(axis=0))
    rows = Panel(panel.data.isel(date=slice(date - model.row_memory, date + 1), ticker=seen)).load()
    for name, values in answers(model, rows).items():
        known = whole(case)[name][date]
        np.testing.assert_array_equal(values[-1], known if name == "factor_returns" else known[seen], err_msg=name)


@every_model
def test_rows_do_not_depend_on_the_block_that_they_are_made_in(case: Case) -> None:
    """Nor on the stocks that are not there in it: one is delisted before the last block."""
    model, panel = fitted_wide(case), wide_panel()
    there = panel.coverage.values | panel.returns.notnull().values
    assert not there[78:].any(axis=0).all()
    for begin, end in ((20, 31), (31, 78), (78, WIDE_DATES)):
        first = max(begin - model.row_memory, 0)
        seen = there[first:end].any(axis=0)
        part = Panel(panel.data.isel(date=slice(first, end), ticker=seen)).load()
        for name, values in answers(model, part).items():
            known = whole(case)[name][begin:end]
            own = known if name == "factor_returns" else known[:, seen]
            np.testing.assert_array_equal(values[begin - first :], own, err_msg=name)
