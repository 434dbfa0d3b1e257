"""Very many portfolios at once are each what `RiskModel` says of them."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from risk_models import COORDS, N_TICKERS, at_last, dense, small_model

from models.risk import many
from models.risk.many import portfolio_variances
from models.risk.portfolio import RiskModel
from schemas.errors import DataError


def weights_of(n: int, dtype: str = "float64") -> xr.DataArray:
    values = np.random.default_rng(2).normal(size=(n, N_TICKERS)).astype(dtype)
    return xr.DataArray(values, {"portfolio": np.arange(n), "ticker": COORDS["ticker"]}, ("portfolio", "ticker"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_portfolio_has_its_dense_variance(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "_CELLS_IN_CACHE", 10 * N_TICKERS)
    model, weights = at_last(small_model()), weights_of(47, dtype)
    w = weights.values.astype(np.float64)
    found = portfolio_variances(model, weights)
    np.testing.assert_allclose(found["portfolio_variance"], np.einsum("pi,ij,pj->p", w, dense(model), w), rtol=1e-10)
    some = weights[:, [5, 1, 8]]
    parts = model.decompose(some)
    for name, part in portfolio_variances(model, some).data_vars.items():
        np.testing.assert_allclose(part, parts[name], rtol=1e-10, err_msg=str(name))


def test_what_is_not_covered_or_not_defined_is_nan_for_that_portfolio_alone() -> None:
    whole = at_last(small_model())
    loadings = whole.loadings.copy(deep=True)
    loadings[3, 1] = np.nan
    model, weights = RiskModel(loadings, whole.omega, whole.specific_variance), weights_of(30)
    weights[5:, 3] = 0.0
    weights[7, 0] = np.nan
    weights[8, 3] = np.nan
    found = portfolio_variances(model, weights)
    expected = model.decompose(weights)
    assert list(np.flatnonzero(np.isnan(found["portfolio_variance"]))) == [0, 1, 2, 3, 4, 7, 8]
    for name, part in found.data_vars.items():
        np.testing.assert_allclose(part, expected[name], rtol=1e-10, err_msg=str(name))


def test_dates_and_unknown_tickers_are_refused() -> None:
    with pytest.raises(DataError, match="without dates"):
        portfolio_variances(small_model(), weights_of(3))
    with pytest.raises(DataError, match="XYZ"):
        portfolio_variances(at_last(small_model()), weights_of(3).assign_coords(ticker=[*COORDS["ticker"][1:], "XYZ"]))
