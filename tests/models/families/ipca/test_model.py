from __future__ import annotations

import warnings

import numpy as np
import pytest
from instrumented import instrumented
from sklearn.exceptions import ConvergenceWarning

from models.families.ipca import IPCA
from models.panel import Panel
from schemas.errors import ModelError


def test_one_missing_return_is_the_same_as_its_row_deleted() -> None:
    returns, characteristics, _ = instrumented()
    returns[7, 3] = np.nan
    deleted = characteristics.copy()
    deleted[7, 3] = np.nan
    model = IPCA(2).fit(Panel.from_arrays(returns, characteristics))
    other = IPCA(2).fit(Panel.from_arrays(returns, deleted))
    np.testing.assert_array_equal(model.gamma_.values, other.gamma_.values)
    assert np.isfinite(model.loadings(Panel.from_arrays(returns, characteristics)).values[7, 3]).all()


def test_without_noise_the_truth_is_found_and_normalised() -> None:
    returns, characteristics, gamma = instrumented(noise=0.0, n_factors=3)
    panel = Panel.from_arrays(returns, characteristics)
    model = IPCA(3, tol=1e-12).fit(panel)
    ours, factors = model.gamma_.values, model.factor_returns(panel).values
    np.testing.assert_allclose(ours @ ours.T, gamma @ gamma.T, atol=1e-8)
    np.testing.assert_allclose(ours.T @ ours, np.eye(3), atol=1e-12)
    second = factors.T @ factors / len(factors)
    np.testing.assert_allclose(second, np.diag(np.diag(second)), atol=1e-12)
    assert (np.diff(np.diag(second)) < 0).all()
    assert (model.premia_ > 0).all()
    np.testing.assert_allclose(model.premia_, factors.mean(axis=0), rtol=1e-10)
    np.testing.assert_allclose(model.fitted_returns(panel).values, returns, atol=1e-10)


def test_the_limit_is_reported_and_never_called_convergence() -> None:
    panel = Panel.from_arrays(*instrumented(noise=0.2)[:2])
    with pytest.warns(ConvergenceWarning, match="max_iter=3"):
        model = IPCA(2, max_iter=3, tol=1e-14).fit(panel)
    assert (model.converged_, model.n_iter_) == (False, 3)
    assert model.last_change_ > 1e-14
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = IPCA(2).fit(panel)
    assert model.converged_
    assert model.last_change_ <= 1e-6


def test_singular_dates_are_dropped_and_counted() -> None:
    returns, characteristics, _ = instrumented()
    returns[4, 1:] = np.nan  # one stock does not carry two factors
    characteristics[5] = characteristics[5, :1]  # all stocks alike
    returns[6] = np.nan  # nobody
    panel = Panel.from_arrays(returns, characteristics)
    model = IPCA(2, tol=1e-10).fit(panel)
    factors = model.factor_returns(panel).values
    assert np.flatnonzero(np.isnan(factors).any(axis=1)).tolist() == [4, 5, 6]
    assert model.n_dropped_ == 2
    kept = Panel(panel.data.isel(date=np.delete(np.arange(60), [4, 5, 6])))
    other = IPCA(2, tol=1e-10).fit(kept)
    np.testing.assert_allclose(model.gamma_.values, other.gamma_.values, atol=1e-8)
    np.testing.assert_allclose(model.premia_, other.premia_, rtol=1e-6)


def test_what_the_data_do_not_carry_is_refused_with_reasons() -> None:
    returns, characteristics, _ = instrumented(n_factors=2, noise=0.0)
    panel = Panel.from_arrays(returns, characteristics, chars=["mom", "size", "beta", "value", "vol"])
    with pytest.raises(ModelError, match="n_factors=6 must be from 1 to the number of characteristics, 5"):
        IPCA(6).fit(panel)
    with pytest.raises(ModelError, match=r"n_factors=3 .* 0 of 60 dates have them .*2 stocks"):
        IPCA(3).fit(Panel(panel.data.isel(ticker=[0, 1])))
    with pytest.raises(ModelError, match="n_factors=4 exceeds the number of factors"):
        IPCA(4).fit(Panel.from_arrays(returns * 0.0, characteristics))
    characteristics[..., 4] = characteristics[..., 1]
    twice = Panel.from_arrays(returns, characteristics, chars=panel.chars)
    with pytest.raises(ModelError, match=r"\['size', 'vol'\] are collinear"):
        IPCA(2).fit(twice)
    characteristics[..., 4] = 0.0
    with pytest.raises(ModelError, match=r"\['vol'\] are zero"):
        IPCA(2).fit(Panel.from_arrays(returns, characteristics, chars=panel.chars))
