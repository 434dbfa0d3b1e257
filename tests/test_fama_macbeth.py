from __future__ import annotations

import linearmodels
import numpy as np
import pandas as pd
import pytest

from models.fama_macbeth import FamaMacBeth
from models.gram import GramStatistics, gram_statistics, managed_portfolios
from models.panel import Panel
from schemas.errors import ModelError


def unbalanced(n_dates: int = 90, n_stocks: int = 25, n_chars: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Simulate returns with gaps, and float32 characteristics that are missing for whole rows."""
    rng = np.random.default_rng(seed)
    characteristics = rng.standard_normal((n_dates, n_stocks, n_chars)).astype(np.float32)
    slopes = np.cumsum(0.002 * rng.standard_normal((n_dates, n_chars)), axis=0) + 0.01
    returns = np.einsum("tnl,tl->tn", characteristics, slopes)
    returns += 0.005 + 0.05 * rng.standard_normal((n_dates, n_stocks))
    returns[rng.random(returns.shape) < 0.2] = np.nan
    characteristics[rng.random(returns.shape) < 0.1] = np.nan
    returns[:30, :5] = np.nan
    return returns, characteristics


def peer_fit(panel: Panel, lags: int) -> linearmodels.panel.results.FamaMacBethResults:
    """Linearmodels on the same rows: Bartlett kernel, bandwidth ``lags``, divisor T."""
    date, stock = np.nonzero(panel.mask.values)
    index = pd.MultiIndex.from_arrays([stock, panel.dates[date]], names=["entity", "time"])
    exog = pd.DataFrame(panel.characteristics.values[date, stock].astype(float), index, panel.chars)
    exog.insert(0, "intercept", 1.0)
    dependent = pd.DataFrame({"ret": panel.returns.values[date, stock]}, index)
    model = linearmodels.FamaMacBeth(dependent, exog)
    return model.fit(cov_type="kernel", kernel="bartlett", bandwidth=lags, debiased=False)


@pytest.mark.parametrize("lags", [0, 3, None])
def test_premia_and_errors_agree_with_linearmodels_on_missing_data(lags: int | None) -> None:
    panel = Panel.from_arrays(*unbalanced())
    model = FamaMacBeth(newey_west_lags=lags).fit(panel)
    peer = peer_fit(panel, 3 if lags is None else lags)  # floor(4 (90 / 100)^(2/9)) = 3
    assert model.factors_ == ["intercept", *panel.chars]
    np.testing.assert_allclose(model.premia_, peer.params.values, rtol=1e-8)
    np.testing.assert_allclose(model.premia_stderr_, peer.std_errors.values, rtol=1e-8)
    np.testing.assert_allclose(model.t_statistics_, peer.tstats.values, rtol=1e-8)
    slopes = model.factor_returns(panel).values
    np.testing.assert_allclose(slopes, peer.all_params.values, rtol=1e-8, atol=1e-12)


@pytest.mark.filterwarnings("ignore:.*deficient rank")
def test_deficient_dates_are_dropped_and_counted() -> None:
    returns, characteristics = unbalanced()
    characteristics[10, :, 1] = 2.0 * characteristics[10, :, 0]  # collinear
    characteristics[11, :, 2] = 1.0  # collinear with the intercept
    covered = np.flatnonzero(np.isfinite(characteristics[12]).all(axis=1))
    returns[12] = np.nan
    returns[12, covered[:4]] = 0.01  # as many stocks as regressors: slopes without a residual
    returns[13] = np.nan  # nobody: no date to be counted
    panel = Panel.from_arrays(returns, characteristics)
    model = FamaMacBeth(newey_west_lags=2).fit(panel)
    slopes = model.factor_returns(panel).values
    assert np.flatnonzero(np.isnan(slopes).all(axis=1)).tolist() == [10, 11, 12, 13]
    assert (model.n_dropped_, model.n_dates_) == (3, 86)
    without = Panel(panel.data.isel(date=np.delete(np.arange(90), [12, 13])))
    peer = peer_fit(without, 2)
    np.testing.assert_allclose(model.premia_, peer.params.values, rtol=1e-8)
    np.testing.assert_allclose(model.premia_stderr_, peer.std_errors.values, rtol=1e-8)
    assert np.isfinite(FamaMacBeth(min_stocks=4).fit(panel).factor_returns(panel).values[12]).all()


def test_a_constant_characteristic_takes_the_place_of_the_intercept() -> None:
    returns, characteristics = unbalanced()
    ones = np.where(np.isfinite(characteristics[..., :1]), np.float32(1.0), np.float32(np.nan))
    plain = FamaMacBeth().fit(Panel.from_arrays(returns, characteristics))
    panel = Panel.from_arrays(
        returns, np.concatenate([characteristics, ones], axis=2), chars=["a", "b", "c", "constant"]
    )
    model = FamaMacBeth().fit(panel)
    assert model.factors_ == ["a", "b", "c", "constant"]
    np.testing.assert_allclose(model.premia_[[3, 0, 1, 2]], plain.premia_, rtol=1e-10)
    np.testing.assert_array_equal(model.loadings(panel).values, panel.characteristics.values)
    np.testing.assert_allclose(
        model.residuals(panel).values,
        plain.residuals(Panel.from_arrays(returns, characteristics)).values,
        atol=1e-12,
    )


def test_characteristics_are_found_by_name() -> None:
    panel = Panel.from_arrays(*unbalanced(), chars=["a", "b", "c"])
    model = FamaMacBeth().fit(panel)
    permuted = Panel(panel.data.isel(char=[2, 0, 1]))
    np.testing.assert_array_equal(model.loadings(permuted).values, model.loadings(panel).values)
    np.testing.assert_array_equal(model.factor_returns(permuted).values, model.factor_returns(panel).values)
    with pytest.raises(ModelError, match=r"lacks.*\['b'\]"):
        model.loadings(Panel(panel.data.isel(char=[0, 2])))
    with pytest.raises(ModelError, match="Only 0 of 90 dates"):
        FamaMacBeth(min_stocks=1000).fit(panel)


def test_gram_statistics_agree_with_plain_products_and_join() -> None:
    returns, characteristics = unbalanced(n_dates=300)  # more than one block
    panel = Panel.from_arrays(returns, characteristics)
    weight = np.random.default_rng(0).uniform(0.5, 2.0, returns.shape)
    weights = panel.returns.copy(data=weight)
    gram = gram_statistics(panel, weights=weights, intercept=True)
    for t in (0, 29, 255, 256, 299):
        known = panel.mask.values[t]
        Z = np.column_stack([np.ones(known.sum()), characteristics[t, known].astype(float)])
        w, r = weight[t, known], returns[t, known]
        np.testing.assert_allclose(gram.zz[t], (Z.T * w) @ Z, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(gram.zr[t], (Z.T * w) @ r, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(gram.rr[t], (w * r) @ r, rtol=1e-12)
        assert gram.n[t] == known.sum()
    cut = panel.dates[100]
    joined = GramStatistics.concat([gram.sel(end=cut), gram.sel(start=panel.dates[101])])
    np.testing.assert_array_equal(joined.zz, gram.zz)
    assert joined.dates.equals(panel.dates)
    with pytest.raises(ModelError, match="follow one another"):
        GramStatistics.concat([gram.sel(end=cut), gram.sel(start=cut)])


def test_managed_portfolios_are_finite_at_any_rank() -> None:
    returns, characteristics = unbalanced()
    characteristics[5, :, 1] = -characteristics[5, :, 0]
    returns[6, 2:] = np.nan
    returns[6, :2], characteristics[6, :2] = 0.01, [[1.0, 2.0, 3.0], [0.0, 1.0, -1.0]]
    returns[7] = np.nan
    panel = Panel.from_arrays(returns, characteristics)
    portfolios = managed_portfolios(gram_statistics(panel))
    assert np.isnan(portfolios[7]).all()
    assert np.isfinite(np.delete(portfolios, 7, axis=0)).all()
    for t in (0, 5, 6, 89):  # whatever the solution, the fit is that of least squares
        known = panel.mask.values[t]
        Z, r = characteristics[t, known].astype(float), returns[t, known]
        peer = np.linalg.lstsq(Z, r)[0]
        np.testing.assert_allclose(Z @ portfolios[t], Z @ peer, atol=1e-10)


def test_characteristics_that_nobody_has_are_named():
    rng = np.random.default_rng(0)
    characteristics = rng.uniform(-1.0, 1.0, (30, 20, 3)).astype(np.float32)
    characteristics[:, :, 1] = 0.0
    panel = Panel.from_arrays(rng.normal(size=(30, 20)), characteristics, chars=["size", "mom36m", "value"])
    with pytest.raises(ModelError, match=r"No stock has mom36m on most of them"):
        FamaMacBeth().fit(panel)
